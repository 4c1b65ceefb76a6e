"""Old runs go by number, age and size, the file shrinks, and totals stay."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.app import parts
from paropt_exporter.events import Decision, Event, Result
from paropt_exporter.history import History, retention
from paropt_exporter.history.queries import CONSIDERED_RUNS
from paropt_exporter.history.retention import MOST_PORTIONS, RUNS_OF_A_PORTION
from support import configs
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, stage_started, task

DAY_SECONDS = 86_400.0
OUTPUT = "x" * 4000


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def open_file(path: Path, clock: StillClock, *, runs: int | None = None, **limits: float) -> History:
    return History(
        path, project="shop", clock=clock, keep_runs=runs, keep_seconds=limits.get("seconds"),
        keep_bytes=int(limits["size"]) if "size" in limits else None,
    )  # fmt: skip


def failed_run(run_id: str, *, lane: str = "standard", at: float = START, tasks: int = 1) -> Iterator[Event]:
    """A run with 4 kB of output for each task."""
    lint = replace(stage_ended("lint", run_id, at=at), lane=lane, result=Result.FAILURE)
    lint = replace(lint, flaky_attempts=1, flaky_items=("a.py",))
    yield replace(run_started(run_id, lane=lane, at=at, stages=("lint",)), tree_state="dirty")
    yield stage_started("lint", run_id, lane=lane, tasks=tasks, at=at)
    for number in range(tasks):
        made = task("lint", run_id, lane=lane, number=number, result=Result.FAILURE, output=OUTPUT)
        yield replace(made, item=f"{number}.py")
    yield lint
    yield replace(run_ended(run_id, at=at, stages=(lint,)), lane=lane)


def keep_runs(history: History, count: int, *, first: int = 0, **of_run: float) -> None:
    for number in range(first, first + count):
        history.observe_all(tuple(failed_run(f"r{number}", **of_run)))  # type: ignore[arg-type]
    assert history.broken is None


def decision(run_id: str | None, at: float = START) -> Decision:
    return Decision(
        pool="commands", action="up", reason="demand", old_size=2, new_size=4, at_timestamp_seconds=at, run_id=run_id
    )


def count_runs(history: History) -> float:
    return sum(amount for place, amount in history.load_totals().counters.items() if place[0] == families.RUNS.name)


def list_run_ids(history: History) -> list[str]:
    return [run.run_id for run in history.load_runs(limit=10_000)]


@contextmanager
def query(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        yield connection


def test_runs_beyond_the_size_are_removed_oldest_first_and_totals_stay(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock, size=500_000)) as history:
        keep_runs(history, 300)
        kept = list_run_ids(history)
        assert kept == [f"r{number}" for number in range(300 - len(kept), 300)]
        assert 50 <= len(kept) <= 120
        assert count_runs(history) == 300
    assert path.stat().st_size < 2 * 500_000  # up to 1 MiB of free pages wait for the next runs


@pytest.mark.parametrize(
    ("limit", "kept"),
    [("size: 1", ["r3"]), ("runs: 2", ["r2", "r3"]), ("age: 1h", ["r1", "r2", "r3"])],
)
def test_limits_are_those_of_the_config(tmp_path: Path, clock: StillClock, limit: str, kept: list[str]) -> None:
    config = configs.read(tmp_path, f"project: shop\n{configs.stage()}history: {{keep: {{{limit}}}}}\n")
    with closing(parts.open_history(config, clock)) as history:
        keep_runs(history, 1, at=START - 7200.0)
        keep_runs(history, 3, first=1)
        assert list_run_ids(history) == kept


def test_last_run_of_each_lane_stays_whatever_its_size(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock, size=1)) as history:
        history.observe_all(tuple(failed_run("rare", lane="docs")))
        keep_runs(history, 5)
        assert list_run_ids(history) == ["rare", "r4"]


def test_runs_of_an_earlier_name_make_room_for_new_ones(path: Path, clock: StillClock) -> None:
    """A renamed project had only one run of each lane, since the file stayed too large."""
    with closing(open_file(path, clock)) as history:
        keep_runs(history, 30, tasks=20)
    size = path.stat().st_size // 2
    with closing(History(path, project="store", clock=clock, keep_runs=None, keep_bytes=size)) as history:
        keep_runs(history, 4, first=30)
        assert list_run_ids(history) == ["r30", "r31", "r32", "r33"]
    with closing(open_file(path, clock)) as history:
        assert len(list_run_ids(history)) < 20
        assert list_run_ids(history)[-1] == "r29"
        assert count_runs(history) == 30


def test_file_shrinks_when_runs_are_removed(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock)) as history:
        keep_runs(history, 100, tasks=20)
    large = path.stat().st_size
    with closing(open_file(path, clock, runs=5)) as history:
        keep_runs(history, 1, first=100)
        assert list_run_ids(history) == ["r96", "r97", "r98", "r99", "r100"]
    assert large > 8_000_000
    assert path.stat().st_size < large / 4
    with query(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_lowered_limit_is_kept_after_some_runs(path: Path, clock: StillClock) -> None:
    """The end of a run removes so many at most: it must not block for long."""
    most = MOST_PORTIONS * RUNS_OF_A_PORTION
    with closing(open_file(path, clock)) as history:
        for number in range(most + 200):
            history.observe_all((run_started(f"r{number}"), run_ended(f"r{number}")))
    with closing(open_file(path, clock, runs=10)) as history:
        keep_runs(history, 1, first=most + 200)
        assert len(list_run_ids(history)) == 201
        keep_runs(history, 1, first=most + 201)
        assert len(list_run_ids(history)) == 10


def test_everything_about_a_run_goes_with_it(path: Path, clock: StillClock) -> None:
    tables = ("tasks", "stages", "failed_items", "flaky_items", "runs")
    with closing(open_file(path, clock, runs=2)) as history:
        keep_runs(history, 5)
        assert history.load_flakiness("standard")["standard", "lint"].items == {"a.py"}
    with query(path) as connection:
        for table in tables:
            found = {run_id for (run_id,) in connection.execute(f"SELECT run_id FROM {table}")}
            assert found == {"r3", "r4"}, table


def test_totals_of_former_instances_are_joined(path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name for each job of CI would let the file grow without an end."""
    monkeypatch.setattr(retention, "MOST_INSTANCES", 2)

    def run(instance: str, number: int) -> float:
        """Return how many runs the instance has had."""
        with closing(History(path, project="shop", clock=clock, instance=instance, keep_runs=3)) as history:
            keep_runs(history, 1, first=number)
            return count_runs(history)

    assert [run(name, number) for number, name in enumerate(("one", "two", "one", "three"))] == [1, 1, 2, 1]
    with query(path) as connection:
        counted = connection.execute("SELECT instance, value FROM totals WHERE family = ?", (families.RUNS.name,))
        assert dict(counted.fetchall()) == {"one": 2, "three": 1, "former instances": 1}
    assert [run(name, number) for number, name in enumerate(("two", "three"), start=4)] == [1, 2]
    with closing(History(path, project="shop", clock=clock, for_reading=True)) as history:
        assert count_runs(history) == 6


@pytest.mark.parametrize("column", ["started_ts", "sequence"])
def test_foreign_value_in_an_old_run_counts_no_later_run_twice(path: Path, clock: StillClock, column: str) -> None:
    """The error came after the record of the later run was stored, so its totals were kept to be added again."""
    with closing(open_file(path, clock, seconds=DAY_SECONDS)) as history:
        keep_runs(history, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE runs SET {column} = 'x'")  # nosec B608 # literals
        connection.commit()
    with closing(open_file(path, clock, seconds=DAY_SECONDS)) as history:
        keep_runs(history, 1, first=1)
    with closing(open_file(path, clock)) as history:
        counters = history.load_totals().counters
    assert counters[families.RUNS.name, ("standard", "success")] == 2.0


def test_decisions_go_by_age_and_with_the_runs_that_are_too_large(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock, seconds=30 * DAY_SECONDS)) as history:
        history.observe(decision(None, at=clock.wall() - 31 * DAY_SECONDS))
        history.observe(decision(None, at=clock.wall() - 29 * DAY_SECONDS))
        keep_runs(history, 1, at=clock.wall())
        assert len(history.load_decisions()) == 1
    with closing(open_file(path, clock, size=1)) as history:
        history.observe(decision("r0"))
        history.observe(decision("r1"))
        keep_runs(history, 1, first=1)
        assert [made.run_id for made in history.load_decisions()] == ["r1"]


def test_decisions_outlive_runs_that_are_too_many(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock, runs=1)) as history:
        history.observe(decision("r0"))
        keep_runs(history, 3)
        assert len(history.load_decisions()) == 1


def test_durations_of_items_stay_for_90_days(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock, runs=1)) as history:
        done = replace(task("lint", "r0"), item="a.py")
        history.observe_all((run_started("r0"), done, run_ended("r0")))
        clock.advance(89 * DAY_SECONDS)
        keep_runs(history, 1, first=1)
        assert "a.py" in history.load_earlier_runs("standard").items["lint"].seconds
        clock.advance(2 * DAY_SECONDS)
        keep_runs(history, 1, first=2)
        assert history.load_earlier_runs("standard").items == {}


def test_runs_that_have_not_ended_are_spared(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock, runs=2, size=1)) as history:
        history.observe(run_started("alive"))
        keep_runs(history, 4)
        assert list_run_ids(history) == ["alive", "r3"]


def test_expectations_come_from_the_last_thousand_runs_of_a_long_history(path: Path, clock: StillClock) -> None:
    with closing(open_file(path, clock)) as history:
        lint = stage_ended("lint", "r0")
        history.observe_all((run_started("r0"), stage_started("lint", "r0"), lint, run_ended("r0", stages=(lint,))))
        for number in range(1, CONSIDERED_RUNS):
            history.observe_all((run_started(f"r{number}"), run_ended(f"r{number}")))
        assert "lint" in history.load_earlier_runs("standard").seconds
        history.observe_all((run_started("last"), run_ended("last")))
        assert history.load_earlier_runs("standard").seconds == {}


def test_compaction_that_finds_the_file_locked_costs_no_run(path: Path, clock: StillClock) -> None:
    """A reader keeps the file's pages as they are; the next run's end compacts."""
    with closing(open_file(path, clock)) as history:
        keep_runs(history, 100, tasks=20)
    with closing(open_file(path, clock, runs=5)) as history:
        with query(path) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM runs").fetchone() == (100,)
            keep_runs(history, 1, first=100)
            assert reader.execute("SELECT count(*) FROM runs").fetchone() == (100,)
        keep_runs(history, 1, first=101)
        assert history.dropped == 0
        assert len(list_run_ids(history)) == 5
