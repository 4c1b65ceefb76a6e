"""Observers take events in order, several at once if they can; the engine holds none back while it waits."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from paropt_exporter.engine.interfaces import RunningAttempt
from paropt_exporter.engine.observers import BURST_SECONDS, Observers
from paropt_exporter.engine.run import Run
from paropt_exporter.events import Event, Result, RunRecord, RunStarted, StageStarted, TaskRecord
from paropt_exporter.plan import PlannedStage, PlannedTask
from paropt_exporter.testing import FakeClock, FakeInbox, FakeWorkers, Recorder, Script
from support.event_samples import run_started, stage_ended, stage_started, task
from support.lanes import GIB, plan, stage


class BatchRecorder(Recorder):
    """Takes several events at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def observe_all(self, events: Sequence[Event]) -> None:
        self.batches.append(len(events))
        self.events += events


class Refusing:
    """Raises for the first event that it gets."""

    def __init__(self) -> None:
        self.seen = 0

    def observe(self, event: Event) -> None:
        self.seen += 1
        if self.seen == 1:
            raise ValueError(event)


def test_held_events_come_with_the_flush() -> None:
    first, second = BatchRecorder(), Recorder()
    observers = Observers({"first": first, "second": second})
    events: list[Event] = [stage_started("lint"), task("lint"), stage_ended("lint")]
    for event in events:
        observers.hold(event)
    assert first.events == second.events == []
    observers.flush()
    observers.flush()
    assert first.events == second.events == events
    assert first.batches == [3]


def test_emitted_event_comes_after_the_held_ones() -> None:
    recorder = BatchRecorder()
    observers = Observers({"only": recorder})
    observers.hold(stage_started("lint"))
    observers.emit(task("lint"))
    assert [type(event) for event in recorder.events] == [StageStarted, TaskRecord]
    assert recorder.batches == [2]


def test_observer_that_raises_loses_one_event_and_the_others_none(caplog: pytest.LogCaptureFixture) -> None:
    refusing, recorder = Refusing(), Recorder()
    observers = Observers({"refusing": refusing, "recorder": recorder})
    observers.hold(run_started())
    observers.hold(stage_started("lint"))
    observers.flush()
    assert (refusing.seen, len(recorder.events)) == (2, 2)
    assert observers.dropped() == {"refusing": 1, "recorder": 0}
    assert [record.getMessage() for record in caplog.records] == ["observer failed, its events are dropped"]


class WatchedInbox(FakeInbox):
    """Notes how many events are held while the engine waits."""

    def __init__(self, clock: FakeClock, held: list[Event]) -> None:
        super().__init__(clock)
        self.held = held
        self.held_counts: list[int] = []

    def receive(self, until: float | None) -> list[object]:
        self.held_counts.append(len(self.held))
        return super().receive(until)


class WatchedWorkers(FakeWorkers):
    """Notes which events had been passed on when the first task started."""

    passed: list[Event]
    known: list[type[Event]] | None = None

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        if self.known is None:
            self.known = [type(event) for event in self.passed]
        return super().start(stage, task, label)


def test_engine_holds_no_event_while_it_waits() -> None:
    held: list[Event] = []
    passed: list[Event] = []

    def flush() -> None:
        passed.extend(held)
        held.clear()

    clock = FakeClock()
    inbox = WatchedInbox(clock, held)
    workers = WatchedWorkers(clock, inbox)
    workers.passed = passed
    run = Run(
        plan(stage("a", tasks=3), stage("b", needs=("a",)), workers=2),
        run_id="r1",
        workers=workers,
        emit=held.append,
        flush=flush,
        inbox=inbox,
        clock=clock,
        memory_bytes=GIB,
    )
    assert run.execute().result is Result.SUCCESS
    assert workers.known == [RunStarted]
    assert set(inbox.held_counts) == {0}
    assert not held
    assert [type(event) for event in passed[-1:]] == [RunRecord]


def test_burst_of_events_is_passed_on_together_and_soon() -> None:
    clock = FakeClock()
    inbox = FakeInbox(clock)
    held: list[float] = []
    ages: list[float] = []

    def flush() -> None:
        if held:
            ages.append(clock.now - held[0])
        held.clear()

    run = Run(
        plan(stage("many", tasks=1000), workers=2),
        run_id="r1",
        workers=FakeWorkers(clock, inbox, {"many": [Script(seconds=0.001)] * 1000}),
        emit=lambda _: held.append(clock.now),
        flush=flush,
        inbox=inbox,
        clock=clock,
        memory_bytes=GIB,
    )
    assert run.execute().duration_seconds == pytest.approx(0.5)
    assert len(ages) < 50
    assert max(ages) <= BURST_SECONDS + 1e-9
    assert not held


def test_events_of_tasks_that_take_longer_never_wait() -> None:
    clock = FakeClock()
    inbox = FakeInbox(clock)
    held: list[float] = []
    waits: list[float] = []

    def flush() -> None:
        waits.extend(clock.now - moment for moment in held)
        held.clear()

    run = Run(
        plan(stage("many", tasks=100), workers=2),
        run_id="r1",
        workers=FakeWorkers(clock, inbox, {"many": [Script(seconds=0.05)] * 100}),
        emit=lambda _: held.append(clock.now),
        flush=flush,
        inbox=inbox,
        clock=clock,
        memory_bytes=GIB,
    )
    run.execute()
    assert set(waits) == {0.0}
