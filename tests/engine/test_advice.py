"""Advice on bottlenecks: given where the recorded run would have been faster, with the gain."""

from __future__ import annotations

from dataclasses import replace

import pytest

from paropt_exporter.engine.advice import MOST_TASKS, RecordedRun, advise
from paropt_exporter.events import Bottleneck, Strategy, TaskTiming
from paropt_exporter.families import LANE_BOTTLENECKS, STAGE_BOTTLENECKS
from paropt_exporter.plan import Bounds, Plan, PlannedStage
from support.lanes import plan, stage

ADAPTIVE = Bounds(minimum=1, maximum=8, start=2)


def rounds(
    count: int, workers: int, *, seconds: float = 2.0, cpu: float = 0.0, name: str = "a", gil_bound: bool = False
) -> tuple[TaskTiming, ...]:
    """Tasks of equal length, `workers` of them at once."""
    return tuple(
        TaskTiming(
            stage=name,
            task=number,
            started_seconds=number // workers * seconds,
            duration_seconds=seconds,
            cpu_seconds=cpu,
            gil_bound=gil_bound,
        )
        for number in range(count)
    )


def advice(
    kind: str, *timings: TaskTiming, planned: Plan, name: str | None = None, peak: int = 2, seconds: float | None = None
) -> str:
    found = Bottleneck(kind=kind, stage=name, sentence="a fact")
    run = RecordedRun(
        plan=planned,
        timings=timings,
        duration_seconds=max(each.ended_seconds for each in timings) if seconds is None else seconds,
        peak_size=peak,
        cores=2.0,
        memory_bytes=1 << 30,
    )
    (told,) = advise((found,), run)
    assert (told.kind, told.stage, told.sentence) == (kind, name, "a fact")
    return told.advice


def lane(*stages: PlannedStage, workers: int | Bounds = 2, strategy: Strategy = Strategy.THREAD) -> Plan:
    bounds = Bounds(minimum=workers, maximum=workers, start=workers) if isinstance(workers, int) else workers
    return replace(plan(*(stages or (stage("a", tasks=8),)), strategy=strategy), workers=bounds)


def test_more_workers_are_advised_for_waiting_tasks_with_the_time_they_save() -> None:
    told = advice("saturated", *rounds(8, 2), planned=lane())
    assert told == "8 workers would have taken 2.0 s instead of 8.0 s"


def test_no_more_workers_are_advised_where_all_cores_are_used() -> None:
    assert advice("saturated", *rounds(12, 2, cpu=2.0), planned=lane()) == ""


def test_no_more_workers_are_advised_that_would_only_take_cores_from_others() -> None:
    crowded = (
        TaskTiming(stage="a", task=number, started_seconds=number // 2 * 4.0, duration_seconds=4.0, cpu_seconds=1.0,
                   run_delay_seconds=3.0)
        for number in range(8)
    )  # fmt: skip
    assert advice("saturated", *crowded, planned=lane()) == ""


def test_adaptive_lane_is_told_to_grow_only_at_its_maximum() -> None:
    tasks = rounds(32, 8)
    assert advice("saturated", *tasks, planned=lane(workers=ADAPTIVE), peak=4) == ""
    assert advice("saturated", *tasks, planned=lane(workers=ADAPTIVE), peak=8).startswith("32 workers would")


def test_sequential_lane_is_not_told_to_have_more_workers() -> None:
    assert advice("saturated", *rounds(4, 1), planned=lane(strategy=Strategy.SEQUENTIAL), peak=1) == ""


def test_fewer_workers_are_advised_where_a_fixed_lane_takes_as_long_with_them() -> None:
    tasks = (*rounds(1, 1, seconds=6.0, name="long"), *rounds(6, 2, name="a"))
    stages = (stage("long"), stage("a", tasks=6))
    told = advice("under_used", *tasks, planned=lane(*stages, workers=8))
    assert told == "3 workers would have taken 6.0 s too"
    assert advice("under_used", *tasks, planned=lane(*stages, workers=ADAPTIVE)) == ""


def test_lane_that_needs_its_workers_is_not_told_to_have_fewer() -> None:
    assert advice("under_used", *rounds(8, 8), planned=lane(workers=8)) == ""


def test_processes_are_advised_where_cores_are_free_for_them() -> None:
    tasks = rounds(2, 2, seconds=4.0, cpu=2.0, gil_bound=True)
    told = advice("gil_bound", *tasks, planned=lane(), name="a")
    assert told == "run it in processes: 2.0 s instead of 4.0 s"
    assert advice("gil_bound", *rounds(2, 1, cpu=2.0, gil_bound=True), planned=lane(workers=1), name="a") == ""


@pytest.mark.parametrize("kind", ["slow", "uneven"])
def test_splitting_the_longest_task_is_advised_where_the_lane_waits_for_it(kind: str) -> None:
    stages = (stage("a"), stage("b", tasks=2))
    tasks = (*rounds(1, 1, seconds=6.0, name="a"), *rounds(2, 2, seconds=2.0, name="b"))
    told = advice(kind, *tasks, planned=lane(*stages, workers=3), name="a")
    assert told == "split it in two (items): 4.0 s instead of 6.0 s"
    assert advice(kind, *tasks, planned=lane(*stages, workers=3), name="b") == ""


def test_splitting_a_task_that_computes_is_not_advised_on_full_cores() -> None:
    tasks = (*rounds(1, 1, seconds=4.0, cpu=4.0, name="a"), *rounds(2, 1, seconds=2.0, cpu=2.0, name="b"))
    stages = (stage("a"), stage("b", tasks=2))
    assert advice("slow", *tasks, planned=lane(*stages, workers=2), name="a") == ""


def test_uneven_lane_is_advised_to_split_its_longest_stage() -> None:
    tasks = (*rounds(1, 1, seconds=6.0, name="a"), *rounds(1, 1, seconds=1.0, name="b"))
    told = advice("uneven", *tasks, planned=lane(stage("a"), stage("b"), workers=3))
    assert told == "split a in two (items): 3.0 s instead of 6.0 s"


def test_run_whose_time_the_recorded_tasks_do_not_explain_gets_no_advice() -> None:
    assert advice("saturated", *rounds(8, 2), planned=lane(), seconds=12.0) == ""


def test_run_of_very_many_tasks_gets_no_advice() -> None:
    assert advice("saturated", *rounds(MOST_TASKS + 1, 2), planned=lane()) == ""


@pytest.mark.parametrize("kind", sorted({*STAGE_BOTTLENECKS, *LANE_BOTTLENECKS}))
def test_every_kind_of_bottleneck_is_tried(kind: str) -> None:
    assert advice(kind, *rounds(2, 2, cpu=2.0), planned=lane(stage("a", tasks=2)), name="a") == ""
