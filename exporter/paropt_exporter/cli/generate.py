"""`paropt-exporter generate`: write the files that are derived from the code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from paropt_exporter.errors import UsageError
from paropt_exporter.generate import reference, schema

# What can be generated: the file, below the folder asked for, and what renders it.
_FILES: dict[str, tuple[str, Callable[[], str]]] = {
    "schema": ("docs/paropt.schema.json", schema.render),
    "docs": ("docs/metrics.md", reference.render),
}


def run(what: Sequence[str], out: Path, *, stdout: TextIO) -> int:
    """Write the kinds named (none: all) below `out`; a file that is already as it should be is left alone."""
    unknown = [kind for kind in what if kind not in _FILES]
    if unknown:
        raise UsageError(f"generate: cannot generate {unknown[0]!r}; there are {', '.join(_FILES)}")
    for kind in what or _FILES:
        name, render = _FILES[kind]
        _write(out / name, render(), stdout)
    return 0


def _write(path: Path, text: str, stdout: TextIO) -> None:
    try:
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            print(f"{path} is up to date", file=stdout)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"generate: cannot write {path}: {error.strerror}: choose another --out") from None
    print(f"wrote {path}", file=stdout)
