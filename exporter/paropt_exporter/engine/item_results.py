"""Tell what became of each item of a batch: by the runner's JUnit report, or without one by the batch's end."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter.engine.outcome import Outcome
from paropt_exporter.records import ItemRecord, Result

if TYPE_CHECKING:
    from xml.etree import ElementTree

log = logging.getLogger(__name__)

_FAILED, _NO_TESTS = 1, 5  # of pytest's exit codes: tests failed; nothing was collected
_SHOWN_ITEMS = 3
_BAD = ("failure", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """One item as a report has it: the seconds of its test cases, and how many of them failed."""

    seconds: float = 0.0
    failed: int = 0


def of_batch(outcome: Outcome, items: Sequence[str], report: Path | None, *, alone: bool) -> Outcome:
    """Return the outcome with its items. `alone`: the stage has no other batch.

    The report (None: none was asked for) is read and removed. Without one, the items share the batch's result and, in
    equal parts, its duration; a failed batch then says nothing of how long an item takes.
    """
    reported = _taken(report, items) if report is not None else None
    if reported is not None and outcome.exit_code == _NO_TESTS and not alone:
        # A file whose tests are all skipped at its import would be no failure of the whole suite, so it is none here.
        outcome = replace(outcome, result=Result.SUCCESS, message="")
    measured = outcome.measurement
    duration = measured.ended_seconds - measured.started_seconds if measured else 0.0
    if reported is None or not _tells_all(outcome, reported):
        seconds = duration / len(items) if outcome.result is Result.SUCCESS else None
        return replace(
            outcome, items=tuple(ItemRecord(item=each, result=outcome.result, seconds=seconds) for each in items)
        )
    found = tuple(
        ItemRecord(
            item=item,
            result=Result.FAILURE if reported[item].failed else Result.SUCCESS,
            seconds=reported[item].seconds,
        )
        for item in items
    )
    start_up = max(0.0, duration - sum(each.seconds for each in reported.values()))
    return replace(outcome, items=found, start_up_seconds=start_up, message=_message(outcome, found))


def read(report: Path, items: Sequence[str]) -> Mapping[str, Reported] | None:
    """Return what a JUnit report says of each item: a path, or a test's id; None where it can't be read.

    Test cases are matched by their dotted names: `tests/test_a.py` is `tests.test_a`, and `pkg.tests.test_a` where the
    runner counts from a folder further up. Cases that belong to no item are left out.
    """
    from xml.etree import ElementTree  # here: most lanes read no report

    by_name = {_dotted(item): item for item in items}
    found = dict.fromkeys(items, Reported())
    cases = matched = 0
    try:
        for _, case in ElementTree.iterparse(report):  # nosec B314 # written by the command that we started
            if case.tag != "testcase":
                continue
            cases += 1
            failed = any(child.tag in _BAD for child in case)
            item = _item_of(case, by_name)
            if item is not None:
                matched += 1
                before, seconds = found[item], _number(case.get("time"))
                found[item] = Reported(seconds=before.seconds + seconds, failed=before.failed + failed)
            elif failed:
                return None  # it belongs to an item, and nothing tells to which
            case.clear()
    except (OSError, ElementTree.ParseError) as error:
        log.debug("a test report can't be read", extra={"path": str(report), "err": str(error)})
        return None
    return found if matched or not cases else None


def _taken(report: Path, items: Sequence[str]) -> Mapping[str, Reported] | None:
    try:
        return read(report, items)
    finally:
        report.unlink(missing_ok=True)


def _tells_all(outcome: Outcome, reported: Mapping[str, Reported]) -> bool:
    """Whether the report accounts for the batch's end: one that was cut off has no word about what did not run."""
    if outcome.result is Result.SUCCESS:
        return True
    return outcome.exit_code == _FAILED and any(each.failed for each in reported.values())


def _message(outcome: Outcome, items: Sequence[ItemRecord]) -> str:
    bad = [each.item for each in items if each.result.bad]
    if not bad or len(items) == 1:
        return outcome.message
    more = f" and {len(bad) - _SHOWN_ITEMS} more" if len(bad) > _SHOWN_ITEMS else ""
    return f"{', '.join(bad[:_SHOWN_ITEMS])}{more}: {outcome.message}"


def _item_of(case: ElementTree.Element, by_name: Mapping[str, str]) -> str | None:
    """Return the item that a test case belongs to: the longest dotted beginning of its name that is an item's."""
    name = f"{case.get('classname', '')}.{case.get('name', '').partition('[')[0]}".strip(".")
    for end in _ends(name):
        for beginning in _beginnings(end):
            if beginning in by_name:
                return by_name[beginning]
    return None


def _ends(name: str) -> Iterator[str]:
    """Yield a dotted name, then without its first parts: the runner may count from a folder further up."""
    while name:
        yield name
        name = name.partition(".")[2]


def _beginnings(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _dotted(item: str) -> str:
    path, *inner = item.split("::")
    path = path.removeprefix("./").removesuffix("/").removesuffix(".py")
    return ".".join([path.replace("/", "."), *(part.partition("[")[0] for part in inner)])


def _number(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0.0))
    except ValueError:
        return 0.0
