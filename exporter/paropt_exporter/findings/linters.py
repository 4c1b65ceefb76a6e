"""Find the places that linters, type checkers and compilers report."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile

from paropt_exporter.findings.finding import Finding, Level

# Lines with a path and a position
_PATH = r"(?P<path>\S.*?)"
_PLACE = rf"{_PATH}:(?P<line>\d+)(?::(?P<column>\d+))?"
# Without a level: the lines of other programs may begin with a time, such as `10:11:12: web-server: started`.
_PYTHON_PLACE = r"(?P<path>[^\s:]+\.(?:pyi?|ipynb)):(?P<line>\d+):(?P<column>\d+)"
_LEVEL = r"(?P<level>fatal error|error|warning)"
_IN_ONE_LINE = (
    # mypy, gcc, clang: app.py:31:5: error: Incompatible return value type  [return-value]
    re.compile(rf"^{_PLACE}: {_LEVEL}: (?P<message>.+?)(?:\s+\[(?P<rule>[\w-]+)\])?$"),
    # ruff's concise form, flake8: app.py:1:8: F401 [*] `os` imported but unused
    re.compile(rf"^{_PLACE}: (?P<rule>[A-Z]+\d+|invalid-syntax|unformatted):? (?:\[\*\] )?(?P<message>.+)$"),
    # ty's concise form, and its text of an annotation: app.py:6:12: error[bad-return] Return type does not match
    re.compile(rf"^{_PLACE}: {_LEVEL}\[(?P<rule>[\w-]+)\] (?P<message>.+)$"),
    re.compile(rf"^{_PYTHON_PLACE}: (?P<rule>[a-z]+(?:-[a-z]+)+): (?P<message>.+)$"),
    # tsc on a terminal, pyright: src/a.ts:3:5 - error TS2322: Type 'string' is not assignable to type 'number'.
    re.compile(rf"^\s*{_PLACE} - {_LEVEL}(?: (?P<rule>TS\d+))?: (?P<message>.+?)(?: \((?P<rule_name>report\w+)\))?$"),
    # tsc elsewhere: src/a.ts(3,5): error TS2322: Type 'string' is not assignable to type 'number'.
    re.compile(rf"^{_PATH}\((?P<line>\d+),(?P<column>\d+)\): {_LEVEL} (?P<rule>TS\d+): (?P<message>.+)$"),
    # bandit's custom form: /src/app.py:9: B107[bandit]: LOW: Possible hardcoded password: 'secret'
    re.compile(rf"^{_PLACE}: (?P<rule>\w+)\[bandit\]: (?:(?P<low>LOW)|[A-Z]+): (?P<message>.+)$"),
    # pyflakes: app.py:1:1: 'os' imported but unused
    re.compile(rf"^{_PYTHON_PLACE}: (?!(?:note|info|help)\b)(?P<message>.+)$"),
    # ld, with and without debugging symbols: main.c:7: undefined reference to `f'
    re.compile(
        r"^(?:\S*ld(?:\.\w+)?: )?(?P<path>[^\s:]+):(?:(?P<line>\d+)|\(\.[^()]*\)): (?P<message>undefined reference .+)$"
    ),
    # ruff format before 0.14, black
    re.compile(rf"^(?P<message>[Ww]ould reformat):? {_PATH}$"),
    # black
    re.compile(rf"^error: (?P<message>cannot format) {_PATH}: "),
    re.compile(rf"^error: (?P<message>cannot parse): {_PLACE}$"),
    # isort
    re.compile(rf"^ERROR: {_PATH} (?P<message>Imports are incorrectly sorted and/or formatted)\.$"),
)
_REFORMATTED = re.compile(r"^\d+ files? would be reformatted")
_LAST_LINES = 3

# GitHub's annotations: ::error title=ruff (F401),file=/work/app.py,line=1,col=8::app.py:1:8: F401 `os` unused%0A  help
_ANNOTATION = re.compile(rf"^::{_LEVEL} (?P<properties>(?:[^:]|:(?!:))+)::(?P<text>.+)$")
_PROPERTY = re.compile(r"(?:^|,)(file|line|col)=([^,]+)")

# What mypy with `pretty = true` has moved to the next lines of a terminal's width; sources stand below, indented.
_WRAPPED_END = re.compile(r"^(?:(?P<text>\S.*?)\s+| )?\[(?P<rule>[\w-]+)\]$")
_MOST_WRAPPED = 5  # lines
# The last line of the details that pyright writes below a message, indented by spaces and no-break spaces
_DETAILS_END = re.compile(r"^\s+\S.* \((?P<rule>report\w+)\)$")

# ruff, rustc, ty, pyrefly: the message, and the place behind an arrow in the next line
_ARROW = re.compile(rf"^\s*--> {_PLACE}$")
_ABOVE_ARROW = (
    re.compile(
        rf"^(?:{_LEVEL}(?:\[(?P<kind>[\w-]+)\])?: "
        r"|(?!(?:info|note|help): )(?P<rule>[A-Z]+\d+|[a-z]+(?:-[a-z]+)*):? (?:\[\*\] )?)(?P<message>.+)$"
    ),
    re.compile(r"^(?:ERROR| ?WARN) (?P<message>.+) \[(?P<rule>[\w-]+)\]$"),
)

# eslint, yamllint, ruff's grouped form: lines under the file's name
_FILE = re.compile(r"^(?P<path>\S.*?\.\w+):?$")
_UNDER_FILE = re.compile(
    rf"^\s+(?P<line>\d+):(?P<column>\d+)\s+(?:{_LEVEL}\s+(?P<message>.+?)(?:\s{{2,}}\(?(?P<rule>[@\w/-]+)\)?)?"
    r"|(?P<code>[A-Z]+\d+) (?:\[\*\] )?(?P<text>.+))$"
)

# In every line that another pattern matches; most lines of an output have none of these.
_HINT = re.compile(
    r":\d+|\(\d+,\d+\): |: undefined reference |^[Ww]ould reformat:? |^error: cannot format |^ERROR: |^\+\+\+ |^::"
)
_BANDIT_ISSUE = re.compile(r"^>> Issue: \[(?P<rule>\w+)(?::[\w-]+)?\] (?P<message>.+)$")
_BANDIT_SEVERITY = re.compile(r"^\s+Severity: (\w+)")
_BANDIT_PLACE = re.compile(rf"^\s+Location: {_PLACE}$")


def find_linter_findings(lines: Sequence[str]) -> Iterator[Finding]:
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
        named = parts.get("rule") or parts.get("rule_name")
        return _make_finding(parts if named else parts | _read_next_lines(number, lines, parts))
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


def _read_next_lines(number: int, lines: Sequence[str], parts: dict[str, str | None]) -> dict[str, str | None]:
    """Return a message and its rule if the next lines continue it up to a rule, otherwise nothing."""
    below = lines[number + 1 : number + 1 + _MOST_WRAPPED]
    if "rule_name" in parts:
        details = takewhile(lambda line: line[:4].isspace() and not _HINT.search(line), below)
        return next((end.groupdict() for end in map(_DETAILS_END.match, details) if end), {})
    message = [(parts.get("message") or "").rstrip()]
    for line in below:
        if not line.startswith(" [") and (not line[:1].strip() or _HINT.search(line)):
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
    rule = parts.get("rule") or parts.get("kind") or parts.get("code") or parts.get("rule_name")
    return Finding(
        message=parts.get("message") or parts.get("text") or "",
        path=parts.get("path"),
        line=int(parts.get("line") or 0) or None,  # 0 in eslint's and flake8's messages about a whole file
        column=int(parts.get("column") or 0) or None,  # bandit counts from 0
        rule=rule,
        level=Level.WARNING if parts.get("level") == "warning" or parts.get("low") else Level.ERROR,
    )
