"""Panels that several dashboards have."""

from __future__ import annotations

from grafanalib.core import Panel

from paropt_exporter import families as names
from paropt_exporter.monitoring.alerts.series import UNASKED
from paropt_exporter.monitoring.dashboards.panels import Query, bars, stat
from paropt_exporter.monitoring.dashboards.scales import Scale, less_is_worse
from paropt_exporter.monitoring.dashboards.scope import Scope


def runs_that_succeed(scope: Scope, advice: str) -> Panel:
    """Show the share of runs that succeed; `advice`: where this dashboard tells more."""
    good, ended = (scope.grown(names.RUNS, result=result) for result in ("success", ("success", "failure")))
    return stat(
        "Which share of runs succeeds?",
        f"Of the runs that ended in the time shown; interrupted ones don't count. {advice}",
        Query(expr=f"sum({good}) / (sum({ended}) > 0)"),
        less_is_worse("percentunit", good=0.95, watch=0.8),
        no_value="no run",
    )


def dying_workers(scope: Scope, question: str, advice: str) -> Panel:
    """Show workers that ended unasked; what their causes mean on this dashboard is `advice`."""
    return bars(
        question,
        f"Workers that ended unasked in each interval, by cause. {advice} Workers stopped with their task don't count.",
        Query(expr=f"sum by (cause) ({scope.increase(names.POOL_DEATHS, cause=UNASKED)})", legend="{{cause}}"),
        Scale(unit="short", decimals=0),
    )
