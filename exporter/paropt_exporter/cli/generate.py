"""`generate`: write the files that are generated from the code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from paropt_exporter.errors import UsageError
from paropt_exporter.monitoring import outputs
from paropt_exporter.monitoring.options import Options


def run(kinds: Sequence[str], out: Path | None, options: Options, *, stdout: TextIO) -> int:
    """Write the files of the given kinds, or of all, below `out`. Files that are up to date stay untouched.

    Without both it is a UsageError: all kinds in the current folder could replace a project's own docs/runbook.md.
    """
    if not kinds and out is None:
        raise UsageError(
            f"generate: name what to write ({', '.join(outputs.KINDS)}), or add --out DIR to write everything"
        )
    for name, text in outputs.render_files(kinds, options).items():
        _write_file((out or Path()) / name, text, stdout)
    return 0


def _write_file(path: Path, text: str, stdout: TextIO) -> None:
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            print(f"{path} is up to date", file=stdout)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"generate: cannot write {path}: {error.strerror}: choose another --out") from None
    print(f"wrote {path}", file=stdout)
