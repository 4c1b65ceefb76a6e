"""Search the output of a failed check for findings, and choose the few lines of it that tell why the check failed."""

from __future__ import annotations

from itertools import islice

from paropt_exporter.findings import failed_tests, linters
from paropt_exporter.findings.finding import Finding

MOST_FINDINGS = 3
_HEAD_LINES, _TAIL_LINES = 1, 2
_CUT_NOTE = "[about "  # the first line of an output of which only the end was kept
_LONGEST_LINE = 500  # characters: no tool's finding is longer, and patterns may need quadratic time


def find_findings(output: str, most: int | None = None) -> tuple[Finding, ...]:
    """Return the first findings in an output, at most so many (None: all); none for a tool that is not known here.

    Known are pytest, unittest and go test, then ruff, mypy, bandit, tsc, eslint and tools that write like them, and at
    last a Python traceback.
    """
    lines = [line[:_LONGEST_LINE] for line in output.splitlines()]
    for parse in (
        failed_tests.find_pytest_failures,
        failed_tests.find_unittest_failures,
        failed_tests.find_go_failures,
        linters.find_findings,
        failed_tests.find_traceback,
    ):
        if found := tuple(islice(parse(lines), most)):
            return found
    return ()


def choose_excerpt(output: str, most: int = MOST_FINDINGS) -> list[str]:
    """Return an output's first `most` findings and a count of the others; without any, its first and last lines."""
    found = find_findings(output)
    if found:
        left = len(found) - most
        return [*(finding.text for finding in found[:most]), *([f"… {left} more"] if left > 0 else [])]
    return _choose_head_and_tail([line.strip() for line in output.splitlines() if line.strip()])


def _choose_head_and_tail(lines: list[str]) -> list[str]:
    if lines and lines[0].startswith(_CUT_NOTE):
        del lines[0]
    left = len(lines) - _HEAD_LINES - _TAIL_LINES
    if left <= 1:  # a line that says "1 more line" takes as much room
        return lines
    return [*lines[:_HEAD_LINES], f"… {left} lines", *lines[-_TAIL_LINES:]]
