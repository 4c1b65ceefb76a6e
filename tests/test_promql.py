"""Selectors built from metric definitions."""

from __future__ import annotations

import pytest

from paropt_exporter import families
from paropt_exporter.promql import Without, select


def test_selector_has_base_then_labels_then_window() -> None:
    written = select(families.RUNS, 'job="x"', lane="standard", result=("failure", "cancellation"), over="5m")
    assert written == 'paropt_runs_total{job="x",lane="standard",result=~"failure|cancellation"}[5m]'


def test_selector_without_matchers_has_no_braces() -> None:
    assert select(families.HOST_CPUS) == "paropt_host_cpus"


def test_values_can_be_excluded() -> None:
    assert select(families.RUNS, result=Without(("success",))) == 'paropt_runs_total{result!="success"}'
    assert select(families.RUNS, result=Without(("a", "b"))) == 'paropt_runs_total{result!~"a|b"}'


def test_values_are_literal() -> None:
    assert select(families.RUNS, lane='a"\\') == r'paropt_runs_total{lane="a\"\\"}'
    assert select(families.RUNS, lane=("a.b", "c|d")) == r'paropt_runs_total{lane=~"a\\.b|c\\|d"}'


def test_histogram_is_selected_by_part() -> None:
    assert select(families.RUN_DURATION, part="count") == "paropt_run_duration_seconds_count"


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        (families.RUNS, {"stage": "unit"}),
        (families.RUNS, {"part": "sum"}),
        (families.RUN_DURATION, {}),
        (families.RUN_DURATION, {"part": "total"}),
    ],
)
def test_unknown_labels_and_parts_are_refused(family: families.Family, arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=family.name):
        select(family, **arguments)
