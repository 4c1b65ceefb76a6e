"""A run's record: bottlenecks by numbers, and advice where the recorded run would have been faster."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.engine import run_record
from paropt_exporter.engine.run_record import MOST_TASKS, RecordedRun, add_advice
from paropt_exporter.events import Bottleneck, Result, StageRecord, Strategy, TaskTiming
from paropt_exporter.families import LANE_BOTTLENECKS, STAGE_BOTTLENECKS
from paropt_exporter.plan import Bounds, Call, Commands, Plan, PlannedStage, PlannedTask, Work
from support.lanes import plan, stage

ADAPTIVE = Bounds(minimum=1, maximum=8, start=2)


def record(name: str, seconds: float, **fields: Any) -> StageRecord:
    defaults: dict[str, Any] = {
        "run_id": "r1",
        "lane": "standard",
        "stage": name,
        "number": 2,
        "result": Result.SUCCESS,
        "message": "",
        "pool": "commands",
        "tasks": 1,
        "tasks_failed": 0,
        "duration_seconds": seconds,
        "started_timestamp_seconds": 1.0,
    }
    return StageRecord(**(defaults | fields))


def kinds(*stages: StageRecord, busy_ratio: float = 0.7, queued: bool = False) -> set[tuple[str | None, str]]:
    found = run_record.find_bottlenecks(stages, busy_ratio=busy_ratio, queued=queued)
    assert all(bottleneck.sentence for bottleneck in found)
    return {(bottleneck.stage, bottleneck.kind) for bottleneck in found}


def test_stage_over_one_and_a_half_times_the_average_is_slow() -> None:
    assert kinds(record("a", 10), record("b", 16), record("c", 5)) == {("b", "slow"), (None, "uneven")}


def test_stage_at_one_and_a_half_times_the_average_is_not_slow() -> None:
    assert kinds(record("a", 2), record("b", 6), record("c", 4)) == set()


def test_longer_of_two_stages_is_uneven_and_not_slow() -> None:
    assert kinds(record("a", 10), record("b", 1)) == {(None, "uneven")}


def test_timed_out_stage_does_not_count() -> None:
    timed_out = record("c", 30, result=Result.TIMEOUT)
    assert kinds(record("a", 2), record("b", 2), timed_out) == set()
    assert kinds(record("a", 2), record("b", 2), record("d", 7), timed_out) == {("d", "slow"), (None, "uneven")}


def test_early_failure_makes_no_other_stage_slow() -> None:
    failed = record("f", 0.01, result=Result.FAILURE)
    assert kinds(record("a", 4), record("b", 4), record("c", 5), failed) == set()
    assert kinds(record("a", 2), record("b", 4), failed) == set()


def test_late_failure_may_be_slow() -> None:
    late = record("f", 12, result=Result.FAILURE)
    assert kinds(record("a", 5), record("b", 5), record("c", 5), late) == {("f", "slow")}


def test_slowest_task_over_three_times_the_fastest_is_uneven() -> None:
    assert kinds(record("a", 10, tasks=4, fastest_task_seconds=1, slowest_task_seconds=3.1)) == {("a", "uneven")}
    assert kinds(record("a", 10, tasks=4, fastest_task_seconds=1, slowest_task_seconds=3.0)) == set()


def test_ratios_of_tiny_durations_are_no_bottleneck() -> None:
    assert kinds(record("a", 0.001), record("b", 0.05)) == set()


def test_lane_is_under_used_below_half_and_saturated_above_nine_tenths() -> None:
    assert kinds(record("a", 1), busy_ratio=0.49) == {(None, "under_used")}
    assert kinds(record("a", 1), busy_ratio=0.5) == set()
    assert kinds(record("a", 1), busy_ratio=0.91, queued=True) == {(None, "saturated")}
    assert kinds(record("a", 1), busy_ratio=0.91, queued=False) == set()


def test_use_of_the_workers_in_a_moment_is_no_bottleneck() -> None:
    assert kinds(record("a", 0.05), record("b", 0.09), busy_ratio=0.01) == set()
    assert kinds(record("a", 0.05), record("b", 0.09), busy_ratio=0.99, queued=True) == set()


def test_gil_bound_work_is_named_as_in_the_guide() -> None:
    (found,) = run_record.find_bottlenecks(
        [record("a", 1, cpu_seconds=1, gil_bound=True)], busy_ratio=0.7, queued=False
    )
    assert found.kind == "gil_bound"
    assert "High CPU usage" in found.sentence


def test_gil_bound_work_of_a_moment_is_no_bottleneck() -> None:
    assert kinds(record("a", 0.05, cpu_seconds=0.05, gil_bound=True)) == set()


def test_gil_bound_stage_is_no_bottleneck_if_it_mostly_waited_for_its_turn() -> None:
    """On a busy machine ten calls that compute for half a millisecond take a second."""
    assert kinds(record("a", 1, tasks=10, cpu_seconds=0.005, gil_bound=True)) == set()


@pytest.mark.parametrize(("seconds", "ratio"), [(3.2, "3.2x"), (236.6, "237x")])
def test_large_ratio_has_no_decimals(seconds: float, ratio: str) -> None:
    (found,) = run_record.find_bottlenecks([record("a", 1), record("b", seconds)], busy_ratio=0.7, queued=False)
    assert found.sentence == f"stages are uneven: b took {ratio} as long as a"


def test_skipped_stages_do_not_count() -> None:
    assert kinds(record("a", 2), record("b", 0, result=Result.SKIP, started_timestamp_seconds=None)) == set()


def test_early_failure_makes_no_lane_uneven() -> None:
    assert kinds(record("a", 4), record("b", 0.01, result=Result.FAILURE), record("c", 4)) == set()


def rounds(
    count: int, workers: int, *, seconds: float = 2.0, cpu: float = 0.0, name: str = "a", gil_bound: bool = False
) -> tuple[TaskTiming, ...]:
    """Return tasks of equal length, `workers` of them at once."""
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
    (advised,) = add_advice((found,), run)
    assert (advised.kind, advised.stage, advised.sentence) == (kind, name, "a fact")
    return advised.advice


def lane(*stages: PlannedStage, workers: int | Bounds = 2, strategy: Strategy = Strategy.THREAD) -> Plan:
    bounds = Bounds(minimum=workers, maximum=workers, start=workers) if isinstance(workers, int) else workers
    return replace(plan(*(stages or (stage("a", tasks=8),)), strategy=strategy), workers=bounds)


def test_more_workers_are_advised_with_the_time_saved() -> None:
    advised = advice("saturated", *rounds(8, 2), planned=lane())
    assert advised == "8 workers would have taken 2.0 s instead of 8.0 s"


def test_no_workers_are_advised_on_full_cores() -> None:
    assert advice("saturated", *rounds(12, 2, cpu=2.0), planned=lane()) == ""


def test_no_workers_are_advised_at_the_cost_of_other_processes() -> None:
    crowded = (
        TaskTiming(stage="a", task=number, started_seconds=number // 2 * 4.0, duration_seconds=4.0, cpu_seconds=1.0,
                   run_delay_seconds=3.0)
        for number in range(8)
    )  # fmt: skip
    assert advice("saturated", *crowded, planned=lane()) == ""


def test_adaptive_lane_gets_advice_to_grow_only_at_its_maximum() -> None:
    tasks = rounds(32, 8)
    assert advice("saturated", *tasks, planned=lane(workers=ADAPTIVE), peak=4) == ""
    assert advice("saturated", *tasks, planned=lane(workers=ADAPTIVE), peak=8).startswith("32 workers would")


def test_sequential_lane_gets_no_advice_to_grow() -> None:
    assert advice("saturated", *rounds(4, 1), planned=lane(strategy=Strategy.SEQUENTIAL), peak=1) == ""


def test_fewer_workers_are_advised_if_they_take_as_long() -> None:
    tasks = (*rounds(1, 1, seconds=6.0, name="long"), *rounds(6, 2, name="a"))
    stages = (stage("long"), stage("a", tasks=6))
    advised = advice("under_used", *tasks, planned=lane(*stages, workers=8))
    assert advised == "3 workers would have taken 6.0 s too"
    assert advice("under_used", *tasks, planned=lane(*stages, workers=ADAPTIVE)) == ""


class UnscheduledRun(RecordedRun):
    """A run that must not be scheduled again."""

    @cached_property
    def is_explained(self) -> bool:
        raise AssertionError("it was scheduled again")


@pytest.mark.parametrize("kind", ["under_used", "saturated"])
def test_adaptive_lane_below_its_maximum_is_not_scheduled_again(kind: str) -> None:
    run = UnscheduledRun(
        plan=lane(workers=ADAPTIVE), timings=rounds(2, 2), duration_seconds=2.0, peak_size=2, cores=2.0, memory_bytes=0
    )
    (advised,) = add_advice((Bottleneck(kind=kind, stage=None, sentence="a fact"),), run)
    assert advised.advice == ""


@pytest.mark.parametrize("name", ["a", None])
def test_splitting_an_eleventh_of_the_run_is_not_tried(name: str | None) -> None:
    timings = rounds(22, 2)
    run = UnscheduledRun(
        plan=lane(workers=ADAPTIVE), timings=timings, duration_seconds=22.0, peak_size=2, cores=2.0, memory_bytes=0
    )
    (advised,) = add_advice((Bottleneck(kind="uneven", stage=name, sentence="a fact"),), run)
    assert advised.advice == ""


def test_lane_that_needs_its_workers_gets_no_advice_to_shrink() -> None:
    assert advice("under_used", *rounds(8, 8), planned=lane(workers=8)) == ""


def test_processes_are_advised_on_free_cores() -> None:
    tasks = rounds(2, 2, seconds=4.0, cpu=2.0, gil_bound=True)
    advised = advice("gil_bound", *tasks, planned=lane(), name="a")
    assert advised == "run it in processes: 2.0 s instead of 4.0 s"
    assert advice("gil_bound", *rounds(2, 1, cpu=2.0, gil_bound=True), planned=lane(workers=1), name="a") == ""


def whole(name: str, work: Work) -> PlannedStage:
    return replace(stage(name), tasks=(PlannedTask(index=0, item=None, work=work),))


PYTEST = Commands(steps=(("python", "-m", "pytest", "tests"),))
CALL = Call(target="module:function", arguments=())


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (PYTEST, 12.5), (Commands(steps=(("flake8",),)), 12.5), (CALL, 10.0),
        (Commands(steps=(("mypy", "src"),)), None), (Commands(steps=(("sleep", "20"),)), None),
        (Commands(steps=(("tsc",),)), None), (Commands(steps=(("make",), ("pytest",))), None),
    ],
)  # fmt: skip
def test_items_are_advised_for_work_that_takes_them(work: Work, seconds: float | None) -> None:
    tasks = (*rounds(1, 1, seconds=20.0, name="a"), *rounds(1, 1, seconds=1.0, name="b"))
    told = advice("uneven", *tasks, planned=lane(whole("a", work), stage("b"), workers=3))
    assert told == (f"split a in two (items): {seconds} s instead of 20.0 s" if seconds else "")


@pytest.mark.parametrize(("work", "advised"), [(PYTEST, False), (CALL, True)])
def test_splitting_a_brief_suite_is_not_advised(work: Work, advised: bool) -> None:
    tasks = (*rounds(1, 1, seconds=6.0, name="a"), *rounds(1, 1, seconds=1.0, name="b"))
    assert bool(advice("uneven", *tasks, planned=lane(whole("a", work), stage("b"), workers=3))) == advised


@pytest.mark.parametrize("kind", ["slow", "uneven"])
def test_splitting_the_longest_task_is_advised_if_the_lane_waits_for_it(kind: str) -> None:
    stages = (whole("a", CALL), stage("b", tasks=2))
    tasks = (*rounds(1, 1, seconds=6.0, name="a"), *rounds(2, 2, seconds=2.0, name="b"))
    advised = advice(kind, *tasks, planned=lane(*stages, workers=3), name="a")
    assert advised == "split it in two (items): 4.0 s instead of 6.0 s"
    assert advice(kind, *tasks, planned=lane(*stages, workers=3), name="b") == ""


@pytest.mark.parametrize(("items", "advised"), [(("a.py",), True), (("a.py", "b.py"), False)])
def test_splitting_a_batch_of_several_items_is_not_advised(items: tuple[str, ...], advised: bool) -> None:
    """The first run of a suite told its user to split the longest task, which the next run cuts by itself."""
    first, second = stage("a", tasks=2).tasks
    batches = (replace(first, items=items), replace(second, items=("c.py",)))
    tasks = (*rounds(1, 1, seconds=6.0, name="a"), replace(rounds(1, 1, seconds=1.0, name="a")[0], task=1))
    planned = lane(replace(stage("a"), tasks=batches), workers=2)
    assert bool(advice("uneven", *tasks, planned=planned, name="a")) == advised


def test_splitting_a_task_that_computes_is_not_advised_on_full_cores() -> None:
    tasks = (*rounds(1, 1, seconds=4.0, cpu=4.0, name="a"), *rounds(2, 1, seconds=2.0, cpu=2.0, name="b"))
    stages = (whole("a", CALL), stage("b", tasks=2))
    assert advice("slow", *tasks, planned=lane(*stages, workers=2), name="a") == ""


def test_uneven_lane_is_advised_to_split_its_longest_stage() -> None:
    tasks = (*rounds(1, 1, seconds=20.0, name="a"), *rounds(1, 1, seconds=1.0, name="b"))
    advised = advice("uneven", *tasks, planned=lane(whole("a", PYTEST), stage("b"), workers=3))
    assert advised == "split a in two (items): 12.5 s instead of 20.0 s"


@pytest.mark.parametrize(
    ("fields", "advised"),
    [({}, True), ({"result": Result.FAILURE}, False), ({"tasks": 2}, False)],
    ids=["one command", "failed", "with items"],
)
def test_only_stage_of_a_lane_is_advised_to_have_items(fields: dict[str, Any], advised: bool) -> None:
    """There is no other stage to which it could be compared, and a core is idle all the time."""
    told = {}
    for partial in (False, True):
        run = RecordedRun(
            plan=replace(lane(whole("a", PYTEST), workers=ADAPTIVE), partial=partial),
            timings=rounds(1, 1, seconds=20.0, cpu=20.0),
            duration_seconds=20.0,
            peak_size=1,
            cores=2.0,
            memory_bytes=1 << 30,
        )
        told[partial] = run_record.advise_on_single_stage((record("a", 20.0, **fields),), run)
    assert told == {False: "split a in two (items): 12.5 s instead of 20.0 s" if advised else "", True: ""}


def test_retried_task_is_not_advised_to_be_split() -> None:
    tried = (*rounds(1, 1, seconds=3.0, name="a"), *rounds(2, 1, seconds=3.0, name="a")[1:], *rounds(1, 1, name="b"))
    again = tuple(replace(each, task=0) for each in tried)
    assert advice("uneven", *again, planned=lane(whole("a", CALL), stage("b"), workers=3)) == ""


def test_unexplained_run_gets_no_advice() -> None:
    assert advice("saturated", *rounds(8, 2), planned=lane(), seconds=12.0) == ""


def test_run_of_very_many_tasks_gets_no_advice() -> None:
    assert advice("saturated", *rounds(MOST_TASKS + 1, 2), planned=lane()) == ""


@pytest.mark.parametrize("kind", sorted({*STAGE_BOTTLENECKS, *LANE_BOTTLENECKS}))
def test_every_kind_of_bottleneck_is_tried(kind: str) -> None:
    assert advice(kind, *rounds(2, 2, cpu=2.0), planned=lane(stage("a", tasks=2)), name="a") == ""
