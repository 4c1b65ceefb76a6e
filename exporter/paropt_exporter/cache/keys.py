"""The key of a task: everything that its result may depend on, as named components and as one digest.

The components are kept with each entry, so that a miss can name the difference. Values of variables are kept as keyed
digests only. Locks on keys keep two processes from running one task at once.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from msgspec import Struct

from paropt_exporter import files, plain_json
from paropt_exporter.cache.digests import Hash, begin_digest
from paropt_exporter.cache.file_states import Snapshot, get_state
from paropt_exporter.plan.structure import Commands, PlannedTask

log = logging.getLogger(__name__)

FORMAT = "2"  # of keys and entries: another format has other keys
_POLL_SECONDS = 0.05  # file locks have no wait with a limit
_FLOCK = "hhqqi4x"  # struct flock, on Linux with 64-bit offsets


class TaskKey(Struct, frozen=True):
    """The key of one task. `listings` are the digests of the lists of its files."""

    digest: str
    own: tuple[tuple[str, str], ...]
    stage: StageKey
    listings: tuple[str, ...]

    @property
    def components(self) -> tuple[tuple[str, str], ...]:
        """Everything but files that the key depends on, by name; only a miss and its result need them."""
        return (*self.own, *self.stage.components)


def build_listing(snapshot: Snapshot) -> bytes:
    """Return the list of files with their states, sorted by path; each part ends with a NUL."""
    lines = [f"{path}\0{get_state(entry)}\0" for path, entry in sorted(snapshot.items())]
    return "".join(lines).encode("utf-8", "surrogateescape")


def parse_listing(content: bytes) -> dict[str, str]:
    """Return the states by path of a list of files."""
    parts = content.decode("utf-8", "surrogateescape").split("\0")
    return dict(zip(parts[0::2], parts[1::2], strict=False))


class StageKey:
    """The parts of the keys that all tasks of a stage share."""

    def __init__(
        self,
        *,
        cwd: str,
        outputs: Sequence[str],
        variables: Mapping[str, str],
        tools: Mapping[str, str],
        secret: bytes,
        search_path: str = "",
    ) -> None:
        """`cwd` and `outputs`, the patterns of all files that the stage writes, are relative to the config's folder.

        `secret`: the key of the digests of variables' values.

        `search_path`: the stage's PATH, if its inputs are traced. Weak keys don't include it.
        """
        self.search_path = search_path
        machine = os.uname()
        fixed = [
            ("format", FORMAT),
            ("platform", f"{machine.sysname} {machine.machine}"),
            ("cwd", cwd),
            ("outputs", plain_json.dumps(outputs)),
            *((f"tool {name}", identity) for name, identity in sorted(tools.items())),
        ]
        self._fixed = fixed
        self._secret = secret
        self._variables = sorted(variables.items())
        self._digest = begin_digest()
        _add_pairs(self._digest, (*fixed, *self._variables))

    @cached_property
    def components(self) -> tuple[tuple[str, str], ...]:
        return (*self._fixed, *((f"env {name}", _hide(self._secret, name, value)) for name, value in self._variables))

    def build(self, task: PlannedTask, listings: tuple[str, ...]) -> TaskKey:
        """Return the key of a task with these lists of files."""
        assert isinstance(task.work, Commands)
        own = (("command", plain_json.dumps(task.work.steps)), ("item", plain_json.dumps(task.items or task.item)))
        digest = self._digest.copy()
        _add_pairs(digest, (*own, *(("files", listing) for listing in listings)))
        return TaskKey(digest.hexdigest(), own, self, listings)


def _add_pairs(digest: Hash, pairs: Iterable[tuple[str, str]]) -> None:
    """Add texts to a digest, each with its length, so that no two lists of pairs are alike."""
    for pair in pairs:
        for part in pair:
            content = os.fsencode(part)
            digest.update(len(content).to_bytes(8, "big") + content)


def _hide(secret: bytes, name: str, value: str) -> str:
    import hmac  # here: a hit needs no components

    return hmac.new(secret, f"{name}\0{value}".encode("utf-8", "surrogateescape"), "sha256").hexdigest()[:16]


class KeyLocks:
    """The locks of a run on keys, against other runs of this process and others. All methods are for any thread.

    If two runs have the same task, the second waits, and then skips it. All keys share one file, in which each has a
    byte. The kernel releases the locks of a killed process. Where the file system has no locks, and after `close`, all
    keys are free: two runs may do the same work.
    """

    def __init__(self, path: Path) -> None:
        """`path`: the file of the locks, which the first lock opens."""
        self._path = path
        # guards: all below
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._held: set[int] = set()  # locks of one open file description don't exclude each other
        self._is_closed = False

    def try_acquire(self, keys: Iterable[str]) -> bool:
        """Lock all keys, or none of them and return False."""
        places = sorted({_find_place(key) for key in keys})
        acquired: list[int] = []
        with self._lock:
            if not self._held.isdisjoint(places):
                return False
            try:
                acquired.extend(takewhile(self._lock_byte, places))  # in one order: of two runs one gets all
            except OSError as error:
                log.debug("no locks in the cache", extra={"err": str(error)})
            else:
                if len(acquired) < len(places):
                    self._unlock(acquired)
                    return False
            self._held.update(acquired)
        return True

    def acquire(self, keys: Sequence[str], given_up: threading.Event, limit_seconds: float) -> bool:
        """Wait until all keys are locked. Return False if they still are not, or if the wait was given up."""
        waited = 0.0
        while not self.try_acquire(keys):
            if waited >= limit_seconds or given_up.wait(_POLL_SECONDS):
                return False
            waited += _POLL_SECONDS
        return True

    def release(self, keys: Iterable[str]) -> None:
        """Unlock those of the keys that this run holds."""
        with self._lock:
            places = {_find_place(key) for key in keys} & self._held
            self._held -= places
            self._unlock(places)

    def close(self) -> None:
        """Unlock all keys; later calls lock nothing."""
        with self._lock:
            self._is_closed = True
            self._held.clear()
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _lock_byte(self, place: int) -> bool:
        """Lock a byte, or return False if another process has. Raises OSError, also once all keys are free."""
        if self._is_closed:
            raise OSError(errno.EBADF, "the locks are closed")
        if self._descriptor is None:
            self._descriptor = files.open_lock(self._path)
        try:
            _set_lock(self._descriptor, place, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _unlock(self, places: Iterable[int]) -> None:
        for place in places:
            assert self._descriptor is not None  # they were locked
            with suppress(OSError):
                _set_lock(self._descriptor, place, fcntl.F_UNLCK)


def _set_lock(descriptor: int, place: int, kind: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0))


def _find_place(key: str) -> int:
    return int(key[:15], 16)
