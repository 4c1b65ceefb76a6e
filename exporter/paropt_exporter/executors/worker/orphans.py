"""Reaps the zombies of a process that no object will wait for: processes that children of its tasks left behind."""

from __future__ import annotations

import contextlib
import os
import sys

from paropt_exporter.executors import procfs

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
        """Reap the zombies that already were there at the last call; return whether there were any."""
        self.due_seconds = now + LOOK_SECONDS
        zombies = frozenset(filter(_is_zombie, procfs.list_children("self")))  # none without /proc
        left = (zombies & self._seen) - _list_owned() if zombies & self._seen else ()
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._seen = zombies
        return bool(left)


def _is_zombie(pid: int) -> bool:
    fields = procfs.read_stat(pid)
    return fields is not None and fields[0] == "Z"


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
