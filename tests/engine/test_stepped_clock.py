"""The wall clock is set by an hour during a run: durations, limits and time limits follow the monotonic clock."""

from __future__ import annotations

import pytest

from paropt_exporter.events import Result, SlaRecord, StageRecord, TaskRecord
from paropt_exporter.testing import Script
from support.lanes import Bench, limit, plan, stage


@pytest.mark.parametrize("step_seconds", [-3600.0, 3600.0])
def test_clock_that_is_set_by_an_hour_changes_no_duration_and_no_limit(step_seconds: float) -> None:
    planned = plan(stage("a", sla=limit(10)), stage("b", needs=("a",), timeout_seconds=20.0))
    bench = Bench(planned, {"a": [Script(seconds=5)], "b": [Script(seconds=8)]})
    set_by = [0.0]
    steady = bench.clock.wall
    bench.clock.wall = lambda: steady() + set_by[0]  # type: ignore[method-assign]  # as if an operator had set it
    bench.inbox.at(2.0, lambda: set_by.__setitem__(0, step_seconds))
    record = bench.run()
    assert record.result is Result.SUCCESS
    assert record.duration_seconds == 13
    assert [one.duration_seconds for one in bench.recorder.of(StageRecord)] == [5, 8]
    assert [one.duration_seconds for one in bench.recorder.of(TaskRecord)] == [5, 8]
    assert bench.recorder.of(SlaRecord) == []
