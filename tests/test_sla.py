"""Watch reports the warning and the broken limit on any clock."""

from __future__ import annotations

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
