"""Build data links, which open the dashboard of the lane that a row, bar or line is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LANE_UID = "paropt-lane"
_TITLE = "Open the lane"
# Variables that go on as they are: a query parameter each, or several of one with several values.
_KEPT = ("datasource", "job", "instance")


def link_series(*labels: str) -> dict[str, object]:
    """Return the link of a bar or line whose series has these labels."""
    return _build_link({label: f"__field.labels.{label}" for label in labels})


def link_row(*labels: str) -> dict[str, object]:
    """Return the link of a table's row with columns of these labels, which are capitalized there."""
    return _build_link({label: f"__data.fields.{label.capitalize()}" for label in labels})


def _build_link(chosen: Mapping[str, str]) -> dict[str, object]:
    parameters = "&".join([*_iter_kept(chosen), *_iter_chosen(chosen), "${__url_time_range}"])
    return {"targetBlank": False, "title": _TITLE, "url": f"/d/{LANE_UID}?{parameters}"}


def _iter_kept(chosen: Mapping[str, str]) -> Iterable[str]:
    return (f"${{{name}:queryparam}}" for name in _KEPT if name not in chosen)


def _iter_chosen(chosen: Mapping[str, str]) -> Iterable[str]:
    return (f"var-{label}=${{{source}:percentencode}}" for label, source in chosen.items())
