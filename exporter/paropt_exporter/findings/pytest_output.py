"""Find the failed tests of pytest, with the messages of their sections and of its short summary."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence

from msgspec import Struct, field

from paropt_exporter.findings.doctest_output import describe_example
from paropt_exporter.findings.finding import CUT_NOTE, Finding
from paropt_exporter.findings.tracebacks import INSTALLED, SECOND_IN_GROUP, Traceback

_SUMMARY = re.compile(r"^=+ short test summary info =+$")
_SESSION = re.compile(r"^=+ test session starts =+$")
_PART = re.compile(r"^=+ (?:ERRORS|FAILURES) =+$")
_ANY_PART = re.compile(r"^=+ .+ =+$")

# A long title leaves room for one or two underscores on each side. A ruler between frames is `_ _ _ _`.
_SECTION = re.compile(r"^(?:_{3,} (?P<title>.+?) _{3,}|__? (?P<long>[^_ ].{40,}) __?)$")
_SUMMED_UP = re.compile(r"^(?P<word>FAILED|ERROR) (?P<test>[^\[]+?(?:\[.*?\])?)(?: - (?P<message>.*))?$")

# Of a subtest: SUBFAILED[text] (key=value) test_a.py::test - message. The plug-in pytest-subtests has the word second.
_SUBTEST = r"(?P<{}>[\[(].*?[\])])"
_SUBTEST_SUMMED_UP = re.compile(
    rf"^(?:SUBFAILED{_SUBTEST.format('after')}|{_SUBTEST.format('before')} SUBFAIL) (?P<test>[^\s:]+::.*)$"
)
_MESSAGE = re.compile(r"^E {2,}(\S.*)$")
_SYNTAX_PLACE, _SYNTAX_MESSAGE = re.compile(r'^E +File "(.+)", line (\d+)$'), re.compile(r"^E {3}(\w+: .*)$")
_CONFTEST = re.compile(r"^ImportError while loading conftest '(.+)'\.$")
_SOURCE_LINE = re.compile(r"^(\S.*?):(\d+): ")
_NOT_IN_A_TEST = re.compile(r"^ERROR (?:at (?:setup|teardown) of|collecting) ")

# Between two tracebacks of a chain, whose last exception is the one that the test raised
_CHAINED = re.compile(
    r"^(?:The above exception was the direct cause of|During handling of the above exception, another )"
)
_CAPTURED = re.compile(r"^-+ Captured \S.* -+$")
_CUT_MESSAGE, _NO_MESSAGE = "...", "failed"
_MOST_COMPARED = 100  # sections with each failure; both are in the same order
_DOCTEST = "[doctest] "  # before the title of a section
_WIDTH_TOLERANCE = 2  # characters: a heading has two sides of the same length


def find_pytest_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test, failed subtest and error; none if this is not pytest's output."""
    sections = _read_sections(lines)
    summed_up = _read_summary(lines)
    if not summed_up:
        found = [_make_pytest_finding(section.title, section) for section in sections]
        return found or _find_conftest_failure(lines)
    with_subtests = {each.test for each in summed_up if each.subtest}  # their failed subtests tell more
    found = []
    for each, section in zip(summed_up, _match_sections(summed_up, sections), strict=True):
        if each.subtest or each.test not in with_subtests or not each.message.startswith(_HAS_FAILED_SUBTESTS):
            found.append(_make_pytest_finding(each.test, section, each))
    return found


_HAS_FAILED_SUBTESTS = "contains "  # 2 failed subtests


def is_cut(finding: Finding) -> bool:
    """Return whether the message of a failed test is missing or cut, since its part of the output is missing."""
    return finding.path is None and (finding.message == _NO_MESSAGE or finding.message.endswith(_CUT_MESSAGE))


class _Section(Struct):
    """The part of the output about one failure: of a test, or of its set-up, tear-down or collection.

    `places` are those that pytest wrote; `traceback` is Python's own, which pytest shows for a group of exceptions or
    with `--tb=native`.
    """

    title: str
    of_test: bool = True
    message: str = ""
    places: list[tuple[str, int]] = field(default_factory=list)
    traceback: Traceback = field(default_factory=Traceback)
    ended: bool = False
    of_doctest: list[str] = field(default_factory=list)  # lines
    syntax_place: tuple[str, int] | None = None  # of the code that can't be compiled


class _SummaryLine(Struct, frozen=True):
    test: str
    message: str = ""
    subtest: str = ""
    of_test: bool = True


def _find_conftest_failure(lines: Sequence[str]) -> list[Finding]:
    """Return the error of a conftest.py that can't be imported, after which no test runs."""
    for number, line in enumerate(lines):
        if conftest := _CONFTEST.match(line):
            section = _Section(conftest[1])
            for below in lines[number + 1 :]:
                _read_section_line(below, section)
            found = _make_pytest_finding(conftest[1], section)
            return [Finding(message=found.message, path=found.path or conftest[1], line=found.line)]
    return []


def _match_sections(summed_up: Sequence[_SummaryLine], sections: Sequence[_Section]) -> Iterator[_Section]:
    """Yield the section of each line of the summary.

    Both are in the same order, but the first sections may be cut off, so sections with equal titles are matched from
    the end.
    """
    known: dict[tuple[str, bool], list[_Section]] = defaultdict(list)
    for section in sections:
        known[section.title, section.of_test].append(section)
    of_doctests = {section.title for section in sections if section.of_doctest}
    titles = [(_find_title(each, of_doctests), each.of_test) for each in summed_up]
    taken = {*titles}
    untitled = [section for section in sections if (section.title, section.of_test) not in taken]
    titled = [known[title].pop() if known[title] else None for title in reversed(titles)]
    for each, found in zip(summed_up, reversed(titled), strict=True):
        yield found or _take_untitled_section(untitled, each)


def _find_title(line: _SummaryLine, known: Container[str]) -> str:
    """Return the title of a failure's section."""
    of_doctest = _DOCTEST + line.test.partition("::")[2]
    return of_doctest if of_doctest in known else f"{_make_title(line.test)} {line.subtest}".rstrip()


def _take_untitled_section(left: list[_Section], line: _SummaryLine) -> _Section:
    """Take the section with a failure's place and message: plugins choose titles, and `--tb=line` writes none."""
    file, beginning = line.test.partition("::")[0], line.message.removesuffix(_CUT_MESSAGE)
    for section in left[:_MOST_COMPARED]:
        if section.message.startswith(beginning) and any(_is_file(path, file) for path, _ in section.places):
            left.remove(section)
            return section
    return _Section(line.test)


def _make_pytest_finding(test: str, section: _Section, line: _SummaryLine | None = None) -> Finding:
    file = test.partition("::")[0]
    places = section.places or section.traceback.frames
    own = [place for place in places if _is_file(place[0], file)]
    others = [place for place in places if not INSTALLED.search(place[0])]
    kept = [section.syntax_place] if section.syntax_place else own or others or places
    # Of several failed examples of a doctest, the first one is described.
    path, number = next(iter(kept if section.of_doctest else reversed(kept)), (None, None))
    # The section's message is complete; the summary's is cut to the width of a terminal.
    raised = describe_example(section.of_doctest) or section.traceback.message
    message = section.message or raised or (line.message if line else "") or _NO_MESSAGE
    return Finding(message=message, path=path, line=number, test=f"{test} {line.subtest if line else ''}".rstrip())


def _is_file(path: str, file: str) -> bool:
    return path == file or path.endswith(f"/{file}")


def _read_sections(lines: Sequence[str]) -> list[_Section]:
    sections: list[_Section] = []
    start, width = _find_first_section(lines)  # the width of the part's heading; a test may print headings, too
    untitled = False
    for line in lines[start:]:
        if _ANY_PART.match(line) and (not width or abs(len(line) - width) <= _WIDTH_TOLERANCE):
            width = len(line) if _PART.match(line) else 0
            untitled = True
        elif not width:
            continue
        elif titled := _SECTION.match(line):
            whole = titled["title"] or titled["long"]
            title = _NOT_IN_A_TEST.sub("", whole)
            sections.append(_Section(title, of_test=title == whole))
            untitled = False
        elif not untitled:
            if sections:  # otherwise the line belongs to one whose beginning is missing
                _read_section_line(line, sections[-1])
        elif place := _SOURCE_LINE.match(line):
            sections.append(_Section("", message=line[place.end() :], places=[(place[1], int(place[2]))]))
    return sections


def _find_first_section(lines: Sequence[str]) -> tuple[int, int]:
    """Return from which line on sections may begin, and the width of the headings if that of the first part is missing.

    It is missing if only the output's end was kept, and with pytest-instafail, which shows each failure at once.
    Otherwise the width is 0.
    """
    width = next((len(line) for line in reversed(lines) if _SUMMARY.match(line)), 0)
    if width and lines[0].startswith(CUT_NOTE):
        return 0, width
    if not width or any(map(_PART.match, lines)) or not any(map(_SUMMED_UP.match, lines)):
        return 0, 0
    return next((number for number, line in enumerate(lines, 1) if _SESSION.match(line)), 0), width


def _read_section_line(line: str, section: _Section) -> None:
    if section.ended:
        return
    if section.title.startswith(_DOCTEST):
        section.of_doctest.append(line)
    if _CAPTURED.match(line) or SECOND_IN_GROUP.match(line):
        section.ended = True  # the tests' own output may look like messages and places
    elif _CHAINED.match(line):
        section.message, section.syntax_place = "", None
        section.places.clear()
    elif not section.message and (syntax := _SYNTAX_PLACE.match(line)):
        section.syntax_place = (syntax[1], int(syntax[2]))
    elif section.syntax_place and not section.message:
        if message := _SYNTAX_MESSAGE.match(line):
            path, number = section.syntax_place
            section.message = f"{message[1]} ({path.rpartition('/')[2]}, line {number})"  # as Python's own text
    elif not section.message and (message := _MESSAGE.match(line)):
        section.message = message[1]
    elif place := _SOURCE_LINE.match(line):
        section.places.append((place[1], int(place[2])))
    else:
        section.traceback.read_line(line)


def _read_summary(lines: Sequence[str]) -> list[_SummaryLine]:
    """Return the lines of the short test summary."""
    starts = [number for number, line in enumerate(lines) if _SUMMARY.match(line)]
    if not starts:
        return []
    found = []
    for line in lines[starts[-1] + 1 :]:
        subtest = _SUBTEST_SUMMED_UP.match(line)
        if match := _SUMMED_UP.match(f"FAILED {subtest['test']}" if subtest else line):
            name = (subtest["after"] or subtest["before"]) if subtest else ""
            found.append(_SummaryLine(match["test"], match["message"] or "", name, match["word"] == "FAILED"))
    return found


def _make_title(test: str) -> str:
    """Return the title of a test's section: `TestC.test_p[a::b]` for `a.py::TestC::test_p[a::b]`."""
    path, separator, name = test.partition("::")
    if not separator:
        return path
    function, bracket, parameters = name.partition("[")
    return function.replace("::", ".") + bracket + parameters
