"""Compare a worker's environment with ours, before any task runs there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

from paropt_exporter._version import __version__
from paropt_exporter.executors.cluster.settings import INSTALL_HINT

OURS = "paropt-exporter"
PYTHON = "python"
GIT = "git"


def read_versions() -> Mapping[str, str]:
    """Return our own versions."""
    return {OURS: __version__, PYTHON: f"{sys.version_info[0]}.{sys.version_info[1]}"}


def find_fault(ours: Mapping[str, str], theirs: Mapping[str, str], *, needs_git: bool) -> str:
    """Return why a worker can't take tasks, or ""."""
    if theirs.get(OURS) != ours[OURS]:
        hint = INSTALL_HINT.replace("]'", f"]=={ours[OURS]}'")
        return f"it has paropt-exporter {theirs.get(OURS)}, this is {ours[OURS]}: {hint}"
    if needs_git and not theirs.get(GIT):
        return "it has no git, which the files travel by: install it, or set dask.shared"
    return ""


def list_differences(ours: Mapping[str, str], theirs: Mapping[str, str], missing: Iterable[str]) -> tuple[str, ...]:
    """Return what differs on a worker that can take tasks, each in a few words."""
    found = [f"python {theirs.get(PYTHON)} instead of {ours[PYTHON]}"] if theirs.get(PYTHON) != ours[PYTHON] else []
    return (*found, *(f"no {program}" for program in missing))


def format_table(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Return a line for each set of differences, with the workers that have it; none if all are as we are."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, differences in rows:
        if differences:
            groups.setdefault(tuple(differences), []).append(name)
    return [f"workers that differ: {', '.join(sorted(names))}: {', '.join(what)}" for what, names in groups.items()]
