"""A run that has ended, as reports get it: made of events, by the collector that makes it in the exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from paropt_exporter.events import (
    Decision,
    Event,
    ItemRecord,
    PoolUse,
    Result,
    RunStarted,
    SlaLimit,
    SlaRecord,
    StageRecord,
    Strategy,
    TaskRecord,
)
from paropt_exporter.plan import Bounds, Plan, PlannedStage
from paropt_exporter.reports.model import FinishedRun
from paropt_exporter.reports.reporting import Collector
from support.event_samples import START, run_ended

LIMIT = SlaLimit(max_seconds=3.0, warn_seconds=2.0)


def attempt(
    stage: str,
    *,
    task: int = 0,
    item: str | None = None,
    number: int = 1,
    result: Result = Result.SUCCESS,
    message: str = "",
    output: str = "",
    began: float = 1.0,
    seconds: float = 2.0,
    items: tuple[ItemRecord, ...] = (),
    **fields: Any,
) -> TaskRecord:
    """An attempt that became ready at 0.5 s and began `began` seconds after the run's start, on worker 1."""
    values: dict[str, Any] = {
        "run_id": "r1",
        "lane": "standard",
        "stage": stage,
        "task": task,
        "item": item,
        "attempt": number,
        "final": True,
        "result": result,
        "message": message,
        "pool": "commands",
        "worker": "commands-1",
        "ready_seconds": 100.5,
        "started_seconds": 100.0 + began,
        "ended_seconds": 100.0 + began + seconds,
        "started_timestamp_seconds": START + began,
        "output": output,
        "items": items,
    }
    return TaskRecord(**{**values, **fields})


def stage(name: str, number: int, *attempts: TaskRecord, **fields: Any) -> tuple[StageRecord, tuple[TaskRecord, ...]]:
    """A stage with the sums of its attempts; `fields` of its record win."""
    last = {record.task: record for record in attempts}
    bad = [record for record in last.values() if record.result is not Result.SUCCESS]
    values: dict[str, Any] = {
        "run_id": "r1",
        "lane": "standard",
        "stage": name,
        "number": number,
        "result": bad[0].result if bad else Result.SUCCESS,
        "message": bad[0].message if bad else "",
        "pool": "commands",
        "tasks": len(last) or 1,
        "tasks_failed": len(bad),
        "attempts": len(attempts),
        "duration_seconds": max((record.ended_seconds for record in attempts), default=0.0)
        - min((record.started_seconds for record in attempts), default=0.0),
        "started_timestamp_seconds": START + 1.0 if attempts else None,
    }
    return StageRecord(**{**values, **fields}), attempts


def finished(
    *stages: tuple[StageRecord, tuple[TaskRecord, ...]],
    root: Path = Path("/repo"),
    top: Path | None = None,
    slas: tuple[SlaRecord, ...] = (),
    decisions: tuple[Decision, ...] = (),
    result: Result | None = None,
    reason: str = "",
    config: Path | None = None,
    cwd: str = "",
    **fields: Any,
) -> FinishedRun:
    """The run of these stages, which began at START and at 100 s of the monotonic clock. `fields`: of its record."""
    collector = Collector(config=config, top=top or root)
    names = tuple(record.stage for record, _ in stages)
    planned = tuple(
        PlannedStage(number=record.number, name=record.stage, tasks=(), cwd=Path(cwd)) for record, _ in stages
    )
    bounds = Bounds(minimum=1, maximum=8, start=2)
    collector.begin(
        Plan(project="shop", lane="standard", strategy=Strategy.ADAPTIVE, workers=bounds, stages=planned, root=root)
    )
    collector.observe(
        RunStarted(
            run_id="r1",
            lane="standard",
            strategy=Strategy.ADAPTIVE,
            started_seconds=100.0,
            started_timestamp_seconds=START,
            stages=names,
        )
    )
    events: list[Event] = [*(record for _, attempts in stages for record in attempts), *slas, *decisions]
    for event in events:
        collector.observe(event)
    bad = any(record.result.bad for record, _ in stages)
    pools = (PoolUse(name="commands", start_size=2, peak_size=4, reason="demand", busy_seconds=8.0, slot_seconds=9.0),)
    ended = run_ended(
        result=result or (Result.FAILURE if bad else Result.SUCCESS),
        stages=tuple(record for record, _ in stages),
        total=None,
        seconds=8.0,
    )
    run = collector.finish(replace(ended, pools=pools, reason=reason, **fields), log=Path("/repo/.paropt/logs/r1.log"))
    assert run is not None
    return run


def stopped_at_critical_total() -> FinishedRun:
    """A run in which no stage failed: the lane reached its critical total, and its one stage was stopped."""
    reason = "standard broke its critical total of 8 s"
    stopped = attempt("lint", result=Result.CANCELLATION, message=f"stopped: {reason}")
    return finished(stage("lint", 1, stopped), result=Result.FAILURE, reason=reason)
