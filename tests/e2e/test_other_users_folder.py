"""Folders that another user made: commands say that they may not read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support.projects import write
from support.real_servers import HANG_SECONDS, MORTAL, environment, installed_command


@pytest.mark.parametrize(
    ("command", "code"),
    [("history", 3), ("explain", 3), ("sla", 3), ("log", 2), ("pin 2", 2), ("resume", 2), ("plan", 0)],
)
def test_command_that_may_not_read_the_folder_says_so_in_one_line(tmp_path: Path, command: str, code: int) -> None:
    """As after `sudo paropt-exporter`, or for a lane that runs as a service of another user."""
    write(tmp_path, "name: quick, run: 'true'")
    folder = tmp_path / ".paropt"
    folder.mkdir(0o000)
    ended = subprocess.run(
        [*MORTAL, installed_command(), *command.split()],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
    assert "Permission denied" in ended.stderr and ended.stderr.count(str(folder)) == 1


@pytest.mark.parametrize("action", ["info", "prune", "verify"])
def test_store_that_may_not_be_read_is_not_called_undamaged(tmp_path: Path, action: str) -> None:
    """As after `sudo paropt-exporter`, which keeps HOME."""
    folder = tmp_path / "paropt-exporter"
    folder.mkdir(0o000)
    ended = subprocess.run(
        [*MORTAL, installed_command(), "cache", action],
        cwd=tmp_path,
        env=environment(XDG_CACHE_HOME=str(tmp_path), PAROPT_CACHE_DIR=""),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert "Permission denied" in ended.stderr and str(folder) in ended.stderr
