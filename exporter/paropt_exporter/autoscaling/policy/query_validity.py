"""Decide which query results are valid: readings have a value and an age, or the reason for their rejection."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

STALE_INTERVALS = 2.5  # an older sample means at least two missed scrapes
SETTLED_SCRAPES = 4  # a rate over fewer scrapes says little
LOCAL_TOLERANCE_RATIO = 0.25
# Clocks of two machines differ a little; an answer that is a minute off comes from a cache.
CLOCK_TOLERANCE_SECONDS = 60.0
_FUTURE_SECONDS = 1.0


class Reading(Struct, frozen=True, kw_only=True):
    """A signal's value. `rejection_reason`: one of REJECTION_REASONS, or "" if it is valid; `detail` explains it."""

    value: float = math.nan
    age_seconds: float = 0.0
    source: str = "prometheus"
    rejection_reason: str = ""
    detail: str = ""

    @property
    def is_valid(self) -> bool:
        return not self.rejection_reason


class SeriesValue(Struct, frozen=True, kw_only=True):
    """One series of a query result."""

    labels: tuple[tuple[str, str], ...]
    value: float

    def get_label(self, name: str) -> str:
        return dict(self.labels).get(name, "")


class QueryResult(Struct, frozen=True, kw_only=True):
    """Prometheus' answer at its own time `evaluated_timestamp_seconds`. `kind`: vector, scalar, matrix, string."""

    kind: str
    elements: tuple[SeriesValue, ...] = ()
    evaluated_timestamp_seconds: float = math.nan
    warnings: tuple[str, ...] = ()


def validate_answer(answer: QueryResult, *, now_timestamp_seconds: float) -> Reading | None:
    """Return a rejection if the answer as a whole is invalid; None if its values have to be checked."""
    if answer.kind not in ("vector", "scalar"):
        return reject_reading("not_a_number", f"the answer is a {answer.kind}, not a number")
    if answer.warnings:
        return reject_reading("partial", answer.warnings[0])
    if not answer.elements:
        return reject_reading("no_data", "the answer is empty")
    off = answer.evaluated_timestamp_seconds - now_timestamp_seconds
    if not math.isfinite(off) or off < -CLOCK_TOLERANCE_SECONDS:
        return reject_reading("stale", f"the answer was computed {-off:.0f} s ago, or the clocks differ")
    if off > CLOCK_TOLERANCE_SECONDS:
        return reject_reading("future", f"the answer was computed {off:.0f} s from now: the clocks differ")
    return None


def validate_value(
    elements: Sequence[SeriesValue], *, age_seconds: float = 0.0, interval_seconds: float | None = None
) -> Reading:
    """Return the reading of a signal, which must have exactly one finite value that is not too old.

    `interval_seconds`: the time between scrapes, or between queries if that is unknown. `age_seconds` is None if
    unknown, as for an expression over several series.
    """
    if not elements:
        return reject_reading("no_data", "the answer is empty")
    if len(elements) > 1:
        return reject_reading(
            "several_sources", f"{len(elements)} series instead of one: aggregate them, as with sum()"
        )
    value = elements[0].value
    if not math.isfinite(value):
        return reject_reading("not_finite", f"the value is {value}")
    if not math.isfinite(age_seconds):
        return reject_reading("not_finite", "the sample's age is no number")
    if age_seconds < -_FUTURE_SECONDS:
        return reject_reading("future", f"the sample is from {-age_seconds:.0f} s in the future: the clocks differ")
    if interval_seconds is not None and age_seconds > STALE_INTERVALS * interval_seconds:
        most = f"{STALE_INTERVALS:g} intervals of {interval_seconds:.3g} s"
        return reject_reading("stale", f"the sample is {age_seconds:.0f} s old, over {most}")
    return Reading(value=value, age_seconds=max(0.0, age_seconds))


def compare_with_local(reading: Reading, local: float, *, least: float) -> Reading:
    """Reject a reading that differs from our own counters by more than 25 % and more than `least`."""
    apart = abs(reading.value - local)
    if reading.rejection_reason or apart <= max(LOCAL_TOLERANCE_RATIO * max(abs(local), abs(reading.value)), least):
        return reading
    return reject_reading("disagree", f"Prometheus says {reading.value:.4g}, our own counters say {local:.4g}")


def reject_reading(rejection_reason: str, detail: str) -> Reading:
    return Reading(rejection_reason=rejection_reason, detail=detail)
