"""Find the failed tests of unittest, trial, behave and Robot Framework, and why a Python program ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, takewhile

from msgspec.structs import replace

from paropt_exporter.findings.finding import Finding
from paropt_exporter.findings.tracebacks import FRAME, HEADING, INSTALLED, read_traceback

# unittest
_RULER, _THIN_RULER = "=" * 70, "-" * 70
_HEADER = re.compile(r"^(?:FAIL|ERROR|UNEXPECTED SUCCESS): (\S+)(?: \((.+?)\))?(?: (.+))?$")

# Twisted's trial: a traceback between rulers, and below it the tests that it is of
_TRIAL_FAILURE = "Failure: "
_TRIAL_RULER, _TRIAL_END, _TRIAL_HEADERS = "=" * 79, "-" * 79, ("[FAIL]", "[ERROR]")

# behave: lists at the end, and above, as its formatter writes it, each scenario with its heading, or failed steps
_BEHAVE_LIST = re.compile(r"^(?:Failing|Errored) scenarios:$")
_BEHAVE_LISTED = re.compile(r"^  (?P<path>\S.*\.feature):(?P<line>\d+)  (?P<test>.+?) *$")
_BEHAVE_HEADING = re.compile(r"^ *Scenario\b.* # (?P<place>\S.*\.feature:\d+)$")
_BEHAVE_STEP = re.compile(
    r"^(?:FAILURE|ERROR) in step '(?P<test>.+)' \((?P<path>\S.*\.feature):(?P<line>\d+)\):$"
)  # progress3
_BEHAVE_MESSAGE = re.compile(r"^ *(?:ASSERT FAILED|Assertion Failed): (?P<message>.+)$")

# Robot Framework: suites between two rulers, and the result of each test and suite above a ruler
_ROBOT_FAILED, _ROBOT_RULER = "| FAIL |", re.compile(r"^(?:={20,}|-{20,})$")
_ROBOT_STATISTICS = re.compile(r"^\d+ tests?, \d+ passed, \d+ failed")

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


def find_unittest_failures(lines: Sequence[str]) -> list[Finding]:
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
    path, line, message = read_traceback(lines[begin + 1 : end])
    if header[0].startswith("UNEXPECTED"):
        message = "unexpected success"
    test = qualified if qualified and "." in qualified else f"{qualified}.{name}" if qualified else name
    return Finding(
        message=message or "failed", path=path, line=line, test=f"{test} {parameters}" if parameters else test
    )


def find_trial_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test of trial."""
    rulers = [number for number, line in enumerate(lines) if line in (_TRIAL_RULER, _TRIAL_END)]
    for begin, end in pairwise(rulers):
        if lines[begin + 1] in _TRIAL_HEADERS:
            tests = [*takewhile(str.strip, reversed(lines[begin + 2 : end]))]
            path, line, message = read_traceback(lines[begin + 2 : end - len(tests)])
            message = message or next(filter(None, map(_read_trial_failure, lines[begin + 2 : end])), "")
            for test in reversed(tests):
                yield Finding(message=message.removeprefix("builtins.") or "failed", path=path, line=line, test=test)


def _read_trial_failure(line: str) -> str:
    """Return the exception with which a Deferred failed, which has no frames; "" for other lines."""
    return line.removeprefix(_TRIAL_FAILURE) if line.startswith(_TRIAL_FAILURE) else ""


def find_behave_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each scenario in the lists at the end, or for each failed step."""
    begin = next((number for number, line in enumerate(lines) if _BEHAVE_LIST.match(line)), len(lines))
    listed = [*filter(None, map(_BEHAVE_LISTED.match, lines[begin:]))]
    steps = [*filter(None, map(_BEHAVE_STEP.match, lines[:begin]))] if listed else []
    messages = _read_behave_messages(lines[:begin]) if listed else {}
    for each in steps or listed:
        path, line = each["path"], int(each["line"])
        message = messages.get(f"{path}:{line}", "failed")
        yield Finding(message=message, path=path, line=line, test=f"{path}:{line} {each['test']}")


def _read_behave_messages(lines: Sequence[str]) -> dict[str, str]:
    """Return the first message or exception of each scenario or failed step by its place."""
    found: dict[str, str] = {}
    place = ""
    for number, line in enumerate(lines):
        if heading := _BEHAVE_HEADING.match(line):
            place = heading["place"]
        elif step := _BEHAVE_STEP.match(line):
            place = f"{step['path']}:{step['line']}"
        elif place in found:
            continue
        elif message := _BEHAVE_MESSAGE.match(line):
            found[place] = message["message"]
        elif line.endswith(HEADING):
            indent = len(line) - len(HEADING)
            below = takewhile(str.strip, lines[number:])
            *_, raised = read_traceback([text[indent:] for text in below])
            found[place] = raised or "failed"
    return found


def find_robot_failures(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each failed test with its suite; a suite's own result only counts its tests."""
    suite = ""
    for number, line in enumerate(lines[1:-1], 1):
        before, below = lines[number - 1], lines[number + 1]
        if line.endswith(_ROBOT_FAILED):
            if _ROBOT_RULER.match(before) and not _ROBOT_STATISTICS.match(below):
                yield Finding(message=below.strip(), test=f"{suite} > {line.removesuffix(_ROBOT_FAILED).rstrip()}")
        elif before == below and before.startswith("=") and _ROBOT_RULER.match(before):
            suite = line.partition(" :: ")[0].strip()


def find_internal_error(lines: Sequence[str]) -> list[Finding]:
    """Return the error of pytest itself or of a plug-in, after which pytest lists no failures."""
    inside = [line.partition(_INTERNAL)[2] for line in lines if _INTERNAL in line]  # the first may follow pytest's dots
    return [replace(found, message=f"INTERNALERROR: {found.message}") for found in find_traceback(inside)]


def find_fatal_error(lines: Sequence[str]) -> list[Finding]:
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
        if frame := FRAME.match(line):
            found.append((frame[1], int(frame[2])))
        elif not line.startswith("    "):
            break
    return found


def _make_crash_finding(message: str, places: Sequence[tuple[str, int]]) -> Finding:
    path, line = next((place for place in places if not INSTALLED.search(place[0])), (None, None))
    return Finding(message=message, path=path, line=line)


def find_sentence(lines: Sequence[str]) -> list[Finding]:
    """Return the sentence with the reason of a tool that found no fault at a place."""
    matches = filter(None, map(_SENTENCE.match, lines))
    return [Finding(message=match["message"]) for match in islice(matches, 1)]


def find_traceback(lines: Sequence[str]) -> list[Finding]:
    """Return the exception of the last traceback, with the place where it was raised."""
    starts = [number for number, line in enumerate(lines) if line.rstrip().endswith(HEADING)]
    if not starts:
        return []
    path, line, message = read_traceback(lines[starts[-1] :])
    return [Finding(message=message, path=path, line=line)] if message else []
