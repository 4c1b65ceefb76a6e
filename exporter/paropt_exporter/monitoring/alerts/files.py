"""Write rule files, plain or wrapped for Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from paropt_exporter.monitoring.alerts import budget, exporter, lanes, pools, recording, sla, stages
from paropt_exporter.monitoring.alerts.rules import Alert, Condition, Group, Recording, Rule, group_of
from paropt_exporter.monitoring.options import Format, Options

RECORDING_FILE, ALERTS_FILE = "paropt-recording.yml", "paropt-alerts.yml"
_HEADER = "# Made by `paropt-exporter generate alerts`; a change here is lost with the next one.\n"
_MODULES = {
    "sla": sla, "budget": budget, "stages": stages, "lanes": lanes, "pools": pools, "exporter": exporter,
}  # fmt: skip
_AT_ONCE = ("sla",)  # a broken limit is told at Prometheus' own pace; other alerts wait for minutes anyhow
_UNHURRIED = "1m"
_WIDE = 10_000  # PyYAML folds long lines; descriptions are easier to read and to search in one


def groups(options: Options) -> tuple[Group, ...]:
    """Return the groups of alerts."""
    return tuple(
        group_of(f"paropt-{name}", module.alerts(options), interval="" if name in _AT_ONCE else _UNHURRIED)
        for name, module in _MODULES.items()
    )


def alerts(options: Options) -> tuple[Alert, ...]:
    """Return every alert, in the order of the runbook."""
    return tuple(alert for module in _MODULES.values() for alert in module.alerts(options))


def render(options: Options) -> dict[str, str]:
    """Return the rule files by path below the folder asked for."""
    files = {RECORDING_FILE: recording.groups(options), ALERTS_FILE: groups(options)}
    return {f"alerts/{name}": _HEADER + _file(name, content, options) for name, content in files.items()}


def _file(name: str, content: tuple[Group, ...], options: Options) -> str:
    rules = {"groups": [_group(group, options) for group in content]}
    object_name = name.removesuffix(".yml")
    match options.format:
        case Format.CONFIGMAP:
            return _yaml(_object("v1", "ConfigMap", object_name, data={name: _yaml(rules)}))
        case Format.PROMETHEUS_OPERATOR:
            return _yaml(_object("monitoring.coreos.com/v1", "PrometheusRule", object_name, spec=rules))
        case Format.GRAFANA | Format.PROVISIONING:
            return _yaml(rules)


def _object(version: str, kind: str, name: str, **content: object) -> dict[str, object]:
    labels = {"app.kubernetes.io/name": "paropt-exporter"}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **content}


def _group(group: Group, options: Options) -> dict[str, Any]:
    interval = {"interval": group.interval} if group.interval else {}
    return {"name": group.name, **interval, "rules": [_rule(rule, options) for rule in group.rules]}


def _rule(rule: Rule, options: Options) -> dict[str, Any]:
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
        "annotations": _annotations(alert, condition, options),
    }


def _annotations(alert: Alert, condition: Condition, options: Options) -> Mapping[str, str]:
    description = alert.description
    for label, value in condition.labels:
        # A template sees the labels of the query's answer only, not those that the rule adds.
        description = description.replace(f"{{{{ $labels.{label} }}}}", value)
    return {"summary": alert.summary, "description": description, **_links(alert, options)}


def _links(alert: Alert, options: Options) -> Mapping[str, str]:
    """Return the alert's links, where the user has given an address: any other could be a stranger's."""
    links = {}
    if options.runbook_url is not None:
        links["runbook_url"] = f"{options.runbook_url}#{alert.name.lower()}"
    if options.grafana_url is not None:
        links["dashboard_url"] = f"{options.grafana_url.rstrip('/')}/d/{alert.board.value}{_variables(alert.link)}"
    return links


def _variables(labels: tuple[str, ...]) -> str:
    """Open the dashboard with what the alert is about; label values may hold what means something in an address."""
    return "?" + "&".join(f"var-{label}={{{{ urlquery $labels.{label} }}}}" for label in labels)


class _Dumper(yaml.SafeDumper):
    """Queries of several lines stay so, and lists are indented, as people write rule files."""

    def increase_indent(self, flow: bool = False, *_: object, **__: object) -> None:
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _yaml(content: object) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=_WIDE, allow_unicode=True)
