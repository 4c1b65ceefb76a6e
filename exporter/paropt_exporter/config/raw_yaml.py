"""Look at a config's plain values before they are known to be right: whatever has the wrong type looks empty."""

from __future__ import annotations

from paropt_exporter.config.faults import Location

RawStage = tuple[Location, dict[str, object]]


def mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def entries(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def words(value: object) -> list[str]:
    """Return a list's words as they were written."""
    return [str(getattr(word, "text", word)) for word in entries(value) if not isinstance(word, dict | list)]


def stages(file: dict[str, object]) -> list[RawStage]:
    """Return each stage with its location."""
    return [(("stages", index), mapping(stage)) for index, stage in enumerate(entries(file.get("stages")))]


def lanes(file: dict[str, object]) -> dict[str, dict[str, object]]:
    return {name: mapping(lane) for name, lane in mapping(file.get("lanes")).items()}


def name(stage: dict[str, object]) -> str:
    """Return a stage's name, "" where it has none that is a word."""
    written = getattr(stage.get("name"), "text", stage.get("name"))
    return written if isinstance(written, str) else ""


def names(found: list[RawStage]) -> dict[str, None]:
    """Return the names of stages, in order; a dict, since a set has none."""
    return {word: None for _, stage in found if (word := name(stage))}
