"""JUnit XML, as Maven's Surefire writes it: a suite for each stage, a case for each item, retries as flaky or rerun.

The schema is surefire-test-report 3.0, with the suites in a `testsuites` element, which Jenkins, GitLab and most others
accept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from xml.etree import ElementTree  # nosec B405 # writes only

from msgspec import Struct

from paropt_exporter.errors import format_count
from paropt_exporter.events import Result, format_lane
from paropt_exporter.findings import Finding
from paropt_exporter.reports.model import Attempt, FinishedRun, ReportedStage, ReportedTask
from paropt_exporter.terminal import visible

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 allows no other characters
# The children of a case in the order of the schema.
_ORDER = ("failure", "rerunFailure", "flakyFailure", "skipped", "error", "rerunError", "flakyError")
_SKIPPED = (Result.CANCELLATION, Result.SKIP)


class _Try(Struct, frozen=True, kw_only=True):
    """The result of one case in one attempt."""

    result: Result
    seconds: float
    message: str
    text: str


class _Case(Struct, frozen=True):
    name: str
    tries: tuple[_Try, ...]

    @property
    def last(self) -> _Try:
        return self.tries[-1]


def render(run: FinishedRun) -> bytes:
    """Return the report of a run."""
    shard = run.record.shard
    name = format_lane(run.record.lane, shard)
    root = ElementTree.Element("testsuites", name=_escape_text(name), time=_format_seconds(run.record.duration_seconds))
    suites = [_make_stage_suite(stage) for stage in run.stages]
    if run.own_fault:  # otherwise a reader that only counts failures would take the run for a success
        suites.append(_make_lane_suite(run))
    for suite in suites:
        if shard is not None:
            suite.insert(0, _make_properties({"paropt.shard": str(shard), "paropt.split": shard.split}))
        root.append(suite)
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ElementTree.indent(root)
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _make_properties(values: Mapping[str, str]) -> ElementTree.Element:
    properties = ElementTree.Element("properties")
    for name, value in values.items():
        ElementTree.SubElement(properties, "property", name=name, value=value)
    return properties


def _make_stage_suite(stage: ReportedStage) -> ElementTree.Element:
    record = stage.record
    return _make_suite(
        record.stage, list(_iter_cases(stage)), record.duration_seconds, record.started_timestamp_seconds
    )


def _make_lane_suite(run: FinishedRun) -> ElementTree.Element:
    """Return a suite with one case for the fault of the lane itself."""
    record = run.record
    fault = _Try(result=record.result, seconds=record.duration_seconds, message=run.own_fault, text="")
    cases = [_Case(record.lane, (fault,))]
    return _make_suite(record.lane, cases, record.duration_seconds, record.started_timestamp_seconds)


def _make_suite(
    name: str, cases: Sequence[_Case], seconds: float, started_timestamp_seconds: float | None
) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=_escape_text(name), time=_format_seconds(seconds))
    if started_timestamp_seconds is not None:
        began = datetime.fromtimestamp(started_timestamp_seconds, UTC)
        suite.set("timestamp", began.strftime("%Y-%m-%dT%H:%M:%S"))
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(sum(case.last.result is Result.FAILURE for case in cases)))
    suite.set("errors", str(sum(case.last.result in (Result.ERROR, Result.TIMEOUT) for case in cases)))
    suite.set("skipped", str(sum(case.last.result in _SKIPPED for case in cases)))
    for case in cases:
        suite.append(_make_case(name, case))
    return suite


def _iter_cases(stage: ReportedStage) -> Iterator[_Case]:
    """Yield the cases of a stage: those of its tasks, and one for tasks that did not run or for its own failure."""
    cases = [case for task in stage.tasks for case in _iter_task_cases(task)]
    yield from cases
    record = stage.record
    missing = record.tasks - len(stage.tasks)
    # such as a stage whose batches all had no test
    no_case_failed = record.result.bad and not any(case.last.result.bad for case in cases)
    if no_case_failed or not stage.tasks:
        last = _Try(result=record.result, seconds=0.0, message=record.message, text="")
        yield _Case(record.stage, (last,))
    elif missing > 0:
        name = f"{format_count(missing, 'task')} not run"
        yield _Case(name, (_Try(result=Result.CANCELLATION, seconds=0.0, message=record.message, text=""),))


def _iter_task_cases(task: ReportedTask) -> Iterator[_Case]:
    if not task.last.record.items:
        yield _Case(task.label, tuple(_make_try(attempt) for attempt in task.attempts))
        return
    tries: dict[str, list[_Try]] = {}
    for attempt in task.attempts:
        for item in attempt.record.items:
            seconds = (item.seconds or 0.0) + sum(took for _, took in item.long_tests)
            tries.setdefault(item.item, []).append(_make_item_try(attempt, item.item, item.result, seconds))
    for name, its_tries in tries.items():
        yield _Case(name, tuple(its_tries))
    for name in task.unchanged:
        yield _Case(name, (_Try(result=Result.SUCCESS, seconds=0.0, message="", text=""),))


def _make_try(attempt: Attempt) -> _Try:
    record = attempt.record
    return _Try(
        result=record.result,
        seconds=record.duration_seconds,
        message=record.message,
        text=_format_details(attempt.findings, attempt.output),
    )


def _make_item_try(attempt: Attempt, item: str, result: Result, seconds: float) -> _Try:
    """Return the result of one item of an attempt's batch."""
    if not result.bad:
        why = attempt.record.message if result is Result.CANCELLATION else ""
        return _Try(result=result, seconds=seconds, message=why, text="")
    own = tuple(found for found in attempt.findings if item in (found.path, (found.test or "").partition("::")[0]))
    message = own[0].message if own else attempt.record.message
    return _Try(
        result=result, seconds=seconds, message=message, text=_format_details(own or attempt.findings, attempt.output)
    )


def _format_details(findings: tuple[Finding, ...], output: str) -> str:
    found = "\n".join(finding.text for finding in findings)
    return f"{found}\n\n{output}" if found else output


def _make_case(stage: str, case: _Case) -> ElementTree.Element:
    element = ElementTree.Element(
        "testcase", name=_escape_text(case.name), classname=_escape_text(stage), time=_format_seconds(case.last.seconds)
    )
    last, earlier = case.last, [tried for tried in case.tries[:-1] if tried.result.bad]
    if last.result in _SKIPPED:
        ElementTree.SubElement(element, "skipped", message=_escape_text(last.message))
    elif last.result.bad:
        _add_fault(element, "failure" if last.result is Result.FAILURE else "error", last)
    kind = "flaky" if last.result is Result.SUCCESS else "rerun"
    for tried in earlier:
        _add_earlier(element, kind + ("Failure" if tried.result is Result.FAILURE else "Error"), tried)
    element[:] = sorted(element, key=lambda child: _ORDER.index(child.tag))
    return element


def _add_fault(element: ElementTree.Element, tag: str, tried: _Try) -> None:
    fault = ElementTree.SubElement(element, tag, message=_escape_text(tried.message), type=tried.result.value)
    fault.text = _escape_text(tried.text)


def _add_earlier(element: ElementTree.Element, tag: str, tried: _Try) -> None:
    """Add an attempt that failed before the last one."""
    child = ElementTree.SubElement(element, tag, message=_escape_text(tried.message), type=tried.result.value)
    ElementTree.SubElement(child, "stackTrace").text = _escape_text(tried.text)


def _format_seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


def _escape_text(text: str) -> str:
    """Return the text without characters that XML can't contain or that control a terminal."""
    return _NO_XML.sub("\ufffd", visible(text))
