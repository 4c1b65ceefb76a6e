"""Find the Python virtual environment whose programs a stage runs: the active one, or the nearest one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from paropt_exporter.config.locate import walk_up
from paropt_exporter.files import find_home

VARIABLE = "VIRTUAL_ENV"  # set by a virtual environment's activate script, tox, nox and uv
_FOLDERS = (".venv", "venv")


def find_virtual_environment(folder: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the active virtual environment, or the nearest `.venv` or `venv` if none is active.

    It may be in a folder above, as in a workspace of uv, but not outside of the repository.
    """
    active = environ.get(VARIABLE)
    if active and os.path.isdir(f"{active}/bin"):  # noqa: PTH112
        return Path(active)
    places = _list_places(os.path.abspath(folder), os.fspath(find_home(environ)))  # noqa: PTH100 -- as below
    return next(filter(None, map(_find_in, places)), None)


@lru_cache(maxsize=1 << 8)
def _list_places(folder: str, home: str) -> tuple[str, ...]:
    """Return the folders to look in. Stages look again when they start, and walking up takes ten times as long."""
    return tuple(os.path.abspath(place) for place in walk_up(Path(folder), home))  # noqa: PTH100 -- as below


def find_virtual_environment_in(folder: Path) -> Path | None:
    """Return the virtual environment directly in a folder."""
    return _find_in(os.path.abspath(folder))  # noqa: PTH100 -- ".." after a link means the folder above the link


def _find_in(place: str) -> Path | None:
    name = next((name for name in _FOLDERS if os.path.isdir(f"{place}/{name}/bin")), None)  # noqa: PTH112
    return None if name is None else Path(place, name)


def build_environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that put the virtual environment's programs first, or none if they already are first."""
    found = find_virtual_environment(folder, environ)
    if found is None:
        return {}
    programs = os.path.abspath(found / "bin")  # noqa: PTH100 -- a link stays as it is named
    path = environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] == programs:
        return {}
    return {"PATH": os.pathsep.join((programs, path)), VARIABLE: os.path.dirname(programs)}  # noqa: PTH120 -- likewise
