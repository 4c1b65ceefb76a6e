"""Render rule files, plain or wrapped for Kubernetes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from paropt_exporter.monitoring.alerts import recording
from paropt_exporter.monitoring.alerts.exporter_alerts import build_exporter_alerts
from paropt_exporter.monitoring.alerts.pool_alerts import build_pool_alerts
from paropt_exporter.monitoring.alerts.rules import Alert, Condition, Group, Recording, Rule, build_group
from paropt_exporter.monitoring.alerts.run_alerts import build_lane_alerts, build_slower_alert, build_stage_alerts
from paropt_exporter.monitoring.alerts.selectors import SeriesSelector
from paropt_exporter.monitoring.alerts.sla_alerts import build_budget_alerts, build_sla_alerts
from paropt_exporter.monitoring.options import Format, Options

RECORDING_FILE, ALERTS_FILE = "paropt-recording.yml", "paropt-alerts.yml"
_HEADER = "# Made by `paropt-exporter generate alerts`, which overwrites changes.\n"
_BUILDERS: Mapping[str, Callable[[Options], tuple[Alert, ...]]] = {  # by the name of the group, in runbook order
    "sla": build_sla_alerts,
    "budget": lambda options: build_budget_alerts(SeriesSelector(options)),
    "stages": build_stage_alerts,
    "lanes": build_lane_alerts,
    "pools": build_pool_alerts,
    "exporter": build_exporter_alerts,
}
# Broken limits are evaluated at Prometheus' own interval, to alert at once; other alerts wait for minutes anyway.
_UNDELAYED_GROUPS = ("sla",)
_SLOW_INTERVAL = "1m"
_YAML_WIDTH = 10_000  # PyYAML folds long lines; unfolded descriptions are easier to read and search


def build_alert_groups(options: Options) -> tuple[Group, ...]:
    """Return the groups of alerts."""
    return tuple(
        build_group(f"paropt-{name}", build(options), interval="" if name in _UNDELAYED_GROUPS else _SLOW_INTERVAL)
        for name, build in _BUILDERS.items()
    )


def build_alerts(options: Options) -> tuple[Alert, ...]:
    """Return all alerts, in the order of the runbook."""
    return tuple(alert for build in _BUILDERS.values() for alert in build(options))


def _build_global_alert_group(options: Options) -> Group:
    """Return the alerts on lanes over all of their hosts, which the servers of a fleet's parts can't judge."""
    series = recording.build_global_selector(options)
    alerts = (*build_budget_alerts(series), build_slower_alert(series))
    return build_group("paropt-global-alerts", alerts, interval=_SLOW_INTERVAL)


def render_rules(options: Options) -> dict[str, str]:
    """Return the rule files by path below the output folder."""
    files = {RECORDING_FILE: recording.build_recording_groups(options), ALERTS_FILE: build_alert_groups(options)}
    return {f"alerts/{name}": _HEADER + _render_file(name, content, options) for name, content in files.items()}


def render_fleet_rules(options: Options) -> dict[str, str]:
    """Return the rule files of the servers of a fleet, by path; a single server needs none of them."""
    files = {
        recording.PARTS_FILE: recording.build_parts_groups(options),
        recording.GLOBAL_FILE: (*recording.build_global_groups(options), _build_global_alert_group(options)),
    }
    header = _HEADER.replace("alerts", "fleet")
    return {f"alerts/fleet/{name}": header + _render_file(name, content, options) for name, content in files.items()}


def _render_file(name: str, content: tuple[Group, ...], options: Options) -> str:
    rules = {"groups": [_format_group(group, options) for group in content]}
    object_name = name.removesuffix(".yml")
    match options.format:
        case Format.CONFIGMAP:
            return dump_yaml(_build_object("v1", "ConfigMap", object_name, data={name: dump_yaml(rules)}))
        case Format.PROMETHEUS_OPERATOR:
            return dump_yaml(_build_object("monitoring.coreos.com/v1", "PrometheusRule", object_name, spec=rules))
        case Format.GRAFANA | Format.PROVISIONING:
            return dump_yaml(rules)


def _build_object(version: str, kind: str, name: str, **content: object) -> dict[str, object]:
    labels = {"app.kubernetes.io/name": "paropt-exporter"}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **content}


def _format_group(group: Group, options: Options) -> dict[str, Any]:
    interval = {"interval": group.interval} if group.interval else {}
    return {"name": group.name, **interval, "rules": [_format_rule(rule, options) for rule in group.rules]}


def _format_rule(rule: Rule, options: Options) -> dict[str, Any]:
    if isinstance(rule, Recording):
        labels = {"labels": dict(rule.labels)} if rule.labels else {}
        return {"record": rule.record, "expr": rule.expr, **labels}
    alert, condition = rule
    return {
        "alert": alert.name,
        "expr": condition.expr,
        **({"for": condition.hold} if condition.hold else {}),
        **({"keep_firing_for": condition.keep} if condition.keep else {}),
        "labels": {"severity": condition.level.value, **dict(condition.labels)},
        "annotations": _build_annotations(alert, condition, options),
    }


def _build_annotations(alert: Alert, condition: Condition, options: Options) -> Mapping[str, str]:
    texts = {"summary": alert.title, "description": alert.description}
    for label, value in condition.labels:
        # A template sees the labels of the query's result only, not those that the rule adds.
        texts = {name: text.replace(f"{{{{ $labels.{label} }}}}", value) for name, text in texts.items()}
    return {**texts, **_build_links(alert, options)}


def _build_links(alert: Alert, options: Options) -> Mapping[str, str]:
    """Return the alert's links, for the addresses that the user has given: a default could be someone else's."""
    links = {}
    if options.runbook_url is not None:
        links["runbook_url"] = f"{options.runbook_url}#{alert.name.lower()}"
    if options.grafana_url is not None:
        links["dashboard_url"] = (
            f"{options.grafana_url.rstrip('/')}/d/{alert.board.value}{_build_variables(alert.link)}"
        )
    return links


def _build_variables(labels: tuple[str, ...]) -> str:
    """Return the URL parameters that select the alert's labels in the dashboard; label values are escaped."""
    return "?" + "&".join(f"var-{label}={{{{ urlquery $labels.{label} }}}}" for label in labels)


class _Dumper(yaml.SafeDumper):
    """A dumper that keeps queries of several lines and indents lists, as rule files are usually written."""

    def increase_indent(self, flow: bool = False, *_: object, **__: object) -> None:
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def dump_yaml(content: object) -> str:
    """Return a generated file as YAML."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=_YAML_WIDTH, allow_unicode=True)
