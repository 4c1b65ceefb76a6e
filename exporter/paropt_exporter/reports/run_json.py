"""A run as JSON: its stages, tasks and attempts, where the output of each is, and how the pools were sized.

Durations are in seconds, timestamps in seconds since 1970. `version` changes if a key is renamed or changes its
meaning.
"""

from __future__ import annotations

import json

from msgspec import to_builtins

from paropt_exporter.events import Decision
from paropt_exporter.findings import Finding
from paropt_exporter.reports.model import Attempt, FinishedRun, ReportedStage, ReportedTask

_VERSION = 1


def render(run: FinishedRun) -> bytes:
    """Return the report of a run."""
    record = run.record
    report = {
        "version": _VERSION,
        "project": run.project,
        "run_id": record.run_id,
        "lane": record.lane,
        "shard": None if record.shard is None else str(record.shard),
        "split": None if record.shard is None else record.shard.split,
        "strategy": record.strategy.value,
        "result": record.result.value,
        "reason": record.reason,
        "started_timestamp_seconds": record.started_timestamp_seconds,
        "ended_timestamp_seconds": record.ended_timestamp_seconds,
        "duration_seconds": record.duration_seconds,
        "sequential_seconds": record.sequential_seconds,
        "busy_ratio": record.busy_ratio,
        "log": str(run.log) if run.log is not None else None,
        "stages": [_stage_to_json(stage) for stage in run.stages],
        "slas": [to_builtins(sla) for sla in run.slas],
        "pools": [to_builtins(pool) for pool in record.pools],
        "decisions": [_decision_to_json(decision) for decision in run.decisions],
        "bottlenecks": [to_builtins(bottleneck) for bottleneck in record.bottlenecks],
    }
    return json.dumps(report, indent=1).encode() + b"\n"


def _stage_to_json(stage: ReportedStage) -> dict[str, object]:
    record = stage.record
    return {
        "stage": record.stage,
        "number": record.number,
        "result": record.result.value,
        "message": record.message,
        "pool": record.pool,
        "started_timestamp_seconds": record.started_timestamp_seconds,
        "duration_seconds": record.duration_seconds,
        "cpu_seconds": record.cpu_seconds,
        "memory_peak_bytes": record.memory_peak_bytes,
        "task_count": record.tasks,
        "tasks_cached": record.tasks_cached,
        "saved_seconds": record.saved_seconds,
        "cache_note": record.cache_note,
        "first_attempts": record.first_attempts,
        "flaky_attempts": record.flaky_attempts,
        "flaky_items": [*record.flaky_items],
        "quarantined": [*record.quarantined],
        "sla": to_builtins(record.sla) if record.sla is not None else None,
        "sla_warned": record.warned,
        "sla_broken": record.broken,
        "tasks": [_task_to_json(task) for task in stage.tasks],
    }


def _task_to_json(task: ReportedTask) -> dict[str, object]:
    record = task.last.record
    return {
        "task": record.task,
        "item": record.item,
        "result": record.result.value,
        "cached": record.cached,
        "items": [
            {"item": item.item, "result": item.result.value, "duration_seconds": item.seconds} for item in task.items
        ],
        "attempts": [_attempt_to_json(attempt) for attempt in task.attempts],
    }


def _attempt_to_json(attempt: Attempt) -> dict[str, object]:
    record = attempt.record
    return {
        "attempt": record.attempt,
        "result": record.result.value,
        "message": record.message,
        "worker": record.worker,
        "pool": record.pool,
        "started_timestamp_seconds": record.started_timestamp_seconds,
        "duration_seconds": record.duration_seconds,
        "queue_wait_seconds": record.queue_wait_seconds,
        "cpu_seconds": record.cpu_seconds,
        "run_delay_seconds": record.run_delay_seconds,
        "memory_peak_bytes": record.memory_peak_bytes,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "output_file": record.output_path,
        "findings": [_finding_to_json(finding) for finding in attempt.findings],
    }


def _finding_to_json(finding: Finding) -> dict[str, object]:
    return {**to_builtins(finding), "level": finding.level.value}


def _decision_to_json(decision: Decision) -> dict[str, object]:
    return {
        "pool": decision.pool,
        "action": decision.action,
        "reason": decision.reason,
        "old_size": decision.old_size,
        "new_size": decision.new_size,
        "at_timestamp_seconds": decision.at_timestamp_seconds,
    }
