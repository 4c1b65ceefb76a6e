"""The JUnit report, as junitparser reads it, and after the schema of Surefire 3.0."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from junitparser import xunit2
from msgspec.structs import replace

from paropt_exporter.events import ItemRecord, Result, Shard
from paropt_exporter.reports import junit
from paropt_exporter.reports.model import FinishedRun
from support.finished_runs import LIMIT, attempt, finished, stage, stopped_at_critical_total


@cache
def load_schema() -> Any:
    import xmlschema  # here: the import and the schema take half a second, in each worker that collects this file

    return xmlschema.XMLSchema(Path(__file__).with_name("surefire-3.0.xsd"))


def read(run: FinishedRun) -> Any:  # junitparser's types are those of its base classes
    """What a consumer reads, after each suite was held against the schema."""
    text = junit.render(run)
    for suite in ElementTree.fromstring(text):
        load_schema().validate(suite)
    return xunit2.JUnitXml.fromstring(text)


def only_case(run: FinishedRun) -> Any:
    (suite,) = read(run)
    (case,) = suite
    return case


def test_each_stage_is_a_suite_and_each_item_a_case() -> None:
    report = read(
        finished(
            stage("lint", 1, attempt("lint")),
            stage("unit", 2, attempt("unit", item="test_a.py"), attempt("unit", task=1, item="test_b.py")),
        )
    )
    assert [(suite.name, [(case.classname, case.name, case.time) for case in suite]) for suite in report] == [
        ("lint", [("lint", "lint", 2.0)]),
        ("unit", [("unit", "test_a.py", 2.0), ("unit", "test_b.py", 2.0)]),
    ]
    assert (report.tests, report.failures, report.errors, report.time) == (3, 0, 0, 8.0)
    assert [suite.time for suite in report] == [2.0, 2.0]


def test_a_failure_has_its_message_its_findings_and_its_output() -> None:
    output = "a.py:3:1: F401 `os` imported but unused\nFound 1 error.\n"
    case = only_case(
        finished(stage("lint", 1, attempt("lint", result=Result.FAILURE, message="exit 1", output=output)))
    )
    (failure,) = case.result
    assert (failure.message, failure.type) == ("exit 1", "failure")
    assert failure.text == f"a.py:3:1: `os` imported but unused [F401]\n\n{output}"


@pytest.mark.parametrize("result", [Result.ERROR, Result.TIMEOUT])
def test_what_could_not_run_or_took_too_long_is_an_error(result: Result) -> None:
    report = read(finished(stage("lint", 1, attempt("lint", result=result, message="timed out after 3 s"))))
    assert (report.errors, report.failures) == (1, 0)


def test_a_retry_that_succeeds_is_flaky() -> None:
    tried = attempt("unit", result=Result.FAILURE, message="exit 1", output="boom\n")
    timed_out = attempt("unit", number=2, result=Result.TIMEOUT, message="timed out")
    case = only_case(finished(stage("unit", 1, tried, timed_out, attempt("unit", number=3))))
    assert case.is_passed
    (failure,), (error,) = case.iterchildren(xunit2.FlakyFailure), case.iterchildren(xunit2.FlakyError)
    assert (failure.message, failure.stack_trace) == ("exit 1", "boom\n")
    assert error.message == "timed out"


def test_retries_that_all_fail_are_reruns_of_one_failure() -> None:
    tries = [attempt("unit", number=n, result=Result.FAILURE, message=f"exit {n}") for n in (1, 2, 3)]
    run = finished(stage("unit", 1, *tries))
    assert read(run).failures == 1
    case = only_case(run)
    assert [failure.message for failure in case.result] == ["exit 3"]
    assert [rerun.message for rerun in case.iterchildren(xunit2.RerunFailure)] == ["exit 1", "exit 2"]


def test_items_of_a_batch_are_cases_of_their_own_and_only_the_failed_one_is_retried() -> None:
    output = (
        "=== FAILURES ===\n___ test_sum ___\nE       assert 1 == 2\n\nhelpers.py:7: AssertionError\n"
        "=== short test summary info ===\nFAILED b.py::test_sum - assert 1 == 2\n"
    )
    first = attempt(
        "unit",
        item="2 files",
        result=Result.FAILURE,
        message="b.py failed",
        output=output,
        items=(
            ItemRecord(item="a.py", result=Result.SUCCESS, seconds=0.5),
            ItemRecord(item="b.py", result=Result.FAILURE, seconds=1.5),
        ),
    )
    second = attempt(
        "unit", item="b.py", number=2, items=(ItemRecord(item="b.py", result=Result.SUCCESS, seconds=1.25),)
    )
    (suite,) = read(finished(stage("unit", 1, first, second)))
    cases = {case.name: case for case in suite}
    assert {name: case.time for name, case in cases.items()} == {"a.py": 0.5, "b.py": 1.25}
    (flaky,) = cases["b.py"].iterchildren(xunit2.FlakyFailure)
    assert flaky.message == "assert 1 == 2"
    assert list(cases["a.py"].iterchildren(xunit2.FlakyFailure)) == []


def test_a_stage_that_failed_without_a_failed_task_has_a_case_for_it() -> None:
    """pytest found no test in any batch."""
    empty = attempt("unit", exit_code=5, items=(ItemRecord(item="a.py", result=Result.SUCCESS, seconds=0.5),))
    why = "none of its 2 batches had a test"
    (suite,) = read(finished(stage("unit", 1, empty, result=Result.FAILURE, message=why)))
    assert (suite.tests, suite.failures) == (2, 1)
    assert [(case.name, [fault.message for fault in case.result]) for case in suite] == [("a.py", []), ("unit", [why])]


def test_skipped_stages_and_tasks_that_never_ran_are_skipped_cases() -> None:
    skipped = stage("deploy", 2, result=Result.SKIP, message="needs unit")
    stopped = stage(
        "unit",
        1,
        attempt("unit", item="a"),
        tasks=3,
        result=Result.CANCELLATION,
        message="stopped with 2 tasks not run",
    )
    report = read(finished(stopped, skipped, result=Result.CANCELLATION))
    assert [[(case.name, case.is_skipped) for case in suite] for suite in report] == [
        [("a", False), ("2 tasks not run", True)],
        [("deploy", True)],
    ]
    assert sum(suite.skipped for suite in report) == 2


def test_a_stage_that_could_not_be_planned_is_an_error_of_its_own() -> None:
    case = only_case(finished(stage("unit", 1, result=Result.ERROR, message="no items: the glob matches nothing")))
    assert [error.message for error in case.result] == ["no items: the glob matches nothing"]


@given(st.text(), st.text(max_size=50))
def test_any_text_is_written_and_read_back(output: str, item: str) -> None:
    run = finished(stage("unit", 1, attempt("unit", item=item, result=Result.FAILURE, message=output, output=output)))
    (suite,) = read(run)
    assert len(list(suite)) == 1


def test_lane_that_reached_its_critical_total_has_a_failure_although_no_stage_has() -> None:
    """Otherwise Jenkins and GitLab would show a run that ended with exit code 4 as one with skipped tests."""
    stages, lane = read(stopped_at_critical_total())
    assert (stages.skipped, stages.failures) == (1, 0)
    (case,) = lane
    (fault,) = case.result
    assert (lane.name, case.classname, case.name, lane.failures) == ("standard", "standard", "standard", 1)
    assert fault.message == "standard broke its critical total of 8 s"


def test_failed_stage_does_not_hide_that_the_lane_reached_its_critical_total() -> None:
    why = "standard broke its critical total of 3 s"
    run = finished(stage("lint", 1, attempt("lint", result=Result.FAILURE, message="exit 1")), reason=why)
    run = replace(run, record=replace(run.record, total=LIMIT, broken=True, critical_sla=True))
    assert [(suite.name, suite.failures) for suite in read(run)] == [("lint", 1), ("standard", 1)]


def test_lane_has_no_failure_of_its_own_if_one_of_its_stages_failed() -> None:
    failed = stage("lint", 1, attempt("lint", result=Result.FAILURE, message="exit 1"))
    report = read(finished(failed, stage("unit", 2, attempt("unit")), reason="lint failed"))
    assert [suite.name for suite in report] == ["lint", "unit"]


def test_suite_of_a_failed_lane_names_the_shard_like_the_others() -> None:
    run = stopped_at_critical_total()
    shard = Shard(index=2, count=3, split="abc")
    root = ElementTree.fromstring(junit.render(replace(run, record=replace(run.record, shard=shard))))
    named = [[each.attrib for each in suite.iter("property")] for suite in root]
    expected = [{"name": "paropt.shard", "value": "2/3"}, {"name": "paropt.split", "value": "abc"}]
    assert named == [expected, expected]
