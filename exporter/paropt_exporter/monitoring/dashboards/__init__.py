"""Grafana dashboards made from the metric catalogue: grafanalib's panels, turned into Grafana's own shapes."""

from __future__ import annotations

import json

from paropt_exporter.monitoring.dashboards import health, lane, overview, pools
from paropt_exporter.monitoring.dashboards.layout import TAG, dashboard
from paropt_exporter.monitoring.dashboards.normalise import Node, normalise
from paropt_exporter.monitoring.dashboards.wrapping import wrap
from paropt_exporter.monitoring.options import Options


def render(options: Options) -> dict[str, str]:
    """Return the files of all dashboards, wrapped as the format asks."""
    nodes = (normalise(dashboard(page, options)) for page in PAGES)
    texts = {node["uid"].removeprefix(f"{TAG}-"): _text(node) for node in nodes}
    return wrap(texts, options.format)


PAGES = (overview.PAGE, lane.PAGE, pools.PAGE, health.PAGE)


def _text(node: Node) -> str:
    return json.dumps(node, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
