"""Watch reports the warning and the broken limit on any clock."""

from __future__ import annotations

from paropt_exporter.events import SlaLimit
from paropt_exporter.sla import Watch
from support.lanes import limit


def test_warning_comes_first_and_each_step_once() -> None:
    watch = Watch(limit(10), 100.0)
    assert watch.next_deadline == 108.0
    assert watch.check(107.9) == ()
    assert watch.check(108.0) == (False,)
    assert watch.check(109.0) == ()
    assert watch.next_deadline == 110.0
    assert watch.check(110.0) == (True,)
    assert watch.check(999.0) == ()
    assert watch.next_deadline is None


def test_late_check_returns_both_steps_in_order() -> None:
    assert Watch(limit(10), 0.0).check(50.0) == (False, True)


def test_corrected_start_moves_the_deadline() -> None:
    watch = Watch(limit(10), 0.0)
    watch.started_seconds = 2.0
    assert watch.check(9.0) == ()
    assert watch.next_deadline == 10.0


def test_check_at_the_deadline_reaches_it_in_spite_of_rounding() -> None:
    """In 1,000,000.1 s + 0.1 s less the start there is less than 0.1 s: a timer would fire there again and again."""
    for started in (0.1 * number for number in range(1, 10_000_000, 99_999)):
        watch = Watch(SlaLimit(max_seconds=0.3, warn_seconds=0.1), started)
        assert watch.next_deadline is not None
        assert watch.check(watch.next_deadline) == (False,)
        assert watch.check(watch.next_deadline) == (True,)
