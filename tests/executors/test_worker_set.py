"""WorkerSet decides which workers of a ThreadPool are woken, start or exit, without any thread."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import pytest

from paropt_exporter.executors import TaskFuture
from paropt_exporter.executors.counters import PoolCounters
from paropt_exporter.executors.thread_group import ThreadGroup
from paropt_exporter.executors.threads.worker import SharedWorkItem, Worker, WorkerSet, WorkItem

ITEM: WorkItem = (TaskFuture(), print, (), {}, 0, 0.0)


class Pool:
    """The workers of a pool whose threads never start, and its queue."""

    def __init__(self, target: int, *, eager: bool = False) -> None:
        self.queue: deque[WorkItem | SharedWorkItem] = deque()
        self.counters = PoolCounters("test")
        self.threads = ThreadGroup(threading.RLock())
        self.workers = WorkerSet("w", self.queue, self.threads, self.counters, eager=eager)
        self.workers.set_target(target)

    def start_worker(self) -> Worker:
        """Start a worker for a new task, which it takes at once."""
        self.queue.append(ITEM)
        worker = self.workers.add_needed()
        assert worker is not None
        self.run(worker)
        return worker

    def run(self, worker: Worker) -> None:
        """Let the worker take the oldest task."""
        self.workers.note_ready(worker)
        self.workers.note_awake(worker)
        worker.task = self.queue.popleft()  # type: ignore[assignment]

    def drop_unstarted(self) -> bool:
        """Drop the worker that was added last, as if the system had refused its thread."""
        self.threads.note_shortage()
        return self.workers.drop_unstarted()

    def end_task(self, worker: Worker) -> None:
        worker.task = None
        self.workers.note_idle(worker)


def is_woken(worker: Worker) -> bool:
    return worker.wakeup.acquire(blocking=False)


def test_workers_of_a_new_pool_wait_for_tasks() -> None:
    pool = Pool(3)
    assert pool.workers.add_needed() is None
    assert (pool.workers.live, pool.workers.has_threads, pool.workers.needs_wake) == (3, False, True)


def test_workers_with_an_initializer_start_at_once() -> None:
    pool = Pool(2, eager=True)
    started = [pool.workers.add_needed() for _ in range(3)]
    assert [worker.name if worker else None for worker in started] == ["w_0", "w_1", None]
    assert (pool.workers.live, pool.workers.has_threads) == (0, True)


def test_one_worker_at_a_time_is_on_its_way() -> None:
    pool = Pool(3)
    pool.queue.extend([ITEM] * 3)
    first = pool.workers.add_needed()
    assert first is not None
    assert pool.workers.add_needed() is None
    assert not pool.workers.needs_wake  # the worker on its way starts the next one
    pool.workers.note_ready(first)
    assert pool.workers.note_awake(first)  # three tasks are queued: start another one
    assert pool.workers.add_needed() is not None


def test_idle_worker_is_woken_before_another_one_starts() -> None:
    pool = Pool(2)
    worker = pool.start_worker()
    pool.end_task(worker)
    assert pool.workers.needs_wake
    pool.queue.append(ITEM)
    assert not pool.workers.wake_next()
    assert is_woken(worker)
    assert pool.workers.add_needed() is None


def test_last_worker_that_became_idle_is_woken_first() -> None:
    pool = Pool(2)
    first, second = pool.start_worker(), pool.start_worker()
    pool.end_task(second)
    pool.end_task(first)
    pool.workers.wake_next()
    assert (is_woken(first), is_woken(second)) == (True, False)


def test_worker_does_not_sleep_if_a_task_came_before_it_was_idle() -> None:
    pool = Pool(1)
    worker = pool.start_worker()
    pool.queue.append(ITEM)
    pool.end_task(worker)
    assert pool.workers.stay_awake(worker)
    assert not pool.workers.stay_awake(worker)  # it is no longer idle


def test_worker_that_was_woken_meanwhile_takes_the_signal() -> None:
    pool = Pool(1)
    worker = pool.start_worker()
    pool.end_task(worker)
    pool.queue.append(ITEM)
    pool.workers.wake_next()
    assert not pool.workers.stay_awake(worker)
    assert is_woken(worker)


@pytest.mark.parametrize("ready", [False, True])
def test_surplus_worker_stays_until_another_one_is_ready(*, ready: bool) -> None:
    pool = Pool(1)
    worker = pool.start_worker()
    pool.workers.set_target(2)
    pool.queue.append(ITEM)
    other = pool.workers.add_needed()
    assert other is not None
    pool.workers.set_target(1)
    assert pool.workers.must_check_exit
    if ready:
        pool.run(other)
    assert pool.workers.remove_if_surplus(worker) is ready


def test_shrinking_to_the_started_workers_ends_none() -> None:
    pool = Pool(4)
    pool.start_worker()
    pool.workers.set_target(1)
    assert (pool.workers.live, pool.workers.busy, pool.workers.must_check_exit) == (1, 1, False)


def test_closed_pool_keeps_its_workers_while_tasks_are_queued() -> None:
    pool = Pool(2)
    worker = pool.start_worker()
    pool.queue.append(ITEM)
    pool.workers.closed = True
    assert not pool.workers.remove_if_surplus(worker)
    pool.queue.clear()
    assert pool.workers.remove_if_surplus(worker)
    assert pool.workers.live == 0


def test_abandoned_thread_becomes_a_worker_again_if_it_has_no_successor() -> None:
    pool = Pool(1)
    worker = pool.start_worker()
    future = begin(worker)
    assert pool.workers.abandon(future) is worker
    assert (pool.workers.all, pool.workers.list_abandoned()) == ([], ("stopped",))
    assert pool.counters.deaths["stopped"] == 1
    assert not pool.workers.remove_if_surplus(worker)
    assert (pool.workers.all, pool.workers.list_abandoned()) == ([worker], ())


def test_abandoned_thread_exits_if_its_successor_is_ready() -> None:
    pool = Pool(1)
    worker = pool.start_worker()
    pool.workers.abandon(begin(worker))
    pool.start_worker()
    assert pool.workers.remove_if_surplus(worker)
    assert pool.workers.live == 1


def begin(worker: Worker) -> TaskFuture[Any]:
    """Let the worker run a task of its own future."""
    future: TaskFuture[Any] = TaskFuture()
    future.label = "stopped"
    future.start_running(1.0)
    worker.task = (future, print)
    return future


def test_thread_that_could_not_start_is_retried_by_the_next_task() -> None:
    pool = Pool(1)
    pool.queue.append(ITEM)
    assert pool.workers.add_needed() is not None
    assert not pool.drop_unstarted()
    assert (pool.workers.live, pool.workers.needs_wake, pool.workers.wake_pending) == (0, True, False)
    assert pool.workers.wake_next()
