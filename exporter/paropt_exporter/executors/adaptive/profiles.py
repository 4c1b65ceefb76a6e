"""Save function profiles of adaptive pools to a file, so that later pools do not measure the functions again."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paropt_exporter import files

log = logging.getLogger(__name__)

PROFILES_NAME = "functions.json"  # beside a project's history
_MAX_PROFILES = 10_000
_MAX_BYTES = 16_000_000  # of the file: the most profiles, each with a name of a kilobyte


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionProfile:
    """The mean CPU demand (0 to 1 core) and duration of a function's tasks.

    `children_demand`: the CPU demand of the child processes of one task, in cores.
    """

    function: str
    cpu_demand: float
    seconds: float
    children_demand: float = 0.0


def load_profiles(path: Path) -> tuple[FunctionProfile, ...]:
    """Read the profiles in a file. If it can't be read, log a warning and return none."""
    try:
        found = json.loads(files.read_file(path, _MAX_BYTES))["functions"]
        return tuple(_parse_profile(name, **entry) for name, entry in found.items())
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.warning("function profiles can't be read", extra={"path": str(path), "err": repr(error)})
        return ()


def save_profiles(path: Path, profiles: Iterable[FunctionProfile]) -> None:
    """Add profiles to the file; a new profile replaces the old one of its function. Log a warning if this fails."""
    kept = {profile.function: profile for profile in load_profiles(path)}
    for profile in profiles:
        kept.pop(profile.function, None)
        kept[profile.function] = profile
    newest = list(kept.values())[-_MAX_PROFILES:]
    content = {
        entry.function: {"share": entry.cpu_demand, "seconds": entry.seconds, "children_demand": entry.children_demand}
        for entry in newest
    }
    try:
        files.make_folder(path.parent)
        files.replace_file(path, json.dumps({"functions": content}, indent=1).encode(), mode=files.PRIVATE_FILE)
    except OSError as error:
        log.warning("function profiles can't be saved", extra={"path": str(path), "err": str(error)})


def _parse_profile(name: str, *, share: float, seconds: float, children_demand: float = 0.0) -> FunctionProfile:
    if not (0 <= share <= 1 and 0 <= seconds < math.inf and 0 <= children_demand < math.inf):
        raise ValueError(f"{name}: a share of {share!r}, {seconds!r} seconds and {children_demand!r} cores")
    return FunctionProfile(
        function=name, cpu_demand=float(share), seconds=float(seconds), children_demand=float(children_demand)
    )
