"""After a full disk has space again, the history continues, and no total is lower after the next start."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from paropt_exporter import families
from paropt_exporter.events import Event, Result
from paropt_exporter.history import History
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, stage_started, task
from support.processes import run_python

REALLY_FULL = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from history.test_full_disk import whole_run
from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
history = History(Path(sys.argv[1]), project="shop", clock=SystemClock())
seen = []
for number in range(4):
    if number in (1, 2):  # no file may grow beyond this; write(2) fails as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, unlimited))
    for event in whole_run(f"r{number}"):
        history.observe(event)
    seen.append(history.broken is None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))
history.close()
print(json.dumps(seen))
"""

# The tasks of a run are more than SQLite sorts in memory, so that it writes a temporary file.
FULL_TEMPORARY_DISK = """
import json, resource, sqlite3, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from history.test_full_disk import whole_run
from paropt_exporter.clock import SystemClock
from paropt_exporter.history import History
history = History(Path(sys.argv[1]), project="shop", clock=SystemClock())
history.observe_all(whole_run("r1"))
COPY = '''
WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 20000)
INSERT INTO tasks SELECT run_id, stage || hex(zeroblob(100)), number, attempt, item, final, result, message, pool,
  worker, started_ts, duration, queue_wait, cpu, run_delay, memory_peak, exit_code, signal, output FROM tasks, numbers
'''
with sqlite3.connect(sys.argv[1]) as other:
    other.execute(COPY)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
print(json.dumps(sorted(history.load_cpu_demands("standard").values())))
"""


def open_file(path: Path) -> History:
    return History(path, project="shop", clock=StillClock())


def whole_run(run_id: str, result: Result = Result.SUCCESS) -> tuple[Event, ...]:
    lint = stage_ended("lint", run_id, result=result)
    return (
        run_started(run_id, stages=("lint",)),
        stage_started("lint", run_id),
        task("lint", run_id, result=result),
        lint,
        run_ended(run_id, stages=(lint,), result=result),
    )


def observe(history: History, *events: Event) -> None:
    for event in events:
        history.observe(event)


@contextmanager
def make_disk_full(path: Path, table: str = "runs", *, change: str = "INSERT") -> Iterator[None]:
    """Simulate a full disk: inserting a row, or deleting one, fails."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"CREATE TRIGGER full BEFORE {change} ON {table} BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
        )
        yield
        connection.execute("DROP TRIGGER full")


def is_broken(history: History) -> bool:
    return history.broken is not None


def count_runs(path: Path) -> float:
    with closing(open_file(path)) as history:
        return history.load_totals().counters[families.RUNS.name, ("standard", "success")]


def run_script(script: str, path: Path) -> list[float]:
    """Run a script about a history in a process of its own, whose limits it changes; return the list it prints."""
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((tests, str(Path(tests).parent / "exporter")))}
    ran = run_python(script, str(path), tests, env=environment, check=True)
    found: list[float] = json.loads(ran.stdout)
    return found


def test_a_run_after_the_disk_was_freed_is_not_broken(path: Path) -> None:
    with closing(open_file(path)) as history:
        with make_disk_full(path):
            observe(history, *whole_run("r1"))
            assert is_broken(history)
        observe(history, *whole_run("r2"))
        assert not is_broken(history)
        assert history.dropped == 5


def test_totals_do_not_fall_at_a_restart_after_the_disk_was_freed(path: Path) -> None:
    with closing(open_file(path)) as history:
        observe(history, *whole_run("r1"))
        with make_disk_full(path):
            observe(history, *whole_run("r2"))
        observe(history, *whole_run("r3"))
    assert count_runs(path) == 3


def test_histograms_and_last_values_of_missed_runs_are_added_later(path: Path) -> None:
    with closing(open_file(path)) as history:
        with make_disk_full(path):
            observe(history, *whole_run("r1", Result.FAILURE))
        observe(history, run_started("r2"))
    with closing(open_file(path)) as history:
        assert history.load_totals().histograms[families.RUN_DURATION.name, ("standard",)].count == 1
        assert history.load_last_values().gauges[families.RUN_LAST_COMPLETION.name, ("standard",)] == START + 4


def test_missed_totals_are_written_at_close_if_there_is_space(path: Path) -> None:
    with closing(open_file(path)) as history, make_disk_full(path):
        observe(history, *whole_run("r1"))
    assert count_runs(path) == 1


def test_a_partly_missed_run_is_added_once(path: Path) -> None:
    with closing(open_file(path)) as history:
        with make_disk_full(path, "tasks"):
            observe(history, *whole_run("r1"))
        observe(history, *whole_run("r2"))
    assert count_runs(path) == 2
    with closing(open_file(path)) as history:
        tasks = history.load_totals().counters[families.TASK_ATTEMPTS.name, ("standard", "lint", "success")]
        assert tasks == 2


def test_old_runs_that_can_not_be_removed_cost_no_run(path: Path) -> None:
    with closing(History(path, project="shop", clock=StillClock(), keep_runs=1)) as history:
        observe(history, *whole_run("r1"))
        with make_disk_full(path, change="DELETE"):
            observe(history, *whole_run("r2"))
        assert (history.dropped, history.broken) == (0, None)
        assert [run.run_id for run in history.load_runs()] == ["r1", "r2"]
        observe(history, *whole_run("r3"))
        assert [run.run_id for run in history.load_runs()] == ["r3"]
    assert count_runs(path) == 3


def test_a_history_that_could_not_be_opened_is_retried_at_each_run(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path.parent.write_text("a file in its place")
    with closing(open_file(path)) as history:
        observe(history, *whole_run("r1"))
        observe(history, *whole_run("r2"))
        assert is_broken(history)
        path.parent.unlink()
        observe(history, *whole_run("r3"))
        assert not is_broken(history)
        assert [run.run_id for run in history.load_runs()] == ["r3"]
    assert count_runs(path) == 3
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_a_file_that_can_not_grow_loses_only_its_own_runs(path: Path) -> None:
    assert run_script(REALLY_FULL, path) == [True, False, False, True]
    assert count_runs(path) == 4


def test_a_full_temporary_disk_does_not_stop_a_run(path: Path) -> None:
    first, copies = run_script(FULL_TEMPORARY_DISK, path)
    assert copies == pytest.approx(first)
