"""The counters of a pool and its workers, the statistics built from them, and the worker time of batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct, field

from paropt_exporter.clock import SystemClock
from paropt_exporter.events import PoolStatistics, Result
from paropt_exporter.executors.base import RESIZE_REASONS, check_label


class WorkerCounters:
    """Plain numbers that one worker writes and other threads only read: the hot path takes no lock.

    Not a Struct: writing an attribute of one takes twice as long, 50 ns, and each task does it twice.
    """

    __slots__ = ("busy_seconds", "cancelled", "errors", "failed", "succeeded")

    def __init__(self) -> None:
        self.succeeded = self.failed = self.errors = self.cancelled = 0
        self.busy_seconds = 0.0

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


class PoolSnapshot(Struct, frozen=True, kw_only=True):
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
    running: int | None = None  # tasks, if a worker may have several


class PoolCounters:
    """The totals of a pool: of exited workers, of worker deaths and of resizes. Callers hold the pool's lock.

    Guarantees:
      * A total never decreases from one call of `build_statistics` to the next, though workers run meanwhile.
      * `submitted` is the sum of queued, running and ended tasks. It is exact at rest, and costs submit() nothing.
    """

    def __init__(self, name: str) -> None:
        check_label("the name of a pool", name)
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
        between the two reads is then missed once instead of counted twice.
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


class TimedPool(Protocol):
    """A pool whose worker time can be read."""

    @property
    def name(self) -> str: ...

    @property
    def busy(self) -> int: ...

    def statistics(self) -> PoolStatistics: ...


class WorkerTime(Struct, frozen=True):
    """Worker time in seconds: busy, and available."""

    busy_seconds: float = 0.0
    slot_seconds: float = 0.0

    def __add__(self, other: WorkerTime) -> WorkerTime:
        return WorkerTime(self.busy_seconds + other.busy_seconds, self.slot_seconds + other.slot_seconds)

    def __sub__(self, other: WorkerTime) -> WorkerTime:
        return WorkerTime(self.busy_seconds - other.busy_seconds, self.slot_seconds - other.slot_seconds)

    @property
    def ratio(self) -> float:
        return min(1.0, max(0.0, self.busy_seconds / self.slot_seconds)) if self.slot_seconds > 0 else 0.0


class WorkerTimeMeter(Struct):
    """The worker time of consecutive batches of work. In each, a pool counts until its own last task has ended.

    begin() ──> note_idle() after each task ──> end() ──> begin() ...

    So the threads of an ADAPTIVE pool don't count as available after the work has moved to processes. Not thread-safe:
    the caller's lock must protect it.
    """

    total: WorkerTime = WorkerTime()
    _at_start: dict[str, WorkerTime] | None = None  # None: between batches
    _at_idle: dict[str, WorkerTime] = field(default_factory=dict)

    def begin(self, pools: Sequence[TimedPool]) -> None:
        """Start a batch."""
        self._at_start = {pool.name: get_worker_time(pool) for pool in pools}
        self._at_idle = {}

    def note_idle(self, pools: Sequence[TimedPool]) -> None:
        """Note which pools are idle; call it when a task has ended."""
        for pool in pools:
            if pool.busy == 0:
                self._at_idle[pool.name] = get_worker_time(pool)

    def get_total(self, pools: Sequence[TimedPool]) -> WorkerTime:
        """Return the worker time of all batches, including the current one so far."""
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

    def end(self, pools: Sequence[TimedPool]) -> None:
        """End the batch."""
        self.total = self.get_total(pools)
        self._at_start = None


def get_worker_time(pool: TimedPool) -> WorkerTime:
    """Return the worker time of a pool since its start."""
    read: Callable[[], WorkerTime] | None = getattr(pool, "get_worker_time", None)
    if read is not None:  # not `statistics()`, which reads /proc
        return read()
    statistics = pool.statistics()
    return WorkerTime(statistics.busy_seconds, statistics.slot_seconds)
