"""Repair the history file: set a damaged one aside, restore a deleted one."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

from paropt_exporter import files
from paropt_exporter.files import OWN_FOLDER

log = logging.getLogger(__name__)

Identity = tuple[int, int]  # device and inode, which differ for two files of the same name
Identities = tuple[Identity | None, ...]  # of the file, its log and the log's index

# A full disk, a missing permission and a busy file have other codes.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY_CODE = 0xFF  # an extended result code has details in its higher bits
FIRST_BYTES = b"SQLite format 3\0"  # of a database
_LOG_PARTS = ("-wal", "-shm")
# In this order: a log that stays behind would count as the log of the next file of that name.
_PARTS = (*_LOG_PARTS, "")


def identify_file(path: Path) -> Identity | None:
    """Return the identity of the file at a path; None if there is none, or it is inaccessible."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def resolve_path(path: Path) -> Path:
    """Return the path of SQLite's files: outside of `.paropt`, links are followed to the place that the user chose."""
    return path if files.find_private_parts(path) else Path(os.path.realpath(path))


def identify_files(path: Path) -> Identities:
    """Return the identities of a file, its log and the log's index.

    SQLite opens all three by their names, and keeps them. Two processes with the same file and different logs, as after
    a removal of the log, would overwrite each other's pages.
    """
    place = resolve_path(path)
    return identify_file(place), *(identify_file(place.with_name(place.name + part)) for part in _LOG_PARTS)


def remove_logs(path: Path) -> None:
    """Remove the log of an earlier file, before a file gets its name. The caller holds the lock."""
    for part in _LOG_PARTS:
        path.with_name(path.name + part).unlink(missing_ok=True)


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file's content is damaged, rather than that it is inaccessible."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _DAMAGE


def is_ours(path: Path) -> bool:
    """Return whether a damaged file was a history: it is in our own folder, or begins like a database.

    A config may name any file as its history, and other files must stay where they are.
    """
    if path.parent.name == OWN_FOLDER:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(FIRST_BYTES)) == FIRST_BYTES
    except OSError:
        return False


def set_aside(path: Path, damaged: Identity | None, why: str, now_seconds: float) -> None:
    """Rename a damaged file and its log to a name that contains "corrupt"; raises OSError if that fails.

    `damaged` identifies the file. Of several processes that find it, one renames it; the others see by its identity
    that another file, or none, is in its place.
    """
    with hold_lock(path):
        if damaged is None or identify_file(path) != damaged:
            return
        kept = _choose_free_name(path, now_seconds)
        for part in _PARTS:
            with suppress(FileNotFoundError):
                Path(f"{path}{part}").rename(f"{kept}{part}")
    log.warning(
        "the history is damaged: it was set aside, and a new one starts with totals of 0",
        extra={"path": str(path), "kept": str(kept), "err": why},
    )


def restore_deleted(path: Path, identity: Identity | None, deleted: sqlite3.Connection) -> None:
    """Copy the history of a connection to its old path, if its file or its log was deleted.

    `identity` is that of the connection's file. Nothing happens if another file is at the path. If another process that
    shared the file has restored it first, later writes of this process are lost.
    """
    place = resolve_path(path)
    with hold_lock(path):
        if identify_file(place) not in (None, identity):
            return
        copy = make_copy_path(place)
        files.create_private(copy)
        try:
            with closing(sqlite3.connect(copy)) as target:
                deleted.backup(target)
            remove_logs(place)
            copy.replace(place)
        finally:
            copy.unlink(missing_ok=True)


def make_copy_path(path: Path) -> Path:
    """Return a path for a new file that will replace the one at a path; remove those of killed processes.

    The caller holds the lock.
    """
    mark = re.compile(rf"\.{re.escape(path.name)}\.\d+-[0-9a-f]{{8}}(-wal|-shm|-journal)?")
    with os.scandir(path.parent) as entries:
        abandoned = [entry.name for entry in entries if mark.fullmatch(entry.name)]
    for name in abandoned:
        path.with_name(name).unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock that lets one process at a time create, replace or upgrade the file."""
    lock = files.create_lock(path.with_name(path.name + ".lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _choose_free_name(path: Path, now_seconds: float) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_seconds))
    names = (path.with_name(f"{path.name}.corrupt-{moment}{f'-{again}' if again else ''}") for again in count())
    return next(name for name in names if not os.path.lexists(name))
