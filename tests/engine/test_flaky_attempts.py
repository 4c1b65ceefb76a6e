"""Flaky attempts in a run, and retries of stages that are known to be flaky."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.events import Result, Scope, StageRecord
from paropt_exporter.plan import Flakiness, OpenFailures, PlannedStage
from paropt_exporter.testing import Script
from support.lanes import Bench, plan, stage

_FAILS = Script(result=Result.FAILURE, message="exit 1")
_KNOWN = Flakiness(first_attempts=100, flaky_attempts=1)


def ended(planned: PlannedStage, *scripts: Script) -> StageRecord:
    bench = Bench(plan(planned), {planned.name: [*(scripts or (Script(),))]})
    (record,) = bench.run().stages
    return record


def counts(record: StageRecord) -> tuple[int, int]:
    return record.first_attempts, record.flaky_attempts


def test_failure_that_passes_when_retried_is_flaky() -> None:
    assert counts(ended(stage("a", retries=2), _FAILS, Script())) == (1, 1)


def test_failure_that_stays_and_plain_success_are_not_flaky() -> None:
    assert counts(ended(stage("a", retries=1), _FAILS)) == (1, 0)
    assert counts(ended(stage("a", retries=1), Script())) == (1, 0)


def test_stopped_attempt_is_no_sample() -> None:
    bench = Bench(plan(stage("a")), {"a": [Script(seconds=10)]})
    bench.inbox.at(2.0, lambda: bench.engine.interrupt("interrupted by SIGINT", now=False))
    (record,) = bench.run().stages
    assert counts(record) == (0, 0)


def test_attempt_that_could_not_start_is_no_sample() -> None:
    """A program that is installed meanwhile, or a limit of open files, says nothing about the stage."""
    not_found = Script(result=Result.ERROR, message="cannot run 'ruff': not found on PATH")
    assert counts(ended(stage("a", retries=1), not_found, Script())) == (0, 0)


def test_success_proves_earlier_failures_with_the_same_files_flaky() -> None:
    opened = OpenFailures(attempts=2, items=frozenset({"test_a.py"}))
    record = ended(stage("a", open_failures=opened))
    assert (counts(record), record.flaky_items) == ((1, 2), ("test_a.py",))


def test_failure_and_success_with_other_arguments_prove_nothing() -> None:
    opened = OpenFailures(attempts=2)
    assert counts(ended(stage("a", open_failures=opened), _FAILS)) == (1, 0)
    assert counts(ended(stage("a", open_failures=opened, scope=Scope.ARGUMENTS))) == (1, 0)


@pytest.mark.parametrize(("failed", "proven"), [({"b"}, True), ({"b", "c"}, False), (set(), False)])
def test_part_of_a_stage_proves_only_failures_of_its_own_items_flaky(failed: set[str], proven: bool) -> None:
    """A shard without the failed item passes whatever that item does."""
    planned = stage("a", tasks=2, scope=Scope.ITEMS, open_failures=OpenFailures(attempts=1, items=frozenset(failed)))
    tasks = tuple(replace(task, item=item) for task, item in zip(planned.tasks, "ab", strict=True))
    record = ended(replace(planned, tasks=tasks))
    assert (counts(record), record.flaky_items) == ((2, int(proven)), ("b",) if proven else ())


def test_known_flaky_stage_is_retried() -> None:
    record = ended(stage("a", flaky_retries=2, flakiness=_KNOWN), _FAILS, _FAILS, Script())
    assert (record.result, record.attempts) == (Result.SUCCESS, 3)


@pytest.mark.parametrize(
    "fields", [{}, {"flakiness": Flakiness(first_attempts=100, flaky_attempts=0)}], ids=["never run", "never flaky"]
)
def test_stage_that_is_not_known_to_be_flaky_is_not_retried(fields: dict[str, Any]) -> None:
    record = ended(stage("a", flaky_retries=2, **fields), _FAILS, Script())
    assert (record.result, record.attempts) == (Result.FAILURE, 1)


@pytest.mark.parametrize(("flaky", "attempts"), [({"x", "y"}, 2), ({"y"}, 1), (set(), 1)])
def test_failed_item_is_retried_only_if_it_has_been_flaky_itself(flaky: set[str], attempts: int) -> None:
    planned = stage("a", flaky_retries=1, flakiness=replace(_KNOWN, items=frozenset(flaky)))
    record = ended(replace(planned, tasks=(replace(planned.tasks[0], item="x"),)), _FAILS, Script())
    assert record.attempts == attempts


def test_third_failed_stage_is_not_retried() -> None:
    stages = [stage(name, flaky_retries=1, flakiness=_KNOWN) for name in "abc"]
    scripts = {name: [Script(seconds=at, result=Result.FAILURE), Script()] for at, name in enumerate("abc", 1)}
    record = Bench(plan(*stages), scripts).run()
    assert {each.stage: each.attempts for each in record.stages} == {"a": 2, "b": 2, "c": 1}


def test_plain_retries_do_not_depend_on_what_is_known() -> None:
    record = ended(stage("a", retries=1, flaky_retries=3, flakiness=_KNOWN), _FAILS, _FAILS, _FAILS, Script())
    assert record.attempts == 4
