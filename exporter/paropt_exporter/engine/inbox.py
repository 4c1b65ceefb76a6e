"""The engine's one place to wait, for messages from workers and signals and for timers."""

from __future__ import annotations

import heapq
import itertools
import queue
from collections.abc import Callable
from typing import Protocol

from paropt_exporter.clock import Clock

# The longest single wait; a lock in CPython takes no timeout beyond about 292 years.
_LONGEST_WAIT_SECONDS = 3600.0


class Inbox(Protocol):
    """The queue on which the engine waits. A fake's clock jumps to `until` when no earlier message is due."""

    def post(self, message: object) -> None:
        """Add a message; from any thread and from signal handlers."""

    def receive(self, until: float | None) -> list[object]:
        """Wait for messages until the monotonic moment `until` (None: without end); return all that there are."""


class QueueInbox:
    """An inbox on a `SimpleQueue`, whose `put` may interrupt its own `get`, so that signal handlers may post."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()

    def post(self, message: object) -> None:
        self._queue.put(message)

    def receive(self, until: float | None) -> list[object]:
        messages: list[object] = []
        try:
            messages.append(self._queue.get(timeout=self._get_timeout(until)))
            while True:
                messages.append(self._queue.get_nowait())
        except queue.Empty:
            return messages

    def _get_timeout(self, until: float | None) -> float:
        if until is None:
            return _LONGEST_WAIT_SECONDS
        return min(_LONGEST_WAIT_SECONDS, max(0.0, until - self._clock.monotonic()))


class Timers:
    """Actions due at monotonic moments. An action checks for itself whether its reason still holds.

    Guarantees: actions fire in the order of their moments; actions of one moment in the order in which they were
    scheduled.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    @property
    def next_moment(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def schedule(self, moment: float | None, action: Callable[[], None]) -> None:
        """Schedule an action; None is a moment that never comes."""
        if moment is not None:
            heapq.heappush(self._heap, (moment, next(self._ticket), action))

    def fire(self, now: float) -> None:
        """Run the due actions, including those that they schedule for `now` or earlier."""
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
