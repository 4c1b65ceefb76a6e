"""Read the output of linters, type checkers and compilers, whose findings are lines with a path and a position."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from paropt_exporter.findings.finding import Finding, Level

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
    # ruff format before 0.14
    re.compile(rf"^(?P<message>Would reformat): {_PATH}$"),
)
# ruff, rustc, ty: the message, and the place behind an arrow in the next line
_ARROW = re.compile(rf"^\s*--> {_PLACE}$")
_ABOVE_ARROW = re.compile(
    rf"^(?:{_LEVEL}(?:\[(?P<kind>[\w-]+)\])?: |(?P<rule>[A-Z]+\d+|[a-z]+(?:-[a-z]+)*):? (?:\[\*\] )?)(?P<message>.+)$"
)
# eslint, ruff's grouped form: lines under the file's name
_FILE = re.compile(r"^(?P<path>\S.*?\.\w+):?$")
_UNDER_FILE = re.compile(
    rf"^\s+(?P<line>\d+):(?P<column>\d+)\s+(?:{_LEVEL}\s+(?P<message>.+?)(?:\s{{2,}}(?P<rule>[@\w/-]+))?"
    r"|(?P<code>[A-Z]+\d+) (?:\[\*\] )?(?P<text>.+))$"
)
# In every line that another pattern matches; most lines of an output have none of these.
_HINT = re.compile(r":\d+|\(\d+,\d+\): |Would reformat: ")
_BANDIT_ISSUE = re.compile(r"^>> Issue: \[(?P<rule>\w+)(?::[\w-]+)?\] (?P<message>.+)$")
_BANDIT_SEVERITY = re.compile(r"^\s+Severity: (\w+)")
_BANDIT_PLACE = re.compile(rf"^\s+Location: {_PLACE}$")


def find_findings(lines: Sequence[str]) -> Iterator[Finding]:
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
    for pattern in _IN_ONE_LINE:
        if match := pattern.match(line):
            return _make_finding(match.groupdict())
    if number and (arrow := _ARROW.match(line)) and (above := _ABOVE_ARROW.match(lines[number - 1])):
        return _make_finding({**arrow.groupdict(), **above.groupdict()})
    return _read_bandit_issue(number, lines) if _BANDIT_PLACE.match(line) else None


def _read_bandit_issue(number: int, lines: Sequence[str]) -> Finding | None:
    place = _BANDIT_PLACE.match(lines[number])
    severity = ""
    for line in _iter_upwards(number, lines):
        if low := _BANDIT_SEVERITY.match(line):
            severity = low[1]
        if place and (issue := _BANDIT_ISSUE.match(line)):
            level = "warning" if severity == "Low" else "error"
            return _make_finding({**place.groupdict(), **issue.groupdict(), "level": level})
    return None


def _iter_upwards(number: int, lines: Sequence[str]) -> Iterator[str]:
    """Yield the few lines of the issue that ends at a line, from below."""
    yield from reversed(lines[max(0, number - 6) : number])


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
