"""Measure the CPU demand of running tasks, and the average demand of each group of tasks, in cores."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from paropt_exporter.cpu_demand import TIME_SLICE_SECONDS, CoreTime, cpu_demand
from paropt_exporter.events import RunningTask

WINDOW_SECONDS = 0.05  # the shortest time over which a demand is measured: three samples of a young command
_TASK_SECONDS = 0.15  # time constant of a running task's demand, which must soon show that start-up is over
_GROUP_SECONDS = 2.0  # time constant of a group's demand: a wrong value fades within this time
_PRIOR_SECONDS = 0.25  # so much of the tasks' time in this run weighs as much as all earlier runs
# Among N tasks in threads, a CPU-bound task gets 1/N of the GIL's time, so its demand c reads 1/N: measured 0.51, 0.27
# and 0.15 for N = 2, 4, 8. So from a sum c * N of 0.8 of a core on, the tasks may be CPU-bound.
FULL_LOCK_CORES = 0.8
_LONGEST_SECONDS = 1.0  # the most time for which an ended task counts: one long task must not outweigh recent ones


class Sample(Struct, frozen=True):
    """The core time of a running task up to the monotonic time `at`; `thread_seconds` of it in a pool's thread.

    `hardly_ran`: it has run for less than a time slice so far, so that its waits for a core are no demand.
    """

    at: float
    core_time: CoreTime
    thread_seconds: float = 0.0
    hardly_ran: bool = False


class DemandMeter:
    """CPU demand in cores, by running task and by group of similar tasks: the stages of a lane, functions of a pool.

    Guarantees: a task has its own demand only after samples over a whole window, and a missing sample changes nothing.
    A group's demand is the mean over the recent run time of its tasks, and initially the demand of earlier runs.
    """

    def __init__(self, groups: Mapping[str, float] = MappingProxyType({})) -> None:
        """Start with the demands that earlier runs measured, by group."""
        self._window_starts: dict[Hashable, Sample] = {}  # by task: the first sample of its window
        self._tasks: dict[Hashable, float] = {}
        self._threads: dict[Hashable, float] = {}  # by task: the part of its demand under the GIL
        self._groups = {group: _GroupDemand(demand) for group, demand in groups.items()}

    def sample(self, tasks: Mapping[Hashable, tuple[str, Sample]], now: float) -> None:
        """Take samples of all running tasks, each with its group, at the monotonic time `now`."""
        for task, (group, sample) in tasks.items():
            before = self._window_starts.setdefault(task, sample)
            if sample.at - before.at >= WINDOW_SECONDS:
                self._window_starts[task] = sample
                self._measure(task, group, before, sample, now)
        for task in self._window_starts.keys() - tasks.keys():
            del self._window_starts[task]
            self._tasks.pop(task, None)
            self._threads.pop(task, None)

    def _measure(self, task: Hashable, group: str, before: Sample, after: Sample, now: float) -> None:
        seconds = after.at - before.at
        time, thread_seconds = after.core_time.since(before.core_time), after.thread_seconds - before.thread_seconds
        if after.hardly_ran:
            seconds -= time.wait_seconds
            time, thread_seconds = CoreTime(time.run_seconds), time.run_seconds
            if seconds <= 0:
                return
        wanted = cpu_demand(time, seconds)
        threads = max(0.0, thread_seconds) / seconds
        newest = 1.0 - math.exp(-seconds / _TASK_SECONDS)
        for demands, measured in ((self._tasks, wanted), (self._threads, threads)):
            known = demands.get(task, measured)
            demands[task] = known + newest * (measured - known)
        # Waits for the GIL don't show as waits for a core; in its own process, each such thread would use a core.
        elsewhere = max(wanted, 1.0) if self._competes_for_lock(task) else wanted
        self._groups.setdefault(group, _GroupDemand(None)).add(elsewhere, seconds, now)

    def _competes_for_lock(self, task: Hashable) -> bool:
        """Return whether a task is one of several threads that together fill the interpreter's lock."""
        total = sum(self._threads.values())
        mean = total / max(1, len(self._threads))
        competing = sum(demand >= mean / 2 for demand in self._threads.values())
        return total >= FULL_LOCK_CORES and competing > 1 and self._threads[task] >= mean / 2

    def learn_ended(self, ended: Iterable[tuple[str, int, float, float]], now: float) -> None:
        """Learn from ended tasks: (group, number of tasks, wanted core seconds, wall seconds)."""
        for group, count, wanted_seconds, wall_seconds in ended:
            self._groups.setdefault(group, _GroupDemand(None)).add_ended(count, wanted_seconds, wall_seconds, now)

    def get_task_demand(self, task: Hashable, group: str) -> float | None:
        """Return a running task's own demand, or its group's until it is measured; None: unknown."""
        return self._tasks.get(task, self.get_group_demand(group))

    def get_thread_demand(self, task: Hashable, group: str) -> float:
        """Return the part of a running task's demand in a thread of a pool, at least the mean of its group.

        Within one short window the GIL is distributed unevenly, so the mean is more reliable.
        """
        return max(self._threads.get(task, 0.0), self.get_group_demand(group) or 0.0)

    def get_group_demand(self, group: str) -> float | None:
        """Return the mean demand of a group's tasks; None: unknown."""
        known = self._groups.get(group)
        return known.mean if known is not None else None


def build_samples(tasks: Iterable[RunningTask], now: float) -> dict[Hashable, tuple[str, Sample]]:
    """Return samples of a lane's running tasks by label, each with its stage."""
    return {
        task.label: (task.label.partition("[")[0], _sample(task, now)) for task in tasks if task.sampled_seconds != 0
    }


def _sample(task: RunningTask, now: float) -> Sample:
    # A thread keeps the GIL while it waits for a core.
    threads = task.thread_run_seconds and task.thread_run_seconds + task.run_delay_seconds
    at = now if task.sampled_seconds is None else task.sampled_seconds
    own = CoreTime(task.thread_run_seconds, task.run_delay_seconds)
    hardly_ran = own.run_seconds < TIME_SLICE_SECONDS and task.core_time == own
    return Sample(at, task.core_time, threads, hardly_ran)


class _GroupDemand:
    """The mean demand of a group's tasks over their recent run time."""

    def __init__(self, prior: float | None) -> None:
        self._wall_seconds = _PRIOR_SECONDS if prior is not None else 0.0
        self._wanted_seconds = (prior or 0.0) * self._wall_seconds
        self._at: float | None = None
        self._ended = (0, 0.0, 0.0)

    @property
    def mean(self) -> float | None:
        return self._wanted_seconds / self._wall_seconds if self._wall_seconds > 0 else None

    def add(self, demand: float, seconds: float, now: float) -> None:
        self._decay(now)
        self._wanted_seconds += demand * seconds
        self._wall_seconds += seconds

    def add_ended(self, count: int, wanted_seconds: float, wall_seconds: float, now: float) -> None:
        before = self._ended
        self._ended = (count, wanted_seconds, wall_seconds)
        ended, wall = count - before[0], wall_seconds - before[2]
        if ended > 0 and wall > 0:
            self.add((wanted_seconds - before[1]) / wall, min(wall, ended * _LONGEST_SECONDS), now)

    def _decay(self, now: float) -> None:
        if self._at is not None and now > self._at:
            kept = math.exp(-(now - self._at) / _GROUP_SECONDS)
            self._wanted_seconds *= kept
            self._wall_seconds *= kept
        self._at = now if self._at is None else max(self._at, now)
