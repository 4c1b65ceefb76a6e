"""The only place where the engine waits: for messages from workers and signals, and for timers."""

from __future__ import annotations

import itertools
import math
from bisect import insort
from collections.abc import Callable
from typing import Protocol

try:
    from _queue import Empty  # `queue` loads `heapq`, too
    from _queue import SimpleQueue as SimpleQueue  # noqa: PLC0414 -- for others, too
except ImportError:  # an interpreter without the C module
    from queue import Empty
    from queue import SimpleQueue as SimpleQueue  # noqa: PLC0414 -- for others, too

from paropt_exporter.clock import Clock

# The longest single wait; a lock in CPython takes no timeout beyond about 292 years.
_LONGEST_WAIT_SECONDS = 3600.0
# A timer this late shows that the exporter was stopped (SIGSTOP, Ctrl-Z) or starved, while the clock ran on. Results
# from that time get a moment to arrive before timeouts and limits are checked.
_LATE_SECONDS = 1.0
_NEWS_SECONDS = 1.0


class Inbox(Protocol):
    """The queue on which the engine waits. In a fake, the clock jumps to `until` if no earlier message is due."""

    def post(self, message: object) -> None:
        """Add a message; from any thread and from signal handlers."""

    def receive(self, until: float | None) -> list[object]:
        """Wait for messages until the monotonic moment `until` (None: forever); return all that have arrived."""


class QueueInbox:
    """An inbox with a `SimpleQueue`, whose `put` is safe in a signal handler that interrupts its `get`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: SimpleQueue[object] = SimpleQueue()

    def post(self, message: object) -> None:
        self._queue.put(message)

    def receive(self, until: float | None) -> list[object]:
        messages: list[object] = []
        try:
            messages.append(self._queue.get(timeout=self._get_timeout(until)))
            while True:
                messages.append(self._queue.get_nowait())
        except Empty:
            return messages

    def _get_timeout(self, until: float | None) -> float:
        if until is None:
            return _LONGEST_WAIT_SECONDS
        return min(_LONGEST_WAIT_SECONDS, max(0.0, until - self._clock.monotonic()))


class Timers:
    """Actions due at monotonic moments. Each action itself checks whether its reason still applies.

    Guarantees: actions fire in the order of their moments; actions of one moment in the order in which they were
    scheduled. After a pause of the whole process none fires before _NEWS_SECONDS are over.
    """

    def __init__(self) -> None:
        self._sorted: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()
        self._late_moment: float | None = None  # when the late timer was noticed
        self._resumes_at = -math.inf

    @property
    def next_moment(self) -> float | None:
        """When the next action fires; None if none is scheduled."""
        return max(self._sorted[0][0], self._resumes_at) if self._sorted else None

    def schedule(self, moment: float | None, action: Callable[[], None]) -> None:
        """Schedule an action; None is a moment that never comes."""
        if moment is not None:
            insort(self._sorted, (moment, next(self._ticket), action))

    def fire(self, now: float) -> None:
        """Run the due actions, including those that they schedule for `now` or earlier."""
        if not self._sorted:
            return
        due = self._sorted[0][0]
        if now > due + _LATE_SECONDS and due != self._late_moment:
            self._late_moment, self._resumes_at = due, now + _NEWS_SECONDS
        if now < self._resumes_at:
            return
        while self._sorted and self._sorted[0][0] <= now:
            self._sorted.pop(0)[2]()
