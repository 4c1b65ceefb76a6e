"""Keeps what adaptive pools learned of functions in a file, so that the next one need not find it out again."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paropt_exporter import files

log = logging.getLogger(__name__)

MEMORY_NAME = "functions.json"  # beside a project's history
_MOST_KEPT = 10_000  # functions
_MOST_BYTES = 16_000_000  # of the file: as many functions with names of a kilobyte


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionProfile:
    """What is known of a function: the share of a core that one of its tasks takes (0..1), and how long it takes.

    `children_demand`: how many cores the child processes of one of its tasks want.
    """

    function: str
    share: float
    seconds: float
    children_demand: float = 0.0


def recall(path: Path) -> tuple[FunctionProfile, ...]:
    """Read what was kept; nothing, with a warning, where it can't be read."""
    try:
        found = json.loads(files.read_file(path, _MOST_BYTES))["functions"]
        return tuple(_profile(name, **entry) for name, entry in found.items())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("what pools learned before can't be read", extra={"path": str(path), "err": repr(error)})
        return ()


def remember(path: Path, profiles: Iterable[FunctionProfile]) -> None:
    """Add profiles to the file, the newest of a function in the place of older ones; a warning where it can't be."""
    kept = {profile.function: profile for profile in recall(path)}
    for profile in profiles:
        kept.pop(profile.function, None)
        kept[profile.function] = profile
    newest = list(kept.values())[-_MOST_KEPT:]
    content = {
        entry.function: {"share": entry.share, "seconds": entry.seconds, "children_demand": entry.children_demand}
        for entry in newest
    }
    try:
        files.make_folder(path.parent)
        files.replace_file(path, json.dumps({"functions": content}, indent=1).encode(), mode=files.PRIVATE_FILE)
    except OSError as error:
        log.warning("what this pool learned can't be kept", extra={"path": str(path), "err": str(error)})


def _profile(name: str, *, share: float, seconds: float, children_demand: float = 0.0) -> FunctionProfile:
    if not (0 <= share <= 1 and 0 <= seconds < math.inf and 0 <= children_demand < math.inf):
        raise ValueError(f"{name}: a share of {share!r}, {seconds!r} seconds and {children_demand!r} cores")
    return FunctionProfile(
        function=name, share=float(share), seconds=float(seconds), children_demand=float(children_demand)
    )
