"""Merge histories and JUnit reports of shards into one history, so that the next split knows all durations.

A file is read and checked completely before any of it is written. Merging is idempotent, and its result does not depend
on the order of the files: a run is known by its id, the newest measurement of an item wins, and each total of an
instance takes the largest of its values, so that its counter never falls below a value that it has exported.
"""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from itertools import accumulate, count
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from msgspec import Struct, field

from paropt_exporter import files
from paropt_exporter.errors import INVALID_VALUE_ERRORS, HistoryError
from paropt_exporter.events import Result, Scope
from paropt_exporter.families import FAMILIES
from paropt_exporter.history.database import build_unreadable_error, open_empty, open_for_reading
from paropt_exporter.history.repair import FIRST_BYTES
from paropt_exporter.history.retention import FORMER_INSTANCES
from paropt_exporter.history.values import (
    to_count,
    to_number,
    to_text,
    to_texts,
    to_timestamp,
)

_MOST_REPORT_BYTES = 64 << 20
_RUN_TABLES = ("stages", "tasks", "sla", "failed_items", "flaky_items")
_ITEM_TABLES = ("items", "shard_items")
_READ_TRIES = 5  # of a history that runs change meanwhile
_PART = "::"  # between a file and a long test in it; each has its own row
_LONGEST_ITEM_SECONDS = 1e6

_SETTLED = (Result.SUCCESS.value, Result.FAILURE.value, Result.ERROR.value, Result.TIMEOUT.value)
_TIMESTAMP = "_timestamp_seconds"
_LABELS = {family.name: family.labels for family in FAMILIES}

Row = dict[str, object]
_Place = tuple[str, ...]  # a lane, or a lane and a stage


class ShardRun(Struct, frozen=True, kw_only=True):
    """The last run of a lane in one file, if a shard made it."""

    lane: str
    index: int
    count: int
    split: str


class _LastRun(NamedTuple):
    """The last run of a lane or stage in a history. `split`: that of a shard. `has_failed`: the stage in this run."""

    end_seconds: float
    run_id: str
    split: str
    has_failed: bool = False


_NO_RUN = _LastRun(0.0, "", "")


class Source(Struct, frozen=True, kw_only=True):
    """The checked content of one file. Rows are by table.

    `unended` counts runs without an end, which are left out; `other_projects`: other projects with runs of shards.
    """

    path: Path
    runs: tuple[Row, ...] = ()
    details: Mapping[str, Sequence[Row]] = field(default_factory=lambda: MappingProxyType({}))
    items: tuple[Row, ...] = ()
    totals: tuple[Row, ...] = ()
    latest: tuple[Row, ...] = ()
    decisions: tuple[Row, ...] = ()
    unended: int = 0
    other_projects: tuple[str, ...] = ()

    def find_shard_runs(self) -> tuple[ShardRun, ...]:
        """Return the last run of each lane, if a shard made it."""
        last = {to_text(run["lane"]): run for run in sorted(self.runs, key=_get_time)}
        return tuple(_build_shard_run(run) for run in last.values() if run["shard"])


class Merged(Struct, frozen=True, kw_only=True):
    """How many runs were new, and how many items have a measured duration after the merge."""

    runs: int
    items: int


def read_source(path: Path, project: str) -> Source:
    """Read a history or a JUnit report. Raises HistoryError if it is damaged, or of another program or project."""
    try:
        start = files.read_start(path, limit_bytes=len(FIRST_BYTES))
    except OSError as error:
        raise HistoryError(f"{path}: cannot read it: {error.strerror or error}") from error
    if start == FIRST_BYTES:
        return _read_history(path, project)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _read_report(path, project)
    raise HistoryError(f"{path}: neither a history nor a JUnit report")


def merge_sources(connection: sqlite3.Connection, project: str, sources: Sequence[Source]) -> Merged:
    """Add the sources to a history, in the caller's transaction. Durations that its own shards measured now count."""
    own = _load_last_runs(connection, project)
    former = _load_former_instances(connection, project)
    new = _insert_runs(connection, project, sources)
    connection.execute("UPDATE runs SET merged = 1 WHERE project = ?", (project,))
    _merge_totals(connection, sources, new, former)
    _merge_latest(connection, project, sources, new, own)
    return Merged(runs=len(new), items=_merge_items(connection, project, sources))


def _read_history(path: Path, project: str) -> Source:
    try:
        for _ in range(_READ_TRIES):
            reading = open_for_reading(path)
            with closing(reading.connection) as connection:
                try:
                    source = _read_whole(connection, path, project)
                except (sqlite3.Error, HistoryError, *INVALID_VALUE_ERRORS):
                    if not reading.has_changed():
                        raise
                else:
                    if not reading.has_changed():
                        return source
    except sqlite3.Error as error:
        raise build_unreadable_error(path, error) from error
    except INVALID_VALUE_ERRORS as error:
        raise HistoryError(f"history {path}: it contains values that no exporter wrote ({error})") from error
    raise HistoryError(f"history {path}: runs changed it again and again while it was read: try again")


def _read_whole(connection: sqlite3.Connection, path: Path, project: str) -> Source:
    damage = connection.execute("PRAGMA quick_check(1)").fetchone()
    if damage != ("ok",):
        raise HistoryError(f"history {path}: damaged ({damage[0]})")
    return _read_tables(connection, path, project)


def _read_tables(connection: sqlite3.Connection, path: Path, project: str) -> Source:
    projects = [to_text(name) for (name,) in connection.execute("SELECT DISTINCT project FROM runs")]
    if projects and project not in projects:
        named = ", ".join(sorted(projects))
        remedy = "in folders of different names, set `project` in paropt.yml"
        raise HistoryError(f"history {path}: it is of project {named}, not of {project} ({remedy})")
    of_project = {table: _read_rows(connection, table, project) for table in ("runs", "totals", "latest", "decisions")}
    ended = tuple(run for run in of_project["runs"] if run["ended_ts"] is not None)
    known = {run["run_id"] for run in ended}
    sharded = connection.execute("SELECT DISTINCT project FROM runs WHERE project <> ? AND shard <> ''", (project,))
    return Source(
        path=path,
        runs=ended,
        details={
            table: [row for row in _read_rows(connection, table) if row["run_id"] in known] for table in _RUN_TABLES
        },
        items=tuple(row for table in _ITEM_TABLES for row in _read_rows(connection, table, project)),
        totals=tuple(of_project["totals"]),
        latest=tuple(of_project["latest"]),
        decisions=tuple(row for row in of_project["decisions"] if row["run_id"] in known),
        unended=len(of_project["runs"]) - len(ended),
        other_projects=tuple(sorted(to_text(name) for (name,) in sharded)),
    )


def _read_rows(connection: sqlite3.Connection, table: str, project: str | None = None) -> list[Row]:
    columns = _list_columns(table)
    where = "" if project is None else " WHERE project = ?"
    query = f"SELECT {', '.join(columns)} FROM {table}{where}"  # nosec B608 # literals, and columns of our own schema
    found = connection.execute(query, () if project is None else (project,))
    return [{name: check(row[place]) for place, (name, check) in enumerate(columns.items())} for row in found]


@cache
def _list_columns(table: str) -> Mapping[str, Callable[[object], object]]:
    """Return the columns of a table, each with the function that checks its values.

    They are those of our own schema: the names in a file would become SQL, and may contain a query that never ends.
    """
    with closing(open_empty()) as connection:
        described = connection.execute(f"PRAGMA table_info({table})").fetchall()
    return {name: _choose_check(name, kind, required=bool(required)) for _, name, kind, required, *_ in described}


_BY_NAME: Mapping[str, Callable[[object], object]] = {
    "result": lambda value: Result(to_text(value)).value,
    "planned": lambda value: json.dumps(to_texts(value)),
    "abandoned": lambda value: json.dumps(to_texts(value)),
    "labels": lambda value: json.dumps(to_texts(value)),
    "bottlenecks": lambda value: _check_document(value, list),
    "terms": lambda value: _check_document(value, dict),
    "shard": lambda value: _check_shard(to_text(value)),
}
_BY_TYPE: Mapping[str, Callable[[object], object]] = {"TEXT": to_text, "REAL": to_number, "INTEGER": to_count}


def _choose_check(name: str, kind: str, *, required: bool) -> Callable[[object], object]:
    check = to_timestamp if name.endswith("_ts") else _BY_NAME.get(name, _BY_TYPE[kind])
    if required:
        return lambda value: check(_require(value, name))
    return lambda value: None if value is None else check(value)


def _require(value: object, name: str) -> object:
    if value is None:
        raise ValueError(f"expected a value of {name}, found NULL")
    return value


def _check_document(value: object, kind: type) -> str:
    if not isinstance(json.loads(to_text(value)), kind):
        raise ValueError(f"expected a JSON {kind.__name__}")
    return to_text(value)


def _check_shard(text: str) -> str:
    index, slash, count = text.partition("/")
    if text and not (slash and 1 <= int(index) <= int(count)):
        raise ValueError(f"expected a shard, found {text[:40]!r}")
    return text


def _read_report(path: Path, project: str) -> Source:
    """Read the durations of items from a JUnit report that `--report junit=FILE` wrote."""
    text = files.read_start(path, limit_bytes=_MOST_REPORT_BYTES + 1)
    if len(text) > _MOST_REPORT_BYTES:
        raise HistoryError(f"{path}: longer than {_MOST_REPORT_BYTES >> 20} MiB, the most that a report may have")
    if b"\0" in text:  # such as UTF-16, in which the next check would miss a document type
        raise HistoryError(f"{path}: not a JUnit report (it contains NUL)")
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise HistoryError(f"{path}: has a document type, which no report needs")
    from xml.etree import ElementTree  # nosec B405 # document types, which may define entities, are refused

    try:
        root = ElementTree.fromstring(text)  # nosec B314
        if root.tag not in ("testsuites", "testsuite"):
            raise HistoryError(f"{path}: not a JUnit report: it begins with <{root.tag[:40]}>")
        rows = [row for suite in root.iter("testsuite") for row in _iter_report_rows(suite, project)]
    except (ElementTree.ParseError, *INVALID_VALUE_ERRORS) as error:
        raise HistoryError(f"{path}: not a JUnit report ({error})") from error
    return Source(path=path, items=tuple(rows))


def _iter_report_rows(suite: object, project: str) -> Iterable[Row]:
    """Yield a row for each successful item of a suite. Suites of other programs have other class names, and no rows."""
    stage, began = suite.get("name"), suite.get("timestamp")  # type: ignore[attr-defined]  # an element
    if not stage or not began:
        return
    seen = datetime.fromisoformat(began)
    seen_ts = (seen if seen.tzinfo is not None else seen.replace(tzinfo=UTC)).timestamp()
    for case in suite.findall("testcase"):  # type: ignore[attr-defined]  # of its own: suites may be nested deeply
        item, seconds = case.get("name"), float(case.get("time") or 0.0)
        bad = any(child.tag in ("failure", "error", "skipped") for child in case)
        if case.get("classname") != stage or bad or not item or item == stage:
            continue
        if 0.0 < seconds <= _LONGEST_ITEM_SECONDS:
            yield {
                "project": project,
                "stage": stage,
                "item": item,
                "seconds": seconds,
                "seen_ts": to_timestamp(seen_ts),
            }


def _insert_runs(connection: sqlite3.Connection, project: str, sources: Sequence[Source]) -> frozenset[str]:
    """Insert the runs that the history lacks, in order of their start among its own. Return their ids."""
    known = {run_id for (run_id,) in connection.execute("SELECT run_id FROM runs")}
    found: dict[str, tuple[Row, Source]] = {}
    for source in sources:
        for run in source.runs:
            if run["run_id"] not in known:
                found.setdefault(to_text(run["run_id"]), (run, source))
    runs = sorted((run for run, _ in found.values()), key=_get_time)
    query = """
    SELECT run_id, CAST(started_ts AS REAL), CAST(sequence AS INTEGER) AS number FROM runs
    WHERE project = ? ORDER BY number
    """
    own_runs = connection.execute(query, (project,)).fetchall()
    numbers, changed = _number_rows(own_runs, [to_number(run["started_ts"]) for run in runs])
    connection.executemany("UPDATE runs SET sequence = ? WHERE run_id = ?", changed)
    for number, run in zip(numbers, runs, strict=True):
        _insert(connection, "runs", {**run, "sequence": number})
    decisions: list[Row] = []
    for source in sources:
        own = {run_id for run_id, (_, origin) in found.items() if origin is source}
        for table in _RUN_TABLES:
            for row in source.details.get(table, ()):
                if row["run_id"] in own:
                    _insert(connection, table, row)
        decisions += [row for row in source.decisions if row["run_id"] in own]
    _insert_decisions(connection, project, {run_id: _get_time(run) for run_id, (run, _) in found.items()}, decisions)
    return frozenset(found)


def _insert_decisions(
    connection: sqlite3.Connection, project: str, times: Mapping[str, tuple[float, str]], decisions: Iterable[Row]
) -> None:
    """Insert decisions, those of a run together, in order of the runs' `times` among the history's own decisions."""
    new = sorted(decisions, key=lambda row: (times[to_text(row["run_id"])], to_number(row["at_ts"])))
    query = "SELECT id, CAST(at_ts AS REAL), id FROM decisions WHERE project = ? ORDER BY id"
    own = connection.execute(query, (project,)).fetchall()
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM decisions").fetchone()
    numbers, changed = _number_rows(own, [times[to_text(row["run_id"])][0] for row in new], last=last)
    connection.executemany("UPDATE decisions SET id = ? WHERE id = ?", changed)
    for number, row in zip(numbers, new, strict=True):
        _insert(connection, "decisions", {**row, "id": number})


def _number_rows(
    own: Sequence[tuple[object, float, int]], times: Sequence[float], *, last: int = 0
) -> tuple[list[int], list[tuple[int, object]]]:
    """Return the numbers of new rows, by their ascending `times`, and changed numbers of own ones, with their keys.

    `own` has the key, the time and the number of each row, in their order, which stays: a clock may have jumped. A new
    row comes after the last own one that is not younger. Own ones after the first new one get other numbers. All new
    numbers exceed those of own rows, and `last`.
    """
    earliest_left = [*accumulate((time for _, time, _ in reversed(own)), min)][::-1]  # of each row and those after it
    free = count(max([last, *(number for _, _, number in own)]) + 1)
    numbers: list[int] = []
    changed: list[tuple[int, object]] = []
    at = len(own)
    for place in (bisect_right(earliest_left, time) for time in times):
        changed += [(next(free), key) for key, _, _ in own[at:place]]
        at = place
        numbers.append(next(free))
    changed += [(next(free), key) for key, _, _ in own[at:]]
    return numbers, changed


def _merge_items(connection: sqlite3.Connection, project: str, sources: Sequence[Source]) -> int:
    """Store the newest durations of each item. A file's long tests go with it, as `_choose_newest` describes."""
    families: dict[tuple[str, str], list[dict[str, Row]]] = defaultdict(list)
    own = [_read_rows(connection, table, project) for table in _ITEM_TABLES]
    for rows in (*own, *(source.items for source in sources)):
        grouped: dict[tuple[str, str], dict[str, Row]] = defaultdict(dict)
        for row in rows:
            stage, item = to_text(row["stage"]), to_text(row["item"])
            _keep_newest(grouped[stage, item.partition(_PART)[0]], item, row)
        for key, found in grouped.items():
            families[key].append(found)
    for table in _ITEM_TABLES:
        connection.execute(f"DELETE FROM {table} WHERE project = ?", (project,))  # nosec B608 # literals
    chosen = [row for (_, file), versions in families.items() for row in _choose_newest(file, versions)]
    for row in chosen:
        _insert(connection, "items", row)
    return len(chosen)


def _choose_newest(file: str, versions: Sequence[Mapping[str, Row]]) -> list[Row]:
    """Return the newest row of a file, and those of its long tests.

    A file's own row excludes its long tests. So the tests that were long at its last measurement are kept beside it. An
    older row of another test is left out, since the file's row includes that test.
    """
    newest: dict[str, Row] = {}
    for rows in versions:
        for item, row in rows.items():
            _keep_newest(newest, item, row)
    of_file = [rows for rows in versions if file in rows]
    if not of_file:
        return [*newest.values()]
    last = max(of_file, key=lambda rows: (_rank(rows[file]), _rank_family(rows.values())))
    at = to_number(last[file]["seen_ts"])
    return [row for item, row in newest.items() if item in last or to_number(row["seen_ts"]) > at]


def _keep_newest(rows: dict[str, Row], item: str, row: Row) -> None:
    if item not in rows or _rank(row) > _rank(rows[item]):
        rows[item] = row


def _rank(row: Row) -> tuple[float, float]:
    return to_number(row["seen_ts"]), to_number(row["seconds"])


def _rank_family(rows: Iterable[Row]) -> list[tuple[str, float]]:
    return sorted((to_text(row["item"]), to_number(row["seconds"])) for row in rows)


def _load_former_instances(connection: sqlite3.Connection, project: str) -> frozenset[str]:
    """Return the instances that have runs, but whose totals have been joined."""
    query = """
    SELECT DISTINCT instance FROM runs WHERE project = :project AND ended_ts IS NOT NULL
      EXCEPT SELECT instance FROM totals WHERE project = :project
    """
    return frozenset(to_text(instance) for (instance,) in connection.execute(query, {"project": project}))


def _merge_totals(
    connection: sqlite3.Connection, sources: Sequence[Source], new: frozenset[str], former: frozenset[str]
) -> None:
    """Take the largest totals of each instance.

    Instances without new runs are left out if the history has joined their totals (`former`). Of a source with the same
    past, the joined totals are left out, since the history has them, joined or not.
    """
    statement = """
    INSERT INTO totals (project, instance, family, labels, part, value)
      VALUES (:project, :instance, :family, :labels, :part, :value)
    ON CONFLICT (project, family, instance, labels, part) DO UPDATE SET value = max(value, excluded.value)
    """
    for source in sources:
        came = {run["instance"] for run in source.runs if run["run_id"] in new}
        has_same_past = any(run["run_id"] not in new for run in source.runs)
        left_out = former - came | ({FORMER_INSTANCES} if has_same_past else set())
        connection.executemany(statement, [row for row in source.totals if row["instance"] not in left_out])


def _merge_latest(
    connection: sqlite3.Connection,
    project: str,
    sources: Sequence[Source],
    new: frozenset[str],
    own: Mapping[_Place, _LastRun],
) -> None:
    """Take the last values of each lane and stage from its last run: an own or a new one.

    The shards of a split are one run: those of its shard count that failed, or ended last. A history also has older
    values, of stages that its runs did not run: these only fill gaps. Of timestamps the largest counts, since some of
    them, such as that of the last success, are not set by each run.
    """
    histories = [(own, _read_rows(connection, "latest", project))]
    for source in sources:
        runs = [run for run in source.runs if run["run_id"] in new]
        histories.append((_find_last_runs(runs, source.details.get("stages", ())), [*source.latest]))
    ends: dict[tuple[str, _Place], float] = defaultdict(float)  # of each lane or stage of a split
    for last_runs, _ in histories:
        for place, run in last_runs.items():
            ends[run.split, place] = max(ends[run.split, place], run.end_seconds)
    chosen: dict[tuple[str, str], tuple[tuple[object, ...], Row]] = {}
    for last_runs, rows in histories:
        for row in rows:
            family, labels, value = to_text(row["family"]), to_text(row["labels"]), to_number(row["value"])
            place = _find_place(family, to_texts(labels))
            if family.endswith(_TIMESTAMP):
                rank: tuple[object, ...] = (value,)
            else:
                run = last_runs.get(place, _NO_RUN)
                end = ends[run.split, place] if run.split else run.end_seconds
                rank = (end, run.has_failed, run.end_seconds, run.run_id, last_runs is own, value)
            if (family, labels) not in chosen or rank > chosen[family, labels][0]:
                chosen[family, labels] = (rank, row)
    statement = """
    INSERT INTO latest (project, family, labels, value) VALUES (:project, :family, :labels, :value)
    ON CONFLICT (project, family, labels) DO UPDATE SET value = excluded.value
    """
    connection.executemany(statement, [row for _, row in chosen.values()])


def _find_place(family: str, labels: Sequence[str]) -> _Place:
    """Return the lane, or the lane and the stage, that a series is about."""
    names = _LABELS.get(family, ())
    return tuple(value for name, value in zip(names, labels, strict=False) if name in ("lane", "stage"))


def _load_last_runs(connection: sqlite3.Connection, project: str) -> Mapping[_Place, _LastRun]:
    """Return the last run of each lane, and of each stage of it. Shards of an earlier merge are no part of a split."""
    query = """
    SELECT run_id, lane, ended_ts, CASE WHEN merged THEN '' ELSE split END AS split FROM runs
      WHERE project = ? AND ended_ts IS NOT NULL
    """
    names = ("run_id", "lane", "ended_ts", "split")
    runs = [dict(zip(names, row, strict=True)) for row in connection.execute(query, (project,))]
    stages = connection.execute("SELECT run_id, stage, result, scope FROM stages")
    return _find_last_runs(
        runs, [dict(zip(("run_id", "stage", "result", "scope"), row, strict=True)) for row in stages]
    )


def _find_last_runs(runs: Iterable[Row], stages: Iterable[Row]) -> Mapping[_Place, _LastRun]:
    """As `_load_last_runs`. A stage that was stopped, skipped or got arguments keeps the values of an earlier run."""
    found: dict[_Place, _LastRun] = {}
    by_id: dict[object, tuple[str, _LastRun]] = {}
    for row in runs:
        run = _LastRun(to_number(row["ended_ts"]), to_text(row["run_id"]), to_text(row["split"]))
        lane = to_text(row["lane"])
        by_id[row["run_id"]] = (lane, run)
        found[lane,] = max(found.get((lane,), _NO_RUN), run)
    for row in stages:
        if row["run_id"] in by_id and row["result"] in _SETTLED and row["scope"] != Scope.ARGUMENTS:
            lane, run = by_id[row["run_id"]]
            place = (lane, to_text(row["stage"]))
            run = run._replace(has_failed=row["result"] != Result.SUCCESS.value)
            found[place] = max(found.get(place, _NO_RUN), run)
    return found


def _insert(connection: sqlite3.Connection, table: str, row: Row) -> None:
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))  # nosec B608


def _get_time(run: Row) -> tuple[float, str]:
    return to_number(run["started_ts"]), to_text(run["run_id"])


def _build_shard_run(run: Row) -> ShardRun:
    index, _, count = to_text(run["shard"]).partition("/")
    return ShardRun(lane=to_text(run["lane"]), index=int(index), count=int(count), split=to_text(run["split"]))
