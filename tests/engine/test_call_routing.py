"""Calls whose function has not been measured: one runs in a thread, and the next ones wait, or go to processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.engine.call_routing import CallRouting
from paropt_exporter.engine.interfaces import Admission
from paropt_exporter.engine.resources import Resources
from paropt_exporter.events import Measurement, RunningTask, Strategy
from paropt_exporter.plan import PROCESSES, THREADS, Call, PlannedTask
from support.lanes import plan, stage

TARGET = "checks:compute"


def make_routing(strategy: Strategy = Strategy.ADAPTIVE) -> CallRouting:
    task = PlannedTask(index=0, item=None, work=Call(target=TARGET))
    calls = replace(stage("calls"), tasks=(task,), pool=THREADS)
    routing = CallRouting(None)
    routing.prepare(plan(calls, strategy=strategy))
    routing.note_start("calls[0]", TARGET)
    return routing


def sample(run_seconds: float, wait_seconds: float = 0.0, age_seconds: float = 0.1) -> RunningTask:
    return RunningTask(
        label="calls[0]", worker="thread", started_seconds=10.0, cpu_seconds=run_seconds, memory_bytes=0,
        run_delay_seconds=wait_seconds, core_time=CoreTime(run_seconds, wait_seconds), thread_run_seconds=run_seconds,
        sampled_seconds=10.0 + age_seconds,
    )  # fmt: skip


@pytest.mark.parametrize(("run", "wait", "age", "pool"), [
    (0.1, 0.0, 0.1, PROCESSES),
    (0.01, 0.09, 0.1, PROCESSES),  # it gets a tenth of a core on a busy machine
    (0.001, 0.0, 0.1, THREADS),
    (0.02, 0.0, 0.02, THREADS),  # its first milliseconds go to imports
])  # fmt: skip
def test_next_calls_of_an_unknown_function_that_computes_go_to_processes(
    run: float, wait: float, age: float, pool: str
) -> None:
    routing = make_routing()
    routing.note_running([sample(run, wait, age)])
    assert routing.choose(TARGET) == pool


def test_measurement_of_the_first_call_outweighs_its_samples() -> None:
    routing = make_routing()
    routing.note_running([sample(0.1)])
    measured = Measurement(worker="thread", pid=1, started_seconds=10.0, ended_seconds=20.0, cpu_seconds=0.1)
    routing.learn(TARGET, measured, concurrent=1)
    assert routing.choose(TARGET) == THREADS
    routing.note_end("calls[0]")
    assert routing.choose(TARGET) == THREADS


def test_call_that_ends_while_samples_are_read_decides_nothing() -> None:
    """A call that failed was not learned from, and all later ones went to processes."""
    routing = make_routing()

    def read_samples() -> Iterator[RunningTask]:
        yield sample(0.1)
        routing.note_end("calls[0]")

    routing.note_running(read_samples())
    assert routing.choose(TARGET) == THREADS


def test_strategy_without_processes_keeps_calls_in_threads() -> None:
    routing = make_routing(Strategy.THREAD)
    routing.note_running([sample(0.1)])
    assert routing.choose(TARGET) == THREADS


@pytest.mark.parametrize(("before", "after", "pool"), [
    (Strategy.THREAD, Strategy.PROCESS, PROCESSES),
    (Strategy.PROCESS, Strategy.SEQUENTIAL, THREADS),
])  # fmt: skip
def test_changed_strategy_of_a_lane_applies_to_its_next_plan(before: Strategy, after: Strategy, pool: str) -> None:
    """The old pool was chosen, which the new plan does not have, and the exporter ended with an internal error."""
    routing = make_routing(before)
    calls = replace(stage("calls"), tasks=(PlannedTask(index=0, item=None, work=Call(target=TARGET)),), pool=pool)
    routing.prepare(plan(calls, strategy=after))
    assert routing.choose(TARGET) == pool


def test_first_task_of_an_unmeasured_stage_runs_alone_in_threads() -> None:
    """Two calls that compute took 59 s beside 20 busy loops: each turn at the GIL waited for a core."""
    calls, others = stage("calls"), stage("others", number=3)
    resources = Resources(memory_bytes=1 << 30)
    resources.set_admission(Admission(cores=4.0, floor=1))
    resources.begin_task(calls, THREADS, "calls[0]")
    assert not resources.can_begin_task(calls, THREADS, size=8)
    assert resources.can_begin_task(calls, PROCESSES, size=8)
    assert resources.can_begin_task(others, THREADS, size=8)
    resources.set_admission(Admission(cores=4.0, floor=1, stages={"calls": 0.0}))
    assert resources.can_begin_task(calls, THREADS, size=8)
    resources.set_admission(Admission(cores=4.0, floor=2))
    assert resources.can_begin_task(calls, THREADS, size=8)  # a person wants so many tasks at once


def test_brief_calls_run_at_once_after_the_first_one() -> None:
    """Samples never show their demand: 200 calls of 5 ms took 1.2 s instead of 0.2 s."""
    calls = stage("calls")
    resources = Resources(memory_bytes=1 << 30)
    resources.set_admission(Admission(cores=4.0, floor=1))
    resources.begin_task(calls, THREADS, "calls[0]")
    resources.end_task(calls, THREADS, "calls[0]")
    resources.begin_task(calls, THREADS, "calls[1]")
    assert resources.can_begin_task(calls, THREADS, size=8)


def test_full_lock_holds_tasks_of_threads_only() -> None:
    calls = stage("calls")
    resources = Resources(memory_bytes=1 << 30)
    resources.set_admission(Admission(cores=4.0, floor=1, stages={"calls": 1.0}, held=frozenset({"calls"})))
    resources.begin_task(calls, THREADS, "calls[0]")
    assert not resources.can_begin_task(calls, THREADS, size=8)
    assert resources.can_begin_task(calls, PROCESSES, size=8)
