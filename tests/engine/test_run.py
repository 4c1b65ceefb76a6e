"""The engine on a fake clock: order, needs, retries, limits and stopping, without a process or a second of waiting."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.engine.attempt import compute_demand
from paropt_exporter.engine.interfaces import Admission, RunningAttempt, StageCounts
from paropt_exporter.events import (
    Event,
    LiveStage,
    PoolUse,
    Result,
    RunRecord,
    RunStarted,
    SlaRecord,
    StageRecord,
    StageStarted,
    Strategy,
    TaskRecord,
)
from paropt_exporter.executors.base import RemoteTaskOptions, find_stage
from paropt_exporter.plan import PlannedStage
from paropt_exporter.plan.structure import Deadline
from paropt_exporter.testing import Script
from support.event_samples import task
from support.lanes import GIB, Bench, limit, plan, stage, stages_of


def test_independent_stages_run_at_the_same_time() -> None:
    bench = Bench(plan(stage("a"), stage("b")), {"a": [Script(seconds=5)], "b": [Script(seconds=3)]})
    record = bench.run()
    assert bench.starts == {"a": 0.0, "b": 0.0}
    assert record.result is Result.SUCCESS
    assert record.duration_seconds == 5
    assert record.sequential_seconds == 8


def test_stage_starts_when_its_last_need_has_succeeded() -> None:
    bench = Bench(
        plan(stage("a"), stage("b"), stage("c", needs=("a", "b"))), {"a": [Script(seconds=2)], "b": [Script(seconds=4)]}
    )
    bench.run()
    assert bench.starts["c"] == 4


def test_dependents_of_a_failed_stage_are_skipped_and_others_run() -> None:
    bench = Bench(
        plan(stage("a"), stage("b", needs=("a",)), stage("c", needs=("b",)), stage("d")),
        {"a": [Script(result=Result.FAILURE, message="exit 1")], "d": [Script(seconds=9)]},
    )
    record = bench.run()
    assert stages_of(record) == {
        "a": ("failure", "exit 1"),
        "b": ("skip", "needs a"),
        "c": ("skip", "needs b"),
        "d": ("success", ""),
    }
    assert record.result is Result.FAILURE
    assert record.reason == "a failed"


def test_stages_start_in_plan_order_as_slots_come_free() -> None:
    bench = Bench(plan(stage("a"), stage("b"), stage("c"), workers=1))
    bench.run()
    assert bench.workers.started == [(0, "a"), (1, "b"), (2, "c")]
    assert bench.workers.peak == 1


def test_full_pool_delays_only_its_own_stages() -> None:
    bench = Bench(
        plan(stage("a", pool="commands"), stage("b", pool="commands"), stage("c", pool="threads")),
        sizes={"commands": 1},
    )
    bench.run()
    assert bench.starts == {"a": 0, "c": 0, "b": 1}


@pytest.mark.parametrize(("pool", "found"), [("threads", ["gil_bound"]), ("processes", [])])
def test_computing_stage_is_a_bottleneck_in_threads_only(pool: str, found: list[str]) -> None:
    bench = Bench(plan(stage("a", tasks=2, pool=pool)), {"a": [Script(cpu_seconds=1)]})
    bench.workers.gil_bound.add("a")
    assert [bottleneck.kind for bottleneck in bench.run().bottlenecks if bottleneck.stage == "a"] == found


@pytest.mark.parametrize(("seconds", "found"), [(2.5, []), (7.5, ["gil_bound"])])
def test_stage_is_bound_by_the_lock_if_it_was_for_most_of_its_time(seconds: float, found: list[str]) -> None:
    """A stage of which one call had been read as computing counted as bound to the end of its run."""
    bench = Bench(plan(stage("a", tasks=10, pool="threads"), workers=1), {"a": [Script(cpu_seconds=1)]})
    bench.workers.gil_bound.add("a")
    bench.inbox.at(seconds, bench.workers.gil_bound.clear)
    assert [bottleneck.kind for bottleneck in bench.run().bottlenecks if bottleneck.stage == "a"] == found


@pytest.mark.parametrize(
    ("pool", "gil_bound", "cores"),
    [
        ("threads", False, 1 / 7), ("threads", True, 1.0), ("processes", False, 1 / 7), ("processes", True, 1 / 7),
        ("commands", False, 65 / 95),
    ],
)  # fmt: skip
def test_long_wait_of_a_call_for_a_core_is_no_demand(pool: str, gil_bound: bool, cores: float) -> None:
    """As in the history: the waits of a command's processes may overlap, so they may be its demand."""
    ended = replace(task("naps", seconds=0.095), pool=pool, cpu_seconds=0.005, run_delay_seconds=0.06)
    assert compute_demand(ended, gil_bound=gil_bound) == pytest.approx(cores)


def test_attempt_has_the_wall_time_of_its_start() -> None:
    bench = Bench(plan(stage("a", tasks=2), workers=1), {"a": [Script(seconds=5)] * 2})
    started = bench.run().started_timestamp_seconds
    records = [event for event in bench.events if isinstance(event, TaskRecord)]
    assert [record.started_timestamp_seconds for record in records] == [started, started + 5]


def test_tasks_of_one_stage_fill_the_slots_and_are_labelled() -> None:
    bench = Bench(plan(stage("a", tasks=5), workers=2))
    record = bench.run()
    assert [label for _, label in bench.workers.started] == ["a[0]", "a[1]", "a[2]", "a[3]", "a[4]"]
    assert record.duration_seconds == 3
    assert len(bench.recorder.of(TaskRecord)) == 5


def test_labels_differ_though_a_stage_has_the_name_of_a_task() -> None:
    bench = Bench(plan(stage("a", tasks=2), stage("a[0]", number=2), stage("b[x]", number=3), workers=4))
    assert bench.run().result is Result.SUCCESS
    labels = [label for _, label in bench.workers.started]
    assert labels == ["a[0]", "a[1]", "a[0][0]", "b[x]"]
    assert [find_stage(label) for label in labels] == ["a", "a", "a[0]", "b[x]"]


def test_sequential_runs_one_task_at_a_time_in_the_order_of_the_numbers() -> None:
    planned = plan(stage("late", number=9), stage("early", number=1, tasks=2), strategy=Strategy.SEQUENTIAL)
    bench = Bench(planned)
    bench.run()
    assert bench.workers.started == [(0, "early[0]"), (1, "early[1]"), (2, "late")]


def test_resize_lets_more_tasks_start_at_once() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=1), {"a": [Script(seconds=10)]})
    bench.inbox.at(2.0, lambda: bench.engine.resize(4))
    record = bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 2, 2, 2]
    assert record.duration_seconds == 12


def test_smaller_size_never_interrupts_running_tasks() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=2), {"a": [Script(seconds=10)]})
    bench.inbox.at(2.0, lambda: bench.engine.resize(1))
    record = bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 0, 10, 20]
    assert record.result is Result.SUCCESS


def test_limited_stage_leaves_its_slots_to_the_others() -> None:
    bench = Bench(plan(stage("a", tasks=4), stage("b", tasks=4), workers=4), {"a": [Script(seconds=10)]})
    bench.engine.set_stage_limits({"a": 1})
    bench.run()
    assert [moment for moment, label in bench.workers.started if label.startswith("a")] == [0, 10, 20, 30]
    assert [moment for moment, label in bench.workers.started if label.startswith("b")] == [0, 0, 0, 1]


def test_limited_stage_of_several_slots_starves_no_other() -> None:
    bench = Bench(plan(stage("a", tasks=2, slots=2), stage("b"), workers=4), {"a": [Script(seconds=10)]})
    bench.engine.set_stage_limits({"a": 1})
    bench.run()
    assert bench.starts == {"a[0]": 0, "b": 0, "a[1]": 10}


def test_lifted_limit_lets_the_rest_start() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=4), {"a": [Script(seconds=10)]})
    bench.engine.set_stage_limits({"a": 1})
    bench.inbox.at(2.0, lambda: bench.engine.set_stage_limits({}))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 2, 2, 2]


def test_demand_counts_the_time_of_a_stages_attempts() -> None:
    scripts = [Script(seconds=2), Script(seconds=6), Script(seconds=4)]
    bench = Bench(plan(stage("a", tasks=4), workers=2), {"a": scripts})
    seen: list[StageCounts] = []
    bench.inbox.at(5.0, lambda: seen.extend(bench.engine.measure_demand().stages))
    bench.run()
    (counts,) = seen
    assert (counts.running, counts.waiting, counts.ended) == (2, 1, 1)
    assert (counts.busy_seconds, counts.fastest_seconds) == (2 + 5 + 3, 2)


# Retries


def test_flaky_task_is_retried_after_doubling_back_offs() -> None:
    failing = Script(result=Result.FAILURE, message="exit 1")
    bench = Bench(plan(stage("a", retries=2, backoff_seconds=3.0)), {"a": [failing, failing, Script()]})
    record = bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 1 + 3, 5 + 6]
    assert record.stages[0].result is Result.SUCCESS
    assert record.stages[0].attempts == 3
    assert [(task.attempt, task.result.value, task.final) for task in bench.recorder.of(TaskRecord)] == [
        (1, "failure", False),
        (2, "failure", False),
        (3, "success", True),
    ]


def test_task_that_fails_every_attempt_names_their_number() -> None:
    bench = Bench(plan(stage("a", retries=1)), {"a": [Script(result=Result.FAILURE, message="exit 3")]})
    assert stages_of(bench.run()) == {"a": ("failure", "exit 3 (after 2 attempts)")}


def test_without_retries_nothing_runs_twice() -> None:
    bench = Bench(plan(stage("a")), {"a": [Script(result=Result.ERROR, message="killed by SIGKILL (9)")]})
    bench.run()
    assert len(bench.workers.started) == 1


# Timeouts and SLAs


def test_attempt_over_its_limit_is_terminated_then_killed() -> None:
    bench = Bench(plan(stage("a", timeout_seconds=5.0)), {"a": [Script(seconds=100, term_seconds=1000)]})
    record = bench.run()
    assert bench.workers.attempts[0].stops == [(5.0, 10.0)]
    assert record.duration_seconds == 15
    assert stages_of(record) == {"a": ("timeout", "timed out after 5 s")}


def test_success_at_the_moment_of_the_limit_is_a_success() -> None:
    bench = Bench(plan(stage("a", timeout_seconds=5.0)), {"a": [Script(seconds=5)]})
    assert bench.run().result is Result.SUCCESS


def test_timeout_does_not_count_the_wait_for_a_worker_of_a_cluster() -> None:
    bench = Bench(plan(stage("a", timeout_seconds=60.0, remote=RemoteTaskOptions())), {"a": [Script(seconds=300)]})

    def set_start(moment: float | None) -> None:
        bench.workers.attempts[0].started_seconds = moment

    bench.inbox.at(1.0, lambda: set_start(None))
    bench.inbox.at(90.0, lambda: set_start(90.0))
    assert stages_of(bench.run()) == {"a": ("timeout", "timed out after 60 s")}
    assert bench.workers.attempts[0].stops == [(150.0, 10.0)]


def test_warning_and_violation_are_emitted_once_while_the_stage_runs() -> None:
    bench = Bench(plan(stage("a", sla=limit(10))), {"a": [Script(seconds=30)]})
    record = bench.run()
    emitted = [(event.stage, event.broken, event.elapsed_seconds) for event in bench.recorder.of(SlaRecord)]
    assert emitted == [("a", False, 8.0), ("a", True, 10.0)]
    assert record.result is Result.SUCCESS
    assert (record.stages[0].warned, record.stages[0].broken) == (True, True)


def test_stage_under_its_warning_counts_as_checked() -> None:
    bench = Bench(plan(stage("a", sla=limit(10))), {"a": [Script(seconds=7.9)]})
    record = bench.run()
    assert bench.recorder.of(SlaRecord) == []
    assert record.stages[0].checked


def test_critical_violation_stops_the_lane_and_names_skipped_stages() -> None:
    bench = Bench(
        plan(stage("a", sla=limit(10, critical=True)), stage("b"), stage("c", needs=("b",))),
        {"a": [Script(seconds=60)], "b": [Script(seconds=60)]},
    )
    record = bench.run()
    assert record.duration_seconds == 10
    assert record.critical_sla
    assert record.result is Result.FAILURE
    assert stages_of(record) == {
        "a": ("timeout", "broke its critical SLA of 10 s"),
        "b": ("cancellation", "stopped: a broke its critical SLA of 10 s"),
        "c": ("skip", "a broke its critical SLA of 10 s"),
    }


def test_stage_that_ends_at_its_critical_limit_stops_the_lane() -> None:
    planned = plan(stage("a", sla=limit(10, critical=True)), stage("b", needs=("a",)))
    record = Bench(planned, {"a": [Script(seconds=10)]}).run()
    assert (record.result, record.critical_sla) == (Result.FAILURE, True)
    assert stages_of(record) == {"a": ("success", ""), "b": ("skip", "a broke its critical SLA of 10 s")}


def test_critical_total_that_broke_while_the_exporter_was_stopped_fails_the_run() -> None:
    bench = Bench(plan(stage("a"), total=limit(10, critical=True)), {"a": [Script(seconds=15)]})
    bench.inbox.at(7.0, lambda: bench.clock.advance(9))
    record = bench.run()
    assert (record.result, record.reason) == (Result.FAILURE, "standard broke its critical total of 10 s")
    assert record.reached_critical_total


@pytest.mark.parametrize("fields", [{"total": limit(10, critical=True)}, {}])
def test_critical_limit_that_breaks_after_an_interrupt_leaves_the_run_interrupted(fields: dict[str, Any]) -> None:
    planned = plan(stage("a", sla=limit(10, critical=True)), **fields)
    bench = Bench(planned, {"a": [Script(seconds=60, term_seconds=9)]})
    bench.inbox.at(5.0, lambda: bench.engine.interrupt("SIGINT", now=False))
    record = bench.run()
    assert (record.result, record.reason, record.critical_sla) == (Result.CANCELLATION, "SIGINT", False)


@pytest.mark.parametrize(
    "fields", [{"fail_fast": True}, {"deadline": Deadline(seconds=10.0, predicted_seconds=8.0, left_out=())}]
)
def test_critical_limit_that_breaks_while_the_lane_is_stopped_fails_the_run(fields: dict[str, Any]) -> None:
    """With a deadline, both may be the same moment."""
    planned = plan(stage("a", sla=limit(10, critical=True)), stage("b"), **fields)
    failing = Script(seconds=9, result=Result.FAILURE)
    record = Bench(planned, {"a": [Script(seconds=60, term_seconds=5)], "b": [failing]}).run()
    assert (record.result, record.critical_sla) == (Result.FAILURE, True)
    assert record.reason == "a broke its critical SLA of 10 s"


def test_critical_total_stops_the_lane() -> None:
    bench = Bench(plan(stage("a"), total=limit(20, critical=True)), {"a": [Script(seconds=60)]})
    record = bench.run()
    assert [(event.stage, event.broken) for event in bench.recorder.of(SlaRecord)] == [(None, False), (None, True)]
    assert (record.critical_sla, record.warned, record.broken) == (True, True, True)
    assert record.duration_seconds == 20


def test_broken_total_that_is_not_critical_lets_the_run_succeed() -> None:
    bench = Bench(plan(stage("a"), total=limit(20)), {"a": [Script(seconds=60)]})
    record = bench.run()
    assert record.result is Result.SUCCESS
    assert record.broken
    assert not record.critical_sla


# Fail-fast, signals


def test_fail_fast_ends_running_tasks_and_starts_none() -> None:
    bench = Bench(
        plan(stage("a"), stage("b"), stage("c"), workers=2, fail_fast=True),
        {"a": [Script(seconds=2, result=Result.FAILURE, message="exit 1")], "b": [Script(seconds=60)]},
    )
    record = bench.run()
    assert stages_of(record) == {
        "a": ("failure", "exit 1"),
        "b": ("cancellation", "stopped: fail-fast: a failed"),
        "c": ("skip", "fail-fast: a failed"),
    }
    assert record.duration_seconds == 2
    assert not record.interrupted


def test_fail_fast_ends_other_tasks_of_the_stage() -> None:
    failing = Script(seconds=1, result=Result.FAILURE, message="exit 1")
    bench = Bench(plan(stage("a", tasks=4), workers=2, fail_fast=True), {"a": [failing, Script(seconds=50)]})
    record = bench.run()
    assert len(bench.workers.started) == 2
    assert stages_of(record) == {"a": ("failure", "exit 1")}


def test_first_interrupt_terminates_and_the_second_kills() -> None:
    bench = Bench(plan(stage("a"), stage("b", needs=("a",))), {"a": [Script(seconds=60, term_seconds=1000)]})
    bench.inbox.at(3.0, lambda: bench.engine.interrupt("interrupted by SIGINT", now=False))
    bench.inbox.at(5.0, lambda: bench.engine.interrupt("interrupted by SIGINT", now=True))
    record = bench.run()
    assert bench.workers.attempts[0].stops == [(3.0, 10.0), (5.0, 0.0)]
    assert record.duration_seconds == 5
    assert record.result is Result.CANCELLATION
    assert record.interrupted
    assert stages_of(record)["b"] == ("skip", "interrupted by SIGINT")


def test_interrupt_before_the_first_task_starts_none() -> None:
    bench = Bench(plan(stage("a")))
    bench.engine.interrupt("interrupted by SIGTERM", now=False)
    assert stages_of(bench.run()) == {"a": ("skip", "interrupted by SIGTERM")}
    assert bench.workers.started == []


def test_interrupt_during_a_back_off_ends_the_stage() -> None:
    failing = Script(result=Result.FAILURE, message="exit 1")
    bench = Bench(plan(stage("a", retries=5, backoff_seconds=100.0)), {"a": [failing]})
    bench.inbox.at(50.0, lambda: bench.engine.interrupt("interrupted by SIGTERM", now=False))
    record = bench.run()
    assert record.duration_seconds == 50
    assert record.stages[0].result is Result.CANCELLATION


# Resources of stages


def admit(peak_bytes: dict[str, int], *, memory_bytes: int) -> Admission:
    """Return an admission of tasks that only wait for something other than cores."""
    stages = dict.fromkeys(peak_bytes, 0.0)
    return Admission(cores=2.0, floor=1, stages=stages, peak_bytes=peak_bytes, memory_bytes=memory_bytes)


def test_stages_that_share_a_lock_never_overlap() -> None:
    bench = Bench(plan(stage("a", locks=frozenset({"db"})), stage("b", locks=frozenset({"db", "x"})), stage("c")))
    bench.run()
    assert bench.starts == {"a": 0, "c": 0, "b": 1}


@pytest.mark.parametrize("held_back", [{"locks": frozenset({"db"})}, {"exclusive": True}])
def test_stage_that_locks_hold_back_waits_for_no_worker(held_back: dict[str, Any]) -> None:
    """Four idle workers were beside a queue: an alert may then advise to raise the maximum."""
    bench = Bench(plan(stage("a", locks=frozenset({"db"})), stage("b", **held_back), workers=4))
    backlogs: list[object] = []
    bench.inbox.at(0.5, lambda: backlogs.append(bench.engine.measure_backlog()))
    bench.run()
    assert backlogs == [{}]


def test_exclusive_stage_runs_alone_and_is_not_starved() -> None:
    bench = Bench(plan(stage("a"), stage("alone", exclusive=True), stage("b")), {"a": [Script(seconds=4)]})
    bench.run()
    assert bench.starts == {"a": 0, "alone": 4, "b": 5}


@pytest.mark.parametrize(
    "room",
    [{"exclusive": True}, {"slots": 2, "locks": frozenset({"db"})}, {"memory_bytes": 1, "locks": frozenset({"db"})}],
)
def test_stage_that_waits_for_begun_ones_lets_their_other_tasks_start(room: dict[str, Any]) -> None:
    begun = stage("begun", tasks=4, locks=frozenset({"db"}))
    bench = Bench(plan(stage("first"), stage("big", needs=("first",), **room), begun, workers=2))
    bench.run()
    assert bench.starts["big"] == 3


def test_no_stage_begins_while_an_exclusive_one_waits() -> None:
    bench = Bench(
        plan(stage("first"), stage("alone", needs=("first",), exclusive=True), stage("begun", tasks=2), stage("late")),
        {"begun": [Script(seconds=4)]},
    )
    bench.engine.set_stage_limits({"late": 0})
    bench.inbox.at(2.0, lambda: bench.engine.set_stage_limits({}))
    bench.run()
    assert (bench.starts["alone"], bench.starts["late"]) == (4, 5)


def test_running_tasks_hold_memory_and_a_stage_waits_for_it() -> None:
    bench = Bench(plan(stage("a", memory_bytes=2 * GIB), stage("b", memory_bytes=2 * GIB)), memory_bytes=3 * GIB)
    bench.run()
    assert bench.starts == {"a": 0, "b": 1}


def test_large_size_starts_only_tasks_whose_known_peaks_fit_into_memory() -> None:
    bench = Bench(plan(stage("a", tasks=4), workers=8), {"a": [Script(seconds=10)]})
    bench.engine.set_admission(admit({"a": GIB}, memory_bytes=2 * GIB))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 0, 10, 10]


def test_large_tasks_that_follow_small_ones_start_only_as_far_as_memory_allows() -> None:
    bench = Bench(plan(stage("small", tasks=8), stage("large", tasks=4, needs=("small",)), workers=8))
    bench.engine.set_admission(admit({"small": GIB // 8, "large": GIB}, memory_bytes=2 * GIB))
    bench.run()
    assert [moment for moment, name in bench.workers.started if name.startswith("large")] == [1, 1, 2, 2]


def test_memory_of_an_ended_task_is_left_only_once_it_has_been_read_again() -> None:
    """A process had ended at the reading, but not its task, so that its memory was left twice."""
    bench = Bench(plan(stage("done"), stage("long"), stage("next"), workers=8), {"long": [Script(seconds=9)]})
    held = {"done": GIB, "long": GIB}
    peaks = dict.fromkeys(("done", "long", "next"), GIB)

    def read_memory(left_bytes: int) -> None:
        bench.engine.set_admission(replace(admit(peaks, memory_bytes=left_bytes), held_bytes=held))

    bench.engine.set_admission(admit(peaks, memory_bytes=2 * GIB))
    bench.inbox.at(bench.clock.now + 0.5, lambda: read_memory(GIB // 2))
    bench.inbox.at(bench.clock.now + 5, lambda: read_memory(3 * GIB // 2))
    bench.run()
    assert bench.starts == {"done": 0, "long": 0, "next": 5}


def test_small_tasks_do_not_overtake_a_stage_whose_peak_does_not_fit_yet() -> None:
    scripts = {"first": [Script(seconds=3)], "large": [Script(seconds=4)]}
    bench = Bench(plan(stage("first"), stage("large"), stage("small"), workers=8), scripts)
    bench.engine.set_admission(admit({"first": GIB, "large": 2 * GIB, "small": GIB}, memory_bytes=2 * GIB))
    bench.run()
    assert bench.starts == {"first": 0, "large": 3, "small": 7}


def test_task_whose_peak_never_fits_runs_alone() -> None:
    bench = Bench(plan(stage("a", tasks=3), workers=8))
    bench.engine.set_admission(admit({"a": 4 * GIB}, memory_bytes=GIB))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0, 1, 2]


def test_slots_are_held_by_running_tasks() -> None:
    bench = Bench(plan(stage("a", slots=3), stage("b", slots=2), workers=4))
    bench.run()
    assert bench.starts == {"a": 0, "b": 1}


def test_task_that_needs_more_than_the_machine_runs_alone() -> None:
    bench = Bench(plan(stage("a", slots=9), stage("b"), workers=2))
    record = bench.run()
    assert record.result is Result.SUCCESS
    assert bench.starts == {"a": 0, "b": 1}


# Stages that do not run, and the observers' view


def test_planned_skip_is_no_failure_and_its_dependents_run() -> None:
    bench = Bench(plan(stage("a", tasks=0, skip="no items: glob 'x*' found nothing"), stage("b", needs=("a",))))
    record = bench.run()
    assert stages_of(record)["a"] == ("skip", "no items: glob 'x*' found nothing")
    assert stages_of(record)["b"] == ("success", "")
    assert record.result is Result.SUCCESS


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.FAILURE])
def test_dependents_of_a_planned_skip_wait_for_the_stages_that_it_needs(result: Result) -> None:
    """As of a deployment that needs tests of changed files, of which there are none, and that need a build."""
    skipped = [stage(name, tasks=0, skip="no items", needs=(need,)) for name, need in (("b", "a"), ("c", "b"))]
    bench = Bench(plan(stage("d", needs=("c",)), *skipped, stage("a")), {"a": [Script(seconds=5, result=result)]})
    record = bench.run()
    if result is Result.SUCCESS:
        assert bench.starts == {"a": 0.0, "d": 5.0}
        assert stages_of(record)["c"] == ("skip", "no items")
        assert record.result is Result.SUCCESS
    else:
        assert bench.starts == {"a": 0.0}
        assert [stages_of(record)[name] for name in "bcd"] == [("skip", f"needs {need}") for need in "abc"]


def test_planned_skip_that_is_wound_down_with_the_end_of_its_need_ends_once() -> None:
    bench = Bench(plan(stage("a"), stage("b", tasks=0, skip="no items", needs=("a",)), stage("c", needs=("b",))))

    def end_and_wind_down() -> None:
        bench.workers.attempts[0].end(Result.SUCCESS)
        bench.engine.wind_down(frozenset(), "files changed")

    bench.inbox.at(0.5, end_and_wind_down)
    skip = ("skip", "files changed")
    assert stages_of(bench.run()) == {"a": ("success", ""), "b": skip, "c": skip}


def test_stage_without_its_items_ends_as_an_error() -> None:
    bench = Bench(plan(stage("a", tasks=0, fault="items: command exit 2"), stage("b", needs=("a",))))
    record = bench.run()
    assert stages_of(record) == {"a": ("error", "items: command exit 2"), "b": ("skip", "needs a")}
    assert record.result is Result.FAILURE


def test_events_come_in_order() -> None:
    bench = Bench(plan(stage("a", sla=limit(1))), {"a": [Script(seconds=2)]})
    bench.run()
    assert [type(event) for event in bench.events] == [
        RunStarted,
        StageStarted,
        SlaRecord,
        SlaRecord,
        TaskRecord,
        StageRecord,
        RunRecord,
    ]


def test_queue_wait_counts_from_readiness() -> None:
    bench = Bench(plan(stage("a"), stage("b"), workers=1), {"a": [Script(seconds=7)]})
    bench.run()
    assert [record.queue_wait_seconds for record in bench.recorder.of(TaskRecord)] == [0, 7]


def test_queue_wait_does_not_include_the_time_before_the_needs_succeeded() -> None:
    needing = [stage(name, needs=("a",)) for name in ("b", "c")]
    bench = Bench(plan(stage("a"), *needing, workers=1), {name: [Script(seconds=7)] for name in "abc"})
    backlogs: list[object] = []
    for moment in (5.0, 9.0):
        bench.inbox.at(moment, lambda: backlogs.append(bench.engine.measure_backlog()))
    bench.run()
    assert [record.queue_wait_seconds for record in bench.recorder.of(TaskRecord)] == [0, 0, 7]
    assert backlogs == [{}, {"commands": (1, 2.0)}]


def test_empty_lane_succeeds_at_once() -> None:
    record = Bench(plan()).run()
    assert record.result is Result.SUCCESS
    assert record.stages == ()


def test_step_of_the_wall_clock_predicts_no_breach(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(plan(stage("a", sla=limit(10), expected_seconds=5.0)), {"a": [Script(seconds=5)]})
    seen: list[LiveStage] = []
    started = bench.clock.wall()

    def step() -> None:
        monkeypatch.setattr(bench.clock, "wall", lambda: started + 86_400.0)
        seen.extend(bench.engine.snapshot_stages())

    bench.inbox.at(2.0, step)
    bench.run()
    (live,) = seen
    assert (live.predicted_ratio, live.predicted_breach) == (0.5, False)
    assert live.predicted_end_timestamp_seconds == started + 5


def test_live_view_and_demand_show_running_and_waiting_tasks() -> None:
    bench = Bench(plan(stage("a", tasks=3), stage("b", needs=("a",)), workers=2), {"a": [Script(seconds=5)]})
    seen: list[object] = []

    def look() -> None:
        (live,) = bench.engine.snapshot_stages()
        seen.append((live.stage, live.tasks, live.tasks_ended, live.tasks_running))
        seen.append(bench.engine.measure_backlog())
        demand = bench.engine.measure_demand()
        seen.append((demand.ready, [label for _, _, label, _ in demand.running]))

    bench.inbox.at(2.0, look)
    bench.run()
    assert seen == [
        ("a", 3, 0, 2),
        {"commands": (1, 2.0)},
        ((("commands", "a", 1),), ["a[0]", "a[1]"]),
    ]


def test_live_cores_are_those_of_the_running_attempts_since_their_own_start() -> None:
    """Over the time of their stage they were the fewer, the more tasks had ended before them."""
    script = [Script(seconds=10, cpu_seconds=10), Script(seconds=10, cpu_seconds=5)]
    bench = Bench(plan(stage("a", tasks=2), workers=1), {"a": script})
    seen: list[float] = []
    bench.inbox.at(15.0, lambda: seen.append(bench.engine.snapshot_stages()[0].cores))
    bench.run()
    assert seen == [1.0]


@pytest.mark.parametrize(("limit_seconds", "rescue_size"), [(100, 0), (40, 2), (28, 4), (20.5, 0)])
def test_size_that_keeps_a_limit_is_wanted_as_long_as_it_is_needed(limit_seconds: float, rescue_size: int) -> None:
    """With a size only for stages at risk, the lane grew, the stage was safe, the lane shrank, and so on."""
    work = plan(stage("a", tasks=6, sla=limit(limit_seconds)), workers=2)
    bench = Bench(work, {"a": [Script(seconds=10)]})
    seen: list[int] = []
    bench.inbox.at(15.0, lambda: seen.append(bench.engine.measure_demand().rescue_size))
    bench.run()
    assert seen == [rescue_size]


def test_tasks_that_a_lock_holds_back_are_no_demand() -> None:
    """A lane of six stages with one lock got six workers, and a build beside waiting ones had one job."""
    stages = (
        stage("a", locks=frozenset({"db"})),
        stage("b", tasks=2, locks=frozenset({"db"})),
        stage("c", exclusive=True),
    )
    bench = Bench(plan(*stages, workers=4), {name: [Script(seconds=5)] * 2 for name in "abc"})
    seen: list[object] = []

    def look() -> None:
        demand = bench.engine.measure_demand()
        seen.append(([name for _, name, _ in demand.ready], [label for _, _, label, _ in demand.running]))

    for moment in (2.0, 7.0, 12.0):
        bench.inbox.at(moment, look)
    bench.run()
    assert seen == [([], ["a"]), ([], ["b[0]", "b[1]"]), ([], ["c"])]


@pytest.mark.parametrize(("locks", "kinds"), [(frozenset({"db"}), []), (frozenset(), ["saturated"])])
def test_lane_whose_tasks_wait_for_a_lock_is_not_saturated(
    monkeypatch: pytest.MonkeyPatch, locks: frozenset[str], kinds: list[str]
) -> None:
    """More workers would not shorten it."""
    busy = PoolUse(name="commands", start_size=1, peak_size=1, reason="plan", busy_seconds=10.0, slot_seconds=10.0)
    bench = Bench(plan(stage("a", locks=locks), stage("b", locks=locks), workers=1), {"a": [Script(seconds=5)] * 2})
    monkeypatch.setattr(bench.workers, "get_pool_uses", lambda: (busy,))
    found = bench.run().bottlenecks
    assert [one.kind for one in found if one.kind == "saturated"] == kinds


def test_task_that_is_starting_is_part_of_the_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller measures in a thread of its own: it offered the slot of a starting task to make's jobs."""
    bench = Bench(plan(stage("a", tasks=2), stage("b", needs=("a",))))
    start, counts = bench.workers.start, list[int]()

    def count_and_start(*task: Any) -> RunningAttempt:
        demand = bench.engine.measure_demand()
        counts.append(len(demand.running) + sum(count for *_, count in demand.ready))
        return start(*task)

    monkeypatch.setattr(bench.workers, "start", count_and_start)
    bench.run()
    assert counts == [2, 2, 1]


def test_stage_that_becomes_ready_takes_over_the_slot_of_its_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller measured between the end of a task and the next stage: it offered that stage's slot to jobs."""
    measured, counts = threading.Event(), list[int]()

    def measure() -> None:
        demand = bench.engine.measure_demand()
        counts.append(len(demand.running) + sum(count for *_, count in demand.ready))
        measured.set()

    def measure_at_the_end_of_a(event: Event) -> None:
        if isinstance(event, TaskRecord) and event.stage == "a":
            threading.Thread(target=measure).start()
            measured.wait(0.05)  # it has the chance to measure too early

    bench = Bench(plan(stage("a"), stage("b", needs=("a",))), on_event=measure_at_the_end_of_a)
    start = bench.workers.start

    def start_measured(planned: PlannedStage, *task: Any) -> RunningAttempt:
        assert planned.name == "a" or measured.wait(10)
        return start(planned, *task)

    monkeypatch.setattr(bench.workers, "start", start_measured)
    bench.run()
    assert counts == [1]


def test_stage_records_sum_up_their_tasks() -> None:
    scripts = [Script(seconds=1, cpu_seconds=0.5), Script(seconds=4, cpu_seconds=2.0)]
    bench = Bench(plan(stage("a", tasks=2)), {"a": scripts})
    bench.run()
    (record,) = bench.recorder.of(StageRecord)
    assert (record.cpu_seconds, record.fastest_task_seconds, record.slowest_task_seconds) == (2.5, 1, 4)


# An exporter that was stopped itself, and a stopped supervisor


def test_task_that_ended_while_the_exporter_was_stopped_has_not_timed_out() -> None:
    bench = Bench(plan(stage("a", timeout_seconds=5.0)), {"a": [Script(seconds=3)]})

    def stop_for_8_seconds() -> None:
        bench.engine.resize(8)  # a message that arrives before the task's result does
        bench.clock.advance(8)

    bench.inbox.at(1.0, stop_for_8_seconds)
    record = bench.run()
    assert stages_of(record) == {"a": ("success", "")}
    assert bench.workers.attempts[0].stops == []


def test_task_that_runs_on_after_the_exporter_was_stopped_times_out_a_moment_later() -> None:
    bench = Bench(plan(stage("a", timeout_seconds=5.0)), {"a": [Script(seconds=30)]})

    def stop_for_8_seconds() -> None:
        bench.engine.resize(8)
        bench.clock.advance(8)

    bench.inbox.at(1.0, stop_for_8_seconds)
    record = bench.run()
    assert stages_of(record) == {"a": ("timeout", "timed out after 5 s")}
    assert bench.workers.attempts[0].stops == [(10.0, 10.0)]


def test_attempt_that_survives_kill_is_given_up() -> None:
    bench = Bench(plan(stage("a", timeout_seconds=5.0)), {"a": [Script(seconds=1000, stuck=True)]})
    record = bench.run()
    assert stages_of(record) == {"a": ("timeout", "timed out after 5 s")}
    assert bench.workers.attempts[0].given_up == [5 + 10 + 7]


def test_attempt_has_time_to_end_after_a_pause_of_the_exporter() -> None:
    """After a freeze of the container during the grace, a healthy supervisor was killed with all its commands."""
    bench = Bench(plan(stage("a", timeout_seconds=5.0)), {"a": [Script(seconds=1000, stuck=True)]})

    def freeze() -> None:
        bench.engine.resize(8)
        bench.clock.advance(60)

    bench.inbox.at(6.0, freeze)
    bench.run()
    assert bench.workers.attempts[0].given_up == [6 + 60 + 1 + 7]


def test_second_interrupt_gives_stuck_attempts_up_within_seconds() -> None:
    bench = Bench(plan(stage("a")), {"a": [Script(seconds=1000, stuck=True)]})
    bench.inbox.at(1.0, lambda: bench.engine.interrupt("SIGINT", now=False))
    bench.inbox.at(2.0, lambda: bench.engine.interrupt("SIGINT", now=True))
    record = bench.run()
    assert record.result is Result.CANCELLATION
    assert bench.workers.attempts[0].given_up == [2 + 7]


# Changed inputs


def test_wind_down_ends_stale_stages_and_lets_others_go_on() -> None:
    bench = Bench(
        plan(stage("stale", retries=3), stage("other"), stage("behind", needs=("other",)), stage("waiting"), workers=2),
        {"stale": [Script(seconds=50)], "other": [Script(seconds=9)]},
    )
    bench.inbox.at(2.0, lambda: bench.engine.wind_down(frozenset({"stale"}), "files changed: a.py"))
    record = bench.run()
    assert stages_of(record) == {
        "stale": ("cancellation", "files changed: a.py"),
        "other": ("success", ""),
        "behind": ("skip", "files changed: a.py"),
        "waiting": ("skip", "files changed: a.py"),
    }
    assert (record.result, record.reason, record.interrupted) == (Result.CANCELLATION, "files changed: a.py", False)
    assert record.duration_seconds == 9


def test_wind_down_ends_the_back_off_of_a_stale_stage() -> None:
    failing = Script(result=Result.FAILURE)
    bench = Bench(plan(stage("a", retries=3, backoff_seconds=5.0)), {"a": [failing]})
    bench.inbox.at(2.0, lambda: bench.engine.wind_down(frozenset({"a"}), "files changed: a.py"))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0]


def test_wind_down_leaves_no_retry_to_a_stale_stage_that_timed_out() -> None:
    bench = Bench(plan(stage("a", timeout_seconds=5.0, retries=3)), {"a": [Script(seconds=50, term_seconds=9)]})
    bench.inbox.at(6.0, lambda: bench.engine.wind_down(frozenset({"a"}), "files changed: a.py"))
    bench.run()
    assert [moment for moment, _ in bench.workers.started] == [0]


def test_failure_in_a_run_that_is_wound_down_stays_a_failure() -> None:
    failing = Script(seconds=5, result=Result.FAILURE)
    bench = Bench(plan(stage("a"), stage("b")), {"a": [Script(seconds=50)], "b": [failing]})
    bench.inbox.at(2.0, lambda: bench.engine.wind_down(frozenset({"a"}), "files changed: a.py"))
    assert bench.run().result is Result.FAILURE
