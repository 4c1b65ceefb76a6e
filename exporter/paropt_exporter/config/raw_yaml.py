"""Read parts of a config's plain values before validation. A value of a wrong type counts as empty."""

from __future__ import annotations

from itertools import count

from paropt_exporter.config.faults import Location

RawStage = tuple[Location, dict[str, object]]


def as_mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def list_words(value: object) -> list[str]:
    """Return a list's words as written in the file."""
    return [str(getattr(word, "text", word)) for word in as_list(value) if not isinstance(word, dict | list)]


def list_stages(file: dict[str, object]) -> list[RawStage]:
    """Return each stage with its location."""
    return [(("stages", index), as_mapping(stage)) for index, stage in enumerate(as_list(file.get("stages")))]


def number_stages(value: object) -> object:
    """Return a file's value with a number for each stage that has none: the next one above all before it.

    Numbers that later stages have in the file are left out.
    """
    if not isinstance(value, dict) or not isinstance(listed := value.get("stages"), list):
        return value
    written = {number for stage in listed if (number := _get_number(stage)) is not None}
    numbered: list[object] = []
    highest = 0
    for stage in listed:
        if isinstance(stage, dict) and stage.get("number") is None:
            highest = next(number for number in count(highest + 1) if number not in written)
            numbered.append({**stage, "number": highest})
        else:
            highest = max(highest, _get_number(stage) or 0)
            numbered.append(stage)
    return {**value, "stages": numbered}


def _get_number(stage: object) -> int | None:
    number = stage.get("number") if isinstance(stage, dict) else None
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def get_lanes(file: dict[str, object]) -> dict[str, dict[str, object]]:
    return {name: as_mapping(lane) for name, lane in as_mapping(file.get("lanes")).items()}


def get_name(stage: dict[str, object]) -> str:
    """Return a stage's name, or "" if it is missing or not a word."""
    written = getattr(stage.get("name"), "text", stage.get("name"))
    return written if isinstance(written, str) else ""


def list_names(found: list[RawStage]) -> dict[str, None]:
    """Return the names of stages in order, as keys of a dict for fast lookup."""
    return {word: None for _, stage in found if (word := get_name(stage))}
