"""Helpers for tests: short ways to write a plan and to run it on fakes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paropt_exporter.engine.run import Run
from paropt_exporter.events import Event, RunRecord, SlaLimit, Strategy
from paropt_exporter.plan import Bounds, Commands, Plan, PlannedStage, PlannedTask
from paropt_exporter.testing import FakeClock, FakeInbox, FakeWorkers, Recorder, Script

GIB = 1 << 30


def stage(name: str, number: int = 2, tasks: int = 1, **fields: Any) -> PlannedStage:
    """A stage of `tasks` commands."""
    work = Commands(steps=(("true",),))
    planned = tuple(PlannedTask(index=index, item=None, work=work) for index in range(tasks))
    return PlannedStage(number=number, name=name, tasks=planned, **fields)


def plan(*stages: PlannedStage, workers: int | Bounds = 8, **fields: Any) -> Plan:
    """A plan of those stages, in that order, for a fixed number of workers, or for bounds."""
    bounds = workers if isinstance(workers, Bounds) else Bounds(minimum=workers, maximum=workers, start=workers)
    defaults: dict[str, Any] = {
        "project": "demo",
        "lane": "standard",
        "strategy": Strategy.ADAPTIVE,
        "workers": bounds,
    }
    return Plan(stages=stages, **(defaults | fields))


def limit(seconds: float, *, critical: bool = False) -> SlaLimit:
    return SlaLimit(max_seconds=seconds, warn_seconds=0.8 * seconds, critical=critical)


class Bench:
    """A run on fakes: `run` executes it; `recorder`, `events` and `workers` have the results.

    `on_event` is called with each event too; `settings`: of the run.
    """

    def __init__(
        self,
        planned: Plan,
        scripts: Mapping[str, list[Script]] | None = None,
        *,
        sizes: Mapping[str, int] | None = None,
        memory_bytes: int = GIB,
        on_event: Callable[[Event], None] = lambda _: None,
        **settings: Any,
    ) -> None:
        self.clock = FakeClock()
        self.inbox = FakeInbox(self.clock)
        self.workers = FakeWorkers(self.clock, self.inbox, scripts, sizes)
        self.recorder = Recorder()

        def emit(event: Event) -> None:
            self.recorder.observe(event)
            on_event(event)

        self.engine = Run(
            planned,
            run_id="r1",
            workers=self.workers,
            emit=emit,
            inbox=self.inbox,
            clock=self.clock,
            memory_bytes=memory_bytes,
            **settings,
        )

    def run(self) -> RunRecord:
        return self.engine.execute()

    @property
    def events(self) -> list[Event]:
        return self.recorder.events

    @property
    def starts(self) -> dict[str, float]:
        """Return when each label first started."""
        return {label: moment for moment, label in reversed(self.workers.started)}


def stages_of(record: RunRecord) -> dict[str, tuple[str, str]]:
    """Return the result and message of each stage."""
    return {stage.stage: (stage.result.value, stage.message) for stage in record.stages}
