"""End runs whose process died, with the same totals as if they had been cancelled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from msgspec import Struct

from paropt_exporter.events import Result, RunRecord, Scope, SlaLimit, StageRecord, Strategy
from paropt_exporter.history import rows
from paropt_exporter.history.values import to_count, to_number, to_shard, to_text, to_texts, to_timestamp

MESSAGE = "interrupted: the exporter ended in the middle of the run"
NOT_STARTED = "not started: the exporter ended before"


class InterruptedRun(Struct, frozen=True, kw_only=True):
    """A run whose process died: the stages that were running, and those that had not started."""

    run_id: str
    lane: str
    started_timestamp_seconds: float
    running: tuple[str, ...]


def end_interrupted_run(connection: sqlite3.Connection, project: str, run_id: str) -> InterruptedRun | None:
    """End a run as cancelled, in the caller's transaction; return None if another process has ended it.

    Its last event counts as its end, since the real one is unknown. Its running tasks have no record. Runs that began
    before its death may have ended since, and their last values stay.
    """
    query = """
    SELECT lane, strategy, started_ts, seen_ts, planned, partial, shard, split, instance FROM runs
      WHERE run_id = ? AND ended_ts IS NULL
    """
    row = connection.execute(query, (run_id,)).fetchone()
    if row is None:
        return None
    lane, strategy, planned, instance = to_text(row[0]), Strategy(row[1]), to_texts(row[4]), to_text(row[8])
    started, seen = to_timestamp(row[2]), to_timestamp(row[3])
    stages = tuple(_iter_stage_records(connection, run_id, lane, planned=planned, seen_seconds=seen))
    ended_since = _load_stages_ended_since(connection, project, lane, seen)
    for stage in stages:
        is_last = stage.stage not in ended_since
        rows.write_events(connection, project, instance, (stage,), seen, sets_last_values=is_last)
    total, warned, broken = _load_reached_limit(connection, run_id, None)
    run = RunRecord(
        run_id=run_id,
        lane=lane,
        strategy=strategy,
        result=Result.CANCELLATION,
        reason=MESSAGE,
        duration_seconds=max(0.0, seen - started),
        started_timestamp_seconds=started,
        ended_timestamp_seconds=seen,
        stages=stages,
        sequential_seconds=0.0,
        busy_ratio=0.0,
        total=total,
        warned=warned,
        broken=broken,
        interrupted=True,
        partial=bool(row[5]),
        shard=to_shard(row[6], row[7]),
    )
    is_last = not _has_lane_ended_since(connection, project, lane, seen)
    rows.write_events(connection, project, instance, (run,), seen, sets_last_values=is_last)
    return _build_interrupted(run)


def _load_stages_ended_since(connection: sqlite3.Connection, project: str, lane: str, seconds: float) -> set[str]:
    """Return the stages of other runs of a lane that have ended since a moment of wall time."""
    query = """
    SELECT stage FROM runs CROSS JOIN stages USING (run_id)
      WHERE project = :project AND lane = :lane AND (ended_ts IS NULL OR ended_ts > :seconds)
        AND stages.result IS NOT NULL AND stages.started_ts + stages.duration > :seconds
    """
    found = connection.execute(query, {"project": project, "lane": lane, "seconds": seconds})
    return {to_text(stage) for (stage,) in found}


def _has_lane_ended_since(connection: sqlite3.Connection, project: str, lane: str, seconds: float) -> bool:
    query = "SELECT 1 FROM runs WHERE project = ? AND lane = ? AND ended_ts > ? LIMIT 1"
    return connection.execute(query, (project, lane, seconds)).fetchone() is not None


def _build_interrupted(run: RunRecord) -> InterruptedRun:
    return InterruptedRun(
        run_id=run.run_id,
        lane=run.lane,
        started_timestamp_seconds=run.started_timestamp_seconds,
        running=tuple(stage.stage for stage in run.stages if stage.result is Result.CANCELLATION),
    )


def _iter_stage_records(
    connection: sqlite3.Connection, run_id: str, lane: str, *, planned: tuple[str, ...], seen_seconds: float
) -> Iterator[StageRecord]:
    """Yield a record for each stage that was planned or has started, and has no result.

    A program's own pool (`StageCollector`) plans no stages: each is known from its start on.
    """
    query = "SELECT stage, number, pool, tasks, started_ts, result, scope FROM stages WHERE run_id = ?"
    known = {to_text(row[0]): row for row in connection.execute(query, (run_id,))}
    for stage in dict.fromkeys((*planned, *known)):
        _, place, pool, tasks, started, result, scope = known.get(stage, (stage, 0, "", 0, None, None, Scope.ALL))
        if result is not None:
            continue
        sla, warned, broken = _load_reached_limit(connection, run_id, stage)
        yield StageRecord(
            run_id=run_id,
            lane=lane,
            stage=stage,
            number=to_count(place),
            result=Result.CANCELLATION if started is not None else Result.SKIP,
            message=MESSAGE if started is not None else NOT_STARTED,
            pool=to_text(pool),
            tasks=to_count(tasks),
            tasks_failed=0,
            duration_seconds=max(0.0, seen_seconds - to_timestamp(started)) if started is not None else 0.0,
            started_timestamp_seconds=None if started is None else to_timestamp(started),
            sla=sla,
            warned=warned,
            broken=broken,
            scope=Scope(scope),
        )


def _load_reached_limit(
    connection: sqlite3.Connection, run_id: str, stage: str | None
) -> tuple[SlaLimit | None, bool, bool]:
    """Return the limit that a run or stage reached, if any, and whether its warning and its maximum were."""
    query = "SELECT max, warn, critical, broken FROM sla WHERE run_id = ? AND stage IS ? ORDER BY broken"
    reached = connection.execute(query, (run_id, stage)).fetchall()
    if not reached:
        return None, False, False
    max_seconds, warn_seconds, critical, broken = reached[-1]
    limit = SlaLimit(max_seconds=to_number(max_seconds), warn_seconds=to_number(warn_seconds), critical=bool(critical))
    return limit, True, bool(broken)
