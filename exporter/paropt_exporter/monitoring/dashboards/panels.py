"""Build panels; each answers the question in its title.

A panel's description says how to react to a bad answer. `layout` places the panels. Settings that grafanalib lacks go
through its `extraJson`, in the shape that Grafana saves today.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from grafanalib.core import BarGauge, GaugePanel, Heatmap, Panel, Repeat, Stat, StateTimeline, Target, TimeSeries
from msgspec import Struct

from paropt_exporter import families as names
from paropt_exporter.monitoring.alerts.selectors import UNASKED
from paropt_exporter.monitoring.dashboards.scales import COUNT, Colour, Scale, less_is_worse
from paropt_exporter.monitoring.dashboards.scope import Scope

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# A query's cost grows with its series and points: 50,000 series (500 hosts of 100 stages) at STAGE_POINTS take half a
# second (benchmarks/scale.py).
MOST_POINTS = 240
STAGE_POINTS = 120
COARSE_POINTS = 60  # for rates and sums of stages' series, and for bars
MOST_LINES = 10  # of a chart of all lanes, pools or projects: more can't be told apart, and a fleet has thousands
# Of queries whose series exist only if the rules are loaded: without them, too, there is none.
NONE_RECORDED = "none, or no rules"
_LAST = "lastNotNull"
# Grafana gives all names the width of the one with most letters, at 12 pixels: shorter names of wider letters are cut.
_NAME_PIXELS = 10
_DRAWN = {"axisBorderShow": False, "barWidthFactor": 0.8, "lineInterpolation": "linear", "showPoints": "never"}


Links = Sequence[Mapping[str, object]]


class Dash(StrEnum):
    """The colour of a dashed line: a limit or bound that measurements are compared with."""

    LIMIT = Colour.BAD
    WARNING = Colour.WATCH
    BOUND = Colour.BOUND


class Query(Struct, frozen=True, kw_only=True):
    """A query of a panel. `legend` is a template of labels; `dash` draws its series dashed, like a limit.

    `listed` says whether the legend lists its series; a limit for each stage would hide the stages.
    """

    expr: str
    legend: str = ""
    dash: Dash | None = None
    listed: bool = True


def build_stat(title: str, description: str, query: Query, scale: Scale, *, no_value: str = "unknown") -> Panel:
    """Show one current number, or a column of them if the query has a legend."""
    options = {
        "justifyMode": "auto",
        "orientation": "horizontal" if query.legend else "auto",
        "percentChangeColorMode": "standard",
        "showPercentChange": False,
        "wideLayout": True,
    }
    return Stat(
        **_build_instant_arguments(title, description, query, scale, no_value, options),
        colorMode="background",
        graphMode="none",
        textMode="value_and_name" if query.legend else "value",
        reduceCalc=_LAST,
    )


def build_gauge(title: str, description: str, query: Query, scale: Scale, *, no_value: str) -> Panel:
    """Show one current number between its minimum and maximum."""
    options = {
        "minVizHeight": 75,
        "minVizWidth": 75,
        "orientation": "auto",
        "reduceOptions": _build_reduce_options(),
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "sizing": "auto",
    }
    return GaugePanel(**_build_instant_arguments(title, description, query, scale, no_value, options))


def build_bar_gauge(
    title: str, description: str, query: Query, scale: Scale, *, no_value: str = "none", links: Links = ()
) -> Panel:
    """Show one bar for each series with its current value."""
    options = {
        "displayMode": "basic",
        "legend": {**_build_legend(), "showLegend": False},
        "maxVizHeight": 28,
        "minVizHeight": 16,
        "minVizWidth": 8,
        "namePlacement": "left",
        "orientation": "horizontal",
        "reduceOptions": _build_reduce_options(),
        "showUnfilled": True,
        "sizing": "manual",
        "text": {"titleSize": _NAME_PIXELS},
        "valueMode": "color",
    }
    return BarGauge(**_build_instant_arguments(title, description, query, scale, no_value, options, links))


def build_time_series(
    title: str,
    description: str,
    queries: Sequence[Query],
    scale: Scale,
    *,
    points: int = MOST_POINTS,
    colours: Mapping[str, Colour] = MappingProxyType({}),
    repeat: str = "",
    links: Links = (),
) -> Panel:
    """Show series over time as lines.

    `colours` are by series name. `repeat` is a variable; each of its values gets a panel.
    """
    custom = {**_DRAWN, "drawStyle": "line", "fillOpacity": 0, "lineWidth": 2}
    return TimeSeries(
        **build_common_arguments(title, description, queries, instant=False, points=points),
        repeat=Repeat(direction="h", variable=repeat) if repeat else Repeat(),
        extraJson={
            "fieldConfig": {
                "defaults": {**_build_time_defaults(scale, custom), "links": [*links], "noValue": "no samples"},
                "overrides": [
                    *(
                        _build_dash_override(letter, query)
                        for letter, query in _pair_with_letters(queries)
                        if query.dash
                    ),
                    *(_build_colour_override(name, colour) for name, colour in colours.items()),
                ],
            },
            "options": {"legend": _build_legend(), "tooltip": {"hideZeros": False, "mode": "multi", "sort": "desc"}},
        },
    )


def build_bars(
    title: str,
    description: str,
    query: Query,
    *,
    shortest: str | None,
    colours: Mapping[str, Colour] = MappingProxyType({}),
    faults: bool = False,
    no_value: str = "none seen",
) -> Panel:
    """Show counts for each interval as stacked bars.

    `shortest` is the shortest interval, None for Grafana's choice. `colours` are by series name. `faults` are drawn in
    shades of red, so that no fault is green.
    """
    custom = {
        **_DRAWN, "axisSoftMax": 1, "drawStyle": "bars", "fillOpacity": 60, "lineWidth": 0,
        "stacking": {"group": "A", "mode": "normal"},
    }  # fmt: skip
    defaults = {**_build_time_defaults(Scale(unit=COUNT, decimals=0), custom), "noValue": no_value}
    if faults:
        defaults["color"] = {"fixedColor": Colour.BAD, "mode": "shades"}
    return TimeSeries(
        **build_common_arguments(title, description, [query], instant=False, points=COARSE_POINTS),
        interval=shortest,
        extraJson={
            "fieldConfig": {
                "defaults": defaults,
                "overrides": [_build_colour_override(name, colour) for name, colour in colours.items()],
            },
            "options": {"legend": _build_legend(), "tooltip": {"hideZeros": True, "mode": "multi", "sort": "desc"}},
        },
    )


def build_timeline(title: str, description: str, query: Query, scale: Scale, *, points: int) -> Panel:
    """Show one row for each series, coloured by its state over time."""
    defaults = {**scale.build_field_defaults(), "custom": {"fillOpacity": 80, "lineWidth": 0}, "noValue": "no samples"}
    return StateTimeline(
        **build_common_arguments(title, description, [query], instant=False, points=points),
        rowHeight=0.85,
        showValue="never",
        extraJson={
            "fieldConfig": {"defaults": defaults},
            "options": {"legend": _build_legend(), "perPage": 30, "tooltip": {"mode": "single", "sort": "none"}},
        },
    )


def build_heatmap(title: str, description: str, query: Query, *, unit: str, shortest: str) -> Panel:
    """Show the distribution over a histogram's buckets; the query's series are buckets, one for each `le`.

    `shortest` is the shortest interval.
    """
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
    defaults = {"custom": {"scaleDistribution": {"type": "linear"}}, "unit": "short"}
    return Heatmap(
        **build_common_arguments(title, description, [query], instant=False, form="heatmap", points=COARSE_POINTS),
        interval=shortest,
        options={},
        extraJson={"fieldConfig": {"defaults": defaults}, "options": options},
    )


def build_common_arguments(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    instant: bool,
    form: str = "time_series",
    points: int = MOST_POINTS,
) -> dict[str, Any]:
    """Return the arguments that all of grafanalib's panels have."""
    targets = [
        Target(expr=query.expr, legendFormat=query.legend or "__auto", refId=letter, instant=instant, format=form)
        for letter, query in _pair_with_letters(queries)
    ]
    return {
        "title": title,
        "description": description,
        "targets": targets,
        "dataSource": DATASOURCE,
        "maxDataPoints": points,
    }


def _build_instant_arguments(
    title: str,
    description: str,
    query: Query,
    scale: Scale,
    no_value: str,
    options: Mapping[str, object],
    links: Links = (),
) -> dict[str, Any]:
    """Return the arguments of a panel that shows current values."""
    defaults = {**scale.build_field_defaults(), "links": [*links], "noValue": no_value}
    extra = {"fieldConfig": {"defaults": defaults}, "options": options}
    return {**build_common_arguments(title, description, [query], instant=True), "extraJson": extra}


def _pair_with_letters(queries: Sequence[Query]) -> list[tuple[str, Query]]:
    return [*zip(string.ascii_uppercase, queries, strict=False)]


def _build_time_defaults(scale: Scale, custom: Mapping[str, object]) -> dict[str, object]:
    limits = _build_limit_options(scale) if scale.drawn else {}
    return {**scale.build_field_defaults(), "color": {"mode": "palette-classic"}, "custom": {**custom, **limits}}


def _build_limit_options(scale: Scale) -> dict[str, object]:
    """Draw the steps as dashed lines, within the axis."""
    return {"axisSoftMax": 1.1 * max(step.value for step in scale.steps), "thresholdsStyle": {"mode": "dashed"}}


def _build_dash_override(letter: str, query: Query) -> dict[str, object]:
    """Draw a query's series dashed, like a limit."""
    assert query.dash is not None
    properties: list[dict[str, object]] = [
        {"id": "color", "value": {"fixedColor": query.dash.value, "mode": "fixed"}},
        {"id": "custom.lineStyle", "value": {"dash": [8, 6], "fill": "dash"}},
        {"id": "custom.lineWidth", "value": 1},
    ]
    if not query.listed:
        properties.append({"id": "custom.hideFrom", "value": {"legend": True, "tooltip": False, "viz": False}})
    return {"matcher": {"id": "byFrameRefID", "options": letter}, "properties": properties}


def _build_colour_override(name: str, colour: Colour) -> dict[str, object]:
    fixed = {"id": "color", "value": {"fixedColor": colour, "mode": "fixed"}}
    return {"matcher": {"id": "byName", "options": name}, "properties": [fixed]}


def _build_legend() -> dict[str, object]:
    return {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}


def _build_reduce_options() -> dict[str, object]:
    return {"calcs": [_LAST], "fields": "", "values": False}


def build_success_rate(scope: Scope, advice: str) -> Panel:
    """Show the ratio of runs that succeed; `advice` points to details on the dashboard."""
    good, ended = (
        scope.increase_over_range(names.RUNS, result=result) for result in ("success", ("success", "failure"))
    )
    return build_stat(
        "Which share of runs succeeds?",
        f"Of the runs that ended in the time shown; interrupted ones don't count. {advice}",
        Query(expr=f"sum({good}) / (sum({ended}) > 0)"),
        less_is_worse(good=0.95, watch=0.8),
        no_value="no run",
    )


def build_worker_deaths(scope: Scope, question: str, advice: str) -> Panel:
    """Show workers that died; `advice` explains the causes."""
    return build_bars(
        question,
        f"Workers that ended without being stopped, in each interval, by cause. {advice} Those that were stopped with "
        "their task don't count.",
        Query(expr=f"sum by (cause) ({scope.count(names.POOL_DEATHS, cause=UNASKED)})", legend="{{cause}}"),
        shortest=scope.recorded_window,
        faults=True,
    )
