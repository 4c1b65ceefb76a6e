"""A worker that holds several batches while its thread does not settle any, and interrupts of threads that submit."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from pathlib import Path
from tempfile import mkdtemp

import pytest

from paropt_exporter.errors import TaskStopped
from paropt_exporter.executors import ProcessPool, TaskFuture, processes
from support.command_scripts import open_fifo, write_fifo
from support.interrupts import interrupted_at
from support.pool_tasks import HANG_SECONDS, double, eventually
from support.processes import is_asleep

_PREFETCH_TASKS = 256  # queued tasks per worker at which a busy one gets a second batch


def listen(path: str = "") -> None:
    """Open the FIFO, which shows that the task runs, and return when it has data; without one return at once."""
    if path:
        Path(path).read_text()


def listen_first(path: str = "") -> None:
    listen(path)


def listen_second(path: str = "") -> None:
    listen(path)


@contextlib.contextmanager
def blocked_settling(pool: ProcessPool, folder: Path, *behind: str) -> Iterator[list[TaskFuture[None]]]:
    """Give a worker one batch of tasks that `listen`, while its thread is blocked and settles nothing.

    On a busy machine a brief function may take long, and the pool keeps its tasks back. Then this starts again.
    """
    for attempt in itertools.count():
        inner = folder / f"attempt {attempt}"
        inner.mkdir()
        with _try_to_block_settling(pool, inner, behind) as tasks:
            if all(task.running() for task in tasks):
                yield tasks
                return
        for path in filter(None, behind):
            write_fifo(path, "")
        assert not wait(tasks, HANG_SECONDS).not_done


@contextlib.contextmanager
def _try_to_block_settling(pool: ProcessPool, folder: Path, behind: Sequence[str]) -> Iterator[list[TaskFuture[None]]]:
    """Yield the tasks `behind`, which run if the pool knows their function to be brief.

    Each function is known to be brief until the pool hears of a task that waited, so there are three.
    """
    first, second = folder / "first", folder / "second"
    for path, function in (("", listen), (first, listen_first), (second, listen_second)):
        if path:
            os.mkfifo(path)
        for _ in range(20):
            pool.submit(function).result(HANG_SECONDS)
    entered, go_on = threading.Event(), threading.Event()

    def hold_up(_: object) -> None:
        entered.set()
        go_on.wait(HANG_SECONDS)

    pool.submit(listen_first, str(first))
    with open_fifo(first):
        pool.submit(listen_second)
        pool.submit(listen_second, str(second)).add_done_callback(hold_up)  # a batch's last
    with open_fifo(second):
        tasks = [pool.submit(listen, path) for path in behind]
    assert entered.wait(HANG_SECONDS)
    try:
        yield tasks
    finally:
        go_on.set()


@pytest.fixture
def fifo(tmp_path: Path) -> str:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return str(path)


def test_worker_with_two_finished_batches_becomes_idle_once(tmp_path: Path, fifo: str) -> None:
    with ProcessPool(1) as pool:
        worker = pool.submit(os.getpid).result(HANG_SECONDS)
        holds_two = False
        while not holds_two:  # as above: a busy machine may keep the second batch back
            with blocked_settling(pool, Path(mkdtemp(dir=tmp_path)), ""):
                behind = [pool.submit(listen) for _ in range(_PREFETCH_TASKS - 1)]
                behind.append(pool.submit(listen, fifo))
                if holds_two := behind[-1].running():
                    write_fifo(fifo, "go on")
                    assert eventually(lambda: is_asleep(worker))
            if not holds_two:
                write_fifo(fifo, "go on")
            assert not wait(behind, HANG_SECONDS).not_done
        assert eventually(lambda: pool.busy == 0)
        os.kill(worker, signal.SIGKILL)
        while not pool.statistics().deaths:
            pass  # what comes next comes before another worker is ready
        pool.submit(listen).result(HANG_SECONDS)


def test_stopping_a_task_that_ended_unread_hits_no_other(tmp_path: Path, fifo: str) -> None:
    with (
        ProcessPool(1) as pool,
        blocked_settling(pool, tmp_path, "", fifo) as (ended, running),
        open_fifo(fifo),
    ):
        assert not pool.stop(ended, TaskStopped("no more of this"), grace_seconds=0)
    assert ended.exception() is None
    assert running.exception() is None


def test_cancel_futures_includes_tasks_that_a_worker_has_not_begun(tmp_path: Path, fifo: str) -> None:
    pool = ProcessPool(1)
    with blocked_settling(pool, tmp_path, fifo, *[""] * 20) as (running, *waiting), open_fifo(fifo):
        pool.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in waiting)
    pool.shutdown()
    assert running.exception() is None
    assert pool.statistics().finished["cancellation"] == 20


def test_unloadable_batch_is_packed_again_before_the_last_worker_exits(tmp_path: Path) -> None:
    module = types.ModuleType("module_of_this_process_alone")
    exec("def same(number): return number", module.__dict__)
    sys.modules[module.__name__] = module
    first = tmp_path / "first"
    os.mkfifo(first)
    try:
        pool = ProcessPool(1)
        pool.submit(listen, str(first))
        with open_fifo(first):
            futures = [pool.submit(module.same, number) for number in range(60)]
            pool.shutdown(wait=False)
        assert [future.result(HANG_SECONDS) for future in futures] == list(range(60))
    finally:
        del sys.modules[module.__name__]


def test_interrupt_anywhere_in_submit_loses_no_task() -> None:
    with ProcessPool(1) as pool:
        pool.submit(double, 1).result(HANG_SECONDS)
        line, interrupted = 1, True
        while interrupted:
            assert eventually(lambda: pool.busy == 0 and pool.live == 1)
            interrupted = interrupted_at(line, lambda: pool.submit(double, 1), processes)
            assert pool.submit(double, line).result(HANG_SECONDS) == 2 * line
            line += 1
    assert line > 50  # there were as many places
    assert sum(pool.statistics().deaths.values()) == 0


def test_interrupt_during_prefetch_loses_no_task(tmp_path: Path) -> None:
    for line in range(1, 100, 7):
        folder = tmp_path / str(line)
        folder.mkdir()
        fifo = str(folder / "fifo")
        os.mkfifo(fifo)
        with ProcessPool(1) as pool, blocked_settling(pool, folder, fifo) as running, open_fifo(fifo):
            pool_futures = [pool.submit(listen) for _ in range(_PREFETCH_TASKS - 1)]
            interrupted_at(line, lambda pool=pool: pool.submit(listen), processes)  # type: ignore[misc]  # bound as it is now
        assert not wait([*running, *pool_futures], HANG_SECONDS).not_done
        assert all(future.exception() is None for future in pool_futures)
