"""Find the failed examples of doctest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from paropt_exporter.findings.finding import Finding
from paropt_exporter.findings.tracebacks import read_traceback

# Its own output, and a section of pytest, which numbers the lines of an example
_FAILED_EXAMPLE = re.compile(r'^File "(?P<path>.+)", line (?P<line>\d+), in \S+$')
_EXAMPLE, _EXAMPLE_HEADING = re.compile(r"^\d{3,} +>>> (.+)$"), "Failed example:"
_EXCEPTION, _EXCEPTION_HEADING = "UNEXPECTED EXCEPTION: ", "Exception raised:"


def describe_example(lines: Sequence[str]) -> str:
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
            return f"{example}: {read_traceback([each.removeprefix('    ') for each in lines[number:]])[2]}"
        elif line in ("Expected:", "Expected nothing"):
            at = next((at for at in range(number, len(lines)) if lines[at] in ("Got:", "Got nothing")), None)
            got = lines[at + 1].strip() if at is not None and lines[at + 1 :] and lines[at] == "Got:" else "nothing"
            return f"{example}: expected {below if line == 'Expected:' else 'nothing'}, got {got}"
    return f"{example}: failed" if example else ""


def find_doctest_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed example of `python -m doctest`."""
    starts = [
        number
        for number, (line, below) in enumerate(pairwise(lines))
        if below == _EXAMPLE_HEADING and _FAILED_EXAMPLE.match(line)
    ]
    found = []
    for start, end in pairwise([*starts, len(lines)]):
        if place := _FAILED_EXAMPLE.match(lines[start]):
            message = describe_example(lines[start:end])
            found.append(Finding(message=message, path=place["path"], line=int(place["line"])))
    return found
