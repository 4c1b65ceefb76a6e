"""Find the config file: the flag, then the environment, then `paropt.yml` in the current folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from paropt_exporter.errors import UsageError

VARIABLE = "PAROPT_CONFIG_FILE"
NAMES = ("paropt.yml", "paropt.yaml")


def discover(flag: str | None, environ: Mapping[str, str], *, folder: Path = Path()) -> Path | None:
    """Return the config file to read, None where there is none; UsageError if one is named that is not there."""
    for source, named in (("--config.file", flag), (VARIABLE, environ.get(VARIABLE) or None)):
        if named is None:
            continue
        path = Path(named)
        if not named or not os.path.lexists(path):
            raise UsageError(f"{source}: there is no file {named!r}: correct the path, or leave it out")
        return path
    found = [folder / name for name in NAMES if os.path.lexists(folder / name)]
    if len(found) > 1:
        raise UsageError("there are paropt.yml and paropt.yaml: remove one, or name one with --config.file")
    if found and found[0].exists() and not found[0].is_file() and not found[0].is_dir():
        raise UsageError(f"{found[0]} is no file: remove it, or name the config with --config.file")  # a pipe may wait
    return found[0] if found else None
