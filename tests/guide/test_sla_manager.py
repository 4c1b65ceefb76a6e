"""The guide's SLA targets: limits, warnings, and lists without duplicates."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from paropt_exporter import (
    AdaptiveWorkerPool,
    ParallelizationSLAManager,
    ParallelizationStrategy,
    SLATarget,
    StageMetrics,
    WorkerPoolMetrics,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def task(number: int, name: str, begins: float, ends: float, batch: int = 0) -> StageMetrics:
    return StageMetrics(
        stage_number=number,
        stage_name=name,
        start_time=START + timedelta(seconds=begins),
        end_time=START + timedelta(seconds=ends),
        duration_seconds=ends - begins,
        worker_id="threads-0",
        success=True,
        batch=batch,
    )


def metrics(*tasks: StageMetrics) -> WorkerPoolMetrics:
    return WorkerPoolMetrics(pool_size=2, strategy=ParallelizationStrategy.THREAD_POOL, stage_metrics=list(tasks))


@pytest.mark.parametrize(
    ("seconds", "kept", "sentence"),
    [
        (10.0, True, "stage 4 took 10.0 s: within its limit of 30 s"),
        (24.0, True, "stage 4 took 24.0 s: past 80% of its limit of 30 s"),
        (30.0, True, "stage 4 took 30.0 s: past 80% of its limit of 30 s"),
        (30.5, False, "stage 4 took 30.5 s: over its limit of 30 s"),
        (math.inf, False, "stage 4 took inf s: over its limit of 30 s"),
    ],
)
def test_target_says_whether_a_duration_keeps_it(seconds: float, kept: bool, sentence: str) -> None:
    assert SLATarget(4).check(seconds) == (kept, sentence)


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
def test_duration_that_makes_no_sense_is_rejected(seconds: float) -> None:
    with pytest.raises(ValueError, match="expected a number from 0 on"):
        SLATarget(4).check(seconds)


@pytest.mark.parametrize("limit", [0, -1, math.inf, math.nan])
def test_limit_that_makes_no_sense_is_rejected(limit: float) -> None:
    with pytest.raises(ValueError, match="max_duration_seconds"):
        SLATarget(4, limit)


@pytest.mark.parametrize("threshold", [0, 1.5, -0.1, 80])
def test_threshold_that_is_no_ratio_is_rejected(threshold: float) -> None:
    with pytest.raises(ValueError, match="warning_threshold"):
        SLATarget(4, 30, warning_threshold=threshold)


def test_default_is_30_seconds_for_stages_2_to_6() -> None:
    slas = ParallelizationSLAManager().slas
    assert {number: (sla.max_duration_seconds, sla.critical) for number, sla in slas.items()} == dict.fromkeys(
        range(2, 7), (30.0, False)
    )


def test_no_targets_at_all_is_not_the_default() -> None:
    sla = ParallelizationSLAManager(slas={})
    assert sla.check_stage_sla(2, 1e6)
    assert (sla.violations, sla.warnings) == ([], [])


def test_only_a_broken_critical_limit_is_a_violation_and_both_break_the_check() -> None:
    sla = ParallelizationSLAManager({2: SLATarget(2, 10), 3: SLATarget(3, 10, critical=True)})
    assert not sla.check_stage_sla(2, 11)
    assert not sla.check_stage_sla(3, 12)
    assert sla.check_stage_sla(3, 9)
    assert sla.violations == ["stage 3 took 12.0 s: over its critical limit of 10 s"]
    assert sla.warnings == [
        "stage 2 took 11.0 s: over its limit of 10 s",
        "stage 3 took 9.0 s: past 80% of its critical limit of 10 s",
    ]


def test_checking_twice_does_not_list_twice() -> None:
    sla = ParallelizationSLAManager({2: SLATarget(2, 10), 3: SLATarget(3, 10, critical=True)})
    seen = metrics(task(2, "lint", 0, 11), task(3, "types", 0, 11))
    for _ in range(3):
        assert not sla.check_all_stages(seen)
        assert not sla.check_stage_sla(2, 20)
    assert len(sla.violations) == 1
    assert len(sla.warnings) == 2  # of the snapshot, and of the 20 s


def test_duration_that_equals_the_number_of_a_batch_is_listed_too() -> None:
    sla = ParallelizationSLAManager({4: SLATarget(4, 0.5)})
    assert not sla.check_all_stages(metrics(task(4, "unit", 0, 2, batch=1)))
    assert not sla.check_stage_sla(4, 1.0)
    assert len(sla.warnings) == 2


def test_emptied_list_is_filled_again() -> None:
    sla = ParallelizationSLAManager()
    sla.check_stage_sla(2, 31)
    sla.warnings.clear()
    sla.check_stage_sla(2, 31)
    assert len(sla.warnings) == 1


def test_several_tasks_under_one_number_are_one_stage() -> None:
    sla = ParallelizationSLAManager({4: SLATarget(4, 50)})
    assert not sla.check_all_stages(metrics(*(task(4, "unit", 20.0 * n, 20.0 * (n + 1), batch=7) for n in range(3))))
    assert sla.warnings == ["stage 4 (unit) took 60.0 s: over its limit of 50 s"]


def test_stage_in_two_batches_is_checked_twice() -> None:
    sla = ParallelizationSLAManager({4: SLATarget(4, 50)})
    assert sla.check_all_stages(metrics(task(4, "unit", 0, 30, batch=1), task(4, "unit", 300, 330, batch=2)))
    assert not sla.check_all_stages(metrics(task(4, "unit", 0, 60, batch=1), task(4, "unit", 300, 360, batch=2)))
    assert len(sla.warnings) == 2


def test_stage_that_grows_from_snapshot_to_snapshot_is_warned_of_once_and_broken_once() -> None:
    sla = ParallelizationSLAManager({4: SLATarget(4, 50)})
    late, early = task(4, "unit", 5, 47, batch=3), task(4, "unit", 0, 60, batch=3)
    assert sla.check_all_stages(metrics(late))
    assert not sla.check_all_stages(metrics(early, late))
    assert not sla.check_all_stages(metrics(early, late))
    assert [text.partition(": ")[2] for text in sla.warnings] == [
        "past 80% of its limit of 50 s",
        "over its limit of 50 s",
    ]


def test_executions_of_two_pools_are_separate() -> None:
    sla = ParallelizationSLAManager({2: SLATarget(2, 0.01)})
    for _ in range(2):
        with AdaptiveWorkerPool(ParallelizationStrategy.SEQUENTIAL) as pool:
            pool.submit_stage(2, "work", sum, range(2_000_000))
            pool.wait_all()
        assert not sla.check_all_stages(pool.metrics)
    assert len(sla.warnings) == 2


def test_changed_limit_keeps_its_warning_threshold() -> None:
    sla = ParallelizationSLAManager({2: SLATarget(2, 10, warning_threshold=0.5)})
    sla.update_sla(2, 40, critical=True)
    sla.update_sla(9, 5)
    assert sla.slas[2] == SLATarget(2, 40, critical=True, warning_threshold=0.5)
    assert sla.slas[9] == SLATarget(9, 5)


def test_limit_as_paropt_yml_writes_it_is_refused() -> None:
    with pytest.raises(TypeError, match="max_duration_seconds is '30s': expected a number of seconds"):
        SLATarget(2, max_duration_seconds="30s")  # type: ignore[arg-type]


def test_list_of_targets_is_refused_with_the_form() -> None:
    with pytest.raises(TypeError, match=r"slas is a list: expected a mapping such as \{2: SLATarget\(2\)\}"):
        ParallelizationSLAManager([SLATarget(2, 30)])  # type: ignore[arg-type]


def test_seconds_in_place_of_a_target_are_refused() -> None:
    """The guide's configurations of lanes have seconds by stage. The first check failed with an AttributeError."""
    with pytest.raises(TypeError, match=r"slas\[2\] is 30: expected a target such as SLATarget\(2, 30\)"):
        ParallelizationSLAManager({2: 30})  # type: ignore[dict-item]
