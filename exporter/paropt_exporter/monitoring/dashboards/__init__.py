"""Grafana dashboards made from the metric families."""

from __future__ import annotations

import json

from paropt_exporter.monitoring.dashboards import (
    exporter_dashboard,
    lane_dashboard,
    overview_dashboard,
    pools_dashboard,
)
from paropt_exporter.monitoring.dashboards.layout import TAG, build_dashboard, convert_dashboard, wrap_files
from paropt_exporter.monitoring.options import Options

DASHBOARDS = (
    overview_dashboard.DASHBOARD,
    lane_dashboard.DASHBOARD,
    pools_dashboard.DASHBOARD,
    exporter_dashboard.DASHBOARD,
)


def render_dashboards(options: Options) -> dict[str, str]:
    """Return the files of all dashboards, by path, in the format that the options ask for."""
    nodes = (convert_dashboard(build_dashboard(spec, options)) for spec in DASHBOARDS)
    texts = {
        node["uid"].removeprefix(f"{TAG}-"): json.dumps(node, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for node in nodes
    }
    return wrap_files(texts, options.format)
