"""Tell runs whose process lives from those whose process is gone, by a lock that the kernel drops with its owner."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from paropt_exporter import files


class Owners:
    """The locks that this process holds on its own runs, one file for each under `folder`.

    A pid can be given to another process; an flock can't outlive its owner. The files are not inherited by programs
    that are started (they are opened close-on-exec), so an orphan command doesn't keep a dead run alive. A descriptor
    is kept for the next lock, since the workers of a run may take all that the system has before the run begins.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}  # descriptors
        self._spare: int | None = None

    def reserve(self) -> None:
        """Keep a descriptor for the next lock, if there is one to be kept."""
        if self._spare is None:
            with suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _free_reserve(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def take(self, run_id: str) -> None:
        """Lock a run of ours, unless it is. Raises OSError if the folder can't be written or another process has it."""
        before = self._held.get(run_id)
        if before is not None and self._path(run_id).exists():
            return
        files.make_folder(self._folder)
        self._free_reserve()
        lock = files.open_lock(self._path(run_id))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        self._held[run_id] = lock
        if before is not None:
            os.close(before)

    def release(self, run_id: str) -> None:
        """Let a run of ours go and remove its file; nothing if we don't hold it."""
        lock = self._held.pop(run_id, None)
        if lock is not None:
            self._remove(run_id)
            os.close(lock)
            self.reserve()

    def retake(self) -> None:
        """Lock again the runs of ours whose files are gone, or others would take us for dead. Raises OSError."""
        for run_id in tuple(self._held):
            self.take(run_id)

    def release_all(self) -> None:
        """Let every run of ours go, and the reserve."""
        for run_id in tuple(self._held):
            self.release(run_id)
        self._free_reserve()

    def alive(self, run_id: str) -> bool:
        """Say whether the run's owner lives: this process, or another one that holds the lock."""
        if run_id in self._held:
            return True
        try:
            lock = files.open_regular(self._path(run_id))
        except (FileNotFoundError, files.UnexpectedFileType):
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that ask don't take each other for owners
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def forget(self, run_id: str) -> None:
        """Remove what a dead owner left."""
        self._remove(run_id)

    def _remove(self, run_id: str) -> None:
        with suppress(OSError):  # a file too many does no harm: nobody holds its lock
            files.check_no_links(self._folder)
            self._path(run_id).unlink()

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{quote(run_id, safe='')}.lock"
