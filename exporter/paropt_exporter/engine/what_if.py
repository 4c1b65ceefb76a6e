"""Compute how long an ended run would have taken with another number of workers: pure functions.

List scheduling in the engine's own order, on cores that a fair scheduler shares: while more threads are runnable than
there are cores, computing takes so many times longer, and waiting does not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from paropt_exporter.engine.list_scheduler import ListScheduler, StartedTask
from paropt_exporter.engine.resources import Resources
from paropt_exporter.events import TaskTiming
from paropt_exporter.plan import PlannedStage

_ENDED_SECONDS = 1e-9  # a task has ended with less than this left, by rounding
# Of computing time. So much delay occurs with spare cores too, by wake-ups and moves between cores; a longer delay
# shows that other processes filled the cores.
_CERTAIN_DELAY_RATIO = 0.25
_CROWDING_STEPS = 50  # Newton's method needs about five
_CROWDING_PRECISION = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedTask:
    """One task as it would run with the machine to itself, for `seconds` with a demand of `cpu_demand` cores.

    `gil_bound`: it also shares one interpreter with all other tasks that are.
    """

    stage: str
    seconds: float
    cpu_demand: float = 0.0
    gil_bound: bool = False


@dataclass(slots=True, eq=False)
class _Running:
    task: RecordedTask
    started: StartedTask[RecordedTask]
    left_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The tasks of a recorded run. `other_threads`: how many threads of other processes were runnable meanwhile."""

    tasks: tuple[RecordedTask, ...]
    other_threads: float = 0.0


def build_workload(timings: Sequence[TaskTiming], cores: float) -> Workload:
    """Return one task for all attempts of each task of a run, without its waits for a core.

    Waits that the run's own threads don't account for come from other processes. These compete again, so the result
    is for a machine as busy as it was.
    """
    attempts: dict[tuple[str, int], list[TaskTiming]] = {}
    for timing in timings:
        attempts.setdefault((timing.stage, timing.task), []).append(timing)
    tasks = tuple(_build_task(stage, tried) for (stage, _), tried in sorted(attempts.items(), key=lambda it: it[0]))
    return Workload(tasks=tasks, other_threads=_estimate_other_threads(timings, cores))


def compute_makespan(
    workload: Workload, stages: Sequence[PlannedStage], *, workers: int, cores: float, memory_bytes: int
) -> float:
    """Return how many seconds the workload takes with so many workers, without the time that the engine takes.

    `stages`: in the engine's order. Needs, locks, slots, memory and exclusiveness apply; tasks of one stage start in
    their own order.
    """
    tasks: dict[str, list[RecordedTask]] = {stage.name: [] for stage in stages}
    for task in workload.tasks:
        tasks[task.stage].append(task)
    scheduler, running, now = ListScheduler(stages, tasks, Resources(memory_bytes)), list[_Running](), 0.0
    while not scheduler.has_ended:
        running += [_Running(each.task, each, each.task.seconds) for each in scheduler.start_tasks(workers)]
        rates = _compute_rates([each.task for each in running], cores, workload.other_threads)
        step = min(each.left_seconds / rate for each, rate in zip(running, rates, strict=True))
        now += step
        for each, rate in zip(running, rates, strict=True):
            each.left_seconds -= step * rate
        for each in running:
            if each.left_seconds <= _ENDED_SECONDS:
                scheduler.end_task(each.started)
        running = [each for each in running if each.left_seconds > _ENDED_SECONDS]
    return now


def count_most_at_once(intervals: Iterable[tuple[float, float]]) -> int:
    """Return how many of the intervals (begin, end) overlap at most; one that begins at another's end does not."""
    changes = sorted((moment, change) for begin, end in intervals for moment, change in ((begin, 1), (end, -1)))
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _estimate_other_threads(timings: Sequence[TaskTiming], cores: float) -> float:
    """Return how many threads of other processes were runnable on average while the run's tasks computed.

    A fair scheduler stretches computing by runnable threads / cores, so others = cores * stretch - own threads.
    """
    computing = [task for task in timings if task.cpu_seconds > 0 and not task.gil_bound]
    cpu = sum(task.cpu_seconds for task in computing)
    if not cpu:
        return 0.0
    runnable = _RunnableThreads(timings)
    own = sum(task.cpu_seconds * runnable.compute_mean(task) for task in computing) / cpu
    delay_ratio = sum(task.run_delay_seconds for task in computing) / cpu
    certainty = min(1.0, delay_ratio / _CERTAIN_DELAY_RATIO)
    return max(0.0, cores * (1.0 + delay_ratio) - own) * certainty


class _RunnableThreads:
    """How many threads of a run's tasks were runnable, as a step function of time."""

    def __init__(self, timings: Sequence[TaskTiming]) -> None:
        changes = sorted(
            (moment, change)
            for task in timings
            for moment, change in (
                (task.started_seconds, task.runnable_ratio),
                (task.ended_seconds, -task.runnable_ratio),
            )
        )
        self._moments = [moment for moment, _ in changes]
        self._levels = [*accumulate(change for _, change in changes)]
        gaps = zip(self._moments, self._moments[1:], self._levels, strict=False)
        self._sums = [*accumulate(((until - since) * level for since, until, level in gaps), initial=0.0)]

    def compute_mean(self, task: TaskTiming) -> float:
        """Return the mean over a task's time, itself included."""
        if task.duration_seconds <= 0:
            return task.runnable_ratio
        return (self._sum_until(task.ended_seconds) - self._sum_until(task.started_seconds)) / task.duration_seconds

    def _sum_until(self, moment: float) -> float:
        place = bisect_right(self._moments, moment) - 1
        return self._sums[place] + (moment - self._moments[place]) * self._levels[place]


def _build_task(stage: str, attempts: Sequence[TaskTiming]) -> RecordedTask:
    cpu = sum(task.cpu_seconds for task in attempts)
    if any(task.gil_bound for task in attempts):  # no clock measures the wait for the interpreter's lock: it computes
        return RecordedTask(stage=stage, seconds=cpu, cpu_demand=1.0, gil_bound=True)
    seconds = sum(_compute_alone_seconds(task) for task in attempts)
    return RecordedTask(stage=stage, seconds=seconds, cpu_demand=cpu / seconds if seconds > 0 else 0.0)


def _compute_alone_seconds(task: TaskTiming) -> float:
    # The delay is a sum over a command's processes and may exceed its duration; its CPU time is the minimum.
    return max(min(task.cpu_seconds, task.duration_seconds), task.duration_seconds - task.run_delay_seconds)


def _compute_rates(tasks: Sequence[RecordedTask], cores: float, other_threads: float) -> list[float]:
    """Return how fast each task progresses; 1 is the pace with the machine to itself.

    Tasks that share one interpreter share its lock first, and compete for the cores as one thread.
    """
    if not any(task.cpu_demand for task in tasks):
        return [1.0] * len(tasks)
    locked = [task.cpu_demand for task in tasks if task.gil_bound]
    lock = _solve_crowding(locked, 1.0)
    demands = [task.cpu_demand for task in tasks if not task.gil_bound]
    thread = sum(_compute_rate(demand, lock) * demand for demand in locked)
    crowding = _solve_crowding([*demands, thread], cores, other_threads)
    return [_compute_rate(task.cpu_demand, crowding * (lock if task.gil_bound else 1.0)) for task in tasks]


def _compute_rate(cpu_demand: float, crowding: float) -> float:
    computing = min(1.0, cpu_demand)
    return 1.0 / (1.0 - computing + computing * crowding)


def _solve_crowding(demands: Sequence[float], cores: float, other_threads: float = 0.0) -> float:
    """Return how many times longer computing takes, at least 1.

    The c at which all cores are used: sum(demand * rate(demand, c)) + other threads / c = cores. The left side is
    convex and falls with c, so Newton's method from c = 1 approaches it from below.
    """
    crowding = 1.0
    for _ in range(_CROWDING_STEPS):
        excess, slope = other_threads / crowding - cores, other_threads / crowding**2
        for demand in demands:
            rate = _compute_rate(demand, crowding)
            excess += demand * rate
            slope += demand * min(1.0, demand) * rate * rate
        if excess <= _CROWDING_PRECISION:
            break
        crowding += excess / slope
    return crowding
