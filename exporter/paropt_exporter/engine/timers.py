"""Moments at which the engine has something to look at."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Timers:
    """Actions due at monotonic moments; an action looks for itself whether its reason still holds.

    Guarantees: actions fire in the order of their moments, those of one moment in the order in which they were set.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    @property
    def next_moment(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def at(self, moment: float | None, action: Callable[[], None]) -> None:
        """Set an action; None is a moment that never comes."""
        if moment is not None:
            heapq.heappush(self._heap, (moment, next(self._ticket), action))

    def fire(self, now: float) -> None:
        """Run what is due, what those actions set for `now` or earlier included."""
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
