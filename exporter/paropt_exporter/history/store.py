"""Take events as they happen and keep them, one transaction each with the totals that it changes."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import Concatenate, ParamSpec, TypeVar

from paropt_exporter.aggregation import LastValues, Totals
from paropt_exporter.clock import Clock
from paropt_exporter.errors import HistoryError
from paropt_exporter.events import Decision, Event, RunRecord, RunStarted
from paropt_exporter.history import cells, queries, recovery, repair, rows
from paropt_exporter.history.run_lock import Owners
from paropt_exporter.history.schema import open_for_reading, open_history, unreadable
from paropt_exporter.plan import KnownItems

log = logging.getLogger(__name__)

KEEP_RUNS = 1000
KEEP_ITEMS_SECONDS = 90 * 86_400.0  # an item that no run has had for a quarter of a year is gone, or renamed
KEEP_DECISIONS = 10_000  # of all runs together: a busy controller makes several a minute
_UNBOUNDED = -1  # as SQLite's LIMIT has it
_Asked = ParamSpec("_Asked")
_Answer = TypeVar("_Answer")


class History:
    """The run history of one project, in a file that several processes may share.

        observe(event) -> BEGIN IMMEDIATE -> rows + totals + last values -> COMMIT
                          RunStarted: first flock runs/RUN_ID.lock      RunRecord: release it, prune

    Guarantees:
    * An event's rows and the totals that it changes are committed together, before `observe` returns.
    * The end of this process (kill -9 too) loses no event that `observe` returned from: the file is in WAL mode with
      `synchronous=NORMAL`. A power cut may lose the last transactions, never the file.
    * A run whose owner is gone is marked once, however many processes start together: its end is written in the
      transaction that found it without one.
    * `observe` never raises for the file's or the disk's sake: it says so once in the log and, for each run that it
      concerns, in `broken`. It may block for `schema.BUSY_SECONDS` if another process holds the file. After a failure
      only the start and the end of a run are tried again, so that a broken disk can't slow down each task. `dropped`
      counts the events whose rows are missing.
    * What missing events would have added to the totals is added as soon as the file takes rows again, `close`
      included: the page has shown it, and totals that fall at a restart would be counted twice.
    * A file that is deleted under it is written anew, with all that it had; one that turns out to be damaged is set
      aside, and an empty one begun. Each is said in a line of the log.
    * Totals are at least what a page has shown (`show`), of attempts too that were cut off with their exporter.
    * With `for_reading` nothing is written, moved or repaired: a checkout that is only looked at stays as it is.
    * Totals and last values are never pruned; runs are kept while they are among the last `keep_runs` and no older
      than `keep_seconds` (None: any number, any age).

    May be used from any thread. Reading methods raise HistoryError if the disk fails.
    """

    def __init__(
        self,
        path: Path,
        *,
        project: str,
        clock: Clock,
        keep_runs: int | None = KEEP_RUNS,
        keep_seconds: float | None = None,
        for_reading: bool = False,
    ) -> None:
        self.path = path
        self.broken: str | None = None
        self.dropped = 0
        self._project = project
        self._clock = clock
        self._keep_runs = keep_runs
        self._keep_seconds = keep_seconds
        self._owners = Owners(path.parent / "runs")
        self._lock = RLock()  # guards: the connection (one transaction at a time), _owners, and all below
        self._gave_up = False
        self._told: str | None = None  # the fault that the log has told of, until there is none
        self._owed = rows.Change()  # of events that the file lacks
        self._for_reading = for_reading
        self._open()
        if not for_reading:
            self._owners.reserve()

    def observe(self, event: Event) -> None:
        """Keep an event; returns when it is committed, or when it is clear that it can't be."""
        with self._lock:
            if isinstance(event, RunStarted):
                self._try_again()
            if self._gave_up and not isinstance(event, RunStarted | RunRecord):
                self._miss(event)
                return
            try:
                self._follow_file()
                self._unless_damaged(self._keep, event)
                self._gave_up = False
                if self._in_memory:
                    self._miss(event)
            except (sqlite3.Error, OSError, HistoryError) as error:
                self._gave_up = True
                self._miss(event)
                self._break(str(error))
            if isinstance(event, RunRecord):
                self._owners.release(event.run_id)

    def show(self, run_id: str, cpu_totals: Mapping[str, float]) -> None:
        """Keep what a page is about to show of running stages' CPU, so that no restart shows less; never raises."""
        with self._lock:
            if self._gave_up or self._in_memory or not cpu_totals:
                return
            try:
                with self._transaction():
                    rows.show(self._connection, run_id, cpu_totals)
            except sqlite3.Error as error:  # no event is lost, and the next one finds the same fault
                log.debug("the CPU shown of running stages was not kept", extra={"err": str(error)})

    def recover(self) -> tuple[recovery.Interrupted, ...]:
        """Mark the runs whose process is gone as interrupted and return them, oldest first; call it at start."""
        with self._lock:
            try:
                return self._unless_damaged(lambda: tuple(self._recovered()))
            except (sqlite3.Error, OSError) as error:
                self._break(str(error))
                return ()

    def totals(self) -> Totals:
        """Return the counters and histograms of all runs so far, of every process."""
        return self._read(queries.totals, self._project)

    def last(self) -> LastValues:
        """Return the gauges that the last runs left."""
        return self._read(queries.last_values, self._project)

    def expected(self, lane: str) -> Mapping[str, float]:
        """Return for each stage of the lane the median duration in seconds of its last ten successful runs."""
        return self._read(queries.expected, self._project, lane)

    def task_seconds(self, lane: str) -> Mapping[str, float]:
        """Return for each stage of the lane the mean duration in seconds of one of its tasks in its last ten runs."""
        return self._read(queries.task_seconds, self._project, lane)

    def fastest_tasks(self, lane: str) -> Mapping[str, float]:
        """Return for each stage of the lane the least seconds of one of its tasks in its last ten runs."""
        return self._read(queries.fastest_tasks, self._project, lane)

    def known_items(self) -> Mapping[str, KnownItems]:
        """Return for each stage how long each of its items took lately, where it takes several to a command."""
        return self._read(queries.known_items, self._project)

    def usual_size(self, lane: str) -> int | None:
        """Return the size that the lane's last ten runs could use; None where nothing is known."""
        return self._read(queries.usual_size, self._project, lane)

    def cpu_shares(self, lane: str) -> Mapping[str, float]:
        """Return for each stage of the lane the part of a core that one of its tasks used in its last ten runs."""
        return self._read(queries.cpu_shares, self._project, lane)

    def memory_peaks(self, lane: str) -> Mapping[str, int]:
        """Return for each stage the most bytes that a task of it used lately."""
        return self._read(queries.memory_peaks, self._project, lane)

    def never_succeeded(self, lane: str) -> frozenset[str]:
        """Return the stages that ran in the lane, and never with success."""
        return self._read(queries.never_succeeded, self._project, lane)

    def failures(self, lane: str, stages: Collection[str]) -> queries.Failures | None:
        """Return which of the lane's stages its last runs left undone, or None if no run of it is known."""
        return self._read(queries.failures, self._project, lane, stages)

    def decisions(
        self, *, pool: str | None = None, since_seconds: float = 0.0, limit: int = KEEP_DECISIONS
    ) -> tuple[Decision, ...]:
        """Return the controller's last decisions (of one pool or of all) since a moment of wall time, oldest first."""
        return self._read(queries.decisions, self._project, pool=pool, since_seconds=since_seconds, limit=limit)

    def runs(self, lane: str | None = None, *, limit: int = 20) -> tuple[queries.RunSummary, ...]:
        """Return the last runs (of one lane or of all), oldest first."""
        return self._read(queries.runs, self._project, lane=lane, limit=limit)

    def run(self, run_id: str) -> queries.RunSummary | None:
        """Return one run by its id or an unambiguous beginning of it."""
        return self._read(queries.run, self._project, run_id)

    def lives(self, run_id: str) -> bool:
        """Say whether the process that runs it lives, or may live: a lock of another user's tells nothing."""
        with self._lock:
            try:
                return self._owners.alive(run_id)
            except OSError:
                return True

    def tasks(self, run_id: str) -> tuple[queries.TaskSummary, ...]:
        """Return every attempt of the tasks of one run, by its whole id."""
        return self._read(queries.tasks, run_id)

    def trend(self, lane: str, *, limit: int = 20) -> queries.Trend | None:
        """Compare the lane's latest throughput with the average of up to `limit` earlier runs."""
        return self._read(queries.trend, self._project, lane, limit=limit)

    def close(self) -> None:
        """Let go of the file and of this process's runs; a run without an end is then marked at the next start."""
        with self._lock:
            try:
                self._catch_up()
            except (sqlite3.Error, OSError, HistoryError) as error:
                log.warning("totals will be lower at the next start", extra={"path": str(self.path), "err": str(error)})
            self._owners.release_all()
            self._connection.close()

    def _open(self) -> None:
        if self._for_reading:
            self._connection, self._in_memory = open_for_reading(self.path), False
            return
        self._connection, why = open_history(self.path, self._clock.wall())
        self._file = repair.identity(self.path)
        self._in_memory = why is not None
        if why is not None:
            self._break(why)

    def _read(
        self,
        query: Callable[Concatenate[sqlite3.Connection, _Asked], _Answer],
        *arguments: _Asked.args,
        **keywords: _Asked.kwargs,
    ) -> _Answer:
        with self._lock:
            try:
                return self._unless_damaged(lambda: query(self._connection, *arguments, **keywords))
            except sqlite3.Error as error:
                raise unreadable(self.path, error) from error

    def _unless_damaged(
        self, work: Callable[_Asked, _Answer], *arguments: _Asked.args, **keywords: _Asked.kwargs
    ) -> _Answer:
        """Return what the work returns, from an empty history where this one is found to be damaged.

        Raises HistoryError for values that no exporter wrote.
        """
        try:
            return work(*arguments, **keywords)
        except UnicodeEncodeError as error:
            raise HistoryError(f"history {self.path}: a name that is no Unicode can't be looked for") from error
        except cells.FALSE_VALUE as error:
            raise HistoryError(
                f"history {self.path}: it holds what no exporter wrote ({error}); move it away"
            ) from error
        except sqlite3.Error as error:
            if self._for_reading:
                return self._read_again(error, lambda: work(*arguments, **keywords))
            if self._in_memory or not repair.is_damage(error):
                raise
            repair.set_aside(self.path, self._file, str(error), self._clock.wall())
            self._move_on()
            return work(*arguments, **keywords)

    def _read_again(self, error: sqlite3.Error, work: Callable[[], _Answer]) -> _Answer:
        """Read once more: a file that no process had open may have been taken up by a run meanwhile."""
        if not repair.is_damage(error):
            raise unreadable(self.path, error) from error
        self._connection.close()
        self._open()
        try:
            return work()
        except sqlite3.Error as again:
            raise unreadable(self.path, again) from again

    def _follow_file(self) -> None:
        """Go on in a file of the old name where ours is gone: what is written to a deleted file is lost with us."""
        found = repair.identity(self.path)
        if self._in_memory or found == self._file:
            return
        log.warning(
            "the history was deleted or replaced while in use: going on at its old place",
            extra={"path": str(self.path)},
        )
        if found is None:
            repair.write_anew(self.path, self._connection)
        self._move_on()
        self._owners.retake()

    def _move_on(self) -> None:
        """Let go of a file only once there is another: closed under its old name, SQLite would still change it."""
        before = self._connection
        self._open()
        before.close()

    def _keep(self, event: Event) -> None:
        if isinstance(event, RunStarted) and not self._in_memory:
            # Before its row: whoever sees the row finds the lock held for as long as we live.
            self._owners.take(event.run_id)
        with self._transaction():
            if not self._in_memory:  # there they are counted already
                rows.add(self._connection, self._project, self._owed)
            rows.write(self._connection, self._project, event, self._clock.wall())
        if not self._in_memory:
            self._caught_up()
        if isinstance(event, RunRecord):
            with self._transaction():
                self._prune()

    def _recovered(self) -> Iterator[recovery.Interrupted]:
        for run_id in recovery.unended(self._connection, self._project):
            if self._owners.alive(run_id):
                continue
            with self._transaction():
                marked = recovery.mark(self._connection, self._project, run_id)
            self._owners.forget(run_id)
            if marked is not None:
                yield marked

    def _prune(self) -> None:
        oldest = self._clock.wall() - self._keep_seconds if self._keep_seconds is not None else 0.0
        most = self._keep_runs if self._keep_runs is not None else _UNBOUNDED
        execute = self._connection.execute
        doomed = """
        SELECT run_id FROM runs WHERE project = :project AND ended_ts IS NOT NULL AND (started_ts < :oldest OR
          run_id NOT IN (SELECT run_id FROM runs WHERE project = :project ORDER BY sequence DESC LIMIT :most))
        """
        gone = execute(doomed, {"project": self._project, "oldest": oldest, "most": most}).fetchall()
        for table in ("tasks", "stages", "sla", "failed_items", "runs"):
            self._connection.executemany(f"DELETE FROM {table} WHERE run_id = ?", gone)  # nosec B608 # literals above
        execute("DELETE FROM items WHERE seen_ts < ?", (self._clock.wall() - KEEP_ITEMS_SECONDS,))
        execute("DELETE FROM decisions WHERE id <= (SELECT max(id) - ? FROM decisions)", (KEEP_DECISIONS,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: a transaction that read first and then finds another writer can't wait, it must fail.
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:  # whatever it was, the transaction is not left open; raised again
            with suppress(sqlite3.Error):  # a full disk rolls back by itself; the first error is the one to tell
                self._connection.execute("ROLLBACK")
            raise

    def _try_again(self) -> None:
        """Begin a run without the faults of those before: a disk that was full may have been freed."""
        self.broken = None
        if self._in_memory:
            self._reopen()

    def _reopen(self) -> None:
        """Go on in the file, if there can be one by now."""
        try:
            connection, why = open_history(self.path, self._clock.wall())
        except HistoryError as error:
            self._break(str(error))
            return
        if why is not None:
            connection.close()
            self._break(why)
            return
        self._connection.close()
        self._connection, self._in_memory = connection, False
        self._file = repair.identity(self.path)

    def _miss(self, event: Event) -> None:
        self.dropped += 1
        self._owed.take(event)

    def _catch_up(self) -> None:
        """Add to the totals what missing events would have added, if there are any."""
        if self._owed and self._in_memory:
            self._reopen()
        if self._owed and not self._in_memory:
            self._follow_file()
            with self._transaction():
                rows.add(self._connection, self._project, self._owed)
            self._caught_up()

    def _caught_up(self) -> None:
        self._owed = rows.Change()
        if self._told is not None:
            self._told = None
            log.info("the history takes records again", extra={"path": str(self.path), "dropped": self.dropped})

    def _break(self, why: str) -> None:
        if why != self._told:
            self._told = why
            log.error(
                "history can't be written: the work goes on, this run will be missing from it",
                extra={"path": str(self.path), "err": why},
            )
        self.broken = self.broken or f"history {self.path}: {why}; free disk space or mend the folder's permissions"
