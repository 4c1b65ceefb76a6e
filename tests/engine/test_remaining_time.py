"""Predictions of a running stage's end, by numbers."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.engine.remaining_time import (
    count_workers_within,
    estimate_remaining_seconds,
    estimate_stage_remaining_seconds,
)


def remaining(
    *, expected: float | None = None, elapsed: float = 0.0, task: float | None = None, ages: tuple[float, ...] = (),
    waiting: int = 0,
) -> float | None:  # fmt: skip
    return estimate_stage_remaining_seconds(
        expected_seconds=expected, elapsed_seconds=elapsed, task_seconds=task, ages_seconds=ages, waiting=waiting
    )


def test_stage_of_one_task_takes_as_long_as_before() -> None:
    assert remaining(task=30.0, elapsed=12.0, ages=(12.0,)) == pytest.approx(18.0)


def test_overdue_task_runs_on_for_a_tenth_of_its_age() -> None:
    assert remaining(task=30.0, elapsed=50.0, ages=(50.0,)) == pytest.approx(5.0)


def test_unknown_work_has_no_prediction() -> None:
    assert remaining(elapsed=5.0, ages=(5.0,)) is None


def test_task_duration_overrides_stage_duration() -> None:
    assert remaining(expected=10.0, task=4.0, ages=(1.0, 1.0), waiting=4) == pytest.approx(3.0 + 2 * 4.0)


def test_stage_without_task_durations_takes_as_long_as_before() -> None:
    assert remaining(expected=10.0, elapsed=4.0, ages=(4.0, 4.0), waiting=8) == pytest.approx(6.0)


def test_first_free_workers_take_the_remaining_tasks() -> None:
    assert estimate_remaining_seconds(10.0, (9.0, 2.0), 1, 2) == pytest.approx(11.0)
    assert estimate_remaining_seconds(10.0, (9.0, 2.0), 2, 2) == pytest.approx(18.0)


def test_more_workers_than_running_tasks_begin_at_once() -> None:
    assert estimate_remaining_seconds(10.0, (), 4, 4) == pytest.approx(10.0)
    assert estimate_remaining_seconds(10.0, (5.0,), 3, 4) == pytest.approx(10.0)


def test_estimate_takes_no_memory_for_each_waiting_task() -> None:
    """The controller asks for a worker for each waiting task, 33 times a second."""
    assert estimate_remaining_seconds(1.0, (0.5,), 10**15, 10**15) == pytest.approx(1.5)
    assert estimate_remaining_seconds(1.0, (0.5,), 10**15 - 1, 10**15) == pytest.approx(1.0)


def test_fewest_workers_in_time_are_found() -> None:
    assert count_workers_within(30.0, 10.0, (0.0,), 8) == 3
    assert count_workers_within(10.0, 10.0, (), 8) == 8
    assert count_workers_within(9.0, 10.0, (), 8) is None


def test_fewer_workers_than_now_may_be_in_time() -> None:
    ages = (1.0, 2.0, 3.0, 4.0)
    assert count_workers_within(100.0, 10.0, ages, 4) == 1
    assert count_workers_within(20.0, 10.0, ages, 4) == 4
    assert count_workers_within(30.0, 10.0, ages, 4) == 2


@given(st.integers(0, 60), st.lists(st.integers(0, 8), max_size=5), st.integers(1, 20))
def test_one_worker_less_would_be_late(seconds: int, ages: list[int], waiting: int) -> None:
    def schedule(workers: int) -> float:
        """Return when the last task ends if each worker that becomes free takes the next one."""
        free = sorted([10.0 - age for age in ages] + [0.0] * (workers - len(ages)))
        for _ in range(waiting):
            heapq.heapreplace(free, free[0] + 10.0)
        return max(free)

    workers = count_workers_within(float(seconds), 10.0, [float(age) for age in ages], waiting)
    if workers is None:
        assert schedule(len(ages) + waiting) > seconds
    elif workers >= len(ages):
        assert schedule(workers) <= seconds
        assert workers in {1, len(ages)} or schedule(workers - 1) > seconds
