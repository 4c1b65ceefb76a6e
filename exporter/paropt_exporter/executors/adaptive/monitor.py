"""Sample the running tasks of an adaptive pool while others are queued: their CPU demand, and their child processes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Protocol

from paropt_exporter.cpu_demand import CoreTime, cpu_demand
from paropt_exporter.events import Measurement, RunningTask
from paropt_exporter.executors.adaptive.routing import FULL_LOCK_CORES

log = logging.getLogger(__name__)

_MAX_CHILD_SAMPLE_SECONDS = 0.25  # between two samples of child processes while no task is queued
FIRST_SAMPLE_SECONDS = 0.005  # after the first task was queued: long enough to measure a thread's CPU demand
_MAX_SAMPLE_SECONDS = 0.05
_IDLE_SECONDS = 10.0  # without queued tasks, until surplus threads are released


class MonitoredScheduler(Protocol):
    """The scheduler of a monitor."""

    closed: bool

    @property
    def changed(self) -> threading.Condition: ...

    def count_pending(self) -> int: ...

    def runs_in_threads(self) -> bool: ...

    def knows_backlog(self) -> bool: ...

    def sample_running(self) -> None: ...

    def release_surplus(self) -> None: ...


class Monitor:
    """A thread that samples running tasks while others are queued, less and less often, and then releases threads.

        no thread ──wake()──> sampling <──(tasks queued)── idle ──(10 s)──> no thread
                                 └──(none queued, none in threads)──^

    While tasks run in threads and none is queued, it samples a few times a second, since the CPU time and memory of
    child processes can be read only while they live.

    The scheduler calls it without any lock held; the scheduler's `changed` guards the state.
    """

    def __init__(self, scheduler: MonitoredScheduler) -> None:
        self._scheduler = scheduler
        self._thread: threading.Thread | None = None
        self._idle = False
        self._warned = False  # whether it has logged that the system refused a thread

    @property
    def is_sampling(self) -> bool:
        return self._thread is not None and not self._idle

    def wake(self) -> None:
        """Start sampling if tasks are queued or run in threads."""
        scheduler = self._scheduler
        with scheduler.changed:
            if scheduler.closed or not (scheduler.count_pending() or scheduler.runs_in_threads()):
                return
            if self._thread is not None:
                if self._idle:
                    scheduler.changed.notify_all()
                return
            thread = self._thread = threading.Thread(target=self._run, name="paropt-adaptive-monitor", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._warned:
                log.warning("the system starts no thread to sample running tasks", extra={"err": str(error)})
            self._thread, self._warned = None, True  # retried when the next task is submitted or ends

    def join(self) -> None:
        """Join the thread, which ends with its scheduler."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        scheduler, pause, last_busy = self._scheduler, FIRST_SAMPLE_SECONDS, monotonic()
        while not scheduler.closed or scheduler.count_pending() or scheduler.runs_in_threads():
            with scheduler.changed:
                is_idle = not (scheduler.count_pending() or scheduler.runs_in_threads())
                left = _IDLE_SECONDS - (monotonic() - last_busy) if is_idle else pause
                if is_idle and left <= 0:
                    self._thread = None
                    break
                self._idle = is_idle
                scheduler.changed.wait_for(self._must_wake, timeout=left)
                self._idle = False
            if not is_idle:
                last_busy = monotonic()
                scheduler.sample_running()
                pause = self._get_next_pause(pause)
        if not scheduler.closed:
            scheduler.release_surplus()

    def _get_next_pause(self, pause: float) -> float:
        if not self._scheduler.count_pending():
            return min(pause * 1.5, _MAX_CHILD_SAMPLE_SECONDS)
        return min(pause * 1.5, _MAX_SAMPLE_SECONDS) if self._scheduler.knows_backlog() else FIRST_SAMPLE_SECONDS

    def _must_wake(self) -> bool:
        work = self._scheduler.count_pending() > 0 or self._scheduler.runs_in_threads()
        return (self._scheduler.closed and not work) or (self._idle and work)


def get_age_seconds(task: RunningTask) -> float:
    return max(1e-6, monotonic() - task.started_seconds)


def count_competing(demands: Sequence[float]) -> int:
    """Return how many running tasks compete for the interpreter's lock: 1 unless they fill it."""
    total = sum(demands)
    return (
        sum(get_cpu_demand >= total / len(demands) / 2 for get_cpu_demand in demands) if total >= FULL_LOCK_CORES else 1
    )


def get_cpu_demand(task: RunningTask) -> float:
    """Return the CPU demand of a task's own thread so far, at most 1 core."""
    time = CoreTime(task.thread_run_seconds, task.run_delay_seconds)
    return min(1.0, cpu_demand(time, max(get_age_seconds(task), 1e-3)))


def get_children_time(task: RunningTask) -> CoreTime:
    """Return the core time of a task's child processes."""
    return task.core_time.since(CoreTime(task.thread_run_seconds, task.run_delay_seconds))


def measure_so_far(task: RunningTask) -> Measurement:
    return Measurement(
        worker=task.worker,
        pid=os.getpid(),
        started_seconds=task.started_seconds,
        ended_seconds=monotonic(),
        cpu_seconds=task.thread_run_seconds,
        run_delay_seconds=task.run_delay_seconds,
    )
