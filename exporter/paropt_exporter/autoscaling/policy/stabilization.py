"""Decide when to follow a wanted size: move, or hold with a reason.

A size goes up to the wanted size at once. It goes down only to the highest size wanted within a window, and in steps:
with too few workers tasks wait at once, too many cost little. Sources: Dask's adaptive core (a down-move must be wanted
several times), the Kubernetes HPA (tolerance, stabilization window), Flink's autoscaler (ineffective scaling).
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

TOLERANCE_RATIO = 0.1  # as in the HPA
LARGEST_STEP_DOWN_RATIO = 0.3
MAX_REVERSALS = 6  # reversals allowed within an hour
REVERSAL_WINDOW_SECONDS = 3600.0
# A move that is undone within this time is a reversal. Later, the load has changed; nor is it a reversal if most of the
# move stays. In simulated hours of five patterns, a budget for all changes of direction kept pools at their peaks, for
# 1.4 times the worker-hours.
REVERSAL_SECONDS = 60.0

Peaks = tuple[tuple[float, int], ...]  # moments and sizes, the sizes in falling order


class SizeLimits(Struct, frozen=True, kw_only=True):
    """Limits of a size: floor, ceiling, and how many seconds a lower size must have sufficed before a down-move.

    `ceiling_reason`: the cause of the ceiling.
    """

    floor: int
    ceiling: int
    stable_seconds: float
    ceiling_reason: str = "bounds"


class WantedSize(Struct, frozen=True, kw_only=True):
    """A wanted size with its reason, and the reason to hold instead of growing, or "".

    `keep`: a size up to which workers stay although fewer are wanted. `exact`: the size is a count, not an estimate:
    the smallest difference is worth a move, the largest takes one step, and following tasks that come and go is not
    flapping. `late`: tasks wait for too long, so that even one more worker is worth a move.
    """

    size: int
    reason: str
    keep: int = 0
    hold_reason: str = ""
    exact: bool = False
    late: bool = False


class ScalingHistory(Struct, frozen=True, kw_only=True):
    """Wanted sizes and moves: peaks (moment, size) in falling order of size, and the moments of reversals.

    `moved_from`: the size before the last move. `began`: the first decision's moment; before the stable time has
    passed, it is unknown which size suffices.
    """

    began: float | None = None
    peaks: Peaks = ()
    reversals: tuple[float, ...] = ()
    rising: bool | None = None
    moved_at: float = 0.0
    moved_from: int = 0

    def is_flapping(self, now: float) -> bool:
        """Return whether the reversals of the last hour have reached their maximum."""
        return sum(moment > now - REVERSAL_WINDOW_SECONDS for moment in self.reversals) >= MAX_REVERSALS


class SizeDecision(Struct, frozen=True, kw_only=True):
    """A decision: the next size, the action, its reason, and the history for the next decision."""

    size: int
    action: str
    reason: str
    history: ScalingHistory


def decide_size(now: float, size: int, wanted: WantedSize, limits: SizeLimits, history: ScalingHistory) -> SizeDecision:
    """Decide one pool's next size at the monotonic moment `now`."""
    bounded = min(max(wanted.size, limits.floor), limits.ceiling)
    reason = wanted.reason if bounded == wanted.size else limits.ceiling_reason if bounded < wanted.size else "bounds"
    kept = min(max(wanted.keep, bounded), limits.ceiling)
    history = replace(
        history,
        began=now if history.began is None else history.began,
        peaks=add_peak(history.peaks, now, kept, limits.stable_seconds),
    )
    if size < limits.floor:
        return _move(now, size, max(bounded, limits.floor), "bounds", history, wanted)
    if size > limits.ceiling:
        shrunk = _shrink(now, size, wanted, reason, limits, history)
        if shrunk.size < limits.ceiling:
            return shrunk
        return _move(now, size, limits.ceiling, limits.ceiling_reason, history, wanted)
    if bounded > size:
        return _grow(now, size, bounded, reason, wanted, history)
    if bounded < size:
        return _shrink(now, size, wanted, reason, limits, history)
    return SizeDecision(size=size, action="hold", reason=reason, history=history)


def _grow(
    now: float, size: int, bounded: int, reason: str, wanted: WantedSize, history: ScalingHistory
) -> SizeDecision:
    if wanted.hold_reason:
        return SizeDecision(size=size, action="hold", reason=wanted.hold_reason, history=history)
    if is_within_tolerance(size, bounded) and not (wanted.exact or wanted.late):
        return SizeDecision(size=size, action="hold", reason="deadband", history=history)
    # Cores and memory limit the move; demand causes it.
    return _move(now, size, bounded, "demand" if reason in ("cpu_limit", "memory_limit") else reason, history, wanted)


def _shrink(
    now: float, size: int, wanted: WantedSize, reason: str, limits: SizeLimits, history: ScalingHistory
) -> SizeDecision:
    highest = history.peaks[0][1]
    young = history.began is None or now < history.began + limits.stable_seconds
    if young or highest >= size:
        return SizeDecision(size=size, action="hold", reason="stabilizing", history=history)
    if is_within_tolerance(size, highest) and not wanted.exact:
        return SizeDecision(size=size, action="hold", reason="deadband", history=history)
    if history.is_flapping(now) and not wanted.exact:
        return SizeDecision(size=size, action="hold", reason="flap_budget", history=history)
    least = limits.floor if wanted.exact else min(math.ceil(size * (1.0 - LARGEST_STEP_DOWN_RATIO)), size - 1)
    return _move(now, size, max(highest, least, limits.floor), reason, history, wanted)


def _move(now: float, size: int, new: int, reason: str, history: ScalingHistory, wanted: WantedSize) -> SizeDecision:
    rising = new > size
    undone = new >= history.moved_from if rising else new <= history.moved_from
    reversed_ = history.rising is not None and history.rising is not rising
    turned = reversed_ and undone and now < history.moved_at + REVERSAL_SECONDS and not wanted.exact
    reversals = tuple(moment for moment in history.reversals if moment > now - REVERSAL_WINDOW_SECONDS)
    history = replace(
        history, rising=rising, moved_at=now, moved_from=size, reversals=(*reversals, now) if turned else reversals
    )
    return SizeDecision(size=new, action="up" if rising else "down", reason=reason, history=history)


def is_within_tolerance(size: int, wanted: int) -> bool:
    """Return whether a difference is too small for a move: |N* - N| < max(1, 0.1 N)."""
    return abs(wanted - size) < max(1.0, TOLERANCE_RATIO * size)


def add_peak(peaks: Peaks, now: float, size: int, stable_seconds: float) -> Peaks:
    """Add the size wanted now; the first entry is then the highest of the window (a monotonic queue)."""
    kept = [peak for peak in peaks if peak[0] > now - stable_seconds]
    while kept and kept[-1][1] <= size:
        kept.pop()
    return (*kept, (now, size))
