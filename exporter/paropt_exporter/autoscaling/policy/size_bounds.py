"""Decide a lane's floor and ceiling from query results for load and limits.

Sources: KEDA's and the HPA's `ceil(value / target)` for load; additive increase and multiplicative decrease (Chiu and
Jain, 1989) for a limit that others share. Unlike in KEDA, an invalid reading is neither zero nor a reason to move: the
bounds stay for ten intervals, then the config's apply.
"""

from __future__ import annotations

import math

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.query_validity import Reading
from paropt_exporter.autoscaling.policy.stabilization import LARGEST_STEP_DOWN_RATIO, Peaks, add_peak

LOAD, LIMIT = "load", "limit"
PATIENT_INTERVALS = 10  # how long the last value of a lost signal holds
SETTLE_INTERVALS = 4  # a new ceiling must show in the signal before it moves again
LIMIT_TOLERANCE_RATIO = 0.1  # under 90 % of a limit's target there is room again
_LARGEST_CUT_RATIO = 0.5
_LARGEST_RAISE_RATIO = 0.5
_MOST_WORKERS = 1_000_000


class Signal(Struct, frozen=True, kw_only=True):
    """A user's query with its reading. `use`: load or limit."""

    name: str
    use: str
    target: float
    reading: Reading


class LastSignal(Struct, frozen=True, kw_only=True):
    """A signal's last valid value: the floor or ceiling in workers (None: no bound), its time, and rejections since."""

    name: str
    workers: int | None = None
    at: float = 0.0
    rejected_count: int = 0


class BoundsState(Struct, frozen=True, kw_only=True):
    """The state from interval to interval: the last signals, and the highest recent floors in falling order."""

    last_signals: tuple[LastSignal, ...] = ()
    floors: Peaks = ()


class BoundsObservation(Struct, frozen=True, kw_only=True):
    """All inputs of a decision about bounds. `minimum`, `maximum`: the config's; `size`: the lane's present size."""

    now: float
    interval_seconds: float
    stable_seconds: float
    minimum: int
    maximum: int
    floor: int
    ceiling: int
    size: int
    signals: tuple[Signal, ...]
    state: BoundsState


class BoundsDecision(Struct, frozen=True, kw_only=True):
    """A decision about bounds. `reason` is one of the metrics' reasons; `signal` names the deciding signal, or ""."""

    floor: int
    ceiling: int
    action: str
    reason: str
    signal: str
    state: BoundsState


def decide_size_bounds(observation: BoundsObservation) -> BoundsDecision:
    """Decide floor and ceiling for the next interval."""
    last_signals = tuple(_update_signal(observation, signal) for signal in observation.signals)
    ceiling, limit_signal = _compute_ceiling(observation, last_signals)
    floor, load_signal, floors = _compute_floor(observation, last_signals)
    floor = min(floor, ceiling)
    state = BoundsState(last_signals=last_signals, floors=floors)
    if ceiling != observation.ceiling:
        action = _get_direction(observation.ceiling, ceiling)
        reason, signal = LIMIT if limit_signal else "bounds", limit_signal
    elif floor != observation.floor:
        action = _get_direction(observation.floor, floor)
        reason, signal = LOAD if load_signal else "bounds", load_signal
    else:
        action = "hold"
        reason, signal = _find_hold_reason(observation, load_signal, limit_signal)
    return BoundsDecision(floor=floor, ceiling=ceiling, action=action, reason=reason, signal=signal, state=state)


def compute_load_workers(value: float, target: float) -> int:
    """Return the workers for a load: ceil(value / target), at least 0."""
    return math.ceil(min(max(0.0, value / target), _MOST_WORKERS))  # a quotient of finite numbers may be infinite


def compute_limited_ceiling(base: int, value: float, target: float) -> int:
    """Return the ceiling that brings a limit's value to its target, if proportional; at least half of `base`."""
    return max(1, math.floor(base * max(target / value, 1.0 - _LARGEST_CUT_RATIO)))


def compute_raised_ceiling(base: int, value: float, target: float) -> int:
    """Return the next higher ceiling while a limit leaves room: at least one more, at most half as many more."""
    room = (1.0 - LIMIT_TOLERANCE_RATIO) * target / value if value > 0 else math.inf
    return max(base + 1, math.floor(base * min(room, 1.0 + _LARGEST_RAISE_RATIO)))


def _update_signal(observation: BoundsObservation, signal: Signal) -> LastSignal:
    last = next(
        (last for last in observation.state.last_signals if last.name == signal.name), LastSignal(name=signal.name)
    )
    if not signal.reading.is_valid:
        lost = last.rejected_count + 1 > PATIENT_INTERVALS
        return replace(last, rejected_count=last.rejected_count + 1, workers=None if lost else last.workers)
    if signal.use == LOAD:
        workers = compute_load_workers(signal.reading.value, signal.target)
        return replace(last, workers=workers, at=observation.now, rejected_count=0)
    return _update_limit_signal(observation, signal, replace(last, rejected_count=0))


def _update_limit_signal(observation: BoundsObservation, signal: Signal, last: LastSignal) -> LastSignal:
    value = signal.reading.value
    now_allowed = observation.maximum if last.workers is None else last.workers
    if last.workers is not None and observation.now < last.at + SETTLE_INTERVALS * observation.interval_seconds:
        return last
    if value > signal.target:
        base = min(now_allowed, observation.ceiling, max(observation.size, observation.minimum))
        return replace(
            last,
            workers=max(observation.minimum, compute_limited_ceiling(base, value, signal.target)),
            at=observation.now,
        )
    if last.workers is not None and value < (1.0 - LIMIT_TOLERANCE_RATIO) * signal.target:
        raised = compute_raised_ceiling(now_allowed, value, signal.target)
        return replace(last, workers=raised if raised < observation.maximum else None, at=observation.now)
    return last


def _compute_ceiling(observation: BoundsObservation, last_signals: tuple[LastSignal, ...]) -> tuple[int, str]:
    allowed = _list_bounds(_select_signals(observation, last_signals, LIMIT))
    lowest, name = min(allowed, default=(observation.maximum, ""))
    return min(max(lowest, observation.minimum), observation.maximum), name


def _compute_floor(observation: BoundsObservation, last_signals: tuple[LastSignal, ...]) -> tuple[int, str, Peaks]:
    loads = _select_signals(observation, last_signals, LOAD)
    wanted, name = max(_list_bounds(loads), default=(observation.minimum, ""))
    wanted = min(max(wanted, observation.minimum), observation.maximum)
    floors = add_peak(observation.state.floors, observation.now, wanted, observation.stable_seconds)
    floor = floors[0][1]
    if any(0 < last.rejected_count <= PATIENT_INTERVALS for last in loads):
        floor = max(floor, observation.floor)
    if floor < observation.floor:  # step down as sizes do
        floor = max(floor, min(observation.floor - 1, math.ceil(observation.floor * (1.0 - LARGEST_STEP_DOWN_RATIO))))
    return floor, name, floors


def _list_bounds(signals: list[LastSignal]) -> list[tuple[int, str]]:
    """Return the bounds by signals that have one, each with the signal's name."""
    return [(signal.workers, signal.name) for signal in signals if signal.workers is not None]


def _select_signals(observation: BoundsObservation, last_signals: tuple[LastSignal, ...], use: str) -> list[LastSignal]:
    names = {signal.name for signal in observation.signals if signal.use == use}
    return [last for last in last_signals if last.name in names]


def _get_direction(old: int, new: int) -> str:
    return "up" if new > old else "down"


def _find_hold_reason(observation: BoundsObservation, load_signal: str, limit_signal: str) -> tuple[str, str]:
    invalid = next((signal for signal in observation.signals if not signal.reading.is_valid), None)
    if invalid is not None:
        return invalid.reading.rejection_reason, invalid.name
    if limit_signal:
        return LIMIT, limit_signal
    return (LOAD, load_signal) if load_signal else ("bounds", "")
