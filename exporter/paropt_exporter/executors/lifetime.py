"""Close all pools when the interpreter exits, and disable them in a forked child."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import weakref
from typing import Protocol

from paropt_exporter.executors.processes.forkservers import ForkServers


class LockOwner(Protocol):
    """An object with a lock that another thread may hold at a fork."""

    def reset_after_fork(self) -> None: ...


class PoolState(LockOwner, Protocol):
    """The part of a pool that outlives the user's executor object: its workers and their queue."""

    finalizer: weakref.finalize[..., object] | None

    def close(self, *, cancel_futures: bool = False, refusal: str = ...) -> None: ...

    def join(self) -> object: ...


# Module state, since the interpreter has one exit hook and one fork hook.
_pools: weakref.WeakSet[PoolState] = weakref.WeakSet()
# Pools that pass their tasks on to other pools, and so close first.
_schedulers: weakref.WeakSet[PoolState] = weakref.WeakSet()
_lock_owners: weakref.WeakSet[LockOwner] = weakref.WeakSet()  # others, which use pools

_exiting = threading.Event()  # set after the main thread has ended
_closed = threading.Event()  # set after all pools have then been closed

FORK_SERVERS = ForkServers()  # one fork server serves all pools of the process

AFTER_EXIT_MESSAGE = "cannot schedule new futures after interpreter shutdown"
AFTER_FORK_MESSAGE = "this pool belongs to the parent process: make a new one after fork()"


def register(pool: PoolState, *, schedules: bool = False) -> None:
    """Close `pool` and finish its tasks before the interpreter exits, as the standard library does.

    A pool that an exit handler makes accepts no tasks, since the interpreter would not wait for them.
    """
    (_schedulers if schedules else _pools).add(pool)
    if _closed.is_set():
        pool.close(refusal=AFTER_EXIT_MESSAGE)


def register_lock_owner(owner: LockOwner) -> None:
    """Reset an object that uses pools in a forked child, after these."""
    _lock_owners.add(owner)


def close_when_dropped(executor: object, pool: PoolState) -> None:
    """Close `pool` if the user's `executor` is dropped without a shutdown. Its workers finish the submitted tasks."""
    pool.finalizer = weakref.finalize(executor, pool.close)
    pool.finalizer.atexit = False


def starts_threads() -> bool:
    """Return whether a thread can start now. Python 3.12.0 and 3.12.1 start none after the main thread (gh-113964)."""
    return not _exiting.is_set() or not (3, 12) <= sys.version_info < (3, 12, 2)


def _close_at_exit() -> None:
    _exiting.set()
    seen: set[PoolState] = set()
    _close_all(seen)
    _closed.set()
    _close_all(seen)  # pools that another thread registered before it could see the event
    # The finalizers keep the pools alive, and these keep functions of the script with their globals: at the end of the
    # interpreter, `__del__` of these globals would not be called.
    for pool in seen:
        if pool.finalizer is not None:
            pool.finalizer.detach()
    FORK_SERVERS.close()


def _close_all(seen: set[PoolState]) -> None:
    """Close and join all pools, including those that their tasks make meanwhile."""
    while _close_new(_schedulers, seen) or _close_new(_pools, seen):
        pass


def _close_new(pools: weakref.WeakSet[PoolState], seen: set[PoolState]) -> bool:
    """Close and join the pools that are not in `seen`; return whether there were any."""
    new = [pool for pool in _list_pools(pools) if pool not in seen]
    seen.update(new)
    for pool in new:
        pool.close(refusal=AFTER_EXIT_MESSAGE)
    for pool in new:
        pool.join()
    return bool(new)


def _list_pools(pools: weakref.WeakSet[PoolState]) -> list[PoolState]:
    while True:
        with contextlib.suppress(RuntimeError):  # another thread has made a pool: the set changed during iteration
            return list(pools)


def _reset_after_fork() -> None:
    for owner in (*_schedulers, *_pools, *_lock_owners):
        owner.reset_after_fork()
    FORK_SERVERS.reset_after_fork()


# As the standard library's executors do: before atexit's functions, which may no longer submit tasks.
getattr(threading, "_register_atexit", atexit.register)(_close_at_exit)
os.register_at_fork(after_in_child=_reset_after_fork)
