"""Threads and processes, read from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import paropt_exporter
from paropt_exporter.executors import procfs


def test_thread_children_are_those_of_this_thread() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as mine:
        theirs: list[subprocess.Popen[bytes]] = []
        found: list[tuple[int, ...]] = []

        def start_one() -> None:
            theirs.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
            found.append(procfs.list_thread_children(threading.get_native_id()))

        thread = threading.Thread(target=start_one)
        thread.start()
        thread.join()
        with theirs[0]:
            assert found == [(theirs[0].pid,)]
        assert mine.pid in procfs.list_thread_children(threading.get_native_id())


def test_exited_thread_has_no_children() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    assert thread.native_id is not None
    assert procfs.list_thread_children(thread.native_id) == ()


def test_scan_finds_the_child_of_a_thread_that_exits_meanwhile() -> None:
    for _ in range(60):
        started: list[subprocess.Popen[bytes]] = []
        thread = threading.Thread(target=lambda: started.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE)))  # noqa: B023
        thread.start()
        thread.join()  # it has left Python, and exits now
        with started[0] as child:
            while str(thread.native_id) in procfs.list_threads("self"):
                assert child.pid in procfs.list_children("self")


# The kernel returns at most 4 KB of a list of children in one read, and only whole lines: less than was asked for.
MANY_CHILDREN = """
import os, signal
from paropt_exporter.executors import procfs
pids = []
for _ in range(900):
    if not (pid := os.fork()):
        signal.pause()
    pids.append(pid)
try:
    print(len(procfs.list_child_pids(os.getpid(), threads=1)), len(procfs.list_children("self")))
finally:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
"""


def test_long_list_of_children_is_complete() -> None:
    package_folder = str(Path(paropt_exporter.__file__).parents[1])
    command = [sys.executable, "-c", MANY_CHILDREN]
    found = subprocess.run(command, env={"PYTHONPATH": package_folder}, capture_output=True, text=True, check=True)
    assert found.stdout == "900 900\n"


def test_exited_process_has_no_stat_and_no_children() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    assert (procfs.read_stat(process.pid), procfs.list_children(process.pid)) == (None, set())
    assert (procfs.read_start_time(process.pid), procfs.read_command_name(process.pid)) == ("", "?")


def test_processes_that_seem_to_be_their_own_ancestors_belong_to_no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent of the first was reaped during the scan, and a child of the first got its pid."""
    parents = {"9000001": "9000002", "9000002": "9000001", "9000003": "9000004", "9000004": "1"}
    monkeypatch.setattr(procfs, "list_pids", lambda: [*parents])
    monkeypatch.setattr(procfs, "read_stat", lambda pid: ["S", parents[pid], *["0"] * 9, "100", *["0"] * 9])
    trees = procfs.measure_trees({9000004})
    assert trees == {9000004: (2 * 100 / os.sysconf("SC_CLK_TCK"), 0)}


@pytest.mark.parametrize("length", [1, 8192, 100_000])
def test_variable_is_found_in_an_environment_of_any_length(length: int) -> None:
    environment = {"PATH": os.environ["PATH"], "A_FILLER": "x" * length, "MARK": "m", "Z_FILLER": "y" * length}
    command = ["sh", "-c", "echo started; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"  # before its exec it has no environment
        assert procfs.read_variables(process.pid, "MARK") == ["MARK=m"]
