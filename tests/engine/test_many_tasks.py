"""A stage of very many tasks: each costs the same, however many there are, and ended ones take no memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

from msgspec.structs import replace

from paropt_exporter.engine.interfaces import RunningAttempt
from paropt_exporter.engine.run import Run
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.events import Result, TaskRecord
from paropt_exporter.plan import THREADS, Call, PlannedStage, PlannedTask
from paropt_exporter.testing import FakeClock, FakeInbox, FakeWorkers, Script
from support.lanes import GIB, plan, stage, stages_of


class Counted(tuple[PlannedTask, ...]):
    """A stage's tasks, which count iterations over them."""

    walks = 0

    def __iter__(self) -> Iterator[PlannedTask]:
        self.walks += 1
        return super().__iter__()


def test_end_of_a_task_does_not_visit_the_others(tmp_path: Path) -> None:
    tasks = Counted(PlannedTask(index=n, item=str(n), work=Call(target="os:getpid")) for n in range(100))
    workers = PoolWorkers()
    workers.prepare(plan(replace(stage("many", pool=THREADS), tasks=tasks), root=tmp_path), 1)
    before = tasks.walks
    assert not any(workers.is_gil_bound("many") for _ in range(100))
    workers.close()
    assert tasks.walks == before


def is_ours(found: object) -> bool:
    return type(found) is TaskRecord and found.run_id == "of many tasks"  # other tests may keep records of theirs


def test_ended_tasks_leave_no_records_in_the_engine() -> None:
    clock = FakeClock()
    inbox = FakeInbox(clock)
    failing = Script(result=Result.FAILURE, message="exit 1", output="x" * 1000)
    kept: list[int] = []
    engine = Run(
        plan(stage("many", tasks=500), workers=4),
        run_id="of many tasks",
        workers=FakeWorkers(clock, inbox, {"many": [failing]}),
        emit=lambda _: None,
        inbox=inbox,
        clock=clock,
        memory_bytes=GIB,
    )
    inbox.at(100.5, lambda: kept.append(sum(is_ours(found) for found in gc.get_objects())))
    record = engine.execute()
    assert record.stages[0].tasks_failed == 500
    assert record.stages[0].message == "500 of 500 tasks failed: exit 1"
    assert kept[0] < 10


class ForgetfulWorkers(FakeWorkers):
    """Workers that keep only weak references to the futures of attempts, which have the outputs."""

    def __init__(self, clock: FakeClock, inbox: FakeInbox) -> None:
        super().__init__(clock, inbox)
        self.futures: list[weakref.ref[Future[object]]] = []

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        attempt = super().start(stage, task, label)
        self.attempts.clear()
        self.futures.append(weakref.ref(attempt.future))
        return attempt

    def count_kept(self) -> int:
        gc.collect()
        return sum(future() is not None for future in self.futures)


def test_timeouts_keep_no_ended_attempts() -> None:
    clock = FakeClock()
    inbox = FakeInbox(clock)
    workers = ForgetfulWorkers(clock, inbox)
    kept: list[int] = []
    inbox.at(40.5, lambda: kept.append(workers.count_kept()))
    many = stage("many", tasks=100, timeout_seconds=3600.0)
    run_of(many, workers=workers, clock=clock, inbox=inbox).execute()
    assert kept[0] < 10


class CountingWorkers(FakeWorkers):
    """Counts the stages that the engine considers for a start."""

    considered = 0

    def choose_pool(self, stage: PlannedStage, task: PlannedTask) -> str:
        self.considered += 1
        return super().choose_pool(stage, task)


def run_of(*stages: PlannedStage, workers: FakeWorkers, clock: FakeClock, inbox: FakeInbox) -> Run:
    return Run(
        plan(*stages, workers=2),
        run_id="of many stages",
        workers=workers,
        emit=lambda _: None,
        inbox=inbox,
        clock=clock,
        memory_bytes=GIB,
    )


def test_waiting_stages_are_not_considered_while_no_slot_is_free() -> None:
    clock = FakeClock()
    inbox = FakeInbox(clock)
    workers = CountingWorkers(clock, inbox)
    stages = [stage(f"s{n}") for n in range(200)]
    record = run_of(*stages, workers=workers, clock=clock, inbox=inbox).execute()
    assert record.result is Result.SUCCESS
    assert len(stages) <= workers.considered <= 2 * len(stages)


def test_skip_names_all_needs_that_failed_before_it() -> None:
    clock = FakeClock()
    inbox = FakeInbox(clock)
    workers = CountingWorkers(clock, inbox, {"a": [Script(result=Result.FAILURE, message="exit 1")]})
    stages = stage("a"), stage("b", needs=("a",)), stage("c", needs=("a", "b")), stage("d", needs=("c",))
    record = run_of(*stages, workers=workers, clock=clock, inbox=inbox).execute()
    assert [message for _, message in stages_of(record).values()] == ["exit 1", "needs a", "needs a, b", "needs c"]
