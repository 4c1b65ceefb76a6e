"""Pick the exposition format that a scraper asks for in its Accept header."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Format(Enum):
    """The formats that are written; the value is the Content-Type without escaping."""

    TEXT_0 = "text/plain; version=0.0.4; charset=utf-8"
    TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A format, and the whole Content-Type to answer with."""

    format: Format
    content_type: str


_ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")
_BY_MEDIA_TYPE = {
    ("text/plain", "0.0.4"): Format.TEXT_0,
    ("text/plain", "1.0.0"): Format.TEXT_1,
    ("text/plain", ""): Format.TEXT_0,
    ("application/openmetrics-text", "1.0.0"): Format.OPENMETRICS,
}
_ACCEPT_CHARACTERS = 4096  # Prometheus sends some 250; what stands behind this many is not looked at


def choose(accept: str) -> Choice:
    """Return what is answered to an Accept header: of what it weighs highest the first, else text 0.0.4.

    Whatever the header says there is an answer: a scraper that names an unknown version must not get an error.
    """
    best, best_weight = Choice(format=Format.TEXT_0, content_type=Format.TEXT_0.value), 0.0
    for entry in accept[:_ACCEPT_CHARACTERS].split(","):
        media_type, parameters = _parsed(entry)
        found = _BY_MEDIA_TYPE.get((media_type, parameters.get("version", "")))
        weight = _weight(parameters.get("q", "1"))
        if found is not None and weight > best_weight:
            best, best_weight = _choice(found, parameters.get("escaping", "")), weight
    return best


def _choice(chosen: Format, escaping: str) -> Choice:
    # Every name here is valid in the old alphabet, so all escapings are the same text.
    known = escaping in _ESCAPINGS and chosen is not Format.TEXT_0
    return Choice(format=chosen, content_type=f"{chosen.value}; escaping={escaping}" if known else chosen.value)


def _parsed(entry: str) -> tuple[str, dict[str, str]]:
    media_type, *rest = (part.strip().lower() for part in entry.split(";"))
    pairs = (part.partition("=") for part in rest)
    return media_type, {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 < weight <= 1 else 0.0
