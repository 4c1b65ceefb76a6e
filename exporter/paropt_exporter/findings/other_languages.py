"""Find the failed tests of Go, Rust and JavaScript, of all writers of TAP, and errors of Node.js."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import dropwhile, takewhile

from paropt_exporter.findings.finding import Finding

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

# In comments below a failed test: of bats, and of Perl's Test::More, whose own output prove shows without the rest
_BATS_MESSAGE = re.compile(r"^# {3}(?P<message>`.+' failed\b.*)$")
_PERL_FAILED = re.compile(r"^ *# {3}Failed test(?: '(?P<test>.*)'$| at )")
_PERL_VALUE = re.compile(r"^ *# +(?P<value>(?:got|expected): .+)$")
_COMMENT_PLACE = re.compile(
    r"^ *#(?: [ (]in test file| {3}(?:Failed test )?at) (?P<path>\S.*?),? line (?P<line>\d+)[.)](?P<column>)$"
)


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


def find_cargo_failures(lines: Sequence[str]) -> list[Finding]:
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


def find_vitest_failures(lines: Sequence[str]) -> Iterator[Finding]:
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


def find_jest_failures(lines: Sequence[str]) -> Iterator[Finding]:
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


def find_mocha_failures(lines: Sequence[str]) -> Iterator[Finding]:
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


def find_node_failures(lines: Sequence[str]) -> Iterator[Finding]:
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


def find_node_error(lines: Sequence[str]) -> list[Finding]:
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


def find_tap_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test; none if this is not TAP."""
    if not any(_TAP_BEGUN.match(line) for line in lines):
        return
    for number, line in enumerate(lines):
        failed = _TAP_FAILED.match(line)
        if failed and not _TAP_EXPECTED.search(line):
            described = _read_tap_description(lines, number + 1, indent=failed["indent"] + "  ")
            if described.get("failureType") != "subtestsFailed":  # the failed subtests tell more
                test = failed["test"].strip() or "a test"
                yield _make_tap_finding(test, described) if described else _read_comments(test, lines, number + 1)


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


def find_prove_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test of Perl's Test::More, by its comments."""
    for number, line in enumerate(lines):
        if failed := _PERL_FAILED.match(line):
            yield _read_comments(failed["test"] or "a test", lines, number)


def _read_comments(test: str, lines: Sequence[str], start: int) -> Finding:
    """Return the finding in the comments from a line on, up to those of another test."""
    own = [*takewhile(lambda line: line.lstrip().startswith("#"), lines[start : start + _MOST_IN_REPORT])]
    ends = [number for number, line in enumerate(own) if number and _PERL_FAILED.match(line)]
    own = own[: ends[0]] if ends else own
    messages = [match["message"] for match in map(_BATS_MESSAGE.match, own) if match]
    values = [match["value"] for match in map(_PERL_VALUE.match, own) if match]
    place = next(filter(None, map(_COMMENT_PLACE.match, own)), None)
    return _make_place_finding(test, ", ".join(messages[:1] or values) or "failed", place)
