"""Adds up how long a pool's workers were there and how long they were busy, over the times when there was work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from paropt_exporter.events import PoolStatistics


class HasStatistics(Protocol):
    """What is needed of a pool of one kind."""

    @property
    def name(self) -> str: ...

    @property
    def busy(self) -> int: ...

    def statistics(self) -> PoolStatistics: ...


@dataclass(frozen=True, slots=True)
class Use:
    """Worker time: busy, and there to be used."""

    busy_seconds: float = 0.0
    slot_seconds: float = 0.0

    def __add__(self, other: Use) -> Use:
        return Use(self.busy_seconds + other.busy_seconds, self.slot_seconds + other.slot_seconds)

    def __sub__(self, other: Use) -> Use:
        return Use(self.busy_seconds - other.busy_seconds, self.slot_seconds - other.slot_seconds)

    @property
    def ratio(self) -> float:
        return min(1.0, max(0.0, self.busy_seconds / self.slot_seconds)) if self.slot_seconds > 0 else 0.0


@dataclass(slots=True)
class SlotTimes:
    """Worker time of one batch after another; a pool of one kind counts until its own last task.

    begin() ──> rested() when one kind of worker runs out of work ──> end() ──> begin() ...

    An ADAPTIVE pool's threads, which idle once the work has moved to processes, so are not held against it. Not
    thread-safe: its owner's lock covers it.
    """

    total: Use = Use()
    _began: dict[str, Use] | None = None  # None: between batches
    _rested: dict[str, Use] = field(default_factory=dict)

    def begin(self, pools: Sequence[HasStatistics]) -> None:
        self._began = {pool.name: use_of(pool) for pool in pools}
        self._rested = {}

    def rested(self, pools: Sequence[HasStatistics]) -> None:
        """Note the pools that are through with their work; to be called when a task has ended."""
        for pool in pools:
            if pool.busy == 0:
                self._rested[pool.name] = use_of(pool)

    def now(self, pools: Sequence[HasStatistics]) -> Use:
        """Return the total with the batch so far."""
        found = self.total
        if self._began is None:
            return found
        for pool in pools:
            began, rested, use = self._began.get(pool.name, Use()), self._rested.get(pool.name), use_of(pool)
            if rested is not None and use.busy_seconds <= rested.busy_seconds:
                use = rested
            if use.busy_seconds > began.busy_seconds:
                found += use - began
        return found

    def end(self, pools: Sequence[HasStatistics]) -> None:
        self.total = self.now(pools)
        self._began = None


def use_of(pool: HasStatistics) -> Use:
    """Return a pool's worker time since it was made."""
    statistics = pool.statistics()
    return Use(statistics.busy_seconds, statistics.slot_seconds)
