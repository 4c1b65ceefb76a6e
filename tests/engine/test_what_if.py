"""Computed runs: list scheduling by the engine's rules, makespans, and predictions of real runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.engine.resources import Resources
from paropt_exporter.engine.what_if import (
    ListScheduler,
    RecordedTask,
    StartedTask,
    Workload,
    build_workload,
    compute_makespan,
    count_most_at_once,
)
from paropt_exporter.events import TaskTiming
from paropt_exporter.plan import PlannedStage
from support.lanes import stage


def took(
    tasks: Sequence[RecordedTask],
    workers: int,
    *stages: PlannedStage,
    cores: float = 2.0,
    other_threads: float = 0.0,
    memory_bytes: int = 1 << 30,
) -> float:
    planned = stages or tuple(stage(name) for name in sorted({piece.stage for piece in tasks}))
    workload = Workload(tasks=tuple(tasks), other_threads=other_threads)
    return compute_makespan(workload, planned, workers=workers, cores=cores, memory_bytes=memory_bytes)


def equal_tasks(
    count: int, seconds: float = 2.0, cpu_demand: float = 0.0, name: str = "a", **fields: bool
) -> list[RecordedTask]:
    return [RecordedTask(stage=name, seconds=seconds, cpu_demand=cpu_demand, **fields) for _ in range(count)]


def attempt(
    number: int, begin: float, seconds: float, *, cpu: float = 0.0, delay: float = 0.0, gil_bound: bool = False
) -> TaskTiming:
    return TaskTiming(
        stage="a",
        task=number,
        started_seconds=begin,
        duration_seconds=seconds,
        cpu_seconds=cpu,
        run_delay_seconds=delay,
        gil_bound=gil_bound,
    )


def test_sleeping_tasks_use_all_workers() -> None:
    assert [took(equal_tasks(5), workers) for workers in (1, 2, 4, 5, 64)] == [10.0, 6.0, 4.0, 2.0, 2.0]


def test_stage_of_many_slots_at_its_limit_holds_up_no_other() -> None:
    tasks = [*equal_tasks(3), *equal_tasks(1, 6.0, name="b")]
    planned = stage("a", slots=2), stage("b")
    workload = Workload(tasks=tuple(tasks))
    assert compute_makespan(workload, planned, workers=8, cores=2.0, memory_bytes=1, limits={"a": 1}) == 6.0


def test_computing_tasks_gain_nothing_beyond_the_cores() -> None:
    assert [took(equal_tasks(4, cpu_demand=1.0), workers) for workers in (1, 2, 4)] == pytest.approx([8.0, 4.0, 4.0])


def test_half_sleeping_tasks_fill_the_cores_at_twice_as_many() -> None:
    assert [took(equal_tasks(4, cpu_demand=0.5), workers) for workers in (1, 2, 4)] == pytest.approx([8.0, 4.0, 2.0])
    assert took(equal_tasks(8, cpu_demand=0.5), 8) == pytest.approx(4.0)  # 8 s of computing on 2 cores


def test_task_of_many_threads_is_slowed_by_missing_cores() -> None:
    assert took(equal_tasks(1, cpu_demand=4.0), 1) == pytest.approx(4.0)


def test_tasks_under_one_interpreter_lock_gain_nothing() -> None:
    assert took(equal_tasks(4, cpu_demand=1.0, gil_bound=True), 4, cores=8.0) == pytest.approx(8.0)


def test_stages_wait_for_their_needs() -> None:
    tasks = [*equal_tasks(1, name="a"), *equal_tasks(1, 3.0, name="b"), *equal_tasks(1, 4.0, name="c")]
    assert took(tasks, 8, stage("b", needs=("a",)), stage("a"), stage("c", needs=("skipped",))) == 5.0


def test_locks_and_exclusive_stages_keep_apart() -> None:
    tasks = [*equal_tasks(2, name="a"), *equal_tasks(1, name="b")]
    assert took(tasks, 8, stage("a", locks=frozenset({"db"})), stage("b", locks=frozenset({"db"}))) == 4.0
    assert took(tasks, 8, stage("a"), stage("b", exclusive=True)) == 4.0


@pytest.mark.parametrize("room", [{"exclusive": True}, {"slots": 2, "locks": frozenset({"db"})}])
def test_stage_that_waits_for_begun_ones_lets_their_other_tasks_start(room: dict[str, Any]) -> None:
    tasks = [*equal_tasks(1, name="first"), *equal_tasks(1, name="big"), *equal_tasks(4, name="begun")]
    begun = stage("begun", locks=frozenset({"db"}))
    assert took(tasks, 2, stage("first"), stage("big", needs=("first",), **room), begun) == 8.0


def test_slots_and_memory_bound_the_running_tasks() -> None:
    assert took(equal_tasks(4), 4, stage("a", slots=2)) == 4.0
    assert took(equal_tasks(4), 1, stage("a", slots=2)) == 8.0
    assert took(equal_tasks(4), 4, stage("a", memory_bytes=400), memory_bytes=1000) == 4.0


def test_empty_workloads_take_no_time() -> None:
    assert took(equal_tasks(3, 0.0), 1) == 0.0
    assert took([], 1, stage("a")) == 0.0


@given(
    seconds=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=40),
    workers=st.integers(1, 10),
)
def test_schedule_lies_between_the_work_and_grahams_bound(seconds: list[float], workers: int) -> None:
    tasks = [RecordedTask(stage="a", seconds=each, cpu_demand=0.0) for each in seconds]
    found = took(tasks, workers)
    assert found >= max(max(seconds), sum(seconds) / workers) * (1 - 1e-6)
    assert found <= (sum(seconds) / workers + max(seconds)) * (1 + 1e-6)


@given(
    shares=st.lists(st.floats(0.0, 3.0), min_size=1, max_size=20),
    workers=st.integers(1, 20),
    other_threads=st.floats(0.0, 10.0),
)
def test_schedule_never_exceeds_the_cores(shares: list[float], workers: int, other_threads: float) -> None:
    tasks = [RecordedTask(stage="a", seconds=2.0, cpu_demand=cpu_demand) for cpu_demand in shares]
    assert took(tasks, workers, other_threads=other_threads) >= sum(2.0 * cpu_demand for cpu_demand in shares) / 2.0 * (
        1 - 1e-6
    )


def test_other_processes_take_their_part_of_the_cores() -> None:
    assert took(equal_tasks(2, cpu_demand=1.0), 2, other_threads=2.0) == pytest.approx(4.0)
    assert took(equal_tasks(2, cpu_demand=1.0), 1, other_threads=3.0) == pytest.approx(8.0)


def test_waits_for_a_core_are_removed() -> None:
    crowded = [attempt(number, 0.0, 4.0, cpu=2.0, delay=2.0) for number in range(4)]
    assert build_workload(crowded, 2.0) == Workload(
        tasks=(RecordedTask(stage="a", seconds=2.0, cpu_demand=1.0),) * 4, other_threads=0.0
    )


def test_waits_caused_by_other_processes_count_as_their_threads() -> None:
    found = build_workload([attempt(0, 0.0, 4.0, cpu=2.0, delay=2.0)], 2.0)
    assert found == Workload(tasks=(RecordedTask(stage="a", seconds=2.0, cpu_demand=1.0),), other_threads=3.0)


def test_only_simultaneous_tasks_explain_each_others_waits() -> None:
    before = attempt(0, 0.0, 2.0, cpu=1.0, delay=1.0)
    crowded = [attempt(number, 10.0, 4.0, cpu=2.0, delay=2.0) for number in range(1, 5)]
    assert build_workload(crowded, 2.0).other_threads == 0.0
    # 3 threads in 1 of 9 s of computing.
    assert build_workload([before, *crowded], 2.0).other_threads == pytest.approx(1 / 3)


def test_spare_cores_are_no_load_of_other_processes() -> None:
    assert build_workload([attempt(0, 0.0, 2.0, cpu=2.0)], 2.0).other_threads == 0.0
    assert build_workload([attempt(0, 0.0, 2.02, cpu=2.0, delay=0.02)], 2.0).other_threads < 0.05


# Ten Python commands of 0.4 s, run with 8 workers and then with 2 on a machine of 2 cores with 8 other threads:
# duration, CPU seconds and delay of each task, in the order of their starts. The runs took 4.9 and 8.4 s.
EIGHT = (
    (3.11, 0.41, 2.71), (2.90, 0.40, 2.51), (2.95, 0.40, 2.55), (3.15, 0.41, 2.74), (2.94, 0.40, 2.56),
    (3.15, 0.41, 2.76), (3.17, 0.41, 2.76), (3.16, 0.41, 2.74), (1.87, 0.40, 1.48), (1.78, 0.41, 1.38),
)  # fmt: skip
TWO = (
    (1.78, 0.40, 1.37), (1.83, 0.40, 1.43), (1.29, 0.40, 0.90), (1.66, 0.40, 1.26), (1.60, 0.40, 1.21),
    (1.68, 0.40, 1.28), (1.53, 0.41, 1.14), (1.63, 0.40, 1.24), (1.56, 0.41, 1.15), (1.42, 0.41, 1.02),
)  # fmt: skip


def recorded(rows: Sequence[tuple[float, float, float]], workers: int) -> Workload:
    free = [0.0] * workers
    timings = []
    for number, (seconds, cpu, delay) in enumerate(rows):
        begin = min(free)
        free[free.index(begin)] = begin + seconds
        timings.append(attempt(number, begin, seconds, cpu=cpu, delay=delay))
    return build_workload(timings, 2.0)


@pytest.mark.parametrize(("rows", "workers"), [(EIGHT, 8), (TWO, 2)])
def test_prediction_matches_real_runs_on_a_busy_machine(
    rows: Sequence[tuple[float, float, float]], workers: int
) -> None:
    found = recorded(rows, workers)
    assert took(found.tasks, 8, other_threads=found.other_threads) == pytest.approx(4.9, rel=0.15)
    assert took(found.tasks, 2, other_threads=found.other_threads) == pytest.approx(8.4, rel=0.15)


def test_fewer_workers_are_not_slower_on_shared_cores() -> None:
    half_waiting = [attempt(number, 0.0, 8.0, cpu=1.0, delay=6.0) for number in range(16)]
    found = build_workload(half_waiting, 2.0)
    assert took(found.tasks, 4, other_threads=found.other_threads) == pytest.approx(8.0, rel=0.1)


def test_attempts_of_one_task_are_one_recorded_task() -> None:
    (piece,) = build_workload([attempt(0, 0.0, 1.0, cpu=0.5), attempt(0, 5.0, 3.0, cpu=0.5)], 2.0).tasks
    assert (piece.seconds, piece.cpu_demand) == (4.0, 0.25)


def test_gil_bound_task_is_as_long_as_its_cpu_time() -> None:
    (piece,) = build_workload([attempt(0, 0.0, 8.0, cpu=2.0, gil_bound=True)], 2.0).tasks
    assert piece == RecordedTask(stage="a", seconds=2.0, cpu_demand=1.0, gil_bound=True)


def test_intervals_that_touch_do_not_overlap() -> None:
    assert count_most_at_once([(0.0, 1.0), (1.0, 2.0), (1.5, 3.0)]) == 2
    assert count_most_at_once([]) == 0


GIB = 1 << 30


def build_scheduler(*stages: PlannedStage, tasks: int = 1) -> ListScheduler[int]:
    return ListScheduler(stages, {each.name: range(tasks) for each in stages}, Resources(GIB))


def labels(started: Sequence[StartedTask[int]]) -> list[str]:
    return [each.label for each in started]


def run_to_end(scheduler: ListScheduler[int], size: int, limits: Mapping[str, int] | None = None) -> list[list[str]]:
    """End all running tasks at once, round by round; return the labels that each round started."""
    rounds = []
    while not scheduler.has_ended:
        started = scheduler.start_tasks(size, limits or {})
        assert started, "no task can start, though some are left"
        rounds.append(labels(started))
        for each in started:
            scheduler.end_task(each)
    return rounds


def test_tasks_start_in_list_order_up_to_the_size() -> None:
    scheduler = build_scheduler(stage("a"), stage("b"), tasks=2)
    assert run_to_end(scheduler, 3) == [["a[0]", "a[1]", "b[0]"], ["b[1]"]]


def test_last_task_of_a_need_makes_its_dependents_startable() -> None:
    scheduler = build_scheduler(stage("b", needs=("a",)), stage("a"), tasks=2)
    first = scheduler.start_tasks(4)
    assert labels(first) == ["a[0]", "a[1]"]
    scheduler.end_task(first[0])
    assert labels(scheduler.start_tasks(4)) == []
    scheduler.end_task(first[1])
    assert labels(scheduler.start_tasks(4)) == ["b[0]", "b[1]"]


def test_need_without_tasks_passes_its_own_needs_on() -> None:
    """As a cached stage in the middle of a recorded run."""
    stages = [stage("c", needs=("b",)), stage("b", needs=("a", "left_out")), stage("a")]
    scheduler = ListScheduler(stages, {"a": (1,), "b": (), "c": (1,)}, Resources(GIB))
    assert run_to_end(scheduler, 2) == [["a[0]"], ["c[0]"]]


def test_stages_without_tasks_end_at_once() -> None:
    stages = [stage("a"), stage("b", needs=("a",)), stage("c", needs=("b",)), stage("d", needs=("c",))]
    assert run_to_end(ListScheduler(stages, {"b": (1,)}, Resources(GIB)), 2) == [["b[0]"]]
    assert run_to_end(ListScheduler(stages, {"a": (1,), "d": (1,)}, Resources(GIB)), 2) == [["a[0]"], ["d[0]"]]
    assert ListScheduler(stages, {}, Resources(GIB)).has_ended


def test_limit_leaves_slots_to_the_other_stages() -> None:
    scheduler = build_scheduler(stage("a"), stage("b"), tasks=2)
    assert labels(scheduler.start_tasks(3, {"a": 1})) == ["a[0]", "b[0]", "b[1]"]
    assert labels(scheduler.start_tasks(4)) == ["a[1]"]


def test_stage_that_needs_much_room_is_not_overtaken() -> None:
    scheduler = build_scheduler(stage("a"), stage("b", slots=2), stage("c"))
    assert run_to_end(scheduler, 2) == [["a[0]"], ["b[0]"], ["c[0]"]]


def test_stages_that_share_a_lock_start_one_after_the_other() -> None:
    lock = frozenset({"database"})
    assert run_to_end(build_scheduler(stage("a", locks=lock), stage("b", locks=lock)), 2) == [["a[0]"], ["b[0]"]]
