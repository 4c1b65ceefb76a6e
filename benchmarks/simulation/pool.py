"""A simulated pool whose tasks arrive, wait, run and end."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory

Duration = Callable[[int], tuple[float, float, float]]
"""The seconds, CPU seconds and run delay of a task that starts as the n-th running one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """Waits of tasks: started tasks, late ones, and mean and longest wait in seconds."""

    began: int
    late: int
    worst: float
    mean: float


class SimulatedPool:
    """A queue with a resizable number of workers, which the real controllers size like a real pool.

    `arrivals` yields rising moments; `late_seconds` is the wait from which on a task counts as late. `children_demand`:
    the CPU demand of each task's child processes, in cores.
    """

    def __init__(
        self,
        arrivals: Iterator[float],
        duration: Duration,
        *,
        size: int = 1,
        name: str = "simulated",
        late_seconds: float = math.inf,
        memory_bytes: int = 0,
        children_demand: float = 0.0,
    ) -> None:
        self.target = size
        self.sizes: list[tuple[float, int, str]] = []
        self.memory_bytes = memory_bytes
        self._children_demand = children_demand
        self._name = name
        self._arrivals = arrivals
        self._duration = duration
        self._late_seconds = late_seconds
        self._next = next(arrivals, math.inf)
        self._now = 0.0
        self._queue: deque[float] = deque()
        self._running: list[tuple[float, float, float, float]] = []  # end, begin, cpu, delay
        self._computes = False  # whether any task has used CPU time
        self._submitted = self._began = self._late = self._finished = 0
        self._worst = self._waited = self._busy = self._slots = self._cpu = self._delay = 0.0

    def advance(self, now: float) -> None:
        """Process all events until `now`."""
        running = self._running
        while True:
            end = running[0][0] if running else math.inf
            if min(end, self._next) > now:
                break
            if end <= self._next:
                self._spend(end)
                _, _, cpu, delay = heapq.heappop(running)
                self._finished += 1
                self._cpu += cpu
                self._delay += delay
            else:
                self._spend(self._next)
                self._submitted += 1
                self._queue.append(self._next)
                self._next = next(self._arrivals, math.inf)
            if self._queue and len(running) < self.target:
                self._start()
        self._spend(now)

    def resize(self, size: int, /, *, reason: str) -> None:
        self.target = size
        self.sizes.append((self._now, size, reason))
        self._start()

    def statistics(self) -> PoolStatistics:
        now, busy = self._now, len(self._running)
        cpu, delay = self._spent_by_running() if self._computes else (0.0, 0.0)
        return PoolStatistics(
            name=self._name,
            target=self.target,
            live=max(self.target, busy),
            busy=busy,
            idle=max(0, self.target - busy),
            starting=0,
            draining=max(0, busy - self.target),
            queued=len(self._queue),
            oldest_queued_age_seconds=now - self._queue[0] if self._queue else 0.0,
            submitted=self._submitted,
            busy_seconds=self._busy,
            slot_seconds=self._slots,
            cpu_seconds=self._cpu + cpu,
            run_delay_seconds=self._delay + delay,
            epoch_timestamp_seconds=0.0,
            finished={"success": self._finished},
        )

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return each worker's memory, which is at its peak from its first task on."""
        size = self.memory_bytes
        return (WorkerMemory(now_bytes=size, peak_bytes=size),) * max(self.target, len(self._running)) if size else ()

    def running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks with their child processes, which no counter has."""
        return tuple(
            RunningTask(
                label="task",
                worker=self._name,
                started_seconds=began,
                cpu_seconds=0.0,
                memory_bytes=0,
                core_time=CoreTime(self._children_demand * (self._now - began)),
                sampled_seconds=self._now,
            )
            for _, began, _, _ in self._running
        )

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def done(self) -> bool:
        """Whether no event is left."""
        return not self._running and not self._queue and self._next == math.inf

    @property
    def worker_seconds(self) -> float:
        return self._slots

    @property
    def waits(self) -> Waits:
        mean = self._waited / self._began if self._began else 0.0
        return Waits(began=self._began, late=self._late, worst=self._worst, mean=mean)

    def _spend(self, moment: float) -> None:
        seconds, busy = moment - self._now, len(self._running)
        self._busy += busy * seconds
        self._slots += (busy if busy > self.target else self.target) * seconds
        self._now = moment

    def _spent_by_running(self) -> tuple[float, float]:
        now = self._now
        cpu = sum(cpu * (now - begin) / (end - begin) for end, begin, cpu, _ in self._running)
        return cpu, sum(delay * (now - begin) / (end - begin) for end, begin, _, delay in self._running)

    def _start(self) -> None:
        while self._queue and len(self._running) < self.target:
            waited = self._now - self._queue.popleft()
            self._began += 1
            if waited:
                self._waited += waited
                self._worst = max(self._worst, waited)
                self._late += waited > self._late_seconds
            seconds, cpu, delay = self._duration(len(self._running) + 1)
            self._computes = self._computes or cpu > 0 or delay > 0
            heapq.heappush(self._running, (self._now + seconds, self._now, cpu, delay))
