"""Scales of panels: units, colours and their meaning, words for values."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

COUNT = "locale"  # whole numbers; `short` without decimals shows 2,640 as 3 K


class Colour(StrEnum):
    """Colours, each with one meaning."""

    GOOD = "green"
    WATCH = "orange"
    BAD = "red"
    PLAIN = "blue"
    BOUND = "text"
    IDLE = "transparent"


BY_RESULT = {
    "success": Colour.GOOD,
    "failure": Colour.BAD,
    "error": Colour.BAD,
    "timeout": Colour.WATCH,
    "cancellation": Colour.BOUND,
}


class Step(Struct, frozen=True, kw_only=True):
    """A threshold: from this value on, a panel has this colour."""

    value: float
    colour: Colour


class Scale(Struct, frozen=True, kw_only=True):
    """A panel's unit, colours, words for values and axis.

    `missing`: the word for a missing value, without a colour. `drawn`: a chart draws the steps as dashed lines.
    """

    unit: str
    below: Colour = Colour.PLAIN
    steps: tuple[Step, ...] = ()
    missing: str = ""
    words: tuple[tuple[str, str, Colour], ...] = ()  # value, word, colour
    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None
    drawn: bool = False

    def build_thresholds(self) -> list[dict[str, object]]:
        steps: list[tuple[Colour, float | None]] = [(self.below, None)]
        steps += [(step.colour, step.value) for step in self.steps]
        return [{"color": colour, "value": value} for colour, value in steps]

    def build_mappings(self) -> list[dict[str, object]]:
        mappings: list[dict[str, object]] = []
        if self.words:
            options = {
                value: {"color": colour, "index": index, "text": word}
                for index, (value, word, colour) in enumerate(self.words)
            }
            mappings.append({"type": "value", "options": options})
        if self.missing:  # Grafana gives a missing value the colour of the lowest one
            result = {"color": Colour.BOUND, "index": len(self.words), "text": self.missing}
            mappings.append({"type": "special", "options": {"match": "null+nan", "result": result}})
        return mappings

    def build_field_defaults(self) -> dict[str, object]:
        return {
            "color": {"mode": "thresholds"},
            "decimals": self.decimals,
            "mappings": self.build_mappings(),
            "max": self.maximum,
            "min": self.minimum,
            "thresholds": {"mode": "absolute", "steps": self.build_thresholds()},
            "unit": self.unit,
        }


def more_is_worse(
    unit: str,
    *,
    watch: float,
    bad: float,
    maximum: float | None = None,
    decimals: int | None = None,
    missing: str = "",
) -> Scale:
    """Return a scale that is good below `watch` and bad from `bad` on."""
    steps = (Step(value=watch, colour=Colour.WATCH), Step(value=bad, colour=Colour.BAD))
    return Scale(unit=unit, below=Colour.GOOD, steps=steps, maximum=maximum, decimals=decimals, missing=missing)


def less_is_worse(*, good: float, watch: float, maximum: float | None = None) -> Scale:
    """Return a scale for ratios that is bad below `watch` and good from `good` on."""
    steps = (Step(value=watch, colour=Colour.WATCH), Step(value=good, colour=Colour.GOOD))
    return Scale(unit="percentunit", below=Colour.BAD, steps=steps, maximum=maximum)


def limit_at(limit: float) -> Scale:
    """Return a scale for charts of ratios with a drawn limit."""
    return Scale(unit="percentunit", steps=(Step(value=limit, colour=Colour.BAD),), drawn=True)


def none_is_good() -> Scale:
    """Return a scale for counts that should be 0."""
    return Scale(unit=COUNT, below=Colour.GOOD, steps=(Step(value=1, colour=Colour.BAD),), decimals=0)


def name_states(colours: Mapping[str, Colour]) -> Scale:
    """Return a scale for a label whose values are states, by their names."""
    return Scale(unit="short", words=tuple((name, name, colour) for name, colour in colours.items()))


def yes_or_no(yes: str, no: str, *, yes_is_good: bool) -> Scale:
    """Return a scale for a 0/1 value."""
    good, bad = ((yes, "1"), (no, "0")) if yes_is_good else ((no, "0"), (yes, "1"))
    return Scale(unit="short", words=((good[1], good[0], Colour.GOOD), (bad[1], bad[0], Colour.BAD)))
