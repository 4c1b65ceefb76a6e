"""Choose the few lines of an output that tell why a check failed."""

from __future__ import annotations

from paropt_exporter.findings.search import find_findings

MOST_FINDINGS = 3
_HEAD_LINES, _TAIL_LINES = 1, 2
_CUT_NOTE = "[about "  # the first line of an output of which only the end was kept


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
