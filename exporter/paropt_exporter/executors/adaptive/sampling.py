"""What running tasks show of themselves: their share of a core, and whether they compete for the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic

from paropt_exporter.cpu_demand import CoreTime, cpu_demand
from paropt_exporter.events import Measurement, RunningTask
from paropt_exporter.executors.adaptive.routing import FULL_LOCK_CORES


def age_seconds(task: RunningTask) -> float:
    return max(1e-6, monotonic() - task.started_seconds)


def crowd(shares: Sequence[float]) -> int:
    """Return how many of the running tasks compete for the interpreter's lock: 1 unless they fill it."""
    total = sum(shares)
    return sum(share >= total / len(shares) / 2 for share in shares) if total >= FULL_LOCK_CORES else 1


def share(task: RunningTask) -> float:
    """Return the part of a core that a task's own thread has wanted so far, whether it got it or not."""
    time = CoreTime(task.thread_run_seconds, task.run_delay_seconds)
    return min(1.0, cpu_demand(time, max(age_seconds(task), 1e-3)))


def children_time(task: RunningTask) -> CoreTime:
    """Return the core time of the processes that a task has started."""
    return task.core_time.since(CoreTime(task.thread_run_seconds, task.run_delay_seconds))


def so_far(task: RunningTask) -> Measurement:
    return Measurement(
        worker=task.worker,
        pid=os.getpid(),
        started_seconds=task.started_seconds,
        ended_seconds=monotonic(),
        cpu_seconds=task.thread_run_seconds,
        run_delay_seconds=task.run_delay_seconds,
    )
