"""Find which tool wrote an output, and its findings; choose the lines that show best why a check failed."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import chain, islice

from paropt_exporter.findings.doctest_output import find_doctest_failures
from paropt_exporter.findings.finding import CUT_NOTE, Finding, Level
from paropt_exporter.findings.linters import find_linter_findings
from paropt_exporter.findings.other_languages import (
    find_cargo_failures,
    find_go_failures,
    find_jest_failures,
    find_mocha_failures,
    find_node_error,
    find_node_failures,
    find_prove_failures,
    find_tap_failures,
    find_vitest_failures,
)
from paropt_exporter.findings.pytest_output import find_pytest_failures, is_cut
from paropt_exporter.findings.python_tools import (
    find_behave_failures,
    find_fatal_error,
    find_internal_error,
    find_robot_failures,
    find_sentence,
    find_traceback,
    find_trial_failures,
    find_unittest_failures,
)

_MOST_FINDINGS = 3
_HEAD_LINES, _TAIL_LINES = 1, 2
# The last lines of make, ninja, just, go-task, npm, pnpm and yarn after a command that failed, whose own last line says
# more.
_CLOSING = re.compile(
    r"^(?:\S*make(?:\[\d+\])?: (?:\*\*\*|Leaving|Target) |ninja: build stopped|error: recipe .* failed"
    r"|task: Failed to run|npm (?:ERR!|error)|.?ELIFECYCLE|error Command failed|info Visit )",
    re.IGNORECASE,
)
_LONGEST_LINE = 500  # characters: no tool's finding is longer, and patterns may need quadratic time
# pre-commit and prek
_HOOK, _HOOK_FACT = re.compile(r"^- hook id: (\S+)$"), re.compile(r"^- (?:duration|exit code|files were modified)\b")
_HOOK_ENDED = re.compile(r"(?<!\.)\.{3,}(?:\(.*\))?(?:Passed|Failed|Skipped)$")


def find_findings(output: str, most: int | None = None) -> tuple[Finding, ...]:
    """Return the first `most` findings in an output (None: all); empty for tools that are not known here.

    Known are pre-commit with the tools in its hooks, pytest, unittest, trial, doctest, behave, Robot Framework, go
    test, cargo test, vitest, jest, mocha and TAP (node --test, bats, prove), then ruff, mypy, bandit, tsc, eslint and
    tools that write like them, and at last a limit of coverage, a wrong option, an error of Node.js and a Python
    traceback.
    """
    lines = [line[:_LONGEST_LINE] for line in output.splitlines()]
    return tuple(islice(_find_failed_hooks(lines), most)) or _find_by_tool(lines, most)


def _find_by_tool(lines: Sequence[str], most: int | None) -> tuple[Finding, ...]:
    for parse in (
        find_pytest_failures,
        find_internal_error,
        find_fatal_error,
        find_unittest_failures,
        find_trial_failures,
        find_doctest_failures,
        find_behave_failures,
        find_robot_failures,
        find_go_failures,
        find_cargo_failures,
        find_vitest_failures,
        find_jest_failures,
        find_mocha_failures,
        find_node_failures,
        find_tap_failures,
        find_prove_failures,
        find_linter_findings,
        find_sentence,
        find_node_error,
        find_traceback,
    ):
        if found := tuple(islice(parse(lines), most)):
            return found
    return ()


def _find_failed_hooks(lines: Sequence[str]) -> Iterator[Finding]:
    """Yield the findings in the output of each failed hook; of an unknown tool, its first line."""
    hooks: list[tuple[str, list[str]]] = []
    is_inside, has_failed = False, True  # with `verbose` the output of hooks that passed is there, too
    for line in lines:
        if hook := _HOOK.match(line):
            is_inside = has_failed
            if has_failed:
                hooks.append((hook[1], []))
        elif line.endswith(("Passed", "Failed", "Skipped")) and _HOOK_ENDED.search(line):
            is_inside, has_failed = False, line.endswith("Failed")
        elif is_inside and not _HOOK_FACT.match(line):
            hooks[-1][1].append(line)
    for name, output in hooks:
        below = textwrap.dedent("\n".join(output)).splitlines()
        if found := _find_by_tool(below, None):
            yield from found
        else:
            yield Finding(message=next(filter(None, below), "failed or changed files"), rule=name)


def choose_excerpt(output: str, *others: str, brief: bool = False) -> list[str]:
    """Return the first findings in outputs and a count of the rest; without any, the first output's ends.

    Errors come before warnings, and whole messages before others: pytest cuts or omits those of failures whose part of
    the output is missing. `brief`: only the first finding; without any, the first output's last line.
    """
    found = sorted(chain.from_iterable(map(find_findings, (output, *others))), key=_get_rank)
    if brief and found:
        return [found[0].text]
    if found:
        texts = [*dict.fromkeys(finding.text for finding in found)]  # several tasks may fail for one reason
        left = len(texts) - _MOST_FINDINGS
        return [*texts[:_MOST_FINDINGS], *([f"… {left} more"] if left > 0 else [])]
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if brief:
        return next(([line] for line in reversed(lines) if not _CLOSING.match(line[:_LONGEST_LINE])), lines[-1:])
    return _choose_head_and_tail(lines)


def _get_rank(finding: Finding) -> tuple[bool, bool]:
    return finding.level is Level.WARNING, is_cut(finding)


def _choose_head_and_tail(lines: list[str]) -> list[str]:
    if lines and lines[0].startswith(CUT_NOTE):
        # the beginning of the output is missing, so show only its last lines
        return lines[1:][-_HEAD_LINES - _TAIL_LINES :]
    left = len(lines) - _HEAD_LINES - _TAIL_LINES
    if left <= 1:  # a line that says "1 more line" takes as much room
        return lines
    return [*lines[:_HEAD_LINES], f"… {left} lines", *lines[-_TAIL_LINES:]]
