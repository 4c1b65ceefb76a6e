"""Every way in which a task can end: a run succeeds only if each planned stage did, and no ending ends the engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from paropt_exporter.clock import SystemClock
from paropt_exporter.engine.inbox import QueueInbox
from paropt_exporter.engine.interfaces import RunningAttempt
from paropt_exporter.engine.outcome import read_future
from paropt_exporter.engine.run import Run
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.errors import LONGEST_MESSAGE_CHARACTERS, TaskStopped, WorkerDied
from paropt_exporter.events import Measurement, Result, RunRecord, Strategy, TaskRecord
from paropt_exporter.executors.calls import KEPT_CHARACTERS
from paropt_exporter.executors.commands.command_pool import CommandOutcome
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.plan import PROCESSES, THREADS, Bounds, Call, PlannedStage, PlannedTask
from paropt_exporter.testing import FakeClock, FakeInbox, FakeWorkers, Recorder, Script
from support.lanes import GIB, Bench, plan, stage, stages_of

ENDINGS = """
import asyncio, concurrent.futures, sys

class NoText(Exception):
    def __str__(self): raise ValueError("no text")
class TextInterrupts(Exception):
    def __str__(self): raise KeyboardInterrupt
class TextIsNone(Exception):
    def __str__(self): return None
class ClassRaises(Exception):
    @property
    def __class__(self): raise KeyboardInterrupt
class AttributesRaise(BaseException):
    def __getattribute__(self, name): raise SystemExit(0)
    def __setattr__(self, name, value): raise SystemExit(0)
class NameRaises(type):
    @property
    def __name__(self): raise KeyboardInterrupt
class Nameless(Exception, metaclass=NameRaises): pass
class Unpicklable(Exception):
    def __init__(self, a, b): super().__init__(lambda: a, b)

def raises(error):
    def call(): raise error
    return call

returns = lambda: None
cancelled = raises(concurrent.futures.CancelledError())
cancelled_task = raises(asyncio.CancelledError())
exits_with_0 = raises(SystemExit(0))
interrupted = raises(KeyboardInterrupt())
ends_generator = raises(GeneratorExit())
no_text = raises(NoText())
text_interrupts = raises(TextInterrupts())
text_is_none = raises(TextIsNone())
class_raises = raises(ClassRaises())
attributes_raise = raises(AttributesRaise())
nameless = raises(Nameless())
unpicklable = raises(Unpicklable(1, 2))
raises_no_exception = raises(5)
long_message = raises(ValueError("x" * 5_000_000))
"""
GOOD, BAD = "returns", [
    "cancelled", "cancelled_task", "exits_with_0", "interrupted", "ends_generator", "no_text", "text_interrupts",
    "text_is_none", "class_raises", "attributes_raise", "nameless", "unpicklable", "raises_no_exception",
    "long_message", "not_there",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("endings")
    (folder / "paropt_sample_endings.py").write_text(ENDINGS)
    before = list(sys.path)
    yield folder
    sys.path[:] = before
    sys.modules.pop("paropt_sample_endings", None)


def calls(name: str, endings: list[str], **fields: Any) -> PlannedStage:
    """Return a stage whose tasks are calls with these endings."""
    tasks = tuple(
        PlannedTask(index=index, item=None, work=Call(target=f"paropt_sample_endings:{ending}"))
        for index, ending in enumerate(endings)
    )
    return replace(stage(name, pool=THREADS, **fields), tasks=tasks)


def run(root: Path, *stages: PlannedStage, strategy: Strategy = Strategy.THREAD) -> tuple[RunRecord, Recorder]:
    """Run the stages on real pools."""
    recorder, clock = Recorder(), SystemClock()
    size = Bounds(minimum=2, maximum=2, start=2)
    planned = plan(*stages, strategy=strategy, root=root)
    planned = replace(planned, workers=size)
    workers = PoolWorkers()
    engine = Run(
        planned,
        run_id="r1",
        workers=workers,
        emit=recorder.observe,
        inbox=QueueInbox(clock),
        clock=clock,
        memory_bytes=GIB,
    )
    try:
        workers.prepare(planned, engine.size)
        return engine.execute(), recorder
    finally:
        workers.close()


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from([GOOD, GOOD, *BAD]), min_size=1, max_size=3), min_size=1, max_size=4))
def test_run_succeeds_exactly_if_every_task_of_every_stage_did(root: Path, endings: list[list[str]]) -> None:
    stages = [calls(f"s{n}", tasks, needs=(f"s{n - 1}",) if n % 2 else ()) for n, tasks in enumerate(endings)]
    record, recorder = run(root, *stages)
    assert (record.result is Result.SUCCESS) == all(ending == GOOD for tasks in endings for ending in tasks)
    assert len(record.stages) == len(endings)
    for ended, tasks in zip(sorted(record.stages, key=lambda ended: ended.stage), endings, strict=True):
        assert ended.result is not Result.SUCCESS or set(tasks) == {GOOD}
        assert ended.result is not Result.CANCELLATION
    assert all(len(task.message) <= LONGEST_MESSAGE_CHARACTERS for task in recorder.of(TaskRecord))
    assert all(len(task.output) <= 2 * KEPT_CHARACTERS for task in recorder.of(TaskRecord))


@pytest.mark.parametrize("ending", BAD)
@pytest.mark.parametrize("strategy", [Strategy.PROCESS, Strategy.ADAPTIVE])
def test_failing_call_fails_its_run_under_each_strategy(root: Path, strategy: Strategy, ending: str) -> None:
    pool = PROCESSES if strategy is Strategy.PROCESS else THREADS
    record, _ = run(root, replace(calls("s", [ending]), pool=pool), strategy=strategy)
    assert record.result is Result.FAILURE
    (failed,) = record.stages
    assert failed.result in (Result.FAILURE, Result.ERROR)
    assert failed.message


def test_call_that_raises_cancelled_error_is_a_failure_with_its_name(root: Path) -> None:
    record, _ = run(root, calls("s", ["cancelled"]), calls("later", [GOOD], needs=("s",)))
    assert stages_of(record) == {"s": ("failure", "CancelledError"), "later": ("skip", "needs s")}
    assert (record.result, record.reason) == (Result.FAILURE, "s failed")


def test_stage_that_ends_by_cancellation_alone_fails_the_run() -> None:
    bench = Bench(plan(stage("a"), stage("b", needs=("a",))), {"a": [Script(result=Result.CANCELLATION)]})
    record = bench.run()
    assert record.result is Result.FAILURE
    assert record.reason == "a, b did not succeed"


def test_stage_without_items_leaves_the_run_a_success() -> None:
    record = Bench(plan(stage("a", skip="no items: the list is empty"), stage("b", needs=("a",)))).run()
    assert record.result is Result.SUCCESS


class Refusing(FakeWorkers):
    """Pools that start no task of stage `refused`."""

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        if stage.name == "refused":
            raise RuntimeError("can't start new thread")
        return super().start(stage, task, label)


def test_task_that_cannot_be_started_fails_alone() -> None:
    clock = FakeClock()
    inbox = FakeInbox(clock)
    engine = Run(
        plan(stage("refused", tasks=2), stage("other")),
        run_id="r1",
        workers=Refusing(clock, inbox),
        emit=Recorder().observe,
        inbox=inbox,
        clock=clock,
        memory_bytes=GIB,
    )
    why = "2 of 2 tasks failed: could not be started: RuntimeError: can't start new thread"
    assert stages_of(engine.execute()) == {"refused": ("error", why), "other": ("success", "")}


def test_message_counts_all_failed_tasks_whatever_their_results_are() -> None:
    """Of a killed pytest and four failing ones it said "and 1 more", beside those of the same kind."""
    killed = Script(result=Result.ERROR, message="killed by SIGSEGV (11)")
    scripts = [Script(result=Result.FAILURE, message="exit 1"), killed, Script(result=Result.TIMEOUT), Script()]
    record = Bench(plan(stage("tests", tasks=4)), {"tests": scripts}).run()
    assert record.stages[0].message == "3 of 4 tasks failed: killed by SIGSEGV (11)"


def test_long_message_is_cut_and_its_length_named(root: Path) -> None:
    _, recorder = run(root, calls("s", ["long_message"]))
    (task,) = recorder.of(TaskRecord)
    assert task.message.startswith("ValueError: xxx")
    assert task.message.endswith(" more characters")
    assert len(task.message) <= LONGEST_MESSAGE_CHARACTERS


def test_long_item_is_cut_in_the_stages_message() -> None:
    long = replace(stage("a").tasks[0], item="i" * 1_000_000)
    planned = replace(stage("a"), tasks=(long,))
    record = Bench(plan(planned), {"a": [Script(result=Result.FAILURE, message="exit 1")]}).run()
    assert len(record.stages[0].message) <= 2 * LONGEST_MESSAGE_CHARACTERS
    assert record.stages[0].message.endswith(": exit 1")


# Futures, as pools settle them


def settled(error: BaseException | None = None, value: object = None) -> TaskFuture[object]:
    future: TaskFuture[object] = TaskFuture()
    future.start_running(0.0)
    if error is None:
        future.settle_result(value)
    else:
        future.settle_exception(error)
    return future


class Hostile(Exception):
    """Raises from every special method."""

    @property  # type: ignore[misc]  # hostile on purpose
    def __class__(self) -> type:
        raise KeyboardInterrupt

    def __str__(self) -> str:
        raise KeyboardInterrupt

    def __getattribute__(self, name: str) -> object:
        raise KeyboardInterrupt


class HostileStop(TaskStopped):
    """A subclass of TaskStopped with code of its own."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (ValueError("x"), Result.FAILURE),
        (CancelledError(), Result.FAILURE),
        (asyncio.CancelledError(), Result.FAILURE),
        (KeyboardInterrupt(), Result.FAILURE),
        (Hostile(), Result.FAILURE),
        (HostileStop(), Result.CANCELLATION),
        (WorkerDied("worker died", -9), Result.ERROR),
    ],
    ids=lambda value: type(value).__name__,
)
def test_future_with_any_exception_has_an_outcome(error: BaseException, result: Result) -> None:
    outcome = read_future(settled(error))
    assert outcome.result is result
    assert outcome.message


@pytest.mark.parametrize(("code", "ending"), [(-9, (None, 9)), (0, (0, None)), (3, (3, None)), (None, (None, None))])
def test_dead_worker_ends_by_a_signal_or_with_an_exit_code(
    code: int | None, ending: tuple[int | None, int | None]
) -> None:
    outcome = read_future(settled(WorkerDied("worker died", code)))
    assert (outcome.exit_code, outcome.signal) == ending


def test_cancelled_future_never_started() -> None:
    future: TaskFuture[object] = TaskFuture()
    assert future.cancel()
    assert read_future(future).message == "cancelled before it started"


@pytest.mark.parametrize("result", [result for result in Result if result is not Result.SKIP])
def test_commands_outcome_keeps_its_result(result: Result) -> None:
    measurement = Measurement(worker="w", pid=1, started_seconds=0.0, ended_seconds=1.0)
    outcome = CommandOutcome(
        result=result, message="m", exit_code=1, signal=None, output="", output_path=None,
        measurement=measurement, stopped=False,
    )  # fmt: skip
    assert read_future(settled(value=outcome)).result is result
