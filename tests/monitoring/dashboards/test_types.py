"""Every dashboard is what Grafana's own types allow."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from grafanalib._gen import DashboardEncoder
from grafanalib.core import BarGauge, Dashboard, Stat, Target, TimeSeries

from paropt_exporter.monitoring import dashboards
from paropt_exporter.monitoring.options import Options
from support import grafana_types

FILES = {path: json.loads(text) for path, text in dashboards.render_dashboards(Options()).items()}


@pytest.mark.parametrize("path", FILES)
def test_a_dashboard_has_no_fault_before_grafanas_types(path: str) -> None:
    assert grafana_types.faults(FILES[path]) == []


def test_what_grafanalib_prints_by_itself_has_faults() -> None:
    naive = Dashboard(
        title="naive",
        panels=[panel(title="t", targets=[Target(expr="up", refId="A")]) for panel in (TimeSeries, Stat, BarGauge)],
    )
    assert len(grafana_types.faults(json.loads(json.dumps(naive, cls=DashboardEncoder)))) > 50


def _without_type(dashboard: dict[str, Any]) -> None:
    del dashboard["panels"][1]["type"]


def _misspelt_option(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["options"]["colourMode"] = "value"


def _unknown_word(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["options"]["colorMode"] = "loud"


def _number_as_text(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["gridPos"]["h"] = "4"


def _null(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["description"] = None


def _query_without_expression(dashboard: dict[str, Any]) -> None:
    del dashboard["panels"][1]["targets"][0]["expr"]


def _unknown_override(dashboard: dict[str, Any]) -> None:
    charts = (panel for panel in dashboard["panels"] if panel.get("fieldConfig", {}).get("overrides"))
    next(charts)["fieldConfig"]["overrides"][0]["properties"][0]["id"] = "custom.lineWith"


@pytest.mark.parametrize(
    "broken",
    [
        _without_type, _misspelt_option, _unknown_word, _number_as_text, _null, _query_without_expression,
        _unknown_override,
    ],
)  # fmt: skip
def test_a_broken_dashboard_is_noticed(broken: Any) -> None:
    dashboard = copy.deepcopy(FILES["dashboards/overview.json"])
    broken(dashboard)
    assert len(grafana_types.faults(dashboard)) >= 1
