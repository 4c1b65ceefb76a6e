"""Wrap dashboards the way that they get into Grafana: plain files, a provisioning folder, or Kubernetes ConfigMaps."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from paropt_exporter.monitoring.options import Format

FOLDER = "dashboards"
PROVIDER_PATH = "provisioning/dashboards/paropt.yml"
# Where Grafana's image and packages keep files of dashboards.
SERVED_FROM = "/var/lib/grafana/dashboards"
_SIDECAR_LABEL = {"grafana_dashboard": "1"}  # what Grafana's Helm chart and kube-prometheus-stack look for
_FOLDER_IN_GRAFANA = "Paropt"


def wrap(texts: Mapping[str, str], form: Format) -> dict[str, str]:
    """Return the files, by path, that bring the dashboards (JSON by short name) to Grafana in this form."""
    plain = {f"{FOLDER}/{name}.json": text for name, text in texts.items()}
    match form:
        case Format.GRAFANA:
            return plain
        case Format.PROVISIONING:
            return {PROVIDER_PATH: _provider(), **plain}
        case Format.CONFIGMAP | Format.PROMETHEUS_OPERATOR:
            return {f"{FOLDER}/{name}.configmap.yml": _config_map(name, text) for name, text in texts.items()}


def _provider() -> str:
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


def _config_map(name: str, text: str) -> str:
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
    """Text that is written as a block of lines, so that a change of a panel is a change of its lines."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes blocks as blocks."""


def _block(dumper: yaml.SafeDumper, text: _Block) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|")


_Dumper.add_representer(_Block, _block)
