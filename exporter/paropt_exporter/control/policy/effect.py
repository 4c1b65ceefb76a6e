"""Tell whether more workers helped, from how long tasks took before and after an up-move.

Where workers get in each other's way (a lock, a disk, a database), each takes longer as there are more of them. The
inflation of the service time shows it at once; a comparison of throughputs gave false alarms of up to a fifth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

COMPLETIONS = 30  # of each sample: fewer say little of a mean
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


def ineffective(before: Sample, after: Sample, *, old_size: int, new_size: int) -> bool:
    """Whether an up-move did not help: the lower 95 % bound of the inflation exceeds 1 + 0.5 (N'/N - 1).

    The bound is of ln(after / before), by the delta method: the variance of a mean's logarithm is v / (n m^2).
    """
    if min(before.count, after.count) < COMPLETIONS or min(before.mean, after.mean) <= 0 or new_size <= old_size:
        return False
    spread = sum(sample.variance / (sample.count * sample.mean**2) for sample in (before, after))
    lower = math.log(after.mean / before.mean) - _ONE_SIDED_95 * math.sqrt(spread)
    return math.exp(lower) > 1.0 + USELESS_RATIO * (new_size / old_size - 1.0)


def blocked(now: float, size: int, *, load: float, service_seconds: float, earlier: Block | None) -> Block:
    """Block ups from `size` on; for twice as long as the last time in the same situation."""
    again = earlier is not None and not _changed(earlier, load=load, service_seconds=service_seconds)
    seconds = min(2.0 * earlier.seconds, LONGEST_BLOCK_SECONDS) if again and earlier else FIRST_BLOCK_SECONDS
    return Block(size=size, until=now + seconds, seconds=seconds, load=load, service_seconds=service_seconds)


def still_blocked(block: Block | None, now: float, *, load: float, service_seconds: float) -> bool:
    """Whether a block holds: until its time is over, or the load or the service time is another."""
    return block is not None and now < block.until and not _changed(block, load=load, service_seconds=service_seconds)


def lifted(block: Block) -> Block:
    """Return the block as one that is over but remembered, for the back-off."""
    return replace(block, until=0.0)


def _changed(block: Block, *, load: float, service_seconds: float) -> bool:
    pairs = ((block.load, load), (block.service_seconds, service_seconds))
    return any(abs(now - then) > CHANGE_RATIO * max(then, 1e-9) for then, now in pairs)
