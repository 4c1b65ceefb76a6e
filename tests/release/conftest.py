"""The files that a release publishes, built once for the tests that look into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMITTED_SECONDS = 1_700_000_000
Build = Callable[..., Path]


@pytest.fixture(scope="session")
def tracked() -> tuple[str, ...]:
    """Return the paths of git's files and of new ones that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(path for path in listed if (ROOT / path).is_file())


@pytest.fixture(scope="session")
def committed_seconds() -> int:
    """Return the time of the commit that all builds get."""
    return COMMITTED_SECONDS


@pytest.fixture(scope="session")
def build(tracked: tuple[str, ...]) -> Build:
    """Return a function that runs `make dist` in a copy of the repository and returns the folder of its files."""

    def built(folder: Path, *, umask: int = -1, modified_seconds: float | None = None, **env: str) -> Path:
        for path in tracked:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
            if modified_seconds is not None:
                os.utime(folder / path, (modified_seconds, modified_seconds))
        outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        outside["SOURCE_DATE_EPOCH"] = str(COMMITTED_SECONDS)
        # The venv of these tests is as it should be, whatever the times of the copied files say.
        command = ["make", "dist", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.ready"]
        made = subprocess.run(
            command, cwd=folder, env=outside | env, umask=umask, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stdout + made.stderr
        return folder / "dist"

    return built


@pytest.fixture(scope="session")
def dist(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("checkout"))
