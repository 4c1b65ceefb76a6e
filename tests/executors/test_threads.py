"""ThreadPool: an executor that can be resized, whose tasks can be stopped and listed at any time."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, as_completed, wait
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from paropt_exporter import executors
from paropt_exporter.cpu_demand import Switches
from paropt_exporter.errors import InitializerFailed, TaskStopped
from paropt_exporter.executors import ThreadPool, procfs, thread_group, threads
from paropt_exporter.executors.demand import measure_so_far
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.thread_group import PoolThread, ThreadGroup
from paropt_exporter.executors.threads import worker as worker_module
from paropt_exporter.executors.threads.pool_state import ThreadPoolState
from paropt_exporter.executors.threads.worker import Worker
from support.interrupts import act_before, interrupted_at, shuts_down
from support.pool_tasks import HANG_SECONDS, FalsyError, burn_in_child, double, eventually, nothing, raise_it, spin
from support.processes import read_printed, run_python


def test_results_come_back_from_named_threads() -> None:
    with ThreadPool(2, thread_name_prefix="mine") as pool:
        name = pool.submit(lambda: threading.current_thread().name).result(HANG_SECONDS)
    assert name.startswith("mine")


def test_works_with_wait_and_as_completed() -> None:
    with ThreadPool(2) as pool:
        futures: list[Future[int]] = [pool.submit(double, number) for number in range(20)]
        assert wait(futures, HANG_SECONDS).not_done == set()
        assert sorted(future.result() for future in as_completed(futures)) == [2 * number for number in range(20)]

        async def in_loop() -> int:
            return await asyncio.get_running_loop().run_in_executor(pool, double, 21)

        assert asyncio.run(in_loop()) == 42


def test_repr_shows_name_and_sizes() -> None:
    with ThreadPool(2, name="orders") as pool:
        assert repr(pool) == "<ThreadPool orders: 2 of 2 workers, 0 busy>"


def test_exceptions_are_raised_unchanged_even_falsy_ones() -> None:
    with ThreadPool(1) as pool:
        for error in (ValueError("no"), FalsyError(), SystemExit(3), KeyboardInterrupt()):
            assert pool.submit(raise_it, error).exception(HANG_SECONDS) is error
            with pytest.raises(type(error)):
                pool.submit(raise_it, error).result(HANG_SECONDS)
        assert pool.submit(double, 1).result(HANG_SECONDS) == 2


def test_resize_takes_effect_without_a_submit() -> None:
    with ThreadPool(2) as pool:
        for size in (7, 1, 64, 3):
            pool.resize(size)
            assert pool.target == size
            assert eventually(lambda size=size: pool.live == size)  # type: ignore[misc]  # the default is the test's


def test_shrinking_lets_running_tasks_finish() -> None:
    release = threading.Event()
    with ThreadPool(4) as pool:
        futures = [pool.submit(release.wait, HANG_SECONDS) for _ in range(4)]
        assert eventually(lambda: pool.busy == 4)
        pool.resize(1)
        found = pool.statistics()
        assert (found.target, found.live, found.busy, found.draining, found.idle) == (1, 4, 1, 3, 0)
        release.set()
        assert all(future.result(HANG_SECONDS) for future in futures)
        assert eventually(lambda: pool.live == 1)


@pytest.mark.parametrize("size", [0, -1, 10**6])
def test_invalid_size_is_refused(size: int) -> None:
    with ThreadPool(1) as pool, pytest.raises(ValueError, match="expected 1 to"):
        pool.resize(size)


def test_resizes_lose_no_task_and_run_none_twice() -> None:
    runs: list[int] = []
    done = threading.Event()
    with ThreadPool(2) as pool:

        def storm() -> None:
            size = 0
            while not done.wait(0.001):
                size = (size + 7) % 16
                pool.resize(1 + size)

        stormer = threading.Thread(target=storm, daemon=True)
        stormer.start()
        futures = [pool.submit(runs.append, number) for number in range(20_000)]
        wait(futures, HANG_SECONDS)
        mapped = list(pool.map(double, range(5_000)))
        done.set()
        stormer.join()
    assert sorted(runs) == list(range(20_000))
    assert mapped == [2 * number for number in range(5_000)]
    assert pool.statistics().finished["success"] == 25_000
    assert pool.live == 0


def test_statistics_add_up_at_rest() -> None:
    with ThreadPool(2) as pool:
        wait([pool.submit(nothing) for _ in range(500)] + [pool.submit(raise_it, ValueError()) for _ in range(5)])
        list(pool.map(nothing, range(300)))
        found = pool.statistics()
        assert found.submitted == found.queued + found.busy + sum(found.finished.values()) == 805
        assert found.finished == {"success": 800, "failure": 5, "error": 0, "cancellation": 0}
        assert found.live == found.busy + found.idle + found.draining == 2
    after = pool.statistics()
    assert after.finished == found.finished
    assert after.slot_seconds >= found.slot_seconds > 0
    assert (after.live, after.target) == (0, 2)


def test_totals_grow_while_a_task_runs_and_never_decrease() -> None:
    with ThreadPool(1) as pool:
        future = pool.submit(spin, 0.2)
        before = pool.statistics()
        while not future.done():
            now = pool.statistics()
            assert now.cpu_seconds >= before.cpu_seconds
            assert now.busy_seconds >= before.busy_seconds
            assert now.submitted >= before.submitted
            before = now
        after = pool.statistics()
    assert after.cpu_seconds == pytest.approx(0.2, abs=0.05)
    assert pool.read_cpu_seconds() == pytest.approx(after.cpu_seconds, abs=0.05)


def test_worker_time_is_that_of_the_statistics() -> None:
    release = threading.Event()
    with ThreadPool(2) as pool:
        pool.submit(release.wait, HANG_SECONDS)
        for _ in range(3):
            pool.submit(int).result(HANG_SECONDS)
        before, time, after = pool.statistics(), pool.get_worker_time(), pool.statistics()
        assert before.busy_seconds <= time.busy_seconds <= after.busy_seconds
        assert before.slot_seconds <= time.slot_seconds <= after.slot_seconds
        release.set()


def test_named_task_is_profiled() -> None:
    with ThreadPool(2) as pool:
        future = pool.submit_named("lint", spin, 0.1)
        future.result(HANG_SECONDS)
        short = pool.submit_named("short", nothing)
        short.result(HANG_SECONDS)
    measured = future.measurement
    assert measured is not None
    assert measured.cpu_seconds == pytest.approx(0.1, rel=0.1)
    assert measured.memory_peak_bytes > 1_000_000
    assert measured.ended_seconds - measured.started_seconds >= 0.1
    assert future.label == "lint"
    assert short.measurement is not None


def test_child_process_counts_for_the_only_running_task() -> None:
    with ThreadPool(2) as pool:
        future = pool.submit_named("child", burn_in_child, 0.3)
        used = future.result(HANG_SECONDS)
    assert future.measurement is not None
    assert future.measurement.cpu_seconds == pytest.approx(used, rel=0.1)


def test_running_lists_tasks_with_their_usage_so_far() -> None:
    release = threading.Event()

    def work() -> None:
        spin(0.05)
        release.wait(HANG_SECONDS)

    with ThreadPool(1) as pool:
        future = pool.submit_named("checks", work)
        assert eventually(lambda: any(task.cpu_seconds >= 0.05 for task in pool.running()))
        (task,) = pool.running()
        release.set()
        future.result(HANG_SECONDS)
        assert (task.label, pool.running()) == ("checks", ())


def test_stopping_a_running_task_starts_another_worker() -> None:
    release, began = threading.Event(), threading.Event()

    def stuck() -> str:
        began.set()
        release.wait(HANG_SECONDS)
        return "late"

    with ThreadPool(1) as pool:
        future = pool.submit_named("stuck", stuck)
        began.wait(HANG_SECONDS)
        error = TaskStopped("over its limit")
        assert pool.stop(future, error)
        assert future.exception(0) is error
        assert pool.abandoned == ("stuck",)
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
        release.set()
        assert eventually(lambda: pool.abandoned == ())
        assert future.exception(0) is error
        assert not pool.stop(future, error)
        assert pool.statistics().finished["cancellation"] == 1
        assert pool.statistics().deaths == {"stopped": 1}


def test_stopping_the_last_task_of_a_closed_pool_leaves_the_queued_ones_a_worker() -> None:
    release = threading.Event()
    pool = ThreadPool(1)
    stuck = pool.submit(release.wait, HANG_SECONDS)
    queued = pool.submit(double, 4)
    assert eventually(stuck.running)
    pool.shutdown(wait=False)
    assert pool.stop(stuck, TaskStopped("over its limit"))
    try:
        assert queued.result(HANG_SECONDS) == 8
    finally:
        release.set()
        pool.shutdown()


def test_exit_waits_for_the_thread_that_a_stop_is_about_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stopped thread had left the pool and its successor had not joined it yet: the interpreter ended without."""
    release, seen = threading.Event(), list[bool]()
    pool = ThreadPool(1)
    stuck = pool.submit(release.wait, HANG_SECONDS)
    queued = pool.submit(double, 4)
    assert eventually(stuck.running)
    pool.shutdown(wait=False)
    begin = ThreadGroup.clear_shortage

    def join_and_begin(group: ThreadGroup) -> None:
        seen.append(group.join(0.0))
        begin(group)

    monkeypatch.setattr(ThreadGroup, "clear_shortage", join_and_begin)
    assert pool.stop(stuck, TaskStopped("over its limit"))
    assert queued.result(HANG_SECONDS) == 8
    pool.shutdown()  # the stopped thread runs on
    release.set()
    assert seen[0] is False


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_next_task_starts_a_thread_in_place_of_a_stuck_one_whose_successor_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waited for the stopped task, however long that ran on."""
    release = threading.Event()
    with ThreadPool(1) as pool:
        stuck, queued = pool.submit(release.wait, HANG_SECONDS), pool.submit(double, 1)
        assert eventually(stuck.running)
        with monkeypatch.context() as refusing:
            refusing.setattr(threading.Thread, "start", refuse)
            assert pool.stop(stuck, TaskStopped("stuck"))
        assert pool.submit(double, 2).result(HANG_SECONDS / 2) == 4
        assert queued.result(HANG_SECONDS) == 2
        release.set()


def test_shutdown_starts_a_thread_for_tasks_behind_a_stuck_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted on the stuck thread, and returned before the tasks had run, if they ever did."""
    release = threading.Event()
    pool = ThreadPool(1)
    stuck = pool.submit(release.wait, HANG_SECONDS)
    assert eventually(stuck.running)
    with monkeypatch.context() as refusing:
        refusing.setattr(threading.Thread, "start", refuse)
        queued = pool.submit(double, 4)
        pool.stop(stuck, TaskStopped("stuck"))
    pool.shutdown()
    assert queued.result(0) == 8
    release.set()


def test_stuck_thread_returns_to_a_pool_whose_next_thread_was_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    with ThreadPool(1) as pool:
        stuck = pool.submit(release.wait, HANG_SECONDS)
        assert eventually(stuck.running)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        assert pool.stop(stuck, TaskStopped("over its limit"))
        release.set()
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
        assert eventually(lambda: pool.abandoned == ())
        assert (pool.live, pool.statistics().finished["success"]) == (1, 1)


def stop_as_its_thread_ends(
    pool: ThreadPool, monkeypatch: pytest.MonkeyPatch, start: Callable[[threading.Thread], None]
) -> None:
    """Stop a task whose thread ends before `start` is called for its successor."""
    release = threading.Event()

    def start_late(thread: threading.Thread) -> None:
        release.set()
        assert eventually(lambda: pool.abandoned == ())
        start(thread)

    stuck = pool.submit(release.wait, HANG_SECONDS)
    assert eventually(stuck.running)
    with monkeypatch.context() as slow:
        slow.setattr(threading.Thread, "start", start_late)
        assert pool.stop(stuck, TaskStopped("over its limit"))
    assert release.is_set()


def test_thread_that_ends_while_its_successor_is_refused_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPool(1, initializer=nothing) as pool:  # whose threads start at once
        stop_as_its_thread_ends(pool, monkeypatch, refuse)
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
        assert pool.live == 1


def test_thread_that_ends_while_its_successor_starts_leaves_it_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPool(1, initializer=nothing) as pool:
        stop_as_its_thread_ends(pool, monkeypatch, threading.Thread.start)
        assert eventually(lambda: pool.live == 1 and pool.statistics().starting == 0)
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8


def test_stopped_queued_task_never_runs() -> None:
    release = threading.Event()
    runs: list[int] = []
    with ThreadPool(1) as pool:
        pool.submit(release.wait, HANG_SECONDS)
        future = pool.submit(runs.append, 1)
        assert pool.stop(future, TaskStopped("no longer wanted"))
        assert isinstance(future.exception(0), TaskStopped)
        release.set()
    assert runs == []


def test_shutdown_cancels_queued_tasks_on_request() -> None:
    release = threading.Event()
    pool = ThreadPool(1)
    first = pool.submit(release.wait, HANG_SECONDS)
    assert eventually(first.running)
    rest = [pool.submit(nothing) for _ in range(10)]
    mapped = pool.map(double, range(10))
    pool.shutdown(wait=False, cancel_futures=True)
    release.set()
    pool.shutdown()
    assert first.result(HANG_SECONDS)
    assert all(future.cancelled() for future in rest)
    with pytest.raises(CancelledError):
        next(mapped)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)


def test_shutdown_that_cancels_empties_the_queue_at_once() -> None:
    """Each task that a worker dropped meanwhile was looked for in the whole queue: 200,000 tasks took 18 s."""
    release = threading.Event()
    pool = ThreadPool(1)
    first = pool.submit(release.wait, HANG_SECONDS)
    assert eventually(first.running)
    rest = [pool.submit(nothing) for _ in range(10)]
    assert pool.stop(rest[-1], TaskStopped("no longer wanted"))
    pool.shutdown(wait=False, cancel_futures=True)
    assert (pool.queued, pool.statistics().finished["cancellation"]) == (0, 10)
    release.set()
    pool.shutdown()


class TakenMeanwhile(deque[Any]):
    def remove(self, item: Any) -> None:
        assert item in self
        self.clear()
        super().remove(item)


def test_task_that_a_worker_takes_from_a_closed_pool_is_not_refused() -> None:
    state = ThreadPoolState("test", "test", None, ())
    item: worker_module.WorkItem = TaskFuture[int](), double, (1,), {}, False, 0.0
    state.work_queue, state.workers.closed, state.workers.target = TakenMeanwhile([item]), True, 1
    state.wake(item)
    assert not state.work_queue


def test_shutdown_during_growth_joins_every_thread() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # switch threads as often as possible
    try:
        for _ in range(100):
            pool = ThreadPool(1)
            growing = threading.Thread(target=pool.resize, args=(16,))
            growing.start()
            pool.shutdown()
            growing.join()
            assert pool.live == 0
    finally:
        sys.setswitchinterval(interval)


def test_map_keeps_order_and_stops_at_an_error() -> None:
    with ThreadPool(3) as pool:
        assert list(pool.map(pow, [2, 3, 4], [3, 2, 1])) == [8, 9, 4]
        results = pool.map(lambda number: 1 // number, [1, 0, 2])
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_only_an_empty_map_is_accepted_after_a_shutdown() -> None:
    pool = ThreadPool(1)
    pool.shutdown()
    assert list(pool.map(abs, [])) == []
    items = iter([1, 2])
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(abs, items)
    assert next(items) == 2


def test_unread_map_runs_all_its_items() -> None:
    for _ in range(50):
        seen: list[int] = []
        with ThreadPool(4) as pool:
            pool.map(seen.append, range(20))
        assert sorted(seen) == list(range(20))


def test_map_raises_at_its_timeout() -> None:
    release = threading.Event()
    with ThreadPool(2) as pool:
        with pytest.raises(TimeoutError):
            list(pool.map(lambda _: release.wait(HANG_SECONDS), range(2), timeout=0.01))
        release.set()


def test_map_with_buffersize_reads_only_so_far_ahead() -> None:
    read: list[int] = []

    def numbers() -> object:
        for number in range(1000):
            read.append(number)
            yield number

    with ThreadPool(2) as pool:
        results = pool.map(double, numbers(), buffersize=8)  # type: ignore[arg-type]  # a generator is iterable
        assert len(read) == 8
        assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
        assert len(read) == 13
        assert list(results) == [2 * number for number in range(5, 1000)]


def test_map_with_buffersize_keeps_its_pool_open() -> None:
    """Without it the next item is refused, since a dropped pool is shut down."""
    pool = ThreadPool(1)
    dropped, results = weakref.ref(pool), pool.map(double, range(4), buffersize=1)
    del pool
    gc.collect()
    assert dropped() is not None
    assert list(results) == [0, 2, 4, 6]
    assert eventually(lambda: dropped() is None)


def test_kept_error_of_a_map_with_buffersize_keeps_no_pool_alive() -> None:
    pool = ThreadPool(1)
    dropped, results = weakref.ref(pool), pool.map(raise_it, [ValueError("as planned")], buffersize=1)
    del pool
    with pytest.raises(ValueError, match="as planned") as kept:
        next(results)
    assert eventually(lambda: dropped() is None)
    del kept


def test_million_items_with_buffersize_need_little_memory() -> None:
    code = """
from paropt_exporter.executors import ThreadPool, procfs, threads
with ThreadPool(2) as pool:
    assert sum(1 for _ in pool.map(abs, range(1_000_000), buffersize=1000)) == 1_000_000
print(procfs.read_memory_peak_bytes())
"""
    found = run_python(code, check=True)
    assert int(found.stdout) < 100_000_000


def test_pool_keeps_no_reference_to_arguments_and_results() -> None:
    class Thing:
        pass

    with ThreadPool(1) as pool:
        thing = Thing()
        seen = weakref.ref(thing)
        pool.submit(nothing, thing).result(HANG_SECONDS)
        list(pool.map(nothing, [thing]))
        del thing

        def is_gone() -> bool:
            gc.collect()
            return seen() is None

        assert eventually(is_gone)


def test_threads_of_a_dropped_pool_exit() -> None:
    pool = ThreadPool(3, thread_name_prefix="dropped")
    future = pool.submit(double, 3)
    del pool

    def none_left() -> bool:
        gc.collect()
        return not any(thread.name.startswith("dropped") for thread in threading.enumerate())

    assert eventually(none_left)
    assert future.result(0) == 6


def test_repeatedly_failing_initializer_fails_the_tasks() -> None:
    pool = ThreadPool(1, initializer=raise_it, initargs=(ValueError("no database"),))
    try:
        future = pool.submit(nothing)
    except InitializerFailed as error:
        found: BaseException | None = error
    else:
        found = future.exception(HANG_SECONDS)
    assert isinstance(found, InitializerFailed)
    assert "no database" in str(found)
    with pytest.raises(InitializerFailed):
        pool.submit(nothing)
    pool.shutdown()


def test_pool_goes_on_while_one_thread_is_initialized() -> None:
    first = iter([None])
    with ThreadPool(2, initializer=lambda: next(first)) as pool:
        assert eventually(lambda: "initializer" in pool.statistics().deaths)
        assert pool.submit(double, 2).result(HANG_SECONDS) == 4


def test_failing_initializer_is_logged_with_one_traceback(caplog: pytest.LogCaptureFixture) -> None:
    pool = ThreadPool(1, initializer=raise_it, initargs=(ValueError("no database"),))
    pool.shutdown()
    again = "initializer failed: it is called again"
    assert [record.message for record in caplog.records] == [again, again, "initializer failed"]
    assert caplog.text.count("Traceback") == 1


def fail_once_set(event: threading.Event) -> None:
    event.wait(HANG_SECONDS)
    raise ValueError("no database")


def test_failing_initializer_fails_the_tasks_of_a_closed_pool() -> None:
    closed = threading.Event()
    pool = ThreadPool(1, initializer=fail_once_set, initargs=(closed,))
    future = pool.submit(nothing)
    pool.shutdown(wait=False)
    closed.set()
    assert isinstance(future.exception(HANG_SECONDS), InitializerFailed)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(nothing)
    pool.shutdown()


def test_failing_initializer_tells_waiting_threads_of_cancelled_tasks() -> None:
    cancelled = threading.Event()
    pool = ThreadPool(1, initializer=fail_once_set, initargs=(cancelled,))
    future = pool.submit(nothing)
    assert future.cancel()
    cancelled.set()
    assert wait([future], HANG_SECONDS).not_done == set()
    pool.shutdown()
    assert pool.statistics().finished["cancellation"] == 1


def test_task_submitted_as_a_worker_wakes_gets_another_idle_worker() -> None:
    release = threading.Event()
    futures: list[Future[int]] = []

    def submit_another(frame: FrameType, event: str, called: object) -> None:
        reads_queue = event == "c_return" and called is len and frame.f_code.co_name == "note_awake"
        if reads_queue and not futures:
            futures.append(pool.submit(double, 4))

    threading.setprofile(submit_another)
    try:
        pool = ThreadPool(2, initializer=nothing)
        assert eventually(lambda: pool.live == 2)
    finally:
        threading.setprofile(None)
    try:
        blocked = pool.submit(release.wait, HANG_SECONDS)
        assert eventually(lambda: bool(futures))
        assert futures[0].result(HANG_SECONDS) == 8
        assert not blocked.done()
    finally:
        release.set()
        pool.shutdown()


def test_interrupt_anywhere_in_submit_loses_no_worker() -> None:
    """An interrupt after the note that a worker wakes, and before its waking, left all of them asleep."""
    with ThreadPool(2, initializer=nothing) as pool:
        line, interrupted = 1, True
        while interrupted:
            assert eventually(lambda: list_innermost(pool) == ["_wait_for_work"] * 2)
            interrupted = interrupted_at(line, lambda: pool.submit(double, 1), threads)
            assert pool.submit(double, line).result(HANG_SECONDS) == 2 * line
            line += 1
    assert line > 5  # there were as many places, and more if a worker had to be woken


def list_innermost(pool: ThreadPool) -> list[str]:
    """Return the names of the functions in which the threads of a pool are."""
    frames = sys._current_frames()
    prefix = f"paropt-{pool.name}"
    found = [frames.get(thread.ident or 0) for thread in threading.enumerate() if thread.name.startswith(prefix)]
    return [frame.f_code.co_name for frame in found if frame is not None]


def test_interrupt_anywhere_in_the_start_of_a_thread_loses_no_worker() -> None:
    line, interrupted = 1, True
    while interrupted:
        release = threading.Event()
        with ThreadPool(2) as pool:
            blocked = pool.submit(release.wait, HANG_SECONDS)
            assert eventually(blocked.running)
            interrupted = interrupted_at(line, lambda pool=pool: pool.submit(double, 1), executors)  # type: ignore[misc]
            assert pool.submit(double, line).result(HANG_SECONDS) == 2 * line
            assert pool.live == 2
            release.set()
        line += 1
    assert line > 30


def test_task_of_a_new_pool_does_not_start_all_threads() -> None:
    with ThreadPool(8, name="new") as pool:
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
        assert len(list_innermost(pool)) <= 2  # the second if the first was not idle yet
        assert (pool.live, pool.statistics().idle) == (8, 8)


def test_pool_without_tasks_has_no_thread() -> None:
    with ThreadPool(8, name="unused") as pool:
        pool.resize(4)
        assert (list_innermost(pool), pool.live) == ([], 4)


def test_task_is_refused_and_never_runs_without_its_first_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    with ThreadPool(2) as pool:
        with monkeypatch.context() as refusing:
            refusing.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.submit(seen.append, 1)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                pool.map(seen.append, [1])
        pool.submit(seen.append, 2).result(HANG_SECONDS)
    assert seen == [2]


def test_task_that_counted_on_a_refused_thread_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[TaskFuture[int]] = []

    def refuse_later(_: threading.Thread) -> None:
        others.append(pool.submit(double, 1))
        raise RuntimeError("can't start new thread")

    with ThreadPool(1) as pool:
        monkeypatch.setattr(threading.Thread, "start", refuse_later)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            pool.submit(double, 2)
        assert isinstance(others[0].exception(HANG_SECONDS), RuntimeError)


def test_shutdown_waits_for_a_task_whose_thread_is_about_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    start = ThreadPoolState._start_missing

    def shut_down_and_start(state: ThreadPoolState) -> None:
        monkeypatch.undo()
        closer = threading.Thread(target=pool.shutdown)
        closer.start()
        closer.join(HANG_SECONDS)
        seen.append(len(seen))
        start(state)

    pool = ThreadPool(1)
    monkeypatch.setattr(ThreadPoolState, "_start_missing", shut_down_and_start)
    assert pool.submit(lambda: seen.append(-1)).result(HANG_SECONDS) is None
    assert seen == [-1, 1]


def test_each_blocked_task_has_a_thread() -> None:
    meeting = threading.Barrier(8)
    with ThreadPool(8) as pool:
        futures = [pool.submit(meeting.wait, HANG_SECONDS) for _ in range(8)]
        assert wait(futures, HANG_SECONDS).not_done == set()
        assert list(pool.map(lambda _: meeting.wait(HANG_SECONDS) >= 0, range(8))) == [True] * 8


def test_workers_without_threads_are_available_and_leave_with_the_others() -> None:
    release = threading.Event()
    with ThreadPool(8) as pool:
        pool.resize(4)
        assert pool.live == 4
        blocked = [pool.submit(release.wait, HANG_SECONDS) for _ in range(9)]
        assert eventually(lambda: pool.busy == 4)
        pool.shutdown(wait=False)
        release.set()
    assert all(future.result(HANG_SECONDS) for future in blocked)
    found = pool.statistics()
    assert (found.live, found.finished["success"]) == (0, 9)
    assert found.slot_seconds >= found.busy_seconds > 0


def test_refused_thread_leaves_its_task_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    refused: list[threading.Thread] = []

    def note_refused(thread: threading.Thread) -> None:
        refused.append(thread)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(thread_group, "_RETRY_SECONDS", 10 * HANG_SECONDS)
    with ThreadPool(4) as pool:
        blocked = pool.submit(release.wait, HANG_SECONDS)
        assert eventually(blocked.running)
        with monkeypatch.context() as refusing:
            refusing.setattr(threading.Thread, "start", note_refused)
            queued = [pool.submit(double, 4) for _ in range(3)]
        assert (pool.live, len(refused)) == (1, 1)
        release.set()
        assert [future.result(HANG_SECONDS) for future in queued] == [8] * 3


def test_task_retries_a_refused_thread_though_all_others_are_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited until one of them had ended its task."""
    release = threading.Event()
    monkeypatch.setattr(thread_group, "_RETRY_SECONDS", 0.0)
    with ThreadPool(2) as pool:
        blocked = pool.submit(release.wait, HANG_SECONDS)
        assert eventually(blocked.running)
        with monkeypatch.context() as refusing:
            refusing.setattr(threading.Thread, "start", refuse)
            queued = pool.submit(double, 4)
        assert pool.submit(double, 5).result(HANG_SECONDS / 2) == 10
        assert queued.result(HANG_SECONDS) == 8
        release.set()


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, TimeoutError])
def test_task_of_another_thread_runs_after_an_interrupted_start_of_its_worker(
    monkeypatch: pytest.MonkeyPatch, interrupt: type[BaseException]
) -> None:
    """It had relied on the worker that was on its way, and waited for the next task."""
    with ThreadPool(1) as pool:
        other = list[Future[int]]()

        def submit_and_interrupt(_: PoolThread) -> None:
            monkeypatch.undo()
            other.append(pool.submit(double, 2))
            raise interrupt

        monkeypatch.setattr(PoolThread, "start", submit_and_interrupt)
        with pytest.raises(interrupt):
            pool.submit(double, 1)
        assert other[0].result(HANG_SECONDS) == 4


def test_shutdown_after_an_interrupted_one_ends_all_workers() -> None:
    line, interrupted = 1, True
    while interrupted:
        pool = ThreadPool(3, initializer=nothing)
        assert eventually(lambda pool=pool: list_innermost(pool) == ["_wait_for_work"] * 3)  # type: ignore[misc]
        interrupted = interrupted_at(line, pool.shutdown, threads)
        assert shuts_down(pool), line
        line += 1
    assert line > 10


def test_interrupted_shutdown_that_cancels_loses_no_task() -> None:
    line, interrupted = 1, True
    while interrupted:
        pool, release = ThreadPool(1), threading.Event()
        futures = [pool.submit(release.wait, HANG_SECONDS) for _ in range(4)]
        assert eventually(futures[0].running)
        interrupted = interrupted_at(line, lambda pool=pool: pool.shutdown(False, cancel_futures=True), threads)  # type: ignore[misc]
        release.set()
        assert shuts_down(pool), line
        assert wait(futures, HANG_SECONDS).not_done == set(), line
        line += 1
    assert line > 20


def test_stop_of_a_task_that_ends_meanwhile_forgets_no_other_thread() -> None:
    """A new thread had got the ident of the one that ended: `shutdown` did not wait for its tasks."""
    pool, stopped_ends, others_end = ThreadPool(2), threading.Event(), threading.Event()
    stopped = pool.submit(stopped_ends.wait, HANG_SECONDS)
    others = [pool.submit(others_end.wait, HANG_SECONDS)]
    assert eventually(lambda: stopped.running() and others[0].running())
    (thread,) = (each for each in threading.enumerate() if each.name == pool._state.workers.all[0].name)

    def end_and_start() -> None:
        stopped_ends.set()
        thread.join(HANG_SECONDS)
        others.append(pool.submit(others_end.wait, HANG_SECONDS))
        assert eventually(others[1].running)

    line = "with self.lock:  # only now, since a `join` in another thread must see the stopped worker or its successor"
    with act_before(ThreadPoolState.stop, line, end_and_start):
        assert pool.stop(stopped, TaskStopped("stop"))
    assert len(pool._state._threads._threads) == 2
    others_end.set()
    assert shuts_down(pool)


def test_shutdown_does_not_wait_for_a_stopped_task_that_has_renamed_its_thread() -> None:
    pool, renamed, ends = ThreadPool(1), threading.Event(), threading.Event()

    def rename_and_wait() -> None:
        threading.current_thread().name = "mine"
        renamed.set()
        ends.wait(HANG_SECONDS)

    task = pool.submit(rename_and_wait)
    assert renamed.wait(HANG_SECONDS)
    assert pool.stop(task, TaskStopped("stop"))
    assert shuts_down(pool)
    ends.set()


def test_interrupted_stop_costs_no_worker() -> None:
    """The thread of the stopped task had ended, and counted as a worker: the pool ran no further task."""
    line, interrupted = 1, True
    while interrupted:
        pool, release = ThreadPool(1), threading.Event()
        blocked = pool.submit(release.wait, HANG_SECONDS)
        assert eventually(blocked.running)
        interrupted = interrupted_at(line, lambda pool=pool, task=blocked: pool.stop(task, TaskStopped()), threads)  # type: ignore[misc]
        release.set()
        assert pool.submit(double, line).result(HANG_SECONDS) == 2 * line
        assert shuts_down(pool), line
        assert not pool.statistics().live, line
        line += 1
    assert line > 20


def test_interrupted_resize_adds_its_workers_later() -> None:
    line, interrupted = 1, True
    while interrupted:
        pool, meeting = ThreadPool(1), threading.Barrier(2)
        interrupted = interrupted_at(line, lambda pool=pool: pool.resize(2), executors)  # type: ignore[misc]
        pool.resize(2)
        futures = [pool.submit(meeting.wait, HANG_SECONDS) for _ in range(2)]
        assert wait(futures, HANG_SECONDS).not_done == set(), line
        assert all(future.exception() is None for future in futures), line
        assert shuts_down(pool), line
        line += 1
    assert line > 20


def test_idle_pool_uses_no_cpu() -> None:
    with ThreadPool(16) as pool:
        assert eventually(lambda: pool.statistics().idle == 16)
        before = pool.statistics().cpu_seconds
        end = time.monotonic() + 0.3
        threading.Event().wait(end - time.monotonic())
        assert pool.statistics().cpu_seconds - before < 0.005


def test_interpreter_exit_finishes_submitted_tasks() -> None:
    code = """
import time
from paropt_exporter.executors import ThreadPool
pool = ThreadPool(1)
for number in range(3):
    pool.submit(lambda number=number: print(number, flush=True))
"""
    assert read_printed(code, check=True) == "0\n1\n2\n"


@pytest.mark.parametrize(("cpu_seconds", "delay_seconds"), [(0.95, 0.0), (0.5, 0.25)])
def test_sampling_reads_the_run_delay_only_of_tasks_that_may_have_lost_time(
    monkeypatch: pytest.MonkeyPatch, cpu_seconds: float, delay_seconds: float
) -> None:
    monkeypatch.setattr(procfs, "read_thread_cpu_seconds", lambda _: cpu_seconds)
    monkeypatch.setattr(procfs, "sample_schedstat", lambda _: (11.0, cpu_seconds, 0.25))
    monkeypatch.setattr(worker_module, "monotonic", lambda: 11.0)
    future: TaskFuture[None] = TaskFuture()
    worker = Worker("worker")
    worker.task, worker.started_seconds, worker.delay_baseline = (future, nothing), 10.0, (10.0, 0.0)
    ((seen, task),) = worker_module.sample_running([worker], children=read, state=read)
    assert seen is future
    assert (task.cpu_seconds, task.run_delay_seconds) == (cpu_seconds, delay_seconds)


def read(_: TaskFuture[Any]) -> bool:
    """Have samples read the child processes of a task, or its thread's state."""
    return True


def skip(_: TaskFuture[Any]) -> bool:
    return False


def begin_and_wait(begun: threading.Event, gate: threading.Event) -> None:
    begun.set()
    gate.wait(HANG_SECONDS)


@pytest.mark.parametrize(("sampled", "seconds"), [(True, 3.0), (False, 0.0)])
def test_first_sample_of_a_prepared_task_has_its_whole_wait_for_a_core(
    monkeypatch: pytest.MonkeyPatch, *, sampled: bool, seconds: float
) -> None:
    """On a busy machine a computing task seemed to want 0.45 of a core, so that all others ran in threads too."""
    begun, gate = threading.Event(), threading.Event()
    monkeypatch.setattr(procfs, "read_run_delay_seconds", lambda _: 4.0)
    monkeypatch.setattr(procfs, "read_thread_cpu_seconds", lambda _: 0.0)  # a young task has only computed
    monkeypatch.setattr(procfs, "sample_schedstat", lambda _: (time.monotonic(), 0.0, 7.0))
    with ThreadPool(1) as pool:
        pool.submit_future(TaskFuture(), begin_and_wait, (begun, gate), {}, sampled=sampled)
        assert begun.wait(HANG_SECONDS)
        ((_, task),) = pool.sample_running(children=read, state=read)
        assert task.run_delay_seconds == seconds
        gate.set()


@pytest.mark.parametrize(("prepared", "switches"), [(True, Switches(8, 3)), (False, Switches())])
def test_samples_of_a_running_task_count_from_its_preparation_on(
    monkeypatch: pytest.MonkeyPatch, *, prepared: bool, switches: Switches
) -> None:
    """A pool's first task is prepared late. Its first sample had none, so a task that computed seemed to wait."""
    reads = iter([(1, 0), (9, 3)] if prepared else [(9, 3)])
    begun, gate = threading.Event(), threading.Event()
    monkeypatch.setattr(procfs, "read_run_delay_seconds", lambda _: 4.0)
    monkeypatch.setattr(procfs, "read_thread_cpu_seconds", lambda _: 0.0)  # as above
    monkeypatch.setattr(procfs, "sample_schedstat", lambda _: (time.monotonic(), 0.0, 7.0))
    monkeypatch.setattr(procfs, "read_switches", lambda _: next(reads))
    with ThreadPool(1) as pool:
        pool.submit(begin_and_wait, begun, gate)
        assert begun.wait(HANG_SECONDS)
        if prepared:
            pool.prepare_samples()
        ((_, task),) = pool.sample_running(children=read, state=read)
        assert task.switches == switches
        gate.set()


def test_sampling_reads_nothing_of_tasks_that_are_too_young(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    with ThreadPool(2) as pool:
        pool.submit(gate.wait, HANG_SECONDS)
        assert eventually(lambda: pool.busy == 1)
        assert len(pool.sample_running(children=read, state=read)) == 1
        monkeypatch.setattr(procfs, "sample_schedstat", lambda _: pytest.fail("it was read"))
        assert pool.sample_running(children=read, state=read, youngest_seconds=HANG_SECONDS) == ()
        gate.set()


def test_age_of_a_sample_is_that_of_its_cpu_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10.007

    def sample_schedstat(_: str) -> tuple[float, float, float]:
        nonlocal now
        now += 0.030  # other threads compute: the monitor waits for the interpreter's lock before and after the read
        return now - 0.015, 0.020, 0.001

    monkeypatch.setattr(procfs, "read_thread_cpu_seconds", lambda _: 0.006)
    monkeypatch.setattr(procfs, "sample_schedstat", sample_schedstat)
    monkeypatch.setattr(worker_module, "monotonic", lambda: now)
    worker = Worker("worker")
    worker.task, worker.started_seconds = (TaskFuture(), nothing), 10.0
    ((_, task),) = worker_module.sample_running([worker], children=skip, state=skip)
    measured = measure_so_far(task)
    assert measured.ended_seconds - measured.started_seconds == pytest.approx(0.022)
    assert measured.cpu_seconds == 0.020


def test_schedstat_is_dated_between_the_waits_of_its_reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "schedstat").write_text("6000000 1000000 3\n")
    now, original = 10.0, os.open

    def open_slowly(*arguments: Any, **keywords: Any) -> int:
        nonlocal now
        now += 0.015
        return original(*arguments, **keywords)

    monkeypatch.setattr(os, "open", open_slowly)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert procfs.sample_schedstat(str(tmp_path / "schedstat")) == (10.015, 0.006, 0.001)


def test_signal_handler_may_use_a_pool_whose_thread_is_starting() -> None:
    """It waited for the lock of the pool, and the holder of this one for that of the pool's threads."""
    pool, handled = ThreadPool(1, initializer=nothing), threading.Event()

    def handle_signal(frame: FrameType, *_: object) -> None:
        caller = frame.f_back
        if frame.f_code is threading.Condition.notify_all.__code__ and caller and caller.f_code is start.__code__:
            sys.settrace(None)
            resizer = threading.Thread(target=pool.resize, args=(3,), daemon=True)
            resizer.start()
            resizer.join(0.01)  # it may wait for this thread
            pool.statistics()
            handled.set()

    def resize() -> None:
        sys.settrace(handle_signal)
        pool.resize(2)

    start = ThreadGroup.start
    thread = threading.Thread(target=resize, daemon=True)
    thread.start()
    thread.join(HANG_SECONDS)
    assert handled.is_set()
    pool.shutdown()
