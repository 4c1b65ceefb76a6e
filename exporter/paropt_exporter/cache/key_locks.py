"""Locks on keys between processes: of two runs of one task the second waits, and then skips it.

All keys share one file, each has a byte of it. The kernel releases the locks of a process that is killed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from paropt_exporter import files

_POLL_SECONDS = 0.05  # file locks have no wait with a limit
_FLOCK = "hhqqi4x"  # struct flock, on Linux with 64-bit offsets


class KeyLocks:
    """The locks that this process holds. All methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Open the file of the locks. Raises OSError."""
        self._descriptor = files.open_lock(path)
        self._lock = threading.Lock()  # guards: _held, which an open file description can't tell apart
        self._held: set[int] = set()

    def try_acquire(self, keys: Iterable[str]) -> bool:
        """Lock all keys, or none and return False. Raises OSError for a file system without locks."""
        places = sorted({_find_place(key) for key in keys})
        with self._lock:
            if not self._held.isdisjoint(places):
                return False
            acquired: list[int] = []
            for place in places:
                if not self._lock_byte(place):
                    for each in acquired:
                        self._set(each, fcntl.F_UNLCK)
                    return False
                acquired.append(place)
            self._held.update(places)
        return True

    def acquire(self, keys: Iterable[str], given_up: threading.Event, limit_seconds: float) -> bool:
        """Wait until all keys are locked; return False if they still are not, or the wait was given up."""
        wanted = tuple(keys)
        waited = 0.0
        while not self.try_acquire(wanted):
            if waited >= limit_seconds or given_up.wait(_POLL_SECONDS):
                return False
            waited += _POLL_SECONDS
        return True

    def release(self, keys: Iterable[str]) -> None:
        """Unlock keys that this process holds."""
        with self._lock:
            for place in {_find_place(key) for key in keys} & self._held:
                self._set(place, fcntl.F_UNLCK)
                self._held.discard(place)

    def close(self) -> None:
        os.close(self._descriptor)

    def _lock_byte(self, place: int) -> bool:
        try:
            self._set(place, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _set(self, place: int, kind: int) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0))


def _find_place(key: str) -> int:
    return int(key[:15], 16)
