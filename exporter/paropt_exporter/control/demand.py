"""Measure how many cores running tasks want, and how many a task of each stage wants on average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from paropt_exporter.cpu_demand import cpu_demand
from paropt_exporter.records import RunningTask

WINDOW_SECONDS = 0.05  # the shortest time that a demand is measured over: three samples of a young command
_TASK_SECONDS = 0.15  # time constant of a running task's demand: it must show soon that start-up is over
_STAGE_SECONDS = 2.0  # time constant of a stage's demand: a wrong idea of it is forgotten within this time
_PRIOR_SECONDS = 0.25  # of a task: so much measured in this run weighs as much as all earlier runs
_LONGEST_SECONDS = 1.0  # of an ended task that count: one long task must not outweigh all that happens now


class DemandMeter:
    """Demands in cores, by label of a running task and by stage.

    Guarantees: a task's own demand is told only once it was sampled over a window, and no news changes nothing; a
    stage's is the mean over the time that its tasks ran, in this run and, until that outweighs them, in earlier ones.
    """

    def __init__(self, stages: Mapping[str, float] = MappingProxyType({})) -> None:
        """Begin with the demands of stages that earlier runs measured."""
        self._marks: dict[str, tuple[float, RunningTask]] = {}  # label -> where its window began
        self._tasks: dict[str, float] = {}
        self._threads: dict[str, float] = {}  # label -> the part of its demand that is under the interpreter's lock
        self._stages = {stage: _StageDemand(demand) for stage, demand in stages.items()}

    def sample(self, tasks: Iterable[RunningTask], now: float) -> None:
        """Take the running tasks at the monotonic moment `now`."""
        seen = {task.label: task for task in tasks if task.sampled_seconds != 0}
        for label, task in seen.items():
            at = now if task.sampled_seconds is None else task.sampled_seconds
            began, before = self._marks.setdefault(label, (at, task))
            if at - began >= WINDOW_SECONDS:
                self._marks[label] = (at, task)
                self._measure(label, before, task, at - began, now)
        for label in self._marks.keys() - seen.keys():
            del self._marks[label]
            self._tasks.pop(label, None)
            self._threads.pop(label, None)

    def _measure(self, label: str, before: RunningTask, after: RunningTask, seconds: float, now: float) -> None:
        wanted = cpu_demand(after.core_time.since(before.core_time), seconds)
        threads = max(0.0, after.thread_run_seconds - before.thread_run_seconds) / seconds
        newest = 1.0 - math.exp(-seconds / _TASK_SECONDS)
        for demands, measured in ((self._tasks, wanted), (self._threads, threads)):
            known = demands.get(label, measured)
            demands[label] = known + newest * (measured - known)
        stage = self._stages.setdefault(label.partition("[")[0], _StageDemand(None))
        stage.add(wanted, seconds, now)

    def learn(self, ended: Iterable[tuple[str, int, float, float]], now: float) -> None:
        """Take what tasks wanted that have ended: (stage, how many, wanted seconds, wall seconds), sums that grow."""
        for stage, count, wanted_seconds, wall_seconds in ended:
            self._stages.setdefault(stage, _StageDemand(None)).add_ended(count, wanted_seconds, wall_seconds, now)

    def of_task(self, label: str, stage: str) -> float | None:
        """Return a running task's own demand; until it was measured, its stage's; None: nothing is known."""
        return self._tasks.get(label, self.of_stage(stage))

    def of_thread(self, label: str, stage: str) -> float:
        """Return the part of a running thread's demand that is under the interpreter's lock, at least its stage's mean.

        How the lock goes round in so short a window says less than the mean does.
        """
        return max(self._threads.get(label, 0.0), self.of_stage(stage) or 0.0)

    def of_stage(self, stage: str) -> float | None:
        """Return what a task of the stage wants on average; None: nothing is known."""
        known = self._stages.get(stage)
        return known.mean if known is not None else None


class _StageDemand:
    """The mean demand of a stage's tasks over the time that they ran, lately."""

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
            kept = math.exp(-(now - self._at) / _STAGE_SECONDS)
            self._wanted_seconds *= kept
            self._wall_seconds *= kept
        self._at = now if self._at is None else max(self._at, now)
