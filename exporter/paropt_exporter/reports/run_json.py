"""Render a run as JSON: with its tasks and attempts as a report, without them as a summary."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from msgspec import convert, to_builtins
from msgspec.structs import replace

from paropt_exporter import plain_json
from paropt_exporter.events import RunRecord, SlaLimit, StageRecord
from paropt_exporter.reports import run_document as document
from paropt_exporter.reports.model import Attempt, FinishedRun, ReportedTask

_Object = TypeVar("_Object")


def render(run: FinishedRun) -> bytes:
    """Return the report of a run."""
    tasks = {stage.record.stage: [_build_task(task) for task in stage.tasks] for stage in run.stages}
    summary = _build_run(run.record)
    report = replace(
        summary,
        stages=[replace(stage, tasks=tasks[stage.stage]) for stage in summary.stages],
        project=run.project,
        log=None if run.log is None else str(run.log),
        slas=_take_all(run.slas, document.ReachedLimit),
        decisions=_take_all(run.decisions, document.Decision),
    )
    return json.dumps(to_builtins(report), indent=1).encode() + b"\n"


def render_summary(run: RunRecord) -> str:
    """Return the summary of a run, in one line."""
    return plain_json.dumps(to_builtins(_build_run(run)))


def _build_run(run: RunRecord) -> document.Run:
    return document.Run(
        version=document.VERSION,
        run_id=run.run_id,
        lane=run.lane,
        shard=None if run.shard is None else str(run.shard),
        split=None if run.shard is None else run.shard.split,
        strategy=run.strategy,
        partial=run.partial,
        result=run.result,
        reason=run.reason,
        interrupted=run.interrupted,
        started_timestamp_seconds=run.started_timestamp_seconds,
        ended_timestamp_seconds=run.ended_timestamp_seconds,
        duration_seconds=run.duration_seconds,
        sequential_seconds=run.sequential_seconds,
        speedup=run.sequential_seconds / run.duration_seconds
        if run.sequential_seconds and run.duration_seconds
        else None,
        busy_ratio=run.busy_ratio,
        total=_take_limit(run.total),
        sla_warned=run.warned,
        sla_broken=run.broken,
        advice=run.advice,
        stages=[_build_stage(stage) for stage in sorted(run.stages, key=lambda stage: stage.number)],
        pools=_take_all(run.pools, document.Pool),
        bottlenecks=_take_all(run.bottlenecks, document.Bottleneck),
    )


def _build_stage(stage: StageRecord) -> document.Stage:
    return document.Stage(
        stage=stage.stage,
        number=stage.number,
        result=stage.result,
        message=stage.message,
        pool=stage.pool,
        started_timestamp_seconds=stage.started_timestamp_seconds,
        duration_seconds=stage.duration_seconds,
        cpu_seconds=stage.cpu_seconds,
        memory_peak_bytes=stage.memory_peak_bytes,
        scope=stage.scope,
        task_count=stage.tasks,
        tasks_failed=stage.tasks_failed,
        attempt_count=stage.attempts,
        tasks_cached=stage.tasks_cached,
        saved_seconds=stage.saved_seconds,
        cache_note=stage.cache_note,
        first_attempts=stage.first_attempts,
        flaky_attempts=stage.flaky_attempts,
        flaky_items=[*stage.flaky_items],
        quarantined=[*stage.quarantined],
        sla=_take_limit(stage.sla),
        sla_warned=stage.warned,
        sla_broken=stage.broken,
        advice=stage.advice,
    )


def _build_task(task: ReportedTask) -> document.Task:
    record = task.last.record
    return document.Task(
        task=record.task,
        item=record.item,
        result=record.result,
        cached=record.cached,
        items=[document.Item(item=item.item, result=item.result, duration_seconds=item.seconds) for item in task.items],
        attempts=[_build_attempt(attempt) for attempt in task.attempts if not attempt.record.cached],
    )


def _build_attempt(attempt: Attempt) -> document.Attempt:
    record = attempt.record
    return document.Attempt(
        attempt=record.attempt,
        result=record.result,
        message=record.message,
        worker=record.worker,
        pool=record.pool,
        started_timestamp_seconds=record.started_timestamp_seconds,
        duration_seconds=record.duration_seconds,
        queue_wait_seconds=record.queue_wait_seconds,
        cpu_seconds=record.cpu_seconds,
        run_delay_seconds=record.run_delay_seconds,
        memory_peak_bytes=record.memory_peak_bytes,
        exit_code=record.exit_code,
        signal=record.signal,
        output_file=record.output_path,
        findings=_take_all(attempt.findings, document.Finding),
    )


def _take_limit(limit: SlaLimit | None) -> document.Limit | None:
    return None if limit is None else convert(limit, document.Limit, from_attributes=True)


def _take_all(records: Iterable[object], kind: type[_Object]) -> list[_Object]:
    """Return an object of `kind` for each record, which has attributes with the names of the object's keys."""
    return [convert(record, kind, from_attributes=True) for record in records]
