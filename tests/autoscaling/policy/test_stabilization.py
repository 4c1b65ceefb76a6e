"""When a wanted size becomes a move."""

from __future__ import annotations

from paropt_exporter.autoscaling.policy.stabilization import (
    MAX_REVERSALS,
    REVERSAL_SECONDS,
    ScalingHistory,
    SizeDecision,
    SizeLimits,
    WantedSize,
    decide_size,
)

LIMITS = SizeLimits(floor=2, ceiling=40, stable_seconds=10.0)


def steps(
    *wants: tuple[float, int], size: int = 10, limits: SizeLimits = LIMITS, exact: bool = False, late: bool = False
) -> list[SizeDecision]:
    """Return the decisions for wanted sizes at moments, one after another."""
    taken, history = [], ScalingHistory(began=-100.0)
    for now, wanted in wants:
        taken.append(
            decide_size(now, size, WantedSize(size=wanted, reason="demand", exact=exact, late=late), limits, history)
        )
        size, history = taken[-1].size, taken[-1].history
    return taken


def test_size_grows_to_the_wanted_size_at_once() -> None:
    assert [(s.size, s.action, s.reason) for s in steps((0.0, 30))] == [(30, "up", "demand")]


def test_tenth_more_is_not_worth_a_move() -> None:
    (held,) = steps((0.0, 21), size=20)
    assert (held.size, held.action, held.reason) == (20, "hold", "deadband")


def test_tenth_more_is_worth_a_move_while_tasks_are_late() -> None:
    assert steps((0.0, 21), size=20, late=True)[0].size == 21


def test_exact_count_is_worth_every_move() -> None:
    assert steps((0.0, 21), size=20, exact=True)[0].size == 21


def test_size_shrinks_after_less_was_enough_for_the_stable_time() -> None:
    wants = [(float(now), 30 if now == 0 else 5) for now in range(12)]
    reasons = [taken.reason for taken in steps(*wants)]
    assert reasons[1:10] == ["stabilizing"] * 9
    assert reasons[10] == "demand"


def test_size_never_shrinks_within_the_first_stable_time() -> None:
    young = ScalingHistory(began=0.0)
    assert decide_size(9.0, 10, WantedSize(size=5, reason="demand"), LIMITS, young).reason == "stabilizing"
    assert decide_size(10.0, 10, WantedSize(size=5, reason="demand"), LIMITS, young).size == 7


def test_size_shrinks_by_three_tenths_at_most() -> None:
    assert steps((0.0, 3), size=10)[0].size == 7
    assert steps((0.0, 1), size=3)[0].size == 2


def test_size_stays_between_floor_and_ceiling() -> None:
    assert steps((0.0, 1), size=2)[0].size == 2
    over = steps((0.0, 1000), size=10)[0]
    assert (over.size, over.reason) == (40, "bounds")


def test_moved_bounds_move_the_size_at_once() -> None:
    assert steps((0.0, 10), size=1)[0].size == 10
    down = steps((0.0, 50), size=50)[0]
    assert (down.size, down.action, down.reason) == (40, "down", "bounds")


def test_hold_reason_holds_the_size() -> None:
    wanted = WantedSize(size=20, reason="demand", hold_reason="saturated")
    assert decide_size(0.0, 10, wanted, LIMITS, ScalingHistory()).reason == "saturated"


def test_spent_reversals_stop_shrinking_but_not_growth() -> None:
    limits = SizeLimits(floor=1, ceiling=100, stable_seconds=1.0)
    wants = [(now * 5.0, 20 if now % 2 else 10) for now in range(40)]
    taken = steps(*wants, size=10, limits=limits)
    assert [s.reason for s in taken if s.action == "hold"].count("flap_budget") > 0
    assert len(taken[-1].history.reversals) >= MAX_REVERSALS
    assert taken[-1].history.is_flapping(200.0)
    later = decide_size(201.0, 20, WantedSize(size=50, reason="demand"), limits, taken[-1].history)
    assert later.size == 50


def test_exact_sizes_are_not_flapping() -> None:
    limits = SizeLimits(floor=1, ceiling=100, stable_seconds=1.0)
    taken = steps(*((now * 5.0, 20 if now % 2 else 10) for now in range(40)), size=10, limits=limits, exact=True)
    assert "flap_budget" not in {s.reason for s in taken}
    assert taken[-1].history.reversals == ()


def test_move_undone_after_a_minute_is_no_reversal() -> None:
    limits = SizeLimits(floor=1, ceiling=100, stable_seconds=1.0)
    wants = [(now * (REVERSAL_SECONDS + 1.0), 20 if now % 2 else 10) for now in range(20)]
    assert steps(*wants, size=10, limits=limits, exact=True)[-1].history.reversals == ()
