"""Keep the schema that editors check paropt.yml with where the file says it is: beside the history, out of git."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SCHEMA = ".paropt/paropt.schema.json"  # editors find it without a network
_HEAD_BYTES = 1000  # of a config: the line that names a schema stands at its top


def write_schema(root: Path) -> None:
    """Write the schema of this version for the project in `root`, unless it is there. Raises OSError."""
    from paropt_exporter.generate import schema
    from paropt_exporter.history import folder

    path, text = root / SCHEMA, schema.render()
    path.parent.mkdir(exist_ok=True)
    folder.keep_out_of_git(path.parent)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write(path, text)


def refresh_schema(config_path: Path) -> None:
    """Write the schema where a config names it: a fresh clone has none, and that of an earlier version is wrong."""
    with suppress(OSError):  # a folder that can't be written is no fault of the config's
        if config_path.is_file() and _names_it(config_path):
            write_schema(config_path.parent)


def write(path: Path, text: str) -> None:
    """Write by renaming, so that a full disk leaves no half file; a link there is replaced, not followed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _names_it(config_path: Path) -> bool:
    with config_path.open("rb") as file:
        return f"$schema={SCHEMA}\n".encode() in file.read(_HEAD_BYTES)
