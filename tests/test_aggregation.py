"""How events change totals and last values."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter import aggregation, families
from paropt_exporter.events import Bottleneck, Event, Result, Scope, Severity
from paropt_exporter.families import Family, Kind
from support.event_samples import (
    CRITICAL,
    LIMIT,
    limit_reached,
    run_ended,
    run_started,
    stage_ended,
    stage_started,
    task,
)

LINT = ("standard", "lint")


def added(event: Event) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(each.family.name, each.labels): each.amount for each in aggregation.iter_increments(event)}


def left(event: Event) -> dict[tuple[str, tuple[str, ...]], float]:
    return {(each.family.name, each.labels): each.value for each in aggregation.iter_gauge_values(event)}


def test_attempt_counts_with_duration_wait_and_cpu_time() -> None:
    assert added(task(result=Result.FAILURE, seconds=2.0, waited=0.25, cpu=1.5)) == {
        (families.TASK_ATTEMPTS.name, (*LINT, "failure")): 1.0,
        (families.TASK_DURATION.name, LINT): 2.0,
        (families.TASK_QUEUE_WAIT.name, LINT): 0.25,
        (families.STAGE_CPU.name, LINT): 1.5,
    }


def test_finished_stage_with_a_limit_is_one_run_duration_and_check() -> None:
    assert added(stage_ended(seconds=3.0)) == {
        (families.STAGE_RUNS.name, (*LINT, "success")): 1.0,
        (families.STAGE_DURATION.name, LINT): 3.0,
        (families.SLA_CHECKS.name, LINT): 1.0,
    }


def test_skipped_stage_counts_only_as_a_skip() -> None:
    assert added(stage_ended(result=Result.SKIP)) == {(families.STAGE_RUNS.name, (*LINT, "skip")): 1.0}


def test_cancelled_stage_is_no_check_unless_it_broke_its_limit() -> None:
    cancelled = added(stage_ended(result=Result.CANCELLATION))
    stopped_by_its_limit = added(stage_ended(result=Result.CANCELLATION, sla=CRITICAL, broken=True))
    assert (families.SLA_CHECKS.name, LINT) not in cancelled
    assert (families.SLA_CHECKS.name, LINT) in stopped_by_its_limit


def test_stage_without_a_limit_is_never_checked() -> None:
    assert (families.SLA_CHECKS.name, LINT) not in added(stage_ended(sla=None))


@pytest.mark.parametrize(
    ("stage", "broken", "expected"),
    [
        ("lint", False, (families.SLA_WARNINGS.name, LINT)),
        ("lint", True, (families.SLA_VIOLATIONS.name, (*LINT, "critical"))),
        (None, False, (families.LANE_SLA_WARNINGS.name, ("standard",))),
        (None, True, (families.LANE_SLA_VIOLATIONS.name, ("standard", "critical"))),
    ],
)
def test_each_reached_limit_counts_once(stage: str | None, broken: bool, expected: tuple[str, tuple[str, ...]]) -> None:
    assert added(limit_reached(stage, broken=broken, limit=CRITICAL)) == {expected: 1.0}


def test_run_counts_with_duration_and_check() -> None:
    assert added(run_ended(result=Result.FAILURE, seconds=9.0)) == {
        (families.RUNS.name, ("standard", "failure")): 1.0,
        (families.RUN_DURATION.name, ("standard",)): 9.0,
        (families.RUN_TASKS.name, ("standard",)): 0.0,
        (families.LANE_SLA_CHECKS.name, ("standard",)): 1.0,
    }


_PARTS = ({"partial": True}, {"failed_only": True})


def test_tasks_of_a_run_count_where_its_duration_does() -> None:
    """Of a run of a part of the lane, of failed stages, with a cached task, or that was interrupted, neither counts.

    Their ratio is the lane's throughput.
    """
    whole = run_ended(stages=(replace(stage_ended(), first_attempts=3), replace(stage_ended("unit"), first_attempts=4)))
    cached = replace(whole, stages=(*whole.stages, replace(stage_ended("docs"), tasks_cached=1)))
    narrowed = replace(whole, stages=(replace(stage_ended(), scope=Scope.CACHED),))  # items of its one batch
    assert added(whole)[families.RUN_TASKS.name, ("standard",)] == 7
    for run in (
        cached,
        narrowed,
        *(replace(whole, **part) for part in _PARTS),
        replace(whole, result=Result.CANCELLATION),
    ):
        assert {families.RUN_TASKS.name, families.RUN_DURATION.name}.isdisjoint(name for name, _ in added(run))


@pytest.mark.parametrize("event", [run_started(), stage_started()])
def test_start_events_change_no_totals_and_no_last_values(event: Event) -> None:
    assert (added(event), left(event)) == ({}, {})


def test_stage_has_exactly_one_last_result() -> None:
    last = left(stage_ended(result=Result.TIMEOUT))
    ones = [labels for (name, labels), value in last.items() if name == families.STAGE_LAST_RESULT.name and value]
    assert ones == [(*LINT, "timeout")]
    assert sum(name == families.STAGE_LAST_RESULT.name for name, _ in last) == len(families.RESULTS)


@pytest.mark.parametrize("result", Result)
def test_stage_is_failing_until_it_succeeds_whatever_stops_it_meanwhile(result: Result) -> None:
    """Otherwise Ctrl-C in the next run, or a needed stage that fails there, would resolve the alert."""
    failing = {Result.SUCCESS: 0.0, Result.CANCELLATION: None, Result.SKIP: None}.get(result, 1.0)
    assert left(stage_ended(result=result)).get((families.STAGE_FAILING.name, LINT)) == failing


def test_broken_limit_shows_at_once_until_the_next_good_run() -> None:
    key = (families.SLA_BREACHED.name, (*LINT, "normal"))
    assert left(limit_reached(broken=True))[key] == 1.0
    assert left(stage_ended(broken=True))[key] == 1.0
    assert left(stage_ended())[key] == 0.0


def test_stopped_stage_or_lane_neither_keeps_its_limit_nor_has_a_duration() -> None:
    """Otherwise Ctrl-C after a second would resolve the alert about a limit that the run before had broken."""
    stopped = stage_ended(result=Result.CANCELLATION)
    assert {name for name, _ in left(stopped)} == {families.STAGE_LAST_RESULT.name}
    assert (families.STAGE_DURATION.name, LINT) not in added(stopped)
    lane = replace(run_ended(result=Result.CANCELLATION), stages=(stopped,))
    assert {name for name, _ in left(lane)} == {families.RUN_LAST_COMPLETION.name}


def test_stage_that_was_stopped_beyond_its_limit_has_broken_it() -> None:
    stopped = stage_ended(result=Result.CANCELLATION, sla=CRITICAL, broken=True)
    assert left(stopped)[families.SLA_BREACHED.name, (*LINT, "critical")] == 1.0
    assert (families.STAGE_LAST_DURATION.name, LINT) in left(stopped)
    assert (families.STAGE_DURATION.name, LINT) in added(stopped)


def test_limit_made_critical_clears_its_normal_breach() -> None:
    last = left(stage_ended(sla=CRITICAL, broken=True))
    assert last[families.SLA_BREACHED.name, (*LINT, "critical")] == 1.0
    assert last[families.SLA_BREACHED.name, (*LINT, "normal")] == 0.0


def test_warning_is_no_breach() -> None:
    assert left(limit_reached(broken=False)) == {}


def test_skipped_stage_keeps_values_of_its_last_run() -> None:
    assert {name for name, _ in left(stage_ended(result=Result.SKIP))} == {families.STAGE_LAST_RESULT.name}


@pytest.mark.parametrize("tasks", [1, 2])
def test_success_with_tasks_that_were_skipped_as_unchanged_breaks_no_limit(tasks: int) -> None:
    cached = replace(stage_ended(sla=None), scope=Scope.CACHED, tasks=tasks, tasks_cached=1)
    for severity in Severity:
        assert left(cached)[families.SLA_BREACHED.name, (*LINT, severity.value)] == 0.0
    failed = replace(cached, result=Result.FAILURE)
    assert families.SLA_BREACHED.name not in {name for name, _ in left(failed)}


def test_only_a_success_changes_the_last_success() -> None:
    failed = left(run_ended(result=Result.FAILURE))
    assert (families.RUN_LAST_SUCCESS.name, ("standard",)) not in failed
    assert (families.RUN_LAST_COMPLETION.name, ("standard",)) in failed
    assert (families.RUN_LAST_SUCCESS.name, ("standard",)) in left(run_ended())


def test_last_duration_comes_from_the_last_whole_run_with_or_without_cached_tasks() -> None:
    key = (families.RUN_LAST_DURATION.name, ("standard",))
    cached = replace(stage_ended(sla=None), scope=Scope.CACHED, tasks_cached=1)
    for run in (run_ended(), run_ended(result=Result.FAILURE), run_ended(stages=(cached,))):
        assert left(run)[key] == run.duration_seconds
    assert key not in left(run_ended(result=Result.CANCELLATION))
    for part in _PARTS:
        assert key not in left(replace(run_ended(), **part))


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.FAILURE])
def test_run_of_failed_stages_is_at_most_a_success_of_the_lane(result: Result) -> None:
    """Its short duration must not end the breach of a limit, which the whole lane has broken."""
    repeated = left(replace(run_ended(result=result), failed_only=True, total=None))
    times = {families.RUN_LAST_COMPLETION.name} | (
        {families.RUN_LAST_SUCCESS.name} if result is Result.SUCCESS else set()
    )
    assert {name for name, _ in repeated} == times


def test_found_bottlenecks_are_1_and_others_0() -> None:
    found = (
        Bottleneck(kind="slow", stage="lint", sentence="lint is slow"),
        Bottleneck(kind="uneven", stage=None, sentence="uneven"),
    )
    last = left(run_ended(stages=(stage_ended(), stage_ended("unit")), bottlenecks=found))
    ones = {labels for (name, labels), value in last.items() if value == 1.0 and "bottleneck" in name}
    assert ones == {(*LINT, "slow"), ("standard", "uneven")}
    assert last[families.BOTTLENECK.name, ("standard", "unit", "slow")] == 0.0


def test_every_label_value_is_in_its_closed_set() -> None:
    events: list[Event] = [
        *(task(result=result) for result in Result if result is not Result.SKIP),
        *(stage_ended(result=result, broken=True) for result in Result),
        *(limit_reached(stage, broken=broken, limit=limit) for stage in ("lint", None) for broken in (True, False)
          for limit in (LIMIT, CRITICAL)),
        run_ended(stages=(stage_ended(),)),
    ]  # fmt: skip
    changes: list[aggregation.Increment | aggregation.GaugeValue] = []
    for event in events:
        changes += [*aggregation.iter_increments(event), *aggregation.iter_gauge_values(event)]
    for change in changes:
        values = dict(zip(change.family.labels, change.labels, strict=True))
        for label, allowed in families.CLOSED_VALUES.get(change.family, {}).items():
            assert values[label] in allowed


def test_families_that_resume_are_those_that_events_add_to() -> None:
    """`resumes` is a fact for the reference: the history keeps each total that an event has changed."""
    names = set(re.findall(r"\bfamilies\.([A-Z_]+)\b", Path(aggregation.__file__).read_text()))
    used = {family for name in names if isinstance(family := getattr(families, name), Family)}
    added_to = {family.name for family in used if family.kind is not Kind.GAUGE}
    assert added_to == {family.name for family in families.FAMILIES if family.resumes}
