"""Measure how a run uses each pool: its sizes, and its worker time until its last task has ended."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from msgspec import Struct, field

from paropt_exporter.events import PoolUse
from paropt_exporter.executors.counters import TimedPool, WorkerTime, get_worker_time


class _Use(Struct):
    """A pool's sizes in this run, and its worker time when the run began and when its last task had ended."""

    pool: TimedPool
    start: int
    peak: int
    reason: str
    began: WorkerTime
    rested: WorkerTime | None = None
    running: set[Future[Any]] = field(default_factory=set)


class PoolUses:
    """The uses of the pools that a run has used so far. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: _uses
        self._uses: dict[str, _Use] = {}

    def __contains__(self, pool: str) -> bool:
        return pool in self._uses

    def pools(self) -> tuple[str, ...]:
        return tuple(self._uses)

    def clear(self) -> None:
        """Forget the previous run."""
        with self._lock:
            self._uses.clear()

    def note_size(self, name: str, pool: TimedPool, size: int, reason: str) -> None:
        """Note the size of a pool; its use begins with the first size."""
        use = self._uses.get(name)
        if use is None:
            began = get_worker_time(pool)
            with self._lock:
                self._uses[name] = _Use(pool, size, size, reason, began, rested=began)  # it has no task yet
        elif size > use.peak:
            use.peak, use.reason = size, reason

    def add_task(self, name: str, future: Future[Any]) -> None:
        """Count a task into its pool's use until it has ended."""
        with self._lock:
            use = self._uses[name]
            use.running.add(future)
            use.rested = None
        future.add_done_callback(lambda done: self._end_task(use, done))

    def build_records(self) -> tuple[PoolUse, ...]:
        """Return the use of each pool, with its worker time until its last task ended."""
        with self._lock:
            return tuple(_build_record(name, use) for name, use in self._uses.items())

    def _end_task(self, use: _Use, future: Future[Any]) -> None:
        with self._lock:
            use.running.discard(future)
            _note_rest(use)


def _build_record(name: str, use: _Use) -> PoolUse:
    use.running = {future for future in use.running if not future.done()}
    _note_rest(use)
    until = get_worker_time(use.pool) if use.rested is None else use.rested
    return PoolUse(
        name=name,
        start_size=use.start,
        peak_size=use.peak,
        reason=use.reason,
        busy_seconds=until.busy_seconds - use.began.busy_seconds,
        slot_seconds=until.slot_seconds - use.began.slot_seconds,
    )


def _note_rest(use: _Use) -> None:
    """Note the worker time of a pool once its last task has ended."""
    if not use.running and use.rested is None:
        use.rested = get_worker_time(use.pool)
