"""Find out which build of the package this is."""

from __future__ import annotations

from pathlib import Path

UNKNOWN = "unknown"
_CHECKOUT = Path(__file__).parents[3]  # the repository's root, where the package runs from a checkout
_REVISION_CHARACTERS = 12


def revision(root: Path = _CHECKOUT) -> str:
    """Return the git commit that a checkout is at, or "unknown" for an installed package.

    Read from git's files: a `git` process would cost more than the rest of the start-up.
    """
    folder = root / ".git"
    head = _read(folder / "HEAD")
    name = head.removeprefix("ref: ")
    commit = head if name == head else _read(folder / name) or _packed(folder, name)
    return commit[:_REVISION_CHARACTERS] or UNKNOWN


def _packed(folder: Path, name: str) -> str:
    lines = (line.split(" ") for line in _read(folder / "packed-refs").splitlines())
    return next((line[0] for line in lines if line[1:] == [name]), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
