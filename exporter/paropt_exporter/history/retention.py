"""Remove old runs from the history, and give the space that they leave back to the file system.

Both delay the end of a run, so each is done in portions: after a limit is lowered, it takes several runs to take
effect.
"""

from __future__ import annotations

import sqlite3
from itertools import chain, islice

from msgspec import Struct

from paropt_exporter import families, plain_json

KEEP_ITEMS_SECONDS = 90 * 86_400.0  # an item that has not run for a quarter of a year was deleted or renamed
KEEP_DECISIONS = 10_000  # of all runs together; a busy controller makes several per minute
MOST_INSTANCES = 100  # with totals of their own, which a name for each CI job would add without an end
FORMER_INSTANCES = "former instances"
MOST_PORTIONS = 10  # at the end of a run: 1,000 small runs take 0.1 s
RUNS_OF_A_PORTION = 100
_DECISIONS_OF_A_PORTION = 500

_RUN_TABLES = ("tasks", "stages", "sla", "failed_items", "flaky_items", "runs")
_SIZE_DIVISOR = 10  # a file that is too large loses a tenth of its runs, so that the next runs have none to remove

_FREE_PAGES = 256  # 1 MiB: the next runs use them up
_FREE_DIVISOR = 8  # an eighth of a large file's pages may be free
_PAGES_OF_A_STEP = 256  # 3 to 20 ms, in which no other process can write
_MOST_STEPS = 16  # at the end of a run: 16 MiB


class Limits(Struct, frozen=True, kw_only=True):
    """The runs to keep: the last `runs`, none older than `age_seconds`, in `size_bytes` of the file; None: no limit."""

    runs: int | None
    age_seconds: float | None = None
    size_bytes: int | None = None


class _Run(Struct, frozen=True):
    sequence: int
    run_id: str
    started_seconds: float
    ended: bool


def remove_portion(connection: sqlite3.Connection, project: str, limits: Limits, now_seconds: float) -> bool:
    """Remove the oldest rows beyond the limits, in the caller's transaction; return whether there may be more.

    The size is that of the file, so runs of other projects count for it, too. Last values and sums of totals stay. So
    do the last run of each lane, if only the size is exceeded, and runs that have not ended. `now_seconds` is wall
    time.
    """
    oldest_seconds = now_seconds - limits.age_seconds if limits.age_seconds is not None else 0.0
    oldest = _load_oldest(connection, project)
    excess = 0 if limits.runs is None else _count_runs(connection, project) - limits.runs
    expired = [
        run.run_id
        for place, run in enumerate(oldest)
        if run.ended and (place < excess or run.started_seconds < oldest_seconds)
    ]
    if not expired and _is_too_large(connection, limits):
        expired = _choose_for_size(connection)
        _remove_decisions_until(connection, expired)
    _remove_runs(connection, expired)
    for table in ("items", "shard_items"):
        connection.execute(
            f"DELETE FROM {table} WHERE seen_ts < ?", (now_seconds - KEEP_ITEMS_SECONDS,)  # nosec B608 # literals
        )  # fmt: skip
    _remove_old_decisions(connection, project, oldest_seconds)
    _join_former_instances(connection, project)
    return bool(expired) and (len(oldest) == RUNS_OF_A_PORTION or _is_too_large(connection, limits))


def compact(connection: sqlite3.Connection) -> None:
    """Cut free pages off the file, a few in each transaction. Raises sqlite3.Error."""
    excess = _count_excess_pages(connection)
    for _ in range(min(_MOST_STEPS, -(-excess // _PAGES_OF_A_STEP))):
        # SQLite cuts one page in each step of the statement, and `execute` makes one step, since there are no rows.
        connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_OF_A_STEP});")


def _count_excess_pages(connection: sqlite3.Connection) -> int:
    """Return the number of free pages that the next runs won't use, or 0 if there are few."""
    free = _read_pragma(connection, "freelist_count")
    room = max(_FREE_PAGES, _read_pragma(connection, "page_count") // _FREE_DIVISOR)
    return free - room // 2 if free > room else 0


def _load_oldest(connection: sqlite3.Connection, project: str) -> list[_Run]:
    """Return a project's oldest runs in order of their start, from the index of each lane.

    Values that no exporter wrote count as 0, and the run as old: an error would keep all runs.
    """
    query = """
    SELECT CAST(sequence AS INTEGER), run_id, CAST(started_ts AS REAL), ended_ts IS NOT NULL
      FROM runs WHERE project = ? AND lane = ? ORDER BY sequence LIMIT ?
    """
    of_lanes = [
        [_Run(*row) for row in connection.execute(query, (project, lane, RUNS_OF_A_PORTION))]
        for lane in list_lanes(connection, project)
    ]
    return sorted(chain.from_iterable(of_lanes), key=lambda run: run.sequence)[:RUNS_OF_A_PORTION]


def list_lanes(connection: sqlite3.Connection, project: str) -> list[str]:
    """Return the lanes of a project, with one look-up in the index for each; DISTINCT would read all runs."""
    query = """
    WITH RECURSIVE lanes(lane) AS (
      SELECT min(lane) FROM runs WHERE project = :project UNION ALL
      SELECT (SELECT min(lane) FROM runs WHERE project = :project AND lane > lanes.lane) FROM lanes
        WHERE lane IS NOT NULL)
    SELECT lane FROM lanes WHERE lane IS NOT NULL
    """
    return [lane for (lane,) in connection.execute(query, {"project": project})]


def _count_runs(connection: sqlite3.Connection, project: str) -> int:
    return int(connection.execute("SELECT count(*) FROM runs WHERE project = ?", (project,)).fetchone()[0])


def _choose_for_size(connection: sqlite3.Connection) -> list[str]:
    """Return the oldest tenth of the runs of all projects, without the last one of each lane.

    If the project was renamed, the file may be full of runs of its old name.
    """
    from heapq import merge  # here: few files are too large

    last = "SELECT run_id FROM runs WHERE project = ? AND lane = ? ORDER BY sequence DESC LIMIT 1"
    projects = [project for (project,) in connection.execute("SELECT DISTINCT project FROM runs").fetchall()]
    places = [(project, lane) for project in projects for lane in list_lanes(connection, project)]
    spared = {connection.execute(last, place).fetchone()[0] for place in places}
    # Each project's runs stay in their order, since a clock may have jumped.
    oldest = merge(*(_load_oldest(connection, project) for project in projects), key=lambda run: run.started_seconds)
    tenth = 1 + sum(_count_runs(connection, project) for project in projects) // _SIZE_DIVISOR
    removable = (run.run_id for run in oldest if run.ended and run.run_id not in spared)
    return [*islice(removable, min(tenth, RUNS_OF_A_PORTION))]


def _is_too_large(connection: sqlite3.Connection, limits: Limits) -> bool:
    return limits.size_bytes is not None and _count_used_bytes(connection) > limits.size_bytes


def _count_used_bytes(connection: sqlite3.Connection) -> int:
    used = _read_pragma(connection, "page_count") - _read_pragma(connection, "freelist_count")
    return used * _read_pragma(connection, "page_size")


def _remove_runs(connection: sqlite3.Connection, run_ids: list[str]) -> None:
    for table in _RUN_TABLES:
        connection.executemany(
            f"DELETE FROM {table} WHERE run_id = ?", [(run_id,) for run_id in run_ids]  # nosec B608 # literals
        )  # fmt: skip


def _remove_decisions_until(connection: sqlite3.Connection, run_ids: list[str]) -> None:
    """Remove the decisions of these runs and all earlier decisions of their projects."""
    marks = ", ".join("?" * len(run_ids))
    last = f"SELECT project, max(id) FROM decisions WHERE run_id IN ({marks}) GROUP BY project"  # nosec B608 # marks alone
    connection.executemany(
        "DELETE FROM decisions WHERE project = ? AND id <= ?", connection.execute(last, run_ids).fetchall()
    )


def _remove_old_decisions(connection: sqlite3.Connection, project: str, oldest_seconds: float) -> None:
    connection.execute("DELETE FROM decisions WHERE id <= (SELECT max(id) - ? FROM decisions)", (KEEP_DECISIONS,))
    first = "SELECT id, at_ts FROM decisions WHERE project = ? ORDER BY id LIMIT ?"
    connection.execute(
        f"DELETE FROM decisions WHERE project = ? AND id <= (SELECT max(id) FROM ({first}) WHERE at_ts < ?)",  # nosec B608
        (project, project, _DECISIONS_OF_A_PORTION, oldest_seconds),
    )


def _join_former_instances(connection: sqlite3.Connection, project: str) -> None:
    """Join the totals of all instances but the last ones, so that sums over the instances do not fall."""
    values = {"project": project, "family": families.RUNS.name, "former": FORMER_INSTANCES, "most": MOST_INSTANCES}
    named = "SELECT DISTINCT instance FROM totals WHERE project = :project AND family = :family AND instance <> :former"
    if len(connection.execute(named, values).fetchall()) <= MOST_INSTANCES:
        return  # the query below reads all runs
    query = f"""
    SELECT instance FROM ({named})
      LEFT JOIN (SELECT instance, max(sequence) AS sequence FROM runs WHERE project = :project GROUP BY instance)
        AS last USING (instance)
      ORDER BY last.sequence DESC LIMIT -1 OFFSET :most
    """  # nosec B608 # literals
    names = plain_json.dumps([instance for (instance,) in connection.execute(query, values)])
    chosen = "WHERE project = :project AND instance IN (SELECT value FROM json_each(:names))"
    statement = f"""
    INSERT INTO totals (project, family, instance, labels, part, value)
      SELECT project, family, :former, labels, part, sum(value) FROM totals {chosen} GROUP BY family, labels, part
      ON CONFLICT (project, family, instance, labels, part) DO UPDATE SET value = value + excluded.value
    """  # nosec B608 # literals
    connection.execute(statement, {"project": project, "former": FORMER_INSTANCES, "names": names})
    connection.execute(f"DELETE FROM totals {chosen}", {"project": project, "names": names})  # nosec B608 # literals


def _read_pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
