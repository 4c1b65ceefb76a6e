"""Real make 4.4 and ninja as clients of a lane's jobserver."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from support.projects import write
from support.real_servers import run

# Each job notes when it began and ended.
JOB = 'echo "$$(date +%s.%N) +1" >> log; sleep 0.2; echo "$$(date +%s.%N) -1" >> log'
TARGETS = " ".join(f"t{number}" for number in range(8))
MAKEFILE = f"all: {TARGETS}\n%:\n\t@{JOB}\n"
NINJA = f"rule job\n  command = {JOB}\n" + "".join(f"build {target}: job\n" for target in TARGETS.split())
LANES = """
lanes:
  standard: {workers: 3}
feedback: {jobserver: true}
"""
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where the test environment has make 4.4 and ninja 1.13


def most_at_once(log: Path) -> int:
    """Return the largest number of concurrent jobs, from their notes."""
    most = now = 0
    for line in sorted(log.read_text().splitlines()):
        now += int(line.split()[1])
        most = max(most, now)
    return most


@pytest.mark.parametrize("client", ["make", "ninja"])
def test_one_client_gets_all_slots_that_the_lane_has(tmp_path: Path, client: str) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "build.ninja").write_text(NINJA)
    write(tmp_path, f"name: built, run: {client}", lanes=LANES)
    ended = run(tmp_path, "--once", PATH=PATH)
    assert ended.returncode == 0, ended.stdout
    assert most_at_once(tmp_path / "log") == 3


def test_client_gets_the_slots_of_stages_that_wait_for_its_lock(tmp_path: Path) -> None:
    """The first of two stages that use one folder ran one job at a time."""
    (tmp_path / "Makefile").write_text(MAKEFILE)
    stages = "name: built, run: make, locks: [folder]\nname: next, run: 'true', locks: [folder]"
    write(tmp_path, stages, lanes=LANES.replace("3", "2"))
    ended = run(tmp_path, "--once", PATH=PATH)
    assert ended.returncode == 0, ended.stdout
    assert most_at_once(tmp_path / "log") == 2


def test_two_clients_and_a_task_share_the_slots_and_none_beyond(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "Makefile").write_text(MAKEFILE.replace("log", "../log"))
    stages = """
        name: one, run: make -C one
        name: two, run: make -C two
        name: task, run: "sh -c 'echo $(date +%s.%N) +1 >> log; sleep 1; echo $(date +%s.%N) -1 >> log'"
    """
    write(tmp_path, stages, lanes=LANES.replace("3", "4"))
    ended = run(tmp_path, "--once", PATH=PATH)
    assert ended.returncode == 0, ended.stdout
    assert 2 < most_at_once(tmp_path / "log") <= 4


def test_make_that_would_fail_is_found_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "make").write_text("#!/bin/sh\necho GNU Make 4.3\n")
    (tmp_path / "make").chmod(0o755)
    write(tmp_path, 'name: a, run: "touch ran"', lanes=LANES)
    for arguments in (("--once",), ("check",)):
        ended = run(tmp_path, *arguments, PATH=f"{tmp_path}:{os.environ['PATH']}")
        assert ended.returncode == 2
        assert "is GNU make 4.3, which fails at a jobserver of fifo style" in ended.stderr
    assert not (tmp_path / "ran").exists()
