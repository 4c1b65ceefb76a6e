"""The thread that looks at an adaptive pool's running work while other work waits."""

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

_LONGEST_WATCH_SECONDS = 0.25  # between two looks at the child processes of tasks while no task waits
FIRST_LOOK_SECONDS = 0.005  # after work began to wait: long enough for a thread's CPU share to show
_LONGEST_LOOK_SECONDS = 0.05
_REST_SECONDS = 10.0  # without waiting work, before threads that only it needed are let go


class Crew(Protocol):
    """What a steward looks after."""

    closed: bool

    @property
    def changed(self) -> threading.Condition: ...

    def wanting(self) -> int: ...

    def watched(self) -> bool: ...

    def knows_what_waits(self) -> bool: ...

    def look(self) -> None: ...

    def rest(self) -> None: ...


class Monitor:
    """Looks at running work while some waits, ever less often; then has surplus threads let go, and ends.

        none ──call()──> looking <──(work waits)── resting ──(10 s)──> none
                            └──(none waits, and none runs in a thread)──^

    While work runs in threads and none waits, it looks a few times a second: what child processes hold can be read only
    while they live.

    Its crew calls it with nothing locked; `changed` of the crew guards its state.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._thread: threading.Thread | None = None
        self._resting = False
        self._missed = False  # whether the system once had no thread to give, and that was said

    @property
    def at_work(self) -> bool:
        return self._thread is not None and not self._resting

    def call(self) -> None:
        """Have the work looked at, if any waits."""
        crew = self._crew
        with crew.changed:
            if crew.closed or not (crew.wanting() or crew.watched()):
                return
            if self._thread is not None:
                if self._resting:
                    crew.changed.notify_all()
                return
            thread = self._thread = threading.Thread(target=self._watch, name="paropt-adaptive-steward", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if not self._missed:
                log.warning("no thread to be had that looks at running work", extra={"err": str(error)})
            self._thread, self._missed = None, True  # asked for again with the next task that comes or ends

    def join(self) -> None:
        """Wait for the thread's end, which comes with its crew's."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join()

    def _watch(self) -> None:
        crew, pause, rested = self._crew, FIRST_LOOK_SECONDS, monotonic()
        while not crew.closed or crew.wanting() or crew.watched():
            with crew.changed:
                idle = not (crew.wanting() or crew.watched())
                left = _REST_SECONDS - (monotonic() - rested) if idle else pause
                if idle and left <= 0:
                    self._thread = None
                    break
                self._resting = idle
                crew.changed.wait_for(self._disturbed, timeout=left)
                self._resting = False
            if not idle:
                rested = monotonic()
                crew.look()
                pause = self._next_pause(pause)
        if not crew.closed:
            crew.rest()

    def _next_pause(self, pause: float) -> float:
        if not self._crew.wanting():
            return min(pause * 1.5, _LONGEST_WATCH_SECONDS)
        return min(pause * 1.5, _LONGEST_LOOK_SECONDS) if self._crew.knows_what_waits() else FIRST_LOOK_SECONDS

    def _disturbed(self) -> bool:
        work = self._crew.wanting() > 0 or self._crew.watched()
        return (self._crew.closed and not work) or (self._resting and work)


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
