"""SIGINT and SIGTERM: the first ends a run politely, the second at once; while nothing runs, either ends the wait."""

from __future__ import annotations

import queue
import signal
from types import FrameType
from typing import Protocol

_WAKE = 0  # no signal has this number
_WATCHED = (signal.SIGINT, signal.SIGTERM)


class Stoppable(Protocol):
    """What a signal may end."""

    def interrupt(self, reason: str, *, now: bool) -> None: ...


class Signals:
    """The process's stop signals; `with Signals() as signals:` on the main thread, the old handlers come back after.

    Guarantees: a signal is never lost: during a run it reaches the run, one that came before reaches the next run, and
    each ends a `wait`; the handler only posts to a queue that may be interrupted by its own thread.
    """

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._running: Stoppable | None = None
        self._during_run = 0
        self._previous: dict[int, object] = {}
        self.number: int | None = None

    @property
    def interrupted_run(self) -> bool:
        """Whether a signal came while something ran."""
        return self._during_run > 0

    def __enter__(self) -> Signals:
        for number in _WATCHED:
            self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave, it takes back

    def during(self, running: Stoppable | None) -> None:
        """Send signals to `running` from now on; None: nothing runs."""
        self._running = running
        if running is not None and self.number is not None:
            self._pass_on(self.number)

    def wait(self, seconds: float | None) -> bool:
        """Wait for a signal, at most `seconds` (None: for ever); whether one came, also one that came before."""
        try:
            return self._arrived.get(timeout=seconds) != _WAKE
        except queue.Empty:
            return False

    def wake(self) -> None:
        """End the `wait` that goes on, or the next one, as if its time were over; from any thread."""
        self._arrived.put(_WAKE)

    def _take(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        self._arrived.put(number)
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._running is not None:
            self._during_run += 1
            name = signal.Signals(number).name
            self._running.interrupt(f"interrupted by {name}", now=self._during_run > 1)
