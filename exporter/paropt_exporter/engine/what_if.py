"""Compute how long an ended run would have taken with another number of workers: pure functions.

List scheduling (Graham, 1966) by the engine's own rules, on cores that a fair scheduler shares: while more threads are
runnable than there are cores, computing takes proportionally longer, but waiting does not. `--what-if`, advice, `plan`
and simulations use it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, starmap
from types import MappingProxyType
from typing import Generic, TypeVar

from msgspec import Struct

from paropt_exporter.cpu_demand import CoreTime, compute_undelayed_seconds
from paropt_exporter.engine.interfaces import Admission
from paropt_exporter.engine.resources import Resources, needs_much_room
from paropt_exporter.events import TaskTiming
from paropt_exporter.plan import PlannedStage

_Task = TypeVar("_Task")

_ENDED_SECONDS = 1e-9  # a task with less than this left has ended: the rest is rounding
# Of computing time. So much delay occurs even with spare cores, from wake-ups and moves between cores; a longer delay
# shows that other processes used the cores.
_CERTAIN_DELAY_RATIO = 0.25
_CROWDING_STEPS = 50  # Newton's method needs about five
_CROWDING_PRECISION = 1e-9


class RecordedTask(Struct, frozen=True, kw_only=True):
    """One task as it would run alone on the machine, for `seconds` with a demand of `cpu_demand` cores.

    `gil_bound`: it also shares one GIL with all other such tasks.
    """

    stage: str
    seconds: float
    cpu_demand: float = 0.0
    gil_bound: bool = False


class _Running(Struct, eq=False):
    task: RecordedTask
    started: StartedTask[RecordedTask]
    left_seconds: float


class Workload(Struct, frozen=True, kw_only=True):
    """The tasks of a recorded run. `other_threads`: how many threads of other processes were runnable, on average."""

    tasks: tuple[RecordedTask, ...]
    other_threads: float = 0.0


def build_workload(timings: Sequence[TaskTiming], cores: float) -> Workload:
    """Return one task for each task of a run, with all its attempts and without its waits for a core.

    Waits that the run's own threads don't explain come from other processes. These compete again, so the result is for
    a machine that is as busy as it was.
    """
    attempts: dict[tuple[str, int], list[TaskTiming]] = {}
    for timing in timings:
        attempts.setdefault((timing.stage, timing.task), []).append(timing)
    tasks = tuple(_build_task(stage, tried) for (stage, _), tried in sorted(attempts.items(), key=lambda it: it[0]))
    return Workload(tasks=tasks, other_threads=_estimate_other_threads(timings, cores))


def compute_makespan(
    workload: Workload,
    stages: Sequence[PlannedStage],
    *,
    workers: int,
    cores: float,
    memory_bytes: int,
    admission: Admission | None = None,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> float:
    """Return how many seconds the workload takes with `workers`, without the engine's own time.

    `stages`: in the engine's order. Needs, locks, slots, memory and exclusiveness apply; tasks of one stage start in
    order. `admission`: starts tasks only if there are cores, as in a lane that sizes itself. `limits`: the most tasks
    of a stage that run at once.
    """
    resources = Resources(memory_bytes)
    resources.set_admission(admission)
    tasks: dict[str, list[RecordedTask]] = {stage.name: [] for stage in stages}
    for task in workload.tasks:
        tasks[task.stage].append(task)
    scheduler, running, now = ListScheduler(stages, tasks, resources), list[_Running](), 0.0
    while not scheduler.has_ended:
        running += [_Running(each.task, each, each.task.seconds) for each in scheduler.start_tasks(workers, limits)]
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
    """Return how many intervals (begin, end) overlap at most; one that begins at another's end does not overlap it."""
    changes = sorted((moment, change) for begin, end in intervals for moment, change in ((begin, 1), (end, -1)))
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


class StartedTask(Struct, Generic[_Task], frozen=True, eq=False):
    """A running task. `label` is unique within the run."""

    stage: PlannedStage
    label: str
    task: _Task


class ListScheduler(Generic[_Task]):
    """Starts tasks of stages in list order as far as slots, memory, locks and cores allow.

    ```
    queued --start_tasks--> running --end_task--> ended      a stage's last end makes its dependents startable
    ```
    Guarantees: a stage starts only after all stages that it needs have ended (one without tasks passes its own needs
    on); tasks of one stage start in order; `resources` decides whether a task fits, as in a real run. For one thread.
    """

    def __init__(
        self, stages: Sequence[PlannedStage], tasks: Mapping[str, Sequence[_Task]], resources: Resources
    ) -> None:
        """Take stages in the engine's order, and the tasks of each by its name."""
        self.resources = resources
        self._stages = {stage.name: _Stage(stage, deque(tasks.get(stage.name, ())), set[str]()) for stage in stages}
        self._positions = {name: position for position, name in enumerate(self._stages)}
        self._dependents: dict[str, list[_Stage[_Task]]] = {}
        for stage in self._stages.values():
            stage.unmet.update(need for need in stage.plan.needs if need in self._stages)
            for need in stage.unmet:
                self._dependents.setdefault(need, []).append(stage)
        self._startable: list[int] = []
        self._by_position = [*self._stages.values()]
        self._left = sum(bool(stage.queue) for stage in self._by_position)
        self._release(stage for stage in self._by_position if not stage.unmet)

    @property
    def has_ended(self) -> bool:
        """Whether all tasks have ended."""
        return not self._left

    def get_queue(self, stage: str) -> Sequence[_Task]:
        """Return the tasks of a stage that have not started."""
        return tuple(self._stages[stage].queue)

    def start_tasks(self, size: int, limits: Mapping[str, int] = MappingProxyType({})) -> Sequence[StartedTask[_Task]]:
        """Start as many tasks as fit into `size` slots, with at most `limits` of a stage at once; return them."""
        started: list[StartedTask[_Task]] = []
        may_begin = True
        self.resources.set_expected_stages(self._by_position[position].plan.name for position in self._startable)
        for position in tuple(self._startable):
            if not (self.resources.has_slot(size) and self.resources.has_cores_left()):
                break
            stage = self._by_position[position]
            if not (may_begin or stage.started):
                continue
            limit = limits.get(stage.plan.name, len(stage.queue) + stage.running)
            while stage.queue and stage.running < limit and self._can_start(stage, size):
                started.append(self._start(stage))
            if not stage.queue:
                self._startable.remove(position)
            elif (
                stage.running < limit
                and needs_much_room(stage.plan)
                and self.resources.has_cores_for(stage.plan.name, stage.plan.pool)
            ):
                # as in the engine
                if stage.started or self.resources.can_begin_stage(stage.plan):
                    break
                may_begin = may_begin and not stage.plan.exclusive
        return started

    def end_task(self, started: StartedTask[_Task]) -> None:
        """Free the resources of a task. If it was the last of its stage, make the stage's dependents startable."""
        stage = self._stages[started.stage.name]
        self.resources.end_task(stage.plan, stage.plan.pool, started.label)
        stage.running -= 1
        if stage.queue or stage.running:
            return
        self._left -= 1
        self.resources.end_stage(stage.plan)
        self._release(self._iter_released(stage))

    def _release(self, stages: Iterable[_Stage[_Task]]) -> None:
        """Make stages startable whose needs have ended. Those without tasks end at once."""
        waiting = [*stages]
        for stage in waiting:  # the list grows during the loop
            if stage.queue:
                insort(self._startable, self._positions[stage.plan.name])
            else:
                waiting += self._iter_released(stage)

    def _iter_released(self, ended: _Stage[_Task]) -> Iterator[_Stage[_Task]]:
        """Yield the stages of which this was the last need that had not ended."""
        for dependent in self._dependents.get(ended.plan.name, ()):
            dependent.unmet.discard(ended.plan.name)
            if not dependent.unmet:
                yield dependent

    def _can_start(self, stage: _Stage[_Task], size: int) -> bool:
        if not stage.started and not self.resources.can_begin_stage(stage.plan):
            return False
        return self.resources.can_begin_task(stage.plan, stage.plan.pool, size=size)

    def _start(self, stage: _Stage[_Task]) -> StartedTask[_Task]:
        if not stage.started:
            self.resources.begin_stage(stage.plan)
        label = f"{stage.plan.name}[{stage.started}]"
        stage.started += 1
        stage.running += 1
        self.resources.begin_task(stage.plan, stage.plan.pool, label)
        return StartedTask(stage.plan, label, stage.queue.popleft())


class _Stage(Struct, Generic[_Task], eq=False):
    plan: PlannedStage
    queue: deque[_Task]
    unmet: set[str]
    running: int = 0
    started: int = 0


def _estimate_other_threads(timings: Sequence[TaskTiming], cores: float) -> float:
    """Return how many threads of other processes were runnable on average while the run's tasks computed.

    A fair scheduler stretches computing by the runnable threads over the cores, so others = cores * stretch - own
    threads.
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
        """Return the mean over a task's time, including itself."""
        if task.duration_seconds <= 0:
            return task.runnable_ratio
        return (self._sum_until(task.ended_seconds) - self._sum_until(task.started_seconds)) / task.duration_seconds

    def _sum_until(self, moment: float) -> float:
        place = bisect_right(self._moments, moment) - 1
        return self._sums[place] + (moment - self._moments[place]) * self._levels[place]


def _build_task(stage: str, attempts: Sequence[TaskTiming]) -> RecordedTask:
    cpu = sum(task.cpu_seconds for task in attempts)
    if any(task.gil_bound for task in attempts):  # no clock measures the wait for the GIL: count it as computing
        return RecordedTask(stage=stage, seconds=cpu, cpu_demand=1.0, gil_bound=True)
    times = ((CoreTime(task.cpu_seconds, task.run_delay_seconds), task.duration_seconds) for task in attempts)
    seconds = sum(starmap(compute_undelayed_seconds, times))
    return RecordedTask(stage=stage, seconds=seconds, cpu_demand=cpu / seconds if seconds > 0 else 0.0)


def _compute_rates(tasks: Sequence[RecordedTask], cores: float, other_threads: float) -> list[float]:
    """Return how fast each task progresses; 1 is its pace alone on the machine.

    Tasks that share one interpreter first share its GIL, and together compete for the cores as one thread.
    """
    if not any(task.cpu_demand for task in tasks):
        return [1.0] * len(tasks)
    demands = [task.cpu_demand for task in tasks if not task.gil_bound]
    locked = [task.cpu_demand for task in tasks if task.gil_bound]
    lock = _solve_crowding(locked, 1.0) if locked else 1.0
    if locked:
        demands.append(sum(_compute_rate(demand, lock) * demand for demand in locked))
    crowding = _solve_crowding(demands, cores, other_threads)
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
    computing = [(demand, min(1.0, demand)) for demand in demands]
    for _ in range(_CROWDING_STEPS):
        excess, slope = other_threads / crowding - cores, other_threads / crowding**2
        for demand, ratio in computing:  # `_compute_rate`, inlined: advice on a long run solves this for each task
            rate = 1.0 / (1.0 - ratio + ratio * crowding)
            excess += demand * rate
            slope += demand * ratio * rate * rate
        if excess <= _CROWDING_PRECISION:
            break
        crowding += excess / slope
    return crowding
