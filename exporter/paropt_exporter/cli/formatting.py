"""How the commands word what several of them print: counts, durations, aligned columns, other people's text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from paropt_exporter.terminal import visible

_LINE_ENDS = re.compile(r"\r\n|[\n\t\v\f\r\x85\u2028\u2029]")
_MOST_FAULTS = 100  # of a config: more would push the first ones off the screen


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun: 1 stage, 2 stages."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def format_faults(faults: Sequence[str]) -> list[str]:
    """Return the first faults, and a line that counts the others."""
    left = len(faults) - _MOST_FAULTS
    return [*faults[:_MOST_FAULTS], *([f"… and {format_count(left, 'more fault')}"] if left > 0 else [])]


def format_seconds(value: float) -> str:
    """Return a duration as a person reads it: 0.42 s, 27.4 s, 3 min 05 s."""
    if value < 10:
        return f"{value:.1f} s" if value >= 0.1 else f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60:02} s"


def format_line(line: str) -> str:
    """Return the text on one line, with the characters that a terminal would act on written as escapes."""
    return visible(_LINE_ENDS.sub(" ", line))


def count_columns(text: str) -> int:
    """Return how many columns of a terminal the text takes: Chinese, Japanese, Korean and emoji two a character."""
    return sum(_get_width(character) for character in text)


def pad_text(text: str, width: int) -> str:
    """Return the text with blanks behind it, up to that many columns."""
    return text + " " * (width - count_columns(text))


def format_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return lines with aligned columns, the headers first."""
    lines = [headers, *(tuple(map(format_line, row)) for row in rows)]
    widths = [max(count_columns(line[column]) for line in lines) for column in range(len(headers))]
    return ["  ".join(map(pad_text, line, widths)).rstrip() for line in lines]


def _get_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
