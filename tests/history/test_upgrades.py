"""A newer version upgrades the file of an earlier one without a loss; an earlier one leaves a newer file as it is."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter.errors import HistoryError
from paropt_exporter.history import History, database
from support.event_samples import StillClock, run_ended, run_started, stage_ended

ADD_OWNER = "ALTER TABLE runs ADD COLUMN owner TEXT NOT NULL DEFAULT 'unknown';"


def open_file(path: Path, *, for_reading: bool = False) -> History:
    return History(path, project="shop", clock=StillClock(), for_reading=for_reading)


@pytest.fixture(autouse=True)
def stored(path: Path) -> Path:
    """A history that this version wrote."""
    with closing(open_file(path)) as history:
        lint = stage_ended("lint", "r1")
        history.observe_all((run_started("r1"), lint, run_ended("r1", stages=(lint,))))
    return path


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> int:
    """A version of the code whose schema has one more column."""
    version = database.VERSION + 1
    monkeypatch.setitem(database.UPGRADES, database.VERSION, ADD_OWNER)
    monkeypatch.setattr(database, "VERSION", version)
    return version


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [*connection.iterdump(), str(connection.execute("PRAGMA user_version").fetchone())]


def test_opening_the_file_of_an_earlier_version_upgrades_it(path: Path, next_version: int) -> None:
    with closing(open_file(path)) as history:
        totals = history.load_totals()
        assert [run.run_id for run in history.load_runs()] == ["r1"]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT run_id, owner FROM runs").fetchall() == [("r1", "unknown")]
        assert connection.execute("PRAGMA user_version").fetchone() == (next_version,)
    with closing(open_file(path)) as history:
        assert history.load_totals() == totals
        assert totals.counters


@pytest.mark.usefixtures("next_version")
def test_reading_the_file_of_an_earlier_version_upgrades_a_copy(path: Path) -> None:
    before = path.read_bytes()
    with closing(database.open_for_reading(path).connection) as connection:
        assert connection.execute("SELECT run_id, owner FROM runs").fetchall() == [("r1", "unknown")]
    assert path.read_bytes() == before


@pytest.mark.usefixtures("next_version")
def test_file_that_can_not_be_upgraded_is_one_clear_error(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(ADD_OWNER)
    with pytest.raises(HistoryError, match=r"tables are not those of this version \(duplicate column"):
        open_file(path)


@pytest.mark.parametrize("for_reading", [False, True])
def test_file_of_the_next_version_is_refused_and_unchanged(path: Path, *, for_reading: bool) -> None:
    version = write_next_version(path)
    before = dump(path)
    with pytest.raises(HistoryError, match=rf"newer paropt-exporter \(schema {version}, this one supports .*upgrade"):
        open_file(path, for_reading=for_reading)
    assert dump(path) == before


@pytest.mark.parametrize("arguments", [("--once", "--web.listen-address=127.0.0.1:0"), ("history",)])
def test_command_refuses_the_file_of_the_next_version_in_one_line(path: Path, arguments: tuple[str, ...]) -> None:
    project = path.parent.parent
    (project / "paropt.yml").write_text('project: shop\nstages: [{name: lint, run: "touch ran"}]\n')
    write_next_version(path)
    before = dump(path)
    ended = subprocess.run(
        [sys.executable, "-m", "paropt_exporter", *arguments], cwd=project, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 3
    (line,) = ended.stderr.splitlines()
    assert "written by a newer paropt-exporter" in line
    assert dump(path) == before
    assert not (project / "ran").exists()


def write_next_version(path: Path) -> int:
    version = database.VERSION + 1
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{ADD_OWNER} PRAGMA user_version = {version};")
    return version
