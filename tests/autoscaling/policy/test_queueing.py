"""Workers for traffic, by numbers from textbooks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.autoscaling.policy.queueing import (
    WAIT_RATIO,
    Traffic,
    compute_cpu_size,
    compute_size_to_keep,
    compute_traffic_size,
    compute_wait_ratio,
    compute_workers,
    is_late,
)


def test_five_erlang_get_seven_workers() -> None:
    assert compute_workers(5.0) == 7


def test_wait_follows_erlang_c() -> None:
    # C(7, 5) = 0.3241 in every table of Erlang's delay formula; the wait is C / (7 - 5) of a service time.
    assert compute_wait_ratio(5.0, 7) == pytest.approx(0.3241 / 2, abs=1e-4)
    assert compute_wait_ratio(0.5, 1) == pytest.approx(1.0)  # M/M/1: rho / (1 - rho)
    assert compute_wait_ratio(5.0, 5) == math.inf


def test_queue_that_drains_in_time_adds_no_worker() -> None:
    assert compute_traffic_size(Traffic(arrivals=100.0, service_seconds=0.05, queued=40)) == 7


def test_backlog_starts_within_two_seconds() -> None:
    assert compute_traffic_size(Traffic(arrivals=100.0, service_seconds=0.05, queued=1000)) == 25


def test_queue_of_over_a_second_is_late_for_short_tasks() -> None:
    traffic = Traffic(arrivals=100.0, service_seconds=0.05, queued=141)
    assert is_late(traffic, 7)
    assert not is_late(traffic, 8)


def test_no_load_leaves_one_worker() -> None:
    assert compute_traffic_size(Traffic(arrivals=0.0, service_seconds=0.0)) == 1


def test_size_shrinks_only_if_the_load_surely_needs_less() -> None:
    assert compute_traffic_size(Traffic(arrivals=5.0, service_seconds=1.0, spread=0.2)) == 7
    assert compute_size_to_keep(Traffic(arrivals=5.0, service_seconds=1.0, spread=0.2)) == 8


def test_cores_bound_computing_work() -> None:
    assert compute_cpu_size(2.0, 1.0) == 2
    assert compute_cpu_size(2.0, 0.5) == 4
    assert compute_cpu_size(0.5, 1.0) == 1
    assert compute_cpu_size(1.5, 1.0) == 2
    assert compute_cpu_size(2.0, 0.0) is None


@given(st.floats(0.01, 300))
def test_size_is_the_smallest_that_keeps_the_wait(load: float) -> None:
    size = compute_workers(load)
    assert compute_wait_ratio(load - 0.001, size) <= WAIT_RATIO
    assert size == 1 or compute_wait_ratio(load + 0.001, size - 1) > WAIT_RATIO


@given(st.floats(0, 500), st.floats(0, 500))
def test_more_load_never_needs_fewer_workers(one: float, other: float) -> None:
    assert compute_workers(min(one, other)) <= compute_workers(max(one, other))
