"""Summarize recorded runs, their stages and their tasks, and compare the throughput of a lane with its past."""

from __future__ import annotations

import json
import sqlite3

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.events import Bottleneck, Result, TaskTiming
from paropt_exporter.history.values import to_count, to_number, to_text, to_timestamp

DEGRADED_RATIO = 0.8  # the guide's figure: latest throughput under 80 % of the average
DEGRADED_SECONDS = 1.0  # runs of 0.1 s differ more than that by chance
_RUN_COLUMNS = """
run_id, lane, strategy, result, reason, started_ts, coalesce(duration, seen_ts - started_ts), coalesce(sequential, 0),
coalesce(busy_ratio, 0), warned, broken, interrupted, bottlenecks, partial, shard
"""


class StageSummary(Struct, frozen=True, kw_only=True):
    """A stage of a run. `result` is None while it runs. `cached`: some of its tasks were skipped as unchanged.

    `duration_seconds` is 0 until it has ended, unless `measure_running` has set it.
    """

    stage: str
    number: int
    pool: str
    result: Result | None
    message: str
    tasks: int
    tasks_failed: int
    duration_seconds: float
    cpu_seconds: float
    memory_peak_bytes: int
    attempts: int
    warned: bool
    broken: bool
    cached: bool = False
    started_timestamp_seconds: float | None = None


class RunSummary(Struct, frozen=True, kw_only=True):
    """A run. `result` is None while it runs. Tasks count once, by their last attempt.

    `partial`: the command line left out stages or items, or gave arguments to some. `shard`: such as "2/5", or "".
    """

    run_id: str
    lane: str
    strategy: str
    result: Result | None
    reason: str
    started_timestamp_seconds: float
    duration_seconds: float
    sequential_seconds: float
    busy_ratio: float
    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    warned: bool
    broken: bool
    interrupted: bool
    bottlenecks: tuple[Bottleneck, ...]
    stages: tuple[StageSummary, ...]
    partial: bool = False
    shard: str = ""

    @property
    def throughput_tasks_per_second(self) -> float:
        return self.completed_tasks / self.duration_seconds if self.duration_seconds > 0 else 0.0


class TaskSummary(Struct, frozen=True, kw_only=True):
    """An attempt of a task of a run."""

    stage: str
    task: int
    result: Result
    started_timestamp_seconds: float
    duration_seconds: float
    cpu_seconds: float
    run_delay_seconds: float
    gil_bound: bool

    @property
    def timing(self) -> TaskTiming:
        return TaskTiming(
            stage=self.stage,
            task=self.task,
            started_seconds=self.started_timestamp_seconds,
            duration_seconds=self.duration_seconds,
            cpu_seconds=self.cpu_seconds,
            run_delay_seconds=self.run_delay_seconds,
            gil_bound=self.gil_bound,
        )


class Trend(Struct, frozen=True, kw_only=True):
    """The latest run's throughput and the average of the earlier ones, in tasks per second.

    `lost_seconds`: how much longer the latest run took than it would have taken at the average.
    """

    latest: float
    average: float
    earlier_runs: int
    lost_seconds: float

    @property
    def degraded(self) -> bool:
        return self.latest < self.average * DEGRADED_RATIO and self.lost_seconds >= DEGRADED_SECONDS


def load_runs(connection: sqlite3.Connection, project: str, *, lane: str | None, limit: int) -> tuple[RunSummary, ...]:
    """Return the last `limit` runs, oldest first."""
    query = f"""
    SELECT {_RUN_COLUMNS} FROM runs WHERE project = :project AND (:lane IS NULL OR lane = :lane)
      ORDER BY sequence DESC LIMIT :limit
    """  # nosec B608 # literals of this module
    found = connection.execute(query, {"project": project, "lane": lane, "limit": limit}).fetchall()
    return tuple(_build_summary(connection, row) for row in reversed(found))


def load_run_durations(connection: sqlite3.Connection, project: str, lane: str, *, limit: int) -> tuple[float, ...]:
    """Return the durations in seconds of those of the lane's last `limit` whole runs that succeeded."""
    return tuple(
        summary.duration_seconds
        for summary in load_runs(connection, project, lane=lane, limit=limit)
        if _is_whole_success(summary)
    )


def load_projects(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of the projects that have runs, sorted."""
    found = connection.execute("SELECT DISTINCT project FROM runs ORDER BY project")
    return tuple(to_text(name) for (name,) in found)


def find_run(connection: sqlite3.Connection, project: str, run_id: str) -> RunSummary | None:
    """Return the run with this id, or the only run whose id begins with it."""
    query = f"SELECT {_RUN_COLUMNS} FROM runs WHERE project = ? AND substr(run_id, 1, ?) = ? LIMIT 2"  # nosec B608
    found = connection.execute(query, (project, len(run_id), run_id)).fetchall()
    return _build_summary(connection, found[0]) if len(found) == 1 else None


def measure_running(run: RunSummary, now: float) -> RunSummary:
    """Return a running run with durations up to `now`: until its end, the history only knows its last event."""
    stages = (
        replace(stage, duration_seconds=max(0.0, now - stage.started_timestamp_seconds))
        if stage.result is None and stage.started_timestamp_seconds is not None
        else stage
        for stage in run.stages
    )
    return replace(run, duration_seconds=max(0.0, now - run.started_timestamp_seconds), stages=tuple(stages))


def load_tasks(connection: sqlite3.Connection, run_id: str) -> tuple[TaskSummary, ...]:
    """Return all attempts of a run's tasks, ordered by stage, task and attempt."""
    query = """
    SELECT stage, task, tasks.result, tasks.started_ts, tasks.duration, tasks.cpu, run_delay, coalesce(gil_bound, 0)
    FROM tasks LEFT JOIN stages USING (run_id, stage) WHERE run_id = ? ORDER BY stage, task, attempt
    """
    return tuple(
        TaskSummary(
            stage=to_text(stage),
            task=to_count(task),
            result=Result(result),
            started_timestamp_seconds=to_timestamp(started),
            duration_seconds=to_number(duration),
            cpu_seconds=to_number(cpu),
            run_delay_seconds=to_number(delay),
            gil_bound=bool(bound),
        )
        for stage, task, result, started, duration, cpu, delay, bound in connection.execute(query, (run_id,))
    )


def compute_trend(connection: sqlite3.Connection, project: str, lane: str, *, limit: int) -> Trend | None:
    """Compare the lane's latest throughput with the average of up to `limit` earlier runs; None with fewer than two.

    Only successes count: a failed run completes fewer tasks, and its stages end early or are skipped. Partial runs are
    left out, as with `--failed`, and so are runs in which a task was cached, or whose records were lost on a full disk.
    """
    summaries = load_runs(connection, project, lane=lane, limit=limit + 1)
    ended = [run for run in summaries if run.stages and _is_whole_success(run)]
    if len(ended) < 2:
        return None
    *earlier, latest = ended
    average = sum(run.throughput_tasks_per_second for run in earlier) / len(earlier)
    usual_seconds = latest.completed_tasks / average if average > 0 else latest.duration_seconds
    return Trend(
        latest=latest.throughput_tasks_per_second,
        average=average,
        earlier_runs=len(earlier),
        lost_seconds=latest.duration_seconds - usual_seconds,
    )


def _is_whole_success(summary: RunSummary) -> bool:
    has_cached = any(stage.cached for stage in summary.stages)
    return summary.result is Result.SUCCESS and not (summary.partial or has_cached)


def _build_summary(connection: sqlite3.Connection, row: tuple[object, ...]) -> RunSummary:
    (
        run_id, lane, strategy, result, reason, started, duration, sequential, busy, warned, broken, interrupted, held,
        partial, shard,
    ) = row  # fmt: skip
    stages = _load_stages(connection, to_text(run_id))
    counts: dict[str, int] = dict(
        connection.execute("SELECT result, count(*) FROM tasks WHERE run_id = ? AND final GROUP BY result", (run_id,))
    )
    return RunSummary(
        run_id=to_text(run_id),
        lane=to_text(lane),
        strategy=to_text(strategy),
        result=Result(to_text(result)) if result is not None else None,
        reason=to_text(reason),
        started_timestamp_seconds=to_timestamp(started),
        duration_seconds=to_number(duration),
        sequential_seconds=to_number(sequential),
        busy_ratio=to_number(busy),
        total_tasks=sum(stage.tasks for stage in stages if stage.result is not Result.SKIP),
        completed_tasks=counts.get(Result.SUCCESS, 0),
        failed_tasks=sum(count for name, count in counts.items() if Result(name).bad),
        warned=bool(warned),
        broken=bool(broken),
        interrupted=bool(interrupted),
        bottlenecks=tuple(
            Bottleneck(
                kind=to_text(kind),
                stage=None if stage is None else to_text(stage),
                sentence=to_text(sentence),
                advice=to_text(advice),
            )
            for kind, stage, sentence, advice in json.loads(to_text(held))
        ),
        stages=stages,
        partial=bool(partial),
        shard=to_text(shard),
    )


def _load_stages(connection: sqlite3.Connection, run_id: str) -> tuple[StageSummary, ...]:
    query = """
    SELECT stage, number, pool, result, message, tasks, coalesce(tasks_failed, 0), coalesce(duration, 0),
           coalesce(cpu, 0), coalesce(memory_peak, 0), coalesce(attempts, 0), coalesce(warned, 0), coalesce(broken, 0),
           scope = 'cached', started_ts
    FROM stages WHERE run_id = ? ORDER BY number, stage
    """
    return tuple(
        StageSummary(
            stage=to_text(stage),
            number=to_count(place),
            pool=to_text(pool),
            result=Result(result) if result is not None else None,
            message=to_text(message),
            tasks=to_count(tasks),
            tasks_failed=to_count(failed),
            duration_seconds=to_number(duration),
            cpu_seconds=to_number(cpu),
            memory_peak_bytes=to_count(memory),
            attempts=to_count(attempts),
            warned=bool(warned),
            broken=bool(broken),
            cached=bool(cached),
            started_timestamp_seconds=None if started is None else to_timestamp(started),
        )
        for (
            stage, place, pool, result, message, tasks, failed, duration, cpu, memory, attempts, warned, broken, cached,
            started,
        ) in connection.execute(query, (run_id,))
    )  # fmt: skip
