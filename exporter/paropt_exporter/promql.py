"""Build PromQL selectors from metric definitions, so that no query names an unknown metric or label."""

from __future__ import annotations

import json
from collections.abc import Mapping

from msgspec import Struct

from paropt_exporter.families import Family, Kind

TARGET_LABELS = ("job", "instance")  # Prometheus adds them to every series of a target
_PARTS = ("bucket", "sum", "count")

Match = str | tuple[str, ...]  # a label's value, or the values that it may have


class Without(Struct, frozen=True):
    """Match every series whose label has none of these values."""

    values: tuple[str, ...]


def select(family: Family, base: str = "", *, part: str = "", over: str = "", **labels: Match | Without) -> str:
    """Return a selector: `name{base,label="value",other=~"a|b"}[over]`.

    `base`: matchers as text, put first. `part`: `bucket`, `sum` or `count` of a histogram. Values are literal, never
    regular expressions. Raises ValueError for a label that the family does not have, or a part that its kind has not.
    """
    return build_selector(family, labels, base=base, part=part, over=over)


def build_selector(
    family: Family, labels: Mapping[str, Match | Without], *, base: str = "", part: str = "", over: str = ""
) -> str:
    """Return a selector as `select` does, with the labels in a mapping."""
    unknown = set(labels) - {*family.label_names, *TARGET_LABELS}
    if unknown:
        raise ValueError(f"{family.name} has no label {', '.join(sorted(unknown))}; it has {family.label_names}")
    if (part in _PARTS) != (family.kind is Kind.HISTOGRAM):
        raise ValueError(f"{family.name} is a {family.kind.value}: it has no part {part!r} to select")
    matchers = ",".join([*([base] if base else []), *(_build_matcher(label, value) for label, value in labels.items())])
    name = f"{family.name}_{part}" if part else family.name
    return name + (f"{{{matchers}}}" if matchers else "") + (f"[{over}]" if over else "")


def _build_matcher(label: str, value: Match | Without) -> str:
    match value:
        case str():
            return f"{label}={quote(value)}"
        case Without((only,)):
            return f"{label}!={quote(only)}"
        case Without(values):
            return f"{label}!~{_match_any(values)}"
        case _:
            return f"{label}=~{_match_any(value)}"


def quote(text: str) -> str:
    """Return the text as a PromQL string; JSON's escapes are a subset of Go's."""
    return json.dumps(text, ensure_ascii=False)


def _match_any(values: tuple[str, ...]) -> str:
    return quote("|".join(_escape(value) for value in values))


def _escape(value: str) -> str:
    """Escape the operators of RE2."""
    return "".join(f"\\{letter}" if letter in r"\.+*?()|[]{}^$" else letter for letter in value)
