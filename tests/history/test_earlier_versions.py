"""Histories that earlier versions of the code wrote are upgraded without a loss; those of later ones stay unchanged.

The files in `earlier` were written by that code itself (`python benchmarks/earlier_histories.py`).
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter.errors import HistoryError
from paropt_exporter.events import Result
from paropt_exporter.history import History
from paropt_exporter.history.database import VERSION
from paropt_exporter.history.rows import SUM
from support.event_samples import StillClock

EARLIER = Path(__file__).parent / "earlier"
VERSIONS = sorted(path.stem for path in EARLIER.glob("*.sql"))
Rows = dict[str, list[dict[str, object]]]


@pytest.fixture(params=VERSIONS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_history(tmp_path / ".paropt/history.db", (EARLIER / f"{request.param}.sql").read_text())


def write_history(path: Path, script: str) -> Path:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(script)
    return path


def open_file(path: Path, *, for_reading: bool = False) -> History:
    return History(path, project="shop", clock=StillClock(), for_reading=for_reading)


def read_rows(path: Path) -> Rows:
    """Return all rows of all tables, each as a mapping of columns."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {table: [dict(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables}


def list_lost_rows(before: Rows, after: Rows) -> list[object]:
    """Return the rows that are no longer there with all columns that they had."""
    return [
        row
        for table, rows in before.items()
        for row in rows
        if not any(row.items() <= later.items() for later in after[table])
    ]


def test_there_is_a_file_of_each_version() -> None:
    assert {int(version.partition("-")[0]) for version in VERSIONS} == {*range(1, VERSION + 1)}


def test_nothing_is_lost_by_an_upgrade(path: Path) -> None:
    before = read_rows(path)
    open_file(path).close()
    after = read_rows(path)
    assert before["totals"]
    assert list_lost_rows(before, after) == []
    assert {table: len(rows) for table, rows in before.items()} == {table: len(after[table]) for table in before}


@pytest.mark.parametrize("for_reading", [False, True])
def test_totals_of_an_earlier_version_are_the_same(path: Path, *, for_reading: bool) -> None:
    stored = read_rows(path)["totals"]
    with closing(open_file(path, for_reading=for_reading)) as history:
        totals = history.load_totals()
        last = {run.run_id: run for run in history.load_runs()}
    counted = {
        (str(row["family"]), tuple(json.loads(str(row["labels"])))): row["value"] for row in stored if row["part"] == ""
    }
    sums = {(str(row["family"]), tuple(json.loads(str(row["labels"])))) for row in stored if row["part"] == SUM}
    assert totals.counters == counted
    assert totals.histograms.keys() == sums
    assert [run.result for run in last.values()] == [Result.FAILURE, Result.FAILURE]
    assert all(
        {stage.stage: stage.result for stage in run.stages}
        == {
            "lint": Result.SUCCESS,
            "unit": Result.FAILURE,
            "types": Result.FAILURE,
            "scan": Result.SKIP,
            **({"batches": Result.FAILURE} if any(stage.stage == "batches" for stage in run.stages) else {}),
        }
        for run in last.values()
    )


def test_reading_an_earlier_version_leaves_its_file_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    with closing(open_file(path, for_reading=True)) as history:
        history.load_runs()
    assert path.read_bytes() == before


def test_upgraded_history_has_the_schema_of_a_new_one(path: Path, tmp_path: Path) -> None:
    open_file(path).close()
    open_file(tmp_path / "new.db").close()
    assert describe_columns(path) == describe_columns(tmp_path / "new.db")


def describe_columns(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """Return the columns of each table: name, type, whether it is required, its place in the key."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        found = {table: connection.execute(f"PRAGMA table_info({table})").fetchall() for table in tables}
    return {table: {(name, kind, need, key) for _, name, kind, need, _, key in rows} for table, rows in found.items()}


@pytest.mark.parametrize("for_reading", [False, True])
def test_history_of_the_next_version_is_refused_and_unchanged(tmp_path: Path, *, for_reading: bool) -> None:
    path = write_history(tmp_path / ".paropt/history.db", (EARLIER / f"{VERSION}.sql").read_text())
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"ALTER TABLE runs ADD COLUMN novelty TEXT; PRAGMA user_version = {VERSION + 1};")
    before = read_rows(path)
    with pytest.raises(HistoryError, match=rf"newer paropt-exporter \(schema {VERSION + 1}, this one supports"):
        open_file(path, for_reading=for_reading)
    assert read_rows(path) == before


@pytest.mark.parametrize("arguments", [("--once", "--web.listen-address=127.0.0.1:0"), ("history",)])
def test_command_refuses_a_history_of_the_next_version_in_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "paropt.yml").write_text('project: shop\nstages: [{number: 2, name: lint, run: "touch ran"}]\n')
    path = write_history(tmp_path / ".paropt/history.db", (EARLIER / f"{VERSION}.sql").read_text())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = read_rows(path)
    ended = subprocess.run(
        [sys.executable, "-m", "paropt_exporter", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert "written by a newer paropt-exporter" in line
    assert read_rows(path) == before
    assert not (tmp_path / "ran").exists()
