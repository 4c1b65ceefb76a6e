"""Find the failed tests of `go test` and `cargo test`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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
