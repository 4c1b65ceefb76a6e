"""The engine's one place to wait: messages from workers, signals and timers, in order."""

from __future__ import annotations

import queue
from typing import Protocol

from paropt_exporter.clock import Clock

# The longest single wait: a lock in CPython takes no timeout beyond about 292 years, a signal wakes it anyway.
_LONGEST_WAIT_SECONDS = 3600.0


class Inbox(Protocol):
    """Where the engine waits. Tests bring one whose clock jumps to `until` when nothing is left to happen before."""

    def post(self, message: object) -> None:
        """Add a message; from any thread, also from a signal handler."""

    def receive(self, until: float | None) -> list[object]:
        """Wait for messages until the monotonic moment `until` (None: without end); return all there are."""


class QueueInbox:
    """Messages through a `SimpleQueue`, whose `put` may interrupt its own `get`: signal handlers post safely."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()

    def post(self, message: object) -> None:
        self._queue.put(message)

    def receive(self, until: float | None) -> list[object]:
        messages: list[object] = []
        try:
            messages.append(self._queue.get(timeout=self._patience(until)))
            while True:
                messages.append(self._queue.get_nowait())
        except queue.Empty:
            return messages

    def _patience(self, until: float | None) -> float:
        if until is None:
            return _LONGEST_WAIT_SECONDS
        return min(_LONGEST_WAIT_SECONDS, max(0.0, until - self._clock.monotonic()))
