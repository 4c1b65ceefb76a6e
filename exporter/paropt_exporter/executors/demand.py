"""Measure how many cores running tasks want, and how many a task of each group wants on average."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from paropt_exporter.cpu_demand import CoreTime, cpu_demand
from paropt_exporter.events import RunningTask

WINDOW_SECONDS = 0.05  # the shortest time that a demand is measured over: three samples of a young command
_TASK_SECONDS = 0.15  # time constant of a running task's demand: it must show soon that start-up is over
_GROUP_SECONDS = 2.0  # time constant of a group's demand: a wrong idea of it is forgotten within this time
_PRIOR_SECONDS = 0.25  # of a task: so much measured in this run weighs as much as all earlier runs
FULL_LOCK_CORES = 0.8  # threads that use so much between them may be queueing for the interpreter's lock
_LONGEST_SECONDS = 1.0  # of an ended task that count: one long task must not outweigh all that happens now


@dataclass(frozen=True, slots=True)
class Sample:
    """A running task's core time up to the monotonic moment `at`; `thread_seconds` of it are of a thread of ours."""

    at: float
    core_time: CoreTime
    thread_seconds: float = 0.0


class DemandMeter:
    """Demands in cores, by running task and by group of tasks that are alike: a lane's stages, a pool's functions.

    Guarantees: a task's own demand is known only once it was sampled over a window, and no news changes nothing; a
    group's is the mean over the time that its tasks ran, lately and, until that outweighs it, as it was known before.
    """

    def __init__(self, groups: Mapping[str, float] = MappingProxyType({})) -> None:
        """Begin with the demands of groups that were measured before."""
        self._marks: dict[Hashable, Sample] = {}  # task -> where its window began
        self._tasks: dict[Hashable, float] = {}
        self._threads: dict[Hashable, float] = {}  # task -> the part of its demand under the interpreter's lock
        self._groups = {group: _GroupDemand(demand) for group, demand in groups.items()}

    def sample(self, tasks: Mapping[Hashable, tuple[str, Sample]], now: float) -> None:
        """Take all running tasks, each with its group, at the monotonic moment `now`."""
        for task, (group, sample) in tasks.items():
            before = self._marks.setdefault(task, sample)
            if sample.at - before.at >= WINDOW_SECONDS:
                self._marks[task] = sample
                self._measure(task, group, before, sample, now)
        for task in self._marks.keys() - tasks.keys():
            del self._marks[task]
            self._tasks.pop(task, None)
            self._threads.pop(task, None)

    def _measure(self, task: Hashable, group: str, before: Sample, after: Sample, now: float) -> None:
        seconds = after.at - before.at
        wanted = cpu_demand(after.core_time.since(before.core_time), seconds)
        threads = max(0.0, after.thread_seconds - before.thread_seconds) / seconds
        newest = 1.0 - math.exp(-seconds / _TASK_SECONDS)
        for demands, measured in ((self._tasks, wanted), (self._threads, threads)):
            known = demands.get(task, measured)
            demands[task] = known + newest * (measured - known)
        # What threads queue for the interpreter's lock shows in no wait for a core; elsewhere each would take one.
        elsewhere = max(wanted, 1.0) if self._queues_for_lock(task) else wanted
        self._groups.setdefault(group, _GroupDemand(None)).add(elsewhere, seconds, now)

    def _queues_for_lock(self, task: Hashable) -> bool:
        """Whether a task is one of several threads that fill the interpreter's lock between them."""
        total = sum(self._threads.values())
        mean = total / max(1, len(self._threads))
        competing = sum(demand >= mean / 2 for demand in self._threads.values())
        return total >= FULL_LOCK_CORES and competing > 1 and self._threads[task] >= mean / 2

    def learn(self, ended: Iterable[tuple[str, int, float, float]], now: float) -> None:
        """Take what tasks wanted that have ended: (group, how many, wanted seconds, wall seconds), sums that grow."""
        for group, count, wanted_seconds, wall_seconds in ended:
            self._groups.setdefault(group, _GroupDemand(None)).add_ended(count, wanted_seconds, wall_seconds, now)

    def of_task(self, task: Hashable, group: str) -> float | None:
        """Return a running task's own demand; until it was measured, its group's; None: nothing is known."""
        return self._tasks.get(task, self.of_group(group))

    def of_thread(self, task: Hashable, group: str) -> float:
        """Return the part of a running thread's demand that is under the interpreter's lock, at least its group's mean.

        How the lock goes round in so short a window says less than the mean does.
        """
        return max(self._threads.get(task, 0.0), self.of_group(group) or 0.0)

    def of_group(self, group: str) -> float | None:
        """Return what a task of the group wants on average; None: nothing is known."""
        known = self._groups.get(group)
        return known.mean if known is not None else None


def samples(tasks: Iterable[RunningTask], now: float) -> dict[Hashable, tuple[str, Sample]]:
    """Return the samples of a lane's running tasks by label, each with its stage."""
    return {
        task.label: (task.label.partition("[")[0], _sample(task, now)) for task in tasks if task.sampled_seconds != 0
    }


def _sample(task: RunningTask, now: float) -> Sample:
    # A thread that has the interpreter's lock keeps it while it waits for a core.
    threads = task.thread_run_seconds and task.thread_run_seconds + task.run_delay_seconds
    at = now if task.sampled_seconds is None else task.sampled_seconds
    return Sample(at, task.core_time, threads)


class _GroupDemand:
    """The mean demand of a group's tasks over the time that they ran, lately."""

    def __init__(self, prior: float | None) -> None:
        self._wall_seconds = _PRIOR_SECONDS if prior is not None else 0.0
        self._wanted_seconds = (prior or 0.0) * self._wall_seconds
        self._at: float | None = None
        self._ended = (0, 0.0, 0.0)

    @property
    def mean(self) -> float | None:
        return self._wanted_seconds / self._wall_seconds if self._wall_seconds > 0 else None

    def add(self, demand: float, seconds: float, now: float) -> None:
        self._forget(now)
        self._wanted_seconds += demand * seconds
        self._wall_seconds += seconds

    def add_ended(self, count: int, wanted_seconds: float, wall_seconds: float, now: float) -> None:
        before = self._ended
        self._ended = (count, wanted_seconds, wall_seconds)
        ended, wall = count - before[0], wall_seconds - before[2]
        if ended > 0 and wall > 0:
            self.add((wanted_seconds - before[1]) / wall, min(wall, ended * _LONGEST_SECONDS), now)

    def _forget(self, now: float) -> None:
        if self._at is not None and now > self._at:
            kept = math.exp(-(now - self._at) / _GROUP_SECONDS)
            self._wanted_seconds *= kept
            self._wall_seconds *= kept
        self._at = now if self._at is None else max(self._at, now)
