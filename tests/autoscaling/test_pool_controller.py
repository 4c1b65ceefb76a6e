"""Pools sized by their load: real ones, and several within one budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Event
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter import AdaptivePool, AdaptiveWorkerPool, ProcessPool, ThreadPool, steer
from paropt_exporter.autoscaling.decisions import replay
from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.pool_controller import PoolController, PoolSettings
from paropt_exporter.events import Decision, PoolStatistics, WorkerMemory
from paropt_exporter.host import RESERVE_BYTES
from paropt_exporter.testing import FakeClock, Recorder
from simulation.pool import SimulatedPool
from simulation.work import at_once, computing, constant, poisson, waiting

MB = 1 << 20


class Machine:
    """A machine whose memory the pools' workers use."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self.pools: tuple[SimulatedPool, ...] = ()
        self.least_bytes = total_bytes

    def available_bytes(self) -> int:
        taken = sum(worker.now_bytes for pool in self.pools for worker in pool.worker_memory())
        self.least_bytes = min(self.least_bytes, self.total_bytes - taken)
        return max(1, self.total_bytes - taken)


def steered(
    *pools: SimulatedPool, cores: float = 4.0, until: int = 120, machine: Machine | None = None, critical: int = -1
) -> Recorder:
    clock, recorder, machine = FakeClock(), Recorder(), machine or Machine(1 << 40)
    machine.pools = pools
    controller = PoolController(
        [PoolSettings(pool=pool, floor=1, ceiling=64, urgent=place == critical) for place, pool in enumerate(pools)],
        clock=clock,
        host=HostReadings(
            cores=lambda: cores,
            memory_available_bytes=machine.available_bytes,
            memory_reserve_bytes=lambda: RESERVE_BYTES,
        ),
        emit=recorder.observe,
    )
    for second in range(until):
        clock.now = float(second)
        for pool in pools:
            pool.advance(clock.now)
        controller.step()
    return recorder


def busy(seed: int, cpu_demand: float, rate: float = 8.0) -> SimulatedPool:
    return SimulatedPool(poisson(constant(rate), 200.0, seed), computing(1.0, cpu_demand, 100.0), name=f"pool{seed}")


def test_two_computing_pools_share_the_cores() -> None:
    one, other = busy(1, 1.0), busy(2, 1.0)
    steered(one, other)
    assert one.target + other.target <= 4


def test_sleeping_pool_is_not_held_back_by_a_computing_one() -> None:
    computes = busy(1, 1.0)
    waits = SimulatedPool(poisson(constant(20.0), 200.0, 2), waiting(0.5), name="waits")
    steered(computes, waits)
    assert computes.target <= 4
    assert waits.target >= 10


@pytest.mark.parametrize(("children_demand", "most"), [(0.0, 64), (0.5, 8), (1.0, 4), (3.0, 1)])
def test_threads_that_wait_for_computing_processes_get_the_cores_of_these(children_demand: float, most: int) -> None:
    """The processes are in no counter of a pool of threads: it grew to its maximum."""
    pool = SimulatedPool(at_once(2000), waiting(2.5), children_demand=children_demand)
    steered(pool, until=20)
    assert max(size for _, size, _ in [(0.0, 1, ""), *pool.sizes]) == most


def hungry(seed: int, rate: float = 40.0, memory: int = 100) -> SimulatedPool:
    arrivals = poisson(constant(rate), 200.0, seed)
    return SimulatedPool(arrivals, waiting(1.0), name=f"pool{seed}", memory_bytes=memory * MB)


def test_pool_stays_within_the_machines_memory() -> None:
    pool, machine = hungry(1), Machine(RESERVE_BYTES + 1000 * MB)
    moves = steered(pool, machine=machine).of(Decision)
    assert pool.target == 10
    assert machine.least_bytes >= RESERVE_BYTES
    assert "memory_size" in moves[-1].terms


def test_pools_share_memory_evenly_after_critical_ones() -> None:
    one, other = hungry(1), hungry(2)
    steered(one, other, machine=Machine(RESERVE_BYTES + 1000 * MB))
    assert (one.target, other.target) == (5, 5)
    one, other = hungry(1, rate=4.0), hungry(2)
    steered(one, other, machine=Machine(RESERVE_BYTES + 1000 * MB), critical=0)
    assert one.target >= 6
    assert one.target + other.target <= 10


class ClosingPool(SimulatedPool):
    """A pool that is shut down during the test."""

    closed = False

    def statistics(self) -> PoolStatistics:
        statistics = super().statistics()
        return replace(statistics, live=0, busy=0, idle=0, draining=0, queued=0) if self.closed else statistics

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        return () if self.closed else super().worker_memory()


@pytest.mark.parametrize("memory", [0, 100])
def test_pool_that_is_shut_down_leaves_its_cores_and_memory_to_the_others(memory: int) -> None:
    """The others never got those of its minimum."""
    work, load = (computing(1.0, 1.0, 100.0), waiting(1.0))[memory > 0], constant(40.0)
    one, other = (ClosingPool(poisson(load, 200.0, seed), work, memory_bytes=memory * MB) for seed in (1, 2))
    clock, machine = FakeClock(), Machine(RESERVE_BYTES + 800 * MB)
    machine.pools = one, other
    controller = PoolController(
        [PoolSettings(pool=pool, floor=4, ceiling=64) for pool in (one, other)],
        clock=clock,
        host=HostReadings(
            cores=lambda: 8.0,
            memory_available_bytes=machine.available_bytes,
            memory_reserve_bytes=lambda: RESERVE_BYTES,
        ),
    )
    for second in range(120):
        one.closed = second >= 60
        clock.now = float(second)
        for pool in machine.pools[one.closed :]:
            pool.advance(clock.now)
        controller.step()
        if second == 59:
            assert (one.target, other.target) == (4, 4)
    assert other.target == 8


def test_workers_go_once_other_processes_take_the_memory() -> None:
    pool, machine = hungry(1), Machine(RESERVE_BYTES + 2000 * MB)
    clock, recorder = FakeClock(), Recorder()
    machine.pools = (pool,)
    controller = PoolController(
        [PoolSettings(pool=pool, floor=1, ceiling=64)],
        clock=clock,
        host=HostReadings(memory_available_bytes=machine.available_bytes, memory_reserve_bytes=lambda: RESERVE_BYTES),
        emit=recorder.observe,
    )
    for second in range(60):
        if second == 50:
            machine.total_bytes -= 1500 * MB
        clock.now = float(second)
        pool.advance(clock.now)
        controller.step()
    assert pool.target <= 6
    assert ("down", "memory_limit") in [(move.action, move.reason) for move in recorder.of(Decision)]


def test_each_move_is_emitted_and_replays_to_the_byte() -> None:
    decisions = steered(busy(1, 0.2), busy(2, 0.8)).of(Decision)
    decisions += steered(hungry(1), hungry(2), machine=Machine(RESERVE_BYTES + 1000 * MB)).of(Decision)
    assert decisions
    assert all(replay(decision.situation, decision.choice).same for decision in decisions)


def fill(size: int) -> int:
    return len(b"x" * size)


def test_process_pool_reports_its_workers_memory() -> None:
    with ProcessPool(2) as pool:
        pool.submit(fill, 64 * MB).result(60.0)
        memory = pool.worker_memory()
    assert max(worker.peak_bytes for worker in memory) >= 64 * MB
    assert all(0 < worker.now_bytes <= worker.peak_bytes for worker in memory)


def test_new_reason_to_hold_is_emitted() -> None:
    decisions = steered(busy(1, 0.2)).of(Decision)
    holds = [(one, next_) for one, next_ in pairwise(decisions) if one.action == next_.action == "hold"]
    assert holds
    assert all(one.reason != next_.reason for one, next_ in holds)


def test_real_pool_grows_with_its_queue() -> None:
    release = Event()
    with ThreadPool(1) as pool, steer(pool, maximum=8):
        futures = [pool.submit(release.wait, 60.0) for _ in range(200)]
        grown = Event()
        for _ in range(600):
            if pool.target > 1 or grown.wait(0.1):
                break
        release.set()
        assert pool.target > 1
        assert all(future.result(60.0) for future in futures)


def test_repr_names_the_pools_and_their_bounds() -> None:
    with ThreadPool(1, name="orders") as pool:
        assert repr(steer(pool, maximum=8)) == f"<PoolController: {pool!r} from 1 to 8>"


def test_impossible_bounds_are_refused() -> None:
    with ThreadPool(1) as pool, pytest.raises(ValueError, match="expected 1 <= minimum <= maximum"):
        steer(pool, minimum=5, maximum=2)


def test_bounds_that_are_no_integers_are_refused() -> None:
    """A pool was never resized to half a worker: each tick logged an error."""
    with ThreadPool(1) as pool, pytest.raises(TypeError, match="integer"):
        steer(pool, maximum=3 / 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("pool_type", [AdaptivePool, AdaptiveWorkerPool, ThreadPoolExecutor])
def test_only_pools_that_can_be_resized_from_outside_are_steered(pool_type: Callable[[], Any]) -> None:
    """The others failed at each tick, which was only logged."""
    with pool_type() as pool, pytest.raises(TypeError, match="expected a ThreadPool or a ProcessPool"):
        steer(pool)


def test_controller_without_pools_is_refused() -> None:
    with pytest.raises(TypeError, match="no pool to steer"):
        steer()


def test_pool_is_steered_once_and_critical_ones_are_among_them() -> None:
    """A critical pool that was not steered had no effect, and one that was given twice counted twice."""
    with ThreadPool(1) as one, ThreadPool(1) as other:
        for pools, critical in (((one, one), ()), ((one,), (other,))):
            with pytest.raises(ValueError, match="expected each pool once, and critical ones among them"):
                steer(*pools, critical=critical)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, math.nan)])
def test_weights_must_be_one_positive_number_per_pool(weights: tuple[float, ...]) -> None:
    with ThreadPool(1) as one, ThreadPool(1) as other, pytest.raises(ValueError, match="expected one positive number"):
        steer(one, other, weights=weights)
