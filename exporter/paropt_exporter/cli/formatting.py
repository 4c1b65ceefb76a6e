"""How the commands word what several of them print: counts, durations, aligned columns, other people's text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from paropt_exporter.terminal import visible

_LINE_ENDS = re.compile(r"\r\n|[\n\t\v\f\r\x85\u2028\u2029]")
_MOST_FAULTS = 100  # of a config: more would push the first ones off the screen


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: 1 stage, 2 stages."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def faults_shown(faults: Sequence[str]) -> list[str]:
    """Return the first faults, and a line that counts the others."""
    left = len(faults) - _MOST_FAULTS
    return [*faults[:_MOST_FAULTS], *([f"… and {counted(left, 'more fault')}"] if left > 0 else [])]


def seconds(value: float) -> str:
    """Return a duration as a person reads it: 0.42 s, 27.4 s, 3 min 05 s."""
    if value < 10:
        return f"{value:.1f} s" if value >= 0.1 else f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60:02} s"


def plain(line: str) -> str:
    """Return the text on one line, with the characters that a terminal would act on written as escapes."""
    return visible(_LINE_ENDS.sub(" ", line))


def cells(text: str) -> int:
    """Return how many columns of a terminal the text takes: Chinese, Japanese, Korean and emoji two a character."""
    return sum(_columns(character) for character in text)


def padded(text: str, width: int) -> str:
    """Return the text with blanks behind it, up to that many columns."""
    return text + " " * (width - cells(text))


def table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return lines with aligned columns, the headers first."""
    lines = [headers, *(tuple(map(plain, row)) for row in rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(headers))]
    return ["  ".join(map(padded, line, widths)).rstrip() for line in lines]


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
