"""Build tables: series as rows, their labels and the values of several queries as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from grafanalib.core import Panel, Table
from msgspec import Struct

from paropt_exporter.monitoring.dashboards.panels import Query, build_common_arguments
from paropt_exporter.monitoring.dashboards.scales import COUNT, Colour, Scale


class Column(Struct, frozen=True, kw_only=True):
    """A column of a table: a label's name, or the letter of the query whose values it shows."""

    source: str
    title: str
    scale: Scale | None = None
    width: int | None = None
    links: tuple[Mapping[str, object], ...] = ()


MOST_ROWS = 50  # of a table of a fleet: more are hard to read
_NO_LABEL = "-"
HOSTS_COLUMN = Column(source="A", title="Hosts", scale=Scale(unit=COUNT, decimals=0), width=70)


class Order(Struct, frozen=True, kw_only=True):
    """The order of a table's rows, by a column's title."""

    column: str
    descending: bool = True


def build_table(
    title: str,
    description: str,
    queries: Mapping[str, str],
    columns: Sequence[Column],
    *,
    order: Order | None = None,
    no_value: str = "none",
) -> Panel:
    """Show the queries' series as rows; values with the same labels share a row.

    `queries` are by the letters that columns name; a query without a column only adds rows. Rows are ordered by the
    first column of values, greatest first, unless `order` is given.
    """
    sources = {column.source: _name_field(column.source, queries) for column in columns}
    positions = {sources[column.source]: index for index, column in enumerate(columns)}
    renamed = {sources[column.source]: column.title for column in columns}
    hidden = ["Time", *(_name_field(letter, queries) for letter in queries if letter not in sources)]
    by_value = [Order(column=column.title) for column in columns if column.source in queries][:1]
    orders = [order] if order is not None else by_value
    targets = [Query(expr=expr) for expr in queries.values()]
    return Table(
        **build_common_arguments(title, description, targets, instant=True, form="table"),
        span=None,
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": positions,
                    "renameByName": renamed,
                },
            },
        ],
        extraJson={
            "fieldConfig": {
                "defaults": {**_build_defaults(), "noValue": no_value},
                "overrides": [_build_override(column, label=column.source not in queries) for column in columns],
            },
            "options": {
                "cellHeight": "sm",
                "frameIndex": 0,
                "showHeader": True,
                "sortBy": [{"desc": each.descending, "displayName": each.column} for each in orders],
            },
        },
    )


def _name_field(source: str, queries: Mapping[str, str]) -> str:
    """Return Grafana's name of a column, which has the query's letter only if there are several queries."""
    if source not in queries:
        return source
    return f"Value #{source}" if len(queries) > 1 else "Value"


def _build_defaults() -> dict[str, object]:
    """Return the default settings of cells."""
    return {
        "color": {"mode": "thresholds"},
        "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
        "mappings": [],
        "thresholds": {"mode": "absolute", "steps": Scale(unit="short", below=Colour.BOUND).build_thresholds()},
        "unit": "short",
    }


def _build_override(column: Column, *, label: bool) -> dict[str, object]:
    # The panel's own word for no value is about the whole table, and a series may lack a label.
    properties: list[dict[str, object]] = [{"id": "noValue", "value": _NO_LABEL}] if label else []
    if column.width is not None:
        properties.append({"id": "custom.width", "value": column.width})
    if column.links:
        properties.append({"id": "links", "value": [*column.links]})
    if column.scale is not None:
        scale = column.scale
        coloured = bool(scale.steps or scale.words)
        properties += [
            {"id": "unit", "value": scale.unit},
            {"id": "mappings", "value": scale.build_mappings()},
            {"id": "thresholds", "value": {"mode": "absolute", "steps": scale.build_thresholds()}},
            {"id": "custom.cellOptions", "value": {"type": "color-text" if coloured else "auto"}},
        ]
        if scale.decimals is not None:
            properties.append({"id": "decimals", "value": scale.decimals})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}
