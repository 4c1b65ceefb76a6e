"""Read pytest's output: the short summary names the failing tests, their sections have message and line."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from paropt_exporter.findings.finding import Finding

_SUMMARY = re.compile(r"^=+ short test summary info =+$")
_PART = re.compile(r"^=+ (?:ERRORS|FAILURES) =+$")
_ANY_PART = re.compile(r"^=+ .+ =+$")
_SECTION = re.compile(r"^_{3,} (.+?) _{3,}$")
_SUMMED_UP = re.compile(r"^(?:FAILED|ERROR) ([^\[]+?(?:\[.*?\])?)(?: - (.*))?$")
_MESSAGE = re.compile(r"^E {2,}(\S.*)$")
_PLACE = re.compile(r"^(\S.*?):(\d+): ")
_NOT_IN_A_TEST = re.compile(r"^ERROR (?:at (?:setup|teardown) of|collecting) ")


@dataclass(slots=True)
class _Section:
    """The part of the output about one failure."""

    title: str
    message: str = ""
    places: list[tuple[str, int]] = field(default_factory=list)


def find_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test and each error; none if this is not pytest's output."""
    sections = _read_sections(lines)
    summed_up = _read_summary(lines)
    if not summed_up:
        return [_make_finding(section.title, "", section) for section in sections]
    by_title: dict[str, deque[_Section]] = defaultdict(deque)
    for section in sections:
        by_title[section.title].append(section)
    found = []
    for test, message in summed_up:
        fitting = by_title[_make_title(test)]
        found.append(_make_finding(test, message, fitting.popleft() if fitting else _Section(test)))
    return found


def _make_finding(test: str, message: str, section: _Section) -> Finding:
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
            _read_line(line, sections[-1])
    return sections


def _read_line(line: str, section: _Section) -> None:
    if not section.message and (message := _MESSAGE.match(line)):
        section.message = message[1]
    elif place := _PLACE.match(line):
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
