"""Wrap rules and dashboards for the Kubernetes base: the rest of its files names no metric, and is written by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from paropt_exporter.monitoring import dashboards
from paropt_exporter.monitoring.alerts import files
from paropt_exporter.monitoring.options import Format, Options

FOLDER = PurePosixPath("deploy/kubernetes/base/generated")


def render(options: Options) -> dict[str, str]:
    """Return a PrometheusRule for each rule file and a ConfigMap for each dashboard, whatever format is asked for."""
    wrapped = replace(options, format=Format.PROMETHEUS_OPERATOR)
    texts = files.render(wrapped) | dashboards.render(wrapped)
    return {str(FOLDER / PurePosixPath(path).name): text for path, text in texts.items()}
