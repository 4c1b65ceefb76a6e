"""The counters of a pool and its workers, and the statistics built from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType

from paropt_exporter.clock import SystemClock
from paropt_exporter.events import PoolStatistics, Result
from paropt_exporter.executors.base import RESIZE_REASONS


@dataclass(slots=True)
class WorkerCounters:
    """Plain numbers that one worker writes and other threads only read: the hot path takes no lock."""

    succeeded: int = 0
    failed: int = 0
    errors: int = 0
    cancelled: int = 0
    busy_seconds: float = 0.0

    def add(self, other: WorkerCounters) -> None:
        self.succeeded += other.succeeded
        self.failed += other.failed
        self.errors += other.errors
        self.cancelled += other.cancelled
        self.busy_seconds += other.busy_seconds

    def count_by_result(self) -> dict[str, int]:
        counts = (self.succeeded, self.failed, self.errors, self.cancelled)
        results = (Result.SUCCESS, Result.FAILURE, Result.ERROR, Result.CANCELLATION)
        return dict(zip((result.value for result in results), counts, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSnapshot:
    """A pool's workers and queue at one moment. Totals are of live workers only."""

    target: int
    live: int
    busy: int
    starting: int
    queued: int
    oldest_queued_age_seconds: float
    slot_seconds: float
    cpu_seconds: float
    run_delay_seconds: float
    running: int | None = None  # tasks, where workers may hold several


class PoolCounters:
    """The totals of a pool: of exited workers, of worker deaths and of resizes. Callers hold the pool's lock.

    Guarantees:
      * A total never decreases from one call of `build_statistics` to the next, though workers run meanwhile.
      * `submitted` is the sum of queued, running and ended tasks: exact at rest, and it costs submit() nothing.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.exited = WorkerCounters()
        self.slot_seconds = 0.0
        self.cpu_seconds = 0.0
        self.run_delay_seconds = 0.0
        self.deaths: Counter[str] = Counter()
        self._resizes: Counter[tuple[str, str]] = Counter()
        self._epoch_timestamp_seconds = SystemClock().wall()
        self._highest: dict[str, float] = {}

    def count_resize(self, old: int, new: int, reason: str) -> None:
        if reason not in RESIZE_REASONS:
            raise ValueError(f"resize reason {reason!r}: expected one of {', '.join(RESIZE_REASONS)}")
        if new != old:
            self._resizes["up" if new > old else "down", reason] += 1

    def build_statistics(self, snapshot: PoolSnapshot, workers: WorkerCounters, busy_seconds: float) -> PoolStatistics:
        """Build the statistics. Read `workers`, the counters of live workers, before `snapshot`: a task that ends
        between the two is then missed once, not counted twice.
        """
        workers.add(self.exited)
        finished = {result: int(self._at_least(result, count)) for result, count in workers.count_by_result().items()}
        draining = min(snapshot.busy, max(0, snapshot.live - snapshot.target))
        busy = snapshot.busy - draining
        running = snapshot.busy if snapshot.running is None else snapshot.running
        submitted = sum(finished.values()) + running + snapshot.queued
        return PoolStatistics(
            name=self.name,
            target=snapshot.target,
            live=snapshot.live,
            busy=busy,
            idle=snapshot.live - snapshot.busy,
            starting=snapshot.starting,
            draining=draining,
            queued=snapshot.queued,
            oldest_queued_age_seconds=snapshot.oldest_queued_age_seconds,
            submitted=int(self._at_least("submitted", submitted)),
            busy_seconds=self._at_least("busy_seconds", workers.busy_seconds + busy_seconds),
            slot_seconds=self._at_least("slot_seconds", self.slot_seconds + snapshot.slot_seconds),
            cpu_seconds=self._at_least("cpu_seconds", self.cpu_seconds + snapshot.cpu_seconds),
            run_delay_seconds=self._at_least("run_delay_seconds", self.run_delay_seconds + snapshot.run_delay_seconds),
            epoch_timestamp_seconds=self._epoch_timestamp_seconds,
            finished=MappingProxyType(finished),
            resizes=MappingProxyType(dict(self._resizes)),
            deaths=MappingProxyType(dict(self.deaths)),
        )

    def _at_least(self, name: str, value: float) -> float:
        highest = self._highest[name] = max(value, self._highest.get(name, 0))
        return highest
