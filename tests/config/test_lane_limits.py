"""Limits of a lane by stage, and default lanes of which a file says only a part."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter import plan
from paropt_exporter.events import Strategy
from support import configs

STAGES = """
stages:
- {number: 1, name: lint, run: "true"}
- {number: 2, name: unit_tests, run: "true", sla: 20s}
- {number: 3, name: scan, run: "true"}
"""


def limits(folder: Path, lanes: str, lane: str = "heavy") -> dict[str, float | None]:
    made = plan.build_plan(configs.read(folder, f"lanes: {lanes}{STAGES}"), lane)
    return {stage.name: stage.sla.max_seconds if stage.sla else None for stage in made.stages}


def test_lanes_limit_by_name_wins_over_the_stages_own(tmp_path: Path) -> None:
    found = limits(tmp_path, "{mine: {sla: {unit_tests: 90s, lint: {max: 5s, critical: true}}}}", "mine")
    assert found == {"lint": 5, "unit_tests": 90, "scan": None}


def test_star_is_the_limit_of_the_other_stages(tmp_path: Path) -> None:
    found = limits(tmp_path, '{mine: {sla: {"*": 7s, lint: 5s}}}', "mine")
    assert found == {"lint": 5, "unit_tests": 20, "scan": 7}


def test_limits_by_stage_leave_the_others_the_default_lanes(tmp_path: Path) -> None:
    assert limits(tmp_path, "{heavy: {sla: {lint: 5s}}}") == {"lint": 5, "unit_tests": 20, "scan": 60}


def test_default_lane_keeps_values_that_the_file_does_not_set(tmp_path: Path) -> None:
    config = configs.read(tmp_path, f"lanes: {{heavy: {{sla: 45s}}, docs: {{fail_fast: false}}}}{STAGES}")
    heavy, docs = config.lanes["heavy"], config.lanes["docs"]
    assert (heavy.strategy, heavy.workers.max, heavy.total and heavy.total.max) == (Strategy.PROCESS, 8, 1200)
    assert (docs.strategy, docs.workers.max, docs.fail_fast) == (Strategy.THREAD, 2, False)


def test_default_lanes_limit_is_taken_away_by_null(tmp_path: Path) -> None:
    config = configs.read(tmp_path, f"lanes: {{heavy: {{sla: null, total: null}}}}{STAGES}")
    assert (config.lanes["heavy"].sla, config.lanes["heavy"].total) == (None, None)


@pytest.mark.parametrize(
    ("lanes", "found"),
    [
        ("{}", {"lint", "scan", ""}),
        ("{heavy: {total: 25m}}", {"lint", "scan"}),
        ("{heavy: {sla: {lint: 5s}, total: null}}", set()),
        ("{mine: {sla: 60s}}", {"lint", "scan", ""}),
    ],
)
def test_limits_that_a_default_lane_has_by_itself_are_known(tmp_path: Path, lanes: str, found: set[str]) -> None:
    """The stage `unit_tests` has its own, even if it is as long."""
    stages = STAGES.replace("20s", "60s")
    made = plan.build_plan(configs.read(tmp_path, f"lanes: {lanes}{stages}"), "heavy")
    assert made.default_limits == found


def test_lane_of_another_name_inherits_nothing(tmp_path: Path) -> None:
    config = configs.read(tmp_path, f"lanes: {{mine: {{sla: 45s}}}}{STAGES}")
    assert (config.lanes["mine"].strategy, config.lanes["mine"].total) == (Strategy.ADAPTIVE, None)


@pytest.mark.parametrize(
    ("sla", "said"),
    [
        ("{unit_test: 60s}", "sla.unit_test: lane heavy has no stage 'unit_test': did you mean 'unit_tests'?"),
        ("{lint: soon}", "lanes.heavy.sla.lint: expected a duration"),
        ("{lint: {max: 5s, warm_at: 0.5}}", "sla.lint.warm_at: unknown key 'warm_at': did you mean 'warn_at'?"),
        ("{max: 5s, warm_at: 0.5}", "lanes.heavy.sla.warm_at: unknown key 'warm_at': did you mean 'warn_at'?"),
        ("{warn_at: 0.5}", "lanes.heavy.sla: the key 'max' is missing"),
        ("soon", "lanes.heavy.sla: expected a duration"),
    ],
)  # fmt: skip
def test_limit_that_makes_no_sense_is_one_fault_in_its_place(tmp_path: Path, sla: str, said: str) -> None:
    (fault,) = configs.faults(tmp_path, f"lanes: {{heavy: {{sla: {sla}}}}}{STAGES}")
    assert said in fault


def test_limit_of_a_stage_that_the_lane_leaves_out_is_a_fault(tmp_path: Path) -> None:
    (fault,) = configs.faults(tmp_path, f"lanes: {{mine: {{stages: [lint], sla: {{scan: 5s}}}}}}{STAGES}")
    assert "lane mine has no stage 'scan'" in fault
