"""Commands end as a whole: when stopped, when killed, and when a process of them still runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter.events import Result
from paropt_exporter.executors.commands.command_pool import CommandPool
from support.command_scripts import (
    HANG_SECONDS,
    make_fifo,
    open_fifo,
    python,
    read_fifo,
    run,
    shell,
    told_pids,
    wait_until_gone,
    write_fifo,
)
from support.namespaces import WITH_FOREIGN_PROC, WITHOUT_PROC, skip_unless_allowed

DEAF = "trap '' TERM HUP INT; "  # ignores these signals, as do its children
# The child itself reports the start: right after its fork it would still catch TERM, as its parent does, and go on.
PARENT = "trap '{trap}' TERM; (echo > $1; exec sleep 600) & wait"

# A parent, a child, a grandchild, and a process in a session of its own; all ignore SIGTERM and write their pids.
FAMILY = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
told = os.open(sys.argv[1], os.O_WRONLY)
def tell():
    os.write(told, b"%d " % os.getpid())
tell()
if not os.fork():
    tell()
    if not os.fork():
        tell()
elif not os.fork():
    os.setsid()
    tell()
os.close(told)
while True:
    signal.pause()
"""


@pytest.fixture
def pool() -> Iterator[CommandPool]:
    with CommandPool(2) as pool:
        yield pool


def test_stopped_command_gets_sigterm_and_may_clean_up(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [shell(PARENT.format(trap="echo tidy; exit 5"), fifo)], cwd="/")
    read_fifo(fifo)
    assert pool.stop(future)
    outcome = future.result(HANG_SECONDS)
    assert (outcome.result, outcome.message, outcome.stopped) == (Result.CANCELLATION, "stopped", True)
    assert (outcome.exit_code, outcome.output) == (5, "tidy\n")


def test_command_that_ignores_sigterm_is_killed_after_the_grace(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [shell(DEAF + "echo > $1; sleep 600", fifo)], cwd="/")
    read_fifo(fifo)
    assert pool.stop(future, grace_seconds=0.2)
    outcome = future.result(HANG_SECONDS)
    assert (outcome.result, outcome.signal) == (Result.CANCELLATION, 9)
    assert outcome.measurement.ended_seconds - outcome.measurement.started_seconds >= 0.2


def test_second_stop_shortens_the_grace_of_a_command(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [shell(DEAF + "echo > $1; sleep 600", fifo)], cwd="/")
    read_fifo(fifo)
    assert pool.stop(future, grace_seconds=3600)
    assert pool.stop(future, grace_seconds=7200)  # can't lengthen it
    assert pool.stop(future, grace_seconds=0)
    assert future.result(HANG_SECONDS).signal == 9


def test_stop_ends_descendants_in_other_sessions_too(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [python(FAMILY, fifo)], cwd="/")
    pids = told_pids(fifo)
    assert len(pids) == 4
    assert pool.stop(future, grace_seconds=0.5)
    assert future.result(HANG_SECONDS).stopped
    assert wait_until_gone(pids, 0) == []


def test_processes_that_a_command_leaves_are_ended(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [shell("sleep 600 & echo $! > $1", fifo)], cwd="/")
    pids = told_pids(fifo)
    outcome = future.result(HANG_SECONDS)
    assert (outcome.result, outcome.stopped) == (Result.SUCCESS, False)
    assert wait_until_gone(pids, 0) == []


@pytest.mark.parametrize("script", ["DAEMON", "BARE_DAEMON", "DAEMON_OF_A_THREAD"])
def test_daemon_without_session_and_parent_is_ended_too(pool: CommandPool, tmp_path: Path, script: str) -> None:
    fifo = make_fifo(tmp_path)
    beside = pool.submit_commands("beside", [["cat", str(make_fifo(tmp_path, "other"))]], cwd="/")
    future = pool.submit_commands("task", [python(globals()[script], fifo)], cwd="/")
    pids = told_pids(fifo)
    assert future.result(HANG_SECONDS).result is Result.SUCCESS
    assert wait_until_gone(pids, 0) == []
    assert beside.running()  # it does not count as a part of the other
    assert pool.stop(beside, grace_seconds=0)


# Forks twice with a new session in between, as daemons do, before the first sample; its parents have exited.
DAEMON = """
import os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
told = os.open(sys.argv[1], os.O_WRONLY)
os.write(told, b"%d" % os.getpid())
os.close(told)
signal.pause()
"""


# The same, and then its main thread exits: /proc shows a zombie, of which another thread lives.
DAEMON_OF_A_THREAD = DAEMON.replace(
    "signal.pause()",
    """
import ctypes, threading
threading.Thread(target=lambda: [signal.pause()]).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit, of this thread alone
""",
)


# The same, and then it starts a program without the environment that identifies it, and without the task's output.
BARE_DAEMON = """
import os, sys
started, hold = os.pipe()  # closed by the start of the program
if os.fork():
    os.close(hold)
    os.wait()
    os.read(started, 1)
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.execve("/bin/sh", ["sh", "-c", "exec >$0 2>&1; echo $$; exec >/dev/null; exec sleep 600", sys.argv[1]], {})
"""


def test_left_writer_may_finish_its_output(pool: CommandPool) -> None:
    outcome = run(pool, shell("(head -c 30000 /dev/zero | tr '\\0' x; echo; echo written) & exit 0"))
    assert outcome.output.endswith("x\nwritten\n")


def test_warning_of_left_processes_names_the_task(pool: CommandPool, caplog: pytest.LogCaptureFixture) -> None:
    """The command alone does not tell tasks apart: it is /bin/sh for all stages with a shell."""
    future = pool.submit_commands("e2e_tests", [shell("sleep 600 & exit 0")], cwd="/")
    assert future.result(HANG_SECONDS).result is Result.SUCCESS
    (record,) = caplog.records
    assert record.getMessage() == "a command left processes behind: ended with their stage"
    assert vars(record)["task"] == "e2e_tests"


def test_command_that_closes_its_output_still_runs(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [shell("echo last; exec > $1 2>&1; read line < $1; exit 4", fifo)], cwd="/")
    with fifo.open("rb"):
        pass  # its output is closed by now
    assert not future.done()
    write_fifo(fifo, "go on\n")
    outcome = future.result(HANG_SECONDS)
    assert (outcome.exit_code, outcome.output) == (4, "last\n")


def test_no_step_follows_a_stop(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    obedient = shell(PARENT.format(trap="exit 0"), fifo)
    future = pool.submit_commands("task", [obedient, ["touch", "second"]], cwd=tmp_path)
    read_fifo(fifo)
    assert pool.stop(future)
    assert future.result(HANG_SECONDS).result is Result.CANCELLATION
    assert not (tmp_path / "second").exists()


def test_stopped_queued_command_never_runs(tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    with CommandPool(1) as pool:
        first = pool.submit_commands("first", [["cat", str(fifo)]], cwd="/")
        second = pool.submit_commands("second", [["touch", "second"]], cwd=tmp_path)
        with open_fifo(fifo):
            assert pool.stop(second)
            assert second.cancelled()
        first.result(HANG_SECONDS)
    assert not (tmp_path / "second").exists()


def test_ended_task_cannot_be_stopped(pool: CommandPool) -> None:
    future = pool.submit_commands("task", [["true"]], cwd="/")
    assert future.result(HANG_SECONDS).result is Result.SUCCESS
    assert not pool.stop(future)


def test_early_stop_is_never_lost(pool: CommandPool) -> None:
    """Neither before its thread has taken the task, nor while the command starts."""
    for number in range(50):
        future = pool.submit_commands("task", [["sleep", "600"]], cwd="/")
        while number % 2 and not (future.running() or future.done()):
            pass
        assert pool.stop(future, grace_seconds=HANG_SECONDS)
        assert future.cancelled() or future.result(HANG_SECONDS).result is Result.CANCELLATION


def test_process_under_sigstop_reacts_to_a_stop(pool: CommandPool, tmp_path: Path) -> None:
    fifo = make_fifo(tmp_path)
    future = pool.submit_commands("task", [shell("echo $$ > $1; kill -STOP $$; sleep 600", fifo)], cwd="/")
    told_pids(fifo)
    assert pool.stop(future, grace_seconds=HANG_SECONDS)
    assert future.result(HANG_SECONDS).signal == 15


# Two commands that wait for the pipes "stopped" and "beside" in the current folder.
STOP_ONE = """
import os, sys
from paropt_exporter.executors.commands.command_pool import CommandPool
with CommandPool(2) as pool:
    one, two = (pool.submit_commands(name, [["cat", name]], cwd=sys.argv[1]) for name in ("stopped", "beside"))
    hold = os.open("stopped", os.O_WRONLY)  # it runs
    pool.stop(one, grace_seconds=0)
    print(one.result().message)
    os.close(os.open("beside", os.O_WRONLY))
    print(two.result().result)
"""


@pytest.mark.parametrize("words", [WITHOUT_PROC, WITH_FOREIGN_PROC], ids=["none", "of another pid namespace"])
def test_kill_reaches_no_other_process_without_its_proc(tmp_path: Path, words: tuple[str, ...]) -> None:
    skip_unless_allowed(words)
    make_fifo(tmp_path, "stopped")
    make_fifo(tmp_path, "beside")
    script = [*words, sys.executable, "-c", STOP_ONE, str(tmp_path)]
    ended = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert ended.stdout == "stopped\nsuccess\n", ended.stderr
