"""Compute how long a run that has ended would have taken with another number of workers: pure functions.

List scheduling (Graham, 1966) in the engine's own order, on cores that a fair scheduler shares: while
more threads are runnable than there are cores, computing takes so many times longer, and waiting does not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from paropt_exporter.engine.resources import Resources
from paropt_exporter.events import TaskTiming
from paropt_exporter.plan import PlannedStage

_ENDED_SECONDS = 1e-9  # what is left of a task that has ended, by rounding
# Of computing time. So much delay occurs with spare cores too, by wake-ups and moves between cores; only beyond it does
# delay tell that others on the machine filled them.
_CERTAIN_DELAY_RATIO = 0.25
_CROWDING_STEPS = 50  # Newton's method needs about five
_CROWDING_PRECISION = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One task as it would run with the machine to itself: `seconds` long, on `share` of a core (more, if it is many).

    `gil_bound`: it also shares one interpreter with all others that are.
    """

    stage: str
    seconds: float
    cpu_demand: float
    gil_bound: bool = False


@dataclass(slots=True, eq=False)
class _Running:
    piece: Piece
    plan: PlannedStage
    left_seconds: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A recorded run to be scheduled again: its tasks, and how many threads of others were runnable meanwhile."""

    pieces: tuple[Piece, ...]
    others: float = 0.0


def workload_of(tasks: Sequence[TaskTiming], cores: float) -> Workload:
    """Return one piece for each task of a run, its attempts taken together, freed of its waits for a core.

    Waits that the run's own threads don't account for were caused by others on the machine. They compete again, so the
    answer is for a machine as busy as it was.
    """
    attempts: dict[tuple[str, int], list[TaskTiming]] = {}
    for task in tasks:
        attempts.setdefault((task.stage, task.task), []).append(task)
    pieces = tuple(_piece(stage, tried) for (stage, _), tried in sorted(attempts.items(), key=lambda it: it[0]))
    return Workload(pieces=pieces, others=_others(tasks, cores))


def makespan_seconds(
    workload: Workload, stages: Sequence[PlannedStage], *, workers: int, cores: float, memory_bytes: int
) -> float:
    """Return how long the workload takes with so many workers.

    `stages`: in the order in which the engine takes them; needs, locks, slots, memory and exclusiveness hold.
    Pieces of one stage start in their own order. Time that the engine itself takes is not counted.
    """
    ready: dict[str, deque[Piece]] = {stage.name: deque() for stage in stages}
    for piece in workload.pieces:
        ready[piece.stage].append(piece)
    unfinished = {name: len(queue) for name, queue in ready.items()}
    waiting = {stage.name: stage for stage in stages if ready[stage.name]}
    shares, running, now = Resources(memory_bytes), list[_Running](), 0.0
    while waiting or running:
        running += _started(waiting, ready, unfinished, shares, workers - len(running), workers)
        rates = _rates(running, cores, workload.others)
        step = min(each.left_seconds / rate for each, rate in zip(running, rates, strict=True))
        now += step
        for each, rate in zip(running, rates, strict=True):
            each.left_seconds -= step * rate
        for each in running:
            if each.left_seconds <= _ENDED_SECONDS:
                _end(each, unfinished, shares)
        running = [each for each in running if each.left_seconds > _ENDED_SECONDS]
    return now


def most_at_once(intervals: Iterable[tuple[float, float]]) -> int:
    """Return how many of the intervals (begin, end) overlap at most; one that begins at another's end does not."""
    turns = sorted((moment, change) for begin, end in intervals for moment, change in ((begin, 1), (end, -1)))
    most = now = 0
    for _, change in turns:
        now += change
        most = max(most, now)
    return most


def _others(tasks: Sequence[TaskTiming], cores: float) -> float:
    """Return how many threads of others were runnable on average, while the run's tasks computed.

    A fair scheduler stretches computing by runnable threads / cores, so others = cores * stretch - own threads.
    """
    computing = [task for task in tasks if task.cpu_seconds > 0 and not task.gil_bound]
    cpu = sum(task.cpu_seconds for task in computing)
    if not cpu:
        return 0.0
    runnable = _Runnable(tasks)
    own = sum(task.cpu_seconds * runnable.mean(task) for task in computing) / cpu
    delay_ratio = sum(task.run_delay_seconds for task in computing) / cpu
    certainty = min(1.0, delay_ratio / _CERTAIN_DELAY_RATIO)
    return max(0.0, cores * (1.0 + delay_ratio) - own) * certainty


class _Runnable:
    """How many threads of a run's tasks were runnable, as a step function of time."""

    def __init__(self, tasks: Sequence[TaskTiming]) -> None:
        turns = sorted(
            (moment, change)
            for task in tasks
            for moment, change in (
                (task.started_seconds, task.runnable_ratio),
                (task.ended_seconds, -task.runnable_ratio),
            )
        )
        self._moments = [moment for moment, _ in turns]
        self._levels = [*accumulate(change for _, change in turns)]
        gaps = zip(self._moments, self._moments[1:], self._levels, strict=False)
        self._sums = [*accumulate(((until - since) * level for since, until, level in gaps), initial=0.0)]

    def mean(self, task: TaskTiming) -> float:
        """Return the mean over a task's time, itself included."""
        if task.duration_seconds <= 0:
            return task.runnable_ratio
        return (self._sum_until(task.ended_seconds) - self._sum_until(task.started_seconds)) / task.duration_seconds

    def _sum_until(self, moment: float) -> float:
        place = bisect_right(self._moments, moment) - 1
        return self._sums[place] + (moment - self._moments[place]) * self._levels[place]


def _piece(stage: str, attempts: Sequence[TaskTiming]) -> Piece:
    cpu = sum(task.cpu_seconds for task in attempts)
    if any(task.gil_bound for task in attempts):  # no clock tells how long it waited for the interpreter: it computes
        return Piece(stage=stage, seconds=cpu, cpu_demand=1.0, gil_bound=True)
    seconds = sum(_alone_seconds(task) for task in attempts)
    return Piece(stage=stage, seconds=seconds, cpu_demand=cpu / seconds if seconds > 0 else 0.0)


def _alone_seconds(task: TaskTiming) -> float:
    # The delay is summed over a command's processes and may exceed its duration: the least is its CPU time.
    return max(min(task.cpu_seconds, task.duration_seconds), task.duration_seconds - task.run_delay_seconds)


def _started(
    waiting: dict[str, PlannedStage],
    ready: Mapping[str, deque[Piece]],
    unfinished: Mapping[str, int],
    shares: Resources,
    free: int,
    workers: int,
) -> list[_Running]:
    """Start what fits, as the engine does; stages with nothing left to start leave `waiting`."""
    found: list[_Running] = []
    for name, stage in tuple(waiting.items()):
        if len(found) >= free:
            break
        begun = len(ready[name]) < unfinished[name]
        may_begin = all(not unfinished.get(need) for need in stage.needs)
        while ready[name] and (begun or (may_begin and shares.stage_fits(stage))):
            if not shares.task_fits(stage, size=workers):
                break
            if not begun:
                shares.begin_stage(stage)
                begun = True
            label = f"{name}[{len(ready[name])}]"
            shares.begin_task(stage, stage.pool, label)
            piece = ready[name].popleft()
            found.append(_Running(piece, stage, piece.seconds, label))
        if not ready[name]:
            del waiting[name]
        elif (begun or may_begin) and (stage.slots > 1 or stage.memory_bytes or stage.exclusive):
            break  # the engine lets nothing smaller overtake it
    return found


def _rates(running: Sequence[_Running], cores: float, others: float) -> list[float]:
    """Return how fast each task progresses: 1 with a machine to itself.

    Tasks that share one interpreter share its lock first, and take part in the cores as one thread.
    """
    locked = [each.piece.cpu_demand for each in running if each.piece.gil_bound]
    lock = _crowding(locked, 1.0)
    shares = [each.piece.cpu_demand for each in running if not each.piece.gil_bound]
    crowding = _crowding([*shares, sum(_rate(cpu_demand, lock) * cpu_demand for cpu_demand in locked)], cores, others)
    return [_rate(each.piece.cpu_demand, crowding * (lock if each.piece.gil_bound else 1.0)) for each in running]


def _rate(cpu_demand: float, crowding: float) -> float:
    computing = min(1.0, cpu_demand)
    return 1.0 / (1.0 - computing + computing * crowding)


def _crowding(shares: Sequence[float], cores: float, others: float = 0.0) -> float:
    """Return how many times longer computing takes, at least 1.

    The c at which all cores are used: sum(share * rate(share, c)) + others / c = cores. The left side is convex and
    falls with c, so Newton's method from c = 1 approaches it from below.
    """
    crowding = 1.0
    for _ in range(_CROWDING_STEPS):
        excess, slope = others / crowding - cores, others / crowding**2
        for cpu_demand in shares:
            rate = _rate(cpu_demand, crowding)
            excess += cpu_demand * rate
            slope += cpu_demand * min(1.0, cpu_demand) * rate * rate
        if excess <= _CROWDING_PRECISION:
            break
        crowding += excess / slope
    return crowding


def _end(ended: _Running, unfinished: dict[str, int], shares: Resources) -> None:
    shares.end_task(ended.plan, ended.plan.pool, ended.label)
    unfinished[ended.piece.stage] -= 1
    if not unfinished[ended.piece.stage]:
        shares.end_stage(ended.plan)
