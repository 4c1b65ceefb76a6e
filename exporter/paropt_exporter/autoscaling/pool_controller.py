"""Size pools whose tasks may arrive at any time, once a second, by queueing theory."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Sequence
from operator import index
from typing import Protocol, runtime_checkable

from msgspec import Struct

from paropt_exporter.autoscaling.decisions import serialize_decision, serialize_observation
from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.policy.budget import Budget, Claim
from paropt_exporter.autoscaling.policy.memory import (
    PoolMemory,
    compute_pool_memory_size,
    compute_shareable_bytes,
    compute_spare_bytes,
)
from paropt_exporter.autoscaling.policy.pool_size import (
    PoolDecision,
    PoolObservation,
    PoolSizingState,
    decide_pool_size,
)
from paropt_exporter.autoscaling.policy.queueing import Traffic, compute_traffic_size
from paropt_exporter.autoscaling.signals.local_counters import CounterHistory, sample_counters
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.cpu_demand import WAITING_DEMAND, task_cpu_demand
from paropt_exporter.events import Decision, PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors.demand import FULL_LOCK_CORES

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0


def steer(
    *pools: ResizablePool,
    minimum: int = 1,
    maximum: int = 32,
    weights: Sequence[float] = (),
    critical: Collection[ResizablePool] = (),
) -> PoolController:
    """Size pools by their load within a `with` block: `with ThreadPool(1) as pool, steer(pool, maximum=64):`.

    Each pool keeps between `minimum` and `maximum` workers. If the machine's cores or memory do not suffice for all,
    `critical` pools get their workers first, and the others share the rest by `weights` (one for each pool; by default
    equal). Raises ValueError unless 1 <= minimum <= maximum, each pool is given once, critical ones are among them, and
    there is one positive weight for each; TypeError without any pool, and for pools that size themselves.
    """
    if not pools:
        raise TypeError("no pool to steer: expected a ThreadPool or a ProcessPool")
    for pool in pools:
        if not isinstance(pool, ResizablePool):
            raise TypeError(f"{pool!r} can't be steered: expected a ThreadPool or a ProcessPool")
    minimum, maximum = index(minimum), index(maximum)  # TypeError for half of the cores
    if not 1 <= minimum <= maximum:
        raise ValueError(f"minimum {minimum} and maximum {maximum}: expected 1 <= minimum <= maximum")
    weights = weights or (1.0,) * len(pools)
    if len(weights) != len(pools) or not all(0 < weight < math.inf for weight in weights):
        raise ValueError(f"weights {tuple(weights)}, pools {len(pools)}: expected one positive number for each pool")
    for pool in (*pools, *critical):
        if sum(pool is other for other in pools) != 1:
            raise ValueError(f"{pool!r}: expected each pool once, and critical ones among them")
    return PoolController(
        [
            PoolSettings(pool=pool, floor=minimum, ceiling=maximum, weight=weight, urgent=pool in critical)
            for pool, weight in zip(pools, weights, strict=True)
        ]
    )


@runtime_checkable
class ResizablePool(Protocol):
    """A pool that the controller can size: ThreadPool, ProcessPool."""

    @property
    def target(self) -> int: ...

    def resize(self, size: int, /, *, reason: str) -> None: ...

    def statistics(self) -> PoolStatistics: ...

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return the memory of each worker; nothing for threads, which have no memory of their own."""

    def running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks, with the core time of their child processes."""


class PoolSettings(Struct, frozen=True, kw_only=True):
    """A pool with its bounds. If resources are scarce, `urgent` pools get theirs first and others share by `weight`."""

    pool: ResizablePool
    floor: int
    ceiling: int
    weight: float = 1.0
    urgent: bool = False


class _ManagedPool(Struct, eq=False):
    """A pool with its state from tick to tick. `peak_bytes`: the most memory that one of its workers has used.

    `children_demand`: the last measured CPU demand of a task with its child processes, in cores.
    """

    settings: PoolSettings
    counters: CounterHistory
    state: PoolSizingState
    peak_bytes: int = 0
    children_demand: float = 0.0
    was_draining: bool = False  # at the last tick, or since a move down in it
    # how many tasks have ended before service times are only of tasks that began at the present size
    counts_from: int = 0
    reported_hold: str = ""  # the reason of the last hold that was emitted; "" after a resize


class _PoolSample(Struct, frozen=True, kw_only=True):
    """A pool at one moment. `wanted`: the size for its traffic; `held_bytes`: how much of their peaks workers hold.

    A pool without any worker, such as one that was shut down, takes no cores and no memory.
    """

    pool: str
    managed: _ManagedPool
    size: int
    traffic: Traffic
    wanted: int
    cpu_demand: float | None
    peak_bytes: int
    held_bytes: int

    @property
    def growth_bytes(self) -> int:
        """The memory that workers up to the target size may still take."""
        return max(0, self.size * self.peak_bytes - self.held_bytes)

    @property
    def wanted_held_bytes(self) -> int:
        """The memory that wanted workers hold; surplus workers' memory is unavailable until they have exited."""
        return self.held_bytes * min(self.wanted, self.size) // max(1, self.size)

    def build_claim(self) -> Claim:
        settings = self.managed.settings
        return Claim(
            pool=self.pool,
            wanted=self.wanted,
            floor=settings.floor,
            cpu_demand=self.cpu_demand or 0.0,
            memory_bytes=self.peak_bytes,
            weight=settings.weight,
            urgent=settings.urgent,
        )


class PoolController:
    """Sizes pools from one thread; `with PoolController(...)`, or call `step` with a clock of your own.

        sample each pool --> one budget of cores and memory --> decide each pool's size --> resize, emit

    Guarantees: only the controller resizes the pools; a pool's size stays within its bounds; each resize and each new
    reason to hold emits a Decision; an error in one tick is logged and does not end the thread.
    """

    def __init__(
        self,
        pools: Sequence[PoolSettings],
        *,
        clock: Clock | None = None,
        host: HostReadings | None = None,
        emit: Callable[[Decision], None] | None = None,
    ) -> None:
        self._pools = [
            _ManagedPool(settings=settings, counters=CounterHistory(), state=PoolSizingState()) for settings in pools
        ]
        self._clock = clock or SystemClock()
        self._host = host or HostReadings()
        self._emit = emit
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run_steps, name="paropt-steering", daemon=True)

    def __repr__(self) -> str:
        settings = (managed.settings for managed in self._pools)
        pools = (f"{each.pool!r} from {each.floor} to {each.ceiling}" for each in settings)
        return f"<PoolController: {', '.join(pools)}>"

    def __enter__(self) -> PoolController:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run_steps(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            try:
                self.step()
            except Exception:  # the thread's boundary: one pool's shutdown must not end the sizing of the others
                log.exception("sizing pools failed for one tick")

    def step(self) -> None:
        """Sample each pool once and resize it if needed, all within one budget of cores and memory."""
        now, cores = self._clock.monotonic(), self._host.cores()
        available, reserve = self._host.memory_available_bytes(), self._host.memory_reserve_bytes()
        pool_samples = [self._sample_pool(index, managed, now, cores) for index, managed in enumerate(self._pools)]
        budget = _build_budget(pool_samples, cores, available, reserve)
        growth = sum(sample.growth_bytes for sample in pool_samples)
        for sample in pool_samples:
            memory = (
                PoolMemory(
                    available_bytes=available,
                    growth_bytes=growth,
                    peak_bytes=sample.peak_bytes,
                    reserve_bytes=reserve,
                )
                if available
                else None
            )
            self._resize_pool(sample.managed, _build_observation(sample, now, cores, memory, budget))

    def _sample_pool(self, index: int, managed: _ManagedPool, now: float, cores: float) -> _PoolSample:
        settings, counters = managed.settings, managed.counters
        pool = settings.pool
        statistics, workers = pool.statistics(), pool.worker_memory()
        counters.add_sample(sample_counters(statistics, now))
        finished = sum(statistics.finished.values())
        if statistics.draining or managed.was_draining:
            managed.counts_from = finished + statistics.target
        managed.was_draining = statistics.draining > 0
        if finished < managed.counts_from:
            counters.reset_service_times()  # tasks that ended now began among more workers, and don't measure this size
        managed.peak_bytes = max([managed.peak_bytes, *(worker.peak_bytes for worker in workers)])
        traffic = counters.estimate_traffic()
        has_workers = bool(statistics.live or statistics.starting or statistics.queued)
        return _PoolSample(
            pool=f"{statistics.name} {index + 1}",
            managed=managed,
            size=statistics.target,
            traffic=traffic,
            wanted=min(max(compute_traffic_size(traffic), settings.floor), settings.ceiling),
            cpu_demand=_estimate_cpu_demand(managed, cores, in_threads=not workers) if has_workers else None,
            peak_bytes=managed.peak_bytes if has_workers else 0,
            held_bytes=sum(min(worker.now_bytes, managed.peak_bytes) for worker in workers),
        )

    def _resize_pool(self, managed: _ManagedPool, observation: PoolObservation) -> None:
        decision = decide_pool_size(observation)
        managed.state = decision.state
        if decision.size != observation.size:
            managed.settings.pool.resize(decision.size, reason=decision.reason)
            managed.counters.reset_service_times()
            managed.was_draining = decision.size < observation.size
        self._report(managed, observation, decision)

    def _report(self, managed: _ManagedPool, observation: PoolObservation, decision: PoolDecision) -> None:
        hold = decision.reason if decision.action == "hold" else ""
        if self._emit is not None and (not hold or hold != managed.reported_hold):
            name = managed.settings.pool.statistics().name
            self._emit(_build_decision(name, observation, decision, self._clock.wall()))
        managed.reported_hold = hold


def _estimate_cpu_demand(managed: _ManagedPool, cores: float, *, in_threads: bool) -> float | None:
    """Return the CPU demand of a worker in cores. Threads that hardly compute may wait for processes that do.

    The counters of a pool of processes include such child processes, those of a pool of threads don't. They are not
    read while threads saturate the GIL, since each read of /proc would wait for it.
    """
    counters = managed.counters
    demand = counters.estimate_cpu_demand(cores)
    if demand is None or not in_threads or counters.compute_cores_used() >= FULL_LOCK_CORES:
        return demand
    ages = [(task, (task.sampled_seconds or 0.0) - task.started_seconds) for task in managed.settings.pool.running()]
    wanted = sum(age * task_cpu_demand(task.core_time, age) for task, age in ages)
    if (seconds := sum(age for _, age in ages)) > 0:
        managed.children_demand = wanted / seconds
    return max(demand, managed.children_demand)


def _build_budget(
    pool_samples: Sequence[_PoolSample], cores: float, available_bytes: int, reserve_bytes: int
) -> Budget:
    """Return the budget of all pools. For a single pool it has no cores: the pool's own decision bounds it by them."""
    held = sum(sample.wanted_held_bytes for sample in pool_samples)
    return Budget(
        claims=tuple(sample.build_claim() for sample in pool_samples),
        cores=cores if len(pool_samples) > 1 else None,
        memory_bytes=compute_shareable_bytes(available_bytes, held, reserve_bytes) if available_bytes else None,
        spare_bytes=compute_spare_bytes(reserve_bytes),
    )


def _build_observation(
    sample: _PoolSample, now: float, cores: float, memory: PoolMemory | None, budget: Budget
) -> PoolObservation:
    managed = sample.managed
    return PoolObservation(
        now=now,
        size=sample.size,
        floor=managed.settings.floor,
        ceiling=managed.settings.ceiling,
        traffic=sample.traffic,
        cores=cores,
        cpu_demand=sample.cpu_demand,
        cpu=managed.counters.compute_cores_used(),
        sample=managed.counters.sample,
        state=managed.state,
        memory=memory,
        pool=sample.pool,
        budget=budget,
    )


def _build_decision(pool: str, observation: PoolObservation, decision: PoolDecision, at: float) -> Decision:
    terms = {
        "arrivals_per_second": observation.traffic.arrivals,
        "service_seconds": observation.traffic.service_seconds,
        "load_erlang": observation.traffic.load,
        "queued": float(observation.traffic.queued),
        "cores": observation.cores,
        "cpu_demand": observation.cpu_demand if observation.cpu_demand is not None else WAITING_DEMAND,
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
        action=decision.action,
        reason=decision.reason,
        old_size=observation.size,
        new_size=decision.size,
        at_timestamp_seconds=at,
        terms=terms,
        situation=serialize_observation(observation),
        choice=serialize_decision(decision),
    )
