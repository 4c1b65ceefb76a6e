"""Divide one machine's cores and memory among several pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one pool would have: a size between `floor` and `wanted`; each worker uses `share` of a core and memory.

    `weight` is its part where there is not enough for all; an `urgent` pool (an SLA is about to break) goes first.
    """

    pool: str
    wanted: int
    floor: int
    share: float
    memory_bytes: int = 0
    weight: float = 1.0
    urgent: bool = False


def divide(claims: Sequence[Claim], *, cores: float, memory_bytes: int) -> dict[str, int]:
    """Return each pool's size: floors first, then worker by worker to the one that has least for its weight.

    Weighted max-min fairness (Bertsekas and Gallager, Data Networks, 6.5.2) in units of cores; urgent pools are filled
    before others. A worker that hardly computes and needs no memory of note is refused to nobody. Floors are kept even
    where they exceed the machine: they are the user's word.
    """
    sizes = {claim.pool: min(claim.floor, claim.wanted) for claim in claims}
    left = cores - sum(claim.share * sizes[claim.pool] for claim in claims)
    free = memory_bytes - sum(claim.memory_bytes * sizes[claim.pool] for claim in claims)
    for urgent in (True, False):
        open_claims = [claim for claim in claims if claim.urgent is urgent]
        while growing := [claim for claim in open_claims if _fits(claim, sizes[claim.pool], left, free)]:
            poorest = min(growing, key=lambda claim: (sizes[claim.pool] * claim.share / claim.weight, claim.pool))
            sizes[poorest.pool] += 1
            left -= poorest.share
            free -= poorest.memory_bytes
    return sizes


def _fits(claim: Claim, size: int, cores_left: float, memory_left: float) -> bool:
    waits = claim.share < 0.1  # as closed.WAITING_SHARE: nothing that could be shared out
    return (
        size < claim.wanted
        and (waits or claim.share <= cores_left + 0.1)
        and (not claim.memory_bytes or claim.memory_bytes <= memory_left)
    )
