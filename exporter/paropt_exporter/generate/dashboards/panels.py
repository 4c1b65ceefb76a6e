"""The building blocks of the dashboards: each makes one panel that answers the question in its title.

A panel's title is its question; its description says what to do when the answer is bad. Panels get their place from
`layout`. What grafanalib can't say goes through its `extraJson`, in the shape that Grafana saves today.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from grafanalib.core import BarGauge, GaugePanel, Heatmap, Panel, Repeat, Stat, StateTimeline, Table, Target, TimeSeries

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# A query over 50,000 series (500 hosts, 100 stages) at this many points takes under a second; a screen shows no more.
MOST_POINTS = 240
MOST_BARS = 60
_LAST = "lastNotNull"
_DRAWN = {"axisBorderShow": False, "barWidthFactor": 0.8, "lineInterpolation": "linear", "showPoints": "never"}


class Colour(StrEnum):
    """The few colours, each with one meaning."""

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


class Line(StrEnum):
    """How a series is drawn that is no measurement but what measurements are held against."""

    LIMIT = Colour.BAD
    WARNING = Colour.WATCH
    BOUND = Colour.BOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of a panel. `legend`: a template of labels; `line`: its series are drawn dashed, as a limit is.

    `listed`: whether the legend lists its series; a limit for each stage would hide the stages.
    """

    expr: str
    legend: str = ""
    line: Line | None = None
    listed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From this value on a panel has this colour."""

    value: float
    colour: Colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """What a panel's numbers mean: Grafana's unit, its colours, the words for values, the ends of its axis."""

    unit: str
    below: Colour = Colour.PLAIN
    steps: tuple[Step, ...] = ()
    words: tuple[tuple[str, str, Colour], ...] = ()  # value, word, colour
    minimum: float | None = 0
    maximum: float | None = None
    decimals: int | None = None

    def thresholds(self) -> list[dict[str, object]]:
        steps: list[tuple[Colour, float | None]] = [(self.below, None)]
        steps += [(step.colour, step.value) for step in self.steps]
        return [{"color": colour, "value": value} for colour, value in steps]

    def mappings(self) -> list[dict[str, object]]:
        if not self.words:
            return []
        options = {
            value: {"color": colour, "index": index, "text": word}
            for index, (value, word, colour) in enumerate(self.words)
        }
        return [{"type": "value", "options": options}]

    def defaults(self) -> dict[str, object]:
        return {
            "color": {"mode": "thresholds"},
            "decimals": self.decimals,
            "mappings": self.mappings(),
            "max": self.maximum,
            "min": self.minimum,
            "thresholds": {"mode": "absolute", "steps": self.thresholds()},
            "unit": self.unit,
        }


def more_is_worse(
    unit: str, *, watch: float, bad: float, maximum: float | None = None, decimals: int | None = None
) -> Scale:
    """Return a scale that is good below `watch` and bad from `bad` on."""
    steps = (Step(value=watch, colour=Colour.WATCH), Step(value=bad, colour=Colour.BAD))
    return Scale(unit=unit, below=Colour.GOOD, steps=steps, maximum=maximum, decimals=decimals)


def less_is_worse(unit: str, *, good: float, watch: float, maximum: float | None = None) -> Scale:
    """Return a scale that is bad below `watch` and good from `good` on."""
    steps = (Step(value=watch, colour=Colour.WATCH), Step(value=good, colour=Colour.GOOD))
    return Scale(unit=unit, below=Colour.BAD, steps=steps, maximum=maximum)


def none_is_good(unit: str = "short") -> Scale:
    """Return a scale for counts of what should not be there."""
    return Scale(unit=unit, below=Colour.GOOD, steps=(Step(value=1, colour=Colour.BAD),), decimals=0)


def yes_or_no(yes: str, no: str, *, yes_is_good: bool) -> Scale:
    """Return a scale for a 0/1 value."""
    good, bad = ((yes, "1"), (no, "0")) if yes_is_good else ((no, "0"), (yes, "1"))
    return Scale(unit="short", words=((good[1], good[0], Colour.GOOD), (bad[1], bad[0], Colour.BAD)))


def stat(title: str, description: str, query: Query, scale: Scale, *, no_value: str = "unknown") -> Panel:
    """Show one number as it is now, or one below the other where the query has a legend."""
    return Stat(
        **_common(title, description, [query], instant=True),
        colorMode="background",
        graphMode="none",
        textMode="value_and_name" if query.legend else "value",
        reduceCalc=_LAST,
        extraJson={
            "fieldConfig": {"defaults": {**scale.defaults(), "noValue": no_value}},
            "options": {
                "justifyMode": "auto",
                "orientation": "horizontal" if query.legend else "auto",
                "percentChangeColorMode": "standard",
                "showPercentChange": False,
                "wideLayout": True,
            },
        },
    )


def gauge(title: str, description: str, query: Query, scale: Scale, *, no_value: str = "unknown") -> Panel:
    """Show one number as it is now between its ends."""
    options = {
        "minVizHeight": 75,
        "minVizWidth": 75,
        "orientation": "auto",
        "reduceOptions": _reduced(),
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
    }
    return GaugePanel(
        **_common(title, description, [query], instant=True),
        extraJson={"fieldConfig": {"defaults": {**scale.defaults(), "noValue": no_value}}, "options": options},
    )


def bar_gauge(title: str, description: str, query: Query, scale: Scale, *, no_value: str = "none") -> Panel:
    """Show one bar a series, as it is now."""
    options = {
        "displayMode": "basic",
        "legend": {**_legend(), "showLegend": False},
        "maxVizHeight": 28,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": _reduced(),
        "showUnfilled": True,
        "sizing": "manual",
        "valueMode": "color",
    }
    return BarGauge(
        **_common(title, description, [query], instant=True),
        extraJson={"fieldConfig": {"defaults": {**scale.defaults(), "noValue": no_value}}, "options": options},
    )


def time_series(
    title: str,
    description: str,
    queries: Sequence[Query],
    scale: Scale,
    *,
    colours: Mapping[str, Colour] = MappingProxyType({}),
    repeat: str = "",
) -> Panel:
    """Show what is measured over time, as lines.

    `colours` by the series' name; `repeat`: a variable, for each of whose values there is a panel.
    """
    custom = {**_DRAWN, "drawStyle": "line", "fillOpacity": 0, "lineWidth": 2}
    return TimeSeries(
        **_common(title, description, queries, instant=False),
        repeat=Repeat(direction="h", variable=repeat) if repeat else Repeat(),
        extraJson={
            "fieldConfig": {
                "defaults": {**_over_time(scale, custom), "noValue": "no samples"},
                "overrides": [
                    *(_dashed(letter, query) for letter, query in _lettered(queries) if query.line),
                    *(_coloured(name, colour) for name, colour in colours.items()),
                ],
            },
            "options": {"legend": _legend(), "tooltip": {"hideZeros": False, "mode": "multi", "sort": "desc"}},
        },
    )


def bars(
    title: str, description: str, query: Query, scale: Scale, *, colours: Mapping[str, Colour] = MappingProxyType({})
) -> Panel:
    """Show what was counted in each interval, as bars on top of each other; `colours` by the series' name."""
    custom = {
        **_DRAWN, "axisSoftMax": 1, "drawStyle": "bars", "fillOpacity": 60, "lineWidth": 0,
        "stacking": {"group": "A", "mode": "normal"},
    }  # fmt: skip
    return TimeSeries(
        **{**_common(title, description, [query], instant=False), "maxDataPoints": MOST_BARS},
        extraJson={
            "fieldConfig": {
                "defaults": {**_over_time(scale, custom), "noValue": "none seen"},
                "overrides": [_coloured(name, colour) for name, colour in colours.items()],
            },
            "options": {"legend": _legend(), "tooltip": {"hideZeros": True, "mode": "multi", "sort": "desc"}},
        },
    )


def state_timeline(title: str, description: str, query: Query, scale: Scale) -> Panel:
    """Show one row a series, coloured by its state over time."""
    defaults = {**scale.defaults(), "custom": {"fillOpacity": 80, "lineWidth": 0}, "noValue": "no samples"}
    return StateTimeline(
        **_common(title, description, [query], instant=False),
        rowHeight=0.85,
        showValue="never",
        extraJson={
            "fieldConfig": {"defaults": defaults},
            "options": {"legend": _legend(), "perPage": 30, "tooltip": {"mode": "single", "sort": "none"}},
        },
    )


def heatmap(title: str, description: str, query: Query, *, unit: str) -> Panel:
    """Show how observations spread over a histogram's buckets; the query's series are buckets, one a `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": "short"},
        "color": {
            "exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": False, "scale": "exponential",
            "scheme": "Oranges", "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }  # fmt: skip
    common = _common(title, description, [query], instant=False, form="heatmap")
    defaults = {"custom": {"scaleDistribution": {"type": "linear"}}, "unit": "short"}
    return Heatmap(**common, options={}, extraJson={"fieldConfig": {"defaults": defaults}, "options": options})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table: a label's name, or the letter of the query whose values stand in it."""

    source: str
    title: str
    scale: Scale | None = None
    width: int | None = None


def hosts(source: str) -> Column:
    """Return the column that counts on how many hosts something is so."""
    return Column(source=source, title="Hosts", scale=Scale(unit="short", decimals=0), width=70)


def table(title: str, description: str, queries: Mapping[str, str], columns: Sequence[Column]) -> Panel:
    """Show the queries' series as rows: the values of those with the same labels stand in one row.

    `queries` by the letter that columns name; a query without a column only says which rows there are. Rows are ordered
    by the first column of values, greatest first.
    """
    sources = {column.source: _field(column.source, queries) for column in columns}
    order = {sources[column.source]: index for index, column in enumerate(columns)}
    renamed = {sources[column.source]: column.title for column in columns}
    hidden = ["Time", *(_field(letter, queries) for letter in queries if letter not in sources)]
    first = [column.title for column in columns if column.source in queries][:1]
    targets = [Query(expr=expr) for expr in queries.values()]
    return Table(
        **_common(title, description, targets, instant=True, form="table"),
        span=None,
        transformations=[
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(hidden, True),
                    "indexByName": order,
                    "renameByName": renamed,
                },
            },
        ],
        extraJson={
            "fieldConfig": {
                "defaults": {
                    "color": {"mode": "thresholds"},
                    "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": True, "inspect": False},
                    "mappings": [],
                    "noValue": "none",
                    "thresholds": {"mode": "absolute", "steps": Scale(unit="short", below=Colour.BOUND).thresholds()},
                    "unit": "short",
                },
                "overrides": [_column(column) for column in columns if column.scale or column.width],
            },
            "options": {
                "cellHeight": "sm",
                "frameIndex": 0,
                "showHeader": True,
                "sortBy": [{"desc": True, "displayName": title} for title in first],
            },
        },
    )


def _common(
    title: str, description: str, queries: Sequence[Query], *, instant: bool, form: str = "time_series"
) -> dict[str, Any]:
    targets = [
        Target(expr=query.expr, legendFormat=query.legend or "__auto", refId=letter, instant=instant, format=form)
        for letter, query in _lettered(queries)
    ]
    return {
        "title": title,
        "description": description,
        "targets": targets,
        "dataSource": DATASOURCE,
        "maxDataPoints": MOST_POINTS,
    }


def _lettered(queries: Sequence[Query]) -> list[tuple[str, Query]]:
    return [*zip(string.ascii_uppercase, queries, strict=False)]


def _field(source: str, queries: Mapping[str, str]) -> str:
    """Return the name that Grafana gives to a column: a query's letter stands there only where there are several."""
    if source not in queries:
        return source
    return f"Value #{source}" if len(queries) > 1 else "Value"


def _column(column: Column) -> dict[str, object]:
    properties: list[dict[str, object]] = []
    if column.width is not None:
        properties.append({"id": "custom.width", "value": column.width})
    if column.scale is not None:
        scale = column.scale
        coloured = bool(scale.steps or scale.words)
        properties += [
            {"id": "unit", "value": scale.unit},
            {"id": "mappings", "value": scale.mappings()},
            {"id": "thresholds", "value": {"mode": "absolute", "steps": scale.thresholds()}},
            {"id": "custom.cellOptions", "value": {"type": "color-text" if coloured else "auto"}},
        ]
        if scale.decimals is not None:
            properties.append({"id": "decimals", "value": scale.decimals})
    return {"matcher": {"id": "byName", "options": column.title}, "properties": properties}


def _over_time(scale: Scale, custom: Mapping[str, object]) -> dict[str, object]:
    return {**scale.defaults(), "color": {"mode": "palette-classic"}, "custom": custom}


def _dashed(letter: str, query: Query) -> dict[str, object]:
    """Draw a query's series as a limit is drawn."""
    assert query.line is not None
    properties: list[dict[str, object]] = [
        {"id": "color", "value": {"fixedColor": query.line.value, "mode": "fixed"}},
        {"id": "custom.lineStyle", "value": {"dash": [8, 6], "fill": "dash"}},
        {"id": "custom.lineWidth", "value": 1},
    ]
    if not query.listed:
        properties.append({"id": "custom.hideFrom", "value": {"legend": True, "tooltip": False, "viz": False}})
    return {"matcher": {"id": "byFrameRefID", "options": letter}, "properties": properties}


def _coloured(name: str, colour: Colour) -> dict[str, object]:
    fixed = {"id": "color", "value": {"fixedColor": colour, "mode": "fixed"}}
    return {"matcher": {"id": "byName", "options": name}, "properties": [fixed]}


def _legend() -> dict[str, object]:
    return {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}


def _reduced() -> dict[str, object]:
    return {"calcs": [_LAST], "fields": "", "values": False}
