"""Find the Python virtual environment whose programs the stages run: the active one, or the project's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "VIRTUAL_ENV"  # set by a virtual environment's activate script, tox, nox and uv
_FOLDERS = (".venv", "venv")  # beside the config


def find_virtual_environment(root: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the active virtual environment, or `.venv` or `venv` in `root` if none is active."""
    active = environ.get(VARIABLE)
    if active and os.path.isdir(f"{active}/bin"):  # noqa: PTH112
        return Path(active)
    folder = str(root)  # strings, since each stage of a plan asks: paths would cost a quarter of its building
    return next((root / name for name in _FOLDERS if os.path.isdir(f"{folder}/{name}/bin")), None)  # noqa: PTH112


def build_environment(root: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that put the virtual environment's programs first, or none if they already are first."""
    found = find_virtual_environment(root, environ)
    if found is None:
        return {}
    programs = os.path.abspath(found / "bin")  # noqa: PTH100 -- a link stays as it is named
    path = environ.get("PATH", os.defpath)
    if path.split(os.pathsep)[0] == programs:
        return {}
    return {"PATH": os.pathsep.join((programs, path)), VARIABLE: os.path.dirname(programs)}  # noqa: PTH120 -- likewise


def build_stage_environment(root: Path, own: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a stage adds to the exporter's. Its own ones win: a stage's PATH is used as written."""
    return {**build_environment(root, environ), **own}
