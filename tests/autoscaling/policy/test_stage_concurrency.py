"""Limits of stages whose tasks get no more done by more at once, by numbers."""

from __future__ import annotations

import random
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup
from paropt_exporter.autoscaling.policy.lane_size import LaneObservation, LaneSizingState, decide_lane_size
from paropt_exporter.autoscaling.policy.scaling_effectiveness import Sample
from paropt_exporter.autoscaling.policy.stage_concurrency import (
    ANY,
    LIFTED,
    LIMITED,
    TRIAL,
    ConcurrencyLevel,
    StageLimitState,
    StageMeasurement,
    collect_limits,
    compute_next_state,
    compute_next_states,
    is_suspicious,
)

CORES = 2.0


def level(concurrency: float, mean: float, count: int = 100) -> ConcurrencyLevel:
    return ConcurrencyLevel(concurrency=concurrency, sample=Sample(count=count, mean=mean, variance=mean**2 / 4))


def seen(
    concurrency: float, mean: float, *, count: int = 100, running: int | None = None, waiting: int = 1000
) -> StageMeasurement:
    return StageMeasurement(
        stage="a",
        running=round(concurrency) if running is None else running,
        waiting=waiting,
        level=level(concurrency, mean, count),
        fastest_seconds=0.05,
    )


def after(one: StageMeasurement, state: StageLimitState | None = None, now: float = 0.0) -> StageLimitState:
    return compute_next_state(one, state or StageLimitState(stage="a"), now, CORES)


TRYING = StageLimitState(stage="a", phase=TRIAL, limit=16, reference=level(64.0, 3.2), settled=True, until=9.4)
BLOCKED = StageLimitState(stage="a", phase=LIMITED, limit=16, reference=level(16.0, 0.8), settled=True, until=60.0)


def test_tasks_slowed_by_their_number_are_tried_with_a_quarter() -> None:
    state = after(seen(64.0, 64 * 0.05))
    assert (state.phase, state.limit) == (TRIAL, 16)


def test_speed_beyond_two_workers_is_not_suspicious() -> None:
    assert not is_suspicious(level(64.0, 32 * 0.05), 0.05)
    assert is_suspicious(level(64.0, 33 * 0.05), 0.05)
    assert after(seen(64.0, 1.0)).phase == ANY


def test_one_worker_per_core_is_never_suspicious() -> None:
    assert after(seen(2.0, 5.0)).phase == ANY


def test_no_trial_starts_with_few_tasks_left() -> None:
    assert after(seen(64.0, 3.2, waiting=563)).phase == ANY
    assert after(seen(64.0, 3.2, waiting=564)).phase == TRIAL


def test_quarter_that_gets_as_much_done_becomes_the_limit_for_a_minute() -> None:
    state = after(seen(16.0, 0.8, count=30), TRYING, now=5.0)
    assert (state.phase, state.limit, state.until) == (LIMITED, 16, 65.0)


def test_tasks_from_before_a_trial_decide_nothing() -> None:
    draining = replace(TRYING, settled=False)
    assert after(seen(40.0, 2.0, count=60, running=30), draining) == draining
    settled = after(seen(40.0, 2.0, count=60, running=16), draining)
    assert (settled.phase, settled.settled, settled.changes) == (TRIAL, True, 1)


def test_quarter_that_gets_less_done_ends_the_trial_soon() -> None:
    many = replace(TRYING, reference=level(64.0, 1.0))
    state = after(seen(16.0, 1.0, count=6), many, now=5.0)
    assert (state.phase, state.limit) == (ANY, None)
    assert after(seen(64.0, 3.2), state, now=64.0).phase == ANY
    assert after(seen(64.0, 3.2), state, now=65.0).phase == TRIAL


def test_trial_ends_if_long_tasks_keep_its_slots() -> None:
    """Eleven tasks of ten minutes held 16 slots when a trial of four began: no other task ran for ten minutes."""
    trying = after(seen(64.0, 3.2), now=5.0)
    assert trying.until == pytest.approx(5.0 + 2.0 * (64 + 30) * 0.05)
    none_ended = seen(11.0, 0.0, count=0, running=20)
    assert after(none_ended, trying, now=14.3) == trying
    state = after(none_ended, trying, now=14.5)
    assert (state.phase, state.limit, state.until) == (ANY, None, 74.5)


def test_limit_stays_if_still_fewer_get_less_done() -> None:
    deeper = after(seen(16.0, 0.8), BLOCKED)
    assert (deeper.phase, deeper.limit) == (TRIAL, 4)
    back = after(seen(4.0, 0.8), replace(deeper, settled=True))
    assert (back.phase, back.limit, back.deepest) == (LIMITED, 16, True)


def test_limit_returns_for_twice_as_long_if_more_are_still_no_use() -> None:
    lifted = after(seen(16.0, 0.8), replace(BLOCKED, deepest=True), now=60.0)
    assert (lifted.phase, lifted.limit) == (LIFTED, None)
    again = after(seen(64.0, 3.2), lifted, now=70.0)
    assert (again.phase, again.limit, again.until) == (LIMITED, 16, 190.0)
    assert after(seen(64.0, 0.9), lifted, now=70.0).phase == ANY


def test_limit_is_lifted_if_a_third_more_or_less_gets_done() -> None:
    limited = replace(BLOCKED, deepest=True)
    assert after(seen(16.0, 0.4), limited).limit is None
    assert after(seen(16.0, 1.6), limited).limit is None
    assert after(seen(16.0, 0.4, count=30), limited).limit is None
    assert after(seen(16.0, 0.4, count=29), limited) == limited, "too few to tell"
    assert after(seen(16.0, 0.0), limited) == limited, "a clock that stands still"
    assert after(seen(16.0, 0.75), limited) == limited
    one = replace(limited, limit=2, reference=level(1.0, 0.05))
    assert after(seen(2.0, 0.1), one) == one, "two behind a lock of which one was tried"
    assert after(seen(2.0, 0.1), limited) == limited, "few run because another stage has the slots"


def test_nothing_changes_without_waiting_tasks() -> None:
    for state in (TRYING, BLOCKED, StageLimitState(stage="a")):
        assert after(seen(64.0, 3.2, waiting=0), state, now=1000.0) == state


def test_ended_stage_is_dropped() -> None:
    assert compute_next_states((), (BLOCKED,), now=0.0, cores=CORES) == ()


def test_false_alarms_are_rarer_than_one_in_a_hundred() -> None:
    draw, alarms = random.Random(7), 0
    for _ in range(3000):
        many, few = ([draw.expovariate(1.0) for _ in range(32)] for _ in range(2))
        samples = [Sample(count=32, mean=fmean(times), variance=pvariance(times)) for times in (many, few)]
        trying = replace(TRYING, reference=ConcurrencyLevel(concurrency=64.0, sample=samples[0]))
        alarms += (
            after(replace(seen(16.0, 1.0), level=ConcurrencyLevel(concurrency=16.0, sample=samples[1])), trying).phase
            == LIMITED
        )
    assert alarms <= 30


def lane(
    *stages: StageMeasurement, running: dict[str, int], waiting: dict[str, int], state: LaneSizingState
) -> LaneObservation:
    def group(counts: dict[str, int]) -> tuple[LoadGroup, ...]:
        return tuple(
            LoadGroup(load=Load(pool="commands", stage=stage, cpu_demand=0.0), count=count)
            for stage, count in counts.items()
        )

    return LaneObservation(
        now=1.0, size=64, floor=1, ceiling=64, cores=CORES, running=group(running), waiting=group(waiting),
        stages=stages, state=state,
    )  # fmt: skip


def test_slots_of_a_limited_stage_go_to_other_stages() -> None:
    state = LaneSizingState(stages=(replace(BLOCKED, deepest=True),))
    situation = lane(seen(16.0, 0.8), running={"a": 16, "b": 2}, waiting={"a": 900, "b": 30}, state=state)
    step = decide_lane_size(replace(situation, size=18))
    assert (step.size, step.action) == (48, "up")
    assert collect_limits(step.state.stages) == {"a": 16}


def test_lane_of_one_limited_stage_is_ineffective() -> None:
    state = LaneSizingState(stages=(replace(BLOCKED, deepest=True),))
    step = decide_lane_size(replace(lane(seen(16.0, 0.8), running={"a": 16}, waiting={"a": 900}, state=state), size=16))
    assert (step.size, step.action, step.reason) == (16, "hold", "ineffective")


_MEANS = st.just(0.0) | st.floats(0.001, 10.0)
_STATES = st.sampled_from(
    [TRYING, BLOCKED, StageLimitState(stage="a"), replace(BLOCKED, phase=LIFTED, limit=None, fallback=4)]
)


@given(
    st.floats(1.0, 64.0), _MEANS, st.integers(0, 400), st.integers(0, 64), st.integers(0, 2000), _STATES,
    st.floats(0.0, 200.0),
)  # fmt: skip
def test_limit_is_at_least_one_and_only_trials_lower_it(
    concurrency: float, mean: float, count: int, running: int, waiting: int, state: StageLimitState, now: float
) -> None:
    then = after(seen(concurrency, mean, count=count, running=running, waiting=waiting), state, now)
    assert then.limit is None or then.limit >= 1
    lowered = then.limit is not None and then.limit < (64 if state.limit is None else state.limit)
    assert not lowered or then.phase == TRIAL or state.phase == LIFTED
