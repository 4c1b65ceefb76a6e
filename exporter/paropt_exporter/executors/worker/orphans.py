"""Reaps the zombies of a worker that no object will wait for: processes that its tasks' children left behind."""

from __future__ import annotations

import contextlib
import os
import sys

LOOK_SECONDS = 10.0  # between two calls: how long an owner has to ask for a child's exit status


class Orphans:
    """The zombies of one process that is a subreaper.

    Guarantee: a child that is a zombie in two successive calls is reaped, unless a `Popen` object has it and will
    return its exit status.
    """

    def __init__(self) -> None:
        self.due_seconds = 0.0
        self._seen: frozenset[int] = frozenset()

    def reap(self, now: float) -> bool:
        """Reap the zombies that were there at the last call too; return whether there were any."""
        self.due_seconds = now + LOOK_SECONDS
        try:
            zombies = frozenset(_list_zombies())
        except OSError:
            return False  # no /proc: they stay until the worker exits
        left = (zombies & self._seen) - _list_owned() if zombies & self._seen else ()
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = zombies
        return bool(left)


def _list_zombies() -> list[int]:
    found = []
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 -- Path is not worth its import in a worker
        with contextlib.suppress(OSError):
            found += [
                int(pid) for pid in _read_file(f"/proc/self/task/{thread}/children").split() if _is_zombie(int(pid))
            ]
    return found


def _is_zombie(pid: int) -> bool:
    try:
        return _read_file(f"/proc/{pid}/stat").rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return False


def _read_file(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 -- as above
        return file.read()


def _list_owned() -> set[int]:
    """Return the children that an object of subprocess or multiprocessing has."""
    import gc

    kinds = tuple(
        sys.modules[name].Popen
        for name in ("subprocess", "multiprocessing.popen_fork", "multiprocessing.popen_forkserver")
        if name in sys.modules
    )
    return {
        found.pid for found in gc.get_objects() if kinds and issubclass(type(found), kinds) and hasattr(found, "pid")
    }
