"""Known problems of executors, tested against every pool of this package."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import itertools
import logging
import math
import operator
import os
import pickle
import resource
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, as_completed, wait
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import pytest

from paropt_exporter import ParallelizationStrategy
from paropt_exporter.errors import TaskStopped, UnpicklableError, WorkerDied
from paropt_exporter.events import PoolStatistics, Strategy
from paropt_exporter.executors import AdaptivePool, ProcessPool, TaskFuture, ThreadPool
from support.command_scripts import read_fifo, write_fifo
from support.pool_tasks import HANG_SECONDS, FalsyError, OddError, Unloadable, double, eventually, nothing, raise_it
from support.processes import read_printed, run_python

Pool = ThreadPool | ProcessPool | AdaptivePool

KINDS: dict[str, Callable[[], Pool]] = {
    "threads": lambda: ThreadPool(2),
    "processes": lambda: ProcessPool(2),
    "adaptive": lambda: AdaptivePool(Strategy.ADAPTIVE, 4),
}


@pytest.fixture(params=KINDS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    with KINDS[request.param]() as pool:
        yield pool


@pytest.fixture
def processes() -> Iterator[ProcessPool]:
    with ProcessPool(2) as pool:
        yield pool


def works(pool: Executor) -> bool:
    return list(pool.map(double, range(20))) == [2 * number for number in range(20)]


# Exceptions of tasks


class SilentError(Exception):
    def __str__(self) -> NoReturn:
        raise RuntimeError("no text")


class HoldingError(Exception):
    """Has an attribute that can't be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class SlottedError(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def recurse() -> None:
    recurse()


def raise_odd() -> NoReturn:
    raise OddError("one", "two")


class OddSlottedError(OddError):
    __slots__ = ("third",)


def raise_odd_slotted() -> NoReturn:
    raise OddSlottedError("odd", "slotted")


def raise_silent() -> NoReturn:
    raise SilentError


def raise_holding() -> NoReturn:
    raise HoldingError("holds a lock")


def raise_with_cause() -> NoReturn:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


RAISERS: dict[str, tuple[Callable[[], Any], type[BaseException]]] = {
    "an exit": (functools.partial(sys.exit, 3), SystemExit),
    "an interrupt": (functools.partial(raise_it, KeyboardInterrupt()), KeyboardInterrupt),
    "a generator's exit": (functools.partial(raise_it, GeneratorExit()), GeneratorExit),
    "the end of an iterator": (functools.partial(next, iter(())), StopIteration),
    "a cancellation": (functools.partial(raise_it, CancelledError()), CancelledError),
    "a timeout": (functools.partial(raise_it, TimeoutError("late")), TimeoutError),
    "one that takes other arguments than it passes on": (raise_odd, OddError),
    "a group": (functools.partial(raise_it, ExceptionGroup("many", [ValueError(1), KeyError(2)])), ExceptionGroup),
    "one that is false": (functools.partial(raise_it, FalsyError("no")), FalsyError),
    "one with slots": (functools.partial(raise_it, SlottedError(7)), SlottedError),
    "one without end": (recurse, RecursionError),
    "out of memory": (functools.partial(operator.mul, b"x", 1 << 62), MemoryError),
    "one with a cause": (raise_with_cause, ValueError),
    "one without a text": (raise_silent, SilentError),
}


@pytest.mark.parametrize("name", RAISERS)
def test_exception_of_a_task_is_only_its_own_outcome(pool: Pool, name: str) -> None:
    task, kind = RAISERS[name]
    error = pool.submit(task).exception(HANG_SECONDS)
    assert type(error) is kind
    assert works(pool)


@pytest.mark.parametrize(
    ("task", "text"),
    [(raise_odd_slotted, "slotted"), (raise_holding, "holds a lock")],
)
def test_unpicklable_exception_is_described(processes: ProcessPool, task: Callable[[], NoReturn], text: str) -> None:
    error = processes.submit(task).exception(HANG_SECONDS)
    assert isinstance(error, UnpicklableError)
    assert text in str(error)
    assert works(processes)


# Results and arguments


class Uncomparable:
    def __eq__(self, other: object) -> NoReturn:
        raise RuntimeError("not to be compared")

    def __bool__(self) -> NoReturn:
        raise RuntimeError("neither true nor false")

    __hash__ = object.__hash__


@pytest.mark.parametrize("value", [None, (), b"x" * 3_000_000, ValueError("returned, not raised"), range(3), Ellipsis])
def test_results_are_returned_unchanged(pool: Pool, value: object) -> None:
    found = pool.submit(operator.itemgetter(0), [value]).result(HANG_SECONDS)
    assert repr(found) == repr(value)


def test_result_unequal_to_itself_is_returned(pool: Pool) -> None:
    assert math.isnan(pool.submit(float, "nan").result(HANG_SECONDS))


def test_uncomparable_result_is_returned(pool: Pool) -> None:
    assert type(pool.submit(Uncomparable).result(HANG_SECONDS)) is Uncomparable
    assert [type(found) for found in pool.map(lambda _: Uncomparable(), range(3))] == [Uncomparable] * 3


@pytest.mark.parametrize("make", [threading.Lock, lambda: (letter for letter in ""), Unloadable, sys._getframe])
def test_unpicklable_result_fails_only_its_task(processes: ProcessPool, make: Callable[[], Any]) -> None:
    assert isinstance(processes.submit(make).exception(HANG_SECONDS), UnpicklableError)
    assert works(processes)


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("make", [threading.Lock, Unloadable, functools.partial(nested, 100_000), lambda: sys.stdout])
def test_unpicklable_argument_fails_only_its_task(processes: ProcessPool, make: Callable[[], object]) -> None:
    assert isinstance(processes.submit(nothing, make()).exception(HANG_SECONDS), UnpicklableError)
    assert works(processes)


def test_pool_is_refused_as_an_argument(processes: ProcessPool) -> None:
    with pytest.raises(UnpicklableError, match="cannot pickle or copy this ProcessPool"):
        processes.submit(nothing, processes).result(HANG_SECONDS)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_pool_can_not_be_pickled_or_copied(pool: Executor, duplicate: Callable[[Executor], object]) -> None:
    """A copy refused all tasks once the pool itself was dropped, and a closure with a pool did not name it."""
    with pytest.raises(TypeError, match=f"cannot pickle or copy this {type(pool).__name__}: make another"):
        duplicate(pool)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
def test_statistics_can_be_pickled_and_copied(
    processes: ProcessPool, duplicate: Callable[[PoolStatistics], PoolStatistics]
) -> None:
    statistics = processes.statistics()
    found = duplicate(statistics)
    assert (found, type(found.finished)) == (statistics, MappingProxyType)


class Adder:
    """A callable without a name or a hash."""

    __hash__ = None  # type: ignore[assignment]  # on purpose

    def __init__(self, base: int) -> None:
        self.base = base

    def __call__(self, number: int) -> int:
        return self.base + number

    def add(self, number: int) -> int:
        return self.base + number

    @classmethod
    def ten(cls, number: int) -> int:
        return 10 + number

    @staticmethod
    def same(number: int) -> int:
        return 10 + number


@pytest.mark.parametrize(
    "task",
    [
        Adder(10),
        Adder(10).add,
        Adder.ten,
        Adder.same,
        functools.partial(operator.add, 10),
        (10).__add__,
        lambda n: n + 10,
    ],
    ids=["object", "method", "class method", "static method", "partial", "slot wrapper", "lambda"],
)
def test_any_callable_can_be_submitted(pool: Pool, task: Callable[[int], int]) -> None:
    assert pool.submit(task, 5).result(HANG_SECONDS) == 15
    assert list(pool.map(task, [1, 2])) == [11, 12]


def keywords(**found: int) -> dict[str, int]:
    return found


def test_keywords_may_be_named_like_parameters_of_submit(pool: Pool) -> None:
    assert pool.submit(keywords, fn=1, self=2, label=3).result(HANG_SECONDS) == {"fn": 1, "self": 2, "label": 3}


# Futures


def test_shutdown_that_cancels_passes_over_stopped_tasks(pool: Pool) -> None:
    running = [pool.submit(time.sleep, 0.2) for _ in range(4)]
    queued = [pool.submit(time.sleep, 0.01) for _ in range(20)]
    assert pool.stop(queued[-1], TaskStopped("no longer wanted"))
    pool.shutdown(cancel_futures=True)
    assert all(future.done() for future in (*running, *queued))
    assert isinstance(queued[-1].exception(0), TaskStopped)


def test_shutdown_that_cancels_notifies_of_tasks_that_another_thread_cancels(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = [pool.submit(time.sleep, 0.2) for _ in range(4)]
    queued = [pool.submit(time.sleep, 0.01) for _ in range(20)]
    cancel = TaskFuture.cancel
    monkeypatch.setattr(TaskFuture, "cancel", lambda future: cancel(future) and False)  # as if it came too late
    pool.shutdown(cancel_futures=True)
    assert wait((*running, *queued), HANG_SECONDS).not_done == set()


def test_tasks_cancelled_at_once_finish_or_never_start(pool: Pool) -> None:
    futures = [pool.submit(nothing) for _ in range(300)]
    cancelled = [future.cancel() for future in futures]
    wait(futures, HANG_SECONDS)
    assert [future.cancelled() for future in futures] == cancelled
    assert works(pool)


def test_cancelled_task_does_not_delay_shutdown() -> None:
    for make in KINDS.values():
        pool = make()
        future = pool.submit(nothing)
        cancelled = future.cancel()
        pool.shutdown()
        assert future.cancelled() is cancelled
        assert future.done()


@pytest.mark.parametrize("error", [ValueError("as planned"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_raising_callback_harms_no_task(
    pool: Pool, error: BaseException, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = pool.submit(read_fifo, fifo)
    held.add_done_callback(lambda _: raise_it(error))
    write_fifo(fifo, "go on")
    assert held.result(HANG_SECONDS) == "go on"
    future = pool.submit(double, 1)
    assert future.result(HANG_SECONDS) == 2
    assert works(pool)
    assert eventually(lambda: "exception calling callback" in caplog.text)


class BrokenHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ValueError("the log is closed")


@pytest.fixture
def broken_log() -> Iterator[None]:
    handler = BrokenHandler()
    logging.getLogger().addHandler(handler)
    yield
    logging.getLogger().removeHandler(handler)


@pytest.mark.usefixtures("broken_log")
def test_raising_callback_and_a_broken_log_cost_no_worker(pool: Pool, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for _ in range(4):
        held = pool.submit(read_fifo, fifo)
        held.add_done_callback(lambda _: raise_it(ValueError("as planned")))
        write_fifo(fifo, "go on")
        assert held.result(HANG_SECONDS) == "go on"
    assert works(pool)


@pytest.mark.usefixtures("broken_log")
@pytest.mark.parametrize("make", [ThreadPool, ProcessPool])
def test_tasks_of_a_failing_initializer_fail_though_the_log_is_broken(
    make: type[ThreadPool] | type[ProcessPool],
) -> None:
    with make(1, initializer=raise_it, initargs=(ValueError("as planned"),)) as pool:
        assert isinstance(pool.submit(nothing).exception(HANG_SECONDS), BrokenExecutor)


@pytest.mark.usefixtures("broken_log")
def test_worker_that_dies_idle_is_replaced_though_the_log_is_broken(processes: ProcessPool) -> None:
    for _ in range(2):
        os.kill(processes.submit(os.getpid).result(HANG_SECONDS), signal.SIGKILL)
    assert eventually(lambda: processes.statistics().deaths == {"signal": 2})
    assert eventually(lambda: processes.live == 2)


@pytest.mark.usefixtures("broken_log")
def test_tasks_that_can_not_be_sent_end_though_the_log_is_broken() -> None:
    with AdaptivePool("process", max_workers=1) as pool:
        lock = threading.Lock()
        futures = [pool.submit(lock.locked) for _ in range(3)]
        assert [future.result(HANG_SECONDS) for future in futures] == [False] * 3


def test_callback_may_submit_and_cancel(pool: Pool) -> None:
    found: Future[int] = Future()

    def go_on(first: Future[int]) -> None:
        pool.submit(nothing).cancel()
        pool.submit(double, first.result()).add_done_callback(lambda second: found.set_result(second.result()))

    pool.submit(double, 1).add_done_callback(go_on)
    assert found.result(HANG_SECONDS) == 4


def test_callback_may_shut_the_pool_down(pool: Pool) -> None:
    over = threading.Event()

    def end(_: object) -> None:
        pool.shutdown(wait=False)
        over.set()

    pool.submit(double, 1).add_done_callback(end)
    assert over.wait(HANG_SECONDS)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)


def test_wait_and_as_completed_accept_these_futures(pool: Pool, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    slow, quick = pool.submit(read_fifo, fifo), pool.submit(double, 3)
    both: list[Future[Any]] = [slow, quick]
    assert wait(both, HANG_SECONDS, return_when=FIRST_COMPLETED).done == {quick}
    assert next(as_completed(both, HANG_SECONDS)) is quick
    with pytest.raises(TimeoutError):
        slow.result(0)
    write_fifo(fifo, "done")
    assert slow.result(HANG_SECONDS) == "done"


def test_event_loop_accepts_a_pool_as_executor(pool: Pool) -> None:
    async def ask() -> list[int]:
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(pool.submit(double, 1))
        return [await wrapped, *await asyncio.gather(*(loop.run_in_executor(pool, double, n) for n in range(5)))]

    assert asyncio.run(ask()) == [2, 0, 2, 4, 6, 8]


# Maps


def test_empty_map_ends_at_once(pool: Pool) -> None:
    assert list(pool.map(double, [])) == []
    assert list(pool.map(operator.add, [], itertools.count())) == []


def test_infinite_map_runs_as_far_as_it_is_read(pool: Pool) -> None:
    results = pool.map(double, itertools.count(), buffersize=3)
    assert list(itertools.islice(results, 10)) == list(range(0, 20, 2))


def test_error_of_a_maps_input_is_raised(pool: Pool) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(pool.map(double, broken()))
    assert works(pool)


def test_map_that_is_left_early_cancels_the_rest(pool: Pool) -> None:
    results = pool.map(double, range(1000))
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert works(pool)


def test_invalid_map_arguments_are_refused(pool: Pool) -> None:
    with pytest.raises(ValueError, match="buffersize"):
        pool.map(double, [1], buffersize=0)


# Sizes


@pytest.mark.parametrize("size", [0, -1, 10**6])
def test_invalid_size_is_refused(pool: Pool, size: int) -> None:
    with pytest.raises(ValueError, match=r"expected|greater"):
        pool.resize(size)
    assert works(pool)


@pytest.mark.parametrize("size", [1.5, "2", float("nan")])
def test_size_that_is_no_integer_is_refused(pool: Pool, size: int) -> None:
    with pytest.raises(TypeError, match="expected an integer"):
        pool.resize(size)
    assert works(pool)


@pytest.mark.parametrize("kind", [ThreadPool, ProcessPool])
def test_number_of_workers_in_quotes_is_refused_in_words(kind: type[ThreadPool | ProcessPool]) -> None:
    """As from a variable of the environment."""
    with pytest.raises(TypeError, match=r"a pool of '4' \w+: expected an integer"):
        kind("4")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ThreadPool, ProcessPool, AdaptivePool])
def test_half_a_worker_is_refused_at_the_start(kind: type[Pool]) -> None:
    with pytest.raises(TypeError, match=r"a pool of 1\.5 \w+: expected an integer"):
        kind(max_workers=3 / 2)  # type: ignore[arg-type]


def test_number_in_place_of_a_strategy_is_refused() -> None:
    with pytest.raises(TypeError, match="max_workers=8"):
        AdaptivePool(8)  # type: ignore[arg-type]


def test_strategy_is_given_by_its_name_too() -> None:
    with AdaptivePool("sequential", 8) as pool:
        assert pool.submit(nothing).result(HANG_SECONDS) is None
        for unknown in ("fastest", ParallelizationStrategy.THREAD_POOL, Strategy.DASK):
            with pytest.raises(ValueError, match=f"'{unknown}'.*: choose from thread, process, "):
                AdaptivePool(unknown)


def test_concurrent_resizes_lose_no_task(pool: Pool) -> None:
    done = threading.Event()

    def storm(step: int) -> None:
        size = step
        while not done.wait(0.002):
            size = size % 5 + 1
            pool.resize(size)

    storms = [threading.Thread(target=storm, args=(step,), daemon=True) for step in (1, 2, 3)]
    for thread in storms:
        thread.start()
    results = list(pool.map(double, range(200)))
    done.set()
    for thread in storms:
        thread.join()
    assert results == [2 * number for number in range(200)]


def test_resize_during_and_after_shutdown_is_harmless(pool: Pool) -> None:
    futures = [pool.submit(double, number) for number in range(100)]
    pool.shutdown(wait=False)
    pool.resize(3)
    pool.shutdown()
    pool.resize(1)
    assert [future.result(0) for future in futures] == [2 * number for number in range(100)]


# Start, shutdown and other pools


def test_shutdown_may_be_called_twice_and_concurrently(pool: Pool) -> None:
    futures = [pool.submit(double, number) for number in range(50)]
    threads = [threading.Thread(target=pool.shutdown) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    pool.shutdown()
    assert [future.result(0) for future in futures] == [2 * number for number in range(50)]


def test_error_in_the_with_block_closes_the_pool_and_is_raised() -> None:
    for make in KINDS.values():
        with pytest.raises(KeyError), make() as pool:
            future = pool.submit(double, 4)
            raise KeyError
        assert future.result(0) == 8


def test_many_threads_may_submit_concurrently(pool: Pool) -> None:
    found: list[int] = []

    def ask(base: int) -> None:
        found.extend(future.result(HANG_SECONDS) for future in [pool.submit(double, base + n) for n in range(50)])

    threads = [threading.Thread(target=ask, args=(100 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert sorted(found) == sorted(2 * (100 * base + n) for base in range(8) for n in range(50))


def test_submitting_thread_may_exit_before_its_task(pool: Pool, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    futures: list[Future[str]] = []
    thread = threading.Thread(target=lambda: futures.append(pool.submit(read_fifo, fifo)))
    thread.start()
    thread.join()
    write_fifo(fifo, "still there")
    assert futures[0].result(HANG_SECONDS) == "still there"


class Witness:
    """Supports weak references."""

    def touch(self) -> None:
        """Be called."""


def test_pool_keeps_no_reference_to_arguments_results_and_errors(pool: Pool) -> None:
    witness = Witness()
    seen = [weakref.ref(witness)]
    pool.submit(witness.touch)
    pool.submit(raise_it, ValueError(witness)).exception(HANG_SECONDS)
    for result in pool.map(lambda _: Witness(), range(3)):
        seen.append(weakref.ref(result))
        del result
    del witness

    def all_gone() -> bool:
        gc.collect()
        return not any(reference() for reference in seen)

    assert eventually(all_gone)


class Last:
    """Submits a task when it is garbage-collected."""

    def __init__(self, pool: Pool, found: list[Future[int]]) -> None:
        self.pool, self.found, self.itself = pool, found, self

    def __del__(self) -> None:
        self.found.append(self.pool.submit(double, 21))


def test_garbage_collection_may_submit_at_any_point(pool: Pool) -> None:
    found: list[Future[int]] = []
    before = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for number in range(200):
            Last(pool, found)
            assert pool.submit(double, number).result(HANG_SECONDS) == 2 * number
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert len(found) == 200
    assert {future.result(HANG_SECONDS) for future in found} == {42}


def test_dropped_pool_finishes_submitted_tasks() -> None:
    for make in KINDS.values():
        pool = make()
        futures = [pool.submit(double, number) for number in range(30)]
        del pool
        gc.collect()
        assert [future.result(HANG_SECONDS) for future in futures] == [2 * number for number in range(30)]


def test_pools_do_not_mix_their_tasks() -> None:
    with contextlib.ExitStack() as stack:
        pools = [stack.enter_context(make()) for make in (*KINDS.values(), *KINDS.values())]
        maps = [pool.map(operator.add, range(50), itertools.repeat(100 * n)) for n, pool in enumerate(pools)]
        assert [list(found) for found in maps] == [[100 * n + k for k in range(50)] for n in range(len(pools))]


def pool_in_a_worker() -> list[int]:
    with ProcessPool(2) as inner:
        return list(inner.map(double, range(3)))


def test_worker_may_create_a_pool(pool: Pool) -> None:
    assert pool.submit(pool_in_a_worker).result(HANG_SECONDS) == [0, 2, 4]


# Tasks that damage their process


def leave_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


def ignore_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)


def close_standard_streams() -> None:
    for descriptor in (0, 1, 2):
        os.close(descriptor)


def break_standard_streams() -> None:
    sys.stdout = sys.stderr = None


def break_modules() -> None:
    sys.path.clear()
    sys.argv.clear()


@pytest.mark.parametrize(
    "task",
    [
        leave_a_thread,
        ignore_signals,
        close_standard_streams,
        break_standard_streams,
        break_modules,
        functools.partial(os.chdir, "/"),
        functools.partial(os.nice, 1),
        functools.partial(os.umask, 0o777),
        functools.partial(sys.setrecursionlimit, 200),
        gc.disable,
    ],
    ids=lambda task: getattr(task, "func", task).__name__,
)
def test_pool_survives_tasks_that_damage_their_process(task: Callable[[], object]) -> None:
    with ProcessPool(1) as pool:
        pool.submit(task).result(HANG_SECONDS)
        assert works(pool)


@pytest.mark.parametrize("task", [os.abort, functools.partial(os._exit, 0), functools.partial(os.kill, 0, 9)])
def test_task_that_exits_its_process_fails_alone(processes: ProcessPool, task: Callable[[], object]) -> None:
    assert isinstance(processes.submit(task).exception(HANG_SECONDS), WorkerDied)
    assert works(processes)


def test_forked_child_of_a_task_is_no_second_worker(processes: ProcessPool) -> None:
    children = [future.result(HANG_SECONDS) for future in [processes.submit(os.fork) for _ in range(20)]]
    assert 0 not in children
    assert works(processes)


def forbid_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def read_nothing() -> bytes:
    return Path(os.devnull).read_bytes()


@pytest.mark.parametrize("profiled", [False, True])
def test_task_that_forbids_its_worker_descriptors_fails_alone(profiled: bool) -> None:
    """It succeeded, and each later task of the worker failed."""
    with ProcessPool(1) as pool:
        future = pool.submit_named("named", forbid_descriptors) if profiled else pool.submit(forbid_descriptors)
        with pytest.raises(OSError, match=r"the task has set .* \(RLIMIT_NOFILE\) to 0"):
            future.result(HANG_SECONDS)
        futures = [pool.submit(read_nothing) for _ in range(20)]
        assert [future.result(HANG_SECONDS) for future in futures] == [b""] * 20


# Unusual parent processes


BEGIN = f"""
import os, signal, sys, threading
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from paropt_exporter.executors import *
from support.pool_tasks import double
"""


OWNERS = {
    "ignores its children": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "blocks all signals": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "has closed its streams": "out = os.dup(1); [os.close(n) for n in (0, 1, 2)]; sys.stdout = open(out, 'w')",
    "has no stdout object": "out = sys.stdout; sys.stdout = sys.stderr = None; sys.stdout = out",
    "has lost its folder": "import tempfile; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())",
    "holds a lock that threads want": "import logging; logging._lock.acquire()",
    "traces its threads": "threading.settrace(lambda *_: None)",
    "has a default timeout of sockets": "import socket; socket.setdefaulttimeout(5)",
}


@pytest.mark.parametrize("name", OWNERS)
def test_pools_work_in_unusual_parent_processes(name: str) -> None:
    code = f"""
{OWNERS[name]}
for make in (ThreadPool, ProcessPool, AdaptivePool):
    with make(max_workers=2) as pool:
        assert sum(pool.map(double, range(10))) == 90
print("fine", flush=True)
"""
    found = run_python(BEGIN + code)
    assert (found.stdout, found.stderr, found.returncode) == ("fine\n", "", 0)


def test_pools_work_with_sockets_and_threads_as_gevent_replaces_them() -> None:
    """Workers died of `BlockingIOError`, and statistics read the address of an object as a thread."""
    found = run_python(
        BEGIN
        + """
import _thread, socket

class Cooperative(socket.socket):
    __slots__ = ()

    def setblocking(self, flag):
        pass

def make_pair(*arguments, make=socket.socketpair):
    ours, theirs = make(*arguments)
    theirs.__class__ = Cooperative
    os.set_blocking(theirs.fileno(), False)
    return ours, theirs

socket.socketpair, own = make_pair, threading.local()
_thread.get_ident = lambda: id(own.__dict__)
for make in (ThreadPool, ProcessPool, AdaptivePool):
    with make(max_workers=2) as pool:
        assert sum(pool.map(double, range(10))) == 90
        pool.statistics()
print("fine", flush=True)
"""
    )
    assert (found.stdout, found.stderr, found.returncode) == ("fine\n", "", 0)


ENDS = {
    "an exit": ("sys.exit(5)", 5),
    "an error": ("raise KeyError('as planned')", 1),
    "the end of the script": ("", 0),
    "an exit in another thread": ("threading.Thread(target=sys.exit).start()", 0),
}


@pytest.mark.parametrize("name", ENDS)
def test_interpreter_exit_finishes_tasks_and_keeps_the_exit_code(name: str) -> None:
    end, exit_code = ENDS[name]
    found = run_python(
        BEGIN
        + f"""
pools = [make(max_workers=1) for make in (ThreadPool, ProcessPool, AdaptivePool)]
for pool in pools:
    for n in range(3): pool.submit(os.write, 1, f"{{type(pool).__name__}} {{n}}\\n".encode())
{end}
"""
    )
    expected = [f"{kind} {n}" for kind in ("AdaptivePool", "ProcessPool", "ThreadPool") for n in range(3)]
    assert (sorted(found.stdout.splitlines()), found.returncode) == (expected, exit_code)
    assert ("as planned" in found.stderr) == (exit_code == 1)


def test_interpreter_exit_finishes_computing_tasks() -> None:
    """After the main thread, Python 3.12.0 and 3.12.1 start no thread: an adaptive pool stays in threads there."""
    code = """
import time
def compute():
    begun = time.thread_time()
    while time.thread_time() < begun + 0.02:
        pass
    os.write(1, b"x")
pools = [make(max_workers=2) for make in (ThreadPool, ProcessPool, AdaptivePool)]
for n in range(6):
    for pool in pools: pool.submit(compute)
"""
    assert read_printed(BEGIN + code) == 18 * "x"


@pytest.mark.skipif((3, 12) <= sys.version_info < (3, 12, 2), reason="starts no thread after the main thread")
def test_interpreter_exit_moves_computing_tasks_to_processes(tmp_path: Path) -> None:
    code = f"""
import time
moved = {str(tmp_path / "moved")!r}
def compute(main):
    begun = time.thread_time()
    while time.thread_time() < begun + 0.05 and not os.path.exists(moved):  # on a busy machine this takes many tasks
        pass
    if os.getpid() != main:
        open(moved, "w").close()
pool = AdaptivePool()
for n in range(500): pool.submit(compute, os.getpid())
"""
    found = run_python(BEGIN + code)
    assert ((tmp_path / "moved").exists(), found.stderr) == (True, "")


@pytest.mark.skipif((3, 12) <= sys.version_info < (3, 12, 2), reason="starts no thread after the main thread")
@pytest.mark.parametrize("kind", ["ThreadPool", "ProcessPool", "AdaptivePool"])
def test_interpreter_exit_finishes_the_tasks_of_a_pool_that_a_task_makes(kind: str) -> None:
    """Its threads ended with the interpreter, in the middle of their tasks."""
    code = f"""
import time
pool = ThreadPool(1)
def make_a_pool():
    while not pool._shutdown:
        time.sleep(0.001)
    other = {kind}(max_workers=1)
    other.submit(time.sleep, 0.3)
    other.submit(os.write, 1, b"done")
pool.submit(make_a_pool)
"""
    assert read_printed(BEGIN + code) == "done"


def test_forked_child_may_create_pools() -> None:
    code = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
pools = [make(max_workers=2) for make in (ThreadPool, ProcessPool, AdaptivePool)]
assert [pool.submit(double, 2).result() for pool in pools] == [4, 4, 4]
child = os.fork()
if not child:
    for make in (ThreadPool, ProcessPool, AdaptivePool):
        with make(max_workers=2) as pool:
            assert sum(pool.map(double, range(10))) == 90
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), [pool.submit(double, 3).result() for pool in pools])
"""
    assert read_printed(BEGIN + code) == "7 [6, 6, 6]\n"


@pytest.mark.parametrize("kind", ["ThreadPool(2)", "AdaptivePool(max_workers=2)"])
def test_child_that_a_task_in_a_thread_forks_ends_when_the_task_returns_in_it(kind: str) -> None:
    code = f"""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
def fork_and_return():
    child = os.fork()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else "from the child"
with {kind} as pool:
    print([pool.submit(fork_and_return).result() for _ in range(3)], pool.submit(double, 3).result())
"""
    assert read_printed(BEGIN + code) == "[0, 0, 0] 6\n"


def test_child_that_a_task_forks_during_a_shutdown_ends() -> None:
    code = """
import threading, warnings
from paropt_exporter.executors.thread_group import PoolThread
warnings.simplefilter("ignore", DeprecationWarning)
held, ended, is_alive = threading.Event(), threading.Event(), PoolThread.is_alive
def look_slowly(thread):
    if threading.current_thread() is joining:  # under the lock of the pool's threads
        held.set()
        ended.wait()
    return is_alive(thread)
def fork_and_return():
    held.wait()
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        ended.set()
PoolThread.is_alive = look_slowly
pool = ThreadPool(1)
pool.submit(fork_and_return)
joining = threading.Thread(target=pool.shutdown)
joining.start()
joining.join()  # after the main thread Python 3.12.0 and 3.12.1 fork no more
"""
    assert read_printed(BEGIN + code) == "0\n"


def test_terminal_interrupt_reaches_the_parent_process_only() -> None:
    code = """
pool = ProcessPool(1)
future = pool.submit(eval, "__import__('time').sleep(0.2) or 42")
while not future.running(): pass
try:
    os.killpg(0, signal.SIGINT)
    threading.Event().wait(5)
except KeyboardInterrupt:
    print(future.result())
"""
    assert run_python(BEGIN + code, start_new_session=True).stdout == "42\n"


class Hostile(BaseException):
    """An exception whose attributes all raise."""

    def __getattribute__(self, name: str) -> object:
        raise SystemExit(0)

    def __str__(self) -> str:
        raise KeyboardInterrupt


def raise_hostile() -> NoReturn:
    raise Hostile


@pytest.mark.parametrize("make", [ThreadPool, ProcessPool])
def test_hostile_exception_costs_no_worker(make: type[ThreadPool] | type[ProcessPool]) -> None:
    with make(1) as pool:
        assert pool.submit(raise_hostile).exception(HANG_SECONDS) is not None
        assert pool.submit(abs, -1).result(HANG_SECONDS) == 1
