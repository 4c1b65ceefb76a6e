"""Validate values of a history, which another program may have edited: SQLite allows text in columns of numbers."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from paropt_exporter.events import Shard

_TEXTS = msgspec.json.Decoder(tuple[str, ...])  # the start of a lane with 1,000 stages reads 15,000 lists
_LAST_TIMESTAMP_SECONDS = 253_402_214_400.0  # the end of the year 9999 less a day, for zones east of Greenwich


def to_text(value: object) -> str:
    """Return a text; raises ValueError for anything else."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {type(value).__name__}")
    return value


def to_number(value: object) -> float:
    """Return a finite number, 0 for NULL; raises ValueError for anything else."""
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"expected a number, found {_shorten(value)}")
    return float(value)


def to_count(value: object) -> int:
    """Return a non-negative integer, 0 for NULL; raises ValueError for anything else."""
    if value is None:
        return 0
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a count, found {_shorten(value)}")
    return value


def to_timestamp(value: object) -> float:
    """Return seconds since 1970, up to the year 9999; raises ValueError for anything else."""
    seconds = to_number(value)
    if not 0.0 <= seconds <= _LAST_TIMESTAMP_SECONDS:
        raise ValueError(f"expected a time, found {seconds:g}")
    return seconds


def to_texts(value: object) -> tuple[str, ...]:
    """Return a JSON list of texts; raises ValueError for anything else."""
    return _parse_texts(to_text(value))


def to_shard(shard: object, split: object) -> Shard | None:
    """Return the shard of a run, None for ""; raises ValueError for anything else."""
    index, slash, count = to_text(shard).partition("/")
    return Shard(index=int(index), count=int(count), split=to_text(split)) if slash else None


@lru_cache(maxsize=4096)  # each stage's labels are in some thirty rows
def _parse_texts(document: str) -> tuple[str, ...]:
    try:
        return _TEXTS.decode(document)
    except msgspec.DecodeError:
        pass  # not such a list, or a name that is not valid Unicode, which json accepts
    import json  # here: almost no history has such a list

    found = json.loads(document)
    if not isinstance(found, list):
        raise ValueError(f"expected a list, found {_shorten(found)}")
    return tuple(map(to_text, found))


def _shorten(value: object) -> str:
    """Return a short representation of a value, for a message."""
    return repr(value)[:40]
