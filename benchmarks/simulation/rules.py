"""The compared controllers: ours, and the published rules of Dask and KEDA, written from their papers.

Each has `step(now)`, called each second, and resizes one pool.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.policy.queueing import compute_workers
from paropt_exporter.autoscaling.pool_controller import PoolController, PoolSettings
from paropt_exporter.testing import FakeClock
from simulation.pool import SimulatedPool
from simulation.work import Rate


class Rule(Protocol):
    def step(self, now: float) -> None: ...


MakeRule = Callable[[SimulatedPool, int], Rule]
"""Creates a rule for a pool with a maximum size."""


class Ours:
    """The pool controller on the simulation's clock."""

    def __init__(self, pool: SimulatedPool, most: int, *, cores: float = 1000.0) -> None:
        self._clock = FakeClock()
        self._controller = PoolController(
            [PoolSettings(pool=pool, floor=1, ceiling=most)],
            clock=self._clock,
            host=HostReadings(
                cores=lambda: cores, memory_available_bytes=lambda: 1 << 40, memory_reserve_bytes=lambda: 0
            ),
        )

    def step(self, now: float) -> None:
        self._clock.now = now
        self._controller.step()


class Dask:
    """distributed's `adaptive_target` and `Adaptive`, with their defaults.

    target = min(tasks, ceil(occupancy / target_duration)), occupancy = tasks x mean duration, target_duration 5 s; a
    smaller target must stand for wait_count = 3 intervals of 1 s.
    """

    def __init__(self, pool: SimulatedPool, most: int) -> None:
        self._pool, self._most = pool, most
        self._smaller = 0

    def step(self, now: float) -> None:
        del now
        seen = self._pool.statistics()
        finished = sum(seen.finished.values())
        mean = seen.busy_seconds / finished if finished else 0.5  # its default for unknown tasks
        tasks = seen.queued + seen.busy
        target = min(tasks, max(1, math.ceil(tasks * mean / 5.0)))
        target = min(max(1, target), self._most)
        self._smaller = self._smaller + 1 if target < seen.target else 0
        if target > seen.target or self._smaller >= 3:
            self._smaller = 0
            self._pool.resize(target, reason="caller")


class Keda:
    """KEDA's Prometheus scaler on the HPA, with their defaults.

    Each 30 s: value = arrivals per second over 1 min x S, desired = ceil(value / 0.7 busy a worker), tolerance 10 %;
    up by 4 or 100 % each 15 s, down to the highest desired of the last 300 s. An empty answer counts as 0.
    """

    def __init__(self, pool: SimulatedPool, most: int) -> None:
        self._pool, self._most = pool, most
        self._samples: deque[tuple[float, int]] = deque()
        self._desired: deque[tuple[float, int]] = deque()

    def step(self, now: float) -> None:
        if round(now) % 15 != 0:
            return
        seen = self._pool.statistics()
        self._samples.append((now, seen.submitted))
        while self._samples[0][0] < now - 60:
            self._samples.popleft()
        if round(now) % 30 != 0:
            return
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        finished = sum(seen.finished.values())
        service = seen.busy_seconds / finished if finished else 0.0
        value = (after - before) / (last - first) * service if last > first else 0.0
        desired = max(1, math.ceil(value / 0.7))
        if abs(desired / seen.target - 1.0) <= 0.1:
            desired = seen.target
        self._desired.append((now, desired))
        while self._desired[0][0] < now - 300:
            self._desired.popleft()
        size = min(max(entry[1] for entry in self._desired), self._most)
        size = min(size, max(seen.target + 8, 4 * seen.target)) if size > seen.target else size
        if size != seen.target:
            self._pool.resize(size, reason="caller")


class Clairvoyant:
    """Knows the true rate and service time of each second, and keeps the intended wait with the fewest workers."""

    def __init__(self, pool: SimulatedPool, most: int, *, rate: Rate, service_seconds: float) -> None:
        self._pool, self._most, self._rate, self._service_seconds = pool, most, rate, service_seconds

    def step(self, now: float) -> None:
        load = max(self._rate(now), self._rate(now + 1.0 - 1e-9)) * self._service_seconds
        size = min(compute_workers(load), self._most)
        if size != self._pool.target:
            self._pool.resize(size, reason="caller")


class Fixed:
    """Keeps the pool's size."""

    def __init__(self, pool: SimulatedPool, most: int) -> None:
        del pool, most

    def step(self, now: float) -> None:
        del now


def simulate(pool: SimulatedPool, rule: Rule, *, until: float, tick: float = 1.0) -> None:
    """Let a rule size a pool until a moment."""
    ticks = round(until / tick)
    for number in range(ticks + 1):
        now = number * tick
        pool.advance(now)
        rule.step(now)
