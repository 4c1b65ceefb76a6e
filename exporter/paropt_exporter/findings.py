"""Find the relevant lines in the output of a failed check: linters' findings, failing tests and their messages."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Container, Iterator, Sequence
from enum import StrEnum
from itertools import chain, dropwhile, islice, pairwise, takewhile

from msgspec import Struct, field
from msgspec.structs import replace

MOST_FINDINGS = 3
_HEAD_LINES, _TAIL_LINES = 1, 2
_CUT_NOTE = "[about "  # the beginning of the first line if only the end of an output was kept
# The last lines of make, ninja, just, go-task, npm, pnpm and yarn after a command that failed, whose own last line says
# more.
_CLOSING = re.compile(
    r"^(?:\S*make(?:\[\d+\])?: (?:\*\*\*|Leaving|Target) |ninja: build stopped|error: recipe .* failed"
    r"|task: Failed to run|npm (?:ERR!|error)|.?ELIFECYCLE|error Command failed|info Visit )",
    re.IGNORECASE,
)
_LONGEST_LINE = 500  # characters: no tool's finding is longer, and patterns may need quadratic time


class Level(StrEnum):
    """How bad a finding is; the values are those of GitHub's annotations."""

    ERROR = "error"
    WARNING = "warning"


class Finding(Struct, frozen=True, kw_only=True):
    """A place and a message. `path` is written as the tool wrote it; `line` and `column` count from 1.

    `rule`: the tool's name for the kind of finding, such as `F401` or `return-value`. `test`: the failing test's id.
    """

    message: str
    path: str | None = None
    line: int | None = None
    column: int | None = None
    rule: str | None = None
    test: str | None = None
    level: Level = Level.ERROR

    @property
    def place(self) -> str:
        """Return the test's id, otherwise `path:line:column` as far as it is known; "" without a path."""
        if self.test is not None:
            return self.test
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)

    @property
    def text(self) -> str:
        """Return the finding in one line."""
        rule = f" [{self.rule}]" if self.rule else ""
        return f"{self.place}: {self.message}{rule}" if self.place else f"{self.message}{rule}"


def find_findings(output: str, most: int | None = None) -> tuple[Finding, ...]:
    """Return the first `most` findings in an output (None: all); empty for tools that are not known here.

    Known are pre-commit with the tools in its hooks, pytest, unittest, doctest, behave, Robot Framework, go test, cargo
    test, vitest, jest, mocha and TAP (node --test, bats, prove), then ruff, mypy, bandit, tsc, eslint and tools that
    write like them, and at last a limit of coverage, a wrong option, an error of Node.js and a Python traceback.
    """
    lines = [line[:_LONGEST_LINE] for line in output.splitlines()]
    return tuple(islice(_find_failed_hooks(lines), most)) or _find_by_tool(lines, most)


def _find_by_tool(lines: Sequence[str], most: int | None) -> tuple[Finding, ...]:
    for parse in (
        _find_pytest_failures,
        _find_internal_error,
        _find_fatal_error,
        _find_unittest_failures,
        _find_doctest_failures,
        _find_behave_failures,
        _find_robot_failures,
        _find_go_failures,
        _find_cargo_failures,
        _find_vitest_failures,
        _find_jest_failures,
        _find_mocha_failures,
        _find_node_failures,
        _find_tap_failures,
        _find_linter_findings,
        _find_sentence,
        _find_node_error,
        _find_traceback,
    ):
        if found := tuple(islice(parse(lines), most)):
            return found
    return ()


def choose_excerpt(output: str, *others: str, brief: bool = False) -> list[str]:
    """Return the first findings in outputs and a count of the rest; without any, the first output's ends.

    Whole messages come first: pytest cuts or omits those of failures whose part of the output is missing. `brief`: only
    the first finding; without any, the first output's last line.
    """
    found = sorted(chain.from_iterable(map(find_findings, (output, *others))), key=_is_cut)
    if brief and found:
        return [found[0].text]
    if found:
        texts = [*dict.fromkeys(finding.text for finding in found)]  # several tasks may fail for one reason
        left = len(texts) - MOST_FINDINGS
        return [*texts[:MOST_FINDINGS], *([f"… {left} more"] if left > 0 else [])]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if brief:
        return next(([line] for line in reversed(lines) if not _CLOSING.match(line[:_LONGEST_LINE])), lines[-1:])
    return _choose_head_and_tail(lines)


def _is_cut(finding: Finding) -> bool:
    return finding.path is None and (finding.message == _NO_MESSAGE or finding.message.endswith(_CUT_MESSAGE))


def _choose_head_and_tail(lines: list[str]) -> list[str]:
    if lines and lines[0].startswith(_CUT_NOTE):
        # the beginning of the output is missing, so show only its last lines
        return lines[1:][-_HEAD_LINES - _TAIL_LINES :]
    left = len(lines) - _HEAD_LINES - _TAIL_LINES
    if left <= 1:  # a line that says "1 more line" takes as much room
        return lines
    return [*lines[:_HEAD_LINES], f"… {left} lines", *lines[-_TAIL_LINES:]]


# pre-commit and prek
_HOOK, _HOOK_FACT = re.compile(r"^- hook id: (\S+)$"), re.compile(r"^- (?:duration|exit code|files were modified)\b")
_HOOK_ENDED = re.compile(r"(?<!\.)\.{3,}(?:\(.*\))?(?:Passed|Failed|Skipped)$")

# pytest
_SUMMARY = re.compile(r"^=+ short test summary info =+$")
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
_CAPTURED = re.compile(r"^-+ Captured \S.* -+$")
_LEVEL_OF_GROUP = re.compile(r"^ +\| ")  # exceptions of a group are indented behind a line
_GROUP_BEGINS, _SECOND_IN_GROUP = re.compile(r"^ +\+-\+-+ 1 -+$"), re.compile(r"^ +\+-+ 2 -+$")
_CUT_MESSAGE, _NO_MESSAGE = "...", "failed"
_MOST_COMPARED = 100  # sections with each failure; both are in the same order
_DOCTEST = "[doctest] "  # before the title of a section
_WIDTH_TOLERANCE = 2  # characters: a heading has two sides of the same length

# doctest: its own output, and a section of pytest, which numbers the lines of an example
_FAILED_EXAMPLE = re.compile(r'^File "(?P<path>.+)", line (?P<line>\d+), in \S+$')
_EXAMPLE, _EXAMPLE_HEADING = re.compile(r"^\d{3,} +>>> (.+)$"), "Failed example:"
_EXCEPTION, _EXCEPTION_HEADING = "UNEXPECTED EXCEPTION: ", "Exception raised:"

# unittest and tracebacks
_RULER, _THIN_RULER = "=" * 70, "-" * 70
_HEADER = re.compile(r"^(?:FAIL|ERROR|UNEXPECTED SUCCESS): (\S+)(?: \((.+?)\))?(?: (.+))?$")
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s*File "(.+)", line (\d+)')
# Frames of the standard library and of packages
_INSTALLED = re.compile(r"/lib/python\d|/(?:site|dist)-packages/|^<frozen |/bin/py\.?test$")
# A coverage below its limit, of pytest-cov and of coverage report, and a wrong option, of argparse
_SENTENCE = re.compile(
    r"^(?:FAIL |ERROR: )?(?P<message>Required test coverage of .* not reached.*|Coverage failure: .+"
    r"|[\w.-]+: error: (?:unrecognized arguments|the following arguments are required|argument |invalid choice).*)$"
)
_INTERNAL = "INTERNALERROR> "  # before each line of an error of pytest itself or of a plug-in
# Python's faulthandler at a crash, and pytest-timeout with `timeout_method = thread`, which ends the process
_FATAL = re.compile(r"Fatal Python error: (?P<message>.+)$")  # in the line of pytest's dots
_CRASHED_THREAD = re.compile(r"^Current thread 0x\w+.* \(most recent call first\):$")
_TIMED_OUT = re.compile(r"^\++ Timeout \++$")
_STACK = re.compile(r"^~+ Stack of (?P<thread>.+?) \(\d+\) ~+$")

# behave: a heading above the steps of each scenario (unless its formatter leaves it out), and lists at the end
_BEHAVE_LIST = re.compile(r"^(?:Failing|Errored) scenarios:$")
_BEHAVE_LISTED = re.compile(r"^  (?P<path>\S.*\.feature):(?P<line>\d+)  (?P<test>.+)$")
_BEHAVE_HEADING = re.compile(r"^ *Scenario\b.* # (?P<place>\S.*\.feature:\d+)$")
_BEHAVE_MESSAGE = re.compile(r"^ *(?:ASSERT FAILED|Assertion Failed): (?P<message>.+)$")

# Robot Framework: suites between two rulers, and the result of each test and suite above a ruler
_ROBOT_FAILED, _ROBOT_RULER = "| FAIL |", re.compile(r"^(?:={20,}|-{20,})$")
_ROBOT_STATISTICS = re.compile(r"^\d+ tests?, \d+ passed, \d+ failed")

# go test
_GO_FAILED = re.compile(r"^\s*--- FAIL: (\S+) \([\d.]+s\)$")
_GO_BEGUN = re.compile(r"^=== (?:RUN|CONT|NAME)\s+(\S+)$")
_GO_OTHER = re.compile(r"^\s*(?:--- |=== |FAIL\b|ok\b|PASS\b|exit status )")
_GO_LOGGED = re.compile(r"^\s+(\S+\.go):(\d+): (.*)$")
_GO_COMPILED = re.compile(r"^(?:vet: )?(\S+\.go):(\d+):(\d+): (.+)$")
_GO_PANIC = re.compile(r"^panic: (.+)$")

# cargo test
_CARGO_FAILED = re.compile(r"^test (.+?)(?: - should panic)? \.\.\. FAILED$")
_CARGO_SECTION = re.compile(r"^---- (.+) stdout ----$")
_CARGO_PANIC = re.compile(r"^thread '.*' (?:\(\d+\) )?panicked at (?P<path>\S.*?):(?P<line>\d+):(?P<column>\d+):$")
_CARGO_OPERAND = re.compile(r"^ *(?:left|right): ")  # of assert_eq! and assert_ne!

# vitest
_VITEST_FAILED = re.compile(r"^ FAIL  (?P<test>\S.*?)(?: \[ .* \])?$")
_VITEST_FRAME = re.compile("^ \u276f " r"(?:.* )?(?P<path>\S+):(?P<line>\d+):(?P<column>\d+)$")
_VITEST_END = re.compile(r"^⎯+(?:\[\d+/\d+\]⎯*)?$")  # of a failure

# jest
_JEST_FILE = re.compile(r"^(?P<result>FAIL|PASS) (?P<file>\S.*?)(?: \([\d.,]+ m?s\))?$")
_JEST_FAILED = re.compile(r"^  \u25cf (?P<test>.+)$")
_JEST_VALUE = re.compile(r"^    (?P<value>(?:Expected|Received)[^:]*: .+)$")
_JEST_FRAME = re.compile(r"^      at (?:.*\()?(?P<path>[^\s()]+):(?P<line>\d+):(?P<column>\d+)\)?$")
_JEST_NO_TEST = "Test suite failed to run"
_JEST_OTHERS = frozenset({"Console"})  # headings that are not tests

# mocha: the reporters spec, dot and others end with a list of the failures
_MOCHA_LIST = re.compile(r"^  \d+ failing$")
_MOCHA_FAILED = re.compile(r"^  \d+\) (?P<test>.+)$")
_MOCHA_INDENT = 5  # of the second line of a failure; titles of tests in suites are indented by 2 more for each suite
_NODE_FRAME = re.compile(r"^ +at (?:.*\()?(?:file://)?(?P<path>(?!node:)[^\s()]+):(?P<line>\d+):(?P<column>\d+)\)?$")

# An error that ends Node.js: a place with its line of source, the error and its frames
_NODE_HEADING = re.compile(
    r"^(?: Exception during run: )?(?:file://)?(?P<path>(?:node:|/)\S.*):(?P<line>\d+)(?P<column>)$"
)
_NODE_ERROR, _AT_FRAME = re.compile(r"^[A-Z]\w*(?: \[\w+\])?: ."), re.compile(r"^ +at \S")
_MOST_IN_REPORT = 50  # lines of source, message and frames

# node --test: its reporter spec, the default of current versions, ends with a list of the failures
_NODE_LIST = "\u2716 failing tests:"
_NODE_PLACE = re.compile(r"^test at (?P<path>\S.*):(?P<line>\d+):(?P<column>\d+)$")
_NODE_FAILED = re.compile(r"^\u2716 (?P<test>.+) \([\d.]+ms\)$")  # of a test marked as TODO more follows

# TAP, the Test Anything Protocol: https://testanything.org/tap-version-14-specification.html
_TAP_BEGUN = re.compile(r"^(?:TAP version \d+|1\.\.\d+)$")
_TAP_FAILED = re.compile(r"^(?P<indent> *)not ok\b(?: \d+)?(?: - | )?(?P<test>.*)$")
_TAP_EXPECTED = re.compile(r" # (?:todo|skip)\b", re.IGNORECASE)  # a failure that the author expects
_TAP_KEY = re.compile(r"^\s+(?P<key>error|message|location|failureType): (?P<value>.+)$")
_TAP_BLOCK = frozenset({"|", "|-", ">", ">-"})  # YAML: the value stands in the next lines
_TAP_LOCATION = re.compile(r"^(?P<path>.+):(?P<line>\d+):(?P<column>\d+)$")


def _find_failed_hooks(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield the findings in the output of each failed hook; of an unknown tool, its first line."""
    hooks: list[tuple[str, list[str]]] = []
    is_inside = False
    for line in lines:
        if hook := _HOOK.match(line):
            hooks.append((hook[1], []))
            is_inside = True
        elif is_inside and line.endswith(("Passed", "Failed", "Skipped")) and _HOOK_ENDED.search(line):
            is_inside = False
        elif is_inside and not _HOOK_FACT.match(line):
            hooks[-1][1].append(line)
    for name, output in hooks:
        below = textwrap.dedent("\n".join(output)).splitlines()
        if found := _find_by_tool(below, None):
            yield from found
        else:
            yield Finding(message=next(filter(None, below), "failed or changed files"), rule=name)


def _find_pytest_failures(lines: Sequence[str]) -> list[Finding]:
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


class _Section(Struct):
    """The part of the output about one failure: of a test, or of its set-up, tear-down or collection.

    `places` are those that pytest wrote. `frames` are those of Python's own traceback, which pytest shows for a group
    of exceptions or with `--tb=native`; `raised` are its messages by their column, groups before their first exception.
    """

    title: str
    of_test: bool = True
    message: str = ""
    places: list[tuple[str, int]] = field(default_factory=list)
    frames: list[tuple[str, int]] = field(default_factory=list)
    raised: dict[int, str] = field(default_factory=dict)
    in_frame: bool = False
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
    places = section.places or section.frames
    own = [place for place in places if _is_file(place[0], file)]
    others = [place for place in places if not _INSTALLED.search(place[0])]
    kept = [section.syntax_place] if section.syntax_place else own or others or places
    # Of several failed examples of a doctest, the first one is described.
    path, number = next(iter(kept if section.of_doctest else reversed(kept)), (None, None))
    # The section's message is complete; the summary's is cut to the width of a terminal.
    raised = _describe_example(section.of_doctest) or ": ".join(section.raised.values())
    message = section.message or raised or (line.message if line else "") or _NO_MESSAGE
    return Finding(message=message, path=path, line=number, test=f"{test} {line.subtest if line else ''}".rstrip())


def _is_file(path: str, file: str) -> bool:
    return path == file or path.endswith(f"/{file}")


def _read_sections(lines: Sequence[str]) -> list[_Section]:
    sections: list[_Section] = []
    width = _find_width_of_cut_part(lines)  # of the part's heading; a test may print headings, too
    untitled = False
    for line in lines:
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


def _find_width_of_cut_part(lines: Sequence[str]) -> int:
    """Return the width of the headings if that of the first part may be missing, since only the output's end was kept.

    Otherwise 0.
    """
    if not lines or not lines[0].startswith(_CUT_NOTE):
        return 0
    return next((len(line) for line in reversed(lines) if _SUMMARY.match(line)), 0)


def _read_section_line(line: str, section: _Section) -> None:
    if section.ended:
        return
    if section.title.startswith(_DOCTEST):
        section.of_doctest.append(line)
    if _CAPTURED.match(line) or _SECOND_IN_GROUP.match(line):
        section.ended = True  # the tests' own output may look like messages and places
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
        _read_line_of_traceback(line, section)


def _read_line_of_traceback(line: str, section: _Section) -> None:
    group = _LEVEL_OF_GROUP.match(line)
    level = group.end() if group else 0
    text = line[level:]
    if frame := _FRAME.match(text):
        section.frames.append((frame[1], int(frame[2])))
        section.in_frame = True
    elif _GROUP_BEGINS.match(line):
        section.in_frame = True
    elif section.in_frame and text and not text.startswith((" ", _TRACEBACK)):
        section.raised = {other: told for other, told in section.raised.items() if other < level} | {level: text}
        section.in_frame = False


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


def _describe_example(lines: Sequence[str]) -> str:
    """Return the first failed example of a doctest, with its results or its exception; "" without one."""
    example = ""
    for number, line in enumerate(lines):
        below = lines[number + 1].strip() if number + 1 < len(lines) else ""
        if numbered := _EXAMPLE.match(line):
            example = numbered[1]
        elif line == _EXAMPLE_HEADING:
            example = below
        elif line.startswith(_EXCEPTION):
            return f"{example}: {line.removeprefix(_EXCEPTION)}"
        elif line == _EXCEPTION_HEADING:
            return f"{example}: {_read_traceback([each.removeprefix('    ') for each in lines[number:]])[2]}"
        elif line in ("Expected:", "Expected nothing"):
            at = next((at for at in range(number, len(lines)) if lines[at] in ("Got:", "Got nothing")), None)
            got = lines[at + 1].strip() if at is not None and lines[at + 1 :] and lines[at] == "Got:" else "nothing"
            return f"{example}: expected {below if line == 'Expected:' else 'nothing'}, got {got}"
    return f"{example}: failed" if example else ""


def _find_doctest_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed example of `python -m doctest`."""
    starts = [
        number
        for number, (line, below) in enumerate(pairwise(lines))
        if below == _EXAMPLE_HEADING and _FAILED_EXAMPLE.match(line)
    ]
    found = []
    for start, end in pairwise([*starts, len(lines)]):
        if place := _FAILED_EXAMPLE.match(lines[start]):
            message = _describe_example(lines[start:end])
            found.append(Finding(message=message, path=place["path"], line=int(place["line"])))
    return found


def _find_unittest_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test of unittest."""
    starts = [number + 1 for number, line in enumerate(lines[:-1]) if line == _RULER]
    found = []
    for start, end in pairwise([*starts, len(lines)]):
        if header := _HEADER.match(lines[start]):
            found.append(_make_unittest_finding(header, lines[start + 1 : end]))
    return found


def _make_unittest_finding(header: re.Match[str], lines: Sequence[str]) -> Finding:
    """Return the finding in the lines below a header: the first line of a docstring, and a traceback between rulers."""
    name, qualified, parameters = header.groups()
    rulers = [number for number, line in enumerate(lines) if line == _THIN_RULER]
    begin, end = [*rulers, len(lines), len(lines)][:2]
    path, line, message = _read_traceback(lines[begin + 1 : end])
    if header[0].startswith("UNEXPECTED"):
        message = "unexpected success"
    test = qualified if qualified and "." in qualified else f"{qualified}.{name}" if qualified else name
    return Finding(
        message=message or "failed", path=path, line=line, test=f"{test} {parameters}" if parameters else test
    )


def _find_internal_error(lines: Sequence[str]) -> list[Finding]:
    """Return the error of pytest itself or of a plug-in, after which pytest lists no failures."""
    inside = [line.partition(_INTERNAL)[2] for line in lines if _INTERNAL in line]  # the first may follow pytest's dots
    return [replace(found, message=f"INTERNALERROR: {found.message}") for found in _find_traceback(inside)]


def _find_fatal_error(lines: Sequence[str]) -> list[Finding]:
    """Return the crash of an interpreter, or the timeout that ended it, with the project's innermost place."""
    for number, line in enumerate(lines):
        if fatal := _FATAL.search(line):
            begin = next((at for at, each in enumerate(lines) if at > number and _CRASHED_THREAD.match(each)), number)
            places = _take_frames(lines[begin + 1 :])  # the innermost one comes first
            return [_make_crash_finding(fatal["message"], places)]
        if _TIMED_OUT.match(line):
            threads = [at for at, each in enumerate(lines) if at > number and _STACK.match(each)]
            main = [at for at in threads if "MainThread" in lines[at]] or threads[-1:] or [number]
            places = _take_frames(lines[main[0] + 1 :])
            return [_make_crash_finding("pytest-timeout ended the process", places[::-1])]
    return []


def _take_frames(lines: Sequence[str]) -> list[tuple[str, int]]:
    """Return the places of a stack at the beginning of these lines; each may have its source line below."""
    found: list[tuple[str, int]] = []
    for line in lines:
        if frame := _FRAME.match(line):
            found.append((frame[1], int(frame[2])))
        elif not line.startswith("    "):
            break
    return found


def _make_crash_finding(message: str, places: Sequence[tuple[str, int]]) -> Finding:
    path, line = next((place for place in places if not _INSTALLED.search(place[0])), (None, None))
    return Finding(message=message, path=path, line=line)


def _find_sentence(lines: Sequence[str]) -> list[Finding]:
    """Return the sentence with the reason of a tool that found no fault at a place."""
    matches = filter(None, map(_SENTENCE.match, lines))
    return [Finding(message=match["message"]) for match in islice(matches, 1)]


def _find_traceback(lines: Sequence[str]) -> list[Finding]:
    """Return the exception of the last traceback, with the place where it was raised."""
    starts = [number for number, line in enumerate(lines) if line.rstrip().endswith(_TRACEBACK)]
    if not starts:
        return []
    path, line, message = _read_traceback(lines[starts[-1] :])
    return [Finding(message=message, path=path, line=line)] if message else []


def _read_traceback(lines: Sequence[str]) -> tuple[str | None, int | None, str]:
    """Return path and line of a frame, and the first line of the exception's text.

    The frame is the innermost one outside of the standard library and of installed packages, if there is one.
    """
    section = _Section("")
    for text in lines:
        if _SECOND_IN_GROUP.match(text):
            break
        _read_line_of_traceback(text, section)
    own = [place for place in section.frames if not _INSTALLED.search(place[0])]
    path, line = next(reversed(own or section.frames), (None, None))
    return path, line, ": ".join(section.raised.values())


def _find_behave_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each scenario in the lists at the end."""
    begin = next((number for number, line in enumerate(lines) if _BEHAVE_LIST.match(line)), len(lines))
    listed = [*filter(None, map(_BEHAVE_LISTED.match, lines[begin:]))]
    messages = _read_behave_messages(lines[:begin]) if listed else {}
    for each in listed:
        path, line = each["path"], int(each["line"])
        message = messages.get(f"{path}:{line}", "failed")
        yield Finding(message=message, path=path, line=line, test=f"{path}:{line} {each['test']}")


def _read_behave_messages(lines: Sequence[str]) -> dict[str, str]:
    """Return the first message or exception below the heading of each scenario, by the scenario's place."""
    found: dict[str, str] = {}
    place = ""
    for number, line in enumerate(lines):
        if heading := _BEHAVE_HEADING.match(line):
            place = heading["place"]
        elif place in found:
            continue
        elif message := _BEHAVE_MESSAGE.match(line):
            found[place] = message["message"]
        elif line.endswith(_TRACEBACK):
            indent = len(line) - len(_TRACEBACK)
            below = takewhile(str.strip, lines[number:])
            *_, raised = _read_traceback([text[indent:] for text in below])
            found[place] = raised or "failed"
    return found


def _find_robot_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test with its suite; a suite's own result only counts its tests."""
    suite = ""
    for number, line in enumerate(lines[1:-1], 1):
        before, below = lines[number - 1], lines[number + 1]
        if line.endswith(_ROBOT_FAILED):
            if _ROBOT_RULER.match(before) and not _ROBOT_STATISTICS.match(below):
                yield Finding(message=below.strip(), test=f"{suite} > {line.removesuffix(_ROBOT_FAILED).rstrip()}")
        elif before == below and before.startswith("=") and _ROBOT_RULER.match(before):
            suite = line.partition(" :: ")[0].strip()


def _find_go_failures(lines: Sequence[str]) -> list[Finding]:
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
    parents = {parent for name in tests for parent in _iter_parents(name)}  # their failed subtests tell more
    return [*(_add_log(found, logged) for name, found in tests.items() if name not in parents), *others]


def _iter_parents(test: str) -> Iterator[str]:
    while parent := test.rpartition("/")[0]:
        yield parent
        test = parent


def _add_log(found: Finding, logged: dict[str, tuple[str, int, str]]) -> Finding:
    if found.test not in logged:
        return found
    path, line, message = logged[found.test]
    return Finding(message=message, path=path, line=line, test=found.test)


def _find_cargo_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test of Rust; none if this is not the output of its test runner."""
    failed = dict.fromkeys(match[1] for line in lines if (match := _CARGO_FAILED.match(line)))
    sections: dict[str, list[str]] = {name: [] for name in failed}
    section: list[str] | None = None
    for line in lines:
        if titled := _CARGO_SECTION.match(line):
            section = sections.get(titled[1])
        elif line == "failures:":  # the list of names after the sections
            section = None
        elif section is not None and line:
            section.append(line)
    return [_make_cargo_finding(name, section) for name, section in sections.items()]


def _make_cargo_finding(test: str, lines: Sequence[str]) -> Finding:
    """Return the first panic of a failed test; without one, its first line, such as the error that it returned."""
    for number, line in enumerate(lines):
        if panic := _CARGO_PANIC.match(line):
            operands = (each.strip() for each in lines[number + 2 : number + 4] if _CARGO_OPERAND.match(each))
            details = [*lines[number + 1 : number + 2], *operands]
            return Finding(
                message=", ".join(details) or "panicked",
                path=panic["path"],
                line=int(panic["line"]),
                column=int(panic["column"]),
                test=test,
            )
    return Finding(message=lines[0].removeprefix("note: ") if lines else "failed", test=test)


def _find_vitest_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test or file, with its error and the innermost place outside of packages."""
    tests: list[str] = []  # those of one error stand below each other
    message, place = "", None
    for line in (*lines, "⎯"):
        if failed := _VITEST_FAILED.match(line):
            tests.append(failed["test"])
        elif tests and _VITEST_END.match(line):
            for test in tests:
                yield _make_place_finding(test, message, place)
            tests, message, place = [], "", None
        elif tests and not message:
            message = line.strip()
        elif tests and place is None and "node_modules/" not in line:
            place = _VITEST_FRAME.match(line)


def _find_jest_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test or file. After many files, jest prints the failures again."""
    found: dict[str, Finding] = {}
    file = ""
    for number, line in enumerate(lines):
        if heading := _JEST_FILE.match(line):
            file = heading["file"] if heading["result"] == "FAIL" else ""
        elif file and (failed := _JEST_FAILED.match(line)) and failed["test"] not in _JEST_OTHERS:
            test = file if failed["test"] == _JEST_NO_TEST else f"{file} > {failed['test']}"
            if test not in found:
                found[test] = _read_jest_failure(test, lines[number + 1 :])
    yield from found.values()


def _read_jest_failure(test: str, lines: Sequence[str]) -> Finding:
    """Return the finding in the lines below a test's name, up to the next name."""
    message, values, place = "", list[str](), None
    for line in lines:
        if line[:3].strip():  # the next test or file, or the end
            break
        if value := _JEST_VALUE.match(line):
            values.append(value["value"])
        elif place is None and "node_modules/" not in line:
            place = _JEST_FRAME.match(line)
        message = message or line.strip()
    return _make_place_finding(test, ": ".join(filter(None, (message, ", ".join(values)))), place)


def _find_mocha_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test in the list at the end, with the suites that it is in."""
    begin = next((number for number, line in enumerate(lines) if _MOCHA_LIST.match(line)), len(lines))
    numbers = [number for number in range(begin, len(lines)) if _MOCHA_FAILED.match(lines[number])]
    for number, end in zip(numbers, [*numbers[1:], len(lines)], strict=False):  # without failures only the length
        yield _read_mocha_failure(lines[number:end])


def _read_mocha_failure(lines: Sequence[str]) -> Finding:
    titles = [lines[0].partition(") ")[2]]
    for line in lines[1:]:
        if len(line) - len(line.lstrip()) != _MOCHA_INDENT + 2 * len(titles):
            break
        titles.append(line.strip())
    below = lines[len(titles) :]
    return _make_node_finding(" > ".join(titles).removesuffix(":"), below)


def _find_node_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test in the list at the end."""
    begin = lines.index(_NODE_LIST) if _NODE_LIST in lines else len(lines)
    numbers = [number for number in range(begin, len(lines)) if _NODE_PLACE.match(lines[number])]
    for number, end in zip(numbers, [*numbers[1:], len(lines)], strict=False):  # without failures only the length
        if failed := _NODE_FAILED.match("".join(lines[number + 1 : number + 2])):
            yield _make_node_finding(failed["test"], lines[number + 2 : end], _NODE_PLACE.match(lines[number]))


def _make_node_finding(test: str | None, lines: Sequence[str], place: re.Match[str] | None = None) -> Finding:
    """Return a finding with the error, and the innermost place outside of packages, otherwise the given one."""
    message, value = [*(line.strip() for line in lines if line.strip()), "", ""][:2]
    if message.endswith(":") and value[:1] not in ("+", "-"):  # not the legend or the first line of a difference
        message = f"{message} {value}"
    frames = (_NODE_FRAME.match(line) for line in lines if "node_modules/" not in line)
    return _make_place_finding(test, message, next(filter(None, frames), place))


def _find_node_error(lines: Sequence[str]) -> list[Finding]:
    """Return the first error that ended Node.js, or that kept mocha from loading a file."""
    for number, line in enumerate(lines):
        if heading := _NODE_HEADING.match(line):
            below = lines[number + 1 : number + _MOST_IN_REPORT]
            report = [*dropwhile(lambda text: not _NODE_ERROR.match(text), below)]
            if any(map(_AT_FRAME.match, report)):
                return [_make_node_error(heading, report)]
    return []


def _make_node_error(heading: re.Match[str], lines: Sequence[str]) -> Finding:
    """Return a finding at the heading's place for an error of syntax, otherwise at the innermost own place."""
    if lines[0].startswith("SyntaxError"):
        return _make_place_finding(None, lines[0], heading)
    return _make_node_finding(None, lines, None if heading["path"].startswith("node:") else heading)


def _make_place_finding(test: str | None, message: str, place: re.Match[str] | None) -> Finding:
    if place is None:
        return Finding(message=message or "failed", test=test)
    line, column = int(place["line"]), int(place["column"] or 0)
    return Finding(message=message, test=test, path=place["path"], line=line, column=column or None)


def _find_tap_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test; none if this is not TAP."""
    if not any(_TAP_BEGUN.match(line) for line in lines):
        return
    for number, line in enumerate(lines):
        failed = _TAP_FAILED.match(line)
        if failed and not _TAP_EXPECTED.search(line):
            described = _read_tap_description(lines, number + 1, indent=failed["indent"] + "  ")
            if described.get("failureType") != "subtestsFailed":  # the failed subtests tell more
                yield _make_tap_finding(failed["test"].strip() or "a test", described)


def _read_tap_description(lines: Sequence[str], start: int, *, indent: str) -> dict[str, str]:
    """Return the keys of the YAML block below a failed test that describe the failure; of a text, its first line."""
    found: dict[str, str] = {}
    if start >= len(lines) or lines[start] != f"{indent}---":
        return found
    for number in range(start + 1, len(lines)):
        line = lines[number]
        if line == f"{indent}..." or (line and not line.startswith(indent)):
            break
        if key := _TAP_KEY.match(line):
            is_block = key["value"] in _TAP_BLOCK
            value = _read_tap_text(lines[number + 1 :]) if is_block else key["value"].strip("'\"")
            found.setdefault(key["key"], value)
    return found


def _read_tap_text(lines: Sequence[str]) -> str:
    """Return the first line of a text, and behind a colon at its end the next one, as in `strictly equal: 2 !== 3`."""
    shown = [line.strip() for line in lines[:3] if line.strip()]
    return " ".join(shown[: 2 if shown and shown[0].endswith(":") else 1])


def _make_tap_finding(test: str, described: dict[str, str]) -> Finding:
    message = described.get("error") or described.get("message") or "failed"
    place = _TAP_LOCATION.match(described.get("location", ""))
    if place is None:
        return Finding(message=message, test=test)
    return Finding(message=message, test=test, path=place["path"], line=int(place["line"]), column=int(place["column"]))


# linters, type checkers and compilers: lines with a path and a position
_PATH = r"(?P<path>\S.*?)"
_PLACE = rf"{_PATH}:(?P<line>\d+)(?::(?P<column>\d+))?"
_LEVEL = r"(?P<level>fatal error|error|warning)"
_IN_ONE_LINE = (
    # mypy, gcc, clang: app.py:31:5: error: Incompatible return value type  [return-value]
    re.compile(rf"^{_PLACE}: {_LEVEL}: (?P<message>.+?)(?:\s+\[(?P<rule>[\w-]+)\])?$"),
    # ruff's concise form, flake8: app.py:1:8: F401 [*] `os` imported but unused
    re.compile(rf"^{_PLACE}: (?P<rule>[A-Z]+\d+|invalid-syntax):? (?:\[\*\] )?(?P<message>.+)$"),
    # tsc on a terminal, pyright: src/a.ts:3:5 - error TS2322: Type 'string' is not assignable to type 'number'.
    re.compile(rf"^\s*{_PLACE} - {_LEVEL}(?: (?P<rule>TS\d+))?: (?P<message>.+?)(?: \((?P<rule_name>report\w+)\))?$"),
    # tsc elsewhere: src/a.ts(3,5): error TS2322: Type 'string' is not assignable to type 'number'.
    re.compile(rf"^{_PATH}\((?P<line>\d+),(?P<column>\d+)\): {_LEVEL} (?P<rule>TS\d+): (?P<message>.+)$"),
    # ld, with and without debugging symbols: main.c:7: undefined reference to `f'
    re.compile(
        r"^(?:\S*ld(?:\.\w+)?: )?(?P<path>[^\s:]+):(?:(?P<line>\d+)|\(\.[^()]*\)): (?P<message>undefined reference .+)$"
    ),
    # ruff format before 0.14, black
    re.compile(rf"^(?P<message>[Ww]ould reformat):? {_PATH}$"),
    # black
    re.compile(rf"^error: (?P<message>cannot format) {_PATH}: "),
    # isort
    re.compile(rf"^ERROR: {_PATH} (?P<message>Imports are incorrectly sorted and/or formatted)\.$"),
)
_REFORMATTED = re.compile(r"^\d+ files? would be reformatted")
_LAST_LINES = 3
# GitHub's annotations: ::error title=ruff (F401),file=/work/app.py,line=1,col=8::app.py:1:8: F401 `os` unused%0A  help
_ANNOTATION = re.compile(rf"^::{_LEVEL} (?P<properties>(?:[^:]|:(?!:))+)::(?P<text>.+)$")
_PROPERTY = re.compile(r"(?:^|,)(file|line|col)=([^,]+)")
# What mypy with `pretty = true` has moved to the next lines of a terminal's width; sources stand below, indented.
_WRAPPED_END = re.compile(r"^(?:(?P<text>\S.*?)\s+)?\[(?P<rule>[\w-]+)\]$")
_MOST_WRAPPED = 5  # lines
# ruff, rustc, ty, pyrefly: the message, and the place behind an arrow in the next line
_ARROW = re.compile(rf"^\s*--> {_PLACE}$")
_ABOVE_ARROW = (
    re.compile(
        rf"^(?:{_LEVEL}(?:\[(?P<kind>[\w-]+)\])?: |(?P<rule>[A-Z]+\d+|[a-z]+(?:-[a-z]+)*):? (?:\[\*\] )?)"
        r"(?P<message>.+)$"
    ),
    re.compile(r"^(?:ERROR| ?WARN) (?P<message>.+) \[(?P<rule>[\w-]+)\]$"),
)
# eslint, ruff's grouped form: lines under the file's name
_FILE = re.compile(r"^(?P<path>\S.*?\.\w+):?$")
_UNDER_FILE = re.compile(
    rf"^\s+(?P<line>\d+):(?P<column>\d+)\s+(?:{_LEVEL}\s+(?P<message>.+?)(?:\s{{2,}}(?P<rule>[@\w/-]+))?"
    r"|(?P<code>[A-Z]+\d+) (?:\[\*\] )?(?P<text>.+))$"
)
# In every line that another pattern matches; most lines of an output have none of these.
_HINT = re.compile(
    r":\d+|\(\d+,\d+\): |: undefined reference |^[Ww]ould reformat:? |^error: cannot format |^ERROR: |^\+\+\+ |^::"
)
_BANDIT_ISSUE = re.compile(r"^>> Issue: \[(?P<rule>\w+)(?::[\w-]+)?\] (?P<message>.+)$")
_BANDIT_SEVERITY = re.compile(r"^\s+Severity: (\w+)")
_BANDIT_PLACE = re.compile(rf"^\s+Location: {_PLACE}$")


def _find_linter_findings(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield the findings in the order of the lines."""
    heading = ""  # the last line that is no finding under a file's name
    for number, line in enumerate(lines):
        if not _HINT.search(line):
            heading = line
        elif (under := _UNDER_FILE.match(line)) and (file := _FILE.match(heading)):
            yield _make_finding({**under.groupdict(), "path": file["path"]})
        else:
            heading = line
            if found := _read_line(number, lines):
                yield found


def _read_line(number: int, lines: Sequence[str]) -> Finding | None:
    line = lines[number]
    if annotation := _ANNOTATION.match(line):
        return _make_finding(_read_annotation(annotation))
    if parts := _match_one_line(line):
        return _make_finding(parts if parts.get("rule") else parts | _read_wrapped_message(number, lines, parts))
    if number and line.startswith("+++ ") and lines[number - 1] == f"--- {line[4:]}":  # of ruff format --diff
        is_from_formatter = any(_REFORMATTED.match(each) for each in lines[-_LAST_LINES:])
        return Finding(message="would reformat", path=line[4:]) if is_from_formatter else None
    if number and (arrow := _ARROW.match(line)):
        for pattern in _ABOVE_ARROW:
            if above := pattern.match(lines[number - 1]):
                return _make_finding({**arrow.groupdict(), **above.groupdict()})
    return _read_bandit_issue(number, lines) if _BANDIT_PLACE.match(line) else None


def _match_one_line(line: str) -> dict[str, str | None]:
    matches = (pattern.match(line) for pattern in _IN_ONE_LINE)
    return next((match.groupdict() for match in matches if match), {})


def _read_annotation(annotation: re.Match[str]) -> dict[str, str | None]:
    """Return the finding in an annotation's text, otherwise its text and the place among its properties."""
    text = annotation["text"].partition("%0A")[0]
    place = {
        name: value
        for name, value in _PROPERTY.findall(annotation["properties"])
        if name == "file" or value.isdecimal()
    }
    outer = {"path": place.get("file"), "line": place.get("line"), "column": place.get("col"), "message": text}
    return (_match_one_line(text) or outer) | {"level": annotation["level"]}


def _read_wrapped_message(number: int, lines: Sequence[str], parts: dict[str, str | None]) -> dict[str, str | None]:
    """Return a message and its rule if the next lines continue it up to a rule, otherwise nothing."""
    message = [(parts.get("message") or "").rstrip()]
    for line in lines[number + 1 : number + 1 + _MOST_WRAPPED]:
        if not line[:1].strip() or _HINT.search(line):
            break
        if end := _WRAPPED_END.match(line):
            return {"message": " ".join(filter(None, (*message, end["text"]))), "rule": end["rule"]}
        message.append(line.rstrip())
    return {}


def _read_bandit_issue(number: int, lines: Sequence[str]) -> Finding | None:
    place = _BANDIT_PLACE.match(lines[number])
    severity = ""
    for line in reversed(lines[max(0, number - 6) : number]):  # the few lines of the issue, from below
        if low := _BANDIT_SEVERITY.match(line):
            severity = low[1]
        if place and (issue := _BANDIT_ISSUE.match(line)):
            level = "warning" if severity == "Low" else "error"
            return _make_finding({**place.groupdict(), **issue.groupdict(), "level": level})
    return None


def _make_finding(parts: dict[str, str | None]) -> Finding:
    line, column = parts.get("line"), parts.get("column")
    rule = parts.get("rule") or parts.get("kind") or parts.get("code") or parts.get("rule_name")
    return Finding(
        message=parts.get("message") or parts.get("text") or "",
        path=parts.get("path"),
        line=int(line) if line else None,
        column=int(column) if column and int(column) else None,  # bandit counts columns from 0
        rule=rule,
        level=Level.WARNING if parts.get("level") == "warning" else Level.ERROR,
    )
