"""A system that has only a few threads left: the lane runs with fewer workers, or the command ends with one line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import projects
from support.processes import run_python
from support.real_servers import environment

ENOUGH_THREADS = 7  # main, stdout, stderr, endpoint, orders, and one worker for each of two pools
# root is exempt from RLIMIT_NPROC, so the system's refusal is played by what starts Python's threads.
LIMITED = """
import _thread, os, sys, threading
most = int(sys.argv[1])
def limit(start):
    def limited(*arguments, **keywords):
        if len(os.listdir("/proc/self/task")) >= most:
            raise RuntimeError("can't start new thread")
        return start(*arguments, **keywords)
    return limited
_thread.start_new_thread = threading._start_new_thread = limit(_thread.start_new_thread)
if sys.version_info >= (3, 13):
    _thread.start_joinable_thread = threading._start_joinable_thread = limit(_thread.start_joinable_thread)
from paropt_exporter.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
ITEMS = 'items: {list: ["1", "2", "3", "4", "5", "6", "7", "8"]}'
STAGES = f'name: commands, run: "true {{item}}", {ITEMS}\nname: calls, call: "calls:work", {ITEMS}'


def run(folder: Path, threads: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    projects.write(
        folder,
        STAGES,
        lanes="lanes: {standard: {strategy: adaptive, workers: 30}}",
        calls="def work(item): print(item)",
    )
    return run_limited(folder, threads, *arguments)


def run_limited(folder: Path, threads: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_python(LIMITED, str(threads), "--once", projects.ANY_PORT, *arguments, cwd=folder, env=environment())


@pytest.mark.parametrize(
    ("strategy", "threads"),
    [*((each, ENOUGH_THREADS) for each in ("thread", "process", "adaptive")), ("adaptive", ENOUGH_THREADS + 1),
     ("process", 15)],
)  # fmt: skip
def test_thread_limit_leaves_a_lane_with_fewer_workers(tmp_path: Path, strategy: str, threads: int) -> None:
    ended = run(tmp_path, threads, "--strategy", strategy)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("standard succeeded · 2 stages, 16 tasks")


def test_computing_calls_stay_in_threads_if_the_system_has_no_thread_for_processes(tmp_path: Path) -> None:
    computing = (
        "import time\ndef work(item):\n    end = time.thread_time() + 0.02\n    while time.thread_time() < end: pass"
    )
    lane = "lanes: {standard: {strategy: adaptive, workers: 2}}"
    projects.write(tmp_path, f'name: calls, call: "calls:work", {ITEMS}', lanes=lane, calls=computing)
    ended = run_limited(tmp_path, ENOUGH_THREADS - 1)  # there is no pool of commands
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("standard succeeded · 1 stage, 8 tasks")
    assert ended.stderr.count("no processes for calls: they stay in threads") == 1
    assert "gives no more workers" not in ended.stderr  # the same, from the pool that each of the calls tried


@pytest.mark.parametrize("threads", [1, 2, 4, ENOUGH_THREADS - 1])
def test_too_few_threads_end_the_command_with_one_line(tmp_path: Path, threads: int) -> None:
    ended = run(tmp_path, threads)
    assert ended.returncode == 3
    assert ended.stderr.splitlines()[-1] == (
        "paropt-exporter: the system can't start a thread: raise its limit (ulimit -u, or a cgroup's pids.max)"
    )
    assert "Traceback" not in ended.stderr
