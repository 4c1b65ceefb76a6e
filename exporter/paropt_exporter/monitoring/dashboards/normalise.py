"""Turn what grafanalib prints into what Grafana 10 to 13 would save itself.

grafanalib 0.7.1 prints keys that Grafana has dropped since version 5, None for what is not set, and old shapes. This is
the one place that knows it: each kind of node keeps only the keys that Grafana reads, and gets those that it requires.
"""

from __future__ import annotations

import json
from collections.abc import Set
from typing import Any

from grafanalib._gen import DashboardEncoder
from grafanalib.core import Dashboard

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


def normalise(dashboard: Dashboard) -> Node:
    """Return the dashboard as plain data: panels numbered in their order, keys sorted by whoever prints it."""
    printed = json.loads(json.dumps(dashboard.auto_panel_ids(), cls=DashboardEncoder))
    node = _only(_DASHBOARD, printed)
    node["schemaVersion"] = SCHEMA_VERSION
    node["timepicker"] = {"refresh_intervals": printed["timepicker"]["refresh_intervals"]}
    node["panels"] = [_panel(panel) for panel in printed["panels"]]
    node["templating"] = {"list": [_variable(variable) for variable in printed["templating"]["list"]]}
    return node


def _panel(printed: Node) -> Node:
    if printed["type"] == "row":
        return _only(_ROW, printed)
    panel = _only(_PANEL, printed)
    legacy = _LEGACY_OPTIONS.get(panel["type"], set())
    panel["options"] = _only(panel["options"].keys() - legacy, panel["options"])
    defaults = _only(_FIELD_DEFAULTS, printed["fieldConfig"]["defaults"])
    custom = defaults.get("custom", {})
    panel["fieldConfig"] = {
        "defaults": {**defaults, "custom": _only(custom.keys(), custom)},
        "overrides": printed["fieldConfig"].get("overrides", []),
    }
    panel["targets"] = [_target(target, panel["datasource"]) for target in printed["targets"]]
    return panel


def _target(printed: Node, datasource: Node) -> Node:
    """Complete a query: a panel's own datasource stands at each, as Grafana's editor writes it."""
    return {
        **_only(_TARGET, printed),
        "datasource": datasource,
        "editorMode": "code",
        "intervalFactor": 1,
        "range": not printed["instant"],
    }


def _variable(printed: Node) -> Node:
    variable = _only(_VARIABLE, printed)
    if not variable["current"]:
        del variable["current"]  # Grafana then chooses the first value
    else:
        variable["current"].pop("tags", None)
    if variable["type"] == "query":
        variable["definition"] = variable["query"]  # what the list of variables shows
    return variable


def _only(known: Set[str], printed: Node) -> Node:
    """Return the known keys that are set; Grafana's own files leave the others out."""
    return {key: value for key, value in printed.items() if key in known and value is not None}
