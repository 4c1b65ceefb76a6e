"""Keep the registered projects in files of the runtime folder, and read their histories."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

from msgspec import MsgspecError, Struct, field

from paropt_exporter import files
from paropt_exporter.aggregation import LastValues, Totals
from paropt_exporter.clock import SystemClock
from paropt_exporter.errors import HistoryError
from paropt_exporter.history import History
from paropt_exporter.serve.messages import Registration, encode, find_fault, registration_decoder

log = logging.getLogger(__name__)

_SUFFIX = ".json"
_LONGEST_BYTES = 64 * 1024 * 1024
_MOST_PROJECTS = 10_000
# The clock of file times ticks every few milliseconds: a file that has just changed may change again unseen.
_TICK_NANOSECONDS = 50_000_000
_TRIES = 3  # to read a history that a run changes meanwhile

ProjectKey = tuple[str, str]  # the name of the project, the path of its history


class StoredValues(Struct, frozen=True, kw_only=True):
    """What a history holds: totals, last values, and CPU totals of running stages by (lane, stage)."""

    totals: Totals = Totals()
    last: LastValues = LastValues()
    shown_cpu: Mapping[tuple[str, ...], float] = field(default_factory=dict)


class RegisteredProject:
    """A project with the last values that could be read of its history."""

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self.values = StoredValues()
        self.fault = ""
        self.revision = 0  # grows with each change of values or registration
        self._stamp: object = None

    @property
    def key(self) -> ProjectKey:
        return self.registration.project, self.registration.history

    def refresh(self) -> None:
        """Read the history if it has changed. Never raises: without a history the last values stay.

        That is no fault if the whole checkout was deleted, as those of CI jobs are.
        """
        path = Path(self.registration.history)
        stamp = _stamp(path)
        if stamp is not None and stamp == self._stamp:
            return
        try:
            self.values, self._stamp = _read_unchanged(path, self.registration.project)
            self.revision += 1
            fault = ""
        except (HistoryError, OSError) as error:
            self._stamp, fault = None, "" if _is_deleted(self.registration.root) else str(error)
        if fault and fault != self.fault:
            log.warning("cannot read a history", extra={"project": self.registration.project, "err": fault})
        self.fault = fault


def _is_deleted(root: str) -> bool:
    """Return whether a checkout is gone; False if that can't be told, such as without permission for its parent."""
    try:
        Path(root).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _read_unchanged(path: Path, project: str) -> tuple[StoredValues, object]:
    """Return the values of one moment: a history without a log is read without locks, which a run may not notice."""
    for left in reversed(range(_TRIES)):
        before = _stamp(path)
        with closing(History(path, project=project, clock=SystemClock(), for_reading=True)) as history:
            values = StoredValues(
                totals=history.load_totals(), last=history.load_last_values(), shown_cpu=history.load_shown_cpu()
            )
        after = _stamp(path)
        if after == before or not left:
            return values, after if after == before and _is_old(path) else None
    raise AssertionError("the last try returns")


def _stamp(path: Path) -> tuple[tuple[int, int, int], ...] | None:
    """Return the identities and times of a history and its log; None without a history."""
    found = []
    for part in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = part.stat()
        except OSError:
            if part == path:
                return None
            continue
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _is_old(path: Path) -> bool:
    newest = max(mtime for _, _, mtime in _stamp(path) or ((0, 0, time.time_ns()),))
    return newest < time.time_ns() - _TICK_NANOSECONDS


class Registry:
    """The registered projects. A full disk costs only the memory of them after a restart."""

    def __init__(self, folder: Path) -> None:
        """Load the registrations of this user; skip other files, and forget projects whose history is gone."""
        self._folder = folder
        self.projects: dict[ProjectKey, RegisteredProject] = {}
        for path in sorted(folder.glob(f"*{_SUFFIX}"))[:_MOST_PROJECTS]:
            registration = _read_registration(path)
            if registration is None:
                continue
            if _stamp(Path(registration.history)) is None:
                log.info("forgot a project without a history", extra={"project": registration.project})
                with suppress(OSError):
                    path.unlink()
                continue
            project = RegisteredProject(registration)
            self.projects[project.key] = project

    def register(self, registration: Registration) -> RegisteredProject:
        """Add a project or renew its label sets; lanes of other runs stay."""
        key = (registration.project, registration.history)
        project = self.projects.get(key)
        if project is None:
            project = self.projects[key] = RegisteredProject(registration)
        else:
            known = project.registration
            lanes = {lane.lane: lane for lane in (*known.lanes, *registration.lanes)}
            registration = Registration(
                project=registration.project,
                root=registration.root,
                history=registration.history,
                lanes=tuple(lanes.values()),
                bounds={**known.bounds, **registration.bounds},
            )
            if registration == known:
                return project
            project.registration = registration
        project.revision += 1
        self._write(registration)
        return project

    def _write(self, registration: Registration) -> None:
        name = hashlib.sha256(os.fsencode(f"{registration.project}\0{registration.history}")).hexdigest()[:24]
        try:
            files.replace_file(self._folder / f"{name}{_SUFFIX}", encode(registration), mode=files.PRIVATE_FILE)
        except OSError as error:
            log.warning(
                "a registration was not stored: after a restart the project is missing until its next run",
                extra={"project": registration.project, "err": error.strerror or str(error)},
            )


def _read_registration(path: Path) -> Registration | None:
    """Return a registration, or None, with a line in the log, for a file that is none of this user."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            raise ValueError("not a regular file of this user")
        content = files.read_start(path, limit_bytes=_LONGEST_BYTES)
        registration = registration_decoder.decode(content)
        if fault := find_fault(registration):
            raise ValueError(fault)
    except (OSError, ValueError, MsgspecError, RecursionError) as error:
        log.warning("ignored a file that is no registration", extra={"path": str(path), "err": str(error)})
        return None
    return registration
