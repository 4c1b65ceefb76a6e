"""The agent of a worker: which task of which session a pool runs."""

from __future__ import annotations

from typing import Any

from paropt_exporter.events import RunningTask
from paropt_exporter.executors.cluster.agent import find_future
from paropt_exporter.executors.future import TaskFuture


def started(label: str, seconds: float | None) -> TaskFuture[Any]:
    future: TaskFuture[Any] = TaskFuture()
    future.label = label
    if seconds is not None:
        assert future.start_running(seconds)
    return future


def running(label: str, seconds: float) -> RunningTask:
    return RunningTask(label=label, worker="", started_seconds=seconds, cpu_seconds=0.0, memory_bytes=0)


def test_tasks_of_two_lanes_with_one_label_differ_by_their_start() -> None:
    """Each lane got the usage of both tasks, and took that of the later one for its own."""
    futures = [started("unit[a]", at) for at in (1.0, 2.0, None)]
    assert find_future(running("unit[a]", 1.001), futures) is futures[0]
    assert find_future(running("unit[a]", 2.0), futures) is futures[1]
    assert find_future(running("unit[b]", 2.0), futures) is None
