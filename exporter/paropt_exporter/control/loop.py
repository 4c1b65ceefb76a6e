"""The inner loop: while a lane runs, look at its own counters and move its size between the config's bounds."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from paropt_exporter.clock import Clock
from paropt_exporter.control.policy import Load, Sizing, closed_size
from paropt_exporter.control.shares import ShareMeter
from paropt_exporter.control.standing import ACT, PIN, Standing
from paropt_exporter.engine import Demand
from paropt_exporter.records import Decision, Event, RunningTask

TICK_SECONDS = 0.03  # lanes of a few seconds gain nothing from a slower eye; one look costs about 0.1 ms
STABLE_SECONDS = 10.0  # a smaller size must have been enough for this long before workers are given back
_RESERVE_BYTES = 256 << 20  # memory that no new worker may take


class Steerable(Protocol):
    """What the loop needs of a run."""

    @property
    def size(self) -> int: ...

    def demand(self) -> Demand: ...

    def resize(self, size: int) -> None: ...


class Resizable(Protocol):
    """What the loop needs of the pools."""

    def running(self) -> tuple[RunningTask, ...]: ...

    def shares(self, size: int) -> Mapping[str, int]:
        """Return what each pool of the lane would get of a lane of `size`."""

    def share(self, size: int, reason: str) -> tuple[tuple[str, int, int], ...]:
        """Set the pools' targets for a lane of `size`; return (pool, old, new) for each that changed."""


class InnerLoop:
    """Steers one run from a thread of its own; `with InnerLoop(...):` around the run.

    Guarantees: it alone writes the run's size; no move down within STABLE_SECONDS of a moment that needed more; each
    change is told as a Decision for each pool that it moved.
    """

    def __init__(
        self,
        run: Steerable,
        pools: Resizable,
        *,
        standing: Standing,
        cores: Callable[[], float],
        memory_available_bytes: Callable[[], int],
        emit: Callable[[Event], None],
        clock: Clock,
        run_id: str,
        known_shares: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._run = run
        self._pools = pools
        self._standing = standing
        self._cores = cores
        self._memory = memory_available_bytes
        self._emit = emit
        self._clock = clock
        self._run_id = run_id
        self._peak = 0
        self._meter = ShareMeter(known_shares)
        self._wanted: deque[tuple[float, int]] = deque()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="paropt-control", daemon=True)

    def __enter__(self) -> InnerLoop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        # What the next run wants to know is how much this one could use, not how little was left at its end.
        self._standing.recommend(self._pools.shares(self._peak or self._run.size))

    def _loop(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            self.step()

    def step(self) -> None:
        """Look once and move if there is reason to."""
        now = self._clock.monotonic()
        self._meter.look(self._pools.running(), now)
        sizing = self._sizing()
        self._wanted.append((now, sizing.size))
        while self._wanted[0][0] < now - STABLE_SECONDS:
            self._wanted.popleft()
        # Up at once, down only to what the last seconds needed at most.
        size = max(size for _, size in self._wanted)
        self._peak = max(self._peak, size)
        self._standing.recommend(self._pools.shares(size))
        order = self._standing.order
        if order.mode == PIN and order.size is not None:
            size, sizing = order.size, Sizing(size=order.size, reason="pinned")
        if size != self._run.size and order.mode in (ACT, PIN):
            self._move(size, sizing.reason)

    def _sizing(self) -> Sizing:
        demand, band = self._run.demand(), self._standing.band
        return closed_size(
            [
                Load(pool=pool, stage=stage, share=self._meter.of_task(label))
                for pool, stage, label, _ in demand.running
            ],
            [Load(pool=pool, stage=stage, share=self._meter.of_stage(stage)) for pool, stage in demand.ready],
            cores=self._cores(),
            minimum=band.floor,
            maximum=band.ceiling,
            memory_is_short=self._memory() < _RESERVE_BYTES,
        )

    def _move(self, size: int, reason: str) -> None:
        reason = "demand" if size > self._run.size and reason != "pinned" else reason
        changed = self._pools.share(size, reason)
        self._run.resize(size)
        for pool, old, new in changed:
            self._emit(
                Decision(
                    pool=pool,
                    action="up" if new > old else "down",
                    reason=reason,
                    old_size=old,
                    new_size=new,
                    at_timestamp_seconds=self._clock.wall(),
                    run_id=self._run_id,
                )
            )
