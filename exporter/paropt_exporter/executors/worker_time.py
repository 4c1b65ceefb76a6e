"""Add up how long the workers of pools existed and were busy, while the pools had work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from paropt_exporter.events import PoolStatistics


class MeasuredPool(Protocol):
    """A pool whose worker time can be read."""

    @property
    def name(self) -> str: ...

    @property
    def busy(self) -> int: ...

    def statistics(self) -> PoolStatistics: ...


@dataclass(frozen=True, slots=True)
class WorkerTime:
    """Seconds of worker time: busy, and available."""

    busy_seconds: float = 0.0
    slot_seconds: float = 0.0

    def __add__(self, other: WorkerTime) -> WorkerTime:
        return WorkerTime(self.busy_seconds + other.busy_seconds, self.slot_seconds + other.slot_seconds)

    def __sub__(self, other: WorkerTime) -> WorkerTime:
        return WorkerTime(self.busy_seconds - other.busy_seconds, self.slot_seconds - other.slot_seconds)

    @property
    def ratio(self) -> float:
        return min(1.0, max(0.0, self.busy_seconds / self.slot_seconds)) if self.slot_seconds > 0 else 0.0


@dataclass(slots=True)
class WorkerTimeMeter:
    """The worker time of batches, one after another. Each pool counts until its own last task has ended.

    begin() ──> note_idle() after each task ──> end() ──> begin() ...

    So the threads of an ADAPTIVE pool do not count as available after the work has moved to processes. Not
    thread-safe: the caller's lock protects it.
    """

    total: WorkerTime = WorkerTime()
    _at_start: dict[str, WorkerTime] | None = None  # None: between batches
    _at_idle: dict[str, WorkerTime] = field(default_factory=dict)

    def begin(self, pools: Sequence[MeasuredPool]) -> None:
        """Start a batch."""
        self._at_start = {pool.name: get_worker_time(pool) for pool in pools}
        self._at_idle = {}

    def note_idle(self, pools: Sequence[MeasuredPool]) -> None:
        """Note which pools are idle; call it when a task has ended."""
        for pool in pools:
            if pool.busy == 0:
                self._at_idle[pool.name] = get_worker_time(pool)

    def get_total(self, pools: Sequence[MeasuredPool]) -> WorkerTime:
        """Return the worker time of all batches, with the current one so far."""
        total = self.total
        if self._at_start is None:
            return total
        for pool in pools:
            start, idle = self._at_start.get(pool.name, WorkerTime()), self._at_idle.get(pool.name)
            now = get_worker_time(pool)
            if idle is not None and now.busy_seconds <= idle.busy_seconds:
                now = idle
            if now.busy_seconds > start.busy_seconds:
                total += now - start
        return total

    def end(self, pools: Sequence[MeasuredPool]) -> None:
        """End the batch."""
        self.total = self.get_total(pools)
        self._at_start = None


def get_worker_time(pool: MeasuredPool) -> WorkerTime:
    """Return the worker time of a pool since its start."""
    statistics = pool.statistics()
    return WorkerTime(statistics.busy_seconds, statistics.slot_seconds)
