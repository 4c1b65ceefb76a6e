"""Executors steered by their load: real ones, and several in one budget."""

from __future__ import annotations

from threading import Event

import pytest

from paropt_exporter import ThreadPool, steer
from paropt_exporter.control.decisions import replay
from paropt_exporter.control.streams import StreamLoop
from paropt_exporter.records import Decision
from paropt_exporter.testing import FakeClock, Recorder
from simulation.pool import SimulatedPool
from simulation.work import computing, constant, poisson, waiting


def steered(*pools: SimulatedPool, cores: float = 4.0, until: int = 120) -> Recorder:
    clock, recorder = FakeClock(), Recorder()
    loop = StreamLoop(
        [(pool, 1, 64) for pool in pools],
        clock=clock,
        cores=lambda: cores,
        memory_available_bytes=lambda: 1 << 40,
        emit=recorder.observe,
    )
    for second in range(until):
        clock.now = float(second)
        for pool in pools:
            pool.advance(clock.now)
        loop.step()
    return recorder


def busy(seed: int, share: float, rate: float = 8.0) -> SimulatedPool:
    return SimulatedPool(poisson(constant(rate), 200.0, seed), computing(1.0, share, 100.0), name=f"pool{seed}")


def test_two_pools_that_compute_share_the_cores_between_them() -> None:
    one, other = busy(1, 1.0), busy(2, 1.0)
    steered(one, other)
    assert one.target + other.target <= 4


def test_a_pool_that_only_waits_is_not_held_back_by_one_that_computes() -> None:
    computes = busy(1, 1.0)
    waits = SimulatedPool(poisson(constant(20.0), 200.0, 2), waiting(0.5), name="waits")
    steered(computes, waits)
    assert computes.target <= 4
    assert waits.target >= 10


def test_each_move_is_told_and_can_be_made_again_to_the_byte() -> None:
    decisions = steered(busy(1, 0.2), busy(2, 0.8)).of(Decision)
    assert decisions
    assert all(replay(decision.situation, decision.choice).same for decision in decisions)


def test_a_real_pool_grows_with_its_queue() -> None:
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


def test_bounds_that_no_size_fits_are_refused() -> None:
    with ThreadPool(1) as pool, pytest.raises(ValueError, match="expected 1 <= minimum <= maximum"):
        steer(pool, minimum=5, maximum=2)
