"""The queries of panels as Grafana sends them."""

from __future__ import annotations

import json

from paropt_exporter.monitoring import dashboards
from paropt_exporter.monitoring.options import Options
from support.generated import iter_panels


def ask(title: str, options: Options, interval: str, *, target: int = 0) -> tuple[str, str]:
    """Return one of a panel's queries as Grafana sends it with this interval, and the panel's shortest interval."""
    (panel,) = [
        panel
        for text in dashboards.render_dashboards(options).values()
        for panel in iter_panels(json.loads(text))
        if panel["title"] == title
    ]
    expression: str = panel["targets"][target]["expr"]
    values = {
        "$__interval": interval, "$__rate_interval": interval, "$__range": "1d", '="$project"': '="demo"',
        "$job": ".+", "$instance": ".+", "$project": ".*", "$lane": "standard", "$stage": ".*",
    }  # fmt: skip
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(name, values[name])
    return expression, panel.get("interval", "")
