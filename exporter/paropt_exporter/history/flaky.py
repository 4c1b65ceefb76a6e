"""Query the history for flaky stages, and for failures that a later success with the same files proves flaky."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping

from paropt_exporter.events import Result
from paropt_exporter.history.values import to_count, to_text, to_timestamp
from paropt_exporter.plan.flakiness import FLAKY_RUNS, Flakiness, OpenFailures

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
