"""The starting size of a lane, from what is known of earlier runs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from types import MappingProxyType

import pytest
from msgspec.structs import replace

from paropt_exporter.app.planning import Planner, format_failures
from paropt_exporter.app.request import Request
from paropt_exporter.autoscaling.feedback import PastRuns
from paropt_exporter.autoscaling.state import ControlState, Override
from paropt_exporter.executors.base import DASK
from paropt_exporter.history import History
from paropt_exporter.history.failures import Failures
from paropt_exporter.plan import Bounds, build_plan
from paropt_exporter.testing import FakeClock
from support import configs, lanes

PAST = PastRuns(sizes=MappingProxyType({"commands": 30.0}), durations=MappingProxyType({}))


@pytest.mark.parametrize(("mode", "start"), [("act", 30), ("advise", 2), ("pause", 2)])
def test_sizes_of_earlier_runs_are_no_start_for_a_lane_that_can_not_correct_them(
    tmp_path: Path, mode: str, start: int
) -> None:
    """Prometheus has the sizes that were recommended: without allocation of cores, 30 computing tasks started."""
    bounds = Bounds(minimum=1, maximum=32, start=2)
    config = configs.read(tmp_path, configs.stage())
    request = Request(config_path=None, root=tmp_path, lane="standard", once=True)
    control_state = ControlState(bounds, ("commands",), source="both", override=Override(mode=mode))
    with closing(History(tmp_path / "history.db", project="p", clock=FakeClock())) as history:
        planner = Planner(request, config, "standard", history, lambda: PAST, print)
        stages = lanes.stage("a", tasks=50), lanes.stage("b", pool=DASK)  # whose pool is new
        planned = planner.set_start_size(lanes.plan(*stages, workers=bounds), control_state)
    assert planned.workers.start == start


def test_flag_failed_reports_a_shard_without_failures(tmp_path: Path) -> None:
    """The line ended after `--failed runs`."""
    whole = build_plan(configs.read(tmp_path, configs.stage()), "standard")
    line = format_failures(replace(whole, stages=()), Failures(stages=frozenset({"one"}), items={}, succeeded=()))
    assert line == "--failed runs nothing in this shard"


def test_flag_failed_names_stages_that_have_not_run_yet(tmp_path: Path) -> None:
    whole = build_plan(configs.read(tmp_path, "stages: [{name: one, run: a}, {name: two, run: b}]"), "standard")
    failed = Failures(stages=frozenset({"one"}), items={}, succeeded=("three",), unknown=("two", "new"))
    line = format_failures(whole, failed)
    assert line == "--failed runs one, two; leaves out three, which succeeded; and new, not run yet"
