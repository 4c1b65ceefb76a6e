"""Tell whether more workers helped, from how long tasks took before and after an up-move.

Where workers get in each other's way (a lock, a disk, a database), each takes longer as there are more of them. The
inflation of the service time shows it at once; a comparison of throughputs gave false alarms of up to a fifth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

COMPLETIONS = 30  # after the move: fewer say little of a mean
FEW_COMPLETIONS = 10  # before it: the bound widens with fewer, and a burst of load leaves no time for more
_LEAST_SPREAD = 0.25  # (deviation / mean)^2 of one service time: that of two or three looks may be nothing by chance
_ONE_SIDED_95 = 1.645  # standard deviations
USELESS_RATIO = 0.5  # service times that grow by half of what the workers do leave hardly a gain
CHANGE_RATIO = 0.3  # a load or service time that differs by this much is another situation
FIRST_BLOCK_SECONDS = 60.0
LONGEST_BLOCK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Service times: how many, their mean in seconds without run delay, and the variance of one."""

    count: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Ups beyond `size` are blocked until a moment, while load and service time stay near what they were."""

    size: int
    until: float
    seconds: float
    load: float
    service_seconds: float


def is_ineffective(before: Sample, after: Sample, *, old_size: float, new_size: float) -> bool:
    """Whether an up-move did not help: the lower 95 % bound of the inflation exceeds 1 + 0.5 (N'/N - 1)."""
    few = before.count < FEW_COMPLETIONS or after.count < COMPLETIONS
    if few or min(before.mean, after.mean) <= 0 or new_size <= old_size:
        return False
    return estimate_inflation(before, after)[0] > compute_useless_inflation(new_size / old_size)


def estimate_inflation(before: Sample, after: Sample, *, sigmas: float = _ONE_SIDED_95) -> tuple[float, float]:
    """Return how many times as long tasks took, as its lower and its upper bound (95 % each); both means are positive.

    The bounds are of ln(after / before), by the delta method: the variance of a mean's logarithm is v / (n m^2).
    """
    spread = sum(max(sample.variance / sample.mean**2, _LEAST_SPREAD) / sample.count for sample in (before, after))
    middle, width = math.log(after.mean / before.mean), sigmas * math.sqrt(spread)
    return math.exp(middle - width), math.exp(middle + width)


def compute_useless_inflation(growth: float) -> float:
    """Return from which inflation on so many times the workers were no use."""
    return 1.0 + USELESS_RATIO * (growth - 1.0)


def start_block(now: float, size: int, *, load: float, service_seconds: float, earlier: Block | None) -> Block:
    """Block ups from `size` on; for twice as long as the last time in the same situation."""
    again = earlier is not None and not _has_changed(earlier, load=load, service_seconds=service_seconds)
    seconds = min(2.0 * earlier.seconds, LONGEST_BLOCK_SECONDS) if again and earlier else FIRST_BLOCK_SECONDS
    return Block(size=size, until=now + seconds, seconds=seconds, load=load, service_seconds=service_seconds)


def is_still_blocked(block: Block, now: float, *, load: float, service_seconds: float) -> bool:
    """Whether a block holds: until its time is over, the load is another, or tasks take less time."""
    return now < block.until and not _has_changed(block, load=load, service_seconds=service_seconds)


def _has_changed(block: Block, *, load: float, service_seconds: float) -> bool:
    # Longer service times are what the block is about, and tasks of the larger size still end for a while.
    faster = service_seconds < (1.0 - CHANGE_RATIO) * block.service_seconds
    return faster or abs(load - block.load) > CHANGE_RATIO * max(block.load, 1e-9)
