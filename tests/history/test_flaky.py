"""Flaky stages in the history: from retries, and from runs with the same files and different results."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.events import Result, Scope, Shard
from paropt_exporter.history import History, queries
from paropt_exporter.plan import OpenFailures
from paropt_exporter.plan.flakiness import FLAKY_RUNS
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, task


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with closing(History(tmp_path / "history.db", project="shop", clock=StillClock())) as history:
        yield history


def add_run(
    history: History,
    number: int,
    *,
    result: Result = Result.SUCCESS,
    state: str = "s1",
    item: str | None = None,
    tasks: int = 1,
    scope: Scope = Scope.ALL,
    shard: Shard | None = None,
    **counts: Any,
) -> None:
    run_id, at = f"r{number}", START + 60 * number
    lint = replace(stage_ended("lint", run_id, result=result, at=at), scope=scope, first_attempts=tasks, **counts)
    history.observe(replace(run_started(run_id, at=at, stages=("lint",)), tree_state=state, shard=shard))
    for index in range(tasks):
        ended = task("lint", run_id, number=index, result=result)
        history.observe(replace(ended, item=f"{item}{index}" if item else None, scope=scope))
    history.observe(lint)
    history.observe(replace(run_ended(run_id, at=at, result=result, stages=(lint,)), shard=shard))


def test_ratio_is_that_of_all_runs(history: History) -> None:
    for number in range(4):
        add_run(history, number)
    add_run(history, 5, flaky_attempts=1, flaky_items=("test_a.py",))
    ((place, found),) = history.load_flakiness().items()
    assert place == ("standard", "lint")
    assert (found.first_attempts, found.flaky_attempts, found.items) == (5, 1, frozenset({"test_a.py"}))
    assert found.last_timestamp_seconds == START + 300


def test_stages_that_were_never_flaky_are_left_out(history: History) -> None:
    add_run(history, 1, result=Result.FAILURE)
    assert history.load_flakiness("standard") == {}


def test_flaky_attempts_of_old_runs_are_forgotten(history: History) -> None:
    add_run(history, 0, flaky_attempts=1, flaky_items=("x",))
    for number in range(1, FLAKY_RUNS + 1):
        assert history.load_flakiness("standard")
        history.observe(run_started(f"r{number}", at=START + number))
    assert history.load_flakiness("standard") == {}


def test_failures_of_a_state_are_open_until_the_stage_succeeds_in_it(history: History) -> None:
    add_run(history, 1, result=Result.FAILURE, item="test_", tasks=2)
    add_run(history, 2, state="s2")
    assert history.load_open_failures("standard", "s2") == {}
    opened = {"lint": OpenFailures(attempts=2, items=frozenset({"test_0", "test_1"}))}
    assert history.load_open_failures("standard", "s1") == opened
    add_run(history, 3)
    assert history.load_open_failures("standard", "s1") == {}
    add_run(history, 4, result=Result.TIMEOUT)
    assert history.load_open_failures("standard", "s1") == {"lint": OpenFailures(attempts=1)}


def test_unknown_states_arguments_stops_and_failed_starts_are_no_evidence(history: History) -> None:
    add_run(history, 1, result=Result.FAILURE, state="")
    add_run(history, 2, result=Result.FAILURE, scope=Scope.ARGUMENTS)
    add_run(history, 3, result=Result.CANCELLATION)
    add_run(history, 4, result=Result.ERROR)  # without an exit code or a signal: it could not start
    assert history.load_open_failures("standard", "") == {}
    assert history.load_open_failures("standard", "s1") == {}


def test_success_with_arguments_closes_nothing(history: History) -> None:
    add_run(history, 1, result=Result.FAILURE)
    add_run(history, 2, scope=Scope.ARGUMENTS)
    assert history.load_open_failures("standard", "s1") == {"lint": OpenFailures(attempts=1)}


def test_shard_closes_only_its_own_failures(history: History) -> None:
    first, second = (Shard(index=index, count=2, split="abc") for index in (1, 2))
    add_run(history, 1, result=Result.FAILURE, item="a", scope=Scope.ITEMS, shard=first)
    add_run(history, 2, result=Result.FAILURE, item="b", scope=Scope.ITEMS, shard=second)
    opened = {"lint": OpenFailures(attempts=1, items=frozenset({"b0"}))}
    assert history.load_open_failures("standard", "s1", shard="2/2") == opened
    add_run(history, 3, scope=Scope.ITEMS, shard=first)
    assert history.load_open_failures("standard", "s1", shard="1/2") == {}
    assert history.load_open_failures("standard", "s1") == opened
    add_run(history, 4)
    assert history.load_open_failures("standard", "s1", shard="2/2") == {}


def test_failure_of_a_whole_run_that_a_shard_has_proven_flaky_is_closed(history: History) -> None:
    """Each further success of the shard counted it again."""
    shard = Shard(index=1, count=2, split="abc")
    add_run(history, 1, result=Result.FAILURE, item="b")
    add_run(history, 2, scope=Scope.ITEMS, shard=Shard(index=2, count=2, split="abc"))
    opened = {"lint": OpenFailures(attempts=1, items=frozenset({"b0"}))}
    assert history.load_open_failures("standard", "s1", shard="1/2") == opened
    add_run(history, 3, scope=Scope.ITEMS, shard=shard, flaky_attempts=1, flaky_items=("b0",))
    assert history.load_open_failures("standard", "s1", shard="1/2") == {}


@pytest.mark.parametrize("item", [None, "test_"])
def test_work_to_find_open_failures_grows_with_the_runs_not_with_their_square(tmp_path: Path, item: str | None) -> None:
    """A lane of 50 failing stages, which --every had run 1,000 times with the same files, was planned for 90 s."""
    path = tmp_path / "history.db"
    steps = []
    with closing(History(path, project="shop", clock=StillClock())) as history:
        for number in range(128):
            add_run(history, number, result=Result.FAILURE, item=item)
            if number in (63, 127):
                steps.append(count_steps(path))
    assert steps[1] < 3 * steps[0]


def count_steps(path: Path) -> int:
    """Return how many instructions SQLite's virtual machine takes to find the open failures, in tens."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    with closing(sqlite3.connect(path)) as connection:
        connection.set_progress_handler(count, 10)
        queries.load_open_failures(connection, "shop", "standard", "s1")
    return steps


def test_removed_runs_leave_no_flaky_items(tmp_path: Path) -> None:
    with closing(History(tmp_path / "h.db", project="shop", clock=StillClock(), keep_runs=1)) as history:
        add_run(history, 1, flaky_attempts=1, flaky_items=("a",))
        add_run(history, 2)
        add_run(history, 3, flaky_attempts=1, flaky_items=("b",))
        assert history.load_flakiness()["standard", "lint"].items == {"b"}


def test_state_of_a_failed_run_is_stored_after_it(history: History) -> None:
    assert not history.has_failed_with_state("standard")
    add_run(history, 1, result=Result.FAILURE, state="")
    history.store_tree_state("r1", "s1")
    assert history.has_failed_with_state("standard")
    assert history.load_open_failures("standard", "s1") == {"lint": OpenFailures(attempts=1)}
    for number in range(2, 22):
        add_run(history, number, state="")
    assert not history.has_failed_with_state("standard"), "too long ago"
