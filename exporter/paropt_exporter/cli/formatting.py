"""Format durations, aligned columns and foreign text for several commands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate, takewhile

from paropt_exporter.errors import format_count
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.terminal import visible

_LINE_ENDS = compile_later(r"\r\n|[\n\t\v\f\r\x85\u2028\u2029]")
# durations stay on one line
_WORDS_WITH_SPACES = compile_later(r" *(?:[^ ]*\d min (?=\d\d s))?[^ ]+(?: s[:,;)]*(?= |$))?")
_WITHOUT_WIDTH = frozenset({"Mn", "Me", "Cf"})  # marks above and below letters, such as Thai vowels; joiners in emoji
_FEWEST_COLUMNS = 30  # the narrowest terminal for which lines are wrapped
_MOST_OF_NAMES = 40  # of a cell before the last, if a table is too wide: half a terminal of 80 columns
_FEWEST_OF_LAST = 15  # the narrowest last column of a table, whose cells are cut
_FEWEST_SHOWN_OF_LAST = 8  # in fewer columns, no word would be readable
_MOST_FAULTS = 100  # further ones would scroll the first ones off the screen


def format_faults(faults: Sequence[str]) -> list[str]:
    """Return the first faults, and a line with the number of further ones."""
    left = len(faults) - _MOST_FAULTS
    return [*faults[:_MOST_FAULTS], *([f"… and {format_count(left, 'more fault')}"] if left > 0 else [])]


def format_seconds(value: float) -> str:
    """Return a duration such as 0.42 s, 27.4 s, 3 min 05 s or 2 h 05 min."""
    if value < 10:
        return f"{value:.1f} s" if value >= 0.1 else f"{value:.2f} s"
    if value < 120:
        return f"{value:.1f} s"
    if value < 120 * 60:
        return f"{int(value) // 60} min {int(value) % 60:02} s"
    return f"{int(value) // 3600} h {int(value) // 60 % 60:02} min"


def format_bytes(size: float) -> str:
    """Return a number of bytes with a decimal unit, such as 1.5 GB."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def format_time(timestamp_seconds: float) -> str:
    """Return a wall time in the local time zone, such as 2026-11-24 23:12:39."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp_seconds))


def format_line(line: str) -> str:
    """Return the text on one line, with control characters escaped."""
    return visible(line if line.isprintable() else _LINE_ENDS.sub(" ", line))


def count_columns(text: str) -> int:
    """Return the text's width in terminal columns. Chinese, Japanese and Korean letters and emoji take two each."""
    if text.isascii():
        return len(text)
    return sum(_get_width(character) for character in text)


def pad_text(text: str, width: int) -> str:
    """Return the text padded with spaces to a width in columns."""
    return text + " " * (width - count_columns(text))


def wrap_for_terminal(line: str, columns: int | None, indent: int) -> list[str]:
    """Return a line wrapped for a terminal; unchanged if there is none (None), or if it has very few columns."""
    return [line] if columns is None or columns < _FEWEST_COLUMNS else wrap_line(line, columns, indent)


def wrap_line(line: str, columns: int, indent: int) -> list[str]:
    """Break a line between words into lines of at most `columns`; all but the first are indented.

    Runs of spaces are kept. A word that is too long stays whole, and the terminal breaks it.
    """
    if count_columns(line) <= columns:
        return [line]
    lines: list[str] = []
    current = ""
    for word in _WORDS_WITH_SPACES.findall(line):
        if current.strip() and count_columns(current) + count_columns(word) > columns:
            lines.append(current)
            current = " " * indent + word.lstrip(" ")
        else:
            current += word
    return [*lines, current.rstrip(" ")]


def format_table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the headers and rows as lines with aligned columns."""
    lines = [headers, *(tuple(map(format_line, row)) for row in rows)]
    widths = [max(count_columns(line[column]) for line in lines) for column in range(len(headers) - 1)]
    return ["  ".join((*map(pad_text, line[:-1], widths), line[-1])).rstrip() for line in lines]


def format_fitting_table(
    headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], columns: int | None, *, dispensable: Sequence[str]
) -> list[str]:
    """Return a table for a terminal: until it fits, long names are cut, then `dispensable` columns left out in order.

    If there is no terminal (None), it is whole.
    """
    kept = [*range(len(headers))]
    if columns is not None and max(map(count_columns, format_table(headers, rows))) > columns:
        rows = [(*(_cut(cell, _MOST_OF_NAMES) for cell in row[:-1]), row[-1]) for row in rows]
    for name in ("", *dispensable):
        kept = [column for column in kept if headers[column] != name]
        shown, *cells = (tuple(row[column] for column in kept) for row in (headers, *rows))
        table = format_table(shown, cells)
        if columns is None or max(map(count_columns, table)) <= columns:
            break
    return table


def format_cut_table(
    headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], columns: int | None, *, dispensable: Sequence[str]
) -> list[str]:
    """Return a table as `format_fitting_table` does, with its last column cut to the width that is left.

    If hardly any width is left, the last column is left out.
    """
    if columns is None:
        return format_table(headers, rows)
    brief = [(*row[:-1], _cut(row[-1], _FEWEST_OF_LAST)) for row in rows]
    table = format_fitting_table(headers, brief, columns, dispensable=dispensable)
    # Without the dispensable columns it may still be too wide for a narrow terminal.
    width = _FEWEST_OF_LAST + columns - max(map(count_columns, table))
    if width < _FEWEST_SHOWN_OF_LAST:
        return format_fitting_table(headers[:-1], [row[:-1] for row in rows], columns, dispensable=dispensable)
    shown = [(*row[:-1], _cut(row[-1], width)) for row in rows]
    return format_fitting_table(headers, shown, columns, dispensable=dispensable)


def join_lines(text: str) -> str:
    """Return the text on one line."""
    return format_line(" ".join(text.split()))


def _cut(text: str, columns: int) -> str:
    text = format_line(text)
    if count_columns(text) <= columns:
        return text
    widths = accumulate(map(_get_width, text))
    return text[: sum(1 for _ in takewhile(lambda width: width < columns, widths))] + "…"


def _get_width(character: str) -> int:
    import unicodedata  # here: most names are ASCII

    if unicodedata.category(character) in _WITHOUT_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
