"""Say how long a run that has ended would have taken with another number of workers: pure functions.

List scheduling (Graham, 1966) in the engine's own order, on cores that are shared as processors share them: while the
running tasks want more cores than there are, each one's computing takes so many times longer, and its waiting does not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from paropt_exporter.engine.shares import Shares
from paropt_exporter.history.queries import TaskSummary
from paropt_exporter.plan import PlannedStage

_ENDED_SECONDS = 1e-9  # what is left of a task that has ended, by rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One task as it would run with no other of its run: `seconds` long, on `share` of a core (more, if it is many).

    `gil_bound`: it also shares one interpreter with all others that are.
    """

    stage: str
    seconds: float
    share: float
    gil_bound: bool = False


@dataclass(slots=True, eq=False)
class _Running:
    piece: Piece
    plan: PlannedStage
    left_seconds: float
    label: str


def pieces_of(tasks: Sequence[TaskSummary], cores: float) -> list[Piece]:
    """Return one piece for each task of a run, its attempts taken together, freed of what the run's others cost it.

    Delay for which the run's own demand for cores doesn't account came from others on the machine, and stays: the
    answer is for a machine as busy as it was.
    """
    demand = _Demand(tasks)
    attempts: dict[tuple[str, int], list[TaskSummary]] = {}
    for task in tasks:
        attempts.setdefault((task.stage, task.task), []).append(task)
    return [_piece(stage, tried, demand, cores) for (stage, _), tried in sorted(attempts.items(), key=lambda it: it[0])]


def makespan_seconds(
    pieces: Iterable[Piece], stages: Sequence[PlannedStage], *, workers: int, cores: float, memory_bytes: int
) -> float:
    """Return how long the pieces take with so many workers.

    `stages`: in the order in which the engine takes them; needs, locks, slots, memory and exclusiveness are heeded.
    Pieces of one stage start in their own order. Time that the engine itself takes is not counted.
    """
    ready: dict[str, deque[Piece]] = {stage.name: deque() for stage in stages}
    for piece in pieces:
        ready[piece.stage].append(piece)
    unfinished = {name: len(queue) for name, queue in ready.items()}
    waiting = {stage.name: stage for stage in stages if ready[stage.name]}
    shares, running, now = Shares(memory_bytes), list[_Running](), 0.0
    while waiting or running:
        running += _started(waiting, ready, unfinished, shares, workers - len(running), workers)
        rates = [*_rates(running, cores)]
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


class _Demand:
    """How many cores a run's tasks wanted together, as a step function of time."""

    def __init__(self, tasks: Sequence[TaskSummary]) -> None:
        turns = sorted(
            (moment, change)
            for task in tasks
            for moment, change in ((_begin(task), _share(task)), (_end_of(task), -_share(task)))
        )
        self._moments = [moment for moment, _ in turns]
        self._levels = [*accumulate(change for _, change in turns)]
        gaps = zip(self._moments, self._moments[1:], self._levels, strict=False)
        self._sums = [*accumulate(((until - since) * level for since, until, level in gaps), initial=0.0)]

    def mean(self, task: TaskSummary) -> float:
        """Return the mean over a task's time; itself is in it."""
        if task.duration_seconds <= 0:
            return _share(task)
        return (self._sum_until(_end_of(task)) - self._sum_until(_begin(task))) / task.duration_seconds

    def _sum_until(self, moment: float) -> float:
        place = bisect_right(self._moments, moment) - 1
        return self._sums[place] + (moment - self._moments[place]) * self._levels[place]


def _begin(task: TaskSummary) -> float:
    return task.started_timestamp_seconds


def _end_of(task: TaskSummary) -> float:
    return task.started_timestamp_seconds + task.duration_seconds


def _share(task: TaskSummary) -> float:
    alone = max(min(task.cpu_seconds, task.duration_seconds), task.duration_seconds - task.run_delay_seconds)
    return task.cpu_seconds / alone if alone > 0 else 0.0


def _piece(stage: str, attempts: Sequence[TaskSummary], demand: _Demand, cores: float) -> Piece:
    cpu = sum(task.cpu_seconds for task in attempts)
    if any(task.gil_bound for task in attempts):  # how long it waited for the interpreter no clock tells: it computes
        return Piece(stage=stage, seconds=cpu, share=1.0, gil_bound=True)
    seconds = sum(task.duration_seconds - _own_delay(task, demand.mean(task), cores) for task in attempts)
    return Piece(stage=stage, seconds=seconds, share=cpu / seconds if seconds > 0 else 0.0)


def _own_delay(task: TaskSummary, demand: float, cores: float) -> float:
    """Return the part of a delay that the run itself accounts for: who wants n times the cores waits 1 - 1/n."""
    most = max(0.0, 1.0 - cores / demand) * task.duration_seconds if demand > 0 else 0.0
    return max(0.0, min(most, task.run_delay_seconds, task.duration_seconds - task.cpu_seconds))


def _started(
    waiting: dict[str, PlannedStage],
    ready: Mapping[str, deque[Piece]],
    unfinished: Mapping[str, int],
    shares: Shares,
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


def _rates(running: Sequence[_Running], cores: float) -> Iterable[float]:
    """Yield how fast each task gets on: 1 with a machine to itself."""
    crowding = max(1.0, sum(each.piece.share for each in running) / cores)
    queueing = max(crowding, sum(each.piece.share for each in running if each.piece.gil_bound))
    for each in running:
        computing = min(1.0, each.piece.share)
        yield 1.0 / (1.0 - computing + computing * (queueing if each.piece.gil_bound else crowding))


def _end(ended: _Running, unfinished: dict[str, int], shares: Shares) -> None:
    shares.end_task(ended.plan, ended.plan.pool, ended.label)
    unfinished[ended.piece.stage] -= 1
    if not unfinished[ended.piece.stage]:
        shares.end_stage(ended.plan)
