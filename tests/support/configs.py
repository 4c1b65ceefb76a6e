"""Write configs for tests, and read them or their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.errors import ConfigError


def read(folder: Path, content: str | bytes) -> config.Config:
    """Read a paropt.yml with this content."""
    path = folder / "paropt.yml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return config.read_config(path, root=folder)


def faults(folder: Path, content: str | bytes) -> list[str]:
    """Return the faults of such a file, without the folder; fails the test if there are none."""
    with pytest.raises(ConfigError) as caught:
        read(folder, content)
    return [fault.removeprefix(f"{folder}/") for fault in caught.value.faults]


def stage(**keys: str) -> str:
    """Return a file of one good stage with further keys."""
    lines = {"number": "1", "name": "one", "run": "'true'", **keys}
    lines = {key: value for key, value in lines.items() if value}
    return "stages:\n- {" + ", ".join(f"{key}: {value}" for key, value in lines.items()) + "}\n"
