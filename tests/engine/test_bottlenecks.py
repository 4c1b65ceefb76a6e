"""Bottlenecks by numbers."""

from __future__ import annotations

from typing import Any

from paropt_exporter.engine import bottlenecks
from paropt_exporter.events import Result, StageRecord


def record(name: str, seconds: float, **fields: Any) -> StageRecord:
    defaults: dict[str, Any] = {
        "run_id": "r1",
        "lane": "standard",
        "stage": name,
        "number": 2,
        "result": Result.SUCCESS,
        "message": "",
        "pool": "commands",
        "tasks": 1,
        "tasks_failed": 0,
        "duration_seconds": seconds,
        "started_timestamp_seconds": 1.0,
    }
    return StageRecord(**(defaults | fields))


def kinds(*stages: StageRecord, busy_ratio: float = 0.7, queued: bool = False) -> set[tuple[str | None, str]]:
    found = bottlenecks.find(stages, busy_ratio=busy_ratio, queued=queued)
    assert all(bottleneck.sentence for bottleneck in found)
    return {(bottleneck.stage, bottleneck.kind) for bottleneck in found}


def test_a_stage_over_one_and_a_half_times_the_average_is_slow() -> None:
    assert kinds(record("a", 10), record("b", 16), record("c", 5)) == {("b", "slow"), (None, "uneven")}


def test_a_stage_at_one_and_a_half_times_the_average_is_not_slow() -> None:
    assert kinds(record("a", 2), record("b", 6), record("c", 4)) == set()


def test_of_two_stages_the_longer_one_makes_the_lane_uneven_and_is_not_slow() -> None:
    assert kinds(record("a", 10), record("b", 1)) == {(None, "uneven")}


def test_a_stage_that_timed_out_says_nothing_about_how_long_it_takes() -> None:
    timed_out = record("c", 30, result=Result.TIMEOUT)
    assert kinds(record("a", 2), record("b", 2), timed_out) == set()
    assert kinds(record("a", 2), record("b", 2), record("d", 7), timed_out) == {("d", "slow"), (None, "uneven")}


def test_a_stage_that_failed_at_once_makes_no_other_one_slow() -> None:
    failed = record("f", 0.01, result=Result.FAILURE)
    assert kinds(record("a", 4), record("b", 4), record("c", 5), failed) == set()
    assert kinds(record("a", 2), record("b", 4), failed) == set()


def test_a_stage_that_failed_late_may_be_slow() -> None:
    late = record("f", 12, result=Result.FAILURE)
    assert kinds(record("a", 5), record("b", 5), record("c", 5), late) == {("f", "slow")}


def test_a_stage_whose_slowest_task_takes_over_three_times_its_fastest_is_uneven() -> None:
    assert kinds(record("a", 10, tasks=4, fastest_task_seconds=1, slowest_task_seconds=3.1)) == {("a", "uneven")}
    assert kinds(record("a", 10, tasks=4, fastest_task_seconds=1, slowest_task_seconds=3.0)) == set()


def test_ratios_between_durations_that_nobody_notices_are_no_bottleneck() -> None:
    assert kinds(record("a", 0.001), record("b", 0.05)) == set()


def test_a_lane_is_under_used_below_half_and_saturated_above_nine_tenths_while_tasks_wait() -> None:
    assert kinds(record("a", 1), busy_ratio=0.49) == {(None, "under_used")}
    assert kinds(record("a", 1), busy_ratio=0.5) == set()
    assert kinds(record("a", 1), busy_ratio=0.91, queued=True) == {(None, "saturated")}
    assert kinds(record("a", 1), busy_ratio=0.91, queued=False) == set()


def test_gil_bound_work_is_named_with_the_words_of_the_guide() -> None:
    (found,) = bottlenecks.find([record("a", 1, gil_bound=True)], busy_ratio=0.7, queued=False)
    assert found.kind == "gil_bound"
    assert "High CPU usage" in found.sentence


def test_skipped_stages_do_not_count() -> None:
    assert kinds(record("a", 2), record("b", 0, result=Result.SKIP, started_timestamp_seconds=None)) == set()


def test_a_stage_that_failed_at_once_makes_no_lane_uneven() -> None:
    assert kinds(record("a", 4), record("b", 0.01, result=Result.FAILURE), record("c", 4)) == set()
