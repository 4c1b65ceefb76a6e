"""A run's next size: what its known tasks need, followed as `moving` has it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from paropt_exporter.control.policy.closed import (
    CORE_SLACK,
    WAITING_SHARE,
    Load,
    Sizing,
    Work,
    closed_size,
    deadline_size,
)
from paropt_exporter.control.policy.moving import Limits, Step, Trail, Wanted, step

STABLE_SECONDS = 10.0  # a smaller size must have been enough for this long before workers are given back


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """So many tasks with the same load, one after another in the order in which they would start."""

    load: Load
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSituation:
    """All that a decision about a run's size depends on.

    `work`: what is left to do until a deadline, where the deadline is the objective; `rescue_size`: what would then
    save a stage that is about to break its own limit (0: none is).
    """

    now: float
    size: int
    floor: int
    ceiling: int
    cores: float
    memory_is_short: bool
    running: tuple[Loads, ...]
    waiting: tuple[Loads, ...]
    trail: Trail
    work: Work | None = None
    rescue_size: int = 0


def decide_run(seen: RunSituation) -> Step:
    """Decide a run's size from its running and waiting tasks."""
    sizing = run_sizing(seen)
    reason = "demand" if sizing.size > seen.size else sizing.reason
    wanted = Wanted(size=sizing.size, reason=reason, exact=True)
    if seen.work is not None:
        enough, why = max((deadline_size(seen.work), "deadline"), (seen.rescue_size, "rescue"))
        if enough < sizing.size:
            why = why if enough > seen.size else "deadline"  # a rescue is a reason to grow, not to shrink
            wanted = Wanted(size=max(enough, seen.floor), reason=why, exact=True)
    limits = Limits(floor=seen.floor, ceiling=seen.ceiling, stable_seconds=STABLE_SECONDS)
    return step(seen.now, seen.size, wanted, limits, seen.trail)


def run_sizing(seen: RunSituation) -> Sizing:
    """Return how many of a run's tasks may run at once, and why not more."""
    return closed_size(
        [*_each(seen.running)],
        _each(seen.waiting),
        cores=seen.cores,
        minimum=seen.floor,
        maximum=seen.ceiling,
        memory_is_short=seen.memory_is_short,
    )


def spare_slots(seen: RunSituation, *, fixed: int | None) -> int:
    """Return how many jobs what a run's tasks start may have, beside the one that each task is itself.

    `fixed`: the lane's slots where somebody fixed them, of which each task takes one. None: they are the cores, of
    which a task that is known to wait takes none. Tasks that wait to start go before the jobs of those that run.
    """
    tasks = (*seen.running, *seen.waiting)
    if fixed is not None:
        return max(0, fixed - sum(loads.count for loads in tasks))
    slots = min(seen.ceiling, max(1, math.floor(seen.cores + CORE_SLACK)))
    return max(0, slots - sum(loads.count for loads in tasks if not _waits(loads.load)))


def _waits(load: Load) -> bool:
    return load.share is not None and load.share < WAITING_SHARE


def counted(loads: Iterable[Load]) -> tuple[Loads, ...]:
    """Put equal neighbours together: a lane of a thousand like tasks is one entry."""
    return tuple(Loads(load=load, count=len([*same])) for load, same in groupby(loads))


def _each(loads: Iterable[Loads]) -> Iterable[Load]:
    return (entry.load for entry in loads for _ in range(entry.count))
