"""Implement `--write`: set values in the project's paropt.yml."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter import files
from paropt_exporter.config.editing import CannotEdit, Changes, edit_text
from paropt_exporter.errors import UsageError

if TYPE_CHECKING:
    from paropt_exporter.config import Config


def edit_config(config: Config, changes: Changes, *, by_hand: str) -> tuple[Path, bytes]:
    """Return the path of the config's file, with links resolved, and its new content. Writes nothing.

    `by_hand` is the remedy for the error message. Raises UsageError if the file can't be written or edited.
    """
    if config.path is None:
        raise UsageError("--write: there is no paropt.yml to write to: paropt-exporter init makes one")
    file = config.path.resolve()
    if not file.is_file() or not os.access(file.parent, os.W_OK):
        raise UsageError(f"--write: {config.path} can't be written")
    content = file.read_bytes()
    text = content.decode("utf-8-sig")
    mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
    try:
        after = edit_text(text, changes)
    except CannotEdit as error:
        raise UsageError(f"--write: {config.path}: {error}: {by_hand}") from None
    return file, mark + after.encode()


def write_config(config: Config, changes: Changes, *, by_hand: str) -> None:
    """Replace the file atomically. Raises UsageError like `edit_config`."""
    file, content = edit_config(config, changes, by_hand=by_hand)
    try:
        files.replace_file(file, content, mode=file.stat().st_mode & 0o7777, sync=True)
    except OSError as error:
        raise UsageError(f"--write: {config.path} can't be written: {error.strerror}") from None
