"""Open the history file: make its tables, refuse what is not one, stay in memory where nothing can be written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from paropt_exporter.errors import HistoryError
from paropt_exporter.history import folder, mending

VERSION = 4
# Transactions take about 0.1 ms, so whoever waits longer waits for a process that was stopped or a disk that hangs.
BUSY_SECONDS = 2.0

_TABLES = """
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
CREATE INDEX runs_by_lane ON runs (project, lane, started_ts);
CREATE TABLE stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, number INTEGER NOT NULL, pool TEXT NOT NULL, tasks INTEGER NOT NULL,
  started_ts REAL, sla_max REAL, sla_warn REAL, sla_critical INTEGER, result TEXT, message TEXT NOT NULL DEFAULT '',
  tasks_failed INTEGER, duration REAL, cpu REAL, memory_peak INTEGER, attempts INTEGER, fastest REAL, slowest REAL,
  gil_bound INTEGER, warned INTEGER, broken INTEGER, shown_cpu_total REAL, PRIMARY KEY (run_id, stage)
) WITHOUT ROWID;
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
) WITHOUT ROWID;
CREATE TABLE items (
  project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
  PRIMARY KEY (project, stage, item)
) WITHOUT ROWID;
CREATE TABLE failed_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
CREATE TABLE sla (
  run_id TEXT NOT NULL, stage TEXT, broken INTEGER NOT NULL, max REAL NOT NULL, warn REAL NOT NULL,
  critical INTEGER NOT NULL, elapsed REAL NOT NULL, at_ts REAL NOT NULL
);
CREATE INDEX sla_by_run ON sla (run_id);
CREATE TABLE decisions (
  id INTEGER PRIMARY KEY, project TEXT NOT NULL, run_id TEXT, pool TEXT NOT NULL, action TEXT NOT NULL,
  reason TEXT NOT NULL, old_size INTEGER NOT NULL, new_size INTEGER NOT NULL, at_ts REAL NOT NULL, terms TEXT NOT NULL,
  situation TEXT NOT NULL DEFAULT '', choice TEXT NOT NULL DEFAULT ''
);
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels, part)
) WITHOUT ROWID;
CREATE TABLE latest (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels)
) WITHOUT ROWID;
"""

# What brings a file of an earlier version to the next one, by the version that it has.
_UPGRADES = {
    1: """
    ALTER TABLE decisions ADD COLUMN situation TEXT NOT NULL DEFAULT '';
    ALTER TABLE decisions ADD COLUMN choice TEXT NOT NULL DEFAULT '';
    """,
    2: "ALTER TABLE stages ADD COLUMN shown_cpu_total REAL;",
    3: """
    CREATE TABLE items (
      project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
      PRIMARY KEY (project, stage, item)
    ) WITHOUT ROWID;
    CREATE TABLE failed_items (
      run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
    ) WITHOUT ROWID;
    """,
}


def open_history(path: Path, now_seconds: float) -> tuple[sqlite3.Connection, str | None]:
    """Return a connection in autocommit mode, and None or why what it takes is kept in memory only.

    A damaged history is set aside (`now_seconds`, wall time, is in its new name) and a new one begun. Raises
    HistoryError if the file is there and is not ours to use: no history, unreadable, made by a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.keep_out_of_git(path.parent)
        damaged = mending.identity(path)
        try:
            return _open_file(path), None
        except sqlite3.DatabaseError as error:
            if not mending.is_damage(error):
                raise
            if not mending.is_ours(path):
                raise HistoryError(f"history {path}: no database; name another file, or move it away") from error
            mending.set_aside(path, damaged, str(error), now_seconds)
        return _open_file(path), None
    except sqlite3.Error as error:
        return _in_memory(path), str(error)
    except OSError as error:
        return _in_memory(path), error.strerror or str(error)


def _open_file(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        version = _version(connection, path)
        connection.execute("PRAGMA synchronous = NORMAL")
        if version < VERSION or connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            _prepare(connection, path)
        # Says now, not in the middle of a run, that the file can't be written.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
    except BaseException:  # nothing may leave the connection open; raised again
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection, path: Path) -> int:
    # Tables before version: both appear in one transaction, so tables seen here have their version in the next read,
    # also where another process makes the file at this moment.
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise HistoryError(
            f"history {path}: made by a newer paropt-exporter (schema {version}, this one knows {VERSION}); "
            "upgrade, or move the file away"
        )
    if version == 0 and tables:
        raise HistoryError(f"history {path}: a database, but not a run history; name another file")
    return version


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite's busy time-out doesn't cover the switch to WAL: processes that start together would fail, so one waits
    # for the other here.
    with mending.locked(path):
        connection.execute("PRAGMA journal_mode = WAL")
        version = _version(connection, path)
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        for earlier in range(version or VERSION, VERSION):
            upgrade = f"{_UPGRADES[earlier]} PRAGMA user_version = {earlier + 1};"
            connection.executescript(f"BEGIN IMMEDIATE; {upgrade} COMMIT;")


def _copy(path: Path, memory: sqlite3.Connection) -> None:
    # `immutable`: WAL wants to write its index even to read, which a read-only directory refuses.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)) as source:
        _version(source, path)
        source.execute("PRAGMA quick_check").fetchall()  # raises before half of a damaged file is copied
        source.backup(memory)


def _in_memory(path: Path) -> sqlite3.Connection:
    """Return a database in memory, with what the file holds if it can at least be read."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")
        if path.exists() and path.stat().st_size:
            _copy(path, memory)
    except (sqlite3.Error, OSError) as error:
        if not (isinstance(error, sqlite3.Error) and mending.is_damage(error)):
            memory.close()
            raise HistoryError(
                f"history {path}: can't be read ({error}); mend its permissions or name another file"
            ) from error
        # Damaged, and it can't be set aside: nothing of it is used, and the work goes on.
    version = memory.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        memory.executescript(f"{_TABLES} PRAGMA user_version = {VERSION};")
    for earlier in range(version or VERSION, VERSION):
        memory.executescript(_UPGRADES[earlier])
    return memory
