"""Read the output of unittest, and Python tracebacks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from paropt_exporter.findings.finding import Finding

_RULER, _THIN_RULER = "=" * 70, "-" * 70
_HEADER = re.compile(r"^(?:FAIL|ERROR): (\S+)(?: \((.+?)\))?(?: (.+))?$")
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'^\s*File "(.+)", line (\d+)')


def find_unittest_failures(lines: Sequence[str]) -> list[Finding]:
    """Return a finding for each failed test of unittest."""
    starts = [number + 1 for number, line in enumerate(lines[:-1]) if line == _RULER]
    found = []
    for start, end in pairwise([*starts, len(lines)]):
        if header := _HEADER.match(lines[start]):
            found.append(_make_finding(header, lines[start + 2 : end]))
    return found


def find_traceback(lines: Sequence[str]) -> list[Finding]:
    """Return the exception of the last traceback, with the place where it was raised."""
    starts = [number for number, line in enumerate(lines) if line.strip() == _TRACEBACK]
    if not starts:
        return []
    path, line, message = _read_traceback(lines[starts[-1] :])
    return [Finding(message=message, path=path, line=line)] if message else []


def _make_finding(header: re.Match[str], lines: Sequence[str]) -> Finding:
    name, qualified, parameters = header.groups()
    block = lines[: lines.index(_THIN_RULER)] if _THIN_RULER in lines else lines
    path, line, message = _read_traceback(block)
    test = qualified if qualified and "." in qualified else f"{qualified}.{name}" if qualified else name
    return Finding(
        message=message or "failed", path=path, line=line, test=f"{test} {parameters}" if parameters else test
    )


def _read_traceback(lines: Sequence[str]) -> tuple[str | None, int | None, str]:
    """Return path and line of the innermost frame, and the first line of the exception's text."""
    path, line, message, in_frame = None, None, "", False
    for text in lines:
        if frame := _FRAME.match(text):
            path, line, in_frame = frame[1], int(frame[2]), True
        elif in_frame and text and not text.startswith(" "):
            message, in_frame = text, False
    return path, line, message
