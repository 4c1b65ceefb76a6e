"""Search an output with the parser of each tool: test runners first, since tests print anything."""

from __future__ import annotations

from itertools import islice

from paropt_exporter.findings import go, linters, pytest_output, python
from paropt_exporter.findings.finding import Finding

_LONGEST_LINE = 500  # characters: no tool's finding is longer, and patterns may need quadratic time


def find_findings(output: str, most: int | None = None) -> tuple[Finding, ...]:
    """Return the first findings in an output, at most so many (None: all); none for a tool that is not known here.

    Known are pytest, unittest and go test, then ruff, mypy, bandit, tsc, eslint and tools that write like them, and at
    last a Python traceback.
    """
    lines = [line[:_LONGEST_LINE] for line in output.splitlines()]
    for parse in (
        pytest_output.find_failures,
        python.find_unittest_failures,
        go.find_failures,
        linters.find_findings,
        python.find_traceback,
    ):
        if found := tuple(islice(parse(lines), most)):
            return found
    return ()
