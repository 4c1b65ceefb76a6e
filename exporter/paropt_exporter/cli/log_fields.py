"""Convert events to the fields of a JSON log line, so that programs need not parse sentences."""

from __future__ import annotations

from paropt_exporter.events import Decision, RunRecord, SlaRecord, StageRecord, TaskRecord


def describe_run(record: RunRecord) -> dict[str, object]:
    return {
        "event": "run_ended",
        "lane": record.lane,
        "run_id": record.run_id,
        "result": record.result.value,
        "duration_seconds": record.duration_seconds,
    }


def describe_stage(record: StageRecord) -> dict[str, object]:
    return {
        "event": "stage_ended",
        "lane": record.lane,
        "stage": record.stage,
        "result": record.result.value,
        "duration_seconds": record.duration_seconds,
        "attempts": record.attempts,
        "reason": record.message,
        "tasks_cached": record.tasks_cached,
        "saved_seconds": record.saved_seconds,
        "cache_note": record.cache_note,
    }


def describe_task(record: TaskRecord) -> dict[str, object]:
    return {
        "event": "task_ended",
        "lane": record.lane,
        "stage": record.stage,
        "task": record.task,
        "item": record.item,
        "attempt": record.attempt,
        "final": record.final,
        "result": record.result.value,
        "duration_seconds": record.duration_seconds,
        "exit_code": record.exit_code,
        "cached": record.cached,
    }


def describe_limit(record: SlaRecord) -> dict[str, object]:
    return {
        "event": "sla_broken" if record.broken else "sla_warning",
        "lane": record.lane,
        "stage": record.stage,
        "elapsed_seconds": record.elapsed_seconds,
        "max_seconds": record.limit.max_seconds,
    }


def describe_decision(decision: Decision) -> dict[str, object]:
    return {
        "event": "decision",
        "pool": decision.pool,
        "old_size": decision.old_size,
        "new_size": decision.new_size,
        "reason": decision.reason,
    }
