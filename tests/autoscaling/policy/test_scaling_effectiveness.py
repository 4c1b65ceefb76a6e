"""Whether more workers helped."""

from __future__ import annotations

import random
from statistics import fmean, pvariance

from paropt_exporter.autoscaling.policy.scaling_effectiveness import (
    Sample,
    is_ineffective,
    is_refuted,
    is_still_blocked,
    start_block,
)


def sample(mean: float, count: int = 100, variance: float | None = None) -> Sample:
    return Sample(count=count, mean=mean, variance=mean**2 / 4 if variance is None else variance)


def test_service_times_that_grow_with_the_workers_are_ineffective() -> None:
    assert is_ineffective(sample(0.1), sample(0.2), old_size=2, new_size=4)


def test_steady_service_times_are_effective() -> None:
    assert not is_ineffective(sample(0.1), sample(0.11), old_size=2, new_size=4)


def test_few_completions_decide_nothing() -> None:
    assert is_ineffective(sample(0.1, count=10), sample(0.9, count=30), old_size=2, new_size=4)
    assert not is_ineffective(sample(0.1), sample(0.9, count=29), old_size=2, new_size=4)
    assert not is_ineffective(sample(0.1, count=9), sample(0.9), old_size=2, new_size=4)


def test_tasks_without_a_duration_decide_nothing() -> None:
    """As on a clock that stands still."""
    assert not is_ineffective(sample(0.0), sample(0.9), old_size=2, new_size=4)
    assert not is_ineffective(sample(0.1), sample(0.0), old_size=2, new_size=4)


def test_false_alarms_are_rarer_than_one_in_a_hundred() -> None:
    draw = random.Random(7)
    alarms = 0
    for _ in range(3000):
        before, after = ([draw.expovariate(1.0) for _ in range(30)] for _ in range(2))
        samples = [Sample(count=30, mean=fmean(times), variance=pvariance(times)) for times in (before, after)]
        alarms += is_ineffective(samples[0], samples[1], old_size=4, new_size=8)
    assert alarms <= 30


def test_repeated_block_lasts_twice_as_long() -> None:
    first = start_block(0.0, 2, load=10.0, service_seconds=0.1, earlier=None)
    second = start_block(first.until, 2, load=10.0, service_seconds=0.1, earlier=first)
    assert (first.seconds, second.seconds) == (60.0, 120.0)
    other = start_block(0.0, 2, load=20.0, service_seconds=0.1, earlier=second)
    assert other.seconds == 60.0


def test_block_is_refuted_by_tasks_that_stay_slow_with_fewer_workers() -> None:
    larger = sample(2.0, count=40)
    block = start_block(
        0.0, 3, load=5.0, service_seconds=0.2, earlier=None, larger=larger, larger_size=12
    )  # no use from 1 + 0.5 x (12 / 3 - 1) = 2.5 times as long on
    assert is_refuted(block, sample(2.0, count=30))
    assert not is_refuted(block, sample(2.0, count=29))
    assert not is_refuted(block, sample(0.5, count=30)), "a lock: four times as long for four times as many"
    assert not is_refuted(start_block(0.0, 3, load=5.0, service_seconds=0.2, earlier=None), sample(2.0))


def test_block_ends_with_time_another_load_or_faster_tasks() -> None:
    block = start_block(0.0, 2, load=10.0, service_seconds=0.1, earlier=None)
    assert is_still_blocked(block, 59.0, load=10.0, service_seconds=0.1)
    assert not is_still_blocked(block, 60.0, load=10.0, service_seconds=0.1)
    assert not is_still_blocked(block, 1.0, load=14.0, service_seconds=0.1)
    assert not is_still_blocked(block, 1.0, load=10.0, service_seconds=0.05)
    assert is_still_blocked(block, 1.0, load=10.0, service_seconds=0.5)  # the reason of the block
