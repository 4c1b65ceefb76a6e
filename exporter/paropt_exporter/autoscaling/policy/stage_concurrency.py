"""Decide for each stage of a run whether running more of its tasks at once gets more done, and limit it if not.

All tasks of a run exist from the start, and tasks that wait for a lock look as if they waited for the network. A stage
has all its slots before its first task has ended, so there is no time "before" for a comparison. A trial makes the
comparison: if tasks take so much longer than the fastest of their stage that `scaling_effectiveness` would call more
than one at a time useless, only a quarter of them run for a while.

    any number --suspicious--> trial
    trial      --fewer got as much done--> limited
               --more got more done, or time is over--> any number; the limit from before, if there was one
    limited    --suspicious--> trial of fewer still
               --time is over--> lifted, to see whether more still get no more done
               --its tasks have changed--> any number
    lifted     --still no use--> limited, for twice as long
               --more got more done--> any number

Source: Little's law. Service times are busy time over completions, S = N / X: behind a lock the throughput X is the
same for any N, and S grows with N. Service times show this at once, unlike the durations of ended tasks, which depend
on which task gets the lock next.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.scaling_effectiveness import (
    CHANGE_RATIO,
    COMPLETIONS,
    FIRST_BLOCK_SECONDS,
    LONGEST_BLOCK_SECONDS,
    Sample,
    compute_useless_inflation,
    estimate_inflation,
    is_ineffective,
)

ANY, TRIAL, LIMITED, LIFTED = "any", "trial", "limited", "lifted"
TRIED_RATIO = 0.25  # of the running tasks; half of them would take three times the completions
FEWEST = 2  # the lowest limit; with one task at a time, a lock would be free until the next task reaches a worker
# A trial costs a stage whose tasks don't hinder each other: it runs at a quarter of its pace for most of a task's time,
# until that shows. The loss is the work of about half of the running tasks. A stage with six times as many tasks left
# loses 2 % (median of 150 simulated lanes in which the deviation of tasks' times is at least their mean).
_WORTHWHILE = 6
_FEW = 4  # completions after which a trial may be withdrawn
_TELLING_GROWTH = 1.5  # times the concurrency; with a smaller difference no comparison is reliable
_ENDLESS = 10 * COMPLETIONS  # a trial without a result after so many completions never has one
# Times the duration of the stage's tasks before the trial. Tasks that run for hours may hold all slots of a trial, so
# that none ends and the stage would make no progress.
_OVERDUE_RATIO = 2.0


class ConcurrencyLevel(Struct, frozen=True, kw_only=True):
    """Service times at a concurrency: how many tasks of its stage ran on average while a task did, including itself."""

    concurrency: float
    sample: Sample


class StageMeasurement(Struct, frozen=True, kw_only=True):
    """A stage now. `level`: since its state last changed, while tasks waited; `fastest_seconds`: of its ended tasks."""

    stage: str
    running: int
    waiting: int
    level: ConcurrencyLevel
    fastest_seconds: float


class StageLimitState(Struct, frozen=True, kw_only=True):
    """A stage's limit. `limit`: tasks that may run at once (None: any number); `fallback`: the limit before a trial.

    `reference`: the level with which this phase's measurement is compared; `useless`: the larger level whose comparison
    led to the limit; `settled`: no more tasks run than the limit; `deepest`: a lower limit was tried and got less done;
    `until`, `seconds`: when a limit or trial ends, or a trial may be repeated, and after how long; `changes`: how often
    the state has changed; each change starts new measurements.
    """

    stage: str
    phase: str = ANY
    limit: int | None = None
    fallback: int | None = None
    reference: ConcurrencyLevel | None = None
    useless: ConcurrencyLevel | None = None
    settled: bool = False
    deepest: bool = False
    until: float = 0.0
    seconds: float = FIRST_BLOCK_SECONDS
    changes: int = 0


def compute_next_states(
    measurement: tuple[StageMeasurement, ...], states: tuple[StageLimitState, ...], *, now: float, cores: float
) -> tuple[StageLimitState, ...]:
    """Return the next states of the stages; stages that have ended are dropped."""
    known = {state.stage: state for state in states}
    return tuple(
        compute_next_state(one, known.get(one.stage, StageLimitState(stage=one.stage)), now, cores)
        for one in measurement
    )


def collect_limits(states: tuple[StageLimitState, ...]) -> Mapping[str, int]:
    """Return the limits of stages that have one."""
    return {state.stage: state.limit for state in states if state.limit is not None}


def compute_next_state(
    measurement: StageMeasurement, state: StageLimitState, now: float, cores: float
) -> StageLimitState:
    """Return the next state of one stage."""
    after = _advance(measurement, state, now, cores)
    return after if after == state else replace(after, changes=state.changes + 1)


def is_suspicious(level: ConcurrencyLevel, fastest_seconds: float) -> bool:
    """Return whether more than one task at once would count as useless if the fastest task had run alone."""
    return fastest_seconds > 0 and level.sample.mean > compute_useless_inflation(level.concurrency) * fastest_seconds


def _advance(measurement: StageMeasurement, state: StageLimitState, now: float, cores: float) -> StageLimitState:
    if not measurement.waiting:
        return state  # all tasks run: the number of slots does not matter
    match state.phase:
        case "trial":
            return _advance_trial(measurement, state, now)
        case "limited":
            return _advance_limited(measurement, state, now)
        case "lifted":
            return _advance_lifted(measurement, state, now)
        case _:
            crowded = measurement.level.concurrency > max(cores, FEWEST)
            return (
                _start_trial(measurement, state, now)
                if crowded and now >= state.until and _is_worthwhile(measurement)
                else state
            )


def _is_worthwhile(measurement: StageMeasurement) -> bool:
    """Return whether enough tasks have ended to suspect contention, and enough are left for a trial."""
    known = measurement.level.sample.count >= max(COMPLETIONS, measurement.level.concurrency)
    enough = measurement.waiting >= _WORTHWHILE * (COMPLETIONS + measurement.level.concurrency)
    return known and enough and is_suspicious(measurement.level, measurement.fastest_seconds)


def _start_trial(measurement: StageMeasurement, state: StageLimitState, now: float) -> StageLimitState:
    """Run only a quarter of the tasks, for twice as long as the running tasks and COMPLETIONS more would have taken."""
    level = measurement.level
    until = now + _OVERDUE_RATIO * (1.0 + COMPLETIONS / level.concurrency) * level.sample.mean
    fewer = max(1, round(TRIED_RATIO * level.concurrency))
    return replace(state, phase=TRIAL, limit=fewer, fallback=state.limit, reference=level, settled=False, until=until)


def _advance_trial(measurement: StageMeasurement, state: StageLimitState, now: float) -> StageLimitState:
    many, few = state.reference, measurement.level
    if many is None or state.limit is None:
        return state
    if _has_helped(few, many) or few.sample.count >= _ENDLESS:
        return _withdraw_trial(state, now)
    if state.settled and few.sample.count >= COMPLETIONS and _is_useless(few, many):
        return _set_limit(state, state.limit, few, many, until=now + state.seconds)
    if now >= state.until:
        return _withdraw_trial(state, now)
    return replace(state, settled=True) if not state.settled and measurement.running <= state.limit else state


def _withdraw_trial(state: StageLimitState, now: float) -> StageLimitState:
    """End a trial without a lower limit: more tasks got more done, or its time is over."""
    until = now + state.seconds
    if state.fallback is None:
        return _remove_limit(state, until=until, seconds=_double(state.seconds))
    return replace(state, phase=LIMITED, limit=state.fallback, fallback=None, deepest=True, until=until)


def _advance_limited(measurement: StageMeasurement, state: StageLimitState, now: float) -> StageLimitState:
    few, level = state.reference, measurement.level
    if few is None:
        return state
    if now >= state.until:
        measured = level if level.sample.count >= COMPLETIONS else few
        return replace(state, phase=LIFTED, limit=None, fallback=state.limit, reference=measured)
    if _has_changed(level, few):
        return _remove_limit(state, until=now, seconds=FIRST_BLOCK_SECONDS)
    return state if state.deepest or not _is_worthwhile(measurement) else _start_trial(measurement, state, now)


def _has_changed(level: ConcurrencyLevel, reference: ConcurrencyLevel) -> bool:
    """Return whether certainly 30 % more or less gets done than when the limit was set: its reasons may be gone.

    The comparison is for equal concurrency: behind a lock two tasks take twice as long as one in a trial.
    """
    if level.sample.count < COMPLETIONS or min(level.sample.mean, reference.sample.mean) <= 0:
        return False
    if level.concurrency * _TELLING_GROWTH < reference.concurrency:
        return False  # fewer tasks run than the limit allows: another stage has the slots
    lower, upper = estimate_inflation(reference.sample, level.sample)
    growth = level.concurrency / reference.concurrency
    return lower > (1.0 + CHANGE_RATIO) * growth or upper < (1.0 - CHANGE_RATIO) * growth


def _advance_lifted(measurement: StageMeasurement, state: StageLimitState, now: float) -> StageLimitState:
    few, many = state.reference, measurement.level
    if few is None or state.fallback is None or many.sample.count < max(COMPLETIONS, many.concurrency):
        return state
    if many.concurrency < _TELLING_GROWTH * few.concurrency:
        return state
    if not _is_useless(few, many):
        return _remove_limit(state, until=now + state.seconds, seconds=FIRST_BLOCK_SECONDS)
    seconds = _double(state.seconds)
    return _set_limit(replace(state, seconds=seconds), state.fallback, few, many, until=now + seconds)


def _set_limit(
    state: StageLimitState, limit: int, few: ConcurrencyLevel, many: ConcurrencyLevel, *, until: float
) -> StageLimitState:
    return replace(
        state,
        phase=LIMITED,
        limit=max(FEWEST, limit),
        fallback=None,
        reference=few,
        useless=many,
        settled=True,
        deepest=state.deepest or limit <= FEWEST,
        until=until,
    )


def _remove_limit(state: StageLimitState, *, until: float, seconds: float) -> StageLimitState:
    return StageLimitState(stage=state.stage, until=until, seconds=seconds, changes=state.changes)


def _is_useless(few: ConcurrencyLevel, many: ConcurrencyLevel) -> bool:
    return is_ineffective(few.sample, many.sample, old_size=few.concurrency, new_size=many.concurrency)


def _has_helped(few: ConcurrencyLevel, many: ConcurrencyLevel) -> bool:
    """Return whether more tasks at once probably got more done: inflation plus a deviation is less than the useless
    one.

    Certainty would cost more than it saves, and a stage that is wrongly spared a limit is tried again.
    """
    growth = many.concurrency / max(few.concurrency, 1e-9)
    if few.sample.count < _FEW or growth < _TELLING_GROWTH or min(few.sample.mean, many.sample.mean) <= 0:
        return False
    return estimate_inflation(few.sample, many.sample, sigmas=1.0)[1] < compute_useless_inflation(growth)


def _double(seconds: float) -> float:
    return min(2.0 * seconds, LONGEST_BLOCK_SECONDS)
