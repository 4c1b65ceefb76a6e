"""Fakes for tests of the engine: a manual clock, and pools whose tasks follow a script."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from msgspec import Struct, field

from paropt_exporter.engine.interfaces import RunningAttempt
from paropt_exporter.engine.outcome import Outcome
from paropt_exporter.events import Event, ItemRecord, Measurement, PoolUse, Result, RunningTask
from paropt_exporter.plan import PlannedStage, PlannedTask

_Kind = TypeVar("_Kind")
START_TIMESTAMP_SECONDS = 1_700_000_000.0  # an arbitrary day


class FakeClock:
    """A clock that moves only with `advance`; `wall` follows `monotonic`."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return START_TIMESTAMP_SECONDS + self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeInbox:
    """An engine's inbox on a fake clock: `receive` jumps to the next scripted action instead of waiting.

    Guarantees: actions run in the order of their times. A wait without a deadline and without a next action raises
    AssertionError, since a real engine would hang.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._messages: list[object] = []
        self._script: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Run an action at a time of the fake clock."""
        heapq.heappush(self._script, (moment, next(self._ticket), action))

    def post(self, message: object) -> None:
        self._messages.append(message)

    def receive(self, until: float | None) -> list[object]:
        while not self._messages:
            due = self._script[0][0] if self._script else None
            if due is None or (until is not None and until < due):
                assert until is not None, "the engine would hang"
                self._clock.now = max(self._clock.now, until)
                break
            moment, _, action = heapq.heappop(self._script)
            self._clock.now = max(self._clock.now, moment)
            action()
        messages, self._messages = self._messages, []
        return messages


class Script(Struct, frozen=True, kw_only=True):
    """The script of one attempt: it lasts `seconds` and ends with `result`. `term_seconds`: its end after SIGTERM.

    `stuck`: no stop ends it, only `give_up` does. `items`: the runner's report about the items of a batch.
    """

    seconds: float = 1.0
    result: Result = Result.SUCCESS
    message: str = ""
    cpu_seconds: float = 0.0
    output: str = ""
    term_seconds: float = 0.0
    stuck: bool = False
    items: tuple[ItemRecord, ...] = ()
    exit_code: int | None = None


class FakeRunning(Struct, eq=False):
    """One scripted attempt."""

    pool: str
    label: str
    script: Script
    inbox: FakeInbox
    clock: FakeClock
    started_seconds: float | None
    items: tuple[str, ...] = ()
    future: Future[object] = field(default_factory=Future)
    stops: list[tuple[float, float]] = field(default_factory=list)
    given_up: list[float] = field(default_factory=list)
    result: Result | None = None

    def end(self, result: Result) -> None:
        if not self.future.done():
            self.result = result
            self.future.set_result(None)

    def stop(self, grace_seconds: float) -> None:
        self.stops.append((self.clock.now, grace_seconds))
        if self.script.stuck:
            return
        dies_in = min(self.script.term_seconds, grace_seconds)
        self.inbox.at(self.clock.now + dies_in, lambda: self.end(Result.CANCELLATION))

    def give_up(self) -> None:
        self.given_up.append(self.clock.now)
        self.inbox.at(self.clock.now, lambda: self.end(Result.ERROR))

    def outcome(self) -> Outcome:
        began = self.started_seconds or 0.0
        measured = Measurement(
            worker=f"{self.pool}-1",
            pid=1,
            started_seconds=began,
            ended_seconds=self.clock.now,
            cpu_seconds=self.script.cpu_seconds,
        )
        return Outcome(
            result=self.result or Result.ERROR,
            message=self.script.message,
            output=self.script.output,
            measurement=measured,
            items=self.script.items,
            start_up_seconds=0.0 if self.script.items else None,
            exit_code=self.script.exit_code,
        )


class FakeWorkers:
    """Fake pools for an engine under test. `scripts` maps a stage to the scripts of its attempts, in order.

    The last script of a stage repeats. `sizes` limits pools by name (default: 1000). `started` lists the started
    attempts as (time, label), in order. `gil_bound` has the stages whose functions compute in Python.
    """

    def __init__(
        self,
        clock: FakeClock,
        inbox: FakeInbox,
        scripts: Mapping[str, list[Script]] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.started: list[tuple[float, str]] = []
        self.attempts: list[FakeRunning] = []
        self.peak = 0
        self.gil_bound: set[str] = set()
        self._alive: list[FakeRunning] = []  # the attempts that may still be running
        self._clock = clock
        self._inbox = inbox
        self._scripts = {stage: list(scripts) for stage, scripts in (scripts or {}).items()}
        self._sizes = dict(sizes or {})

    def start(self, stage: PlannedStage, task: PlannedTask, label: str) -> RunningAttempt:
        script = self._next_script(stage.name)
        running = FakeRunning(
            pool=stage.pool,
            label=label,
            script=script,
            inbox=self._inbox,
            clock=self._clock,
            started_seconds=self._clock.now,
            items=task.items,
        )
        self._inbox.at(self._clock.now + script.seconds, lambda: running.end(script.result))
        self.started.append((self._clock.now, label))
        self.attempts.append(running)
        self._alive = [*self.alive(), running]
        self.peak = max(self.peak, len(self._alive))
        return running

    def alive(self) -> list[FakeRunning]:
        return [attempt for attempt in self._alive if not attempt.future.done()]

    def choose_pool(self, stage: PlannedStage, task: PlannedTask) -> str:  # noqa: ARG002 -- the protocol has it
        return stage.pool

    def get_pool_size(self, pool: str) -> int:
        return self._sizes.get(pool, 1000)

    def running(self) -> tuple[RunningTask, ...]:
        return tuple(
            RunningTask(
                label=attempt.label,
                worker=f"{attempt.pool}-1",
                started_seconds=attempt.started_seconds or 0.0,
                cpu_seconds=attempt.script.cpu_seconds,
                memory_bytes=0,
            )
            for attempt in self.alive()
        )

    def get_pool_uses(self) -> tuple[PoolUse, ...]:
        return ()

    def is_gil_bound(self, stage: str) -> bool:
        return stage in self.gil_bound

    def get_abandoned_calls(self) -> tuple[str, ...]:
        return ()

    def _next_script(self, stage: str) -> Script:
        scripts = self._scripts.setdefault(stage, [Script()])
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]


class Recorder:
    """An observer that records every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        """Return the events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]
