"""Where queued tasks of an AdaptivePool run, whether they may start, and how many threads they need: pure decisions."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.events import Measurement, RunningTask, Strategy
from paropt_exporter.executors import Router, TaskFuture, lifetime
from paropt_exporter.executors.adaptive.backlog import Backlog, QueuedTask
from paropt_exporter.executors.adaptive.pools import PoolBounds, Pools, compute_thread_count
from paropt_exporter.executors.adaptive.routing import FunctionProfile
from paropt_exporter.executors.adaptive.scheduler import Placement
from paropt_exporter.executors.base import PROCESSES, THREADS
from paropt_exporter.executors.demand import ChildDemand


class Setting:
    """A placement on two cores, and everything by which it decides. No pool is ever made."""

    def __init__(self, strategy: Strategy = Strategy.ADAPTIVE, *, max_workers: int | None = None) -> None:
        self.router = Router(strategy)
        self.backlog = Backlog()
        self.children = ChildDemand()
        bounds = PoolBounds(strategy=strategy, cores=2, max_workers=max_workers, start=2)
        self.pools = Pools(bounds, nullcontext(), lambda *_: None)
        self.placement = Placement(self.router, self.backlog, self.pools, self.children)

    def know(self, **demands: float) -> None:
        self.router.load_profiles(
            FunctionProfile(function=key, cpu_demand=demand, seconds=1.0) for key, demand in demands.items()
        )

    def queue(self, key: str, count: int = 1) -> list[QueuedTask]:
        tasks = [queued(key) for _ in range(count)]
        for task in tasks:
            self.backlog.enqueue(task)
        return tasks

    def run(self, key: str, pool_name: str) -> TaskFuture[Any]:
        """Let a pool have a task of this function."""
        self.queue(key)
        task = self.backlog.take(key, pool_name, profiled=False)
        self.backlog.note_arrival(task)
        return task.future

    def starts(self, key: str) -> bool:
        return self.placement.may_start(key, self.placement.choose_pool(key))


def queued(key: str) -> QueuedTask:
    return QueuedTask(TaskFuture(), key, print, (), {})


def test_unknown_function_runs_one_task_until_it_is_measured() -> None:
    setting = Setting()
    assert setting.starts("f")
    setting.run("f", THREADS)
    assert not setting.starts("f")
    setting.know(f=0.0)
    assert setting.starts("f")


def test_unknown_function_goes_to_a_process_while_a_thread_computes() -> None:
    setting = Setting()
    setting.run("burns", THREADS)
    assert setting.placement.choose_pool("f") == THREADS
    setting.know(burns=1.0)
    assert setting.placement.choose_pool("f") == PROCESSES


def test_one_task_at_a_time_is_tried_in_a_process() -> None:
    setting = Setting()
    setting.know(f=0.02)
    for _ in range(5):
        setting.router.learn("f", measurement(0.02), concurrent=1)
    setting.router.learn("f", measurement(0.02), concurrent=60)
    assert setting.placement.choose_pool("f") == PROCESSES
    future = setting.run("f", PROCESSES)
    assert setting.placement.choose_pool("f") == THREADS
    setting.backlog.end(future)
    assert setting.placement.choose_pool("f") == PROCESSES


def measurement(cpu: float) -> Measurement:
    return Measurement(worker="w", pid=os.getpid(), started_seconds=0.0, ended_seconds=1.0, cpu_seconds=cpu)


def test_other_strategies_fill_their_pool_without_a_trial() -> None:
    setting = Setting(Strategy.HYBRID, max_workers=3)
    starts = []
    for _ in range(4):
        starts.append(setting.starts("f"))
        setting.run("f", THREADS)
    assert starts == [True, True, True, False]


def test_tasks_with_child_processes_start_as_the_cores_have_room() -> None:
    setting = Setting(max_workers=8)
    setting.pools.sizes[THREADS] = 8
    setting.know(f=0.0)
    future = setting.run("f", THREADS)
    setting.children.sample([(future, "f", parent(10.0, 0.0))], 10.0)
    assert setting.children.is_unmeasured("f")
    assert not setting.starts("f")  # until the child processes are measured
    setting.children.sample([(future, "f", parent(10.2, 0.2))], 10.2)
    assert setting.starts("f")
    setting.run("f", THREADS)
    assert not setting.starts("f")


def parent(now: float, child_seconds: float) -> RunningTask:
    return RunningTask(
        label="f",
        worker="w",
        started_seconds=9.0,
        cpu_seconds=0.0,
        memory_bytes=0,
        core_time=CoreTime(1.0 + child_seconds),
        sampled_seconds=now,
        children_sampled_seconds=now if child_seconds > -1.0 else None,
    )


@pytest.mark.parametrize(
    ("demand", "tasks", "expected"), [(0.0, 100, 64), (0.0, 12, 12), (0.1, 100, 10), (0.5, 100, 2), (1.0, 100, 1)]
)
def test_threads_share_one_core(demand: float, tasks: int, expected: int) -> None:
    assert compute_thread_count(demand, tasks, 64) == expected


def test_queued_tasks_that_wait_get_threads_and_no_others_do() -> None:
    setting = Setting()
    assert setting.placement.get_queued_thread_demand() is None
    setting.know(waits=0.05, burns=1.0)
    setting.queue("waits", 12)
    setting.queue("burns", 50)
    assert setting.placement.choose_thread_count(0.05, in_pool=0) == 12
    setting.queue("unknown", 50)
    assert setting.placement.get_queued_thread_demand() == pytest.approx(0.05)
    assert setting.placement.choose_thread_count(0.05, in_pool=0) == 13  # one of the unknown function
    assert setting.placement.choose_thread_count(0.5, in_pool=2) == 2  # busy threads are not taken away


def test_unknown_functions_get_a_thread_one_at_a_time_beside_measured_tasks() -> None:
    """A function waited until one of two others had ended, and so forever if these waited for its result."""
    setting = Setting()
    futures = [setting.run("a", THREADS), setting.run("b", THREADS)]
    setting.queue("c")
    setting.queue("d")
    assert setting.placement.choose_thread_count(0.0, in_pool=2) == 2
    setting.know(a=0.0, b=0.0)
    assert setting.placement.choose_thread_count(0.0, in_pool=2) == 2  # their child processes may be about to start
    for at in (9.03, 9.06, 9.11, 9.2):
        setting.children.sample(
            [(future, key, parent(at, -1.0)) for future, key in zip(futures, "ab", strict=True)], at
        )
    assert setting.placement.choose_thread_count(0.0, in_pool=2) == 3
    assert setting.placement.choose_thread_count(0.5, in_pool=2) == 2  # others compute: it would wait for the GIL
    setting.pools.sizes[THREADS] = 3
    setting.run("c", THREADS)
    assert setting.placement.choose_thread_count(0.0, in_pool=3) == 3


def test_one_unknown_function_starts_beside_child_processes_that_take_the_cores() -> None:
    setting = Setting()
    setting.know(a=0.0, b=0.0, c=0.0)
    futures = {key: setting.run(key, THREADS) for key in "abc"}
    setting.queue("d")
    setting.pools.sizes[THREADS] = 3
    for at in (10.0, 10.2):
        setting.children.sample([(future, key, parent(at, at - 10.0)) for key, future in futures.items()], at)
    assert setting.placement.choose_thread_count(0.0, in_pool=3) == 3
    setting.backlog.end(futures["c"])
    assert setting.placement.choose_thread_count(0.0, in_pool=2) == 3


def test_waiting_for_child_processes_needs_no_threads_beyond_the_cores() -> None:
    setting = Setting()
    setting.know(f=0.0)
    setting.pools.sizes[THREADS] = 40
    setting.children.parents.add("f")
    setting.queue("f", 100)
    assert setting.placement.choose_thread_count(0.0, in_pool=1) == 2


@pytest.mark.parametrize(
    ("strategy", "threads", "processes", "most"),
    [
        (Strategy.SEQUENTIAL, 1, 1, 1),
        (Strategy.THREAD, 6, 2, 6),
        (Strategy.PROCESS, 6, 2, 2),
        (Strategy.HYBRID, 6, 2, 6),
        (Strategy.ADAPTIVE, 3, 2, 64),
    ],
)
def test_sizes_without_a_maximum(strategy: Strategy, threads: int, processes: int, most: int) -> None:
    bounds = PoolBounds(strategy=strategy, cores=2, max_workers=None, start=3)
    assert (bounds.get_initial(THREADS), bounds.get_initial(PROCESSES), bounds.most_workers) == (
        threads,
        processes,
        most,
    )


def test_interrupted_submission_returns_to_the_front_of_its_queue() -> None:
    backlog = Backlog()
    first, second = queued("f"), queued("f")
    for task in (first, second):
        backlog.enqueue(task)
    assert backlog.take("f", THREADS, profiled=False) is first
    assert not backlog.is_passed_on
    backlog.take_back()
    assert [*backlog.iter_queued()] == [first, second]
    assert (backlog.counts[THREADS], dict(backlog.submitted)) == (0, {})


@pytest.mark.parametrize("end", [lambda task: task.cancel(), lambda task: task.force_exception(ValueError())])
def test_cancelled_and_stopped_tasks_leave_their_queue(end: Callable[[TaskFuture[Any]], object]) -> None:
    setting = Setting()
    done, waiting = setting.queue("f", 2)
    end(done.future)
    assert setting.backlog.drop_done("f")
    assert [*setting.backlog.iter_queued()] == [waiting]
    assert not setting.backlog.drop_done("f")
    setting.backlog.notify_dropped()
    assert done.future._state in ("CANCELLED_AND_NOTIFIED", "FINISHED")


def test_task_waits_behind_others_of_its_function_if_the_end_of_a_task_starts_these() -> None:
    backlog = Backlog()
    assert not backlog.enqueue(queued("f"))
    assert not backlog.enqueue(queued("f"))  # no task is submitted: an interrupt came before the first one was
    backlog.take("f", THREADS, profiled=False)
    assert backlog.enqueue(queued("f"))
    assert not backlog.enqueue(queued("g"))


def test_task_that_a_signal_handler_queues_while_the_last_one_is_taken_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog, late, drop = Backlog(), queued("f"), Backlog.drop_queue

    def queue_first(own: Backlog, key: str) -> None:
        own.enqueue(late)
        drop(own, key)

    monkeypatch.setattr(Backlog, "drop_queue", queue_first)
    backlog.enqueue(queued("f"))
    backlog.take("f", THREADS, profiled=False)
    assert [*backlog.iter_queued()] == [late]


def test_count_is_right_again_after_an_interrupt_of_the_end_of_a_task() -> None:
    """The monitor went on, and the pool did not shut down."""
    setting = Setting()
    future = setting.run("f", THREADS)
    del setting.backlog.submitted[future]
    setting.backlog.end_cancelled()
    assert setting.backlog.counts[THREADS] == 0


def test_functions_take_turns() -> None:
    backlog = Backlog()
    for key in ("f", "f", "g"):
        backlog.enqueue(queued(key))
    backlog.take("f", THREADS, profiled=False)
    assert [*backlog.queued] == ["g", "f"]


@pytest.mark.parametrize("live", [0, 1])
def test_one_task_computes_in_a_thread_while_the_first_process_starts(
    monkeypatch: pytest.MonkeyPatch, live: int
) -> None:
    monkeypatch.setattr(lifetime, "FORK_SERVERS", SimpleNamespace(warm=False))
    setting = Setting()
    setting.know(computes=1.0)
    monkeypatch.setattr(Pools, "processes", SimpleNamespace(live=live))
    chosen = []
    for _ in range(4):
        chosen.append(setting.placement.choose_pool("computes"))
        setting.run("computes", chosen[-1])
    assert chosen == [PROCESSES, PROCESSES, PROCESSES if live else THREADS, PROCESSES]
