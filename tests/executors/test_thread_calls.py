"""Calls in threads: the processes of a call get SIGTERM, then SIGKILL; a pool used as a library spares them."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

import pytest

from paropt_exporter.errors import TaskStopped
from paropt_exporter.executors import ProcessPool, ThreadPool
from paropt_exporter.executors.child_processes import Termination
from paropt_exporter.executors.thread_calls import ThreadCall, ThreadCalls
from support.command_scripts import make_fifo, read_fifo, told_pids, wait_until_gone, write_fifo
from support.pool_tasks import HANG_SECONDS, eventually
from support.processes import is_alive

MODULE = """
import subprocess
def run(script, fifo):
    subprocess.run(["sh", "-c", script, "sh", fifo])
def run_until_told(script, fifo):
    while subprocess.run(["sh", "-c", script, "sh", fifo]).returncode:
        pass
"""
DEAF = "trap '' TERM; echo $$ > $1; while :; do sleep 600; done"
TIDY = "trap 'echo tidy > $1; exit' TERM; echo $$ > $1; while :; do sleep 0.01; done"


class Bench:
    """A pool with one thread, and a call in it that runs a shell script, which writes `first` and `second`."""

    def __init__(self, folder: Path, script: str, *, target: str = "scripts:run") -> None:
        (folder / "scripts.py").write_text(MODULE)
        self.fifo = make_fifo(folder)
        self.pool = ThreadPool(1)
        self.calls = ThreadCalls(set)
        self.calls.prepare()
        stopped = TaskStopped("given up")
        self.call = ThreadCall(self.calls, "task", lambda future: self.pool.stop(future, stopped))
        self.future = self.call.future = self.pool.submit_named(
            "task", self.call.run, str(folder), target, (script, str(self.fifo))
        )


@pytest.fixture(autouse=True)
def import_path_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("sys.path", ["", *sys.path])
    yield
    sys.modules.pop("scripts", None)


def test_call_that_forbids_the_exporter_descriptors_fails_and_is_undone(tmp_path: Path) -> None:
    """Each later poll() of the exporter failed: an internal error ended the run."""
    (tmp_path / "scripts.py").write_text(
        "import resource\nkind = resource.RLIMIT_NOFILE\n"
        "def forbid():\n    resource.setrlimit(kind, (0, resource.getrlimit(kind)[1]))\n"
    )
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    call = ThreadCall(ThreadCalls(set), "task", lambda _: None)
    try:
        with pytest.raises(OSError, match=r"the exporter's limit on descriptors \(RLIMIT_NOFILE\) to 0"):
            call.run(str(tmp_path), "scripts:forbid", ())
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_processes_of_a_stopped_call_may_clean_up_on_sigterm(tmp_path: Path) -> None:
    bench = Bench(tmp_path, TIDY)
    told_pids(bench.fifo)
    bench.call.stop(60.0)
    assert read_fifo(bench.fifo) == "tidy\n"
    with pytest.raises(TaskStopped, match="task was stopped"):
        bench.future.result(HANG_SECONDS)
    assert bench.pool.abandoned == ()
    bench.pool.shutdown()


def test_processes_that_ignore_sigterm_are_killed_after_the_grace(tmp_path: Path) -> None:
    bench = Bench(tmp_path, DEAF)
    pids = told_pids(bench.fifo)
    bench.call.stop(0.2)
    with pytest.raises(TaskStopped):
        bench.future.result(HANG_SECONDS)
    assert wait_until_gone(pids, 0) == []
    bench.pool.shutdown()


def test_second_stop_shortens_the_grace(tmp_path: Path) -> None:
    bench = Bench(tmp_path, DEAF)
    pids = told_pids(bench.fifo)
    bench.call.stop(3600.0)
    bench.call.stop(0.0)
    with pytest.raises(TaskStopped):
        bench.future.result(HANG_SECONDS)
    assert wait_until_gone(pids, 0) == []
    bench.pool.shutdown()


@contextmanager
def abandoned_call(folder: Path) -> Iterator[Bench]:
    """A call that goes on after it was stopped, and ends with this block, even if the test fails."""
    script = "test -e $1.end && exit; echo $$ > $1; exec sleep 600"
    bench = Bench(folder, script, target="scripts:run_until_told")
    try:
        told_pids(bench.fifo)
        bench.call.stop(0.0)
        with pytest.raises(TaskStopped):
            bench.future.result(HANG_SECONDS)
        yield bench
    finally:
        (folder / "fifo.end").touch()
    assert eventually(lambda: not bench.calls.has_running)
    bench.pool.shutdown()


def test_new_processes_of_an_abandoned_call_are_killed(tmp_path: Path) -> None:
    with abandoned_call(tmp_path) as bench:
        assert wait_until_gone(told_pids(bench.fifo)) == []
        assert bench.pool.abandoned == ("task",)


def test_abandoned_call_does_not_keep_the_next_one_from_changed_code(tmp_path: Path) -> None:
    """With `--watch`, a call that had hung went on hanging after its repair."""
    with abandoned_call(tmp_path) as bench:
        (tmp_path / "scripts.py").write_text("def run_repaired():\n    print('repaired')\n")
        again = ThreadCall(bench.calls, "again", lambda _: None)
        assert again.run(str(tmp_path), "scripts:run_repaired", ()).output == "repaired\n"


def test_stopped_call_is_killed_at_once_while_the_system_refuses_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "paropt-stopped-calls":
            raise RuntimeError("can't start new thread")
        start(thread)

    bench = Bench(tmp_path, DEAF)
    pids = told_pids(bench.fifo)
    with monkeypatch.context() as scarce:
        scarce.setattr(threading.Thread, "start", refuse)
        bench.call.stop(3600.0)
        with pytest.raises(TaskStopped):
            bench.future.result(HANG_SECONDS)
        assert wait_until_gone(pids) == []
    bench.pool.shutdown()


def test_left_process_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    """The wait for its end raised a TypeError, which became the result of a call that had succeeded."""
    script = "trap '' TERM; echo; while :; do sleep 600; done"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        termination = Termination(lambda: [process.pid])
        termination.stop(0.0, monotonic())
        termination.wait()
        assert process.wait() == -signal.SIGKILL


def test_left_process_gets_sigterm_before_sigkill_after_a_stall() -> None:
    """On a busy machine, its whole grace had passed before the next scan."""
    with subprocess.Popen(["sleep", "600"]) as process:
        termination = Termination(lambda: [process.pid])
        termination.start_linger(0.0)
        assert termination.advance(60.0) == [process.pid]
        assert process.wait(HANG_SECONDS) == -signal.SIGTERM


def test_helper_whose_pid_becomes_known_after_a_scan_is_spared() -> None:
    """A call that ended while the fork server started would have ended that, and all workers with it."""
    helpers = set[int]()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        termination = Termination(lambda: {process.pid} - helpers, lambda: helpers)
        assert termination.advance(0.0) == [process.pid]
        termination.start_linger(0.0)
        helpers.add(process.pid)
        assert termination.advance(60.0) == []
        assert process.poll() is None


def test_children_from_before_a_run_survive_it() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        calls = ThreadCalls(set)
        calls.prepare()
        calls.end_strays()
        assert child.poll() is None


def test_children_between_runs_are_no_strays() -> None:
    calls = ThreadCalls(set)
    calls.prepare()
    calls.end_strays()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):
        assert calls.list_strays() == set()


def test_processes_of_this_packages_threads_are_no_strays() -> None:
    """A call in a thread ended the git of the cache, which listed a stage's inputs meanwhile."""
    calls = ThreadCalls(set)
    calls.prepare()
    started, ends = SimpleQueue[subprocess.Popen[bytes]](), threading.Event()

    def start() -> None:
        started.put(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
        ends.wait(HANG_SECONDS)  # the kernel gives the children of a thread that has ended to another one

    thread = threading.Thread(target=start, name="paropt-cache")
    thread.start()
    with started.get(timeout=HANG_SECONDS) as child:
        assert calls.list_strays() == set()
        child.terminate()
    ends.set()
    thread.join()


def test_end_of_a_run_ends_strays(caplog: pytest.LogCaptureFixture) -> None:
    calls = ThreadCalls(set)
    calls.prepare()
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(subprocess.Popen(["sleep", "600"])))
    thread.start()
    thread.join()
    calls.end_strays()
    assert not is_alive(started[0].pid)
    assert started[0].wait() == -15
    assert "calls left processes behind: ended" in caplog.text


@pytest.mark.parametrize("kind", [ThreadPool, ProcessPool])
def test_library_pool_spares_processes_that_a_task_left(
    tmp_path: Path, kind: type[ThreadPool] | type[ProcessPool]
) -> None:
    fifo = make_fifo(tmp_path)
    with kind(1) as pool:
        pid = pool.submit(_left, str(fifo)).result(HANG_SECONDS)
    assert is_alive(pid)
    write_fifo(fifo, "go\n")
    assert eventually(lambda: not is_alive(pid))


def _left(fifo: str) -> int:
    process = subprocess.Popen(["sh", "-c", "read line < $1", "sh", fifo])
    process.returncode = 0  # prevents the warning of subprocess: the test does not reap it
    return process.pid
