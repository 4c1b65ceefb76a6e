"""Compute how many tasks of a lane should run at once: pure functions from CPU demands to a size.

A run's tasks are known, so its size is the most tasks that can run without making others wait for a core: running
tasks, then waiting ones in their order, while the sum of their demands stays within the cores. The present size does
not matter: one that was too large comes down by the same sum.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field

from paropt_exporter.cpu_demand import CORE_SLACK, UNKNOWN_DEMAND, WAITING_DEMAND, CoreBudget
from paropt_exporter.engine.remaining_time import DEADLINE_RATIO
from paropt_exporter.plan import THREADS

SATURATED_RATIO = 0.9  # add no workers once the lane keeps this much of the cores busy


class Load(Struct, frozen=True, kw_only=True):
    """The load of one running or waiting task. `cpu_demand` is in cores; None: unknown.

    `thread_cpu_demand`: the part of it in threads of this process, which share one interpreter's lock. `peak_bytes`:
    the most memory that a task of its stage has used; 0: unknown, or shared (in a thread). `slots`: how many of the
    lane's slots it takes.
    """

    pool: str
    stage: str
    cpu_demand: float | None
    peak_bytes: int = 0
    thread_cpu_demand: float = 0.0
    slots: int = 1


class LoadGroup(Struct, frozen=True, kw_only=True):
    """Tasks with equal loads that follow each other in the order of their starts."""

    load: Load
    count: int

    @property
    def slots(self) -> int:
        """The slots of all of them."""
        return self.count * self.load.slots


class Sizing(Struct, frozen=True, kw_only=True):
    """The slots of the tasks that may run at once, and why not more.

    `reason`: plan (every task that may run does), or the bound: cpu_limit, memory_limit, bounds. `admitted`: how many
    of the slots in `size` are for waiting tasks; `surplus`: the slots of running tasks beyond `size`; `pools`: the
    tasks of each pool, including all running ones.
    """

    size: int
    reason: str
    admitted: int = 0
    surplus: int = 0
    pools: Mapping[str, int] = field(default_factory=dict)


class RemainingWork(Struct, frozen=True, kw_only=True):
    """The rest of a run in seconds: its work for one slot, its longest chain, and the time left until a deadline."""

    seconds: float
    critical_path_seconds: float
    left_seconds: float


def compute_deadline_size(work: RemainingWork) -> int:
    """Return N* = the smallest N with path + (work - path) / N <= 0.9 x the time left.

    Graham's bound (1969): no order in which workers take ready tasks takes longer. If no number of workers suffices,
    the largest useful one: the work over its longest chain.
    """
    usable = DEADLINE_RATIO * work.left_seconds
    beside = max(0.0, work.seconds - work.critical_path_seconds)
    if work.critical_path_seconds >= usable:
        return max(1, math.ceil(work.seconds / max(work.critical_path_seconds, 1e-9))) if work.seconds > 0 else 1
    return max(1, math.ceil(beside / (usable - work.critical_path_seconds) - 1e-9))


def compute_fixed_workload_size(
    running: Sequence[LoadGroup],
    waiting: Iterable[LoadGroup],
    *,
    cores: float,
    minimum: int,
    maximum: int,
    stuck: bool = False,
) -> Sizing:
    """Return the size for known work: N* = the slots of the running and waiting tasks whose demands fit into the cores.

    `waiting` is in the order in which tasks would start. A task that does not fit is passed over, so that a stage that
    mostly sleeps does not wait behind one that computes. `stuck`: for a while no task of unknown demand could start.
    """
    budget = CoreBudget(cores, stuck=stuck)
    there = sum(group.slots for group in running)
    size, pools = 0, Counter[str]()
    for group in sorted(running, key=_get_demand):
        count = _admit_group(budget, group)
        # running tasks use their cores even if these are more than the budget has
        budget.take(group.load.cpu_demand, group.count - count)
        size += count * group.load.slots
        pools[group.load.pool] += group.count
    lock = 1.0 + CORE_SLACK - sum(group.count * group.load.thread_cpu_demand for group in running)
    reason, admitted, surplus = "plan", 0, there - size
    refused = set[float | None]()  # demands for which no cores are left: a lane may have a thousand such groups
    for group in waiting:
        if size >= maximum:
            reason = "bounds"
            break
        load = group.load
        if load.cpu_demand in refused:
            pools[load.pool] += 0
            reason = "cpu_limit"
            continue
        most, competes = (maximum - size) // load.slots, competes_for_lock(load)
        if competes:
            most = min(most, max(0, math.floor(lock / (load.cpu_demand or 1.0))))
        count = _admit_group(budget, group, most=most)
        if competes:
            lock -= count * (load.cpu_demand or 0.0)
        elif most and not count:
            refused.add(load.cpu_demand)
        size, admitted = size + count * load.slots, admitted + count * load.slots
        pools[load.pool] += count
        if count < group.count:
            reason = "bounds" if maximum - size < load.slots else "cpu_limit"
    if surplus and reason == "plan":
        reason = "cpu_limit"
    if not there or size < minimum:
        size = max(size, minimum, 1)
    return Sizing(size=min(size, maximum), reason=reason, admitted=admitted, surplus=surplus, pools=pools)


def competes_for_lock(load: Load) -> bool:
    """Return whether a task is known to compute in a thread, where the GIL lets only one compute at a time."""
    return load.pool == THREADS and load.cpu_demand is not None and load.cpu_demand >= WAITING_DEMAND


def lock_is_full(running: Iterable[LoadGroup], load: Load) -> bool:
    """Return whether the GIL leaves no time for one more such task beside the running ones."""
    if not competes_for_lock(load):
        return False
    taken = sum(group.count * group.load.thread_cpu_demand for group in running)
    return taken + (load.cpu_demand or 0.0) > 1.0 + CORE_SLACK


def _admit_group(budget: CoreBudget, group: LoadGroup, *, most: int | None = None) -> int:
    """Take cores for as many of these tasks as fit, `most` at most, and return their number."""
    wanted = group.count if most is None else min(group.count, most)
    count = min(wanted, budget.room(group.load.cpu_demand))
    budget.take(group.load.cpu_demand, count)
    return count


def _get_demand(group: LoadGroup) -> float:
    return UNKNOWN_DEMAND if group.load.cpu_demand is None else group.load.cpu_demand
