"""A history opened for reading is read in any state and never changed."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter import families
from paropt_exporter.errors import HistoryError
from paropt_exporter.history import History, database
from support import hostile
from support.event_samples import StillClock, run_ended, run_started, stage_ended, stage_started

# Has the history open until its input ends.
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT * FROM runs").fetchall()
print(flush=True)
sys.stdin.read()
"""
INDEX_HEADER_BYTES = 48  # https://www.sqlite.org/walformat.html: the index begins with two copies of its header


def open_for_writing(path: Path) -> History:
    return History(path, project="shop", clock=StillClock())


def open_for_reading(path: Path) -> History:
    return History(path, project="shop", clock=StillClock(), for_reading=True)


def keep_run(history: History, run_id: str) -> None:
    lint = stage_ended("lint", run_id)
    for event in (run_started(run_id), stage_started("lint", run_id), lint, run_ended(run_id, stages=(lint,))):
        history.observe(event)
    assert history.broken is None


def list_run_ids(history: History) -> list[str]:
    return [run.run_id for run in history.load_runs()]


def test_reading_a_closed_history_changes_no_file(path: Path) -> None:
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    before = hostile.state(path.parent)
    with closing(open_for_reading(path)) as history:
        assert list_run_ids(history) == ["r1"]
    assert hostile.state(path.parent) == before


def test_reading_sees_the_live_run_as_it_was_at_the_start_and_does_not_disturb_it(path: Path) -> None:
    with closing(open_for_writing(path)) as live:
        keep_run(live, "r1")
        keep_run(live, "r2")
        before = sorted(hostile.state(path.parent))
        with closing(open_for_reading(path)) as history:
            keep_run(live, "r3")
            assert list_run_ids(history) == ["r1", "r2"]
        assert sorted(hostile.state(path.parent)) == before
        assert list_run_ids(live) == ["r1", "r2", "r3"]


def test_history_is_readable_while_its_run_writes_the_index_of_the_log(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite refused to read: "attempt to write a readonly database". 1 in 1,000 queries met it beside two writers."""
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
    try:
        index = path.with_name(path.name + "-shm")
        complete = index.read_bytes()
        half_written = complete[:INDEX_HEADER_BYTES] + bytes(INDEX_HEADER_BYTES) + complete[2 * INDEX_HEADER_BYTES :]
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect
        connections = list[sqlite3.Connection]()

        def connect_again(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
            if connections:
                overwrite(index, complete)
            connections.append(connect(*arguments, **keywords))
            return connections[-1]

        monkeypatch.setattr(sqlite3, "connect", connect_again)
        overwrite(index, half_written)
        with closing(open_for_reading(path)) as reader:
            overwrite(index, half_written)
            assert list_run_ids(reader) == ["r1"]
        overwrite(index, complete)
        assert len(connections) == 2
    finally:
        writer.communicate("")


def overwrite(path: Path, content: bytes) -> None:
    """Write in place, since SQLite has mapped the file."""
    with path.open("r+b") as file:
        file.write(content)


def test_history_is_readable_while_its_run_removes_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    live = open_for_writing(path)
    keep_run(live, "r1")
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect_after_the_run(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
        monkeypatch.undo()
        live.close()
        return connect(*arguments, **keywords)

    monkeypatch.setattr(sqlite3, "connect", connect_after_the_run)
    with closing(open_for_reading(path)) as history:
        assert list_run_ids(history) == ["r1"]


def test_queries_between_which_a_run_begins_and_ends_see_one_state(path: Path) -> None:
    """One saw pages of both: 210 of 400 runs had no tasks, or "values that no exporter wrote; move it away"."""
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    with closing(open_for_reading(path)) as reader:
        assert count_runs(reader) == 1
        with closing(open_for_writing(path)) as history:
            keep_run(history, "r2")
        assert (count_runs(reader), list_run_ids(reader)) == (2, ["r1", "r2"])


def count_runs(history: History) -> float:
    """Return the total of the runs."""
    return sum(number for (name, _), number in history.load_totals().counters.items() if name == families.RUNS.name)


def test_history_that_changes_during_each_query_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    monkeypatch.setattr(database.HistoryReading, "has_changed", lambda _: True)
    with closing(open_for_reading(path)) as reader, pytest.raises(HistoryError, match=r"again and again .* try again"):
        reader.load_runs()


def test_history_that_is_deleted_while_it_is_opened_for_reading_is_missing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message named its permissions."""
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    connect: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect_after_the_removal(*arguments: Any, **keywords: Any) -> sqlite3.Connection:
        monkeypatch.undo()
        shutil.rmtree(path.parent)
        return connect(*arguments, **keywords)

    monkeypatch.setattr(sqlite3, "connect", connect_after_the_removal)
    with pytest.raises(HistoryError, match=r"no history yet at .*: run a lane first"):
        open_for_reading(path)


def test_reading_the_files_of_a_killed_exporter_repairs_nothing(path: Path, tmp_path: Path) -> None:
    with closing(open_for_writing(path)) as live:
        keep_run(live, "r1")
        left = tmp_path / "left" / ".paropt"
        left.mkdir(parents=True)
        for part in path.parent.glob("history.db*"):
            (left / part.name).write_bytes(part.read_bytes())
    before = hostile.state(left)
    with closing(open_for_reading(left / path.name)) as history:
        assert list_run_ids(history) == ["r1"]
    assert hostile.state(left) == before


def test_reading_a_damaged_history_says_what_the_next_run_does(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(HistoryError, match=r"damaged \(file is not a database\); the next run sets it aside"):
        open_for_reading(path)


def test_a_foreign_file_is_not_called_damaged(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.write_text("mine " * 1000)
    with pytest.raises(HistoryError, match="not a database; choose another file"):
        open_for_reading(notes)


def test_an_endless_view_is_not_read(path: Path) -> None:
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    endless = "WITH RECURSIVE n(x) AS (VALUES(1) UNION ALL SELECT x + 1 FROM n) SELECT x AS run_id FROM n"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"ALTER TABLE runs RENAME TO hidden; CREATE VIEW runs AS {endless};")
    with pytest.raises(HistoryError, match="views or triggers"):
        open_for_reading(path)


@pytest.mark.parametrize(
    "script",
    [
        "ALTER TABLE runs ADD COLUMN evil AS (hex(zeroblob(400000000)))",
        """
        CREATE VIRTUAL TABLE evil USING fts5(a); PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = 'CREATE  VIRTUAL TABLE evil USING fts5(a)' WHERE name = 'evil'
        """,
    ],
    ids=["column", "virtual table"],
)
def test_computed_values_are_not_read(path: Path, script: str) -> None:
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    with pytest.raises(HistoryError, match="views or triggers"):
        open_for_reading(path)


def test_damage_found_by_a_read_is_one_clear_error(path: Path) -> None:
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    with closing(sqlite3.connect(path)) as connection:
        (number,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'runs'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((number - 1) * size)
        file.write(b"\xff" * size)
    with closing(open_for_reading(path)) as history, pytest.raises(HistoryError, match="damaged"):
        history.load_runs()


@pytest.mark.parametrize(
    "change",
    [
        "PRAGMA user_version = -1",
        "DROP TABLE runs",
        "ALTER TABLE runs RENAME COLUMN lane TO track",
        "UPDATE runs SET lane = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_changed_schema_or_invalid_text_is_one_clear_error(path: Path, change: str) -> None:
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(change)
    with (
        pytest.raises(HistoryError, match=r"move it away|choose another file"),
        closing(open_for_reading(path)) as history,
    ):
        history.load_runs()
    with pytest.raises(HistoryError), closing(open_for_writing(path)) as history:
        history.load_runs()


def test_a_lane_with_invalid_unicode_is_not_the_historys_fault(path: Path) -> None:
    with closing(open_for_writing(path)) as history:
        keep_run(history, "r1")
    with closing(open_for_reading(path)) as history, pytest.raises(HistoryError, match="not valid Unicode"):
        history.load_runs("\udcff")
