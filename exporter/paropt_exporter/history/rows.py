"""Write one event as rows, together with what it changes in the totals; the caller holds the transaction."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import assert_never

from paropt_exporter import aggregation, families
from paropt_exporter.events import (
    Decision,
    Event,
    Result,
    RunRecord,
    RunStarted,
    Scope,
    SlaRecord,
    StageRecord,
    StageStarted,
    TaskRecord,
)
from paropt_exporter.families import Kind

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


# The mean of the last runs, each counting twice as much as the one before: enough to pack by, and one row an item.
_TIME = """
INSERT INTO items (project, stage, item, seconds, seen_ts) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET seconds = (seconds + excluded.seconds) / 2, seen_ts = excluded.seen_ts
"""
_FORGET = "DELETE FROM items WHERE project = ? AND stage = ? AND item = ?"
_FORGET_TESTS = """
DELETE FROM items WHERE project = ? AND stage = ? AND item >= ? || '::' AND item < ? || ':;'
"""
START_UP_ITEM = ""  # in the table of items: the seconds of a command beside its items; no file has this name


class Change:
    """What events change in the totals and last values, added up."""

    def __init__(self) -> None:
        self.amounts: dict[tuple[str, str, str], float] = defaultdict(float)  # family, labels, part
        self.values: dict[tuple[str, str], float] = {}  # family, labels

    def __bool__(self) -> bool:
        return bool(self.amounts or self.values)

    def take(self, event: Event) -> None:
        for increment in aggregation.increments(event):
            for part, amount in _parts(increment):
                self.amounts[increment.family.name, _labels(increment.labels), part] += amount
        for setting in aggregation.settings(event):
            self.values[setting.family.name, _labels(setting.labels)] = setting.value


@lru_cache(maxsize=1024)  # an event changes several families with the same labels
def _labels(values: tuple[str, ...]) -> str:
    return json.dumps(values)


def add(connection: sqlite3.Connection, project: str, change: Change) -> None:
    """Add to the totals, and set the last values; the caller holds the transaction."""
    if change.amounts:
        connection.executemany(_ADD, [(project, *place, amount) for place, amount in change.amounts.items()])
    if change.values:
        connection.executemany(_SET, [(project, *place, value) for place, value in change.values.items()])


def write(connection: sqlite3.Connection, project: str, event: Event, now_seconds: float) -> None:
    """Write the event's rows, totals and last values. `now_seconds`: wall time, the run's last sign of life."""
    _row(connection, project, event, now_seconds)
    change = Change()
    change.take(event)
    add(connection, project, change)
    if isinstance(event, StageRecord):
        _raise_to_shown(connection, project, event)
    if event.run_id is not None:
        connection.execute("UPDATE runs SET seen_ts = ? WHERE run_id = ?", (now_seconds, event.run_id))


def show(connection: sqlite3.Connection, run_id: str, cpu_totals: Mapping[str, float]) -> None:
    """Keep with running stages which total of CPU seconds a page shows: it has parts of attempts without an end yet."""
    connection.executemany(_SHOW, [(total, run_id, stage) for stage, total in cpu_totals.items()])


def _raise_to_shown(connection: sqlite3.Connection, project: str, stage: StageRecord) -> None:
    # The attempts of a killed exporter leave no record, and a live sample may be a little over what the attempt's end
    # says: a total under what was shown would be a counter's reset, and all of it be counted again.
    place = json.dumps((stage.lane, stage.stage))
    connection.execute(_RAISE, (project, families.STAGE_CPU.name, place, COUNTER, stage.run_id, stage.stage))


def _parts(increment: aggregation.Increment) -> list[tuple[str, float]]:
    if increment.family.kind is not Kind.HISTOGRAM:
        return [(COUNTER, increment.amount)]
    bounds = families.BUCKETS_SECONDS
    index = aggregation.bucket_index(increment.amount)
    # Buckets are kept by their bound, not by place: a history outlives a change of the layout.
    return [(repr(bounds[index]) if index < len(bounds) else INFINITY, 1.0), (SUM, increment.amount)]


def _row(connection: sqlite3.Connection, project: str, event: Event, now_seconds: float) -> None:
    match event:
        case RunStarted():
            _insert(connection, "runs", _run_started(event, project, now_seconds))
            _number(connection, project, event.run_id)
        case StageStarted():
            _insert(connection, "stages", _stage_started(event))
        case TaskRecord():
            _insert(connection, "tasks", _task(event))
            _time_items(connection, event, project, now_seconds)
            _fail_items(connection, event)
        case SlaRecord():
            _insert(connection, "sla", _limit(event))
        case StageRecord():
            _insert(connection, "stages", _stage(event), keys=("run_id", "stage"))
        case RunRecord():
            _insert(connection, "runs", _run(event, project, now_seconds), keys=("run_id",), keep=("planned",))
            _number(connection, project, event.run_id)
        case Decision():
            _insert(connection, "decisions", _decision(event, project))
        case _:
            assert_never(event)


def _number(connection: sqlite3.Connection, project: str, run_id: str) -> None:
    """Give a new run its place behind all earlier ones of its project."""
    last = "SELECT coalesce(max(sequence), 0) FROM runs WHERE project = ?"
    connection.execute(f"UPDATE runs SET sequence = 1 + ({last}) WHERE run_id = ? AND sequence = 0", (project, run_id))  # nosec B608 # literals


def _time_items(connection: sqlite3.Connection, task: TaskRecord, project: str, now_seconds: float) -> None:
    if task.scope is Scope.ARGUMENTS or (not task.items and task.start_up_seconds is None):
        return
    timed = [each for each in task.items if each.seconds is not None and each.item]
    times = [(each.item, each.seconds) for each in timed] + [test for each in timed for test in each.long_tests]
    if task.start_up_seconds is not None:  # its runner told: a file's tests that are not among these are no longer long
        files = [_stored(each.item) for each in timed if each.item not in task.cut_items]
        connection.executemany(_FORGET_TESTS, [(project, task.stage, file, file) for file in files])
        now_less = [_stored(each.item) for each in timed if each.long_tests]
        connection.executemany(_FORGET, [(project, task.stage, file) for file in now_less])
        times.append((START_UP_ITEM, task.start_up_seconds))
    connection.executemany(
        _TIME, [(project, task.stage, _stored(item), seconds, now_seconds) for item, seconds in times]
    )


def _fail_items(connection: sqlite3.Connection, task: TaskRecord) -> None:
    if not task.final or not task.result.bad or task.scope is Scope.ARGUMENTS:
        return
    # Of a batch that timed out or was killed nothing tells which items failed: none of them has succeeded.
    undone = [each.item for each in task.items if each.result is not Result.SUCCESS]
    bad = undone or [each.item for each in task.items] or ([] if task.item is None else [task.item])
    connection.executemany(
        "INSERT OR IGNORE INTO failed_items VALUES (?, ?, ?)",
        [(task.run_id, task.stage, _stored(item)) for item in bad],
    )


def _insert(
    connection: sqlite3.Connection,
    table: str,
    row: dict[str, object],
    *,
    keys: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
) -> None:
    """Insert a row, or complete the one that is there (not its `keep` columns). Names are from this module alone."""
    connection.execute(_insert_statement(table, tuple(row), keys, keep), tuple(map(_stored, row.values())))


@cache
def _insert_statement(table: str, names: tuple[str, ...], keys: tuple[str, ...], keep: tuple[str, ...]) -> str:
    changed = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys + keep)
    conflict = f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}" if keys else ""  # nosec B608 # literals
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}){conflict}"  # nosec B608 # of this module


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
        "partial": run.partial,
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
        "partial": run.partial,
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
        "scope": stage.scope.value,
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
