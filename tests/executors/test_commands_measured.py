"""The usage of a command is that of its whole process tree, reaped or not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.executors.commands.command_pool import CommandOutcome, CommandPool
from paropt_exporter.executors.commands.command_task import CommandTask, ResourceShortage
from paropt_exporter.executors.commands.supervisor_client import SharedSupervisor
from paropt_exporter.executors.supervisor.process_tree import ProcessTable, Tree
from support.command_scripts import BURNER, HANG_SECONDS, make_fifo, open_fifo, python, run, shell
from support.real_servers import eventually

BURNED_SECONDS = 0.25
MEGABYTE = 1 << 20
SETTLED = 20 * MEGABYTE  # the largest error of a difference of two measured peaks

# Starts a burner, waits until it has ended, adds its own CPU time to the report, and exits without reaping it.
FORGETFUL = """
import os, resource, sys
ended, alive = os.pipe()
if not os.fork():
    os.close(ended)
    os.set_inheritable(alive, True)
    os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", *sys.argv[1:]])
os.close(alive)
os.read(ended, 1)
with open(sys.argv[3], "r+") as report:
    burned = float(report.read())
    report.seek(0)
    report.write(str(burned + sum(resource.getrusage(resource.RUSAGE_SELF)[:2])))
    report.truncate()
os._exit(0)
"""
# Allocates this many megabytes for a moment, in a child if there is a second argument.
HOLDER = """
import os, sys
if len(sys.argv) > 2 and os.fork():
    os.wait()
    os._exit(0)
held = b"x" * (int(sys.argv[1]) << 20)
"""


@pytest.fixture
def pool() -> Iterator[CommandPool]:
    with CommandPool(2) as pool:
        yield pool


def assert_cpu(outcome: CommandOutcome, report: Path) -> None:
    assert outcome.result == "success", outcome
    reported = float(report.read_text())
    assert reported >= BURNED_SECONDS
    assert outcome.measurement.cpu_seconds == pytest.approx(reported, rel=0.1)


def test_cpu_time_of_a_command_is_measured(pool: CommandPool, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert_cpu(run(pool, python(BURNER, BURNED_SECONDS, report)), report)


def test_cpu_time_of_a_reaped_child_counts(pool: CommandPool, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert_cpu(run(pool, shell('"$@"; true', *python(BURNER, BURNED_SECONDS, report))), report)


def test_cpu_time_of_an_unreaped_child_counts(pool: CommandPool, tmp_path: Path) -> None:
    report = tmp_path / "report"
    assert_cpu(run(pool, python(FORGETFUL, BURNER, BURNED_SECONDS, report)), report)


def test_cpu_time_of_a_background_grandchild_counts(pool: CommandPool, tmp_path: Path) -> None:
    report = make_fifo(tmp_path)  # the main process exits when the orphaned grandchild has written its report
    copy = tmp_path / "copy"
    script = 'report=$1; copy=$2; shift 2; ("$@" &); cat $report > $copy'
    assert_cpu(run(pool, shell(script, report, copy, *python(BURNER, BURNED_SECONDS, report))), copy)


def test_cpu_times_of_steps_add_up(pool: CommandPool, tmp_path: Path) -> None:
    reports = [tmp_path / "one", tmp_path / "two"]
    outcome = run(pool, *(python(BURNER, BURNED_SECONDS, report) for report in reports))
    total = sum(float(report.read_text()) for report in reports)
    assert outcome.measurement.cpu_seconds == pytest.approx(total, rel=0.1)


def test_cpu_time_of_a_child_counts_if_its_parent_ignores_sigchld() -> None:
    """The kernel adds the CPU time of such a child to no process: the last sample counts."""
    parent = subprocess.Popen(
        python(IGNORANT, BURNER, BURNED_SECONDS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        tree = Tree(parent.pid, "no mark", time.monotonic())
        table = ProcessTable()
        table.add(tree, time.monotonic())
        # Other children of this process, such as the servers of other tests, are not this tree's.
        table.add(Tree(os.getpid(), "no mark either", time.monotonic()), time.monotonic())
        assert parent.stdout is not None and parent.stdin is not None
        assert parent.stdout.readline() == b"burned\n"
        table.refresh(time.monotonic())
        child = {member.pid for member in tree.members.values() if member.parent == str(parent.pid)}
        assert len(child) == 1
        seen = tree.get_cpu_seconds()
        parent.stdin.write(b"end\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == b"ended\n"

        # The kernel wakes the parent a moment before the child has left /proc.
        def has_gone() -> bool:
            table.refresh(time.monotonic())
            return not child & tree.members.keys()

        eventually("the child has gone", has_gone)
        assert tree.get_cpu_seconds() == pytest.approx(seen, abs=0.1)
        assert seen >= BURNED_SECONDS * 0.9
    finally:
        parent.communicate()


def test_core_waits_of_an_unsampled_child_are_estimated() -> None:
    """No sample has seen the child, so its CPU time is known, but not its waits."""
    child = python(BURNER, BURNED_SECONDS, "/dev/null")
    parent = subprocess.Popen(
        python("import subprocess, sys; subprocess.run(sys.argv[1:])", *child),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    tree, table = Tree(parent.pid, "no mark", time.monotonic()), ProcessTable()
    table.add(tree, time.monotonic())
    os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
    table.find_owner(parent.pid, time.monotonic())
    waited = tree.get_delay_seconds()
    _, parent.returncode, usage = os.wait4(parent.pid, 0)
    table.crowding = 3.0
    crowded_seconds = 2 * BURNED_SECONDS  # the extra time with three threads a core
    table.settle(parent.pid, usage.ru_utime + usage.ru_stime, time.monotonic() + crowded_seconds)
    assert tree.get_delay_seconds() - waited == pytest.approx(crowded_seconds, rel=0.5)


def test_core_waits_of_children_count_if_no_process_is_left_at_the_next_sample() -> None:
    """As when `make test` has the machine to itself among its lane: make reaps pytest, and ends at once."""
    parent = subprocess.Popen(
        python(BURNING_PAIR, min(os.sched_getaffinity(0)), HANG_SECONDS),
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    tree, table = Tree(parent.pid, "no mark", time.monotonic()), ProcessTable()
    table.add(tree, time.monotonic())

    def has_waited() -> bool:
        table.refresh(time.monotonic())
        return tree.get_wait_seconds() > 0.2

    eventually("the children have waited", has_waited)
    waited = tree.get_wait_seconds()
    parent.communicate()
    table.settle(parent.pid, 1.0, time.monotonic())
    table.clear(time.monotonic())
    assert not tree.members
    assert tree.get_delay_seconds() >= 0.9 * waited


# Two children burn CPU on one core, until the parent's input ends.
BURNING_PAIR = """
import os, subprocess, sys
os.sched_setaffinity(0, [int(sys.argv[1])])
burner = "import sys, time\\nwhile time.process_time() < float(sys.argv[1]): pass"
children = [subprocess.Popen([sys.executable, "-c", burner, sys.argv[2]]) for _ in range(2)]
sys.stdin.read()
for child in children:
    child.kill()
    child.wait()
"""


# Its child burns CPU, then waits for a signal to exit; the parent ignores SIGCHLD and reports the child's exit.
IGNORANT = """
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
child = os.fork()
if not child:
    while time.process_time() < float(sys.argv[2]):
        pass
    os.write(1, b"burned\\n")
    os.read(0, 100)
    os._exit(0)
try:
    os.waitpid(child, 0)
except ChildProcessError:
    os.write(1, b"ended\\n")
os.read(0, 100)
"""


def test_cpu_time_of_earlier_steps_shows_while_the_next_one_runs(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    burn = python(BURNER, BURNED_SECONDS, tmp_path / "report")
    future = pool.submit_commands("task", [burn, ["cat", str(fifo)]], cwd="/")
    with open_fifo(fifo):
        (task,) = pool.running()
        assert task.cpu_seconds >= BURNED_SECONDS
        assert pool.statistics().cpu_seconds >= BURNED_SECONDS
    assert future.result(HANG_SECONDS).measurement.cpu_seconds >= BURNED_SECONDS
    assert pool.statistics().cpu_seconds == pytest.approx(future.result().measurement.cpu_seconds)


def peak(pool: CommandPool, *arguments: object) -> int:
    outcome = run(pool, python(HOLDER, *arguments))
    assert outcome.result == "success", outcome
    return outcome.measurement.memory_peak_bytes


def test_memory_peak_follows_the_allocation(pool: CommandPool) -> None:
    assert peak(pool, 160) - peak(pool, 60) == pytest.approx(100 * MEGABYTE, abs=SETTLED)


def test_memory_of_a_child_counts(pool: CommandPool) -> None:
    assert peak(pool, 160, "in a child") - peak(pool, 60, "in a child") == pytest.approx(100 * MEGABYTE, abs=SETTLED)


def test_memory_of_the_exporter_does_not_count() -> None:
    ballast = b"x" * (400 * MEGABYTE)
    with CommandPool(1) as pool:  # this process starts the supervisor at its current size
        assert peak(pool, 160) - peak(pool, 60) == pytest.approx(100 * MEGABYTE, abs=SETTLED)
        assert run(pool, ["true"]).measurement.memory_peak_bytes < SETTLED
    assert len(ballast) == 400 * MEGABYTE


def test_measurement_names_the_worker_and_the_process(pool: CommandPool) -> None:
    outcome = run(pool, shell("echo $$"))
    assert outcome.measurement.pid == int(outcome.output)
    assert "commands" in outcome.measurement.worker
    assert 0 < outcome.measurement.started_seconds < outcome.measurement.ended_seconds


def test_waits_for_a_core_are_measured(pool: CommandPool, tmp_path: Path) -> None:
    """Three burners on one core wait most of the time."""
    core = min(os.sched_getaffinity(0))
    script = f"import os\nos.sched_setaffinity(0, [{core}])\n{BURNER}"
    with CommandPool(3) as crowd:
        futures = [
            crowd.submit_commands("task", [python(script, 0.15, tmp_path / str(number))], cwd="/")
            for number in range(3)
        ]
        delays = [future.result(HANG_SECONDS).measurement.run_delay_seconds for future in futures]
    assert sum(delays) > 0.2
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL  # measuring leaves this process's handlers alone


def test_last_sample_of_a_long_command_is_kept(tmp_path: Path) -> None:
    """It has the whole core time, and was left out whenever the list was full."""
    task = CommandTask(SharedSupervisor(), ResourceShortage(), "task", [], mark="m", cwd=tmp_path, env={})
    for number in range(1, 1200):
        task._store_usage({"usage": [1, number, 0.0, 0, 0], "sampled": [number, number, 0.0]})
        assert task.list_samples()[-1] == (number, CoreTime(number, 0.0))
    assert len(task.list_samples()) <= 512
