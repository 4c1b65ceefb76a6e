"""Convert grafanalib's output to the JSON that Grafana 10 to 13 saves, and wrap it for Grafana or Kubernetes.

grafanalib 0.7.1 prints keys that Grafana dropped after version 5, None for unset keys, and old shapes. Each kind of
node keeps only the keys that Grafana reads, and gets those that it requires.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from typing import Any

import yaml
from grafanalib._gen import DashboardEncoder
from grafanalib.core import Dashboard

from paropt_exporter.monitoring.options import Format

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
        return _keep_known(_ROW, printed)
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


FOLDER = "dashboards"
PROVIDER_PATH = "provisioning/dashboards/paropt.yml"
# The folder for dashboards of Grafana's image and packages.
SERVED_FROM = "/var/lib/grafana/dashboards"
_SIDECAR_LABEL = {"grafana_dashboard": "1"}  # the label that Grafana's Helm chart and kube-prometheus-stack look for
_FOLDER_IN_GRAFANA = "Paropt"


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
        "data": {f"paropt-{name}.json": _Block(text)},
    }
    return yaml.dump(config_map, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)


class _Block(str):
    """Text that is dumped as a block of lines, so that a diff shows the changed lines of a panel."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """A dumper that writes `_Block` as a block."""


def _represent_block(dumper: yaml.SafeDumper, text: _Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")


_Dumper.add_representer(_Block, _represent_block)
