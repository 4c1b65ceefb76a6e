"""Figures of earlier runs cost no more with a long history than with a short one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.events import Event
from paropt_exporter.history import History, queries, retention
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, stage_started, task

STAGES = tuple(f"stage_{number}" for number in range(8))
SHORT, LONG = 60, 600  # runs
QUERIES: dict[str, Callable[..., Any]] = {  # Any: their results differ
    "earlier runs": queries.load_earlier_runs,
    "durations": lambda *place: queries.load_stage_durations(*place, limit=10),
    "pasts": queries.load_stage_pasts,
    "demands": queries.load_cpu_demands,
    "peaks": queries.load_memory_peaks,
    "fastest tasks": queries.load_fastest_task_seconds,
    "flakiness": queries.load_flakiness,
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A short and a long history of one lane; `rare` has run in their first run only."""
    folder = tmp_path_factory.mktemp("histories")
    paths = {runs: folder / f"{runs}.db" for runs in (SHORT, LONG)}
    for runs, path in paths.items():
        with closing(History(path, project="shop", clock=StillClock())) as history:
            for number in range(runs):
                add_run(history, number, stages=(*STAGES, "rare") if number == 0 else STAGES)
    return paths


def add_run(history: History, number: int, *, stages: tuple[str, ...]) -> None:
    run_id, at = f"run-{number:04}", START + 60 * number
    started: list[Event] = [stage_started(stage, run_id, at=at) for stage in stages]
    tasks: list[Event] = [task(stage, run_id) for stage in stages]
    ended = tuple(stage_ended(stage, run_id, at=at, seconds=2.0) for stage in stages)
    history.observe_all((run_started(run_id, at=at, stages=stages), *started, *tasks, *ended))
    history.observe(run_ended(run_id, at=at, seconds=2.0, stages=ended))
    assert history.broken is None


def count_steps(path: Path, load: Callable[..., object]) -> int:
    """Return how many instructions of its virtual machine SQLite runs for a query."""
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(count, 1)
        load(connection, "shop", "standard")
    return steps


@pytest.mark.parametrize("name", QUERIES)
def test_query_of_a_long_history_reads_few_runs(paths: dict[int, Path], name: str) -> None:
    short, long = (count_steps(paths[runs], QUERIES[name]) for runs in (SHORT, LONG))
    listed_runs = 40 * (LONG - SHORT)  # to list a run and look for one stage in it, but not to read its stages
    assert 0 < long <= short + listed_runs


@pytest.mark.parametrize("name", ["demands", "peaks", "fastest tasks"])
def test_query_of_the_last_runs_reads_no_earlier_ones(paths: dict[int, Path], name: str) -> None:
    short, long = (count_steps(paths[runs], QUERIES[name]) for runs in (SHORT, LONG))
    assert long == short


def test_stage_that_ran_long_ago_keeps_its_expected_duration(paths: dict[int, Path]) -> None:
    with closing(History(paths[LONG], project="shop", clock=StillClock())) as history:
        assert history.load_earlier_runs("standard").seconds == dict.fromkeys((*STAGES, "rare"), 2.0)
        runs = {stage: past.runs for stage, past in history.load_stage_pasts("standard").items()}
    assert runs == {**dict.fromkeys(STAGES, queries.PAST_RUNS), "rare": 1}


def test_end_of_a_run_reads_few_earlier_ones(paths: dict[int, Path]) -> None:
    def remove(connection: sqlite3.Connection, project: str, _: str) -> None:
        retention.remove_portion(connection, project, retention.Limits(runs=None), 0.0)

    short, long = (count_steps(paths[runs], remove) for runs in (SHORT, LONG))
    assert long - short < 3 * (LONG - SHORT)


def test_totals_of_an_instance_cost_no_more_beside_those_of_others(tmp_path: Path) -> None:
    def load(connection: sqlite3.Connection, project: str, _: str) -> None:
        assert queries.load_totals(connection, project, "0").counters
        assert queries.load_stage_cpu_totals(connection, project, "0")

    path = tmp_path / "history.db"
    steps = []
    for number in range(5):
        with closing(History(path, project="shop", clock=StillClock(), instance=str(number))) as history:
            add_run(history, number, stages=STAGES)
        steps.append(count_steps(path, load))
    assert steps[4] <= steps[0] + len(STAGES)
