"""The folder of logs, a file for each run: who may read them, how many stay, and which is meant by a name."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from paropt_exporter import files
from paropt_exporter.clock import Clock

_SUFFIX = ".log"
_OURS = re.compile(r"\d{8}T\d{6}-[0-9a-f]{6}")  # a run's id, which begins with the time: sorted by name is by age


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """How much output is kept: for one run, for all together, and for how long."""

    run_bytes: int
    total_bytes: int
    age_seconds: float


def find_log_folder(history: Path) -> Path:
    """Return where the logs of a project with this history are: `.paropt/logs`, or beside another file."""
    if history.parent.name == files.OWN_FOLDER:
        return history.with_name("logs")
    return history.with_name(f"{history.name}.logs")


class LogFolder:
    """The logs of a project's runs, which several processes may write and read at once.

    Guarantees: files that others can't read; no link is followed; when a run begins, older logs are removed so that
    all of them keep within `total_bytes` even when this run fills its own. The log of a run that still goes on stays.
    """

    def __init__(self, path: Path, limits: LogLimits, *, clock: Clock, lives: Callable[[str], bool]) -> None:
        """`lives`: whether the process of a run, by its id, may still write its log."""
        self.limits = limits
        self._folder = path
        self._clock = clock
        self._lives = lives

    def path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}{_SUFFIX}"

    def create_log(self, run_id: str) -> int:
        """Make room, then make the log of a run and return its descriptor, to append. Raises OSError."""
        files.make_folder(self._folder)
        self._prune_logs()
        path = self.path(run_id)
        return files.open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def _prune_logs(self) -> None:
        """Remove logs that are too old, then the oldest ones until the rest leave room for one more run."""
        left_bytes = self.limits.total_bytes - self.limits.run_bytes
        oldest = self._clock.wall() - self.limits.age_seconds
        for run_id in reversed(list_runs(self._folder)):
            path = self.path(run_id)
            with suppress(OSError):  # another process may have removed it, and one file too many does no harm
                found = path.lstat()
                left_bytes -= found.st_size
                if (left_bytes < 0 or found.st_mtime < oldest) and not self._lives(run_id):
                    path.unlink()


def list_runs(folder: Path) -> list[str]:
    """Return the ids of the runs that have a log, oldest first; none if there is no folder."""
    with suppress(OSError):
        files.check_no_links(folder)
        return sorted(_iter_run_ids(folder))
    return []


def open_log(folder: Path, run_id: str) -> BinaryIO:
    """Open the log of a run for reading. Raises OSError, UnexpectedFileType for a link."""
    files.check_no_links(folder)
    return os.fdopen(files.open_regular(folder / f"{run_id}{_SUFFIX}"), "rb")


def _iter_run_ids(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name.removesuffix(_SUFFIX)
            if name != entry.name and _OURS.fullmatch(name) and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                yield name
