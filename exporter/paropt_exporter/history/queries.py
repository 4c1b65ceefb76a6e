"""Query the history: totals to resume from, expected durations, failures of the last runs, summaries and the trend.

The last run is the one that began last (`sequence`), not the one with the latest timestamp, since wall clocks jump.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct, field

from paropt_exporter import families
from paropt_exporter.aggregation import HistogramTotal, LastValues, SeriesKey, Totals, find_bucket
from paropt_exporter.cpu_demand import CROWDED_RATIO
from paropt_exporter.events import Bottleneck, Decision, Result, Shard, TaskTiming
from paropt_exporter.history import rows
from paropt_exporter.history.values import to_count, to_number, to_text, to_texts, to_timestamp
from paropt_exporter.plan import THREADS, KnownItems
from paropt_exporter.plan.flakiness import FLAKY_RUNS, Flakiness, OpenFailures
from paropt_exporter.plan.structure import compute_median

if TYPE_CHECKING:
    from typing import Literal

    from paropt_exporter.plan.deadline import StagePast

EXPECTED_RUNS = 10  # a median of ten follows a change within a day and ignores up to four outliers
# The runs of the shards of one split count as one.
_ROUND = "CASE split WHEN '' THEN run_id ELSE split END"
# Of a history of years, expectations come from the last runs: to read all of 200,000 took 2 s before each run.
CONSIDERED_RUNS = 1000
_RECENT_RUNS = f"""
(SELECT * FROM runs WHERE project = :project AND lane = :lane ORDER BY sequence DESC LIMIT {CONSIDERED_RUNS})
"""  # nosec B608 # literals of this module
_LAST_RUNS = f"""
SELECT run_id FROM {_RECENT_RUNS} WHERE {_ROUND} IN
  (SELECT {_ROUND} FROM {_RECENT_RUNS} GROUP BY 1 ORDER BY max(sequence) DESC LIMIT :runs)
"""  # nosec B608 # literals of this module
# Without those of shards that are not merged: durations decide about the split, which must not change meanwhile.
_LAST_MERGED_RUNS = _LAST_RUNS.replace(":lane", ":lane AND merged")
PAST_RUNS = 20  # enough for a 90 % quantile that ignores the two slowest runs
DEGRADED_RATIO = 0.8  # the guide's figure: latest throughput under 80 % of the average
RETRIED_RUNS = 20  # a failure is run again in the same state within so many runs, or never
_BAD = tuple(result.value for result in Result if result.bad)
# The runs of each lane, the latest first; of a single lane, only the latest.
_RANKED = """
SELECT run_id, lane, started_ts, row_number() OVER (PARTITION BY lane ORDER BY sequence DESC) AS age
  FROM runs WHERE project = :project AND :lane IS NULL
UNION ALL SELECT * FROM (
  SELECT run_id, lane, started_ts, row_number() OVER (ORDER BY sequence DESC) AS age
    FROM runs WHERE project = :project AND lane = :lane ORDER BY sequence DESC LIMIT :runs)
"""
# The runs of a lane in one tree state in which a stage failed, and did not succeed since.
_OPEN = """
SELECT stages.run_id AS run_id, stages.stage AS stage FROM stages JOIN runs USING (run_id)
  WHERE project = :project AND lane = :lane AND tree_state = :state AND scope <> 'arguments'
    AND sequence > (
      SELECT coalesce(max(earlier.sequence), 0) FROM runs AS earlier JOIN stages AS passed USING (run_id)
      WHERE earlier.project = :project AND earlier.lane = :lane AND earlier.tree_state = :state
        AND passed.stage = stages.stage AND passed.result = 'success' AND passed.scope <> 'arguments')
"""


class StageSummary(Struct, frozen=True, kw_only=True):
    """A stage of a run. `result` is None while it runs. `cached`: tasks of it were skipped."""

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


class Failures(Struct, frozen=True, kw_only=True):
    """The stages that failed or did not run in a lane's last runs, and their failed items where these are known.

    `succeeded` and `unknown` are the other stages; no run planned the unknown ones. `shards`: the shard in which a
    stage or item failed, by stage and item ("" for the stage), if it was one.
    """

    stages: frozenset[str]
    items: Mapping[str, frozenset[str]]
    succeeded: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    shards: Mapping[tuple[str, str], Shard] = field(default_factory=lambda: MappingProxyType({}))


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
    """The latest run's throughput and the average of the earlier ones, in tasks per second."""

    latest: float
    average: float
    earlier_runs: int

    @property
    def degraded(self) -> bool:
        return self.latest < self.average * DEGRADED_RATIO


def load_totals(connection: sqlite3.Connection, project: str) -> Totals:
    """Return the project's counters and histograms. Buckets of an older layout count in the next higher bucket."""
    counters: dict[SeriesKey, float] = {}
    buckets: dict[SeriesKey, list[float]] = {}
    sums: dict[SeriesKey, float] = defaultdict(float)
    query = "SELECT family, labels, part, value FROM totals WHERE project = ?"
    for family, labels, part, value in connection.execute(query, (project,)):
        key = (to_text(family), to_texts(labels))
        if part == rows.COUNTER:
            counters[key] = to_number(value)
        elif part == rows.SUM:
            sums[key] += to_number(value)
        else:
            places = buckets.setdefault(key, [0.0] * (len(families.BUCKETS_SECONDS) + 1))
            places[find_bucket(float(part))] += to_number(value)
    histograms = {key: HistogramTotal(buckets=tuple(places), sum=sums[key]) for key, places in buckets.items()}
    return Totals(counters=counters, histograms=histograms)


def load_stage_cpu_totals(connection: sqlite3.Connection, project: str) -> Mapping[tuple[str, ...], float]:
    """Return the CPU totals of the project's stages, by (lane, stage), without attempts that have not ended."""
    query = "SELECT labels, value FROM totals WHERE project = ? AND family = ? AND part = ?"
    found = connection.execute(query, (project, families.STAGE_CPU.name, rows.COUNTER))
    return {to_texts(labels): to_number(value) for labels, value in found}


def load_shown_cpu(connection: sqlite3.Connection, project: str) -> Mapping[tuple[str, ...], float]:
    """Return the highest CPU totals that were stored for stages that have not ended, by (lane, stage)."""
    query = """
    SELECT runs.lane, stages.stage, max(shown_cpu_total) FROM runs JOIN stages USING (run_id)
      WHERE project = ? AND ended_ts IS NULL AND stages.result IS NULL AND shown_cpu_total IS NOT NULL
      GROUP BY runs.lane, stages.stage
    """
    found = connection.execute(query, (project,))
    return {(to_text(lane), to_text(stage)): to_number(value) for lane, stage, value in found}


def load_last_values(connection: sqlite3.Connection, project: str) -> LastValues:
    """Return the gauges that the project's last runs set."""
    query = "SELECT family, labels, value FROM latest WHERE project = ?"
    found = connection.execute(query, (project,))
    return LastValues(gauges={(to_text(family), to_texts(labels)): to_number(value) for family, labels, value in found})


def load_expected_seconds(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, float]:
    """Return for each stage the median duration in seconds of its last successful complete runs.

    For a stage that never succeeded, those of its runs count in which most of its tasks or items succeeded: a failing
    test file hardly changes the duration of a suite, but a stage that fails at once says nothing about it.
    """
    known = load_stage_durations(connection, project, lane, limit=EXPECTED_RUNS)
    nearly = _load_mostly_successful_durations(connection, project, lane)
    return {stage: compute_median(values) for stage, values in {**nearly, **known}.items()}


def _load_mostly_successful_durations(
    connection: sqlite3.Connection, project: str, lane: str
) -> Mapping[str, list[float]]:
    query = f"""
    SELECT stage, stages.duration FROM {_RECENT_RUNS} AS runs JOIN stages USING (run_id)
      WHERE stages.result = :result AND scope = 'all' AND merged AND (
        2 * tasks_failed < tasks
        OR 2 * (SELECT count(*) FROM failed_items
                WHERE failed_items.run_id = stages.run_id AND failed_items.stage = stages.stage)
           BETWEEN 1 AND (SELECT count(*) FROM items WHERE items.project = runs.project AND items.stage = stages.stage)
      )
      ORDER BY runs.sequence DESC
    """  # nosec B608 # literals of this module
    durations: dict[str, list[float]] = defaultdict(list)
    values = {"project": project, "lane": lane, "result": Result.FAILURE.value}
    for stage, duration in connection.execute(query, values):
        if len(durations[to_text(stage)]) < EXPECTED_RUNS:
            durations[to_text(stage)].append(to_number(duration))
    return durations


def load_stage_durations(
    connection: sqlite3.Connection, project: str, lane: str, *, limit: int
) -> Mapping[str, tuple[float, ...]]:
    """Return for each stage the durations in seconds of its last successful runs, of whole ones."""
    query = f"""
    SELECT stage, duration FROM (
      SELECT stage, stages.duration AS duration,
             row_number() OVER (PARTITION BY stage ORDER BY runs.sequence DESC) AS age
      FROM {_RECENT_RUNS} AS runs JOIN stages USING (run_id)
      WHERE stages.result = :result AND scope = 'all' AND merged
    ) WHERE age <= :limit
    """  # nosec B608 # literals of this module
    durations: dict[str, list[float]] = defaultdict(list)
    values = {"project": project, "lane": lane, "result": Result.SUCCESS.value, "limit": limit}
    found = connection.execute(query, values)
    for stage, duration in found:
        durations[to_text(stage)].append(to_number(duration))
    return {stage: tuple(values) for stage, values in durations.items()}


def load_stage_pasts(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, StagePast]:
    """Return for each stage the durations of its successes and the number of failures, of its last whole runs."""
    from paropt_exporter.plan.deadline import StagePast

    marks = ", ".join(f"'{result.value}'" for result in Result if result.bad)
    query = f"""
    SELECT stage, result, duration FROM (
      SELECT stage, stages.result AS result, stages.duration AS duration,
             row_number() OVER (PARTITION BY stage ORDER BY runs.sequence DESC) AS age
      FROM {_RECENT_RUNS} AS runs JOIN stages USING (run_id)
      WHERE stages.result IN ('success', {marks}) AND scope = 'all'
    ) WHERE age <= :limit
    """  # nosec B608 # literals of this module
    seconds: dict[str, list[float]] = defaultdict(list)
    runs: dict[str, int] = defaultdict(int)
    values = {"project": project, "lane": lane, "limit": PAST_RUNS}
    for stage, result, duration in connection.execute(query, values):
        runs[to_text(stage)] += 1
        if result == Result.SUCCESS:
            seconds[to_text(stage)].append(to_number(duration))
    return {
        stage: StagePast(seconds=tuple(seconds[stage]), runs=count, failures=count - len(seconds[stage]))
        for stage, count in runs.items()
    }


def load_run_durations(connection: sqlite3.Connection, project: str, lane: str, *, limit: int) -> tuple[float, ...]:
    """Return the durations in seconds of the successes among the lane's last `limit` runs, of whole ones."""
    return tuple(
        summary.duration_seconds
        for summary in _iter_whole_runs(load_runs(connection, project, lane=lane, limit=limit))
        if summary.result is Result.SUCCESS
    )


def load_cpu_demands(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, float]:
    """Return for each stage the average CPU demand of its tasks, in cores, over its last runs.

    Only tasks that succeeded or failed count, not those that were stopped. A GIL-bound task in a thread counts as 1
    core: no clock measures its waits for the GIL.
    """
    # The formula of `cpu_demand`, times the duration. In Python it would take a second for half a million tasks.
    query = f"""
    SELECT tasks.stage, sum(tasks.duration), sum(CASE
        WHEN tasks.pool = :threads AND gil_bound THEN tasks.duration
        WHEN tasks.cpu + run_delay > tasks.duration OR run_delay > :crowded * tasks.duration THEN tasks.cpu + run_delay
        ELSE tasks.duration * tasks.cpu / (tasks.duration - run_delay) END)
      FROM tasks LEFT JOIN stages USING (run_id, stage)
      WHERE tasks.duration > 0 AND tasks.result IN (:success, :failure) AND coalesce(scope, '') <> 'arguments'
        AND run_id IN ({_LAST_RUNS})
      GROUP BY tasks.stage
    """  # nosec B608 # literals of this module
    values = {
        "threads": THREADS,
        "crowded": CROWDED_RATIO,
        "success": Result.SUCCESS.value,
        "failure": Result.FAILURE.value,
        "project": project,
        "lane": lane,
        "runs": EXPECTED_RUNS,
    }
    return {to_text(stage): to_number(wanted / wall) for stage, wall, wanted in connection.execute(query, values)}


def load_memory_peaks(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, int]:
    """Return for each stage the peak memory of a task in its last runs, in bytes; tasks in threads have none."""
    query = f"""
    SELECT stage, max(memory_peak) FROM tasks
      WHERE pool <> :threads AND memory_peak > 0 AND run_id IN ({_LAST_RUNS}) GROUP BY stage
    """  # nosec B608 # literals of this module
    values = {"threads": THREADS, "project": project, "lane": lane, "runs": EXPECTED_RUNS}
    return {to_text(stage): to_count(peak) for stage, peak in connection.execute(query, values)}


def load_mean_task_seconds(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, float]:
    """Return for each stage the mean duration in seconds of a successful task in its last runs."""
    return _aggregate_task_seconds(connection, "avg", project, lane)


def load_fastest_task_seconds(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, float]:
    """Return for each stage the shortest duration in seconds of a successful task in its last runs."""
    return _aggregate_task_seconds(connection, "min", project, lane)


def _aggregate_task_seconds(
    connection: sqlite3.Connection, aggregate: Literal["avg", "min"], project: str, lane: str
) -> Mapping[str, float]:
    query = f"""
    SELECT tasks.stage, {aggregate}(tasks.duration) FROM tasks LEFT JOIN stages USING (run_id, stage)
      WHERE tasks.result = :success AND tasks.duration > 0 AND coalesce(scope, '') <> 'arguments'
        AND run_id IN ({_LAST_MERGED_RUNS})
      GROUP BY tasks.stage
    """  # nosec B608 # literals of this module
    values = {"success": Result.SUCCESS.value, "project": project, "lane": lane, "runs": EXPECTED_RUNS}
    return {to_text(stage): to_number(seconds) for stage, seconds in connection.execute(query, values)}


def load_known_items(connection: sqlite3.Connection, project: str) -> Mapping[str, KnownItems]:
    """Return for each stage the recent duration of each of its items, and of a command apart from its items."""
    seconds: dict[str, dict[str, float]] = defaultdict(dict)
    seen: dict[str, dict[str, float]] = defaultdict(dict)
    query = "SELECT stage, item, seconds, seen_ts FROM items WHERE project = ?"
    for stage, item, took, at in connection.execute(query, (project,)):
        seconds[to_text(stage)][to_text(item)], seen[stage][item] = to_number(took), to_timestamp(at)
    return {
        stage: KnownItems(
            start_up_seconds=items.pop(rows.START_UP_ITEM, None), seconds=items, seen_timestamp_seconds=seen[stage]
        )
        for stage, items in seconds.items()
    }


def load_decisions(
    connection: sqlite3.Connection, project: str, *, pool: str | None, since_seconds: float, limit: int
) -> tuple[Decision, ...]:
    """Return the last `limit` decisions since `since_seconds` of wall time, oldest first."""
    query = """
    SELECT pool, action, reason, old_size, new_size, at_ts, terms, run_id, situation, choice FROM decisions
    WHERE project = :project AND (:pool IS NULL OR pool = :pool) AND at_ts >= :since ORDER BY id DESC LIMIT :limit
    """
    found = connection.execute(query, {"project": project, "pool": pool, "since": since_seconds, "limit": limit})
    return tuple(
        Decision(
            pool=to_text(name),
            action=to_text(action),
            reason=to_text(reason),
            old_size=to_count(old),
            new_size=to_count(new),
            at_timestamp_seconds=to_timestamp(at),
            terms={to_text(term): to_number(value) for term, value in json.loads(terms).items()},
            run_id=None if run_id is None else to_text(run_id),
            situation=to_text(situation),
            choice=to_text(choice),
        )
        for name, action, reason, old, new, at, terms, run_id, situation, choice in reversed(found.fetchall())
    )


def load_usual_size(connection: sqlite3.Connection, project: str, lane: str) -> int | None:
    """Return the median of the largest sizes of the lane's last runs; None without decisions.

    For a run that went back because a larger size did not help, it is the size that it went back to.
    """
    query = """
    SELECT coalesce(min(CASE WHEN reason = 'ineffective' AND action = 'down' THEN new_size END), max(new_size))
      FROM decisions
      WHERE reason <> 'pinned' AND run_id IN
        (SELECT run_id FROM runs WHERE project = ? AND lane = ? AND (NOT partial OR shard <> '')
           AND NOT EXISTS (SELECT 1 FROM stages WHERE stages.run_id = runs.run_id AND scope = 'cached')
         ORDER BY sequence DESC LIMIT ?)
      GROUP BY run_id
    """
    sizes = [to_count(size) for (size,) in connection.execute(query, (project, lane, EXPECTED_RUNS))]
    return round(compute_median(sizes)) if sizes else None


def find_never_succeeded(connection: sqlite3.Connection, project: str, lane: str) -> frozenset[str]:
    """Return the stages that have run in the lane, but never with success."""
    query = """
    SELECT stage FROM stages JOIN runs USING (run_id)
      WHERE project = ? AND lane = ? AND stages.result IS NOT NULL AND stages.started_ts IS NOT NULL
      GROUP BY stage HAVING sum(stages.result = ?) = 0
    """
    found = connection.execute(query, (project, lane, Result.SUCCESS.value))
    return frozenset(to_text(stage) for (stage,) in found)


def find_failures(connection: sqlite3.Connection, project: str, lane: str, stages: Collection[str]) -> Failures | None:
    """Return the stages of a lane that failed or did not run in its last runs; None if no run of the lane has ended.

    The last run that planned a stage decides its state, unless that run gave it arguments. If that was one shard of a
    split, the last runs of its other shards decide too. In a run that was not successful, a skipped stage and a stage
    without a record count as failures too.
    """
    query = """
    SELECT run_id, result, planned, shard, split FROM runs
    WHERE project = ? AND lane = ? AND ended_ts IS NOT NULL ORDER BY sequence DESC
    """
    states = {stage: _StageState() for stage in stages}
    known = False
    for run_id, result, planned, shard, split in connection.execute(query, (project, lane)):
        known = True
        if all(state.decided for state in states.values()):
            break
        part = _parse_shard(to_text(shard), to_text(split))
        names = [name for name in to_texts(planned) if name in states and states[name].takes(part)]
        if not names:
            continue
        decided = frozenset(names) - _load_stages_with_arguments(connection, run_id)
        done = decided if result == Result.SUCCESS else _load_succeeded_stages(connection, run_id)
        for name in decided:
            states[name].add(to_text(run_id), part, failed=name not in done)
    if not known:
        return None
    return _collect_failures(connection, states)


class _StageState(Struct):
    """What the last runs say about a stage, seen from the last one on. `first`: the shard of the last run, if any."""

    runs: int = 0
    first: Shard | None = None
    indexes: set[int] = field(default_factory=set)
    failed: list[tuple[str, Shard | None]] = field(default_factory=list)
    closed: bool = False

    @property
    def decided(self) -> bool:
        return self.closed or (self.runs > 0 and (self.first is None or len(self.indexes) == self.first.count))

    def takes(self, shard: Shard | None) -> bool:
        """Return whether an earlier run that planned the stage counts: the first one, or another shard of its split."""
        if self.decided:
            return False
        if self.runs == 0:
            return True
        if shard is None or self.first is None or (shard.count, shard.split) != (self.first.count, self.first.split):
            self.closed = True
            return False
        return shard.index not in self.indexes

    def add(self, run_id: str, shard: Shard | None, *, failed: bool) -> None:
        if self.runs == 0:
            self.first = shard
        self.runs += 1
        if shard is not None:
            self.indexes.add(shard.index)
        if failed:
            self.failed.append((run_id, shard))


def _parse_shard(text: str, split: str) -> Shard | None:
    index, slash, count = text.partition("/")
    return Shard(index=int(index), count=int(count), split=split) if slash else None


def _collect_failures(connection: sqlite3.Connection, states: Mapping[str, _StageState]) -> Failures:
    items: dict[str, frozenset[str]] = {}
    shards: dict[tuple[str, str], Shard] = {}
    for stage, state in states.items():
        each = [(_load_failed_items(connection, run_id, stage), shard) for run_id, shard in state.failed]
        if each and all(found for found, _ in each):
            items[stage] = frozenset(item for found, _ in each for item in found)
        for found, shard in each:
            if shard is not None:
                shards.update(dict.fromkeys([(stage, item) for item in found] or [(stage, "")], shard))
    return Failures(
        stages=frozenset(stage for stage, state in states.items() if state.failed),
        items=items,
        succeeded=tuple(stage for stage, state in states.items() if state.runs and not state.failed),
        unknown=tuple(stage for stage, state in states.items() if not state.runs),
        shards=shards,
    )


def _load_stages_with_arguments(connection: sqlite3.Connection, run_id: str) -> frozenset[str]:
    found = connection.execute("SELECT stage FROM stages WHERE run_id = ? AND scope = 'arguments'", (run_id,))
    return frozenset(to_text(stage) for (stage,) in found)


def _load_succeeded_stages(connection: sqlite3.Connection, run_id: str) -> frozenset[str]:
    query = "SELECT stage FROM stages WHERE run_id = ? AND result = ?"
    return frozenset(to_text(stage) for (stage,) in connection.execute(query, (run_id, Result.SUCCESS.value)))


def _load_failed_items(connection: sqlite3.Connection, run_id: str, stage: str) -> frozenset[str]:
    """Return the items of a stage that failed in a run, if none of its tasks was stopped.

    It returns no items for a stopped stage, since other items did not run either.
    """
    query = """
    SELECT item FROM failed_items JOIN stages USING (run_id, stage) WHERE run_id = :run AND stage = :stage
      AND tasks = (SELECT count(*) FROM tasks AS ended WHERE ended.run_id = :run
                   AND ended.stage = :stage AND final AND ended.result <> :cancelled)
    """
    values = {"run": run_id, "stage": stage, "cancelled": Result.CANCELLATION.value}
    return frozenset(to_text(item) for (item,) in connection.execute(query, values))


def load_runs(connection: sqlite3.Connection, project: str, *, lane: str | None, limit: int) -> tuple[RunSummary, ...]:
    """Return the last `limit` runs, oldest first."""
    query = """
    SELECT run_id, lane, strategy, result, reason, started_ts, coalesce(duration, seen_ts - started_ts),
           coalesce(sequential, 0), coalesce(busy_ratio, 0), warned, broken, interrupted, bottlenecks,
           partial, shard
    FROM runs WHERE project = :project AND (:lane IS NULL OR lane = :lane) ORDER BY sequence DESC LIMIT :limit
    """
    found = connection.execute(query, {"project": project, "lane": lane, "limit": limit}).fetchall()
    return tuple(_build_summary(connection, row) for row in reversed(found))


def load_projects(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the names of the projects that have runs, sorted."""
    found = connection.execute("SELECT DISTINCT project FROM runs ORDER BY project")
    return tuple(to_text(name) for (name,) in found)


def find_run(connection: sqlite3.Connection, project: str, run_id: str) -> RunSummary | None:
    """Return the run with this id, or with an id that begins so if it is the only one."""
    query = "SELECT run_id FROM runs WHERE project = ? AND substr(run_id, 1, ?) = ?"
    found = connection.execute(query, (project, len(run_id), run_id)).fetchall()
    if len(found) != 1:
        return None
    everything = load_runs(connection, project, lane=None, limit=-1)
    return next(summary for summary in everything if summary.run_id == found[0][0])


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

    Cancelled, running and partial runs are left out, runs in which a task was cached, and runs of failed stages only
    (`--failed`), which have fewer stages than the lane.
    """
    ended = [
        summary.throughput_tasks_per_second
        for summary in _iter_whole_runs(load_runs(connection, project, lane=lane, limit=limit + 1))
        if summary.result in (Result.SUCCESS, Result.FAILURE)
    ]
    if len(ended) < 2:
        return None
    return Trend(latest=ended[-1], average=sum(ended[:-1]) / (len(ended) - 1), earlier_runs=len(ended) - 1)


def _iter_whole_runs(summaries: Iterable[RunSummary]) -> Iterator[RunSummary]:
    """Yield the runs of the whole lane, without those of fewer stages after an unsuccessful run."""
    last: RunSummary | None = None
    whole: frozenset[str] = frozenset()
    for summary in summaries:
        if summary.partial or any(stage.cached for stage in summary.stages):
            continue
        stages = frozenset(stage.stage for stage in summary.stages)
        again = last is not None and last.result is not Result.SUCCESS and stages < whole
        last = summary
        if not again:
            whole = stages
            yield summary


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
                advice=to_text(advice[0]) if advice else "",
            )
            for kind, stage, sentence, *advice in json.loads(to_text(held))  # rows of older versions have no advice
        ),
        stages=stages,
        partial=bool(partial),
        shard=to_text(shard),
    )


def _load_stages(connection: sqlite3.Connection, run_id: str) -> tuple[StageSummary, ...]:
    query = """
    SELECT stage, number, pool, result, message, tasks, coalesce(tasks_failed, 0), coalesce(duration, 0),
           coalesce(cpu, 0), coalesce(memory_peak, 0), coalesce(attempts, 0), coalesce(warned, 0), coalesce(broken, 0),
           scope = 'cached'
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
        )
        for (
            stage, place, pool, result, message, tasks, failed, duration, cpu, memory, attempts, warned, broken, cached,
        ) in connection.execute(query, (run_id,))
    )  # fmt: skip


def load_flakiness(
    connection: sqlite3.Connection, project: str, lane: str | None
) -> Mapping[tuple[str, str], Flakiness]:
    """Return how flaky the stages are that have been, by lane and stage, over the last FLAKY_RUNS runs of each lane."""
    values = {"project": project, "lane": lane, "runs": FLAKY_RUNS}
    items: dict[tuple[str, str], set[str]] = defaultdict(set)
    found = connection.execute(
        f"SELECT lane, stage, item FROM flaky_items JOIN ({_RANKED}) USING (run_id) WHERE age <= :runs",  # nosec B608
        values,
    )
    for of_lane, stage, item in found:
        items[to_text(of_lane), to_text(stage)].add(to_text(item))
    query = f"""
    SELECT lane, stage, sum(first_attempts), sum(flaky_attempts),
           max(CASE WHEN flaky_attempts THEN ranked.started_ts END)
      FROM stages JOIN ({_RANKED}) AS ranked USING (run_id) WHERE age <= :runs
      GROUP BY lane, stage HAVING sum(flaky_attempts) > 0
    """  # nosec B608 # literals of this module
    return {
        (to_text(of_lane), to_text(stage)): Flakiness(
            first_attempts=to_count(attempts),
            flaky_attempts=to_count(flaky),
            items=frozenset(items[of_lane, stage]),
            last_timestamp_seconds=to_timestamp(last),
        )
        for of_lane, stage, attempts, flaky, last in connection.execute(query, values)
    }


def has_failed_with_state(connection: sqlite3.Connection, project: str, lane: str) -> bool:
    """Return whether one of the lane's last RETRIED_RUNS runs failed in a known tree state."""
    query = """
    SELECT 1 FROM (SELECT tree_state FROM runs WHERE project = ? AND lane = ? ORDER BY sequence DESC LIMIT ?)
      WHERE tree_state <> '' LIMIT 1
    """
    return connection.execute(query, (project, lane, RETRIED_RUNS)).fetchone() is not None


def load_open_failures(
    connection: sqlite3.Connection, project: str, lane: str, tree_state: str
) -> Mapping[str, OpenFailures]:
    """Return for each stage the tasks that failed in a tree state, if it did not succeed in it since."""
    if not tree_state:
        return {}
    values = {"project": project, "lane": lane, "state": tree_state}
    marks = ", ".join(f"'{result}'" for result in _BAD)
    query = f"""
    SELECT stage, count(*) FROM tasks JOIN ({_OPEN}) USING (run_id, stage)
      WHERE final AND result IN ({marks}) GROUP BY stage
    """  # nosec B608 # literals of this module
    attempts = {to_text(stage): to_count(count) for stage, count in connection.execute(query, values)}
    items: dict[str, set[str]] = defaultdict(set)
    listed = f"SELECT stage, item FROM failed_items JOIN ({_OPEN}) USING (run_id, stage)"  # nosec B608 # literals
    for stage, item in connection.execute(listed, values) if attempts else ():
        items[to_text(stage)].add(to_text(item))
    return {stage: OpenFailures(attempts=count, items=frozenset(items[stage])) for stage, count in attempts.items()}
