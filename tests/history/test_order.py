"""The last run is the one that began last, whatever the wall clock says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter.events import Decision, Result
from paropt_exporter.history import History
from paropt_exporter.history.failures import Failures
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, stage_started, task

YEAR_SECONDS = 365 * 86_400.0


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    with closing(History(path, project="shop", clock=StillClock(), keep_runs=20)) as history:
        yield history


def keep_run(
    history: History, run_id: str, *, at: float, result: Result = Result.SUCCESS, seconds: float = 2.0, cpu: float = 1.0
) -> None:
    lint = stage_ended("lint", run_id, at=at, result=result, seconds=seconds)
    for event in (
        run_started(run_id, at=at, stages=("lint",)),
        stage_started("lint", run_id, at=at),
        task("lint", run_id, seconds=seconds, cpu=cpu, result=result),
        Decision(
            pool="commands", action="up", reason="load", old_size=1, new_size=int(seconds), at_timestamp_seconds=at,
            run_id=run_id,
        ),
        lint,
        run_ended(run_id, at=at, seconds=seconds, result=result, stages=(lint,)),
    ):  # fmt: skip
        history.observe(event)
    assert history.broken is None


def test_a_run_stamped_in_the_future_does_not_stay_the_last_run(history: History) -> None:
    keep_run(history, "future", at=START + YEAR_SECONDS)
    keep_run(history, "now", at=START, result=Result.FAILURE)
    assert [run.run_id for run in history.load_runs()] == ["future", "now"]
    assert [run.run_id for run in history.load_runs(limit=1)] == ["now"]
    assert history.find_failures("standard", ("lint",)) == Failures(stages=frozenset({"lint"}), items={})


def test_runs_stamped_in_the_future_do_not_stay_in_expectations(history: History) -> None:
    for number in range(10):
        keep_run(history, f"future{number}", at=START + YEAR_SECONDS + number, seconds=100.0, cpu=100.0)
    for number in range(10):
        keep_run(history, f"now{number}", at=START + number, seconds=2.0, cpu=1.0)
    assert history.load_earlier_runs("standard").seconds == {"lint": 2.0}
    assert history.load_earlier_runs("standard").task_seconds == {"lint": pytest.approx(2.0)}
    assert history.load_cpu_demands("standard") == {"lint": pytest.approx(0.5)}
    assert history.load_usual_size("standard") == 2
    trend = history.compute_trend("standard")
    assert trend is not None
    assert trend.latest == 0.5


def test_runs_stamped_in_the_future_are_pruned_in_their_turn(history: History) -> None:
    keep_run(history, "future", at=START + YEAR_SECONDS)
    for number in range(20):
        keep_run(history, f"now{number}", at=START + number)
    assert "future" not in {run.run_id for run in history.load_runs(limit=100)}
