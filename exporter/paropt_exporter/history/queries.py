"""Query the history for a run: totals to resume from, and the figures of earlier runs for plans and the controller.

The last run is the one that began last (`sequence`), not the one with the latest timestamp, since wall clocks jump.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from paropt_exporter import families, plain_json
from paropt_exporter.aggregation import HistogramTotal, LastValues, SeriesKey, Totals, find_bucket
from paropt_exporter.cpu_demand import BRIEF_SECONDS, CROWDED_RATIO, UNCOUNTED_SECONDS
from paropt_exporter.events import Decision, Result
from paropt_exporter.history import retention, rows
from paropt_exporter.history.values import to_count, to_number, to_text, to_texts, to_timestamp
from paropt_exporter.plan import PROCESSES, THREADS, EarlierRuns, KnownItems
from paropt_exporter.plan.flakiness import FLAKY_RUNS, Flakiness, OpenFailures
from paropt_exporter.plan.structure import compute_median

if TYPE_CHECKING:
    from typing import Literal

    from paropt_exporter.plan.deadline import StagePast

EXPECTED_RUNS = 10  # a median of ten follows a change within a day and ignores up to four outliers
# Expectations come from the last runs only: reading a history of 200,000 took 2 s before each run.
CONSIDERED_RUNS = 1000
_RECENT_RUNS = """
(SELECT run_id, project, sequence, merged FROM runs WHERE project = :project AND lane = :lane
 ORDER BY sequence DESC LIMIT :runs)
"""
PAST_RUNS = 20  # enough for a 90 % quantile that ignores the two slowest runs
RETRIED_RUNS = 20  # if a failure is not repeated in the same tree state within so many runs, it never is
_BAD_RESULTS = ", ".join(f"'{result.value}'" for result in Result if result.bad)
# The runs of each lane, the latest first; of a single lane, only the latest.
_RANKED = """
SELECT run_id, lane, started_ts, row_number() OVER (PARTITION BY lane ORDER BY sequence DESC) AS age
  FROM runs WHERE project = :project AND :lane IS NULL
UNION ALL SELECT * FROM (
  SELECT run_id, lane, started_ts, row_number() OVER (ORDER BY sequence DESC) AS age
    FROM runs WHERE project = :project AND lane = :lane ORDER BY sequence DESC LIMIT :runs)
"""
# The runs of a lane in one tree state in which a stage failed and has not succeeded since. A shard closes only its own
# failures, and failures of whole runs that it has proven flaky. The last successes are found once, not for each row:
# with --every, a lane may have a thousand runs in one state. CROSS JOIN keeps SQLite from joining each pair of runs
# before the flaky items, of which there are few; SQLite 3.53 would.
_OPEN = """
WITH
  same AS (SELECT run_id, sequence, shard FROM runs
    WHERE project = :project AND lane = :lane AND tree_state = :state),
  passed AS (SELECT stage, scope = 'items' AS is_part, shard, max(sequence) AS sequence
    FROM same JOIN stages USING (run_id) WHERE result = 'success' AND scope <> 'arguments'
    GROUP BY stage, is_part, CASE WHEN is_part THEN shard ELSE '' END),
  proven AS (SELECT failed.run_id, failed.stage FROM same AS later
    CROSS JOIN flaky_items AS flaky ON flaky.run_id = later.run_id
    CROSS JOIN same AS earlier ON earlier.sequence < later.sequence AND earlier.shard <> later.shard
    CROSS JOIN failed_items AS failed
      ON failed.run_id = earlier.run_id AND failed.stage = flaky.stage AND failed.item = flaky.item)
SELECT same.run_id AS run_id, stages.stage AS stage FROM same JOIN stages USING (run_id)
  LEFT JOIN passed AS whole ON whole.stage = stages.stage AND NOT whole.is_part
  LEFT JOIN passed AS part ON part.stage = stages.stage AND part.is_part AND part.shard = same.shard
  WHERE scope <> 'arguments' AND (:shard = '' OR same.shard IN ('', :shard))
    AND same.sequence > max(coalesce(whole.sequence, 0), coalesce(part.sequence, 0))
    AND (same.run_id, stages.stage) NOT IN (SELECT run_id, stage FROM proven)
"""


def load_totals(connection: sqlite3.Connection, project: str, instance: str | None) -> Totals:
    """Return the counters and histograms of one instance of a project; None: the sums over all its instances.

    Buckets of an older layout count in the next higher current one.
    """
    counters: dict[SeriesKey, float] = defaultdict(float)
    buckets: dict[SeriesKey, list[float]] = {}
    sums: dict[SeriesKey, float] = defaultdict(float)
    query = "SELECT family, labels, part, value FROM totals WHERE project = :project"
    if instance is not None:  # with the families, it is found by the index
        query += " AND family IN (SELECT value FROM json_each(:families)) AND instance = :instance"
    names = plain_json.dumps([family.name for family in families.FAMILIES])
    values = {"project": project, "families": names, "instance": instance}
    for family, labels, part, value in connection.execute(query, values):
        key = (to_text(family), to_texts(labels))
        if part == rows.COUNTER:
            counters[key] += to_number(value)
        elif part == rows.SUM:
            sums[key] += to_number(value)
        else:
            places = buckets.setdefault(key, [0.0] * (len(families.BUCKETS_SECONDS) + 1))
            places[find_bucket(float(part))] += to_number(value)
    histograms = {key: HistogramTotal(buckets=tuple(places), sum=sums[key]) for key, places in buckets.items()}
    return Totals(counters=dict(counters), histograms=histograms)


def count_ended_runs(connection: sqlite3.Connection, project: str) -> float:
    """Return the number of the project's runs that have ended, by its totals: pruned runs count too."""
    query = "SELECT coalesce(sum(value), 0) FROM totals WHERE project = ? AND family = ?"
    return to_number(connection.execute(query, (project, families.RUNS.name)).fetchone()[0])


def load_stage_cpu_totals(
    connection: sqlite3.Connection, project: str, instance: str
) -> Mapping[tuple[str, ...], float]:
    """Return the CPU totals of an instance's stages, by (lane, stage), without attempts that have not ended."""
    totals = _load_cpu_totals(connection, project, instance)
    return {place: value for (_, place), value in totals.items()}


def load_shown_cpu(connection: sqlite3.Connection, project: str) -> Mapping[tuple[str, ...], float]:
    """Return the CPU totals of running stages over all instances, by (lane, stage).

    Running attempts count as far as pages have shown them.
    """
    query = """
    SELECT instance, runs.lane, stages.stage, max(shown_cpu_total) FROM runs JOIN stages USING (run_id)
      WHERE project = ? AND ended_ts IS NULL AND stages.result IS NULL AND shown_cpu_total IS NOT NULL
      GROUP BY instance, runs.lane, stages.stage
    """
    totals = _load_cpu_totals(connection, project)
    shown: dict[tuple[str, ...], float] = {}
    for instance, lane, stage, value in connection.execute(query, (project,)):
        key = (to_text(instance), (to_text(lane), to_text(stage)))
        totals[key] = max(to_number(value), totals.get(key, 0.0))
        shown[key[1]] = 0.0
    for (_, place), value in totals.items():
        if place in shown:
            shown[place] += value
    return shown


def _load_cpu_totals(
    connection: sqlite3.Connection, project: str, instance: str | None = None
) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the CPU totals of stages, by instance and (lane, stage); of one instance, or of all (None)."""
    query = "SELECT instance, labels, value FROM totals WHERE project = :project AND family = :family AND part = :part"
    if instance is not None:
        query += " AND instance = :instance"
    values = {"project": project, "family": families.STAGE_CPU.name, "part": rows.COUNTER, "instance": instance}
    found = connection.execute(query, values)
    return {(to_text(instance), to_texts(labels)): to_number(value) for instance, labels, value in found}


def load_last_values(connection: sqlite3.Connection, project: str) -> LastValues:
    """Return the gauges that the project's last runs set."""
    query = "SELECT family, labels, value FROM latest WHERE project = ?"
    found = connection.execute(query, (project,))
    return LastValues(gauges={(to_text(family), to_texts(labels)): to_number(value) for family, labels, value in found})


class LastRun(Struct, frozen=True, kw_only=True):
    """The run that began last. It tells a history apart from another one of the same project."""

    sequence: int
    run_id: str
    started_timestamp_seconds: float


def load_last_run(connection: sqlite3.Connection, project: str) -> LastRun | None:
    """Return the run that began last; None before the first one."""
    query = (
        "SELECT sequence, run_id, started_ts FROM runs WHERE project = ? AND lane = ? ORDER BY sequence DESC LIMIT 1"
    )
    lanes = retention.list_lanes(connection, project)  # each has an index of its runs
    of_lanes = [connection.execute(query, (project, lane)).fetchone() for lane in lanes]
    runs = [
        LastRun(sequence=to_count(sequence), run_id=to_text(run_id), started_timestamp_seconds=to_timestamp(started))
        for sequence, run_id, started in of_lanes
    ]
    return max(runs, key=lambda run: run.sequence, default=None)


def load_sequences(connection: sqlite3.Connection, project: str, run_ids: Sequence[str]) -> Mapping[str, int]:
    """Return the sequence of each of the runs that is in the project's history."""
    query = "SELECT run_id, sequence FROM runs WHERE project = ? AND run_id IN (SELECT value FROM json_each(?))"
    found = connection.execute(query, (project, plain_json.dumps(run_ids)))
    return {to_text(run_id): to_count(sequence) for run_id, sequence in found}


def has_held_run(connection: sqlite3.Connection, project: str, run: LastRun) -> bool:
    """Return whether the project has this run, or may have had it before it was removed.

    Runs are removed oldest first, so the first one that is left of those after it began later.
    """
    if connection.execute("SELECT 1 FROM runs WHERE project = ? AND run_id = ?", (project, run.run_id)).fetchone():
        return True
    query = "SELECT sequence, started_ts FROM runs WHERE project = ? AND sequence >= ? ORDER BY sequence LIMIT 1"
    following = connection.execute(query, (project, run.sequence)).fetchone()
    if following is None or following[0] == run.sequence:
        return False
    return to_timestamp(following[1]) >= run.started_timestamp_seconds


def load_run_ids(connection: sqlite3.Connection, project: str, *, after: int, limit: int) -> tuple[str, ...]:
    """Return the ids of the project's last runs with a sequence above `after`, at most `limit` of each lane."""
    query = "SELECT run_id FROM runs WHERE project = ? AND lane = ? AND sequence > ? ORDER BY sequence DESC LIMIT ?"
    lanes = retention.list_lanes(connection, project)  # each has an index of its runs
    return tuple(
        to_text(run_id) for lane in lanes for (run_id,) in connection.execute(query, (project, lane, after, limit))
    )


def has_run_from_before(connection: sqlite3.Connection, project: str, run: LastRun) -> bool:
    """Return whether the project has a run that began before this one, by the wall clock."""
    query = "SELECT 1 FROM runs WHERE project = ? AND started_ts < ? LIMIT 1"
    return connection.execute(query, (project, run.started_timestamp_seconds)).fetchone() is not None


def find_unended_runs(connection: sqlite3.Connection, project: str) -> list[str]:
    """Return the ids of the project's runs that have not ended."""
    query = "SELECT run_id FROM runs WHERE project = ? AND ended_ts IS NULL ORDER BY sequence"
    return [to_text(run_id) for (run_id,) in connection.execute(query, (project,))]


def load_earlier_runs(connection: sqlite3.Connection, project: str, lane: str) -> EarlierRuns:
    """Return the measurements of a lane's stages and items that its plan depends on."""
    seconds = _load_expected_seconds(connection, project, lane)
    return EarlierRuns(
        seconds=seconds,
        failure_seconds=_load_failure_seconds(connection, project, lane, unless=seconds),
        task_seconds=_load_mean_task_seconds(connection, project, lane),
        items=_load_known_items(connection, project),
        cpu_demands=load_cpu_demands(connection, project, lane),
    )


def _load_expected_seconds(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, float]:
    """Return for each stage the median duration in seconds of its last successful whole runs.

    For a stage that never succeeded, runs count in which most of its tasks or items did: a failing test file hardly
    changes the duration of a suite, while a stage that fails at once says nothing about it.
    """
    known = load_stage_durations(connection, project, lane, limit=EXPECTED_RUNS)
    nearly = _load_mostly_successful_durations(connection, project, lane, unless=known)
    return {stage: compute_median(values) for stage, values in {**nearly, **known}.items()}


def _load_mostly_successful_durations(
    connection: sqlite3.Connection, project: str, lane: str, *, unless: Collection[str]
) -> Mapping[str, tuple[float, ...]]:
    stages = _find_stages(connection, project, lane) - {*unless}
    condition = """
    stages.result = 'failure' AND merged AND (
      2 * tasks_failed < tasks
      OR 2 * (SELECT count(*) FROM failed_items
              WHERE failed_items.run_id = stages.run_id AND failed_items.stage = stages.stage)
         BETWEEN 1 AND (SELECT count(*) FROM items WHERE items.project = runs.project AND items.stage = stages.stage)
    )
    """
    return _collect_seconds(_iter_last_ends(connection, project, lane, condition, stages=stages, limit=EXPECTED_RUNS))


def _load_failure_seconds(
    connection: sqlite3.Connection, project: str, lane: str, *, unless: Collection[str]
) -> Mapping[str, float]:
    """Return for each other stage the median duration in seconds of its last failed whole runs."""
    stages = _find_stages(connection, project, lane) - {*unless}
    ends = _iter_last_ends(
        connection, project, lane, "stages.result = 'failure' AND merged", stages=stages, limit=EXPECTED_RUNS
    )
    return {stage: compute_median(values) for stage, values in _collect_seconds(ends).items()}


def load_stage_durations(
    connection: sqlite3.Connection, project: str, lane: str, *, limit: int
) -> Mapping[str, tuple[float, ...]]:
    """Return for each stage the durations in seconds of its last successful whole runs."""
    condition = "stages.result = 'success' AND merged"
    stages = _find_stages(connection, project, lane)
    return _collect_seconds(_iter_last_ends(connection, project, lane, condition, stages=stages, limit=limit))


def load_stage_pasts(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, StagePast]:
    """Return for each stage the durations in seconds of its successes and its number of failures, over its last whole
    runs.
    """
    from paropt_exporter.plan.deadline import StagePast

    condition = f"stages.result IN ('success', {_BAD_RESULTS})"
    stages = _find_stages(connection, project, lane)
    ends = [*_iter_last_ends(connection, project, lane, condition, stages=stages, limit=PAST_RUNS)]
    runs = Counter(stage for stage, _, _ in ends)
    seconds = _collect_seconds(end for end in ends if end[1] == Result.SUCCESS)
    return {
        stage: StagePast(seconds=(past := seconds.get(stage, ())), runs=count, failures=count - len(past))
        for stage, count in runs.items()
    }


def _find_stages(connection: sqlite3.Connection, project: str, lane: str) -> set[str]:
    """Return the names of all stages that have ever ended in the lane."""
    query = "SELECT labels FROM totals WHERE project = ? AND family = ?"
    found = (to_texts(labels) for (labels,) in connection.execute(query, (project, families.STAGE_RUNS.name)))
    return {stage for of_lane, stage, _ in found if of_lane == lane}


def _iter_last_ends(
    connection: sqlite3.Connection, project: str, lane: str, condition: str, *, stages: Collection[str], limit: int
) -> Iterator[tuple[str, str, float]]:
    """Yield stage, result and seconds of the last `limit` whole executions of each stage that meet an SQL condition.

    A few runs have enough of them for most stages; only for the others are all CONSIDERED_RUNS searched.
    """
    query = f"""
    SELECT stage, result, duration FROM (
      SELECT stage, stages.result AS result, stages.duration AS duration,
             row_number() OVER (PARTITION BY stage ORDER BY runs.sequence DESC) AS age
      FROM {_RECENT_RUNS} AS runs CROSS JOIN stages USING (run_id)
      WHERE stage IN (SELECT value FROM json_each(:stages)) AND scope = 'all' AND {condition}
    ) WHERE age <= :limit
    """  # nosec B608 # literals of this module
    values = {"project": project, "lane": lane, "limit": limit}
    remaining = set(stages)
    for runs in (2 * limit, CONSIDERED_RUNS):
        if not remaining:
            return
        ends: dict[str, list[tuple[str, str, float]]] = {stage: [] for stage in remaining}
        for stage, result, duration in connection.execute(
            query, {**values, "runs": runs, "stages": plain_json.dumps([*remaining])}
        ):
            ends[to_text(stage)].append((stage, to_text(result), to_number(duration)))
        complete = {stage for stage in ends if len(ends[stage]) == limit or runs == CONSIDERED_RUNS}
        for stage in complete:
            yield from ends[stage]
        remaining -= complete


def _collect_seconds(ends: Iterable[tuple[str, str, float]]) -> dict[str, tuple[float, ...]]:
    seconds: dict[str, list[float]] = defaultdict(list)
    for stage, _, duration in ends:
        seconds[stage].append(duration)
    return {stage: tuple(found) for stage, found in seconds.items()}


def load_cpu_demands(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, float]:
    """Return for each stage the average CPU demand of its tasks, in cores, over its last runs.

    Waits for a core don't count as time. Only tasks that succeeded or failed count, not those that were stopped. A
    GIL-bound task in a thread counts as 1 core: no clock measures its waits for the GIL.
    """
    # The formulas of `engine.attempt`'s `compute_demand` and `compute_alone_seconds`. In Python it would take a second
    # for half a million tasks.
    query = """
    WITH ended AS (
      SELECT tasks.stage, tasks.pool, tasks.duration, tasks.cpu, run_delay,
        tasks.pool = :threads AND coalesce(gil_bound, FALSE) AS bound,
        tasks.duration - run_delay AS undelayed,
        (tasks.cpu + run_delay) / tasks.duration AS wanted
      FROM tasks LEFT JOIN stages USING (run_id, stage)
      WHERE tasks.duration > 0 AND tasks.result IN (:success, :failure) AND coalesce(scope, '') <> 'arguments'
        AND run_id IN (SELECT value FROM json_each(:runs))
    ), measured AS (
      SELECT stage,
        CASE WHEN bound THEN min(cpu, duration) ELSE max(min(cpu, duration), undelayed) END AS alone,
        CASE
          WHEN bound THEN 1.0
          WHEN pool IN (:threads, :processes) AND undelayed > 0 AND cpu <= undelayed THEN cpu / undelayed
          WHEN wanted > 1.0 THEN CASE WHEN duration < :brief THEN 1.0 ELSE wanted END
          WHEN run_delay <= :crowded * duration THEN cpu / undelayed
          WHEN duration < :brief OR undelayed <= :uncounted THEN wanted
          ELSE min(wanted, cpu / (undelayed - :uncounted)) END AS demand
      FROM ended
    )
    SELECT stage, sum(alone), sum(alone * demand) FROM measured GROUP BY stage HAVING sum(alone) > 0
    """
    values = {
        "threads": THREADS,
        "processes": PROCESSES,
        "brief": BRIEF_SECONDS,
        "crowded": CROWDED_RATIO,
        "uncounted": UNCOUNTED_SECONDS,
        "success": Result.SUCCESS.value,
        "failure": Result.FAILURE.value,
        "runs": _list_last_runs(connection, project, lane),
    }
    return {to_text(stage): to_number(wanted / alone) for stage, alone, wanted in connection.execute(query, values)}


def load_memory_peaks(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, int]:
    """Return for each stage the peak memory of a task in its last runs, in bytes; tasks in threads have none."""
    query = """
    SELECT stage, max(memory_peak) FROM tasks
      WHERE pool <> :threads AND memory_peak > 0 AND run_id IN (SELECT value FROM json_each(:runs)) GROUP BY stage
    """
    values = {"threads": THREADS, "runs": _list_last_runs(connection, project, lane)}
    return {to_text(stage): to_count(peak) for stage, peak in connection.execute(query, values)}


def _load_mean_task_seconds(connection: sqlite3.Connection, project: str, lane: str) -> Mapping[str, float]:
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
        AND run_id IN (SELECT value FROM json_each(:runs))
      GROUP BY tasks.stage
    """  # nosec B608 # literals of this module
    values = {"success": Result.SUCCESS.value, "runs": _list_last_runs(connection, project, lane, merged_only=True)}
    return {to_text(stage): to_number(seconds) for stage, seconds in connection.execute(query, values)}


def _list_last_runs(connection: sqlite3.Connection, project: str, lane: str, *, merged_only: bool = False) -> str:
    """Return the ids of the lane's last EXPECTED_RUNS runs as JSON. All shards of one split count as one run.

    `merged_only`: without shards that are not merged. The split depends on durations, and must not change meanwhile.
    """
    query = """
    SELECT run_id, CASE split WHEN '' THEN run_id ELSE split END FROM runs
      WHERE project = ? AND lane = ? AND (merged OR NOT ?) ORDER BY sequence DESC LIMIT ?
    """
    runs: list[str] = []
    rounds: set[str] = set()
    has_shards = False
    for run_id, of_round in connection.execute(query, (project, lane, merged_only, CONSIDERED_RUNS)):
        if of_round in rounds or len(rounds) < EXPECTED_RUNS:
            rounds.add(of_round)
            runs.append(to_text(run_id))
            has_shards = has_shards or of_round != run_id
        elif not has_shards:  # the runs of one split may lie far apart
            break
    return plain_json.dumps(runs)


def _load_known_items(connection: sqlite3.Connection, project: str) -> Mapping[str, KnownItems]:
    """Return for each stage the recent seconds of each item, and those that a command takes apart from its items."""
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
    connection: sqlite3.Connection, project: str, *, pool: str | None = None, since_seconds: float = 0.0
) -> tuple[Decision, ...]:
    """Return the last decisions since `since_seconds` of wall time, as many as are kept, oldest first."""
    query = """
    SELECT pool, action, reason, old_size, new_size, at_ts, terms, run_id, situation, choice FROM decisions
    WHERE project = :project AND (:pool IS NULL OR pool = :pool) AND at_ts >= :since ORDER BY id DESC LIMIT :limit
    """
    values = {"project": project, "pool": pool, "since": since_seconds, "limit": retention.KEEP_DECISIONS}
    found = connection.execute(query, values)
    return tuple(
        Decision(
            pool=to_text(name),
            action=to_text(action),
            reason=to_text(reason),
            old_size=to_count(old),
            new_size=to_count(new),
            at_timestamp_seconds=to_timestamp(at),
            terms={to_text(term): to_number(value) for term, value in plain_json.loads(terms).items()},
            run_id=None if run_id is None else to_text(run_id),
            situation=to_text(situation),
            choice=to_text(choice),
        )
        for name, action, reason, old, new, at, terms, run_id, situation, choice in reversed(found.fetchall())
    )


def load_usual_size(connection: sqlite3.Connection, project: str, lane: str) -> int | None:
    """Return the median of the largest sizes of the lane's last runs; None without decisions.

    If a run undid an increase that did not help, the size after that counts.
    """
    query = """
    SELECT coalesce(min(CASE WHEN reason = 'ineffective' AND action = 'down' THEN new_size END), max(new_size))
      FROM decisions
      WHERE reason NOT IN ('pinned', 'paused') AND run_id IN
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


def load_flakiness(
    connection: sqlite3.Connection, project: str, lane: str | None = None
) -> Mapping[tuple[str, str], Flakiness]:
    """Return the flakiness of each stage with flaky attempts in its lane's last FLAKY_RUNS runs, by (lane, stage)."""
    stages = _find_stages_with_flaky_attempts(connection, project)
    if not stages:
        return {}
    values = {"project": project, "lane": lane, "runs": FLAKY_RUNS, "stages": plain_json.dumps(stages)}
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
      FROM ({_RANKED}) AS ranked CROSS JOIN stages USING (run_id)
      WHERE age <= :runs AND stage IN (SELECT value FROM json_each(:stages))
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


def _find_stages_with_flaky_attempts(connection: sqlite3.Connection, project: str) -> list[str]:
    query = "SELECT labels FROM totals WHERE project = ? AND family = ? AND value > 0"
    found = connection.execute(query, (project, families.FLAKY_ATTEMPTS.name))
    return sorted({to_texts(labels)[1] for (labels,) in found})


def has_failed_with_state(connection: sqlite3.Connection, project: str, lane: str) -> bool:
    """Return whether one of the lane's last RETRIED_RUNS runs failed in a known tree state."""
    query = """
    SELECT 1 FROM (SELECT tree_state FROM runs WHERE project = ? AND lane = ? ORDER BY sequence DESC LIMIT ?)
      WHERE tree_state <> '' LIMIT 1
    """
    return connection.execute(query, (project, lane, RETRIED_RUNS)).fetchone() is not None


def load_open_failures(
    connection: sqlite3.Connection, project: str, lane: str, tree_state: str, *, shard: str = ""
) -> Mapping[str, OpenFailures]:
    """Return for each stage its tasks that failed in a tree state, unless it has since succeeded in that state.

    Tasks that could not start, for example because a program was not installed, are left out.

    `shard`: such as "2/5", for the failures that a shard can repeat; "" for all.
    """
    if not tree_state:
        return {}
    values = {"project": project, "lane": lane, "state": tree_state, "shard": shard}
    query = f"""
    SELECT stage, count(*) FROM tasks JOIN ({_OPEN}) USING (run_id, stage)
      WHERE final AND result IN ({_BAD_RESULTS})
        AND NOT (result = 'error' AND exit_code IS NULL AND signal IS NULL)
      GROUP BY stage
    """  # nosec B608 # literals of this module
    attempts = {to_text(stage): to_count(count) for stage, count in connection.execute(query, values)}
    items: dict[str, set[str]] = defaultdict(set)
    listed = f"SELECT stage, item FROM failed_items JOIN ({_OPEN}) USING (run_id, stage)"  # nosec B608 # literals
    for stage, item in connection.execute(listed, values) if attempts else ():
        items[to_text(stage)].add(to_text(item))
    return {stage: OpenFailures(attempts=count, items=frozenset(items[stage])) for stage, count in attempts.items()}
