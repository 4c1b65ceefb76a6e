"""Mend what becomes of the history file: a damaged one is set aside, a deleted one is written anew."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

from paropt_exporter import files
from paropt_exporter.files import OWN_FOLDER

log = logging.getLogger(__name__)

Identity = tuple[int, int]  # device and inode: two files of one name are told apart by it

# A full disk, a missing permission and a busy file have other codes.
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY_CODE = 0xFF  # an extended result code says more in its higher bits
_MAGIC = b"SQLite format 3\0"
# In this order: a log that stayed behind would be taken for one of the next file of that name.
_PARTS = ("-wal", "-shm", "")


def identity(path: Path) -> Identity | None:
    """Return which file is at a path now; None: none that can be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_damage(error: sqlite3.Error) -> bool:
    """Say whether an error means that the content of the file is broken, and not that it can't be had or written."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _DAMAGE


def is_ours(path: Path) -> bool:
    """Say whether a damaged file may be taken for a history: it lies in our folder, or was a database once.

    A config may name any file as its history, and what somebody else wrote stays where it is.
    """
    if path.parent.name == OWN_FOLDER:
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def set_aside(path: Path, damaged: Identity | None, why: str, now_seconds: float) -> None:
    """Rename a damaged file, with its log, to a name that says so; raises OSError where that can't be done.

    `damaged`: which file it is. Of several processes that find it, one renames it; the others find another file, or
    none, in its place and leave that alone.
    """
    with locked(path):
        if damaged is None or identity(path) != damaged:
            return
        kept = _free_name(path, now_seconds)
        for part in _PARTS:
            with suppress(FileNotFoundError):
                Path(f"{path}{part}").rename(f"{kept}{part}")
    log.warning(
        "the history is damaged: it was set aside, a new one begins and its totals start at 0",
        extra={"path": str(path), "kept": str(kept), "err": why},
    )


def write_anew(path: Path, deleted: sqlite3.Connection) -> None:
    """Put what a connection to a deleted file still has into a file at the old path, unless there is one by now.

    Another process that shared the file may have been first; what this one wrote after that process copied is lost.
    """
    files.make_folder(path.parent)
    copy = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    files.create_private(copy)
    try:
        with closing(sqlite3.connect(copy)) as target:
            deleted.backup(target)
        with suppress(FileExistsError):
            path.hardlink_to(copy)
    finally:
        copy.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold what one process at a time may do to the file as a whole."""
    lock = files.open_lock(path.with_name(path.name + ".lock"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _free_name(path: Path, now_seconds: float) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_seconds))
    names = (path.with_name(f"{path.name}.corrupt-{moment}{f'-{again}' if again else ''}") for again in count())
    return next(name for name in names if not os.path.lexists(name))
