"""Take values out of a history that anybody may have edited: SQLite keeps text in a column of numbers."""

from __future__ import annotations

import json
import math
from functools import lru_cache

# What reading, adding up and comparing false values raises.
FALSE_VALUE = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)
_LAST_TIMESTAMP_SECONDS = 253_402_214_400.0  # the end of the year 9999 less a day, for zones east of Greenwich


def text(value: object) -> str:
    """Return a text; raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {type(value).__name__}")
    return value


def number(value: object) -> float:
    """Return a finite number, 0 where there is none; raises ValueError for anything else."""
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, found {shown(value)}")
    return float(value)


def count(value: object) -> int:
    """Return a whole number from 0 on, 0 where there is none; raises ValueError for anything else."""
    if value is None:
        return 0
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a count, found {shown(value)}")
    return value


def timestamp(value: object) -> float:
    """Return seconds since 1970 that have a date; raises ValueError for anything else."""
    seconds = number(value)
    if not 0.0 <= seconds <= _LAST_TIMESTAMP_SECONDS:
        raise ValueError(f"expected a time, found {seconds:g}")
    return seconds


def texts(value: object) -> tuple[str, ...]:
    """Return a JSON list of texts; raises ValueError for anything else."""
    return _texts(text(value))


@lru_cache(maxsize=4096)  # each stage's labels stand in some thirty rows
def _texts(document: str) -> tuple[str, ...]:
    found = json.loads(document)
    if not isinstance(found, list):
        raise ValueError(f"expected a list, found {shown(found)}")
    return tuple(map(text, found))


def shown(value: object) -> str:
    """Return a value in a message: short, whatever it is."""
    return repr(value)[:40]
