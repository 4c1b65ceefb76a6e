"""Where a finding is, as the consumer of a report names files: relative to the repository's top folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

_TOPS = ("GITHUB_WORKSPACE", "CI_PROJECT_DIR")  # as GitHub and GitLab name the folder of the checkout


def find_top_folder(root: Path, environment: Mapping[str, str]) -> Path:
    """Return the top folder of the repository that `root` is or lies in, as the CI says it; otherwise `root`."""
    tops = [Path(environment[name]) for name in _TOPS if environment.get(name)]
    return next((top for top in tops if _normalize(root).is_relative_to(_normalize(top))), root)


@lru_cache(maxsize=1024)  # a file often has many findings
def find_repository_path(path: str | None, folder: Path, top: Path) -> str | None:
    """Return a path that is relative to `folder`, or absolute, as one below `top`; None if it is outside."""
    if path is None:
        return None
    try:
        return _normalize(folder / path).relative_to(_normalize(top)).as_posix()
    except ValueError:
        return None


def _normalize(path: Path) -> Path:
    """Return the path without `.` and `..`; links stay, since a repository knows its files by their names."""
    return Path(os.path.normpath(path.absolute()))
