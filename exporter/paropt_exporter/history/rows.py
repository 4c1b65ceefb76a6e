"""Write one event as rows, together with what it changes in the totals; the caller holds the transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import assert_never

from paropt_exporter import catalogue, tally
from paropt_exporter.catalogue import Kind
from paropt_exporter.records import (
    Decision,
    Event,
    RunRecord,
    RunStarted,
    SlaRecord,
    StageRecord,
    StageStarted,
    TaskRecord,
)

OUTPUT_CHARACTERS = 4096  # of a failed task's output: a screen or two; the whole is the stage's `file`
SUM = "sum"
COUNTER = ""
INFINITY = "+Inf"

_ADD = """
INSERT INTO totals (project, family, labels, part, value) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET value = value + excluded.value
"""
_SHOW = "UPDATE stages SET shown_cpu_total = ? WHERE run_id = ? AND stage = ?"
_RAISE = """
INSERT INTO totals (project, family, labels, part, value)
  SELECT ?, ?, ?, ?, shown_cpu_total FROM stages WHERE run_id = ? AND stage = ? AND shown_cpu_total IS NOT NULL
ON CONFLICT DO UPDATE SET value = max(value, excluded.value)
"""
_SET = """
INSERT INTO latest (project, family, labels, value) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET value = excluded.value
"""


def write(connection: sqlite3.Connection, project: str, event: Event, now_seconds: float) -> None:
    """Write the event's rows, totals and last values. `now_seconds`: wall time, the run's last sign of life."""
    _row(connection, project, event, now_seconds)
    for increment in tally.increments(event):
        labels = json.dumps(increment.labels)
        for part, amount in _parts(increment):
            connection.execute(_ADD, (project, increment.family.name, labels, part, amount))
    if isinstance(event, StageRecord):
        _raise_to_shown(connection, project, event)
    connection.executemany(
        _SET,
        [
            (project, setting.family.name, json.dumps(setting.labels), setting.value)
            for setting in tally.settings(event)
        ],
    )
    if event.run_id is not None:
        connection.execute("UPDATE runs SET seen_ts = ? WHERE run_id = ?", (now_seconds, event.run_id))


def show(connection: sqlite3.Connection, run_id: str, cpu_totals: Mapping[str, float]) -> None:
    """Keep with running stages which total of CPU seconds a page shows: it has parts of attempts without an end yet."""
    connection.executemany(_SHOW, [(total, run_id, stage) for stage, total in cpu_totals.items()])


def _raise_to_shown(connection: sqlite3.Connection, project: str, stage: StageRecord) -> None:
    # The attempts of a killed exporter leave no record, and a live sample may be a little over what the attempt's end
    # says: a total under what was shown would be a counter's reset, and all of it be counted again.
    place = json.dumps((stage.lane, stage.stage))
    connection.execute(_RAISE, (project, catalogue.STAGE_CPU.name, place, COUNTER, stage.run_id, stage.stage))


def _parts(increment: tally.Increment) -> list[tuple[str, float]]:
    if increment.family.kind is not Kind.HISTOGRAM:
        return [(COUNTER, increment.amount)]
    bounds = catalogue.BUCKETS_SECONDS
    index = tally.bucket_index(increment.amount)
    # Buckets are kept by their bound, not by place: a history outlives a change of the layout.
    return [(repr(bounds[index]) if index < len(bounds) else INFINITY, 1.0), (SUM, increment.amount)]


def _row(connection: sqlite3.Connection, project: str, event: Event, now_seconds: float) -> None:
    match event:
        case RunStarted():
            _insert(connection, "runs", _run_started(event, project, now_seconds))
        case StageStarted():
            _insert(connection, "stages", _stage_started(event))
        case TaskRecord():
            _insert(connection, "tasks", _task(event))
        case SlaRecord():
            _insert(connection, "sla", _limit(event))
        case StageRecord():
            _insert(connection, "stages", _stage(event), keys=("run_id", "stage"))
        case RunRecord():
            _insert(connection, "runs", _run(event, project, now_seconds), keys=("run_id",), keep=("planned",))
        case Decision():
            _insert(connection, "decisions", _decision(event, project))
        case _:
            assert_never(event)


def _insert(
    connection: sqlite3.Connection,
    table: str,
    row: dict[str, object],
    *,
    keys: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
) -> None:
    """Insert a row, or complete the one that is there (not its `keep` columns). Names are from this module alone."""
    columns = ", ".join(row)
    changed = ", ".join(f"{name} = excluded.{name}" for name in row if name not in keys + keep)
    conflict = f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}" if keys else ""  # nosec B608 # as above
    marks = ", ".join("?" * len(row))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({marks}){conflict}"  # nosec B608 # literals of this module
    connection.execute(statement, tuple(map(_stored, row.values())))


def _stored(value: object) -> object:
    """Return a value that SQLite takes: a file name or message that is no Unicode shows its bytes as escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _run_started(run: RunStarted, project: str, now_seconds: float) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "project": project,
        "lane": run.lane,
        "strategy": run.strategy.value,
        "started_ts": run.started_timestamp_seconds,
        "seen_ts": now_seconds,
        "planned": json.dumps(run.stages),
    }


def _run(run: RunRecord, project: str, now_seconds: float) -> dict[str, object]:
    bottlenecks = [(found.kind, found.stage, found.sentence, found.advice) for found in run.bottlenecks]
    return {
        "run_id": run.run_id,
        "project": project,
        "lane": run.lane,
        "strategy": run.strategy.value,
        "started_ts": run.started_timestamp_seconds,
        "seen_ts": now_seconds,
        "planned": json.dumps([stage.stage for stage in run.stages]),
        "ended_ts": run.ended_timestamp_seconds,
        "result": run.result.value,
        "reason": run.reason,
        "duration": run.duration_seconds,
        "sequential": run.sequential_seconds,
        "busy_ratio": run.busy_ratio,
        "total_max": run.total.max_seconds if run.total else None,
        "warned": run.warned,
        "broken": run.broken,
        "critical_sla": run.critical_sla,
        "interrupted": run.interrupted,
        "bottlenecks": json.dumps(bottlenecks),
        "abandoned": json.dumps(run.abandoned),
    }


def _stage_started(stage: StageStarted | StageRecord) -> dict[str, object]:
    """Return what is known of a stage from its start on."""
    return {
        "run_id": stage.run_id,
        "stage": stage.stage,
        "number": stage.number,
        "pool": stage.pool,
        "tasks": stage.tasks,
        "started_ts": stage.started_timestamp_seconds,
        "sla_max": stage.sla.max_seconds if stage.sla else None,
        "sla_warn": stage.sla.warn_seconds if stage.sla else None,
        "sla_critical": stage.sla.critical if stage.sla else None,
    }


def _stage(stage: StageRecord) -> dict[str, object]:
    return {
        **_stage_started(stage),
        "result": stage.result.value,
        "message": stage.message,
        "tasks_failed": stage.tasks_failed,
        "duration": stage.duration_seconds,
        "cpu": stage.cpu_seconds,
        "memory_peak": stage.memory_peak_bytes,
        "attempts": stage.attempts,
        "fastest": stage.fastest_task_seconds,
        "slowest": stage.slowest_task_seconds,
        "gil_bound": stage.gil_bound,
        "warned": stage.warned,
        "broken": stage.broken,
    }


def _task(task: TaskRecord) -> dict[str, object]:
    return {
        "run_id": task.run_id,
        "stage": task.stage,
        "task": task.task,
        "attempt": task.attempt,
        "item": task.item,
        "final": task.final,
        "result": task.result.value,
        "message": task.message,
        "pool": task.pool,
        "worker": task.worker,
        "started_ts": task.started_timestamp_seconds,
        "duration": task.duration_seconds,
        "queue_wait": task.queue_wait_seconds,
        "cpu": task.cpu_seconds,
        "run_delay": task.run_delay_seconds,
        "memory_peak": task.memory_peak_bytes,
        "exit_code": task.exit_code,
        "signal": task.signal,
        "output": task.output[-OUTPUT_CHARACTERS:] if task.result.bad else "",
    }


def _limit(limit: SlaRecord) -> dict[str, object]:
    return {
        "run_id": limit.run_id,
        "stage": limit.stage,
        "broken": limit.broken,
        "max": limit.limit.max_seconds,
        "warn": limit.limit.warn_seconds,
        "critical": limit.limit.critical,
        "elapsed": limit.elapsed_seconds,
        "at_ts": limit.at_timestamp_seconds,
    }


def _decision(decision: Decision, project: str) -> dict[str, object]:
    return {
        "project": project,
        "run_id": decision.run_id,
        "pool": decision.pool,
        "action": decision.action,
        "reason": decision.reason,
        "old_size": decision.old_size,
        "new_size": decision.new_size,
        "at_ts": decision.at_timestamp_seconds,
        "terms": json.dumps(dict(decision.terms)),
        "situation": decision.situation,
        "choice": decision.choice,
    }
