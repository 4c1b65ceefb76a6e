"""Write an event as rows and add it to the totals, in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from typing import assert_never

from paropt_exporter import aggregation, families, plain_json
from paropt_exporter.events import (
    Decision,
    Event,
    ItemRecord,
    Result,
    RunRecord,
    RunStarted,
    Scope,
    Shard,
    SlaRecord,
    StageRecord,
    StageStarted,
    TaskRecord,
)
from paropt_exporter.families import Kind
from paropt_exporter.terminal import to_unicode

OUTPUT_CHARACTERS = 4096  # of a failed task's output: one or two screens; a stage's `file` has all of it
SUM = "sum"
COUNTER = ""
INFINITY = "+Inf"

_ADD_TOTAL = """
INSERT INTO totals (project, instance, family, labels, part, value) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (project, family, instance, labels, part) DO UPDATE SET value = value + excluded.value
"""
_STORE_SHOWN_CPU = """
UPDATE stages SET shown_cpu_total = max(coalesce(shown_cpu_total, 0), ?) WHERE run_id = ? AND stage = ?
"""
_RAISE_TOTAL = """
INSERT INTO totals (project, instance, family, labels, part, value)
  SELECT ?, ?, ?, ?, ?, shown_cpu_total FROM stages WHERE run_id = ? AND stage = ? AND shown_cpu_total IS NOT NULL
ON CONFLICT (project, family, instance, labels, part) DO UPDATE SET value = max(value, excluded.value)
"""
_SET_LATEST = """
INSERT INTO latest (project, family, labels, value) VALUES (?, ?, ?, ?)
ON CONFLICT (project, family, labels) DO UPDATE SET value = excluded.value WHERE value <> excluded.value
"""  # most values stay the same, and a row that is not changed is not written


# A mean in which each run weighs twice as much as the one before: precise enough to cut batches, in one row per item.
_STORE_DURATION = """
INSERT INTO items (project, stage, item, seconds, seen_ts) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (project, stage, item)
  DO UPDATE SET seconds = (seconds + excluded.seconds) / 2, seen_ts = excluded.seen_ts
"""
_STORE_SHARD_DURATION = """
INSERT INTO shard_items (project, stage, item, seconds, seen_ts)
  SELECT new.project, new.stage, new.item,
      coalesce((coalesce(known.seconds, items.seconds) + new.seconds) / 2, new.seconds), new.seen_ts FROM
    (SELECT ? AS project, ? AS stage, ? AS item, ? AS seconds, ? AS seen_ts) AS new
    LEFT JOIN shard_items AS known USING (project, stage, item) LEFT JOIN items USING (project, stage, item) WHERE true
ON CONFLICT (project, stage, item) DO UPDATE SET seconds = excluded.seconds, seen_ts = excluded.seen_ts
"""
_OF_TESTS = "FROM {} WHERE project = ? AND stage = ? AND item >= ? || '::' AND item < ? || ':;'"  # of a file
# The rows of a file's tests that other shards run, so that a merge knows that these are still measured separately.
_COPY_TESTS = f"""
INSERT OR IGNORE INTO shard_items (project, stage, item, seconds, seen_ts)
  SELECT project, stage, item, seconds, seen_ts {_OF_TESTS.format("items")}
"""  # nosec B608 # literals
START_UP_ITEM = ""  # in the table `items`, the row with a command's seconds apart from its items; no file has this name


class TotalsDelta:
    """The sum of the changes that some events make to totals and last values."""

    def __init__(self) -> None:
        self.amounts: dict[tuple[str, str, str], float] = defaultdict(float)  # family, labels, part
        self.values: dict[tuple[str, str], float] = {}  # family, labels

    def __bool__(self) -> bool:
        return bool(self.amounts or self.values)

    def add_event(self, event: Event) -> None:
        for increment in aggregation.iter_increments(event):
            for part, amount in _split_increment(increment):
                self.amounts[increment.family.name, _encode_labels(increment.labels), part] += amount
        for setting in aggregation.iter_gauge_values(event):
            self.values[setting.family.name, _encode_labels(setting.labels)] = setting.value


@lru_cache(maxsize=1024)  # an event changes several families with the same labels
def _encode_labels(values: tuple[str, ...]) -> str:
    """Return the same text as `json.dumps`, which takes six times as long."""
    return f"[{', '.join(map(plain_json.encode_basestring_ascii, values))}]"


def apply_delta(connection: sqlite3.Connection, project: str, instance: str, delta: TotalsDelta) -> None:
    """Add to an instance's totals and set the last values, in the caller's transaction."""
    if delta.amounts:
        connection.executemany(
            _ADD_TOTAL, [(project, instance, *place, amount) for place, amount in delta.amounts.items()]
        )
    if delta.values:
        connection.executemany(_SET_LATEST, [(project, *place, value) for place, value in delta.values.items()])


def write_events(
    connection: sqlite3.Connection,
    project: str,
    instance: str,
    events: Sequence[Event],
    now_seconds: float,
    *,
    sets_last_values: bool = True,
) -> None:
    """Write the rows, totals and, unless a later run has set them, last values of an instance's events.

    `now_seconds`: the wall time at which their run is alive.
    """
    delta = TotalsDelta()
    choose_item_table = cache(partial(_choose_item_table, connection))  # one query for all of a run's events
    ended = {(event.run_id, event.stage) for event in events if isinstance(event, StageRecord)}
    for event in events:
        # If a stage has ended too, the record of its end has all columns of its start.
        if not isinstance(event, StageStarted) or (event.run_id, event.stage) not in ended:
            _write_row(connection, project, instance, event, now_seconds, choose_item_table)
        delta.add_event(event)
    if not sets_last_values:
        delta.values.clear()
    apply_delta(connection, project, instance, delta)
    for event in events:
        if isinstance(event, StageRecord):
            _raise_total_to_shown(connection, project, instance, event)
    for run_id in {event.run_id for event in events} - {None}:
        connection.execute("UPDATE runs SET seen_ts = ? WHERE run_id = ?", (now_seconds, run_id))


def store_shown_cpu(connection: sqlite3.Connection, run_id: str, cpu_totals: Mapping[str, float]) -> None:
    """Store the CPU totals of running stages that a page shows; they include attempts that have not ended."""
    connection.executemany(_STORE_SHOWN_CPU, [(total, run_id, stage) for stage, total in cpu_totals.items()])


def _raise_total_to_shown(connection: sqlite3.Connection, project: str, instance: str, stage: StageRecord) -> None:
    # The attempts of a killed exporter have no record, and a live sample may exceed an attempt's final value slightly.
    # A total below the shown one would look like a counter reset, and `increase()` would count all of it again.
    place = plain_json.dumps((stage.lane, stage.stage))
    values = (project, instance, families.STAGE_CPU.name, place, COUNTER, stage.run_id, stage.stage)
    connection.execute(_RAISE_TOTAL, values)


def _split_increment(increment: aggregation.Increment) -> list[tuple[str, float]]:
    if increment.family.kind is not Kind.HISTOGRAM:
        return [(COUNTER, increment.amount)]
    bounds = families.BUCKETS_SECONDS
    index = aggregation.find_bucket(increment.amount)
    # Buckets are stored by their bound, not by index: a history outlives changes of the bounds.
    return [(repr(bounds[index]) if index < len(bounds) else INFINITY, 1.0), (SUM, increment.amount)]


def _write_row(
    connection: sqlite3.Connection,
    project: str,
    instance: str,
    event: Event,
    now_seconds: float,
    choose_item_table: Callable[[str], str],
) -> None:
    match event:
        case RunStarted():
            _insert(connection, "runs", _build_run_start_row(event, project, instance, now_seconds))
            _assign_sequence(connection, project, event.run_id)
        case StageStarted():
            _insert(connection, "stages", _build_stage_start_row(event))
        case TaskRecord():
            _insert(connection, "tasks", _build_task_row(event))
            _write_item_durations(connection, event, project, now_seconds, choose_item_table)
            _write_failed_items(connection, event)
        case SlaRecord():
            _insert(connection, "sla", _build_sla_row(event))
        case StageRecord():
            _insert(connection, "stages", _build_stage_row(event), keys=("run_id", "stage"))
            _write_flaky_items(connection, event)
        case RunRecord():
            _insert(
                connection,
                "runs",
                _build_run_row(event, project, instance, now_seconds),
                keys=("run_id",),
                keep=("planned",),
            )
            _assign_sequence(connection, project, event.run_id)
        case Decision():
            _insert(connection, "decisions", _build_decision_row(event, project))
        case _:
            assert_never(event)


def _assign_sequence(connection: sqlite3.Connection, project: str, run_id: str) -> None:
    """Number a new run after all earlier ones of its project."""
    connection.execute(
        "UPDATE runs SET sequence = 1 + (SELECT coalesce(max(sequence), 0) FROM runs WHERE project = ?)"
        " WHERE run_id = ? AND sequence = 0",
        (project, run_id),
    )


def _write_item_durations(
    connection: sqlite3.Connection,
    task: TaskRecord,
    project: str,
    now_seconds: float,
    choose_item_table: Callable[[str], str],
) -> None:
    if task.cached or task.scope is Scope.ARGUMENTS or (task.item is None and not task.items):
        return
    table = choose_item_table(task.run_id)
    if task.item is not None and not task.items:
        if task.result is Result.SUCCESS:
            row = (project, task.stage, _to_stored(task.item), task.duration_seconds, now_seconds)
            connection.execute(_STORE_STATEMENTS[table], row)
        return
    timed = [each for each in task.items if each.seconds is not None and each.item]
    times = [(each.item, each.seconds) for each in timed] + [test for each in timed for test in each.long_tests]
    if task.start_up_seconds is not None:
        for each in timed:
            _update_long_tests(connection, table, (project, task.stage), each, cut=each.item in task.cut_items)
        times.append((START_UP_ITEM, task.start_up_seconds))
    connection.executemany(
        _STORE_STATEMENTS[table],
        [(project, task.stage, _to_stored(item), seconds, now_seconds) for item, seconds in times],
    )


_ITEMS, _SHARD_ITEMS = "items", "shard_items"
_STORE_STATEMENTS = {_ITEMS: _STORE_DURATION, _SHARD_ITEMS: _STORE_SHARD_DURATION}


def _choose_item_table(connection: sqlite3.Connection, run_id: str) -> str:
    found = connection.execute("SELECT shard FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    return _SHARD_ITEMS if found is not None and found[0] else _ITEMS


def _update_long_tests(
    connection: sqlite3.Connection, table: str, stage: tuple[str, str], file: ItemRecord, *, cut: bool
) -> None:
    """Delete the rows of a file's tests that are no longer long, now that its runner has reported all their durations.

    The file's own row excludes its long tests, and starts afresh if their set changes. `cut`: other batches or shards
    ran some of its tests, whose rows stay.
    """
    name = _to_stored(file.item)
    if cut and table == _SHARD_ITEMS:
        connection.execute(_COPY_TESTS, (*stage, name, name))
    found = connection.execute(f"SELECT item {_OF_TESTS.format(table)}", (*stage, name, name))  # nosec B608 # literals
    before, now = {item for (item,) in found}, {_to_stored(test) for test, _ in file.long_tests}
    gone = set() if cut else before - now
    if gone or now - before:
        gone.add(name)
    statement = f"DELETE FROM {table} WHERE project = ? AND stage = ? AND item = ?"  # nosec B608 # literals
    connection.executemany(statement, [(*stage, item) for item in gone])


def _write_failed_items(connection: sqlite3.Connection, task: TaskRecord) -> None:
    if not task.final or not task.result.bad or task.scope is Scope.ARGUMENTS:
        return
    # A batch that timed out or was killed does not report which items failed: all without a success count.
    undone = [each.item for each in task.items if each.result is not Result.SUCCESS]
    bad = undone or [each.item for each in task.items] or ([] if task.item is None else [task.item])
    connection.executemany(
        "INSERT OR IGNORE INTO failed_items VALUES (?, ?, ?)",
        [(task.run_id, task.stage, _to_stored(item)) for item in bad],
    )


def _write_flaky_items(connection: sqlite3.Connection, stage: StageRecord) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO flaky_items VALUES (?, ?, ?)",
        [(stage.run_id, stage.stage, _to_stored(item)) for item in stage.flaky_items],
    )


def _insert(
    connection: sqlite3.Connection,
    table: str,
    row: dict[str, object],
    *,
    keys: tuple[str, ...] = (),
    keep: tuple[str, ...] = (),
) -> None:
    """Insert a row, or update the existing one except for its `keep` columns. All names are from this module."""
    # Most values need no conversion, and calling `_to_stored` for each would take as long as the insertion.
    stored = [_to_stored(value) if isinstance(value, str) and not value.isascii() else value for value in row.values()]
    connection.execute(_build_insert(table, tuple(row), keys, keep), stored)


@cache
def _build_insert(table: str, names: tuple[str, ...], keys: tuple[str, ...], keep: tuple[str, ...]) -> str:
    changed = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys + keep)
    conflict = f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed}" if keys else ""  # nosec B608 # literals
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}){conflict}"  # nosec B608 # of this module


def _to_stored(value: object) -> object:
    """Return a value that SQLite accepts: text that is not valid Unicode gets its bytes as escapes."""
    return to_unicode(value) if isinstance(value, str) else value


def _build_run_start_row(run: RunStarted, project: str, instance: str, now_seconds: float) -> dict[str, object]:
    return {
        "run_id": run.run_id,
        "project": project,
        "instance": instance,
        "lane": run.lane,
        "strategy": run.strategy.value,
        "started_ts": run.started_timestamp_seconds,
        "seen_ts": now_seconds,
        "planned": plain_json.dumps(run.stages),
        "partial": run.partial,
        **_build_shard_columns(run.shard),
        "tree_state": run.tree_state,
    }


def _build_run_row(run: RunRecord, project: str, instance: str, now_seconds: float) -> dict[str, object]:
    bottlenecks = [(found.kind, found.stage, found.sentence, found.advice) for found in run.bottlenecks]
    return {
        "run_id": run.run_id,
        "project": project,
        "instance": instance,
        "lane": run.lane,
        "strategy": run.strategy.value,
        "started_ts": run.started_timestamp_seconds,
        "seen_ts": now_seconds,
        "planned": plain_json.dumps([stage.stage for stage in run.stages]),
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
        "bottlenecks": plain_json.dumps(bottlenecks),
        "abandoned": plain_json.dumps(run.abandoned),
        "partial": not run.is_whole,
        **_build_shard_columns(run.shard),
    }


def _build_shard_columns(shard: Shard | None) -> dict[str, object]:
    """Return the columns of a shard. The durations that its run measured count after a merge."""
    if shard is None:
        return {"shard": "", "split": "", "merged": True}
    return {"shard": str(shard), "split": shard.split, "merged": False}


def _build_stage_start_row(stage: StageStarted | StageRecord) -> dict[str, object]:
    """Return the columns that are known from a stage's start."""
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


def _build_stage_row(stage: StageRecord) -> dict[str, object]:
    return {
        **_build_stage_start_row(stage),
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
        "first_attempts": stage.first_attempts,
        "flaky_attempts": stage.flaky_attempts,
    }


def _build_task_row(task: TaskRecord) -> dict[str, object]:
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


def _build_sla_row(limit: SlaRecord) -> dict[str, object]:
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


def _build_decision_row(decision: Decision, project: str) -> dict[str, object]:
    return {
        "project": project,
        "run_id": decision.run_id,
        "pool": decision.pool,
        "action": decision.action,
        "reason": decision.reason,
        "old_size": decision.old_size,
        "new_size": decision.new_size,
        "at_ts": decision.at_timestamp_seconds,
        "terms": plain_json.dumps(dict(decision.terms)),
        "situation": decision.situation,
        "choice": decision.choice,
    }
