"""Open the history file: create or upgrade its tables, refuse other files, work in memory if it is not writable."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote_from_bytes

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.errors import HistoryError
from paropt_exporter.files import OWN_FOLDER
from paropt_exporter.history import repair

VERSION = 1
# Transactions take about 0.1 ms, so a longer wait means a stopped process or a hanging disk.
BUSY_SECONDS = 2.0

_LOG_BYTES = 8 << 20  # of the log after a checkpoint: by default SQLite keeps it at its largest size
_TRIES = 5  # to open a file while other processes set it aside, or change its log

_TABLES = """
CREATE TABLE items (
  project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
  PRIMARY KEY (project, stage, item)
) WITHOUT ROWID;
CREATE TABLE failed_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
CREATE TABLE flaky_items (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (run_id, stage, item)
) WITHOUT ROWID;
-- Durations that shards measured: they count from a merge on, since a split must not change while its shards run.
CREATE TABLE shard_items (
  project TEXT NOT NULL, stage TEXT NOT NULL, item TEXT NOT NULL, seconds REAL NOT NULL, seen_ts REAL NOT NULL,
  PRIMARY KEY (project, stage, item)
) WITHOUT ROWID;
CREATE TABLE runs (
  run_id TEXT PRIMARY KEY, project TEXT NOT NULL, lane TEXT NOT NULL, strategy TEXT NOT NULL,
  started_ts REAL NOT NULL, seen_ts REAL NOT NULL, planned TEXT NOT NULL, ended_ts REAL, result TEXT,
  reason TEXT NOT NULL DEFAULT '', duration REAL, sequential REAL, busy_ratio REAL, total_max REAL,
  warned INTEGER NOT NULL DEFAULT 0, broken INTEGER NOT NULL DEFAULT 0, critical_sla INTEGER NOT NULL DEFAULT 0,
  interrupted INTEGER NOT NULL DEFAULT 0, bottlenecks TEXT NOT NULL DEFAULT '[]', abandoned TEXT NOT NULL DEFAULT '[]',
  sequence INTEGER NOT NULL DEFAULT 0, partial INTEGER NOT NULL DEFAULT 0,
  shard TEXT NOT NULL DEFAULT '', split TEXT NOT NULL DEFAULT '', merged INTEGER NOT NULL DEFAULT 1,
  tree_state TEXT NOT NULL DEFAULT '', instance TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
CREATE INDEX runs_by_sequence ON runs (project, lane, sequence);
CREATE TABLE stages (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, number INTEGER NOT NULL, pool TEXT NOT NULL, tasks INTEGER NOT NULL,
  started_ts REAL, sla_max REAL, sla_warn REAL, sla_critical INTEGER, result TEXT, message TEXT NOT NULL DEFAULT '',
  tasks_failed INTEGER, duration REAL, cpu REAL, memory_peak INTEGER, attempts INTEGER, fastest REAL, slowest REAL,
  gil_bound INTEGER, warned INTEGER, broken INTEGER, shown_cpu_total REAL,
  scope TEXT NOT NULL DEFAULT 'all', first_attempts INTEGER NOT NULL DEFAULT 0,
  flaky_attempts INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run_id, stage)
) WITHOUT ROWID;
CREATE TABLE tasks (
  run_id TEXT NOT NULL, stage TEXT NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, item TEXT,
  final INTEGER NOT NULL, result TEXT NOT NULL, message TEXT NOT NULL, pool TEXT NOT NULL, worker TEXT NOT NULL,
  started_ts REAL NOT NULL, duration REAL NOT NULL, queue_wait REAL NOT NULL, cpu REAL NOT NULL,
  run_delay REAL NOT NULL, memory_peak INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, output TEXT NOT NULL,
  PRIMARY KEY (run_id, stage, task, attempt)
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
-- Each instance counts its own runs. So shards that continue from one merged history don't count each other's again.
CREATE TABLE totals (
  project TEXT NOT NULL, family TEXT NOT NULL, instance TEXT NOT NULL, labels TEXT NOT NULL, part TEXT NOT NULL,
  value REAL NOT NULL, PRIMARY KEY (project, family, instance, labels, part)
) WITHOUT ROWID;
CREATE TABLE latest (
  project TEXT NOT NULL, family TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL,
  PRIMARY KEY (project, family, labels)
) WITHOUT ROWID;
"""

# Statements that upgrade a file to the next version, by its current version. Version 1 will be the first release's.
UPGRADES: dict[int, str] = {}


class OpenedHistory(Struct, frozen=True, kw_only=True):
    """A connection in autocommit mode to a history.

    `files`: the identities of the files that it has open. `fault`: why its database is in memory; None: it is not.
    """

    connection: sqlite3.Connection
    files: repair.Identities = (None,)
    fault: str | None = None


def open_history(path: Path, now_seconds: float) -> OpenedHistory:
    """Open a history for writing; create it if it is missing. It is in memory if the file can't be written.

    A damaged history is set aside (its new name contains `now_seconds`, wall time) and a new one created. Raises
    HistoryError for an existing file that can't be used: not a history, unreadable, or of a newer version.
    """
    try:
        return _open_or_set_aside(path, now_seconds)
    except files.UnexpectedFileType as error:
        raise _build_file_type_error(path, error) from error
    except sqlite3.Error as error:
        return OpenedHistory(connection=_open_in_memory(path), fault=str(error))
    except OSError as error:
        return OpenedHistory(connection=_open_in_memory(path), fault=error.strerror or str(error))


def _open_or_set_aside(path: Path, now_seconds: float) -> OpenedHistory:
    """Open the file; create it if it is missing. Another process may set it aside or remove it between any two steps.

    SQLite opens the log by its name, some time after the file. If the file was replaced in between, the log is that of
    the other file, and a write would damage that one.
    """
    for tries_left in reversed(range(_TRIES)):
        found: repair.Identity | None = None
        try:
            files.make_folder(path.parent)
            keep_out_of_git(path.parent)
            _prepare_file(path)
            found = repair.identify_file(path)
            connection = _open_file(path)
        except (sqlite3.DatabaseError, FileNotFoundError) as error:
            gone = found is None or repair.identify_file(path) != found
            if tries_left and gone:
                continue
            if not tries_left or isinstance(error, OSError) or not repair.is_damage(error):
                raise
            if not repair.is_ours(path):
                raise _build_not_a_database_error(path) from error
            repair.set_aside(path, found, str(error), now_seconds)
            continue
        opened = repair.identify_files(path)
        # A file system without shared memory has no log.
        if found is not None and opened[0] == found and (None not in opened or not tries_left):
            return OpenedHistory(connection=connection, files=opened)
        connection.close()
    raise FileNotFoundError(errno.ENOENT, "it was replaced again and again while it was opened", str(path))


class HistoryReading(Struct, frozen=True, kw_only=True):
    """A connection for reading.

    Without a log, no transaction holds the state of the history. `version` then tells it apart from later ones; None:
    the state can't change.
    """

    connection: sqlite3.Connection
    path: Path
    version: tuple[int, ...] | None

    def has_changed(self) -> bool:
        """Return whether a run has begun and written the file since: pages of two states may have been read."""
        return self.version is not None and self.version != _read_file_version(self.path)


def open_for_reading(path: Path) -> HistoryReading:
    """Return a connection for reading, which creates, moves, repairs and upgrades no file.

    All its queries see the state of the history at this moment, or the reading `has_changed`. Raises HistoryError if
    there is no readable history. Queries may raise sqlite3.Error.
    """
    reading = _connect_for_reading(path)
    connection = reading.connection
    try:
        return replace(reading, connection=_load_current_version(connection, path))
    except sqlite3.Error as error:
        connection.close()
        raise build_unreadable_error(path, error) from error
    except BaseException:  # close the connection whatever happened, then raise again
        connection.close()
        raise


def open_empty() -> sqlite3.Connection:
    """Return a history in memory without any rows."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _upgrade_in_memory(memory)
    return memory


def check_file(path: Path) -> None:
    """Raise HistoryError for an existing file that a run refuses, as `open_history` does. Changes nothing.

    A damaged history is accepted, since a run sets it aside.
    """
    with closing(_connect_for_reading(path).connection) as connection:
        try:
            _read_version(connection, path)
        except sqlite3.Error as error:
            if not repair.is_damage(error) or not repair.is_ours(path):
                raise build_unreadable_error(path, error) from error


def _connect_for_reading(path: Path) -> HistoryReading:
    try:
        for tries_left in reversed(range(_TRIES)):
            if not files.has_regular_file(path):
                raise HistoryError(f"no history yet at {path}: run a lane first")
            log = repair.resolve_path(path).with_name(repair.resolve_path(path).name + "-wal")
            version = _read_file_version(path)
            live = files.has_regular_file(log) and log.stat().st_size > 0
            # Without a log no lock is needed, and SQLite would create an empty log. With a log, a run may be in
            # progress: its index is read with shared locks, or rebuilt in memory if no process has it open.
            how = "mode=ro&readonly_shm=1" if live else "mode=ro&immutable=1"
            try:
                connection = _connect(path, how)
            except sqlite3.OperationalError:  # removed since
                if not tries_left:
                    raise
                continue
            connection.execute("BEGIN")
            if not live or not tries_left or not _meets_change(connection):
                return HistoryReading(connection=connection, path=path, version=None if live else version)
            connection.close()
    except files.UnexpectedFileType as error:
        raise _build_file_type_error(path, error) from error
    except (sqlite3.Error, OSError) as error:
        raise build_unreadable_error(path, error) from error
    raise AssertionError("the last try returns or raises")


def _read_file_version(path: Path) -> tuple[int, ...]:
    """Return the identity, size and time of a file, which differ after a write; empty without a file."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


# A run that ends removes the log, and a user may remove the whole folder. And if a run writes the index just while it
# is read, SQLite takes it for an incomplete one, which a reader can't complete (SQLITE_READONLY_RECOVERY).
_CHANGED = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)


def _meets_change(connection: sqlite3.Connection) -> bool:
    """Return whether the first read of a transaction fails because the files of the log are being changed."""
    try:
        _count_tables(connection)
    except sqlite3.Error as error:
        return error.sqlite_errorcode & 0xFF in _CHANGED
    return False


def _load_current_version(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    """Return the connection; for a file of an earlier version, or without tables, one to an upgraded copy in memory."""
    version = _read_version(connection, path)
    _refuse_foreign_schema(connection, path)
    if version == VERSION:
        return connection
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        connection.backup(memory)
        _upgrade_in_memory(memory)
    except BaseException:  # close the connection whatever happened, then raise again
        memory.close()
        raise
    connection.close()
    return memory


def _refuse_foreign_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Raise HistoryError for views, triggers, virtual tables and computed columns: reading those may never end."""
    connection.execute("PRAGMA trusted_schema = OFF")
    # All other SQL is refused, rather than CREATE VIRTUAL TABLE: a file may write that with other spaces.
    foreign = """
    SELECT 1 FROM sqlite_schema
      WHERE type NOT IN ('table', 'index') OR (type = 'table' AND sql NOT LIKE 'CREATE TABLE %')
    UNION ALL
    SELECT 1 FROM sqlite_schema AS tables, pragma_table_xinfo(tables.name) WHERE tables.type = 'table' AND hidden <> 0
    """
    if connection.execute(foreign).fetchone() is not None:
        raise HistoryError(f"history {path}: has views or triggers, which no exporter makes: move the file away")


def build_unreadable_error(path: Path, error: Exception) -> HistoryError:
    """Return the error for a history that can't be read."""
    if isinstance(error, sqlite3.Error) and repair.is_damage(error):
        if not repair.is_ours(path):
            return _build_not_a_database_error(path)
        return HistoryError(f"history {path}: damaged ({error}); the next run sets it aside and creates a new one")
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:  # the error is the sqlite3 module's: a text is not UTF-8
            return HistoryError(f"history {path}: it contains values that no exporter wrote ({error}); move it away")
        if code == sqlite3.SQLITE_ERROR:
            return HistoryError(f"history {path}: its tables are not those of this version ({error}): move it away")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error  # the message has the path
    return HistoryError(f"history {path}: cannot read it ({reason}); fix its permissions or choose another file")


def _build_not_a_database_error(path: Path) -> HistoryError:
    return HistoryError(f"history {path}: not a database; choose another file, or move it away")


def _build_file_type_error(path: Path, error: files.UnexpectedFileType) -> HistoryError:
    return HistoryError(
        f"history {path}: {error.filename} is {error.strerror}: move it away; "
        "to keep the history elsewhere, set its path in the config (history: {path: ...})"
    )


def _prepare_file(path: Path) -> None:
    """Create the file if it is missing; in `.paropt`, make its files private."""
    if _is_missing(path):
        with repair.hold_lock(path):
            if _is_missing(path):
                _create_file(path)
    if files.find_private_parts(path):
        # A history is in WAL mode from its first byte on and has no rollback journal. A planted journal may name any
        # file as its super-journal, and SQLite deletes that file when it rolls back.
        path.with_name(path.name + "-journal").unlink(missing_ok=True)
        _make_private(path)


def _make_private(path: Path) -> None:
    """Make a history private to its user: it contains the output of stages."""
    path = repair.resolve_path(path)
    for part in ("", "-wal", "-shm", ".lock"):
        files.make_private(path.with_name(path.name + part))


def _is_missing(path: Path) -> bool:
    try:
        return not files.has_regular_file(path) or path.stat().st_size == 0
    except FileNotFoundError:  # another process has set it aside
        return True


def _create_file(path: Path) -> None:
    """Create a complete history under another name, then rename it: no other process sees an incomplete one."""
    path = repair.resolve_path(path)
    copy = repair.make_copy_path(path)
    files.create_private(copy)
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before the first table: the file can shrink
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        repair.remove_logs(path)
        copy.replace(path)  # of an empty file, if there is one
    finally:
        for part in ("", "-wal", "-shm", "-journal"):
            copy.with_name(copy.name + part).unlink(missing_ok=True)


def _open_file(path: Path) -> sqlite3.Connection:
    # `mode=rw` creates no file: one that was just set aside would come back empty and incomplete.
    connection = _connect(path, "mode=rw")
    try:
        version = _read_version(connection, path)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        if version < VERSION or connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            _upgrade_file(connection, path)
        # Fails now, not during a run, if the file is not writable.
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        # Only now that it is known to be a history: the config may name another program's file, which keeps its mode.
        _make_private(path)
    except BaseException:  # close the connection whatever happened, then raise again
        connection.close()
        raise
    return connection


def _connect(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        _build_uri(path, how), uri=True, timeout=BUSY_SECONDS, isolation_level=None,
        check_same_thread=False,
    )  # fmt: skip
    # Large sorts would use a temporary file, whose disk may be full or read-only. 100,000 tasks take 5 MB of memory.
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _build_uri(path: Path, how: str) -> str:
    """Return SQLite's URI. From Python 3.14 on, `Path.as_uri` imports urllib.request with ssl, which takes 20 ms."""
    return f"file://{quote_from_bytes(os.fsencode(path.absolute()))}?{how}"


def _read_version(connection: sqlite3.Connection, path: Path) -> int:
    # Read the tables before the version. Another process may create both in one transaction meanwhile: if its tables
    # are visible here, their version is visible in the next read.
    tables = _count_tables(connection)
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise HistoryError(
            f"history {path}: written by a newer paropt-exporter (schema {version}, this one supports {VERSION}); "
            "upgrade, or move the file away"
        )
    if version < 0 or (version == 0 and tables):
        raise HistoryError(f"history {path}: a database, but not a run history; choose another file")
    return version


def _count_tables(connection: sqlite3.Connection) -> int:
    """Return how many tables and indexes the file has. The first query of a connection reads the file's schema.

    SQLite quotes a damaged schema in its message, and the sqlite3 module can't make an error of a message that is not
    UTF-8: it raises UnicodeDecodeError.
    """
    try:
        return int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    except UnicodeDecodeError as error:
        damage = sqlite3.DatabaseError("malformed database schema")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error


def _upgrade_file(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite's busy timeout doesn't cover the switch to WAL mode: processes that start together would fail, so they
    # take turns here.
    with repair.hold_lock(path):
        connection.execute("PRAGMA journal_mode = WAL")
        version = _read_version(connection, path)
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        for earlier in range(version or VERSION, VERSION):
            upgrade = f"{UPGRADES[earlier]} PRAGMA user_version = {earlier + 1};"
            connection.executescript(f"BEGIN IMMEDIATE; {upgrade} COMMIT;")


def _copy(path: Path, memory: sqlite3.Connection) -> None:
    # `immutable`: WAL wants to write its index even to read, which a read-only directory refuses.
    with closing(sqlite3.connect(_build_uri(path, "immutable=1"), uri=True)) as source:
        _read_version(source, path)
        source.execute("PRAGMA quick_check").fetchall()  # raises before part of a damaged file is copied
        source.backup(memory)


def _open_in_memory(path: Path) -> sqlite3.Connection:
    """Return a database in memory, with the file's content if it is readable."""
    memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    try:
        if path.exists() and not path.is_file():
            raise OSError("not a file")  # such as a folder or a pipe
        if path.exists() and path.stat().st_size:
            _copy(path, memory)
    except (sqlite3.Error, OSError) as error:
        if not (isinstance(error, sqlite3.Error) and repair.is_damage(error)):
            memory.close()
            raise build_unreadable_error(path, error) from error
        # It is damaged and can't be set aside: ignore it, so that the run goes on.
    try:
        _upgrade_in_memory(memory)
    except sqlite3.Error as error:  # its tables are not those of its version
        memory.close()
        raise build_unreadable_error(path, error) from error
    return memory


def _upgrade_in_memory(memory: sqlite3.Connection) -> None:
    version = memory.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        memory.executescript(f"{_TABLES} PRAGMA user_version = {VERSION};")
    for earlier in range(version or VERSION, VERSION):
        memory.executescript(UPGRADES[earlier])


# A tracked history would change with each run, and `--lane auto` would always find a change.
_IGNORE = "# Made by paropt-exporter: history and schema are this machine's own.\n*\n"


def keep_out_of_git(folder: Path) -> None:
    """Make git ignore our own folder `.paropt`; a folder of another name is left to the user."""
    if folder.name != OWN_FOLDER:
        return
    path = folder / ".gitignore"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with suppress(OSError):  # it exists, or the folder is read-only
        with os.fdopen(files.open_regular(path, flags), "w", encoding="utf-8") as file:
            file.write(_IGNORE)
        return
    files.make_private(path)
