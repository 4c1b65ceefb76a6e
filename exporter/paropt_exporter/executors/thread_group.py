"""The threads of one pool: those on their way, those at work, and when to ask the system for more of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

_ASK_AGAIN_SECONDS = 1.0  # after the system gave no thread or no descriptors


class PoolThread(threading.Thread):
    """A worker thread of one of this package's pools."""


def list_pool_threads() -> tuple[int, ...]:
    """Return the native ids of all pools' threads."""
    return tuple(
        thread.native_id
        for thread in threading.enumerate()
        if isinstance(thread, PoolThread) and thread.native_id is not None
    )


class ThreadGroup:
    """Starts daemon threads for a pool, and waits for their end.

        expect() ──> on its way ──start()──> at work ──leave()──> gone
                          └──(the system gives none)───────────────^

    Guarantees:
      * A thread that was expected before the pool was closed is joined, whichever thread is starting it.
      * Whoever is interrupted in the middle of a start, and shuts the pool down then, does not wait for that start.
      * Any thread may call, at any point of its own code: the lock is reentrant, and nothing blocks under it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards: everything below; its lock is reentrant
        self._threads: set[threading.Thread] = set()
        self._starting: dict[str, int] = {}  # by name: the ident of who starts it
        self._refused_seconds: float | None = None  # when the system would give no more; None: all are there

    def announce(self, name: str) -> None:
        """Announce a thread, before anyone can close the pool unaware of it."""
        with self._changed:
            self._starting[name] = threading.get_ident()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Start a thread that was expected. RuntimeError when the system gives none."""
        thread = PoolThread(target=work, name=name, daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.discard(thread)
            raise
        finally:
            with self._changed:
                self._starting.pop(name, None)
                self._changed.notify_all()

    def remove_current(self) -> None:
        """Take the calling thread off the books, as the last thing that it does."""
        self._threads.discard(threading.current_thread())

    def forget_thread(self, ident: int) -> None:
        """Take a thread off the books that nobody shall wait for."""
        for thread in tuple(self._threads):
            if thread.ident == ident:
                self._threads.discard(thread)

    def clear_shortage(self) -> None:
        """Note that the system is asked for more now."""
        self._refused_seconds = None

    def note_shortage(self) -> None:
        """Note that the system gave no more: it is asked again later."""
        self._refused_seconds = monotonic()

    @property
    def has_shortage(self) -> bool:
        """Whether some are missing that the system would not give."""
        return self._refused_seconds is not None

    def get_retry_delay(self) -> float | None:
        """Return how long to wait before the system is asked again; None: for ever."""
        refused = self._refused_seconds
        return None if refused is None else max(0.0, refused + _ASK_AGAIN_SECONDS - monotonic())

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait for all threads but the caller, and say whether all have gone. None may be expected any more."""
        me = threading.get_ident()
        end = None if timeout_seconds is None else monotonic() + timeout_seconds
        with self._changed:
            self._changed.wait_for(lambda: all(starter == me for starter in self._starting.values()), timeout_seconds)
        threads = [thread for thread in tuple(self._threads) if thread.ident not in (None, me)]
        for thread in threads:  # those that go meanwhile leave the set
            thread.join(None if end is None else max(0.0, end - monotonic()))
        return not any(thread.is_alive() for thread in threads)
