"""The text report, and snapshots as plain values."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from paropt_exporter import ParallelizationDashboard, ParallelizationStrategy, StageMetrics, WorkerPoolMetrics
from paropt_exporter.guide.pool_metrics import summarize

START = datetime(2026, 1, 1, tzinfo=UTC)
LINT = StageMetrics(
    stage_number=2,
    stage_name="lint",
    start_time=START,
    end_time=START + timedelta(seconds=1.5),
    duration_seconds=1.5,
    worker_id="threads-0",
    success=True,
    cpu_percent=80.0,
    memory_mb=42.0,
)
TYPES = replace(LINT, stage_number=3, stage_name="types", success=False, error_message="ValueError: a\nb")
METRICS = WorkerPoolMetrics(
    pool_size=2,
    strategy=ParallelizationStrategy.THREAD_POOL,
    total_tasks=3,
    completed_tasks=1,
    failed_tasks=1,
    total_duration_seconds=3.0,
    avg_task_duration_seconds=1.5,
    min_task_duration_seconds=1.5,
    max_task_duration_seconds=1.5,
    worker_utilization=50.0,
    throughput_tasks_per_second=1 / 3,
    stage_metrics=[LINT, TYPES],
    bottlenecks=["lint is slow"],
    recommendations=["lint: split it"],
    timestamp=START,
)


def test_report_is_short_and_has_failures_and_recommendations() -> None:
    assert ParallelizationDashboard.format_metrics_report(METRICS).splitlines() == [
        "thread_pool pool of 2 · 3 tasks in 3.00 s · 1 succeeded, 1 failed, 1 not ended",
        "  workers 50 % busy · 0.33 tasks/s · a task 1.50 s on average (1.50 to 1.50 s)",
        "    2 lint      1.50 s     80 % CPU      42 MB  threads-0",
        "  x 3 types     1.50 s     80 % CPU      42 MB  threads-0  ValueError: a b",
        "  bottleneck: lint is slow",
        "  try: lint: split it",
    ]


def test_report_of_one_task_has_no_plural() -> None:
    first, *_ = ParallelizationDashboard.format_metrics_report(replace(METRICS, total_tasks=1)).splitlines()
    assert first.startswith("thread_pool pool of 2 · 1 task in 3.00 s")


def test_report_of_a_thousand_tasks_still_fits_on_a_screen() -> None:
    report = ParallelizationDashboard().format_metrics_report(replace(METRICS, stage_metrics=[LINT] * 1000))
    assert "  … and 960 more" in report.splitlines()
    assert len(report.splitlines()) < 50


def test_plain_values_have_no_infinity_and_times_with_their_offset() -> None:
    plain = replace(METRICS, throughput_tasks_per_second=math.inf, worker_utilization=math.nan).to_dict()
    assert (plain["throughput_tasks_per_second"], plain["worker_utilization"]) == (None, None)
    assert plain["timestamp"] == "2026-01-01T00:00:00+00:00"
    assert plain["stage_metrics"][0]["end_time"] == "2026-01-01T00:00:01.500000+00:00"
    assert plain == json.loads(json.dumps(plain, allow_nan=False))


def test_metrics_object_can_be_made_of_its_first_two_fields() -> None:
    made = WorkerPoolMetrics(4, ParallelizationStrategy.HYBRID)
    assert (made.total_tasks, made.stage_metrics, made.timestamp.tzinfo) == (0, [], UTC)


@pytest.mark.parametrize("strategy", [ParallelizationStrategy.HYBRID, ParallelizationStrategy.ADAPTIVE])
def test_adaptive_pool_is_not_recommended_to_itself(strategy: ParallelizationStrategy) -> None:
    assert advise_on_computing_in_threads(strategy) == [
        "lint: let it run in processes: without thread_only, with arguments that can be pickled"
    ]


def test_fixed_threads_are_advised_to_become_processes() -> None:
    assert advise_on_computing_in_threads(ParallelizationStrategy.THREAD_POOL) == [
        "lint: use PROCESS_POOL, HYBRID or ADAPTIVE instead of THREAD_POOL"
    ]


def advise_on_computing_in_threads(strategy: ParallelizationStrategy) -> list[str]:
    """Return the recommendations for a pool whose only stage held the interpreter's lock."""
    return summarize(
        [LINT], strategy=strategy, pool_size=1, submitted=1, wall_seconds=1.5, busy_ratio=1.0, queued=False,
        gil_bound={LINT.stage_number}, in_processes={}, fallbacks=(), now=START,
    ).recommendations  # fmt: skip
