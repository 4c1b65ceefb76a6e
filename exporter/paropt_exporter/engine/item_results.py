"""Give each item of a batch its result and duration, from the runner's JUnit report or otherwise from the batch."""

from __future__ import annotations

import logging
import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.cpu_demand import CoreTime, compute_undelayed_seconds
from paropt_exporter.engine.outcome import Outcome
from paropt_exporter.errors import join_names
from paropt_exporter.events import ItemRecord, Measurement, Result

log = logging.getLogger(__name__)

_FAILED, _NO_TESTS = 1, 5  # pytest's exit codes for failed tests, and for no tests
_SHOWN_ITEMS = 3
_MOST_REPORT_BYTES = 64 << 20  # 300,000 test cases; parsing takes a second, in which the lane starts nothing
_LONGEST_TEST_SECONDS = 1e6
_LONGEST_NAME, _MOST_PARTS = 1000, 40  # of a test: a look-up takes time proportional to the square of its parts
_MOST_LOOKUPS = 10_000_000  # of parts of names: three seconds; 300,000 names of eight parts need 9.6 million
# pytest's message if it ended before all tests had run: "!!!!!!!! stopping after 1 failures !!!!!!!!".
_ENDED_EARLY = re.compile(r"^!+ \S.* !+\s*$", re.MULTILINE)
_LONG_SHARE, _LONG_SECONDS = 0.01, 0.05  # of a batch, which so has at most a hundred long tests
_BAD = ("failure", "error")
# A first or last case that takes that much longer than nine tenths of so many cases has fixtures of the session.
_SESSION_CASES, _SESSION_SECONDS, _SESSION_RATIO = 20, 1.0, 10.0


class ItemReport(Struct, kw_only=True):
    """An item in a report: the numbers of its test cases and of failed ones, and their seconds.

    `tests`: the seconds of a file's test functions by their ids; all parameters of a function count together.
    """

    cases: int = 0
    failed: int = 0
    seconds: float = 0.0
    tests: dict[str, float] = field(default_factory=dict)

    def add(self, test: str, *, failed: bool, seconds: float) -> None:
        """Add one test case. `test`: the id of its function, "" if that is uncertain."""
        self.cases += 1
        self.failed += failed
        self.seconds += seconds
        if test:
            self.tests[test] = self.tests.get(test, 0.0) + seconds


class Report(Struct, frozen=True, kw_only=True):
    """A runner's report of a batch.

    `seconds`: from the end of the runner's own start-up, its import, to its end, without the session's fixtures, which
    each command sets up.

    The time of a case includes an equal part of the time between cases: collecting and reporting a case takes a runner
    about a millisecond, many times as long as a brief case runs.
    """

    items: Mapping[str, ItemReport]
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether any test failed."""
        return any(each.failed for each in self.items.values())

    def long_tests(self, item: str) -> dict[str, float]:
        """Return the tests of a file that took a large part of the batch, with their seconds."""
        least = max(_LONG_SECONDS, _LONG_SHARE * self.seconds)
        took = self.items[item].tests
        # pytest deselects by prefix: an id that is a prefix of another one can't be deselected alone.
        prefixes = {name for name, after in pairwise(sorted(took)) if after.startswith(name)}
        return {name: seconds for name, seconds in took.items() if seconds >= least and name not in prefixes}


class UndelayedTime:
    """How long a batch would have run until a given time with a core to itself. Times are monotonic seconds.

    The samples of its command show when it waited for a core, since other work may have slowed down only some tests.
    Between two samples, or if there are none, the wait is spread evenly.
    """

    def __init__(self, measured: Measurement | None) -> None:
        self.ended_seconds = 0.0 if measured is None else measured.ended_seconds
        self.duration_seconds = 0.0 if measured is None else self.ended_seconds - measured.started_seconds
        self._times, self._undelayed = [self.ended_seconds - 1.0, self.ended_seconds], [0.0, 1.0]
        if measured is not None and self.duration_seconds > 0:
            total = CoreTime(measured.cpu_seconds, measured.run_delay_seconds)
            self._times, self._undelayed = [measured.started_seconds], [0.0]
            self._add_samples(measured.samples or [(measured.ended_seconds, total)])

    def get(self, at: float) -> float:
        """Return the seconds that it would have run until `at`; outside of its duration, by the overall ratio."""
        times, undelayed = self._times, self._undelayed
        if not times[0] <= at < times[-1]:
            return undelayed[-1] * (at - times[0]) / (times[-1] - times[0])
        after = bisect_right(times, at)
        start, end, before, then = times[after - 1], times[after], undelayed[after - 1], undelayed[after]
        return before + (then - before) * (at - start) / (end - start)

    def _add_samples(self, samples: Sequence[tuple[float, CoreTime]]) -> None:
        earlier = CoreTime()
        for number, (sampled, core_time) in enumerate(samples, 1):
            at = self._times[-1]
            until = self.ended_seconds if number == len(samples) else min(sampled, self.ended_seconds)
            if until > at:
                self._times.append(until)
                took = compute_undelayed_seconds(core_time.since(earlier), until - at)
                self._undelayed.append(self._undelayed[-1] + took)
                earlier = core_time


def add_item_results(outcome: Outcome, items: Sequence[str], path: Path | None, *, alone: bool) -> Outcome:
    """Return the outcome with its items. `alone`: the stage has no other batch.

    The report at `path` (None: there is none) is read and removed. Without a report, the items share the batch's result
    and, in equal parts, its duration; a failed batch then says nothing about the duration of an item.
    """
    undelayed = UndelayedTime(outcome.measurement)
    report = _take_report(path, items, undelayed) if path is not None else None
    if report is not None and outcome.exit_code == _NO_TESTS and not alone and not report.failed:
        # If all tests of a file are skipped at import, the whole suite would not fail, so its batch does not, either;
        # the stage fails if none of its batches had a test.
        outcome = replace(outcome, result=Result.SUCCESS, message="")
    ended, duration = undelayed.ended_seconds, undelayed.duration_seconds
    took = undelayed.get(ended) - undelayed.get(ended - duration)
    if report is None or not _is_complete(outcome, report):
        seconds = took / len(items) if outcome.result is Result.SUCCESS else None
        same = tuple(ItemRecord(item=item, result=outcome.result, seconds=seconds) for item in items)
        return replace(outcome, items=same)
    failed_batch = outcome.result is not Result.SUCCESS
    found = tuple(_build_record(item, report, failed_batch=failed_batch) for item in items)
    start_up = max(0.0, took - report.seconds)
    return replace(outcome, items=found, start_up_seconds=start_up, message=_build_message(outcome, found))


def read_report(path: Path, items: Sequence[str], undelayed: UndelayedTime | None = None) -> Report | None:
    """Read a JUnit report and sum it up by item (a path or a test's id); None if it is unreadable or unassignable.

    `undelayed`: the batch's; its command ended just after the report's last case. None: use the times unchanged.

    Test cases are matched by their dotted names: `tests/test_a.py` is `tests.test_a`, or `pkg.tests.test_a` if the
    runner counts from a folder further up, or `test_a` if it counts from one further down. Cases without an item are
    left out, unless one of them failed.
    """
    parser = _ReportParser(items)
    try:
        text = files.read_start(path, limit_bytes=_MOST_REPORT_BYTES + 1)
        if len(text) > _MOST_REPORT_BYTES:
            raise _UnusableReport("longer than a report may be")
        parser.parse(text)
    except (OSError, ValueError, LookupError, _UnusableReport) as error:
        log.debug("a test report can't be read", extra={"path": str(path), "err": str(error)})
        return None
    return _build_report(parser, undelayed or UndelayedTime(None)) if parser.matched or not parser.cases else None


def _build_report(parser: _ReportParser, undelayed: UndelayedTime) -> Report:
    """Sum up the cases, which ran one after another. If the runner was parallel, they overlap, and all have equal
    waits.
    """
    cases, busy, end = parser.matched, sum(case.seconds for case in parser.matched), undelayed.ended_seconds
    between = max(0.0, parser.seconds - busy) / len(cases) if cases else 0.0
    start = end - parser.seconds
    began, whole = undelayed.get(start), undelayed.get(end) - undelayed.get(start)
    overlaps = busy > parser.seconds > 0
    usual = math.inf if overlaps else _find_usual_seconds(cases)
    found = {item: ItemReport() for item in parser.items}
    at, reached, of_session = start, began, 0.0
    for number, case in enumerate(cases):
        at += case.seconds + between
        before, reached = reached, undelayed.get(at)
        seconds = case.seconds * whole / parser.seconds if overlaps else max(0.0, reached - before)
        if number in (0, len(cases) - 1) and case.seconds > max(usual + _SESSION_SECONDS, _SESSION_RATIO * usual):
            of_session += seconds * (1.0 - usual / case.seconds)
            seconds *= usual / case.seconds
        found[case.item].add(case.test, failed=case.failed, seconds=seconds)
    return Report(items=found, seconds=whole - of_session)


def _find_usual_seconds(cases: Sequence[_Case]) -> float:
    """Return the 90 % quantile of the cases' seconds; infinity if there are too few.

    The first case sets up the session's fixtures, such as a database, and the last one tears them down. Each command
    needs that time, whichever cases it runs, so it counts as start-up.
    """
    if len(cases) < _SESSION_CASES:
        return math.inf
    return sorted(case.seconds for case in cases)[len(cases) * 9 // 10 - 1]


class _UnusableReport(Exception):
    """A report is unreadable, or has a failure that belongs to no item."""


class _Case(Struct, frozen=True):
    """A test case of an item. `test`: the id of its function, "" if that is uncertain."""

    item: str
    test: str
    failed: bool
    seconds: float


class _ReportParser:
    """Collects the cases of a report without a tree in memory, since tests may have written anything into it."""

    def __init__(self, items: Sequence[str]) -> None:
        self.items = items
        self.cases = self._lookups = 0
        self.matched: list[_Case] = []
        self.seconds = 0.0
        self._by_name = _index_names(items)
        self._case: Mapping[str, str] | None = None
        self._failed = False

    def parse(self, text: bytes) -> None:
        """Parse a whole report. Raises _UnusableReport."""
        from xml.parsers import expat  # nosec B406 # no entities; imported here, since most lanes read no report

        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            raise _UnusableReport(str(error)) from None

    def _refuse_doctype(self, *_: object) -> None:
        raise _UnusableReport("it has a document type, which may define entities without end")

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "testsuite":
            self.seconds += _parse_seconds(attributes.get("time"))
        elif tag == "testcase":
            self._case, self._failed = attributes, False
        elif tag in _BAD:
            self._failed = True

    def _end(self, tag: str) -> None:
        case = self._case
        if tag != "testcase" or case is None:
            return
        self._case = None
        self.cases += 1
        parts = case.get("classname", "").count(".") + case.get("name", "").partition("[")[0].count(".") + 2
        self._lookups += min(_MOST_PARTS, parts) ** 2 // 2
        if self._lookups > _MOST_LOOKUPS:
            raise _UnusableReport("the names of its test cases have too many parts")
        item, test = _find_item(case, self._by_name)
        if item is not None:
            self.matched.append(_Case(item, test, self._failed, _parse_seconds(case.get("time"))))
        elif self._failed:
            raise _UnusableReport("a failure belongs to no item")


def _get_result(item: ItemReport, *, failed_batch: bool) -> Result:
    """Return an item's result; in a failed batch, an item without a test case may not have run at all."""
    if item.failed:
        return Result.FAILURE
    return Result.SKIP if failed_batch and not item.cases else Result.SUCCESS


def _build_record(item: str, report: Report, *, failed_batch: bool) -> ItemRecord:
    long = report.long_tests(item)
    return ItemRecord(
        item=item,
        result=_get_result(report.items[item], failed_batch=failed_batch),
        seconds=max(0.0, report.items[item].seconds - sum(long.values())),
        long_tests=tuple(long.items()),
    )


def _take_report(path: Path, items: Sequence[str], undelayed: UndelayedTime) -> Report | None:
    try:
        return read_report(path, items, undelayed)
    finally:
        with suppress(OSError):  # missing, or a folder made by a test; the folder of all reports is removed at the end
            path.unlink()


def _is_complete(outcome: Outcome, report: Report) -> bool:
    """Return whether the report explains how the batch ended: if it was cut off, the report lacks tests."""
    if outcome.result is Result.SUCCESS:
        return True
    return outcome.exit_code == _FAILED and report.failed and not _ENDED_EARLY.search(outcome.output)


def _build_message(outcome: Outcome, items: Sequence[ItemRecord]) -> str:
    bad = [each.item for each in items if each.result.bad]
    if not bad or len(items) == 1:
        return outcome.message
    return f"{join_names(bad, _SHOWN_ITEMS)}: {outcome.message}"


def _index_names(items: Sequence[str]) -> dict[str, str]:
    """Return the items by their dotted names, and by each suffix of a name that only one item has."""
    whole = {_get_dotted_name(item): item for item in items}
    ends: dict[str, set[str]] = {}
    for name, item in whole.items():
        for end in _iter_ends(name):
            ends.setdefault(end, set()).add(item)
    return {end: next(iter(those)) for end, those in ends.items() if len(those) == 1} | whole


def _find_item(case: Mapping[str, str], by_name: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the item of a test case, and the id of its test function in that file.

    It is the item with the longest dotted prefix of the case's name. The id is "" if the runner may write it
    differently.
    """
    name = f"{case.get('classname', '')}.{case.get('name', '').partition('[')[0]}".strip(".")
    if len(name) > _LONGEST_NAME or name.count(".") >= _MOST_PARTS:
        return None, ""
    for end in _iter_ends(name):
        for beginning in _iter_beginnings(end):
            item = by_name.get(beginning)
            if item is None:
                continue
            inner = end[len(beginning) + 1 :].replace(".", "::")
            sure = (
                inner
                and end == name
                and item.endswith(".py")
                and _get_dotted_name(item) == beginning
                and item[0] not in "./"
            )
            return item, f"{item}::{inner}" if sure else ""
    return None, ""


def _iter_ends(name: str) -> Iterator[str]:
    """Yield a dotted name, then its suffixes, since the runner may count from another folder."""
    while name:
        yield name
        name = name.partition(".")[2]


def _iter_beginnings(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _get_dotted_name(item: str) -> str:
    path, *inner = item.split("::")
    path = path.removeprefix("./").removesuffix("/").removesuffix(".py")
    return ".".join([path.replace("/", "."), *(part.partition("[")[0] for part in inner)])


def _parse_seconds(text: str | None) -> float:
    """Return a report's duration in seconds; 0 if it is invalid."""
    try:
        found = float(text or 0.0)
    except ValueError:
        return 0.0
    return found if 0.0 <= found <= _LONGEST_TEST_SECONDS else 0.0
