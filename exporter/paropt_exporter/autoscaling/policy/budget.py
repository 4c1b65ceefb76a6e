"""Divide one machine's cores and memory among several pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from paropt_exporter.cpu_demand import CORE_SLACK, WAITING_DEMAND, count_task_cores


class Claim(Struct, frozen=True, kw_only=True):
    """A pool's claim: a size between `floor` and `wanted`, with the CPU demand in cores and the memory of each worker.

    `weight` is its relative share if there is not enough for all pools; an `urgent` pool is served first.
    """

    pool: str
    wanted: int
    floor: int
    cpu_demand: float
    memory_bytes: int = 0
    weight: float = 1.0
    urgent: bool = False


class Budget(Struct, frozen=True, kw_only=True):
    """The claims of all pools of a machine, and its resources; None: unbounded or unknown.

    `spare_bytes`: a reserve beyond `memory_bytes`. It allows no new worker, but lets existing ones stay.
    """

    claims: tuple[Claim, ...]
    cores: float | None = None
    memory_bytes: int | None = None
    spare_bytes: int = 0


class Allowance(Struct, frozen=True, kw_only=True):
    """The size that one pool gets, and the reason for not more: demand (it wants no more), cpu_limit, memory_limit."""

    size: int
    reason: str


def compute_allowance(budget: Budget, pool: str, size: int) -> Allowance:
    """Return the allowance of one pool, whose present size is `size`.

    The reason is memory_limit if the pool would get more workers without the bound on memory.
    """
    allowed = divide_resources(budget.claims, cores=budget.cores, memory_bytes=budget.memory_bytes)[pool]
    if allowed < size and budget.memory_bytes is not None:
        memory = budget.memory_bytes + budget.spare_bytes
        allowed = min(size, divide_resources(budget.claims, cores=budget.cores, memory_bytes=memory)[pool])
    if allowed >= next(claim.wanted for claim in budget.claims if claim.pool == pool):
        return Allowance(size=allowed, reason="demand")
    unbounded = divide_resources(budget.claims, cores=budget.cores, memory_bytes=None)[pool]
    return Allowance(size=allowed, reason="memory_limit" if unbounded > allowed else "cpu_limit")


def divide_resources(claims: Sequence[Claim], *, cores: float | None, memory_bytes: int | None) -> dict[str, int]:
    """Return each pool's size: floors first, then one worker at a time for the pool with the smallest weighted share.

    Weighted dominant resource fairness (Ghodsi et al., NSDI 2011): a pool's share is its fraction of the cores or of
    the memory, whichever is larger; urgent pools are filled before others. Workers that hardly compute and need no
    known memory are always granted. Floors hold even if they exceed the machine, since the user has set them.
    """
    cores = math.inf if cores is None else count_task_cores(cores)
    memory = math.inf if memory_bytes is None else memory_bytes
    if _is_enough_for_all(claims, cores, memory):
        return {claim.pool: claim.wanted for claim in claims}
    sizes = {claim.pool: min(claim.floor, claim.wanted) for claim in claims}
    left = cores - sum(claim.cpu_demand * sizes[claim.pool] for claim in claims)
    free = memory - sum(claim.memory_bytes * sizes[claim.pool] for claim in claims)
    parts = {claim.pool: _compute_dominant_share(claim, cores, memory) for claim in claims}
    for urgent in (True, False):
        open_claims = [claim for claim in claims if claim.urgent is urgent]
        while growing := [claim for claim in open_claims if _can_add_worker(claim, sizes[claim.pool], left, free)]:
            poorest = min(growing, key=lambda claim: (sizes[claim.pool] * parts[claim.pool], claim.pool))
            sizes[poorest.pool] += 1
            left -= poorest.cpu_demand
            free -= poorest.memory_bytes
    return sizes


def _is_enough_for_all(claims: Sequence[Claim], cores: float, memory: float) -> bool:
    taken = sum(claim.memory_bytes * claim.wanted for claim in claims)
    return taken <= memory and sum(claim.cpu_demand * claim.wanted for claim in claims) <= cores


def _compute_dominant_share(claim: Claim, cores: float, memory: float) -> float:
    """Return a worker's fraction of the resource of which it takes most, divided by its pool's weight."""
    return max(claim.cpu_demand / max(cores, 1e-9), claim.memory_bytes / max(memory, 1.0)) / claim.weight


def _can_add_worker(claim: Claim, size: int, cores_left: float, memory_left: float) -> bool:
    waits = claim.cpu_demand < WAITING_DEMAND  # hardly computes: there are no cores to divide
    return (
        size < claim.wanted
        and (waits or claim.cpu_demand <= cores_left + CORE_SLACK)
        and (not claim.memory_bytes or claim.memory_bytes <= memory_left)
    )
