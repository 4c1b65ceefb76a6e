"""Steer executors: pools to which tasks may come at any time, sized each second by what their stream needs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from paropt_exporter import host
from paropt_exporter.autoscaling.decisions import serialize_decision, serialize_observation
from paropt_exporter.autoscaling.policy.budget import Budget, Claim
from paropt_exporter.autoscaling.policy.memory import (
    SPARE_BYTES,
    PoolMemory,
    compute_pool_memory_size,
    compute_shareable_bytes,
)
from paropt_exporter.autoscaling.policy.pool_size import (
    PoolDecision,
    PoolObservation,
    PoolSizingState,
    decide_pool_size,
)
from paropt_exporter.autoscaling.policy.queueing import Traffic, compute_traffic_size
from paropt_exporter.autoscaling.signals.local_counters import CounterHistory, sample_pool
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.cpu_demand import WAITING_DEMAND
from paropt_exporter.events import Decision, PoolStatistics, WorkerMemory

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0


def steer(
    *pools: Steerable,
    minimum: int = 1,
    maximum: int = 32,
    weights: Sequence[float] = (),
    critical: Collection[Steerable] = (),
) -> PoolController:
    """Size pools by their load for as long as the block lasts: `with ThreadPool(1) as pool, steer(pool, maximum=64):`.

    Each keeps between `minimum` and `maximum` workers. Where the machine's cores or memory are not enough for all,
    `critical` pools get theirs first, and the others by `weights` (one for each pool; all alike without). Raises
    ValueError for bounds that no size fits, and for weights that are not one positive number for each pool.
    """
    if not 1 <= minimum <= maximum:
        raise ValueError(f"minimum {minimum} and maximum {maximum}: expected 1 <= minimum <= maximum")
    weights = weights or (1.0,) * len(pools)
    if len(weights) != len(pools) or min(weights, default=1.0) <= 0:
        raise ValueError(f"weights {tuple(weights)} for {len(pools)} pools: expected one positive number for each")
    return PoolController(
        [
            PoolSettings(pool=pool, floor=minimum, ceiling=maximum, weight=weight, urgent=pool in critical)
            for pool, weight in zip(pools, weights, strict=True)
        ]
    )


class Steerable(Protocol):
    """What is steered: ThreadPool, ProcessPool."""

    @property
    def target(self) -> int: ...

    def resize(self, size: int, /, *, reason: str) -> None: ...

    def statistics(self) -> PoolStatistics: ...

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return what each worker has in memory; nothing where they have none of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """One pool with its bounds, and how it stands where there is not enough for all: `weight`, `urgent` ones first."""

    pool: Steerable
    floor: int
    ceiling: int
    weight: float = 1.0
    urgent: bool = False


@dataclass(slots=True, eq=False)
class _ManagedPool:
    """One pool with what is carried from one second to the next. `peak_bytes`: the most that a worker has used."""

    steering: PoolSettings
    counters: CounterHistory
    state: PoolSizingState
    peak_bytes: int = 0
    held: str = ""  # the reason to hold that was told last; "" since a move


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One pool at one moment. `wanted`: what its stream needs; `held_bytes`: what its workers have of their peaks."""

    pool: str
    steered: _ManagedPool
    size: int
    traffic: Traffic
    wanted: int
    cpu_demand: float | None
    held_bytes: int

    @property
    def growth_bytes(self) -> int:
        """What the workers that the pool was told to have may still take."""
        return max(0, self.size * self.steered.peak_bytes - self.held_bytes)

    @property
    def wanted_held_bytes(self) -> int:
        """What workers hold that are wanted: the others' is not there for anyone until they have gone."""
        return self.held_bytes * min(self.wanted, self.size) // max(1, self.size)

    def claim(self) -> Claim:
        steering = self.steered.steering
        return Claim(
            pool=self.pool,
            wanted=self.wanted,
            floor=steering.floor,
            cpu_demand=self.cpu_demand or 0.0,
            memory_bytes=self.steered.peak_bytes,
            weight=steering.weight,
            urgent=steering.urgent,
        )


class PoolController:
    """Steers executors from one thread; `with StreamLoop(...)`, or `step` on a clock of one's own.

        look at each pool --> one budget of cores and memory --> decide each pool's size --> resize, tell

    Guarantees: it alone resizes the pools; a pool's size stays within its bounds; each move is told as a Decision, and
    each new reason to hold; a fault in one second's look is logged and does not end the steering.
    """

    def __init__(
        self,
        pools: Sequence[PoolSettings],
        *,
        clock: Clock | None = None,
        cores: Callable[[], float] = host.count_cpus,
        memory_available_bytes: Callable[[], int] = host.read_available_memory_bytes,
        emit: Callable[[Decision], None] | None = None,
        known_service_seconds: float = 0.0,
    ) -> None:
        self._steered = [
            _ManagedPool(
                steering=steering,
                counters=CounterHistory(known_service_seconds=known_service_seconds),
                state=PoolSizingState(),
            )
            for steering in pools
        ]
        self._clock = clock or SystemClock()
        self._cores = cores
        self._memory = memory_available_bytes
        self._emit = emit
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="paropt-steering", daemon=True)

    def __enter__(self) -> PoolController:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            try:
                self.step()
            except (
                Exception
            ):  # the loop's boundary: a pool that is shut down meanwhile must not end the others' steering
                log.exception("steering failed for one look")

    def step(self) -> None:
        """Look at each pool once and move it if there is reason to; all within one budget of cores and memory."""
        now, cores, available = self._clock.monotonic(), self._cores(), self._memory()
        looks = [self._look(place, steered, now, cores) for place, steered in enumerate(self._steered)]
        budget = _budget(looks, cores, available)
        growth = sum(look.growth_bytes for look in looks)
        for look in looks:
            memory = _left(look, available, growth) if available else None
            self._move(look.steered, _situation(look, now, cores, memory, budget))

    def _look(self, place: int, steered: _ManagedPool, now: float, cores: float) -> _Look:
        steering, counters = steered.steering, steered.counters
        pool = steering.pool
        statistics, workers = pool.statistics(), pool.worker_memory()
        counters.look(sample_pool(statistics, now))
        if statistics.draining:
            counters.moved()  # what ends now was begun among more workers, and is no sample of this size
        steered.peak_bytes = max([steered.peak_bytes, *(worker.peak_bytes for worker in workers)])
        traffic = counters.traffic()
        return _Look(
            pool=f"{statistics.name} {place + 1}",
            steered=steered,
            size=statistics.target,
            traffic=traffic,
            wanted=min(max(compute_traffic_size(traffic), steering.floor), steering.ceiling),
            cpu_demand=counters.cpu_demand(cores),
            held_bytes=sum(min(worker.now_bytes, steered.peak_bytes) for worker in workers),
        )

    def _move(self, steered: _ManagedPool, observation: PoolObservation) -> None:
        choice = decide_pool_size(observation)
        steered.state = choice.state
        if choice.size != observation.size:
            steered.steering.pool.resize(choice.size, reason=choice.reason)
            steered.counters.moved()
        self._tell(steered, observation, choice)

    def _tell(self, steered: _ManagedPool, observation: PoolObservation, choice: PoolDecision) -> None:
        held = choice.reason if choice.action == "hold" else ""
        if self._emit is not None and (not held or held != steered.held):
            name = steered.steering.pool.statistics().name
            self._emit(_decision(name, observation, choice, self._clock.wall()))
        steered.held = held


def _budget(looks: Sequence[_Look], cores: float, available_bytes: int) -> Budget:
    """Return what the pools claim together; a pool that is alone finds its number of cores by itself."""
    held = sum(look.wanted_held_bytes for look in looks)
    return Budget(
        claims=tuple(look.claim() for look in looks),
        cores=cores if len(looks) > 1 else None,
        memory_bytes=compute_shareable_bytes(available_bytes, held) if available_bytes else None,
        spare_bytes=SPARE_BYTES,
    )


def _left(look: _Look, available_bytes: int, growth_bytes: int) -> PoolMemory:
    return PoolMemory(available_bytes=available_bytes, growth_bytes=growth_bytes, peak_bytes=look.steered.peak_bytes)


def _situation(look: _Look, now: float, cores: float, memory: PoolMemory | None, budget: Budget) -> PoolObservation:
    steered = look.steered
    return PoolObservation(
        now=now,
        size=look.size,
        floor=steered.steering.floor,
        ceiling=steered.steering.ceiling,
        traffic=look.traffic,
        cores=cores,
        cpu_demand=look.cpu_demand,
        cpu=steered.counters.cpu(),
        sample=steered.counters.sample,
        state=steered.state,
        memory=memory,
        pool=look.pool,
        budget=budget,
    )


def _decision(pool: str, observation: PoolObservation, choice: PoolDecision, at: float) -> Decision:
    terms = {
        "arrivals_per_second": observation.traffic.arrivals,
        "service_seconds": observation.traffic.service_seconds,
        "load_erlang": observation.traffic.load,
        "queued": float(observation.traffic.queued),
        "cores": observation.cores,
        "share": observation.cpu_demand if observation.cpu_demand is not None else WAITING_DEMAND,
        "floor": float(observation.floor),
        "ceiling": float(observation.ceiling),
    }
    if observation.memory is not None:
        terms["memory_available_bytes"] = float(observation.memory.available_bytes)
        terms["memory_peak_bytes"] = float(observation.memory.peak_bytes)
        if (most := compute_pool_memory_size(observation.size, observation.memory)) is not None:
            terms["memory_size"] = float(most)
    return Decision(
        pool=pool,
        action=choice.action,
        reason=choice.reason,
        old_size=observation.size,
        new_size=choice.size,
        at_timestamp_seconds=at,
        terms=terms,
        situation=serialize_observation(observation),
        choice=serialize_decision(choice),
    )
