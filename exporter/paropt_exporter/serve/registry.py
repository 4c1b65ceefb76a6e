"""Keep the registered projects in files of the runtime folder, and read their histories."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from enum import Enum
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from threading import Lock

import msgspec
from msgspec import MsgspecError, Struct, field
from msgspec.structs import asdict, replace

from paropt_exporter import families, files
from paropt_exporter.aggregation import HistogramTotal, LastValues, SeriesKey, Totals, sum_totals
from paropt_exporter.clock import SystemClock
from paropt_exporter.errors import HistoryError
from paropt_exporter.history import History
from paropt_exporter.history.queries import LastRun
from paropt_exporter.metrics.page import Labels
from paropt_exporter.serve.merging import LiveSeries, keep_counters
from paropt_exporter.serve.messages import Registration, Sample, build_sample, encode, find_fault, get_value

log = logging.getLogger(__name__)

_SUFFIX = ".json"
_LONGEST_BYTES = 64 * 1024 * 1024
_MOST_PROJECTS = 10_000
# The clock of file times ticks every few milliseconds, so a file that has just changed may change again unnoticed.
_TICK_NANOSECONDS = 50_000_000
_AHEAD_NANOSECONDS = 60_000_000_000  # by which the clock of a file server may be ahead
_BUCKETS = len(families.BUCKETS_SECONDS) + 1
_KEPT_SECONDS = 7 * 86_400.0  # how long a registration outlives its history, which may be on a disk that is not mounted
_MOST_DELETED = 100  # checkouts of a project: each takes 100 KB of memory, and 0.1 ms of each page after a run
_MOST_RUN_IDS = 1000  # of a checkout, by which a copy of its runs is known; an older state is known by its time
_TIMESTAMP = "_timestamp_seconds"  # at the end of a family's name
_TRIES = 3  # to read a history without a log that a run changes meanwhile

_Stamp = (
    tuple[tuple[int, int, int], ...] | None
)  # identity, size and time of a history and its log; None: it is missing

ProjectKey = tuple[str, str]  # the name of the project, the path of its history


class _StoredProject(Registration, frozen=True, kw_only=True):
    """The content of a project's file.

    `ended`: the counters of processes that have ended. `joined_after`, `before`: if the checkout joined others, the
    last run and the totals of its history at that moment. `missing_since_timestamp_seconds`: when a start of `serve`
    first found no history, 0 if the last one found it.
    """

    ended: tuple[Sample, ...] = ()
    joined_after: LastRun | None = None
    before: tuple[Sample, ...] = ()
    missing_since_timestamp_seconds: float = 0.0


_decoder = msgspec.json.Decoder(_StoredProject)


class StoredValues(Struct, frozen=True, kw_only=True):
    """The values of a history: totals, last values, and CPU totals of running stages by (lane, stage).

    `last_run` tells it apart from another history at its path.
    """

    totals: Totals = Totals()
    last: LastValues = LastValues()
    shown_cpu: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    last_run: LastRun | None = None


class CheckoutState(Enum):
    """What a checkout contributes to the sum of its project."""

    AWAITED = "nothing: `serve` has restarted, and its history has not been read since"
    LEFT_OUT = "nothing: as before, but a page has shown the others without it"
    COUNTED = "its values"
    MOVED = "nothing: its history is at the path of another checkout, which has its values"


class Joining(Struct, frozen=True):
    """The last run of a checkout that does not count, since it joined others then, and the totals up to it."""

    after: LastRun
    before: Totals


class RegisteredProject:
    """A checkout of a project, with the last values that could be read from its history.

        restored ────────> AWAITED ──a page has the others without it──┐
                              │                                        v
                              │ read                               LEFT_OUT <── new beside others, or a new history
                              v                                        │        at the path of a moved one
        new, the first ──> COUNTED <──read: only later runs count──────┘
                              │ its history is at another path
                              v
                            MOVED ──next page──> merged into the other checkout, and forgotten

        values.totals = totals in the history + _past

    `_past` keeps the sum of a project's checkouts from falling, which `increase()` would take for a reset, and from
    counting a run twice:

        the history at the path is                              _past becomes
        the same one, with more runs                            the same as before
        another one, as after `git clean`                       the values so far
        that of a deleted checkout, which was moved here        the values so far, and the other's `_past`
        one with runs of another checkout, a copy of one, or    the values so far, less the totals in it
        an earlier state, as a CI job restores it
        that of a checkout which a sum has left out             less the totals in it

    In the last two cases only later runs count (`joining`).
    """

    def __init__(self, registration: Registration) -> None:
        self.registration = registration
        self._lock = Lock()  # held while the values change: for a page, or at the start of a run
        self.state = CheckoutState.COUNTED
        self.is_missing = False  # whether it has had no history since `serve` started, as on a disk not mounted yet
        self.missing_since_timestamp_seconds = 0.0
        self.ended: LiveSeries = {}  # counters of processes that have ended; the mapping is replaced, never changed
        self.values = StoredValues()
        self.joining: Joining | None = None
        self.moved_to: RegisteredProject | None = None
        self.fault = ""
        self.must_store = False  # whether its file lacks a change
        self.revision = 0  # grows with each change of values or registration
        self._stamp: object = None
        self._past = Totals()
        self._run_ids: dict[str, None] = {}  # of its last runs that count

    @classmethod
    def restore(cls, stored: _StoredProject, *, is_missing: bool) -> RegisteredProject:
        """Build a project of an earlier `serve`. It is not in any sum until its history has been read."""
        project = cls(Registration(**{name: getattr(stored, name) for name in Registration.__struct_fields__}))
        project.ended = _read_samples(stored.ended)
        if stored.joined_after is not None:
            before = _build_totals(_read_samples(stored.before))
            project.joining = Joining(stored.joined_after, before)
            project.values, project._past = StoredValues(last_run=stored.joined_after), _negate(before)
        project.state, project.is_missing = CheckoutState.AWAITED, is_missing
        return project

    @property
    def key(self) -> ProjectKey:
        return self.registration.project, self.registration.history

    @property
    def is_known(self) -> bool:
        """Whether its values are those of a history that has been read, or of none."""
        return self.state in (CheckoutState.COUNTED, CheckoutState.MOVED)

    def refresh(self, checkouts: Iterable[RegisteredProject] = ()) -> None:
        """Read the history if it has changed. Never raises: if it can't be read, the last values stay.

        It is no fault if the whole checkout was deleted, as in CI jobs, or if there has been no history since `serve`
        started. One of `checkouts` that was moved here gives its values to this one.
        """
        with self._lock:
            if self.state is not CheckoutState.MOVED:
                self._refresh(checkouts)

    def _refresh(self, checkouts: Iterable[RegisteredProject]) -> None:
        path = Path(self.registration.history)
        stamp = _stamp(path)
        if stamp is not None and stamp == self._stamp:
            return
        self.is_missing = stamp is None and not self.is_known and _is_deleted(path)
        if self.is_missing or (stamp is None and _is_deleted(self.registration.root)):  # a scrape checks each
            self._stamp, self.fault = None, ""
            return
        try:
            self._read(path, [each for each in checkouts if each is not self])
            fault = ""
        except (HistoryError, OSError) as error:
            self._stamp, fault = None, "" if _is_deleted(self.registration.root) else str(error)
        except Exception as error:  # the boundary of a project: the page has others
            log.debug("a history could not be read", exc_info=error)
            self._stamp, fault = None, f"{type(error).__name__}: {error}"
        if fault and fault != self.fault:
            log.warning("cannot read a history", extra={"project": self.registration.project, "err": fault})
        self.fault = fault

    def read_before_run(self, checkouts: Iterable[RegisteredProject]) -> None:
        """Read the history at the start of a run, if it has other runs than before. Never raises.

        If it is an earlier state, as a CI job restores it from a cache, or has runs of another checkout, only this run
        and later ones count. So does the first run of a checkout that a sum has left out.
        """
        if self.state is CheckoutState.LEFT_OUT:
            self.refresh(checkouts)
            return
        path = Path(self.registration.history)
        stamp = _stamp(path)
        if stamp is None or stamp == self._stamp:
            return
        try:
            with closing(_open_history(path, self.registration.project)) as history:
                is_known = history.load_last_run() == self.values.last_run
        except (HistoryError, OSError):  # the next page reports it
            return
        if not is_known:
            self.refresh(checkouts)

    def _read(self, path: Path, others: Sequence[RegisteredProject]) -> None:
        known = self.values.last_run
        found = _read_unchanged(path, self.registration.project, known)
        if found is None:
            self._stamp = None
            return
        moved = None if known is not None and found.is_same else _find_moved(path, self.registration.project, others)
        joins = moved is None and self._must_join(found, others)
        if joins or moved is not None or not found.is_same:
            self._past, self.joining = self.values.totals, None
        if moved is not None:
            self._past, self.joining = sum_totals((self._past, moved._past)), moved.joining
            self.must_store = True
        if joins and found.values.last_run is not None:
            self.joining, self.must_store = Joining(found.values.last_run, found.values.totals), True
            self._past = sum_totals((self._past, _negate(found.values.totals)))
        else:
            self._run_ids |= dict.fromkeys(found.run_ids)
            for run_id in tuple(self._run_ids)[:-_MOST_RUN_IDS]:
                del self._run_ids[run_id]
        self.values, self._stamp = _add_past(found.values, self._past), found.stamp
        self.state = CheckoutState.COUNTED
        if self.missing_since_timestamp_seconds:
            self.missing_since_timestamp_seconds, self.must_store = 0.0, True
        self.revision += 1
        if moved is not None:
            moved.move_to(self)

    def _must_join(self, found: _Reading, others: Sequence[RegisteredProject]) -> bool:
        """Return whether only later runs count: this checkout or others have had those in the history."""
        checkouts = others if found.is_same else (self, *others)
        return found.values.last_run is not None and (
            self.state is CheckoutState.LEFT_OUT
            or found.is_earlier
            or any(not each._run_ids.keys().isdisjoint(found.run_ids) for each in checkouts)
        )

    def move_to(self, other: RegisteredProject) -> None:
        """Note that another checkout has the values by now: they would count twice."""
        self.state, self.moved_to = CheckoutState.MOVED, other
        self.values, self._past, self._run_ids, self.joining = StoredValues(), Totals(), {}, None
        self.revision += 1

    def will_count(self) -> bool:
        """Return whether the runs of this checkout are in the sum, or will be with the next page."""
        if self.state is CheckoutState.COUNTED:
            return self.values.last_run is not None or not _is_deleted(self.registration.root)
        return self.state is not CheckoutState.MOVED and not self.is_missing

    def is_deleted(self) -> bool:
        """Return whether the checkout and its history are gone."""
        return _is_deleted(self.registration.root) and _is_deleted(self.registration.history)

    def absorb(self, earlier: RegisteredProject) -> None:
        """Add the values of another checkout, which was registered before this one and is about to be forgotten."""
        with self._lock:
            totals = sum_totals((earlier.values.totals, self.values.totals))
            self._past = sum_totals((earlier.values.totals, self._past))
            both = (earlier.values, self.values)
            self.values = replace(self.values, totals=totals, last=merge_last(both), shown_cpu=sum_shown_cpu(both))
            self.ended = keep_counters(earlier.ended, self.ended)
            self._run_ids = {**earlier._run_ids, **self._run_ids}
            lanes = {lane.lane: lane for lane in (*earlier.registration.lanes, *self.registration.lanes)}
            bounds = {**earlier.registration.bounds, **self.registration.bounds}
            self.registration = replace(self.registration, lanes=tuple(lanes.values()), bounds=bounds)
            self.revision += 1

    def find_owner(self) -> RegisteredProject:
        """Return the checkout that has the values of a moved one, which may have been moved again."""
        return self if self.moved_to is None else self.moved_to.find_owner()

    def begin_again(self) -> None:
        """Continue as a new checkout beside the one to whose path the history was moved."""
        self.find_owner().absorb(self)
        self.state, self.moved_to, self.ended = CheckoutState.LEFT_OUT, None, {}
        self.revision += 1


def refresh_checkouts(checkouts: Sequence[RegisteredProject]) -> None:
    """Read the histories of a project's checkouts, for the sum of those that are known then.

    A checkout that is left out of this sum joins the others when it returns: its earlier runs would count as new.
    """
    for checkout in checkouts:
        checkout.refresh(checkouts)
    if any(checkout.is_known for checkout in checkouts):
        for checkout in checkouts:
            if checkout.state is CheckoutState.AWAITED:
                checkout.state = CheckoutState.LEFT_OUT


def merge_last(values: Sequence[StoredValues]) -> LastValues:
    """Return each lane's last values, from the checkout in which it ended last, and the latest of all timestamps.

    A run that fails leaves the time of its checkout's last success as it was, and another one may have succeeded since.
    """
    ended: dict[str, float] = {}
    gauges: dict[SeriesKey, float] = {}
    for each in values:
        lanes = {
            labels[0]: number
            for (name, labels), number in each.last.gauges.items()
            if name == families.RUN_LAST_COMPLETION.name
        }
        newer = {lane for lane, moment in lanes.items() if moment >= ended.get(lane, 0.0)}
        ended.update((lane, lanes[lane]) for lane in newer)
        for key, number in each.last.gauges.items():
            if key[0].endswith(_TIMESTAMP):
                gauges[key] = max(number, gauges.get(key, 0.0))
            elif key not in gauges or (key[1][:1] and key[1][0] in newer):
                gauges[key] = number
    return LastValues(gauges=gauges)


def sum_shown_cpu(values: Sequence[StoredValues]) -> dict[Labels, float]:
    """Return the CPU totals over all checkouts, including running attempts."""
    places = {place for each in values for place in each.shown_cpu}
    name = families.STAGE_CPU.name
    return {
        place: sum(max(each.shown_cpu.get(place, 0.0), each.totals.counters.get((name, place), 0.0)) for each in values)
        for place in places
    }


def _find_moved(path: Path, project: str, others: Iterable[RegisteredProject]) -> RegisteredProject | None:
    """Return the deleted checkout whose history is now the one at a path. Raises HistoryError.

    A copy of it may have been deleted, too: the history continues that of the one with the latest run.
    """
    deleted = [
        (each.values.last_run.sequence, each)
        for each in others
        if each.state is not CheckoutState.LEFT_OUT  # nothing of it is in the sum
        and each.values.last_run is not None
        and _is_deleted(each.registration.root)
    ]
    if not deleted:
        return None
    with closing(_open_history(path, project)) as history:
        for _, each in sorted(deleted, key=itemgetter(0), reverse=True):
            if each.values.last_run is not None and history.has_held_run(each.values.last_run):
                return each
    return None


def _add_past(values: StoredValues, past: Totals) -> StoredValues:
    if not past.counters and not past.histograms:
        return values
    name = families.STAGE_CPU.name
    return replace(
        values,
        totals=sum_totals((past, values.totals)),
        shown_cpu={place: past.counters.get((name, place), 0.0) + cpu for place, cpu in values.shown_cpu.items()},
    )


def _negate(totals: Totals) -> Totals:
    histograms = {
        key: HistogramTotal(buckets=tuple(-count for count in total.buckets), sum=-total.sum)
        for key, total in totals.histograms.items()
    }
    return Totals(counters={key: -number for key, number in totals.counters.items()}, histograms=histograms)


def _open_history(path: Path, project: str) -> History:
    return History(path, project=project, clock=SystemClock(), for_reading=True)


def _is_deleted(path: str | Path) -> bool:
    """Return whether a checkout or history is gone; False if that is unknown, as without permission for its parent."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


class _Reading(Struct, frozen=True, kw_only=True):
    """The values of one moment, and the history's stamp then.

    `is_same`: it has held the run that was known. `is_earlier`: it has not, but runs from before it. `run_ids`: the ids
    of its last runs, without those up to the known one.
    """

    values: StoredValues
    stamp: _Stamp
    is_same: bool
    is_earlier: bool
    run_ids: tuple[str, ...]


def _read_unchanged(path: Path, project: str, known: LastRun | None) -> _Reading | None:
    """Return the values of one moment; `known` is the last run at the reading before.

    A history with a log is read in a transaction. A history without one is read without locks, and a run may change it
    meanwhile. Returns None if it changed during each try and may be another history: a half-written change could lack
    the run.
    """
    for left in reversed(range(_TRIES)):
        before = _stamp(path)
        with closing(_open_history(path, project)) as history:
            values = StoredValues(
                totals=history.load_totals(),
                last=history.load_last_values(),
                shown_cpu=history.load_shown_cpu(),
                last_run=history.load_last_run(),
            )
            is_same = known is None or history.has_held_run(known)
            is_earlier = known is not None and not is_same and history.has_run_from_before(known)
            after = known.sequence if known is not None and is_same else 0
            run_ids = history.load_run_ids(after=after, limit=_MOST_RUN_IDS)
        now = _stamp(path)
        if now == before or _has_kept_log(before, now) or (is_same and not left):
            stamp = now if now == before and _is_old(path) else None
            return _Reading(values=values, stamp=stamp, is_same=is_same, is_earlier=is_earlier, run_ids=run_ids)
    return None


def _has_kept_log(before: _Stamp, after: _Stamp) -> bool:
    """Return whether the history had the same log throughout."""
    if before is None or after is None or not len(before) == len(after) == 2:
        return False
    (identity, size, _), (identity_after, _, _) = before[1], after[1]
    return identity == identity_after and size > 0


def _stamp(path: Path) -> _Stamp:
    """Return the identities and times of a history and its log; None without a history."""
    found = []
    for part in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = part.stat()
        except OSError:
            if part == path:
                return None
            continue
        found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _is_old(path: Path) -> bool:
    """Return whether a further change of the history would change its stamp."""
    now = time.time_ns()
    newest = max(mtime for _, _, mtime in _stamp(path) or ((0, 0, now),))
    # A time far in the future dates from before the clock was set back.
    return newest < now - _TICK_NANOSECONDS or newest > now + _AHEAD_NANOSECONDS


class Registry:
    """The registered projects. If the disk is full, only a restart loses some."""

    def __init__(self, folder: Path, *, most_deleted: int = _MOST_DELETED) -> None:
        """Load this user's registrations. Skip other files, and forget projects that lacked a history for a week.

        `most_deleted`: how many deleted checkouts of each project are known apart.
        """
        self._folder = folder
        self._most_deleted = most_deleted
        self.projects: dict[ProjectKey, RegisteredProject] = {}
        self._unstored: set[ProjectKey] = set()  # those whose last write failed
        for path in sorted(folder.glob(f"*{_SUFFIX}"))[:_MOST_PROJECTS]:
            stored = _read_file(path)
            if stored is None:
                continue
            is_missing, now = _is_deleted(stored.history), time.time()
            since = (stored.missing_since_timestamp_seconds or now) if is_missing else 0.0
            if is_missing and since < now - _KEPT_SECONDS:
                log.info("forgot a project without a history", extra={"project": stored.project})
                with suppress(OSError):
                    path.unlink()
                continue
            project = RegisteredProject.restore(stored, is_missing=is_missing)
            project.missing_since_timestamp_seconds = since
            self.projects[project.key] = project
            if since != stored.missing_since_timestamp_seconds:
                self._write(project)

    def register(self, registration: Registration) -> RegisteredProject:
        """Add a project before a run of it begins, or renew its label sets without dropping lanes of other runs."""
        key = (registration.project, registration.history)
        checkouts = [each for each in self.projects.values() if each.registration.project == registration.project]
        project = self.projects.get(key)
        if project is None:
            project = RegisteredProject(registration)
            if any(each.will_count() for each in checkouts) and _stamp(Path(registration.history)) is not None:
                project.state = CheckoutState.LEFT_OUT
                project.refresh(checkouts)
            self.projects[key] = project
        else:
            if project.state is CheckoutState.MOVED:
                project.begin_again()
            project.read_before_run(checkouts)
            known = project.registration
            lanes = {lane.lane: lane for lane in (*known.lanes, *registration.lanes)}
            bounds = {**known.bounds, **registration.bounds}
            registration = replace(registration, lanes=tuple(lanes.values()), bounds=bounds)
            if registration == known and not project.must_store:
                return project
            project.registration = registration
        project.revision += 1
        self._write(project)
        return project

    def keep_counters(self, project: RegisteredProject, series: LiveSeries) -> None:
        """Keep the counters of a process that has ended, for the next `serve`, too.

        Without them, sums would fall at a restart, and `rate()` would count the processes that continue again.
        """
        ended = keep_counters(project.ended, series)
        if ended != project.ended:
            project.ended = ended
            self._write(project)

    def merge_deleted(self, busy: Collection[RegisteredProject]) -> None:
        """Add moved checkouts, and the oldest deleted ones of each project, to others: CI jobs may make many.

        `busy` are those that a run has. If such a checkout returns, it counts as a new one. Call it while no page is
        made: one with both would show too much.
        """
        by_name: dict[str, list[RegisteredProject]] = {}
        for project in tuple(self.projects.values()):
            if project.state is not CheckoutState.MOVED:
                by_name.setdefault(project.registration.project, []).append(project)
            elif project not in busy:
                self._merge(project, project.find_owner())
        for checkouts in by_name.values():
            if len(checkouts) <= self._most_deleted:
                continue
            deleted = [each for each in checkouts if each.is_known and each not in busy and each.is_deleted()]
            surplus = len(deleted) - self._most_deleted
            for earlier, later in pairwise(deleted[: surplus + 1] if surplus > 0 else ()):
                self._merge(earlier, later)

    def _merge(self, project: RegisteredProject, owner: RegisteredProject) -> None:
        """Add a checkout to another one, and forget it once the other one is stored."""
        owner.absorb(project)
        project.move_to(owner)
        del self.projects[project.key]
        self._write(owner)
        with suppress(OSError):
            self._find_path(project.key).unlink()

    def store_changes(self) -> None:
        """Write the registrations whose files lack a change that a read has found, or that a full disk has refused."""
        for project in self.projects.values():
            if project.must_store:
                self._write(project)

    def store_all(self) -> None:
        """Write all registrations again, as after a removal of their folder."""
        for project in self.projects.values():
            self._write(project)

    def _write(self, project: RegisteredProject) -> None:
        project.must_store = False  # first: a page that reads the history meanwhile may set it again
        registration = project.registration
        joining = project.joining
        before: LiveSeries = {} if joining is None else {**joining.before.counters, **joining.before.histograms}
        stored = _StoredProject(
            **asdict(registration),
            ended=_build_samples(project.ended),
            joined_after=None if joining is None else joining.after,
            before=_build_samples(before),
            missing_since_timestamp_seconds=project.missing_since_timestamp_seconds,
        )
        content = encode(stored)
        try:
            files.replace_file(self._find_path(project.key), content, mode=files.PRIVATE_FILE)
        except OSError as error:
            if project.key not in self._unstored:  # logged once, until the disk has room again
                log.warning(
                    "a registration was not stored: after a restart the project is missing until its next run",
                    extra={"project": registration.project, "err": error.strerror or str(error)},
                )
            self._unstored.add(project.key)
            project.must_store = True
        else:
            self._unstored.discard(project.key)

    def _find_path(self, key: ProjectKey) -> Path:
        name = hashlib.sha256(os.fsencode("\0".join(key))).hexdigest()[:24]
        return self._folder / f"{name}{_SUFFIX}"


def _build_samples(series: LiveSeries) -> tuple[Sample, ...]:
    return tuple(build_sample(key, value) for key, value in series.items())


def _read_samples(samples: Iterable[Sample]) -> LiveSeries:
    found = ((sample, get_value(sample)) for sample in samples)
    return {(sample.family, sample.labels): value for sample, value in found if value is not None}


def _build_totals(series: LiveSeries) -> Totals:
    """Return totals, without histograms of a version with other buckets."""
    histograms = {key: value for key, value in series.items() if isinstance(value, HistogramTotal)}
    return Totals(
        counters={key: value for key, value in series.items() if not isinstance(value, HistogramTotal)},
        histograms={key: value for key, value in histograms.items() if len(value.buckets) == _BUCKETS},
    )


def _read_file(path: Path) -> _StoredProject | None:
    """Return a registration; log a line and return None if the file is not one of this user's registrations."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_nlink > 1:
            raise ValueError("not a regular file of this user")
        content = files.read_start(path, limit_bytes=_LONGEST_BYTES)
        stored = _decoder.decode(content)
        if fault := find_fault(stored):
            raise ValueError(fault)
    except (OSError, ValueError, MsgspecError, RecursionError) as error:
        log.warning("ignored a file that is not a registration", extra={"path": str(path), "err": str(error)})
        return None
    return stored
