"""Open the history file: make its tables, refuse what is not one, stay in memory where nothing can be written."""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from paropt_exporter import files
from paropt_exporter.errors import HistoryError
from paropt_exporter.history import folder, repair

VERSION = 6
# Transactions take about 0.1 ms, so whoever waits longer waits for a process that was stopped or a disk that hangs.
BUSY_SECONDS = 2.0

_TRIES = 5  # to open a file that others set aside at the same time

_TABLES = """
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]',
  sequence INTEGER NOT NULL DEFAULT 0, partial INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
CREATE TABLE stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, number INTEGER NOT NULL, pool TEXT NOT NULL, tasks INTEGER NOT NULL,
  started_ts REAL, sla_max REAL, sla_warn REAL, sla_critical INTEGER, result TEXT, message TEXT NOT NULL DEFAULT '',
  tasks_failed INTEGER, duration REAL, cpu REAL, memory_peak INTEGER, attempts INTEGER, fastest REAL, slowest REAL,
  gil_bound INTEGER, warned INTEGER, broken INTEGER, shown_cpu_total REAL,
  scope TEXT NOT NULL DEFAULT 'all', PRIMARY KEY (run_id, stage)
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
    # The order in which runs began: a wall clock that was wrong once would have one run be the last for years.
    3: """
    ALTER TABLE runs ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
    UPDATE runs SET sequence = ranked.place FROM
      (SELECT run_id, row_number() OVER (PARTITION BY project ORDER BY started_ts, run_id) AS place FROM runs) AS ranked
      WHERE ranked.run_id = runs.run_id;
    DROP INDEX IF EXISTS runs_by_lane;
    CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
    """,
    4: """
    DROP TABLE IF EXISTS items;
    DROP TABLE IF EXISTS failed_items;
    CREATE TABLE items (
      project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
      PRIMARY KEY (project, stage, item)
    ) WITHOUT ROWID;
    CREATE TABLE failed_items (
      run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
    ) WITHOUT ROWID;
    """,
    5: """
    ALTER TABLE runs ADD COLUMN partial INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE stages ADD COLUMN scope TEXT NOT NULL DEFAULT 'all';
    """,
}


def open_history(path: Path, now_seconds: float) -> tuple[sqlite3.Connection, str | None]:
    """Return a connection in autocommit mode, and None or why what it takes is kept in memory only.

    A damaged history is set aside (`now_seconds`, wall time, is in its new name) and a new one begun. Raises
    HistoryError if the file is there and is not ours to use: no history, unreadable, made by a newer version.
    """
    try:
        files.make_folder(path.parent)
        folder.keep_out_of_git(path.parent)
        return _open_or_set_aside(path, now_seconds), None
    except files.UnexpectedFileType as error:
        raise _refused(path, error) from error
    except sqlite3.Error as error:
        return _in_memory(path), str(error)
    except OSError as error:
        return _in_memory(path), error.strerror or str(error)


def _open_or_set_aside(path: Path, now_seconds: float) -> sqlite3.Connection:
    """Open the file, made if it is missing; another process may set it aside between any two steps of this one."""
    for tries_left in reversed(range(_TRIES)):
        _prepare_file(path)
        found = repair.identity(path)
        try:
            return _open_file(path)
        except sqlite3.DatabaseError as error:
            gone = found is None or repair.identity(path) != found
            if tries_left and gone:
                continue
            if not tries_left or not repair.is_damage(error):
                raise
            if not repair.is_ours(path):
                raise _no_database(path) from error
            repair.set_aside(path, found, str(error), now_seconds)
    raise AssertionError("the last try returns or raises")


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection that reads and leaves everything as it is: nothing is made, moved, repaired or upgraded.

    Raises HistoryError if there is no history that can be read. Queries may raise sqlite3.Error.
    """
    try:
        if not files.has_regular_file(path):
            raise HistoryError(f"no history yet at {path}: run a lane first")
        log = _real(path).with_name(_real(path).name + "-wal")
        live = files.has_regular_file(log) and log.stat().st_size > 0
        # Without a log there is nothing to lock, and SQLite would make an empty one. With one, a run may be under way:
        # its index is read with shared locks, or rebuilt in memory if no process holds it.
        how = "mode=ro&readonly_shm=1" if live else "mode=ro&immutable=1"
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY_SECONDS, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
    except files.UnexpectedFileType as error:
        raise _refused(path, error) from error
    except (sqlite3.Error, OSError) as error:
        raise unreadable(path, error) from error
    try:
        return _of_this_version(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise unreadable(path, error) from error
    except BaseException:  # nothing may leave the connection open; raised again
        connection.close()
        raise


def _of_this_version(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Return the connection, or one in memory if the file was written by an earlier version or has no tables yet."""
    version = _version(connection, path)
    _refuse_foreign_schema(connection, path)
    if version == VERSION:
        return connection
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    with closing(connection):
        connection.backup(memory)
    _upgrade_in_memory(memory)
    return memory


def _refuse_foreign_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise HistoryError for views, triggers and virtual tables: reading those may run without end."""
    connection.execute("PRAGMA trusted_schema = OFF")
    foreign = "SELECT name FROM sqlite_schema WHERE type NOT IN ('table', 'index') OR sql LIKE 'CREATE VIRTUAL%'"
    if connection.execute(foreign).fetchone() is not None:
        raise HistoryError(f"history {path}: has views or triggers, which no exporter makes: move the file away")


def unreadable(path: Path, error: Exception) -> HistoryError:
    """Return what to say where a history can't be read."""
    if isinstance(error, sqlite3.Error) and repair.is_damage(error):
        if not repair.is_ours(path):
            return _no_database(path)
        return HistoryError(f"history {path}: damaged ({error}); the next run sets it aside and begins a new one")
    return HistoryError(f"history {path}: can't be read ({error}); mend its permissions or name another file")


def _no_database(path: Path) -> HistoryError:
    return HistoryError(f"history {path}: no database; name another file, or move it away")


def _refused(path: Path, error: files.UnexpectedFileType) -> HistoryError:
    return HistoryError(
        f"history {path}: {error.filename} is {error.strerror}: move it away; "
        "to keep the history elsewhere, name its file in the config (history: {path: ...})"
    )


def _prepare_file(path: Path) -> None:
    """Make the file if it is missing; in `.paropt`, close what is there to other users."""
    if _is_missing(path):
        with repair.locked(path):
            if _is_missing(path):
                _create(path)
    if files.find_private_parts(path):
        # A history is in WAL mode from its first byte on and has no rollback journal. One that somebody left there may
        # name any file as its list of journals, and SQLite deletes that file when it rolls back.
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        _make_private(path)


def _make_private(path: Path) -> None:
    """Close a history to other users: it holds what stages printed."""
    path = _real(path)
    for part in ("", "-wal", "-shm", ".lock"):
        files.make_private(path.with_name(path.name + part))


def _real(path: Path) -> Path:
    """Return where SQLite keeps the file and its log: outside of `.paropt` a link leads to where the user wants it."""
    return path if files.find_private_parts(path) else path.resolve()


def _is_missing(path: Path) -> bool:
    try:
        return not files.has_regular_file(path) or path.stat().st_size == 0
    except FileNotFoundError:  # set aside meanwhile
        return True


def _create(path: Path) -> None:
    """Make a whole history under another name first: processes that start together never meet half of one."""
    path = _real(path)
    copy = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    files.create_private(copy)
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        if path.exists():
            copy.replace(path)  # an empty file
        else:
            with suppress(FileExistsError):  # one that was deleted is back, with all that it had
                path.hardlink_to(copy)
    finally:
        for part in ("", "-wal", "-shm", "-journal"):
            copy.with_name(copy.name + part).unlink(missing_ok=True)


def _open_file(path: Path) -> sqlite3.Connection:
    # `mode=rw` makes no file: one that was set aside a moment ago would come back empty, and half made.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECONDS, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    try:
        version = _version(connection, path)
        connection.execute("PRAGMA synchronous = NORMAL")
        if version < VERSION or connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            _prepare(connection, path)
        # Says now, not in the middle of a run, that the file can't be written.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        _make_private(path)  # only now: a config may name any file, and that of another program keeps its mode
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
    if version < 0 or (version == 0 and tables):
        raise HistoryError(f"history {path}: a database, but not a run history; name another file")
    return version


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite's busy time-out doesn't cover the switch to WAL: processes that start together would fail, so one waits
    # for the other here.
    with repair.locked(path):
        connection.execute("PRAGMA journal_mode = WAL")
        version = _version(connection, path)
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        for earlier in range(_upgrade_from(connection, version or VERSION), VERSION):
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
            raise OSError("not a file")  # a folder that can't be written may hold anything
        if path.exists() and path.stat().st_size:
            _copy(path, memory)
    except (sqlite3.Error, OSError) as error:
        if not (isinstance(error, sqlite3.Error) and repair.is_damage(error)):
            memory.close()
            raise unreadable(path, error) from error
        # Damaged, and it can't be set aside: nothing of it is used, and the work goes on.
    try:
        _upgrade_in_memory(memory)
    except sqlite3.Error as error:  # its tables are not those that its version has
        memory.close()
        raise unreadable(path, error) from error
    return memory


def _upgrade_in_memory(memory: sqlite3.Connection) -> None:
    version = memory.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        memory.executescript(f"{_TABLES} PRAGMA user_version = {VERSION};")
    for earlier in range(_upgrade_from(memory, version or VERSION), VERSION):
        memory.executescript(_UPGRADES[earlier])


def _upgrade_from(connection: sqlite3.Connection, version: int) -> int:
    """Return the version that a file's tables are of: for a time, two unreleased ones were both called 4."""
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(runs)")}
    return 3 if version == 4 and "sequence" not in columns else version
