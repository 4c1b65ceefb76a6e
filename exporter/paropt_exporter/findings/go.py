"""Read the output of `go test`: failed tests with their log lines, packages that don't compile, panics."""

from __future__ import annotations

import re
from collections.abc import Sequence

from paropt_exporter.findings.finding import Finding

_FAILED = re.compile(r"^\s*--- FAIL: (\S+) \([\d.]+s\)$")
_BEGUN = re.compile(r"^=== (?:RUN|CONT|NAME)\s+(\S+)$")
_OTHER = re.compile(r"^\s*(?:--- |=== |FAIL\b|ok\b|PASS\b|exit status )")
_LOGGED = re.compile(r"^\s+(\S+\.go):(\d+): (.*)$")
_COMPILED = re.compile(r"^(?:vet: )?(\S+\.go):(\d+):(\d+): (.+)$")
_PANIC = re.compile(r"^panic: (.+)$")


def find_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test and each compile error; none if this is not go's output."""
    tests: dict[str, Finding] = {}
    logged: dict[str, tuple[str, int, str]] = {}  # the first line that each test logged
    others: list[Finding] = []
    running = ""
    for line in lines:
        if failed := _FAILED.match(line):
            running = failed[1]
            tests.setdefault(running, Finding(message="failed", test=running))
        elif begun := _BEGUN.match(line):
            running = begun[1]
        elif _OTHER.match(line):
            running = ""
        elif running and (log := _LOGGED.match(line)):
            logged.setdefault(running, (log[1], int(log[2]), log[3]))
        elif compiled := _COMPILED.match(line):
            path, number, column, message = compiled.groups()
            others.append(Finding(message=message, path=path, line=int(number), column=int(column)))
        elif tests and (panic := _PANIC.match(line)):
            others.append(Finding(message=f"panic: {panic[1]}"))
    failed_tests = [_add_log(found, logged) for name, found in tests.items() if not _has_parts(name, tests)]
    return [*failed_tests, *others]


def _has_parts(name: str, tests: dict[str, Finding]) -> bool:
    """Whether a failed subtest tells more than the test that it is part of."""
    return any(other.startswith(f"{name}/") for other in tests)


def _add_log(found: Finding, logged: dict[str, tuple[str, int, str]]) -> Finding:
    if found.test not in logged:
        return found
    path, line, message = logged[found.test]
    return Finding(message=message, path=path, line=line, test=found.test)
