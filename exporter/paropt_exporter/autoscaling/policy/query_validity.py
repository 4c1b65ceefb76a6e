"""A reading: a value with its age and source, and why it is doubtful if it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STALE_INTERVALS = 2.5  # a sample older than this many scrape intervals was missed at least twice
SETTLED_SCRAPES = 4  # a rate over fewer scrapes says little
TWIN_TOLERANCE_RATIO = 0.25
# Clocks of two machines differ by a little; an answer from another minute comes out of somebody's cache.
CLOCK_TOLERANCE_SECONDS = 60.0
_FUTURE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a signal read. `doubt` is one of the catalogue's DOUBTS, "" where it may be believed; `detail` says more."""

    value: float = math.nan
    age_seconds: float = 0.0
    source: str = "prometheus"
    rejection_reason: str = ""
    detail: str = ""

    @property
    def is_valid(self) -> bool:
        return not self.rejection_reason


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesValue:
    """One series of an answer."""

    labels: tuple[tuple[str, str], ...]
    value: float

    def label(self, name: str) -> str:
        return dict(self.labels).get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """What Prometheus said at its own time `evaluated_timestamp_seconds`. `kind`: vector, scalar, matrix, string."""

    kind: str
    elements: tuple[SeriesValue, ...] = ()
    evaluated_timestamp_seconds: float = math.nan
    warnings: tuple[str, ...] = ()


def validate_answer(answer: QueryResult, *, now_timestamp_seconds: float) -> Reading | None:
    """Return the doubtful reading that an answer as a whole makes; None: look at its elements."""
    if answer.kind not in ("vector", "scalar"):
        return reject_reading("not_a_number", f"the answer is a {answer.kind}, not a number")
    if answer.warnings:
        return reject_reading("partial", answer.warnings[0])
    if not answer.elements:
        return reject_reading("no_data", "the answer is empty")
    off = answer.evaluated_timestamp_seconds - now_timestamp_seconds
    if not math.isfinite(off) or off < -CLOCK_TOLERANCE_SECONDS:
        return reject_reading("stale", f"the answer was computed {-off:.0f} s ago")
    if off > CLOCK_TOLERANCE_SECONDS:
        return reject_reading("future", f"the answer was computed {off:.0f} s from now: the clocks differ")
    return None


def validate_value(
    elements: Sequence[SeriesValue], *, age_seconds: float = 0.0, interval_seconds: float | None = None
) -> Reading:
    """Return the reading of a signal that must have exactly one finite value, not too old.

    `interval_seconds`: between scrapes; None where the age is not known, as of an expression over several series.
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
        return reject_reading(
            "stale", f"the sample is {age_seconds:.0f} s old, over {STALE_INTERVALS:g} scrape intervals"
        )
    return Reading(value=value, age_seconds=max(0.0, age_seconds))


def compare_with_local(reading: Reading, twin: float, *, least: float) -> Reading:
    """Doubt a reading that is over 25 % away from its local twin; below `least` neither says much."""
    apart = abs(reading.value - twin)
    if reading.rejection_reason or apart <= max(TWIN_TOLERANCE_RATIO * max(abs(twin), abs(reading.value)), least):
        return reading
    return reject_reading("disagree", f"Prometheus says {reading.value:.4g}, our own counters say {twin:.4g}")


def reject_reading(rejection_reason: str, detail: str) -> Reading:
    return Reading(rejection_reason=rejection_reason, detail=detail)
