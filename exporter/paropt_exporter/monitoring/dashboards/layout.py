"""Lay out panels in Grafana's grid, build dashboards, and convert them to the JSON that Grafana 10 to 13 saves.

grafanalib 0.7.1 prints keys that Grafana dropped after version 5, None for unset keys, and old shapes. Each kind of
node keeps only the keys that Grafana reads, and gets those that it requires.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import yaml
from grafanalib._gen import DashboardEncoder
from grafanalib.core import (
    Annotations,
    Dashboard,
    DashboardLink,
    GridPos,
    Panel,
    RowPanel,
    Template,
    Templating,
    Time,
)
from msgspec import Struct

from paropt_exporter.families import Family
from paropt_exporter.monitoring.alerts.rule_files import dump_yaml
from paropt_exporter.monitoring.dashboards.panels import DATASOURCE
from paropt_exporter.monitoring.dashboards.scales import Colour
from paropt_exporter.monitoring.dashboards.scope import GRAFANA_RATE_WINDOW, Scope
from paropt_exporter.monitoring.options import Format, Options

TAG = "paropt"
GRID_WIDTH = 24
STAT_HEIGHT, CHART_HEIGHT, TALL_HEIGHT = 4, 8, 12
BARS_HEIGHT = 9  # ten bars of a bar gauge
_ALL = "$__all"
_REFRESH_WHEN_TIME_CHANGES = 2
_SHOW_VALUES_SORTED = 1
_SHARED_CROSSHAIR = 1
# Every target has job and instance; series may lack the other labels, so their "all" must match the empty value too.
_ANY, _ANY_OR_NONE = ".+", ".*"
Node = dict[str, Any]
SCHEMA_VERSION = 42  # of Grafana 12 and 13; older ones read it, newer ones migrate it
_DASHBOARD = {
    "annotations", "description", "editable", "graphTooltip", "links", "panels", "refresh", "schemaVersion", "tags",
    "templating", "time", "timepicker", "timezone", "title", "uid",
}  # fmt: skip
_PANEL = {
    "datasource", "description", "fieldConfig", "gridPos", "id", "interval", "links", "maxDataPoints", "options",
    "repeat", "repeatDirection", "targets", "title", "transformations", "type",
}  # fmt: skip
_ROW = {"collapsed", "gridPos", "id", "panels", "title", "type"}
_TARGET = {"datasource", "expr", "format", "instant", "interval", "legendFormat", "refId"}
_VARIABLE = {
    "allValue", "current", "datasource", "hide", "includeAll", "label", "multi", "name", "options", "query", "refresh",
    "regex", "sort", "type",
}  # fmt: skip
_FIELD_DEFAULTS = {
    "color", "custom", "decimals", "links", "mappings", "max", "min", "noValue", "thresholds", "unit",
}  # fmt: skip
_LEGACY_OPTIONS = {"bargauge": {"fieldOptions", "showThresholdLabels", "showThresholdMarkers"}}
FOLDER = "dashboards"
PROVIDER_PATH = "provisioning/dashboards/paropt.yml"
# The folder for dashboards of Grafana's image and packages.
SERVED_FROM = "/var/lib/grafana/dashboards"
_SIDECAR_LABEL = {"grafana_dashboard": "1"}  # the label that Grafana's Helm chart and kube-prometheus-stack look for
_FOLDER_IN_GRAFANA = "Paropt"


class Line(Struct, frozen=True, kw_only=True):
    """Panels of one height, side by side."""

    height: int
    panels: Sequence[Panel]


class Section(Struct, frozen=True, kw_only=True):
    """A titled row with lines of panels. `collapsed`: it is closed, and Grafana runs its queries once it is opened."""

    title: str
    lines: Sequence[Line]
    collapsed: bool = False


def build_section(
    title: str, panels: Iterable[Panel], *, height: int = CHART_HEIGHT, collapsed: bool = False
) -> Section:
    """Build a section with one line of panels."""
    return Section(title=title, lines=(Line(height=height, panels=tuple(panels)),), collapsed=collapsed)


class Annotation(Struct, frozen=True, kw_only=True):
    """Marks on the time axis of all panels, where the query's series are above 0. `title` is a template of labels."""

    name: str
    expr: str
    title: str
    colour: Colour


class Variable(Struct, frozen=True, kw_only=True):
    """A variable for a label's values, in addition to job and instance; `one` allows a single value only."""

    label: str
    of: Family
    one: bool = False


class DashboardSpec(Struct, frozen=True, kw_only=True):
    """The specification of a dashboard.

    `sections` and `annotations` are built from the scope of the dashboard's variables and the options. `hours` is the
    initial time range.
    """

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    sections: Callable[[Scope], Sequence[Section]]
    annotations: Callable[[Scope], Sequence[Annotation]] = lambda _: ()
    hours: int = 6


def build_dashboard(spec: DashboardSpec, options: Options) -> Dashboard:
    """Return the page as grafanalib's dashboard."""
    scope = Scope(
        variables=tuple(variable.label for variable in spec.variables),
        single=frozenset(variable.label for variable in spec.variables if variable.one),
        selector=options.selector.strip(),
        rate_window=options.rate_window or GRAFANA_RATE_WINDOW,
        sla_target=options.sla_target,
    )
    return Dashboard(
        uid=spec.uid,
        title=spec.title,
        description=spec.description,
        tags=[TAG],
        editable=False,
        graphTooltip=_SHARED_CROSSHAIR,
        refresh="30s",
        time=Time(f"now-{spec.hours}h", "now"),
        timezone="browser",
        links=[DashboardLink(title="Paropt", tags=[TAG], asDropdown=True, includeVars=True, keepTime=True)],
        templating=Templating(
            [_build_datasource_variable(options.datasource_uid), *_iter_variables(spec.variables, scope)]
        ),
        annotations=Annotations([_build_annotation(annotation) for annotation in spec.annotations(scope)]),
        panels=[*_iter_placed_panels(spec.sections(scope))],
    )


def _iter_placed_panels(sections: Sequence[Section]) -> Iterator[Panel]:
    top = 0
    for section in sections:
        place = GridPos(h=1, w=GRID_WIDTH, x=0, y=top)
        panels = [*_iter_line_panels(section.lines, top + 1)]
        if section.collapsed:
            yield RowPanel(title=section.title, gridPos=place, collapsed=True, panels=panels)
            top += 1
        else:
            yield RowPanel(title=section.title, gridPos=place)
            yield from panels
            top += 1 + sum(line.height for line in section.lines)


def _iter_line_panels(lines: Sequence[Line], top: int) -> Iterator[Panel]:
    for line in lines:
        width = GRID_WIDTH // len(line.panels)
        for index, panel in enumerate(line.panels):
            panel.gridPos = GridPos(h=line.height, w=width, x=index * width, y=top)
            yield panel
        top += line.height


def _build_datasource_variable(uid: str | None) -> Template:
    return Template(
        name="datasource", label="Data source", type="datasource", query="prometheus", default=uid or "default"
    )


def _iter_variables(variables: Sequence[Variable], scope: Scope) -> Iterator[Template]:
    """Yield the variables; each lists the values within the choices before it.

    job and instance list those of the first variable's metric: what a Pushgateway has of a lane is no exporter.
    """
    shown = variables[0].of
    selector = f"{{{scope.selector}}}" if scope.selector else ""
    yield _build_multi_variable("job", f"label_values({shown.name}{selector}, job)", all_value=_ANY)
    narrowed = ",".join([*([scope.selector] if scope.selector else []), 'job=~"$job"'])
    yield _build_multi_variable("instance", f"label_values({shown.name}{{{narrowed}}}, instance)", all_value=_ANY)
    before: list[str] = []
    for variable in variables:
        chosen = [name for name in before if name in variable.of.label_names]
        query = f"label_values({variable.of.name}{{{scope.build_matchers(*chosen)}}}, {variable.label})"
        yield (
            _build_single_variable(variable.label, query)
            if variable.one
            else _build_multi_variable(variable.label, query, all_value=_ANY_OR_NONE)
        )
        before.append(variable.label)


def _build_multi_variable(name: str, query: str, *, all_value: str) -> Template:
    template = _build_query_variable(name, query, includeAll=True, multi=True, allValue=all_value)
    template._current = {"selected": True, "text": ["All"], "value": [_ALL]}
    return template


def _build_single_variable(name: str, query: str) -> Template:
    template = _build_query_variable(name, query)
    template._current = {}
    return template


def _build_query_variable(name: str, query: str, **more: object) -> Template:
    return Template(
        name=name,
        label=name.capitalize(),
        query=query,
        dataSource=DATASOURCE,
        refresh=_REFRESH_WHEN_TIME_CHANGES,
        sort=_SHOW_VALUES_SORTED,
        **more,
    )


def _build_annotation(annotation: Annotation) -> dict[str, object]:
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "expr": annotation.expr,
        "hide": False,
        "iconColor": annotation.colour,
        "name": annotation.name,
        "titleFormat": annotation.title,
        "useValueForTime": False,
    }


def convert_dashboard(dashboard: Dashboard) -> Node:
    """Return the dashboard as plain data, its panels numbered in order."""
    printed = json.loads(json.dumps(dashboard.auto_panel_ids(), cls=DashboardEncoder))
    node = _keep_known(_DASHBOARD, printed)
    node["schemaVersion"] = SCHEMA_VERSION
    node["timepicker"] = {"refresh_intervals": printed["timepicker"]["refresh_intervals"]}
    node["panels"] = [_convert_panel(panel) for panel in printed["panels"]]
    node["templating"] = {"list": [_convert_variable(variable) for variable in printed["templating"]["list"]]}
    return node


def _convert_panel(printed: Node) -> Node:
    if printed["type"] == "row":
        return {**_keep_known(_ROW, printed), "panels": [_convert_panel(panel) for panel in printed["panels"]]}
    panel = _keep_known(_PANEL, printed)
    legacy = _LEGACY_OPTIONS.get(panel["type"], set())
    panel["options"] = _keep_known(panel["options"].keys() - legacy, panel["options"])
    defaults = _keep_known(_FIELD_DEFAULTS, printed["fieldConfig"]["defaults"])
    custom = defaults.get("custom", {})
    panel["fieldConfig"] = {
        "defaults": {**defaults, "custom": _keep_known(custom.keys(), custom)},
        "overrides": printed["fieldConfig"].get("overrides", []),
    }
    panel["targets"] = [_convert_target(target, panel["datasource"]) for target in printed["targets"]]
    return panel


def _convert_target(printed: Node, datasource: Node) -> Node:
    """Complete a query: each has its panel's datasource, as from Grafana's editor."""
    return {
        **_keep_known(_TARGET, printed),
        "datasource": datasource,
        "editorMode": "code",
        "intervalFactor": 1,
        "range": not printed["instant"],
    }


def _convert_variable(printed: Node) -> Node:
    variable = _keep_known(_VARIABLE, printed)
    if not variable["current"]:
        del variable["current"]  # Grafana chooses the first value
    else:
        variable["current"].pop("tags", None)
    if variable["type"] == "query":
        variable["definition"] = variable["query"]  # shown in the list of variables
    return variable


def _keep_known(known: Set[str], printed: Node) -> Node:
    """Return the known keys that are set; Grafana's own files have no others."""
    return {key: value for key, value in printed.items() if key in known and value is not None}


def wrap_files(texts: Mapping[str, str], form: Format) -> dict[str, str]:
    """Return the files, by path, that provide the dashboards (JSON by short name) in a format."""
    plain = {f"{FOLDER}/{name}.json": text for name, text in texts.items()}
    match form:
        case Format.GRAFANA:
            return plain
        case Format.PROVISIONING:
            return {PROVIDER_PATH: _render_provider(), **plain}
        case Format.CONFIGMAP | Format.PROMETHEUS_OPERATOR:
            return {f"{FOLDER}/{name}.configmap.yml": _render_config_map(name, text) for name, text in texts.items()}


def _render_provider() -> str:
    provider = {
        "name": "paropt",
        "type": "file",
        "folder": _FOLDER_IN_GRAFANA,
        "allowUiUpdates": False,
        "disableDeletion": False,
        "updateIntervalSeconds": 30,
        "options": {"path": SERVED_FROM},
    }
    return yaml.safe_dump({"apiVersion": 1, "providers": [provider]}, sort_keys=False)


def _render_config_map(name: str, text: str) -> str:
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"paropt-dashboard-{name}",
            "labels": {"app.kubernetes.io/name": "paropt-exporter", **_SIDECAR_LABEL},
            "annotations": {"grafana_folder": _FOLDER_IN_GRAFANA},
        },
        "data": {f"paropt-{name}.json": text},
    }
    return dump_yaml(config_map)
