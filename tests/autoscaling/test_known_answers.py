"""The controllers' decisions for workloads with known answers, in simulated time."""

from __future__ import annotations

import random

import pytest

from paropt_exporter.autoscaling.decisions import replay
from paropt_exporter.autoscaling.policy.stabilization import MAX_REVERSALS
from simulation.fleet import flaps
from simulation.lane import Work, run_lane
from simulation.pool import Duration, SimulatedPool
from simulation.rules import Ours, simulate
from simulation.work import Rate, constant, locked, poisson, saw_tooth, stepped, waiting


def steered(rate: Rate, duration: Duration, *, until: float = 600.0, cores: float = 1000.0) -> SimulatedPool:
    pool = SimulatedPool(poisson(rate, until, seed=1), duration)
    simulate(pool, Ours(pool, 200, cores=cores), until=until)
    return pool


def test_naps_of_50_ms_at_100_a_second_get_7_workers() -> None:
    assert steered(constant(100), waiting(0.05)).target == 7


def test_tenfold_load_is_followed_in_three_moves_without_reversal() -> None:
    pool = steered(stepped(10, 100, at=300), waiting(0.05))
    after = [size for moment, size, _ in pool.sizes if moment >= 300]
    assert after[-1] == 7  # the smallest fixed size that keeps the wait
    assert len(after) <= 3
    assert after == sorted(after)
    assert pool.waits.worst < 3.0


def test_saw_tooth_of_five_seconds_stays_within_the_hours_reversals() -> None:
    pool = steered(saw_tooth(10, 200, period=5.0), waiting(0.05), until=3600.0)
    assert flaps([(moment, size) for moment, size, _ in pool.sizes]) <= MAX_REVERSALS
    assert pool.waits.worst < 3.0


def test_five_naps_run_at_once_after_one_decision() -> None:
    run = run_lane([Work(seconds=2.0)] * 5)
    assert (run.peak, len(run.moves)) == (5, 1)
    assert run.makespan_seconds < 2.2


def test_two_hundred_naps_get_the_maximum_within_a_tenth_of_a_second() -> None:
    run = run_lane([Work(seconds=0.05)] * 200, maximum=64)
    assert run.peak == 64
    assert run.moves[0].at_timestamp_seconds - 1_700_000_000.0 <= 0.1 + 1e-6


def test_deadline_gets_just_enough_workers() -> None:
    run = run_lane([Work(seconds=10.0)] * 100, maximum=64, deadline_seconds=100.0)
    assert 10 <= run.peak <= 13
    assert run.makespan_seconds <= 100.0


def test_computing_work_gets_one_worker_per_core() -> None:
    assert run_lane([Work(seconds=1.0, cpu_demand=1.0)] * 20).peak == 2


def test_unknown_task_starts_beside_one_that_computes_on_half_a_core() -> None:
    """It was measured only once the computing task had ended: one such task is more than the cores."""
    tasks = [Work(seconds=10.0, cpu_demand=1.0, stage="burn"), Work(seconds=1.0, stage="nap")]
    assert run_lane(tasks, cores=0.5, start=1, known={"burn": 1.0}).longest_held_back() < 1.0


def test_work_that_sleeps_half_of_its_time_gets_two_workers_per_core() -> None:
    assert run_lane([Work(seconds=1.0, cpu_demand=0.5)] * 40).peak == 4


def test_threads_that_share_the_interpreters_lock_stay_few() -> None:
    assert run_lane([Work(seconds=1.0, cpu_demand=1.0)] * 20, pool="threads").peak == 2


def test_pool_of_locked_tasks_keeps_two_workers_and_blocks_growth() -> None:
    pool = steered(constant(30), locked(0.05), until=900.0)
    assert pool.target <= 2
    assert ("ineffective") in [reason for _, _, reason in pool.sizes]


def test_pool_of_tasks_that_become_slower_grows_within_seconds() -> None:
    """Growth was undone as useless, since tasks took longer than before it: three workers for a minute at 10 Erlang."""
    until, change = 600.0, 1500  # the number of the first slow task, after some 300 s
    durations = iter(range(10_000))
    pool = SimulatedPool(
        poisson(constant(5.0), until, seed=3), lambda _: (0.2 if next(durations) < change else 2.0, 0.0, 0.0)
    )
    simulate(pool, Ours(pool, 200), until=until)
    assert pool.waits.worst < 25.0
    assert pool.target >= 10


def test_stage_of_locked_tasks_is_limited_to_two_at_once() -> None:
    run = run_lane([Work(seconds=0.05, locked=True)] * 800, maximum=64)
    assert [limit for _, limit in run.limits] == [16, 4, 1, 2]
    assert run.limits[-1][0] < 15.0
    assert run.makespan_seconds == pytest.approx(800 * 0.05, rel=0.02), "fewer get as much done"
    assert ("down", "ineffective", 4) in [(move.action, move.reason, move.new_size) for move in run.moves]
    assert run.moves[-1].new_size == 2
    assert all(replay(move.situation, move.choice).same for move in run.moves)


def test_block_ends_after_a_minute_and_then_lasts_for_two() -> None:
    run = run_lane([Work(seconds=1.0, locked=True)] * 400, maximum=16)
    blocked = [moment for moment, limit in run.limits if limit == 2]
    lifted = [moment for moment, limit in run.limits if limit is None]
    lasted = [end - begin for begin, end in zip(blocked, lifted, strict=False)]
    assert [round(seconds / 60.0) for seconds in lasted] == [1, 2]


@pytest.mark.parametrize("seed", range(2))
def test_stage_of_uneven_tasks_is_tried_cheaply_and_never_limited(seed: int) -> None:
    draw = random.Random(seed)
    tasks = [Work(seconds=draw.expovariate(1.0) + 0.001) for _ in range(800)]
    run, fixed = run_lane(tasks, maximum=16), run_lane(tasks, maximum=16, start=16, fixed=True)
    assert not run.limits or run.limits[-1][1] is None
    assert run.makespan_seconds <= 1.1 * fixed.makespan_seconds


def test_equal_tasks_get_no_trial() -> None:
    assert run_lane([Work(seconds=0.2)] * 600, maximum=16).limits == ()


@pytest.mark.parametrize("seed", range(5))
def test_steady_load_keeps_its_size(seed: int) -> None:
    pool = SimulatedPool(poisson(constant(5), 1800.0, seed=seed), waiting(1.0))
    simulate(pool, Ours(pool, 200), until=1800.0)
    late = [size for moment, size, _ in pool.sizes if moment > 300]
    assert len(late) <= 6
