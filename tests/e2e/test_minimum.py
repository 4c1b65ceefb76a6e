"""The least that the exporter needs of the system."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from support import projects
from support.namespaces import WITH_FOREIGN_PROC, WITHOUT_PROC, skip_unless_allowed
from support.real_servers import HANG_SECONDS, environment, installed_command

PAGE = (Path(__file__).parents[2] / "docs/reliability.md").read_text()
STAGES = """
    name: one, run: [sleep, "0.2"]
    name: two, run: [sleep, "0.2"]
    name: called, call: "calls:nap", items: {list: [a, b, c, d]}
"""
COMPUTING = 'name: computes, call: "calls:compute", items: {list: [a, b, c, d]}'
CALLS = """
import time
def nap(item):
    time.sleep(0.1)
def compute(item):
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
"""


@pytest.mark.parametrize(("strategy", "place"), [("thread", 0), ("adaptive", 0), ("process", 1)])
def test_two_workers_run_with_the_descriptors_that_the_docs_name(tmp_path: Path, strategy: str, place: int) -> None:
    found = re.search(r"Give (\d+) and (\d+),", PAGE)
    assert found is not None
    projects.write(tmp_path, STAGES, calls=CALLS)
    command = [installed_command(), "--once", "--strategy", strategy, "--workers", "2", projects.ANY_PORT]
    check_success(tmp_path, "/bin/sh", "-c", f'ulimit -n {found.groups()[place]}; exec "$@"', "sh", *command)


def test_computing_calls_stay_in_threads_if_descriptors_are_too_few_for_processes(tmp_path: Path) -> None:
    found = re.search(r"Give (\d+) and (\d+),", PAGE)
    assert found is not None
    few, enough = found.groups()
    projects.write(tmp_path, STAGES + COMPUTING, calls=CALLS)
    command = [installed_command(), "--once", "--workers", "2", projects.ANY_PORT]
    ended = check_success(tmp_path, "/bin/sh", "-c", f'ulimit -n {few}; exec "$@"', "sh", *command)
    assert "no processes for calls: they stay in threads" in ended.stderr
    assert f"(ulimit -n) is {few}, and they need {enough}" in ended.stderr


@pytest.mark.parametrize("words", [WITHOUT_PROC, WITH_FOREIGN_PROC], ids=["none", "of another pid namespace"])
def test_commands_and_calls_run_without_their_proc(tmp_path: Path, words: tuple[str, ...]) -> None:
    skip_unless_allowed(words)
    projects.write(tmp_path, STAGES, calls=CALLS)
    check_success(tmp_path, *words, installed_command(), "--once", projects.ANY_PORT)


def check_success(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (ended.returncode, "standard succeeded" in ended.stdout) == (0, True), ended.stderr
    return ended
