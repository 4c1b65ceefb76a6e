"""Decide whether more workers helped, from service times before and after an up-move.

If workers get in each other's way (at a lock, a disk, a database), more workers make tasks take longer. This inflation
of the service time shows at once; when throughputs were compared, up to a fifth of the alarms were false.
"""

from __future__ import annotations

import math

from msgspec import Struct

COMPLETIONS = 30  # after the move; fewer say little about a mean
FEW_COMPLETIONS = 10  # before the move; fewer widen the bound, and a burst of load leaves no time for more
_LEAST_SPREAD = 0.25  # (deviation / mean)^2 of one service time; two or three samples may show none by chance
_ONE_SIDED_95 = 1.645  # standard deviations
USELESS_RATIO = 0.5  # of the growth in workers: if service times grow by half as much, there is hardly a gain
CHANGE_RATIO = 0.3  # from this difference on, the load or the service time counts as changed
FIRST_BLOCK_SECONDS = 60.0
LONGEST_BLOCK_SECONDS = 3600.0


class Sample(Struct, frozen=True, kw_only=True):
    """Service times: their number, their mean in seconds without run delay, and their variance."""

    count: int
    mean: float
    variance: float


class Block(Struct, frozen=True, kw_only=True):
    """No growth beyond `size` until a moment, unless load or service time change.

    `larger`, `larger_size`: the service times at the size that did not help, with which those at `size` are compared.
    """

    size: int
    until: float
    seconds: float
    load: float
    service_seconds: float
    larger: Sample | None = None
    larger_size: int = 0


def is_ineffective(before: Sample, after: Sample, *, old_size: float, new_size: float) -> bool:
    """Return whether an up-move did not help: the lower 95 % bound of the inflation exceeds 1 + 0.5 (N'/N - 1)."""
    few = before.count < FEW_COMPLETIONS or after.count < COMPLETIONS
    if few or min(before.mean, after.mean) <= 0 or new_size <= old_size:
        return False
    return estimate_inflation(before, after)[0] > compute_useless_inflation(new_size / old_size)


def estimate_inflation(before: Sample, after: Sample, *, sigmas: float = _ONE_SIDED_95) -> tuple[float, float]:
    """Return the lower and upper bound of the service time after over that before, `sigmas` standard deviations wide.

    Both means must be positive. The bounds are those of ln(after / before), by the delta method: the variance of a
    mean's logarithm is v / (n m^2).
    """
    spread = sum(max(sample.variance / sample.mean**2, _LEAST_SPREAD) / sample.count for sample in (before, after))
    middle, width = math.log(after.mean / before.mean), sigmas * math.sqrt(spread)
    return math.exp(middle - width), math.exp(middle + width)


def compute_useless_inflation(growth: float) -> float:
    """Return the inflation above which a growth in workers is useless."""
    return 1.0 + USELESS_RATIO * (growth - 1.0)


def start_block(
    now: float,
    size: int,
    *,
    load: float,
    service_seconds: float,
    earlier: Block | None,
    larger: Sample | None = None,
    larger_size: int = 0,
) -> Block:
    """Block growth beyond `size`, for twice as long as the last time under the same load and service time."""
    again = earlier is not None and not _has_changed(earlier, load=load, service_seconds=service_seconds)
    seconds = min(2.0 * earlier.seconds, LONGEST_BLOCK_SECONDS) if again and earlier else FIRST_BLOCK_SECONDS
    return Block(
        size=size,
        until=now + seconds,
        seconds=seconds,
        load=load,
        service_seconds=service_seconds,
        larger=larger,
        larger_size=larger_size,
    )


def is_still_blocked(block: Block, now: float, *, load: float, service_seconds: float) -> bool:
    """Return whether a block still holds: its time is not over, the load is the same, and tasks are not faster."""
    return now < block.until and not _has_changed(block, load=load, service_seconds=service_seconds)


def is_refuted(block: Block, sample: Sample) -> bool:
    """Return whether the larger size would probably have helped: tasks now take as long at the smaller one.

    The sample is of the size after the growth was undone. In this case the tasks themselves have become slower, and the
    number of workers was not the reason.
    """
    if sample.count < COMPLETIONS or block.larger is None or block.larger_size <= block.size:
        return False
    if min(sample.mean, block.larger.mean) <= 0:
        return False
    most = compute_useless_inflation(block.larger_size / block.size)
    return estimate_inflation(sample, block.larger)[1] < most


def _has_changed(block: Block, *, load: float, service_seconds: float) -> bool:
    # Longer service times are no change: they are the reason for the block, and tasks of the larger size still end for
    # a while.
    faster = service_seconds < (1.0 - CHANGE_RATIO) * block.service_seconds
    return faster or abs(load - block.load) > CHANGE_RATIO * max(block.load, 1e-9)
