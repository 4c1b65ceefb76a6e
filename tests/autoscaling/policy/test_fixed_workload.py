"""Sizes for known tasks, by numbers."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup, Sizing, compute_fixed_workload_size
from paropt_exporter.cpu_demand import CoreBudget

_DEMANDS = st.lists(st.one_of(st.none(), st.floats(0, 4)), max_size=40)


def group(*demands: float | None, pool: str = "commands", thread: bool = False) -> list[LoadGroup]:
    return [
        LoadGroup(
            load=Load(pool=pool, stage="a", cpu_demand=demand, thread_cpu_demand=demand or 0.0 if thread else 0.0),
            count=1,
        )
        for demand in demands
    ]


def size(running: list[LoadGroup], waiting: list[LoadGroup], *, maximum: int = 32, cores: float = 2.0) -> Sizing:
    """Return the size, without the tasks of each pool."""
    sizing = compute_fixed_workload_size(running, waiting, cores=cores, minimum=1, maximum=maximum)
    return replace(sizing, pools={})


def test_unknown_tasks_start_with_one_per_core() -> None:
    assert size([], group(*[None] * 5)) == Sizing(size=2, reason="cpu_limit", admitted=2)


@pytest.mark.parametrize(
    ("cores", "demand", "at_once"),
    [
        (0.5, 1.0, 1),
        (0.9, 1.0, 1),
        (1.4, 1.0, 1),
        (1.5, 1.0, 2),
        (2.4, 1.0, 2),
        (2.5, 1.0, 3),
        (1.5, None, 2),
        (1.3, 0.4, 3),
    ],
)
def test_half_a_core_of_a_quota_counts_as_a_core_beyond_the_first(
    cores: float, demand: float | None, at_once: int
) -> None:
    assert size([], group(*[demand] * 5), cores=cores).size == at_once


def test_sleeping_tasks_all_run_at_once() -> None:
    assert size(group(0.0, 0.01), group(*[0.01] * 198), maximum=64) == Sizing(size=64, reason="bounds", admitted=62)
    assert size(group(0.0, 0.0), group(*[0.0] * 3)) == Sizing(size=5, reason="plan", admitted=3)


def test_computing_tasks_get_one_core_each() -> None:
    assert size(group(1.0, 0.98), group(1.0, 1.0)) == Sizing(size=2, reason="cpu_limit")


def test_half_sleeping_tasks_get_two_per_core() -> None:
    assert size(group(0.5, 0.5), group(0.5, 0.5, 0.5)) == Sizing(size=4, reason="cpu_limit", admitted=2)


def test_saturated_machine_still_runs_sleeping_tasks() -> None:
    assert size(group(1.0, 1.0), group(0.02)) == Sizing(size=3, reason="plan", admitted=1)


def test_sleeping_tasks_do_not_queue_behind_computing_ones() -> None:
    assert size(group(1.0, 1.0), group(1.0, 0.02, 0.02)) == Sizing(size=4, reason="cpu_limit", admitted=2)


def test_one_unknown_task_runs_beside_full_cores() -> None:
    assert size(group(1.0, 1.0), group(None, None)).size == 3
    assert size(group(1.0, 1.0, None), group(None)).admitted == 0
    assert size(group(1.0, 1.0, 1.0), group(None)).admitted == 0


@given(st.integers(3, 40))
def test_size_does_not_depend_on_the_running_tasks(burners: int) -> None:
    assert size(group(*[1.0] * burners), group(1.0)) == Sizing(size=2, reason="cpu_limit", surplus=burners - 2)


def test_task_that_wants_more_than_all_cores_runs_alone() -> None:
    assert size(group(0.05), group(3.0, 3.0)).size == 2
    assert size(group(1.0), group(3.0)).admitted == 0


def test_task_of_two_cores_starts_on_one_rather_than_let_it_idle() -> None:
    assert size(group(1.0), group(2.0, 2.0)).admitted == 1
    assert size(group(1.0, 1.0), group(2.0)).admitted == 0
    assert size(group(1.2), group(2.0)).admitted == 0
    assert size(group(1.0), group(2.2)).admitted == 0


@pytest.mark.parametrize(
    ("cores", "running", "waiting", "admitted"),
    [
        (2, [2.0], [1.0, 1.0], 1),  # `pytest -n 2`, then mypy, as if mypy had started first
        (2, [1.8], [1.0, 2.0], 1),
        (2, [2.0], [0.5, 0.5, 0.5], 2),
        (2, [3.0], [1.0], 0),
        (2, [1.05], [1.0, 1.0], 1),  # two tasks of one core each leave none idle
        (4, [3.0], [1.0, 1.0, 1.0], 2),
        (4, [2.0, 2.0], [1.0], 1),
        (4, [3.0, 2.0], [1.0], 0),
    ],
)
def test_tasks_start_beside_one_of_several_cores_rather_than_let_some_idle(
    cores: float, running: list[float], waiting: list[float], admitted: int
) -> None:
    assert size(group(*running), group(*waiting), cores=cores).admitted == admitted


@given(_DEMANDS, st.floats(1, 16))
def test_running_tasks_that_started_together_are_no_surplus(demands: list[float | None], cores: float) -> None:
    budget = CoreBudget(cores)
    started = list[float]()
    for demand in demands:
        if demand is not None and budget.room(demand):
            budget.take(demand)
            started.append(demand)
    assert size(group(*started), group(), cores=cores, maximum=100).surplus == 0


def test_wide_tasks_take_all_of_their_slots() -> None:
    def wide(count: int) -> list[LoadGroup]:
        return [LoadGroup(load=Load(pool="commands", stage="wide", cpu_demand=0.0, slots=4), count=count)]

    assert size(wide(1), group(0.0, 0.0)) == Sizing(size=6, reason="plan", admitted=2)
    assert size(group(0.0), wide(5), maximum=10) == Sizing(size=9, reason="bounds", admitted=8)
    assert size(group(0.0), [*wide(1), *group(0.0)], maximum=4) == Sizing(size=2, reason="bounds", admitted=1)


def test_threads_that_share_one_interpreter_stay_few() -> None:
    running = group(0.3, 0.3, 0.3, pool="threads", thread=True)
    assert size(running, group(0.3, pool="threads")) == Sizing(size=3, reason="cpu_limit")
    assert size(running, group(0.05, pool="threads")).admitted == 1


def test_nothing_to_run_leaves_the_minimum() -> None:
    assert compute_fixed_workload_size([], [], cores=2, minimum=3, maximum=8).size == 3


@given(_DEMANDS, _DEMANDS, st.integers(1, 10), st.integers(0, 60), st.floats(0.1, 64))
def test_size_stays_in_bounds_and_below_the_number_of_tasks(
    running: list[float | None], waiting: list[float | None], minimum: int, room: int, cores: float
) -> None:
    maximum = minimum + room
    chosen = compute_fixed_workload_size(
        group(*running), group(*waiting), cores=cores, minimum=minimum, maximum=maximum
    )
    assert minimum <= chosen.size <= maximum
    assert chosen.size <= max(minimum, len(running) + len(waiting))


@given(_DEMANDS, _DEMANDS, _DEMANDS, st.floats(0.1, 64))
def test_more_waiting_tasks_never_mean_fewer_workers(
    running: list[float | None], waiting: list[float | None], more: list[float | None], cores: float
) -> None:
    def chosen(tasks: list[float | None]) -> int:
        return compute_fixed_workload_size(group(*running), group(*tasks), cores=cores, minimum=1, maximum=100).size

    assert chosen(waiting) <= chosen(waiting + more)


@example([1.0, 2.0], 2.0)
@given(_DEMANDS, st.floats(1, 16))
def test_demands_of_running_tasks_fit_into_the_cores(demands: list[float | None], cores: float) -> None:
    """Exceptions: one unknown task beside them, one that wants more than all cores or lacks one of its own."""
    chosen = compute_fixed_workload_size([], group(*demands), cores=cores, minimum=1, maximum=100)
    computing = sorted(demand for demand in demands if demand is not None and demand >= 0.1)
    fits = 0
    while fits < len(computing) and sum(computing[: fits + 1]) <= cores + 0.1:
        fits += 1
    unknown = sum(demand is None for demand in demands)
    waits = sum(demand is not None and demand < 0.1 for demand in demands)
    overlaps = any(demand > 1.0 for demand in computing)
    assert chosen.size <= max(1, fits + overlaps + min(unknown, cores + 1)) + waits
