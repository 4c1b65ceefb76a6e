"""The threads of one pool: start them, join them, and retry when the system refuses one."""

from __future__ import annotations

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Protocol, TypeVar

from paropt_exporter.errors import explain_shortage

_RETRY_SECONDS = 1.0  # after the system refused a thread or descriptors
_OWN_PREFIX = "paropt-"  # of the names of this package's threads; programs may give those of pools other names
_NEWS_SECONDS = 5 * _RETRY_SECONDS  # after so long without a refusal, the next one is logged


class NamedWorker(Protocol):
    """A worker of a pool, which gives its thread its name."""

    name: str


W = TypeVar("W", bound=NamedWorker)


class PoolThread(threading.Thread):
    """A worker thread of one of this package's pools: a daemon, except that its own code sees it as none.

    Threads that a task starts inherit the flag, and the interpreter would not wait for daemons at exit.
    """

    runs = False
    worker_name = ""  # its first name: a task may rename it

    @property
    def daemon(self) -> bool:  # type: ignore[override]  # the flag is set once, by the constructor
        return not (self.runs and threading.get_ident() == self.ident)

    def run(self) -> None:
        self.runs = True
        super().run()


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. Raises RuntimeError if the system refuses it.

    At an interrupt the library's `start` may fail with a RuntimeError of its event, or with a KeyError: this function
    raises the interrupt.
    """
    handled = sys.exception()
    try:
        thread.start()
    except (RuntimeError, KeyError) as error:
        interrupt = error.__context__
        if interrupt is not None and interrupt is not handled:
            raise interrupt  # noqa: B904 -- the library's error is only its consequence
        raise


def list_own_threads() -> tuple[int, ...]:
    """Return the native ids of this package's threads, but for the main thread: of all pools, and others by name."""
    return tuple(
        thread.native_id
        for thread in threading.enumerate()
        if thread.native_id is not None and (isinstance(thread, PoolThread) or thread.name.startswith(_OWN_PREFIX))
    )


class ThreadGroup:
    """Starts daemon threads for a pool, and joins them.

        announce() ──> starting ──start()──> running ──(its work ends)──> leaving ──> exited
                          │                     └──forget_thread()──> not joined
                          └──(the system refuses a thread)──> exited

    Guarantees:
      * `join` returns when no announced thread is left, whichever thread starts or forgets it.
      * A thread that is interrupted during `start`, and then shuts the pool down, does not wait for that start.
      * Any thread may call at any point of its own code, even with the lock: it is the pool's. If the group had one of
        its own, a thread could wait for it with the pool's, and its holder, in a signal handler, for the pool's.
    """

    def __init__(self, lock: threading.RLock) -> None:
        """`lock`: the pool's."""
        self.reset(lock)

    def reset(self, lock: threading.RLock) -> None:
        """Forget all threads, and use a new lock. A forked child must do so: it has none of the threads, and the lock
        may have been held at the fork.
        """
        self._lock = lock  # guards: everything below; not by the condition, which an interrupt of `with` leaves locked
        self._changed = threading.Condition(lock)
        self._threads: set[PoolThread] = set()
        self._leaving: deque[threading.Thread] = deque()  # threads that have ended their work, but may not have exited
        self._starting: dict[str, int] = {}  # by the thread's name: the ident of the thread that starts it
        self._refused_seconds: float | None = None  # when a thread could not start; None: no thread is missing
        self._last_refused_seconds = -math.inf
        self._is_shortage_new = False  # whether it has not been logged yet

    def announce(self, name: str) -> None:
        """Announce a thread, so that a concurrent shutdown waits for its start."""
        with self._lock:
            self._starting[name] = threading.get_ident()

    def start_workers(
        self, add: Callable[[], W | None], run: Callable[[W], None], drop_unstarted: Callable[[], bool]
    ) -> BaseException | None:
        """Start a thread with `run` for each worker that `add` adds and announces, until it adds none.

        After an error, `drop_unstarted` removes the workers that this thread could not start, and returns whether there
        are others. If there are, a refusal by the system is returned rather than raised, once for each shortage. Errors
        of signal handlers, such as TimeoutError, are raised. The pool's lock is held for `add` and `drop_unstarted`.
        """
        try:
            self._start_added(add, run)
        except BaseException as error:
            refused, has_others = self._drop_unstarted(drop_unstarted, error)
            if refused and has_others:
                return error if self.take_shortage_news() else None
            if not refused:  # an interrupt: other threads' tasks may wait for the worker
                try:
                    self._start_added(add, run)
                except BaseException as another:  # noqa: BLE001 -- the first one is raised
                    self._drop_unstarted(drop_unstarted, another)
            raise
        return None

    def _start_added(self, add: Callable[[], W | None], run: Callable[[W], None]) -> None:
        while (worker := self._add(add)) is not None:
            self.start(worker.name, partial(run, worker))

    def _drop_unstarted(self, drop_unstarted: Callable[[], bool], error: BaseException) -> tuple[bool, bool]:
        """Return whether the system has refused a thread, which an interrupt has not, and whether there are others."""
        refused = isinstance(error, RuntimeError) or (isinstance(error, OSError) and explain_shortage(error) != "")
        with self._lock:
            if refused:
                self.note_shortage()
            return refused, drop_unstarted()

    def _add(self, add: Callable[[], W | None]) -> W | None:
        with self._lock:
            return add()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Start an announced thread. Raises RuntimeError if the system refuses it."""
        thread = PoolThread(target=self._run, args=(work,), name=name, daemon=True)
        thread.worker_name = name
        try:
            self._threads.add(thread)
            start_thread(thread)
        except BaseException:  # an interrupt or a refusal
            with self._lock:
                if not thread.runs:
                    self._threads.discard(thread)  # if it does start, it does nothing
            raise
        finally:
            with self._lock:
                self._starting.pop(name, None)
                self._changed.notify_all()

    def withdraw_unstarted(self, names: Iterable[str]) -> set[str]:
        """Return those of the names whose threads the calling thread should have started, but has not, due to an error.

        They are no longer announced.
        """
        me = threading.get_ident()
        with self._lock:
            unstarted = set(filter(lambda name: self._starting.get(name, me) == me, names))
            for name in tuple(name for name, starter in self._starting.items() if starter == me):
                del self._starting[name]
            self._changed.notify_all()
            return unstarted.difference(thread.worker_name for thread in tuple(self._threads))

    def _run(self, work: Callable[[], None]) -> None:
        with self._lock:
            if threading.current_thread() not in self._threads:
                return
        try:
            work()
        finally:
            with self._lock:
                self._drop_exited()
                self._leaving.append(threading.current_thread())
                self._threads.discard(threading.current_thread())
                if len(self._threads) <= 1:  # the last one may be the one that joins
                    self._changed.notify_all()

    def _drop_exited(self) -> None:
        """Drop the threads that have exited, the oldest only: to check all would take quadratic time."""
        while self._leaving and not self._leaving[0].is_alive():
            self._leaving.popleft()

    def forget_thread(self, name: str) -> None:
        """Remove a thread, so that `join` does not wait for it, even if it is already waiting.

        By its name: if it has exited, another thread may have got its ident.
        """
        with self._lock:
            forgotten = tuple(thread for thread in tuple(self._threads) if thread.worker_name == name)
            self._threads.difference_update(forgotten)
            self._changed.notify_all()

    def add_current(self) -> None:
        """Add the calling thread again after `forget_thread`."""
        self._threads.add(threading.current_thread())  # type: ignore[arg-type]  # it is a PoolThread

    def clear_shortage(self) -> None:
        """Note that the pool retries starting all missing threads."""
        self._refused_seconds = None

    def note_shortage(self) -> None:
        """Note that a thread could not start, to retry later."""
        now = monotonic()
        self._is_shortage_new |= now > self._last_refused_seconds + _NEWS_SECONDS
        self._refused_seconds = self._last_refused_seconds = now

    def take_shortage_news(self) -> bool:
        """Return whether to log the shortage: True once, however often the system refuses threads during it."""
        news, self._is_shortage_new = self._is_shortage_new, False
        return news

    @property
    def has_shortage(self) -> bool:
        """Whether threads are missing that could not start."""
        return self._refused_seconds is not None

    @property
    def may_start(self) -> bool:
        """Whether a thread may start now: not for a while after one could not."""
        return not self.get_retry_delay()

    def get_retry_delay(self) -> float | None:
        """Return the seconds until the next retry; None: no thread is missing."""
        refused = self._refused_seconds
        return None if refused is None else max(0.0, refused + _RETRY_SECONDS - monotonic())

    def has_current(self) -> bool:
        """Return whether the calling thread is one of these."""
        return threading.current_thread() in self._threads

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Join all threads but the caller, including those that start meanwhile. Return whether all have exited.

        If one of these threads calls this without a timeout, it returns False at once, since another may be waiting for
        it.
        """
        if timeout_seconds is None and self.has_current():
            return False
        me = threading.get_ident()
        end = math.inf if timeout_seconds is None else monotonic() + timeout_seconds
        with self._lock:
            if not self._changed.wait_for(lambda: not self._has_others(me), _left(end)):
                return False
            leaving = tuple(thread for thread in _list_alive(self._leaving) if thread.ident != me)
        for thread in leaving:
            thread.join(_left(end))
        return not any(thread.is_alive() for thread in leaving)

    def _has_others(self, me: int) -> bool:
        """Return whether a thread other than `me`, an identifier, is starting or working; under the lock."""
        if any(starter != me for starter in self._starting.values()):
            return True
        return any(thread.ident != me for thread in _list_alive(self._threads))


def _list_alive(threads: Iterable[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in tuple(threads) if thread.is_alive()]


def _left(end: float) -> float | None:
    """Return the seconds until `end`: 0 if it has passed, None if there is no end."""
    return None if math.isinf(end) else max(0.0, end - monotonic())
