"""Items in quarantine: their failures are shown and do not fail the stage."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.events import Result, StageRecord, TaskRecord
from paropt_exporter.plan import OpenFailures, PlannedStage
from paropt_exporter.testing import Script
from support.lanes import Bench, plan, stage

_FAILS = Script(result=Result.FAILURE, message="exit 1")
_QUARANTINE = {"b": "anna, until 2026-12-24"}


def with_items(name: str, *items: str, **fields: Any) -> PlannedStage:
    planned = stage(name, tasks=len(items), **fields)
    return replace(planned, tasks=tuple(replace(task, item=items[task.index]) for task in planned.tasks))


def run(*scripts: Script, **fields: Any) -> tuple[StageRecord, list[TaskRecord]]:
    bench = Bench(plan(with_items("a", "a", "b", quarantine=_QUARANTINE, **fields), workers=1), {"a": [*scripts]})
    (record,) = bench.run().stages
    return record, bench.recorder.of(TaskRecord)


def test_failure_in_quarantine_is_shown_and_does_not_fail_the_stage() -> None:
    record, tasks = run(Script(), _FAILS)
    assert (record.result, record.message, record.tasks_failed) == (Result.SUCCESS, "", 0)
    assert record.quarantined == ("b (anna, until 2026-12-24)",)
    assert [task.result for task in tasks] == [Result.SUCCESS, Result.FAILURE]


def test_timeout_in_quarantine_does_not_fail_the_stage() -> None:
    record, _ = run(Script(), Script(result=Result.TIMEOUT))
    assert record.result is Result.SUCCESS and record.quarantined


def test_program_that_is_missing_fails_the_stage_in_quarantine_too() -> None:
    record, _ = run(Script(), Script(result=Result.ERROR, message="not found"))
    assert (record.result, record.quarantined) == (Result.ERROR, ())


def test_failure_of_another_item_fails_the_stage() -> None:
    record, _ = run(_FAILS, _FAILS)
    assert (record.result, record.tasks_failed, len(record.quarantined)) == (Result.FAILURE, 1, 1)
    assert record.message.startswith("a: exit 1")


def test_success_in_quarantine_is_not_mentioned() -> None:
    record, _ = run(Script(), Script())
    assert (record.result, record.quarantined) == (Result.SUCCESS, ())


def test_retries_come_first() -> None:
    record, _ = run(Script(), _FAILS, Script(), retries=1)
    assert (record.result, record.quarantined, record.flaky_attempts) == (Result.SUCCESS, (), 1)


def test_success_with_a_failure_in_quarantine_proves_no_earlier_failure_flaky() -> None:
    record, _ = run(Script(), _FAILS, open_failures=OpenFailures(attempts=1, items=frozenset({"b"})))
    assert (record.result, record.flaky_attempts) == (Result.SUCCESS, 0)


@pytest.mark.parametrize(("held", "result"), [(True, Result.SUCCESS), (False, Result.FAILURE)])
def test_fail_fast_ignores_failures_in_quarantine(held: bool, result: Result) -> None:
    first = with_items("a", "b", quarantine=_QUARANTINE if held else {})
    bench = Bench(plan(first, stage("c"), workers=1, fail_fast=True), {"a": [_FAILS], "c": [Script(seconds=1)]})
    assert bench.run().stages[0].result is result
