"""Read the output of test runners: pytest, unittest and `go test`; and Python tracebacks."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from paropt_exporter.findings.finding import Finding

_SUMMARY = re.compile(r"^=+ short test summary info =+$")
_PART = re.compile(r"^=+ (?:ERRORS|FAILURES) =+$")
_ANY_PART = re.compile(r"^=+ .+ =+$")
_SECTION = re.compile(r"^_{3,} (.+?) _{3,}$")
_SUMMED_UP = re.compile(r"^(?:FAILED|ERROR) ([^\[]+?(?:\[.*?\])?)(?: - (.*))?$")
_MESSAGE = re.compile(r"^E {2,}(\S.*)$")
_SOURCE_LINE = re.compile(r"^(\S.*?):(\d+): ")
_NOT_IN_A_TEST = re.compile(r"^ERROR (?:at (?:setup|teardown) of|collecting) ")

_RULER, _THIN_RULER = "=" * 70, "-" * 70
_HEADER = re.compile(r"^(?:FAIL|ERROR): (\S+)(?: \((.+?)\))?(?: (.+))?$")
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s*File "(.+)", line (\d+)')

_GO_FAILED = re.compile(r"^\s*--- FAIL: (\S+) \([\d.]+s\)$")
_GO_BEGUN = re.compile(r"^=== (?:RUN|CONT|NAME)\s+(\S+)$")
_GO_OTHER = re.compile(r"^\s*(?:--- |=== |FAIL\b|ok\b|PASS\b|exit status )")
_GO_LOGGED = re.compile(r"^\s+(\S+\.go):(\d+): (.*)$")
_GO_COMPILED = re.compile(r"^(?:vet: )?(\S+\.go):(\d+):(\d+): (.+)$")
_GO_PANIC = re.compile(r"^panic: (.+)$")


def find_pytest_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test and each error; none if this is not pytest's output."""
    sections = _read_sections(lines)
    summed_up = _read_summary(lines)
    if not summed_up:
        return [_make_pytest_finding(section.title, "", section) for section in sections]
    by_title: dict[str, deque[_Section]] = defaultdict(deque)
    for section in sections:
        by_title[section.title].append(section)
    found = []
    for test, message in summed_up:
        fitting = by_title[_make_title(test)]
        found.append(_make_pytest_finding(test, message, fitting.popleft() if fitting else _Section(test)))
    return found


def find_unittest_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test of unittest."""
    starts = [number + 1 for number, line in enumerate(lines[:-1]) if line == _RULER]
    found = []
    for start, end in pairwise([*starts, len(lines)]):
        if header := _HEADER.match(lines[start]):
            found.append(_make_unittest_finding(header, lines[start + 2 : end]))
    return found


def find_traceback(lines: Sequence[str]) -> list[Finding]:
    """Return the exception of the last traceback, with the place where it was raised."""
    starts = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    if not starts:
        return []
    path, line, message = _read_traceback(lines[starts[-1] :])
    return [Finding(message=message, path=path, line=line)] if message else []


def find_go_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test and each compile error; none if this is not go's output."""
    tests: dict[str, Finding] = {}
    logged: dict[str, tuple[str, int, str]] = {}  # the first line that each test logged
    others: list[Finding] = []
    running = ""
    for line in lines:
        if failed := _GO_FAILED.match(line):
            running = failed[1]
            tests.setdefault(running, Finding(message="failed", test=running))
        elif begun := _GO_BEGUN.match(line):
            running = begun[1]
        elif _GO_OTHER.match(line):
            running = ""
        elif running and (log := _GO_LOGGED.match(line)):
            logged.setdefault(running, (log[1], int(log[2]), log[3]))
        elif compiled := _GO_COMPILED.match(line):
            path, number, column, message = compiled.groups()
            others.append(Finding(message=message, path=path, line=int(number), column=int(column)))
        elif tests and (panic := _GO_PANIC.match(line)):
            others.append(Finding(message=f"panic: {panic[1]}"))
    failed_tests = [_add_log(found, logged) for name, found in tests.items() if not _has_failed_subtest(name, tests)]
    return [*failed_tests, *others]


@dataclass(slots=True)
class _Section:
    """The part of the output about one failure."""

    title: str
    message: str = ""
    places: list[tuple[str, int]] = field(default_factory=list)


def _make_pytest_finding(test: str, message: str, section: _Section) -> Finding:
    own = [place for place in section.places if place[0] == test.partition("::")[0]]
    places = own or section.places
    path, line = places[-1] if places else (None, None)
    # The section's message is whole; that of the summary is cut to the width of a terminal.
    return Finding(message=section.message or message or "failed", path=path, line=line, test=test)


def _read_sections(lines: Sequence[str]) -> list[_Section]:
    sections: list[_Section] = []
    in_part = False
    for line in lines:
        if _ANY_PART.match(line):
            in_part = _PART.match(line) is not None
        elif not in_part:
            continue
        elif titled := _SECTION.match(line):
            sections.append(_Section(_NOT_IN_A_TEST.sub("", titled[1])))
        elif sections:
            _read_section_line(line, sections[-1])
    return sections


def _read_section_line(line: str, section: _Section) -> None:
    if not section.message and (message := _MESSAGE.match(line)):
        section.message = message[1]
    elif place := _SOURCE_LINE.match(line):
        section.places.append((place[1], int(place[2])))


def _read_summary(lines: Sequence[str]) -> list[tuple[str, str]]:
    """Return the ids and messages of the short test summary."""
    starts = [number for number, line in enumerate(lines) if _SUMMARY.match(line)]
    if not starts:
        return []
    matches = map(_SUMMED_UP.match, lines[starts[-1] + 1 :])
    return [(match[1], match[2] or "") for match in matches if match]


def _make_title(test: str) -> str:
    """Return the title of a test's section: `TestC.test_p[a::b]` for `a.py::TestC::test_p[a::b]`."""
    path, separator, name = test.partition("::")
    if not separator:
        return path
    function, bracket, parameters = name.partition("[")
    return function.replace("::", ".") + bracket + parameters


def _make_unittest_finding(header: re.Match[str], lines: Sequence[str]) -> Finding:
    name, qualified, parameters = header.groups()
    block = lines[: lines.index(_THIN_RULER)] if _THIN_RULER in lines else lines
    path, line, message = _read_traceback(block)
    test = qualified if qualified and "." in qualified else f"{qualified}.{name}" if qualified else name
    return Finding(
        message=message or "failed", path=path, line=line, test=f"{test} {parameters}" if parameters else test
    )


def _read_traceback(lines: Sequence[str]) -> tuple[str | None, int | None, str]:
    """Return path and line of the innermost frame, and the first line of the exception's text."""
    path, line, message, in_frame = None, None, "", False
    for text in lines:
        if frame := _FRAME.match(text):
            path, line, in_frame = frame[1], int(frame[2]), True
        elif in_frame and text and not text.startswith(" "):
            message, in_frame = text, False
    return path, line, message


def _has_failed_subtest(name: str, tests: dict[str, Finding]) -> bool:
    """Whether a failed subtest tells more than the test that it is part of."""
    return any(other.startswith(f"{name}/") for other in tests)


def _add_log(found: Finding, logged: dict[str, tuple[str, int, str]]) -> Finding:
    if found.test not in logged:
        return found
    path, line, message = logged[found.test]
    return Finding(message=message, path=path, line=line, test=found.test)
