"""Choose the exposition format by a scraper's Accept header."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Format(Enum):
    """The supported formats; the value is the Content-Type without escaping."""

    TEXT_0 = "text/plain; version=0.0.4; charset=utf-8"
    TEXT_1 = "text/plain; version=1.0.0; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class ContentChoice(Struct, frozen=True, kw_only=True):
    """A format with the Content-Type of the response."""

    format: Format
    content_type: str


_ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")
_BY_MEDIA_TYPE = {
    ("text/plain", "0.0.4"): Format.TEXT_0,
    ("text/plain", "1.0.0"): Format.TEXT_1,
    ("text/plain", ""): Format.TEXT_0,
    ("application/openmetrics-text", "1.0.0"): Format.OPENMETRICS,
    ("application/openmetrics-text", ""): Format.OPENMETRICS,
}
_ACCEPT_CHARACTERS = 4096  # Prometheus sends some 250; the rest of a longer header is ignored


def negotiate(accept: str) -> ContentChoice:
    """Return the format with the highest weight in an Accept header, the first of several; by default text 0.0.4.

    It never fails: a scraper that asks for an unknown version must not get an error.
    """
    best, best_weight = ContentChoice(format=Format.TEXT_0, content_type=Format.TEXT_0.value), 0.0
    for entry in accept[:_ACCEPT_CHARACTERS].split(","):
        media_type, parameters = _parse_entry(entry)
        found = _BY_MEDIA_TYPE.get((media_type, parameters.get("version", "")))
        weight = _parse_weight(parameters.get("q", "1"))
        if found is not None and weight > best_weight:
            best, best_weight = _build_choice(found, parameters.get("escaping", "")), weight
    return best


def _build_choice(chosen: Format, escaping: str) -> ContentChoice:
    # All our names consist of letters, digits and underscores, so every escaping scheme gives the same text.
    known = escaping in _ESCAPINGS and chosen is not Format.TEXT_0
    return ContentChoice(format=chosen, content_type=f"{chosen.value}; escaping={escaping}" if known else chosen.value)


def _parse_entry(entry: str) -> tuple[str, dict[str, str]]:
    media_type, *rest = (part.strip().lower() for part in entry.split(";"))
    pairs = (part.partition("=") for part in rest)
    return media_type, {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def _parse_weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 < weight <= 1 else 0.0
