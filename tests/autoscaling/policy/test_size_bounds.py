"""Floor and ceiling from query results for load and limits."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.query_validity import Reading, reject_reading
from paropt_exporter.autoscaling.policy.size_bounds import (
    PATIENT_INTERVALS,
    BoundsDecision,
    BoundsObservation,
    BoundsState,
    Signal,
    compute_limited_ceiling,
    compute_load_workers,
    compute_raised_ceiling,
    decide_size_bounds,
)

INTERVAL = 15.0


class Lane:
    """A lane from 1 to 16 whose bounds follow its signals, interval by interval."""

    def __init__(self, use: str, target: float) -> None:
        self.use, self.target = use, target
        self.now, self.size = 0.0, 4
        self.step = BoundsDecision(floor=1, ceiling=16, action="hold", reason="bounds", signal="", state=BoundsState())

    def reads(self, reading: Reading | float) -> BoundsDecision:
        self.now += INTERVAL
        is_valid = Reading(value=reading) if isinstance(reading, float) else reading
        self.step = decide_size_bounds(
            BoundsObservation(
                now=self.now,
                interval_seconds=INTERVAL,
                stable_seconds=60.0,
                minimum=1,
                maximum=16,
                floor=self.step.floor,
                ceiling=self.step.ceiling,
                size=self.size,
                signals=(Signal(name="s", use=self.use, target=self.target, reading=is_valid),),
                state=self.step.state,
            )
        )
        return self.step


def test_load_needs_its_value_over_its_target_in_workers() -> None:
    assert compute_load_workers(100.0, 20.0) == 5
    assert compute_load_workers(101.0, 20.0) == 6
    assert compute_load_workers(-5.0, 20.0) == 0
    assert compute_load_workers(1e300, 1e-3) == 1_000_000
    assert compute_load_workers(1e308, 1e-3) == 1_000_000


def test_tripled_load_raises_the_floor_in_the_next_interval() -> None:
    lane = Lane("load", 20.0)
    assert lane.reads(60.0).floor == 3
    tripled = lane.reads(180.0)
    assert (tripled.floor, tripled.action, tripled.reason, tripled.signal) == (9, "up", "load", "s")


def test_the_floor_falls_by_steps_once_less_has_been_enough() -> None:
    lane = Lane("load", 20.0)
    lane.reads(180.0)
    floors = [lane.reads(0.0).floor for _ in range(12)]
    assert floors[:3] == [9, 9, 9]
    assert floors[3:] == [7, 5, 4, 3, 2, 1, 1, 1, 1]


def test_the_floor_never_exceeds_the_configs_maximum() -> None:
    assert Lane("load", 1.0).reads(1000.0).floor == 16


def test_lost_load_keeps_its_floor_for_ten_intervals() -> None:
    lane = Lane("load", 20.0)
    lane.reads(180.0)
    for _ in range(PATIENT_INTERVALS):
        held = lane.reads(reject_reading("no_data", "empty"))
        assert (held.floor, held.action, held.reason) == (9, "hold", "no_data")
    floors = [lane.reads(reject_reading("no_data", "empty")).floor for _ in range(10)]
    assert floors[-1] == 1


def test_returning_load_is_followed_again() -> None:
    lane = Lane("load", 20.0)
    lane.reads(180.0)
    for _ in range(30):
        lane.reads(reject_reading("query_failed", "refused"))
    assert lane.reads(100.0).floor == 5


@pytest.mark.parametrize(
    "rejection_reason",
    ["query_failed", "no_data", "several_sources", "not_finite", "not_a_number", "partial", "stale", "future"],
)
def test_rejected_reading_moves_no_bound(rejection_reason: str) -> None:
    lane = Lane("load", 20.0)
    before = lane.reads(100.0)
    held = lane.reads(reject_reading(rejection_reason, "why"))
    assert (held.floor, held.ceiling, held.action, held.reason) == (
        before.floor,
        before.ceiling,
        "hold",
        rejection_reason,
    )


def test_limit_over_its_target_lowers_the_ceiling_below_the_running_size() -> None:
    assert compute_limited_ceiling(8, 1.0, 0.8) == 6
    assert compute_limited_ceiling(8, 100.0, 0.8) == 4  # at least half
    lane = Lane("limit", 0.8)
    cut = lane.reads(1.0)
    assert (cut.ceiling, cut.action, cut.reason) == (3, "down", "limit")  # 4 workers run: 4 x 0.8


def test_ceiling_moves_again_only_after_four_intervals() -> None:
    lane = Lane("limit", 0.8)
    assert [lane.reads(1.6).ceiling for _ in range(5)] == [2, 2, 2, 2, 1]


def test_limit_with_room_raises_the_ceiling() -> None:
    assert compute_raised_ceiling(10, 0.6, 0.8) == 12
    assert compute_raised_ceiling(10, 0.0, 0.8) == 15
    assert compute_raised_ceiling(1, 0.7, 0.8) == 2
    lane = Lane("limit", 0.8)
    lane.reads(1.6)
    assert [lane.reads(0.1).ceiling for _ in range(40)][-1] == 16


def test_limit_within_a_tenth_of_its_target_holds() -> None:
    lane = Lane("limit", 0.8)
    lane.reads(1.6)
    assert {lane.reads(0.78).ceiling for _ in range(20)} == {2}


def test_ceiling_overrides_floor() -> None:
    lane = Lane("limit", 0.8)
    seen = BoundsObservation(
        now=1.0,
        interval_seconds=15.0,
        stable_seconds=60.0,
        minimum=1,
        maximum=16,
        floor=1,
        ceiling=16,
        size=4,
        signals=(
            Signal(name="load", use="load", target=1.0, reading=Reading(value=10.0)),
            Signal(name="limit", use="limit", target=0.8, reading=Reading(value=1.6)),
        ),
        state=BoundsState(),
    )
    chosen = decide_size_bounds(seen)
    assert (chosen.floor, chosen.ceiling) == (2, 2)
    assert lane.step.floor == 1


def test_signal_removed_from_the_config_is_dropped() -> None:
    lane = Lane("load", 20.0)
    state = lane.reads(180.0).state
    seen = BoundsObservation(
        now=100.0,
        interval_seconds=15.0,
        stable_seconds=1.0,
        minimum=1,
        maximum=16,
        floor=1,
        ceiling=16,
        size=4,
        signals=(),
        state=replace(state, floors=()),
    )
    assert decide_size_bounds(seen).floor == 1
