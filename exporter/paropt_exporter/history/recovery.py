"""Mark runs whose process died in the middle, with the same totals as if they had been cancelled."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from paropt_exporter.events import Result, RunRecord, Scope, SlaLimit, StageRecord, Strategy
from paropt_exporter.history import rows
from paropt_exporter.history.cells import count, number, text, texts, timestamp

MESSAGE = "interrupted: the exporter ended in the middle of the run"
NOT_STARTED = "not started: the exporter ended before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A run that its process didn't live to end: which of its stages were running, and which had not begun."""

    run_id: str
    lane: str
    started_timestamp_seconds: float
    running: tuple[str, ...]
    not_started: tuple[str, ...]


def unended(connection: sqlite3.Connection, project: str) -> list[str]:
    """Return the ids of the project's runs that have no end yet."""
    query = "SELECT run_id FROM runs WHERE project = ? AND ended_ts IS NULL ORDER BY sequence"
    return [text(run_id) for (run_id,) in connection.execute(query, (project,))]


def mark(connection: sqlite3.Connection, project: str, run_id: str) -> Interrupted | None:
    """End one run as cancelled; the caller holds the transaction. None if another process has ended it meanwhile.

    How long it really ran is not known: its last sign of life, the last event in the history, is taken for its end.
    Its tasks leave no record: which of them had started died with the exporter.
    """
    row = connection.execute(
        "SELECT lane, strategy, started_ts, seen_ts, planned, partial FROM runs WHERE run_id = ? AND ended_ts IS NULL",
        (run_id,),
    ).fetchone()
    if row is None:
        return None
    lane, strategy, planned = text(row[0]), Strategy(row[1]), texts(row[4])
    started, seen = timestamp(row[2]), timestamp(row[3])
    stages = tuple(_stages(connection, run_id, lane, planned=planned, seen_seconds=seen))
    for stage in stages:
        rows.write(connection, project, stage, seen)
    total, warned, broken = _limit(connection, run_id, None)
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
    )
    rows.write(connection, project, run, seen)
    return _interrupted(run)


def _interrupted(run: RunRecord) -> Interrupted:
    return Interrupted(
        run_id=run.run_id,
        lane=run.lane,
        started_timestamp_seconds=run.started_timestamp_seconds,
        running=tuple(stage.stage for stage in run.stages if stage.result is Result.CANCELLATION),
        not_started=tuple(stage.stage for stage in run.stages if stage.result is Result.SKIP),
    )


def _stages(
    connection: sqlite3.Connection, run_id: str, lane: str, *, planned: tuple[str, ...], seen_seconds: float
) -> Iterator[StageRecord]:
    """Yield a record for each planned stage that has no result."""
    query = "SELECT stage, number, pool, tasks, started_ts, result, scope FROM stages WHERE run_id = ?"
    known = {row[0]: row for row in connection.execute(query, (run_id,))}
    for stage in planned:
        _, place, pool, tasks, started, result, scope = known.get(stage, (stage, 0, "", 0, None, None, Scope.ALL))
        if result is not None:
            continue
        sla, warned, broken = _limit(connection, run_id, stage)
        yield StageRecord(
            run_id=run_id,
            lane=lane,
            stage=stage,
            number=count(place),
            result=Result.CANCELLATION if started is not None else Result.SKIP,
            message=MESSAGE if started is not None else NOT_STARTED,
            pool=text(pool),
            tasks=count(tasks),
            tasks_failed=0,
            duration_seconds=max(0.0, seen_seconds - timestamp(started)) if started is not None else 0.0,
            started_timestamp_seconds=None if started is None else timestamp(started),
            sla=sla,
            warned=warned,
            broken=broken,
            scope=Scope(scope),
        )


def _limit(connection: sqlite3.Connection, run_id: str, stage: str | None) -> tuple[SlaLimit | None, bool, bool]:
    """Return the limit that was reached in the run, and whether it was warned of and broken."""
    query = "SELECT max, warn, critical, broken FROM sla WHERE run_id = ? AND stage IS ? ORDER BY broken"
    reached = connection.execute(query, (run_id, stage)).fetchall()
    if not reached:
        return None, False, False
    max_seconds, warn_seconds, critical, broken = reached[-1]
    limit = SlaLimit(max_seconds=number(max_seconds), warn_seconds=number(warn_seconds), critical=bool(critical))
    return limit, True, bool(broken)
