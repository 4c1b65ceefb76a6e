"""Every dashboard fits Grafana's own types."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from grafanalib._gen import DashboardEncoder
from grafanalib.core import BarGauge, Dashboard, Stat, Target, TimeSeries

from support import grafana_types
from support.generated import load_dashboards

FILES = load_dashboards()


@pytest.mark.parametrize("path", FILES)
def test_a_dashboard_fits_grafanas_types(path: str) -> None:
    assert grafana_types.faults(FILES[path]) == []


def test_grafanalibs_own_output_does_not_fit_grafanas_types() -> None:
    naive = Dashboard(
        title="naive",
        panels=[panel(title="t", targets=[Target(expr="up", refId="A")]) for panel in (TimeSeries, Stat, BarGauge)],
    )
    assert len(grafana_types.faults(json.loads(json.dumps(naive, cls=DashboardEncoder)))) > 50


def _remove_type(dashboard: dict[str, Any]) -> None:
    del dashboard["panels"][1]["type"]


def _misspell_option(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["options"]["colourMode"] = "value"


def _use_unknown_word(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["options"]["colorMode"] = "loud"


def _write_number_as_text(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["gridPos"]["h"] = "4"


def _write_null(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["description"] = None


def _remove_expression(dashboard: dict[str, Any]) -> None:
    del dashboard["panels"][1]["targets"][0]["expr"]


def _add_unknown_override(dashboard: dict[str, Any]) -> None:
    charts = (panel for panel in dashboard["panels"] if panel.get("fieldConfig", {}).get("overrides"))
    next(charts)["fieldConfig"]["overrides"][0]["properties"][0]["id"] = "custom.lineWith"


def _misspell_key_of_link(dashboard: dict[str, Any]) -> None:
    linked = (panel for panel in dashboard["panels"] if panel.get("fieldConfig", {}).get("defaults", {}).get("links"))
    next(linked)["fieldConfig"]["defaults"]["links"][0]["href"] = "/"


@pytest.mark.parametrize(
    "broken",
    [
        _remove_type, _misspell_option, _use_unknown_word, _write_number_as_text, _write_null, _remove_expression,
        _add_unknown_override, _misspell_key_of_link,
    ],
)  # fmt: skip
def test_an_invalid_dashboard_is_detected(broken: Any) -> None:
    dashboard = copy.deepcopy(FILES["dashboards/overview.json"])
    broken(dashboard)
    assert len(grafana_types.faults(dashboard)) >= 1
