"""Ends pools with the interpreter, and marks them as gone in a forked child."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from typing import Protocol

from paropt_exporter.executors.processes.forkservers import ForkServers


class Crew(Protocol):
    """The part of a pool that outlives the object in the user's hands: its workers and their queue."""

    def close(self, *, cancel_futures: bool = False, refusal: str = ...) -> None: ...

    def join(self) -> None: ...

    def reset_after_fork(self) -> None: ...


# The interpreter has one exit and one fork hook, so the pools that they concern are known to the module.
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()
_leaders: weakref.WeakSet[Crew] = weakref.WeakSet()  # those that hand their work on to other pools: they end first

FORK_SERVERS = ForkServers()  # one fork server serves all pools of the process

AFTER_EXIT_MESSAGE = "cannot schedule new futures after interpreter shutdown"
AFTER_FORK_MESSAGE = "this pool belongs to the process that made it: make a new one after fork()"


def register(crew: Crew, *, leads: bool = False) -> None:
    """Have `crew` closed and its tasks ended before the interpreter goes, as the standard library does."""
    (_leaders if leads else _crews).add(crew)


def _at_exit() -> None:
    for crews in (tuple(_leaders), tuple(_crews)):
        for crew in crews:
            crew.close(refusal=AFTER_EXIT_MESSAGE)
        for crew in crews:
            crew.join()
    FORK_SERVERS.close()


def _in_forked_child() -> None:
    for crew in (*_leaders, *_crews):
        crew.reset_after_fork()
    FORK_SERVERS.reset_after_fork()


# As the standard library's executors: before atexit's functions, which may not submit any more.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
os.register_at_fork(after_in_child=_in_forked_child)
