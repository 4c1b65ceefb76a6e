"""Keep the schema that editors check paropt.yml with where the file says it is: beside the history, out of git."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from paropt_exporter import files

SCHEMA = ".paropt/paropt.schema.json"  # editors find it without a network
_HEAD_BYTES = 1000  # of a config: the line that names a schema stands at its top


def write_schema(root: Path) -> None:
    """Write the schema of this version for the project in `root`, unless it is there. Raises OSError."""
    from paropt_exporter.history import folder
    from paropt_exporter.monitoring import schema

    path, text = root / SCHEMA, schema.render()
    root.stat()  # a folder that is missing is not made
    files.make_folder(path.parent)
    folder.keep_out_of_git(path.parent)
    if not _has(path, text.encode()):
        write(path, text)


def refresh_schema(config_path: Path) -> None:
    """Write the schema where a config names it: a fresh clone has none, and that of an earlier version is wrong."""
    with suppress(OSError):  # a folder that can't be written is no fault of the config's
        if config_path.is_file() and _names_it(config_path):
            write_schema(config_path.parent)


def write(path: Path, text: str) -> None:
    """Write by renaming, so that a full disk leaves no half file; a link there is replaced, not followed."""
    files.replace_file(path, text.encode())


def _has(path: Path, content: bytes) -> bool:
    try:
        return files.read_file(path, len(content)) == content
    except OSError:
        return False


def _names_it(config_path: Path) -> bool:
    with config_path.open("rb") as file:
        return f"$schema={SCHEMA}\n".encode() in file.read(_HEAD_BYTES)
