"""The guide's lanes, and the choice of one for a change."""

from __future__ import annotations

import os
from collections.abc import Iterable
from enum import StrEnum
from os import PathLike
from pathlib import Path

from paropt_exporter.config import lanes


class LaneType(StrEnum):
    """A way of running the workflow, chosen for a change by `detect_lane`."""

    DOCS = lanes.DOCS
    STANDARD = lanes.STANDARD
    HEAVY = lanes.HEAVY


def detect_lane(paths: Iterable[str | PathLike[str]] | None = None, asked: LaneType | str | None = None) -> LaneType:
    """Return the lane for changed files: paths with `/`, relative to the project; None: the changes that git finds.

    `asked` overrides the choice. Raises UsageError for the docs lane if other files than documents changed. Git may
    block for 20 s.
    """
    if isinstance(paths, str):  # each letter would count as a path
        raise TypeError(f"paths is {paths!r}: expected a list of paths")
    changed = None if paths is None else [os.fspath(path) for path in paths]
    if asked is None:
        lane, _ = lanes.choose_lane(Path.cwd()) if changed is None else lanes.classify_change(changed)
        return LaneType(lane)
    if LaneType(asked) is LaneType.DOCS:
        lanes.require_docs_only(lanes.find_changed_paths(Path.cwd()) if changed is None else changed)
    return LaneType(asked)
