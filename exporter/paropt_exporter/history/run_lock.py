"""Lock runs, so that others see whether a run's process is alive: the kernel releases the locks of dead processes."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from paropt_exporter import files

_SUFFIX = ".lock"
_OLD_SECONDS = 3600.0  # a run locks its file within milliseconds


def find_lock_folder(history: Path) -> Path:
    """Return where the locks of the runs in a history are."""
    return files.find_beside(history, "runs")


class RunLocks:
    """The locks of this process's runs, one file for each under `folder`.

    A pid can be reused by another process; an flock ends with its process. Commands don't inherit the files (they are
    opened close-on-exec), so an orphan command doesn't keep a dead run locked. A descriptor is reserved for the next
    lock, since the workers may use up the system's descriptors before a run begins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: dict[str, int] = {}  # by run id
        self._spare: int | None = None

    def reserve_descriptor(self) -> None:
        """Reserve a descriptor for the next lock, if one is available."""
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _close_reserve(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def acquire(self, run_id: str) -> None:
        """Lock a run, if it is not locked yet. Raises OSError if that fails or another process has locked it."""
        before = self._descriptors.get(run_id)
        if before is not None and self._path(run_id).exists():
            return
        self._close_reserve()
        lock = files.create_lock(self._path(run_id))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        self._descriptors[run_id] = lock
        if before is not None:
            os.close(before)

    def release(self, run_id: str) -> None:
        """Unlock a run and remove its file, if this process holds it."""
        lock = self._descriptors.pop(run_id, None)
        if lock is not None:
            self.remove(run_id)
            os.close(lock)
            self.reserve_descriptor()

    def reacquire_lost(self) -> None:
        """Lock the runs again whose files were deleted: otherwise they would look dead. Raises OSError."""
        for run_id in tuple(self._descriptors):
            self.acquire(run_id)

    def release_all(self) -> None:
        """Unlock all runs and close the reserved descriptor."""
        for run_id in tuple(self._descriptors):
            self.release(run_id)
        self._close_reserve()

    def is_alive(self, run_id: str) -> bool:
        """Return whether a run's process is alive: this process, or another one that holds the lock."""
        if run_id in self._descriptors:
            return True
        try:
            lock = files.open_regular(self._path(run_id))
        except (FileNotFoundError, files.UnexpectedFileType):
            return False
        try:
            # A shared lock, so that two processes that check don't mistake each other for the run's process.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def remove(self, run_id: str) -> None:
        """Remove the file of a run that has ended, or whose process is dead."""
        with suppress(OSError):  # a file that stays is harmless: no process holds its lock
            files.check_no_links(self._folder)
            self._path(run_id).unlink()

    def remove_old(self, now_seconds: float) -> None:
        """Remove the files of dead runs without a record: a kill may come between the lock and the record.

        A file without a lock may be that of a run that is about to begin, so only old ones are removed. `now_seconds`
        is wall time.
        """
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                run_id = unquote(entry.name.removesuffix(_SUFFIX))
                is_old = entry.stat(follow_symlinks=False).st_mtime < now_seconds - _OLD_SECONDS
                if is_old and entry.name == self._path(run_id).name and not self.is_alive(run_id):
                    self.remove(run_id)

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{quote(run_id, safe='')}{_SUFFIX}"
