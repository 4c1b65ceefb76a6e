"""How many tasks a lane should run at once: pure functions from measured shares of a core to a number.

The work of a run is closed (its tasks are known), so the size is the most tasks that may run, cut off where they would
no longer find a core: admit waiting tasks in their order while the sum of the shares stays within the cores.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNKNOWN_SHARE = 1.0  # work that nobody has seen yet may need a whole core: it starts with one worker a core
WAITING_SHARE = 0.1  # under a tenth of a core a task is waiting, and costs nothing that could be shared out
CORE_SLACK = 0.1  # measured shares are a few percent off: two burners read 1.0 and 1.02 on two cores
SATURATED_RATIO = 0.9  # no more workers once the lane keeps this much of the cores busy
DEADLINE_RATIO = 0.9  # of the time left: the rest is for what the estimate does not know
GIL_SUSPECT_CORES = 0.85  # threads that together use about one core may be queueing for the interpreter lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One running or waiting task. `share` is the part of a core that it uses; None: not known yet.

    `peak_bytes`: the most memory that a task of its stage has used; 0: not known, or not its own (a thread's).
    """

    pool: str
    stage: str
    share: float | None
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """So many tasks with the same load, one after another in the order in which they would start."""

    load: Load
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """How many tasks may run at once, and why not more."""

    size: int
    reason: str  # plan: every task that may run does; cpu_limit, memory_limit, bounds: what stood in the way


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is left of a run: work in seconds of one worker, its longest chain, and the time left until a deadline."""

    seconds: float
    critical_path_seconds: float
    left_seconds: float


def deadline_size(work: Work) -> int:
    """Return N* = the smallest N with path + (work - path) / N <= 0.9 x the time left.

    Graham's bound (1969): no order in which workers take what is ready takes longer. Where no number of workers is
    enough, all that can help: the work over its longest chain.
    """
    usable = DEADLINE_RATIO * work.left_seconds
    beside = max(0.0, work.seconds - work.critical_path_seconds)
    if work.critical_path_seconds >= usable:
        return max(1, math.ceil(work.seconds / max(work.critical_path_seconds, 1e-9))) if work.seconds > 0 else 1
    return max(1, math.ceil(beside / (usable - work.critical_path_seconds) - 1e-9))


def closed_size(
    running: Sequence[Load],
    waiting: Iterable[Load],
    *,
    cores: float,
    minimum: int,
    maximum: int,
) -> Sizing:
    """Return the size for known work, N* = min(tasks that may run, N_cpu, maximum).

    `waiting` stands in the order in which the tasks would start; admission ends at the first that does not fit, since
    it would be the next to start.
    """
    used = sum(_share(load) for load in running)
    saturated = sum(load.share or 0.0 for load in running) >= SATURATED_RATIO * cores
    gil = sum(load.share or 0.0 for load in running if load.pool == "threads") >= GIL_SUSPECT_CORES
    size, reason = len(running), "plan"
    for load in waiting:
        share = _share(load)
        if size >= maximum:
            reason = "bounds"
        elif (gil and load.pool == "threads") or (
            share >= WAITING_SHARE and (saturated or used + share > cores + CORE_SLACK)
        ):
            reason = "cpu_limit"
        else:
            size, used = size + 1, used + share
            continue
        break
    if not running or size < minimum:
        size = max(size, minimum, 1)
    return Sizing(size=min(size, maximum), reason=reason)


def _share(load: Load) -> float:
    return UNKNOWN_SHARE if load.share is None else load.share
