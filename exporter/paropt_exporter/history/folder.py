"""Keep the history, which is this machine's own, out of version control."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from paropt_exporter.files import OWN_FOLDER

# A history that git tracks changes with each run, and `--lane auto` would see a change in every one.
_IGNORE = "# Made by paropt-exporter: history and schema are this machine's own.\n*\n"


def keep_out_of_git(folder: Path) -> None:
    """Have git ignore the history in a folder of ours; a folder of another name is the user's affair."""
    if folder.name != OWN_FOLDER:
        return
    with suppress(OSError), (folder / ".gitignore").open("x", encoding="utf-8") as file:  # there already, or read-only
        file.write(_IGNORE)
