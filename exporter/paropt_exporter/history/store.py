"""Store events as they happen, each in one transaction with the totals that it changes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from paropt_exporter.clock import Clock
from paropt_exporter.errors import INVALID_VALUE_ERRORS, HistoryError
from paropt_exporter.events import Event, RunRecord, RunStarted
from paropt_exporter.history import queries, repair, retention, rows
from paropt_exporter.history.database import build_unreadable_error, open_for_reading, open_history
from paropt_exporter.history.run_lock import RunLocks, find_lock_folder

if TYPE_CHECKING:
    from paropt_exporter.aggregation import Totals
    from paropt_exporter.history import merging, recovery
    from paropt_exporter.history.failures import Failures
    from paropt_exporter.history.summaries import RunSummary, TaskSummary, Trend

log = logging.getLogger(__name__)

# The last one is for file systems without locks or shared memory maps, as of some network folders and FUSE.
_OTHER_PLACE = "or choose another place (history: {path: FILE})"
_REMEDIES = f"free disk space, fix the folder's permissions, {_OTHER_PLACE}"
_LOCKED = "database is locked"  # SQLite's message
_LOCKED_REMEDIES = f"a stopped or hanging process has locked it: continue or end that, {_OTHER_PLACE}"

KEEP_RUNS = 1000
_READ_TRIES = 5  # a run takes longer than a query, so the second try nearly always succeeds
_UNDECODABLE = "Could not decode to UTF-8"  # in the sqlite3 module's error for a text with other bytes
_FAULTS = (sqlite3.Error, OSError, HistoryError)  # of a transaction, which may open the file again
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _read(
    query: Callable[Concatenate[sqlite3.Connection, str, _Arguments], _Result],
) -> Callable[Concatenate[History, _Arguments], _Result]:
    """Return a method that runs a query about the history's project."""

    @wraps(query)
    def read(self: History, /, *arguments: _Arguments.args, **keywords: _Arguments.kwargs) -> _Result:
        return self._query(query, self._project, *arguments, **keywords)

    return read


class History:
    """The run history of one project, in a file that several processes may share.

        observe(events) -> BEGIN IMMEDIATE -> rows + totals + last values -> COMMIT
                          RunStarted: first lock runs/RUN_ID.lock      RunRecord: unlock it, prune

    Guarantees:
    * An event's rows and the totals that it changes are committed together, before `observe` or `observe_all` returns.
    * If this process dies (also by SIGKILL), no event is lost for which `observe` has returned: the file is in WAL mode
      with `synchronous=NORMAL`. A power failure may lose the last transactions, never the file.
    * An interrupted run is ended once, however many processes start together: each checks in the same transaction that
      the run has no end.
    * `observe` never raises because of the file or disk: it logs the failure once and, for each run that lacks records,
      sets `broken`. It blocks for up to `database.BUSY_SECONDS` if another process has locked the file. After a failure
      it tries again only at the start and end of a run, so that a broken disk can't slow down each task. `dropped`
      counts the events whose rows are missing.
    * The totals of missing events are added when the file is writable again, at the latest in `close`: the page has
      shown them, and `increase()` would count lower totals after a restart twice.
    * A file that is deleted while open is restored completely; a damaged one is set aside and an empty one created.
      Both are logged.
    * Each `instance` has totals of its own, those of its runs: Prometheus adds those of several instances up. Last
      values are those of the last run of any instance.
    * Totals are never lower than a page has shown (`store_shown_cpu`), including attempts that died with their
      exporter.
    * With `for_reading` no file is written, moved or repaired: a checkout that is only inspected stays unchanged. All
      reads see the history as it was when it was opened, or, if it was closed then and a run has begun since, as it
      was at the end of a run: never a part of each.
    * Totals and last values are never pruned. Runs are kept while they are among the last `keep_runs`, no older than
      `keep_seconds`, and fit into `keep_bytes` (None: any number, age, size). The file shrinks when they are removed.

    Thread-safe. Reading methods raise HistoryError if the disk fails.
    """

    def __init__(
        self,
        path: Path,
        *,
        project: str,
        clock: Clock,
        instance: str = "",
        keep_runs: int | None = KEEP_RUNS,
        keep_seconds: float | None = None,
        keep_bytes: int | None = None,
        for_reading: bool = False,
    ) -> None:
        self.path = path
        self.broken: str | None = None
        self.dropped = 0
        self._project = project
        self._instance = instance
        self._clock = clock
        self._limits = retention.Limits(runs=keep_runs, age_seconds=keep_seconds, size_bytes=keep_bytes)
        self._run_locks = RunLocks(find_lock_folder(path))
        self._lock = RLock()  # guards: the connection (one transaction at a time), _run_locks and all attributes below
        self._has_failed = False
        self._logged_fault: str | None = None  # the fault that was logged, until writes succeed again
        self._pending = rows.TotalsDelta()  # totals of events that the file lacks
        self._for_reading = for_reading
        self._open()
        if not for_reading:
            self._run_locks.reserve_descriptor()

    def observe(self, event: Event) -> None:
        """Store an event; return when it is committed or has failed."""
        self.observe_all((event,))

    def observe_all(self, events: Sequence[Event]) -> None:
        """Store events, in one transaction for all between a run's start and end; return as `observe` does."""
        with self._lock:
            for batch in _split_at_ends_of_runs(events):
                self._store(batch)

    def _store(self, events: tuple[Event, ...]) -> None:
        first = events[0]
        if isinstance(first, RunStarted):
            self._retry_for_new_run()
        if self._has_failed and not isinstance(first, RunStarted | RunRecord):
            self._defer(events)
            return
        try:
            self._replace_if_damaged(self._write_events, events)
            self._has_failed = False
            if self._in_memory:
                self._defer(events)
        except _FAULTS as error:
            if len(events) > 1 and not isinstance(error, sqlite3.OperationalError | OSError):
                for event in events:  # the file is writable, so one of the events has an invalid value
                    self._store((event,))
                return
            self._has_failed = True
            self._defer(events)
            self._report_fault(str(error))
        if isinstance(first, RunRecord):
            self._run_locks.release(first.run_id)
            if not self._has_failed:
                self._prune()

    def store_shown_cpu(self, run_id: str, cpu_totals: Mapping[str, float]) -> None:
        """Store the CPU totals of running stages before a page shows them, so that a restart shows no less. Never
        raises.
        """
        with self._lock:
            if self._has_failed or self._in_memory or not cpu_totals:
                return
            try:
                with self._transaction():
                    rows.store_shown_cpu(self._connection, run_id, cpu_totals)
            except _FAULTS as error:  # no event is lost, and the next event reports the fault
                log.debug("the shown CPU totals of running stages were not stored", extra={"err": str(error)})

    def mark_interrupted_runs(self) -> tuple[recovery.InterruptedRun, ...]:
        """End the runs whose process has died, and return them, oldest first; call it at the start."""
        with self._lock:
            try:
                interrupted = self._replace_if_damaged(lambda: tuple(self._iter_interrupted_runs()))
                self._run_locks.remove_old(self._clock.wall())
                return interrupted
            except _FAULTS as error:
                self._report_fault(str(error))
                return ()

    # `queries` describes them; the connection and the project come from this object.
    load_last_values = _read(queries.load_last_values)
    count_ended_runs = _read(queries.count_ended_runs)
    load_last_run = _read(queries.load_last_run)
    load_sequences = _read(queries.load_sequences)
    has_held_run = _read(queries.has_held_run)
    load_run_ids = _read(queries.load_run_ids)
    has_run_from_before = _read(queries.has_run_from_before)
    load_shown_cpu = _read(queries.load_shown_cpu)
    load_stage_durations = _read(queries.load_stage_durations)
    load_fastest_task_seconds = _read(queries.load_fastest_task_seconds)
    load_earlier_runs = _read(queries.load_earlier_runs)
    load_flakiness = _read(queries.load_flakiness)
    load_open_failures = _read(queries.load_open_failures)
    load_stage_pasts = _read(queries.load_stage_pasts)
    has_failed_with_state = _read(queries.has_failed_with_state)
    load_usual_size = _read(queries.load_usual_size)
    load_cpu_demands = _read(queries.load_cpu_demands)
    load_memory_peaks = _read(queries.load_memory_peaks)
    find_never_succeeded = _read(queries.find_never_succeeded)
    load_decisions = _read(queries.load_decisions)

    def load_totals(self) -> Totals:
        """Return the counters and histograms of this instance; with `for_reading`, the sums over all instances."""
        return self._query(queries.load_totals, self._project, None if self._for_reading else self._instance)

    def load_stage_cpu_totals(self) -> Mapping[tuple[str, ...], float]:
        """Return the CPU totals of this instance's stages, by (lane, stage), without attempts that have not ended."""
        return self._query(queries.load_stage_cpu_totals, self._project, self._instance)

    def load_run_durations(self, lane: str, *, limit: int) -> tuple[float, ...]:
        """Return the durations in seconds of those of the lane's last `limit` whole runs that succeeded."""
        from paropt_exporter.history import summaries

        return self._query(summaries.load_run_durations, self._project, lane, limit=limit)

    def store_tree_state(self, run_id: str, tree_state: str) -> None:
        """Store the tree state of a run that has ended. Never raises: without it, only less flakiness is detected."""
        with self._lock:
            if self._has_failed or self._in_memory or not tree_state:
                return
            try:
                with self._transaction():
                    self._connection.execute("UPDATE runs SET tree_state = ? WHERE run_id = ?", (tree_state, run_id))
            except _FAULTS as error:
                log.debug("the tree state of a run was not stored", extra={"err": str(error)})

    def find_failures(self, lane: str, stages: Collection[str]) -> Failures | None:
        """Return the lane's stages that failed or did not run in its last runs; None if no run has ended."""
        from paropt_exporter.history import failures  # here, as others below: few runs need them

        return self._query(failures.find_failures, self._project, lane, stages)

    def load_runs(self, lane: str | None = None, *, limit: int = 20) -> tuple[RunSummary, ...]:
        """Return the last runs (of one lane or of all), oldest first; a running one with durations up to now."""
        from paropt_exporter.history import summaries

        return tuple(map(self._measure, self._query(summaries.load_runs, self._project, lane=lane, limit=limit)))

    def load_projects(self) -> tuple[str, ...]:
        """Return the names of all projects that have runs in this file, sorted."""
        from paropt_exporter.history import summaries

        return self._query(summaries.load_projects)

    def find_run(self, run_id: str) -> RunSummary | None:
        """Return a run by its id or an unambiguous prefix of it; a running one with durations up to now."""
        from paropt_exporter.history import summaries

        found = self._query(summaries.find_run, self._project, run_id)
        return None if found is None else self._measure(found)

    def is_alive(self, run_id: str) -> bool:
        """Return whether a run's process is alive; True also if this user can't read its lock."""
        with self._lock:
            try:
                return self._run_locks.is_alive(run_id)
            except OSError:
                return True

    def load_tasks(self, run_id: str) -> tuple[TaskSummary, ...]:
        """Return all attempts of a run's tasks, by its full id."""
        from paropt_exporter.history import summaries

        return self._query(summaries.load_tasks, run_id)

    def compute_trend(self, lane: str, *, limit: int = 20) -> Trend | None:
        """Compare the lane's latest throughput with the average of up to `limit` earlier runs."""
        from paropt_exporter.history import summaries

        return self._query(summaries.compute_trend, self._project, lane, limit=limit)

    def merge(self, sources: Sequence[merging.Source]) -> merging.Merged:
        """Add other histories and reports in one transaction. Raises HistoryError if nothing could be written."""
        from paropt_exporter.history import merging

        with self._lock:
            try:
                with self._explain_values(), self._transaction():
                    if self._in_memory:
                        raise HistoryError(self.broken or f"history {self.path}: cannot write it")
                    merged = merging.merge_sources(self._connection, self._project, sources)
            except (sqlite3.Error, OSError) as error:
                raise HistoryError(f"history {self.path}: cannot write it ({error}); nothing was merged") from error
            self._prune()
            return merged

    def close(self) -> None:
        """Close the file and unlock this process's runs; the next start ends a run that has no end."""
        with self._lock:
            try:
                self._write_pending()
            except _FAULTS as error:
                log.warning(
                    "totals will be lower after the next start", extra={"path": str(self.path), "err": str(error)}
                )
            self._run_locks.release_all()
            self._connection.close()

    def _open(self) -> None:
        if self._for_reading:
            self._reading, self._in_memory = open_for_reading(self.path), False
            self._connection = self._reading.connection
            return
        opened = open_history(self.path, self._clock.wall())
        self._connection, self._files, self._in_memory = opened.connection, opened.files, opened.fault is not None
        if opened.fault is not None:
            self._report_fault(opened.fault)

    def _query(
        self,
        query: Callable[Concatenate[sqlite3.Connection, _Arguments], _Result],
        *arguments: _Arguments.args,
        **keywords: _Arguments.kwargs,
    ) -> _Result:
        run = self._read_one_state if self._for_reading else self._replace_if_damaged
        with self._lock:
            try:
                return run(lambda: query(self._connection, *arguments, **keywords))
            except sqlite3.Error as error:
                raise build_unreadable_error(self.path, error) from error

    def _replace_if_damaged(
        self, work: Callable[_Arguments, _Result], *arguments: _Arguments.args, **keywords: _Arguments.kwargs
    ) -> _Result:
        """Run the work; if the file is damaged, set it aside and run the work again on an empty history.

        Raises HistoryError for values that no exporter wrote.
        """
        try:
            with self._explain_values():
                return work(*arguments, **keywords)
        except sqlite3.Error as error:
            if self._in_memory or not repair.is_damage(error):
                raise
            repair.set_aside(self.path, self._files[0], str(error), self._clock.wall())
            self._switch_file()
            return work(*arguments, **keywords)

    def _read_one_state(self, query: Callable[[], _Result]) -> _Result:
        """Run a query; if a run has changed the file meanwhile, open it again and repeat the query."""
        for tries_left in reversed(range(_READ_TRIES)):
            try:
                with self._explain_values():
                    found = query()
                if not self._reading.has_changed():
                    return found
            except (sqlite3.Error, HistoryError) as error:
                is_damaged = isinstance(error, sqlite3.Error) and repair.is_damage(error)
                if not tries_left or not (is_damaged or self._reading.has_changed()):
                    raise
            self._connection.close()
            self._open()
        raise HistoryError(f"history {self.path}: runs changed it again and again while it was read: try again")

    @contextmanager
    def _explain_values(self) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError as error:
            raise HistoryError(f"history {self.path}: cannot search for a name that is not valid Unicode") from error
        except (*INVALID_VALUE_ERRORS, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.OperationalError) and _UNDECODABLE not in str(error):
                raise
            raise HistoryError(
                f"history {self.path}: it contains values that no exporter wrote ({error}); move it away"
            ) from error

    def _reopen_if_replaced(self) -> None:
        """If the file or its log was deleted or replaced, continue with the file at its path: writes would be lost."""
        if self._in_memory or repair.identify_files(self.path) == self._files:
            return
        log.warning(
            "the history was deleted or replaced while in use: continuing at the same path",
            extra={"path": str(self.path)},
        )
        self._run_locks.reacquire_lost()  # first: a process that sees the runs finds their locks held
        repair.restore_deleted(self.path, self._files[0], self._connection)
        self._switch_file()

    def _switch_file(self) -> None:
        """Open the new file before closing the old one: otherwise SQLite, which goes by names, would change the new
        one.
        """
        before = self._connection
        self._open()
        before.close()

    def _write_events(self, events: tuple[Event, ...]) -> None:
        first = events[0]
        if isinstance(first, RunStarted) and not self._in_memory:
            # Before its row: a process that sees the row finds the lock held while this process lives.
            self._run_locks.acquire(first.run_id)
        with self._transaction():
            if not self._in_memory:  # in memory they are counted already
                rows.apply_delta(self._connection, self._project, self._instance, self._pending)
            rows.write_events(self._connection, self._project, self._instance, events, self._clock.wall())
        if not self._in_memory:
            self._clear_pending()

    def _measure(self, run: RunSummary) -> RunSummary:
        if run.result is not None or not self.is_alive(run.run_id):
            return run
        from paropt_exporter.history import summaries

        return summaries.measure_running(run, self._clock.wall())

    def _iter_interrupted_runs(self) -> Iterator[recovery.InterruptedRun]:
        for run_id in queries.find_unended_runs(self._connection, self._project):
            if self._run_locks.is_alive(run_id):
                continue
            from paropt_exporter.history import recovery  # here: few runs are interrupted

            with self._transaction():
                marked = recovery.end_interrupted_run(self._connection, self._project, run_id)
            self._run_locks.remove(run_id)
            if marked is not None:
                yield marked

    def _prune(self) -> None:
        """Remove old runs, then give space back. Never raises: after an error, such as a full disk, the next run's end
        retries.
        """
        try:
            self._replace_if_damaged(self._remove_old_runs)
        except _FAULTS as error:
            log.debug("the history was not pruned", extra={"path": str(self.path), "err": str(error)})

    def _remove_old_runs(self) -> None:
        for _ in range(retention.MOST_PORTIONS):
            with self._transaction():
                more = retention.remove_portion(self._connection, self._project, self._limits, self._clock.wall())
            if not more:
                break
        if not self._in_memory:
            retention.compact(self._connection)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._reopen_if_replaced()
        # IMMEDIATE: a transaction that reads first fails, instead of waiting, if another one writes when it starts to
        # write.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:  # close the transaction whatever happened, then raise again
            with suppress(sqlite3.Error):  # a full disk rolls back by itself; the first error is the one to report
                self._connection.execute("ROLLBACK")
            raise

    def _retry_for_new_run(self) -> None:
        """Forget earlier failures at the start of a run: there may be space on the disk again."""
        self.broken = None
        if self._in_memory:
            self._leave_memory()

    def _leave_memory(self) -> None:
        """Move from memory to the file, if it can be opened now."""
        try:
            opened = open_history(self.path, self._clock.wall())
        except HistoryError as error:
            self._report_fault(str(error))
            return
        if opened.fault is not None:
            opened.connection.close()
            self._report_fault(opened.fault)
            return
        self._connection.close()
        self._connection, self._files, self._in_memory = opened.connection, opened.files, False

    def _defer(self, events: Sequence[Event]) -> None:
        self.dropped += len(events)
        for event in events:
            self._pending.add_event(event)

    def _write_pending(self) -> None:
        """Add the totals of missing events, if there are any."""
        if self._pending and self._in_memory:
            self._leave_memory()
        if self._pending and not self._in_memory:
            with self._transaction():
                rows.apply_delta(self._connection, self._project, self._instance, self._pending)
            self._clear_pending()

    def _clear_pending(self) -> None:
        self._pending = rows.TotalsDelta()
        if self._logged_fault is not None:
            self._logged_fault = None
            log.info("the history is writable again", extra={"path": str(self.path), "dropped": self.dropped})

    def _report_fault(self, why: str) -> None:
        if why != self._logged_fault:
            self._logged_fault = why
            log.error(
                "cannot write the history: the run goes on and will be missing from it",
                extra={"path": str(self.path), "err": why},
            )
        remedies = _LOCKED_REMEDIES if why == _LOCKED else _REMEDIES
        self.broken = self.broken or f"history {self.path}: {why}; {remedies}"


def _split_at_ends_of_runs(events: Sequence[Event]) -> Iterator[tuple[Event, ...]]:
    """Yield groups of events in order. A run's start and end are groups of one: they do more than write rows."""
    batch: list[Event] = []
    for event in events:
        if not isinstance(event, RunStarted | RunRecord):
            batch.append(event)
            continue
        if batch:
            yield tuple(batch)
            batch = []
        yield (event,)
    if batch:
        yield tuple(batch)
