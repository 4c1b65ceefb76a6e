"""A run's next size: what its known tasks need, followed as `moving` has it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

from paropt_exporter.autoscaling.policy.fixed_workload import Load, Loads, Sizing, Work, closed_size, deadline_size
from paropt_exporter.autoscaling.policy.memory import Memory, memory_size
from paropt_exporter.autoscaling.policy.stabilization import Limits, ScalingHistory, Wanted, step
from paropt_exporter.autoscaling.policy.stage_concurrency import StageSeen, StageState, limits, next_states
from paropt_exporter.cpu_demand import CORE_SLACK, WAITING_DEMAND

# A smaller size must have been enough for this long before workers are given back: tasks come and go within it, and
# what started by a wrong reading shall not be refilled for longer than two seconds.
STABLE_SECONDS = 1.0
SHORT_SECONDS = 1.0  # memory must be short for this long before fewer may run than do


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """What is carried from one look to the next. `short_since`: since when more runs than memory holds, if it does.

    `stages`: how the stages stand of which many tasks run.
    """

    trail: ScalingHistory = field(default_factory=ScalingHistory)
    short_since: float | None = None
    stages: tuple[StageState, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSituation:
    """All that a decision about a run's size depends on.

    `stages`: those of several tasks, where the size is ours to set; `memory`: what is left of it (None: unknown);
    `work`: what is left to do until a deadline, where the deadline is the objective; `rescue_size`: what would then
    save a stage that is about to break its own limit (0: none is). `stuck`: unknown tasks wait for long.
    """

    now: float
    size: int
    floor: int
    ceiling: int
    cores: float
    running: tuple[Loads, ...]
    waiting: tuple[Loads, ...]
    state: RunState = field(default_factory=RunState)
    stages: tuple[StageSeen, ...] = ()
    memory: Memory | None = None
    work: Work | None = None
    rescue_size: int = 0
    stuck: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep:
    """A decision about a run's size."""

    size: int
    action: str
    reason: str
    state: RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a look comes to before there is a size: how stages stand from now on, and the waiting tasks that may start.

    `memory_size`: N_mem of those that run and these; None: unknown.
    """

    stages: tuple[StageState, ...]
    waiting: tuple[Loads, ...]
    memory_size: int | None


def outlook(seen: RunSituation) -> Outlook:
    """Return what a look at a run comes to."""
    stages = next_states(seen.stages, seen.state.stages, now=seen.now, cores=seen.cores)
    waiting = _admissible(seen, limits(stages))
    size = None if seen.memory is None else memory_size(seen.running, waiting, seen.memory)
    return Outlook(stages=stages, waiting=waiting, memory_size=size)


def decide_run(seen: RunSituation) -> RunStep:
    """Decide a run's size from its running and waiting tasks."""
    ahead = outlook(seen)
    sizing = run_sizing(seen, ahead)
    reason = "demand" if sizing.size > seen.size else sizing.reason
    wanted = Wanted(size=slots(sizing), reason=reason, exact=True)
    if seen.work is not None:
        enough, why = max((deadline_size(seen.work), "deadline"), (seen.rescue_size, "rescue"))
        if enough < sizing.size:
            why = why if enough > seen.size else "deadline"  # a rescue is a reason to grow, not to shrink
            wanted = Wanted(size=max(enough, seen.floor), reason=why, exact=True)
    taken = step(seen.now, seen.size, wanted, _limits(seen, ahead), seen.state.trail)
    state = RunState(trail=taken.trail, short_since=_short_since(seen, ahead), stages=ahead.stages)
    return RunStep(size=taken.size, action=taken.action, reason=taken.reason, state=state)


def run_sizing(seen: RunSituation, ahead: Outlook) -> Sizing:
    """Return how many of a run's tasks may run at once, and why not more: the least of what cores and memory hold."""
    sizing = closed_size(
        seen.running,
        ahead.waiting,
        cores=seen.cores,
        minimum=seen.floor,
        maximum=seen.ceiling,
        stuck=seen.stuck,
    )
    bound = memory_bound(seen, ahead)
    if bound is not None and sizing.size > max(bound, seen.floor):
        return replace(sizing, size=max(bound, seen.floor), reason="memory_limit")
    if sizing.reason != "plan" or count_of(ahead.waiting) == count_of(seen.waiting):
        return sizing
    # What runs beyond a limit keeps others' slots until it has ended, unless there are no others.
    surplus = 0 if ahead.waiting else _beyond_limits(seen, ahead)
    return replace(sizing, size=max(sizing.size - surplus, seen.floor, 1), reason="ineffective")


def slots(sizing: Sizing) -> int:
    """Return how many slots a size takes: running tasks beyond it keep theirs, but not from those that may start."""
    return sizing.size + (sizing.surplus if sizing.admitted else 0)


def memory_bound(seen: RunSituation, ahead: Outlook) -> int | None:
    """Return N_mem; None where nothing is known of it, or memory holds all that could run.

    Fewer than run only after a while of that: what a task held that has just ended is not back at once, and what one
    holds that runs is known a moment later than what it took.
    """
    size, running, waiting = ahead.memory_size, count_of(seen.running), count_of(ahead.waiting)
    if size is None or not waiting or size >= running + waiting:
        return None
    patient = seen.state.short_since is None or seen.now < seen.state.short_since + SHORT_SECONDS
    return running if size < running and patient else size


def count_of(tasks: Iterable[Loads]) -> int:
    """Return how many tasks there are."""
    return sum(loads.count for loads in tasks)


def _admissible(seen: RunSituation, most: Mapping[str, int]) -> tuple[Loads, ...]:
    """Return the waiting tasks without those that their stages' limits keep waiting."""
    if not most:
        return seen.waiting
    room = dict(most)
    for loads in seen.running:
        if loads.load.stage in room:
            room[loads.load.stage] -= loads.count
    there = (replace(one, count=min(one.count, max(0, room.get(one.load.stage, one.count)))) for one in seen.waiting)
    return tuple(loads for loads in there if loads.count)


def _beyond_limits(seen: RunSituation, ahead: Outlook) -> int:
    """Return how many tasks run that their stages' limits would not let start now."""
    most = limits(ahead.stages)
    return sum(max(0, one.running - most.get(one.stage, one.running)) for one in seen.stages)


def _short_since(seen: RunSituation, ahead: Outlook) -> float | None:
    if ahead.memory_size is None or ahead.memory_size >= count_of(seen.running):
        return None
    return seen.now if seen.state.short_since is None else seen.state.short_since


def _limits(seen: RunSituation, ahead: Outlook) -> Limits:
    """Return the bounds: who starts without memory for it is not to be waited for, so memory bounds at once."""
    bound = memory_bound(seen, ahead)
    if bound is None or bound >= seen.ceiling:
        return Limits(floor=seen.floor, ceiling=seen.ceiling, stable_seconds=STABLE_SECONDS)
    ceiling = max(bound, seen.floor)
    return Limits(floor=seen.floor, ceiling=ceiling, stable_seconds=STABLE_SECONDS, ceiling_reason="memory_limit")


def spare_slots(seen: RunSituation, *, fixed: int | None) -> int:
    """Return how many jobs what a run's tasks start may have, beside the one that each task is itself.

    `fixed`: the lane's slots where somebody fixed them, of which each task takes one. None: they are the cores, of
    which a task that is known to wait takes none. Tasks that wait to start go before the jobs of those that run.
    """
    tasks = (*seen.running, *outlook(seen).waiting)
    if fixed is not None:
        return max(0, fixed - sum(loads.count for loads in tasks))
    slots = min(seen.ceiling, max(1, math.floor(seen.cores + CORE_SLACK)))
    return max(0, slots - sum(loads.count for loads in tasks if not _waits(loads.load)))


def _waits(load: Load) -> bool:
    return load.share is not None and load.share < WAITING_DEMAND


def counted(loads: Iterable[Load]) -> tuple[Loads, ...]:
    """Put equal neighbours together: a lane of a thousand like tasks is one entry."""
    return tuple(Loads(load=load, count=len([*same])) for load, same in groupby(loads))
