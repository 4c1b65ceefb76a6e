"""Parse and format durations and sizes: `1h30m`, `500ms`, `2GiB`, or plain numbers."""

from __future__ import annotations

import math
import re

from paropt_exporter.lazy_patterns import compile_later

LONGEST_SECONDS = 10 * 365 * 86400.0  # ten years; larger values overflow timers
LARGEST_BYTES = 1 << 50  # a pebibyte, more than a machine has
MOST_WORKERS = 1000  # of a lane
MOST_STAGES = 10_000  # one scrape renders as many in under a second
MOST_REQUESTS = 100_000  # of the endpoint at once
LARGEST_FILE_BYTES = 4_000_000  # 10,000 stages of 400 bytes; libyaml takes seconds for them
LONGEST_NAME = 100
NOT_SHOWN = "another text (not shown: it may be a secret)"
# Safe in a metric label, a file name and a command line: no quote, backslash or line break.
NAME_PATTERN = r"^[^\s\"'`\\/-]([^\t\r\n\"'`\\]{0,98}[^\s\"'`\\])?$"
DURATION_PATTERN = r"^(?=[0-9])([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"
SIZE_PATTERN = r"^([0-9]+(?:\.[0-9]+)?) ?(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$"

_UNITS_SECONDS = (  # in the order of the pattern
    365 * 86400.0,
    7 * 86400.0,
    86400.0,
    3600.0,
    60.0,
    1.0,
    0.001,
)
_UNITS_BYTES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}  # fmt: skip
_DURATION = compile_later(DURATION_PATTERN, re.ASCII)
_SIZE = compile_later(SIZE_PATTERN, re.ASCII)
_NUMBER = compile_later(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
# Other spellings, for suggestions. `5M` has none: it may mean months.
_LIKELY_SECONDS = compile_later(
    r"([0-9]+(?:\.[0-9]+)?) *"
    r"(?:(ms|msec|milliseconds?)|(s|secs?|seconds?)|(m|mins?|minutes?)|(h|hrs?|hours?)|(d|days?))(?![A-Za-z])",
    re.ASCII,
)
_LIKELY_UNITS = (0.001, 1.0, 60.0, 3600.0, 86400.0)  # in the order of the pattern
_LIKELY_SIZE = compile_later(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]i?)b?", re.ASCII | re.IGNORECASE)
_EXPECTED_DURATION = "expected a duration like 30s, 5m, 1h30m or 500ms, or a number of seconds"
_LONGEST_LIKELY = 40
_EXPECTED_SIZE = "expected a size like 2GiB or 500MB, or a number of bytes"


def parse_duration(value: object, *, zero: bool = False) -> float:
    """Return the seconds of a Prometheus duration or a number. `zero` allows 0.

    Raises ValueError with a message for the user.
    """
    seconds = _convert_seconds(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{_EXPECTED_DURATION}, found {seconds}")
    if seconds < 0 or (seconds == 0 and not zero):
        raise ValueError(f"expected a duration {'of 0 or more' if zero else 'above 0'}, found {format_value(value)}")
    if seconds > LONGEST_SECONDS:
        raise ValueError(f"{format_value(value)} is too long: the longest duration is ten years")
    return seconds


def parse_size(value: object) -> int:
    """Return the bytes of a size like `2GiB`, `500MB` or a number. Raises ValueError with a message for the user."""
    match = _SIZE.match(value) if isinstance(value, str) and len(value) <= 40 else None
    if match is not None:
        size = float(match[1]) * _UNITS_BYTES[match[2]]
    elif isinstance(value, int) and not isinstance(value, bool):
        size = min(value, LARGEST_BYTES + 1)
    else:
        raise ValueError(f"{_EXPECTED_SIZE}, found {format_value(value)}{_suggest_size(value)}")
    if size < 1:
        raise ValueError(f"expected a size above 0, found {format_value(value)}")
    if size > LARGEST_BYTES:
        raise ValueError(f"{format_value(value)} is too large: the largest size is 1024TiB")
    return round(size)


def format_value(value: object) -> str:
    """Return a value of the config for a message: quoted, escaped, and shortened to a line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the boolean {str(value).lower()}"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    text = repr(str(value)) if isinstance(value, str) else str(getattr(value, "text", value))
    return text if len(text) <= 60 else text[:57] + "..."


def format_duration(seconds: float) -> str:
    """Return seconds as a short Prometheus duration: 90 is `1m30s`, 0.25 is `250ms`."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _convert_seconds(value: object) -> float:
    if isinstance(value, str):
        return _parse_seconds(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_EXPECTED_DURATION}, found {format_value(value)}")
    try:
        return float(value)
    except OverflowError:
        return LONGEST_SECONDS * 2


def _parse_seconds(text: str) -> float:
    match = _DURATION.match(text) if len(text) <= 100 else None
    if match is not None:
        return sum(
            float(part.rstrip("ywdhms")) * unit
            for part, unit in zip(match.groups(), _UNITS_SECONDS, strict=True)
            if part
        )
    if len(text) <= 100 and _NUMBER.fullmatch(text):
        return float(text)
    raise ValueError(f"{_EXPECTED_DURATION}, found {format_value(text)}{_suggest_duration(text)}")


def _suggest_duration(text: str) -> str:
    """Return the duration that `5min`, `1.5h` or `2 hours 30 minutes` probably means, or nothing."""
    if len(text) > _LONGEST_LIKELY:
        return ""
    seconds, at = 0.0, 0
    while (match := _LIKELY_SECONDS.match(text, at)) is not None:
        unit = next(unit for unit, name in zip(_LIKELY_UNITS, match.groups()[1:], strict=True) if name)
        seconds += float(match[1]) * unit
        at = match.end() + (text[match.end() : match.end() + 1] == " ")
    likely = format_duration(seconds)
    is_same = (
        at == len(text) and 0 < seconds <= LONGEST_SECONDS and math.isclose(parse_duration(likely, zero=True), seconds)
    )
    return f": did you mean {likely!r}?" if is_same else ""


def _suggest_size(value: object) -> str:
    """Return the size that `2gb` or `2Gi` probably means, or nothing."""
    if not isinstance(value, str) or len(value) > _LONGEST_LIKELY:
        return ""
    match = _LIKELY_SIZE.fullmatch(value.strip())
    if match is None:
        return ""
    likely = f"{match[1]}{match[2][0].upper()}{match[2][1:].lower()}B"
    try:
        parse_size(likely)
    except ValueError:  # zero, or too large
        return ""
    return f": did you mean {likely!r}?"
