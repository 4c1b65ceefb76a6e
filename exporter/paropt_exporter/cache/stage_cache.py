"""The cache of a run: looks up the tasks of each stage before it starts, and keeps the results of those that ran."""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import BadEntry, Entry, OutputFile
from paropt_exporter.cache.file_states import FileStates, UnusableFile
from paropt_exporter.cache.keys import KeyLocks, TaskKey
from paropt_exporter.cache.misses import Miss, MissExplainer, Notes, explain_missing_leftover
from paropt_exporter.cache.output_files import (
    NotRestored,
    find_matching,
    find_missing_leftover,
    find_outputs,
    keep_outputs,
    list_leftovers,
    restore_outputs,
)
from paropt_exporter.cache.result_store import SIZE_VARIABLE, Store, StoreUnusable
from paropt_exporter.cache.stage_keys import (
    KeptTask,
    StagePart,
    StageReader,
    StageReading,
    group_parts,
    list_outputs,
    miss_all,
    sum_up,
)
from paropt_exporter.clock import Clock
from paropt_exporter.engine.interfaces import KeptResult, StageLookup
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import PlannedStage, PlannedTask

if TYPE_CHECKING:
    from paropt_exporter.cache.remote import RemoteCache
    from paropt_exporter.cache.traced_results import TracedResults

log = logging.getLogger(__name__)

Report = Callable[[StageLookup], None]

WAIT_SECONDS = 3600.0  # for another run of the same task; then it runs here too
_END_SECONDS = 60.0  # for the last writes of a run
_LOOKUP_END_SECONDS = 1.0  # for a lookup whose run has ended
# How often results of items are kept before their stage has ended: a killed exporter loses so much of them. Keeping
# compares all inputs of the stage, and takes a twentieth of the time at most.
_KEEP_SECONDS, _KEEP_RATIO = 10.0, 20.0


class _Lookup(Struct):
    """A stage at the moment before it ran, and the results that wait to be kept, some of them before its end.

    `outputs`: the files that were in the places of the outputs of the tasks that run.
    """

    reading: StageReading
    outputs: Mapping[str, os.stat_result]
    keep_seconds: float
    parts: Mapping[int, Sequence[StagePart]]  # by the index of their task
    pending: list[tuple[StagePart, KeptResult]] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)  # the files of the project that its traced tasks read


class StageCache:
    """The results of earlier runs, for one run at a time.

    ```
    look_up -> [thread: read inputs -> keys -> store] -> report: each task is skipped, or runs for a reason
    keep    -> results wait -> flush -> [thread: inputs unchanged? -> outputs and result into the store] -> done
    ```
    Guarantees: all methods return at once, except `end_run`; a result is kept only if its task succeeded and no input
    changed between the lookup and the moment after its end; errors of the disk cost a miss and one line, never a run; a
    lookup that takes long (a slow disk, a huge input) delays no end of a run: its thread is left behind.
    """

    def __init__(
        self,
        root: Path,
        store: Store,
        *,
        project: str,
        environ: Mapping[str, str],
        clock: Clock,
        say: Callable[[str], None],
        reads: bool = True,
        remote: RemoteCache | None = None,
        own_files: Sequence[Path] = (),
        read_clock_ns: Callable[[], int] = time.time_ns,
        find_refusal: Callable[[], str] | None = None,
    ) -> None:
        """`reads` False: every task runs, and its result replaces the one in the store. `say` shows a line.

        `remote`: another cache, which is asked for results that the store lacks. `own_files`: those that this process
        writes, which are traced inputs only if a task reads them. `read_clock_ns`: the clock of files. `find_refusal`
        returns why commands can't be traced, or "".
        """
        self._read_clock_ns = read_clock_ns
        self._find_refusal = find_refusal
        self._remote = remote
        self._own_files = own_files
        self._last_output = ("", "")
        self._root = root
        self._store = store
        self._environ = environ
        self._clock = clock
        self._say = say
        self._reads = reads
        self._notes = Notes(store.last_folder, project)
        self._explainer = MissExplainer(store)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = threading.Event()  # of this run
        self._lookup_of: threading.Event | None = None  # the run of the lookup in progress
        self._lookups: dict[str, _Lookup] = {}
        self._states: FileStates | None = None
        self._reader: StageReader | None = None
        self._locks: KeyLocks | None = None
        self._unusable = ""  # why this run does not use the store
        self._traced: TracedResults | None = None
        self._expected: dict[StagePart, Entry] = {}  # the results that would have been hits, in shadow mode
        self._refusal: str | None = None  # why nothing can be traced; None: not known yet

    # The engine's interface

    def begin_run(self) -> None:
        """Begin a run; nothing of an earlier one is pending."""
        self._lookups.clear()
        self._expected.clear()
        self._given_up = threading.Event()
        if self._remote is not None:
            self._remote.begin_run()

    def look_up(self, stage: PlannedStage, report: Report) -> None:
        given_up = self._given_up
        self._put(lambda: self._look_up(stage, report, given_up, self._find_results))

    def keep(self, stage: PlannedStage, task: PlannedTask, result: KeptResult) -> None:
        self._put(lambda: self._add_pending(stage, task, result))

    def flush(self, stage: PlannedStage, done: Callable[[], None]) -> None:
        self._put(lambda: self._flush(stage.name, done))

    def end_run(self) -> None:
        """Wait for the writes of the run, release its locks, and make room in the store."""
        self._given_up.set()
        if self._thread is None:
            return
        ended = threading.Event()
        self._put(lambda: self._end_run(ended.set))
        if not ended.wait(_LOOKUP_END_SECONDS) and self._lookup_of is self._given_up:
            self._abandon_thread()
        elif not ended.wait(_END_SECONDS):
            log.warning("the cache is still being written", extra={"seconds": _END_SECONDS})

    def close(self) -> None:
        """End the thread."""
        self._given_up.set()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(_END_SECONDS)
            self._thread = None
        if self._locks is not None:
            self._locks.close()
            self._locks = None

    # Below: on the cache's thread

    def _put(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name="paropt-cache", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _abandon_thread(self) -> None:
        """Leave a thread behind that is in a lookup; it touches nothing of a later run, since its own is given up."""
        for lookup in [*self._lookups.values()]:
            self._release_all(lookup)  # the next run of this process would wait for them
        self._jobs, self._thread = queue.SimpleQueue(), None
        self._lookups, self._states, self._reader, self._traced = {}, None, None, None
        self._expected = {}

    def _look_up(
        self, stage: PlannedStage, report: Report, given_up: threading.Event, find: Callable[..., StageLookup | None]
    ) -> None:
        if given_up.is_set():
            return
        self._lookup_of = given_up
        try:
            found = find(stage, report, given_up)
        except Exception as error:  # a fault of the cache must not end the run, nor hang it
            log.exception("the cache failed: the stage runs", extra={"stage": stage.name})
            found = miss_all(stage, Miss(CacheReason.STORE, f"the cache failed: {error}"))
        if self._lookup_of is given_up:
            self._lookup_of = None
        if found is not None and not given_up.is_set():
            report(found)

    def _find_results(self, stage: PlannedStage, report: Report, given_up: threading.Event) -> StageLookup | None:
        """Return the stage's results and misses; None: `report` gets them later, or never, as the run has ended."""
        if (why := self._prepare()) is not None:
            return miss_all(stage, why)
        assert self._reader is not None
        stage = self._choose_inputs(stage)
        outputs = self._list_output_locks(stage)
        if outputs and not self._acquire(outputs):
            self._wait(stage, outputs, report, given_up)
            return None
        wanted: list[str] = []
        try:
            reading = self._read(stage)
            if (why := self._reader.find_own_input(reading)) is not None:
                return miss_all(stage, why)
            found = self._load_results(reading, reading.parts)
            if reading.is_recorded and _list_missed(reading, found):
                reading, found = self._complete(reading, found)
            there = self._find_outputs(reading, found)
            if given_up.is_set():
                return None
            wanted = _list_missed(reading, found)
        except UnusableFile as error:
            return miss_all(stage, Miss(CacheReason.UNCACHEABLE, str(error)))
        finally:
            if not wanted:
                self._release(outputs)
        self._lookups[stage.name] = self._begin_lookup(reading, there)
        if not wanted:
            return sum_up(reading, found)
        if self._acquire(wanted):
            return self._look_again(reading, found)
        self._wait(stage, wanted, report, given_up, held=outputs)
        return None

    def _list_output_locks(self, stage: PlannedStage) -> tuple[str, ...]:
        """Return the lock on the outputs of a stage in this checkout, if it has some.

        With other variables or arguments its key is another one, but its files are the same: what two runs at once
        write or restore would be mixed in one result.
        """
        if not stage.outputs and stage.output_file is None:
            return ()
        return (hash_bytes(os.fsencode(f"outputs\0{os.path.realpath(self._root)}\0{stage.name}")),)

    def _wait(
        self,
        stage: PlannedStage,
        wanted: Sequence[str],
        report: Report,
        given_up: threading.Event,
        held: Sequence[str] = (),
    ) -> None:
        """Look the stage up again once another run has ended it; `held`: the locks of it that are there already."""
        self._say(f"{stage.name}: waits for another run of it")
        if given_up.is_set():
            self._release(held)
            return
        waiter = threading.Thread(
            target=self._wait_for_other_run,
            args=(stage, wanted, held, report, given_up),
            name="paropt-cache-wait",
            daemon=True,
        )
        waiter.start()

    def _find_outputs(
        self, reading: StageReading, found: Mapping[StagePart, KeptTask | Miss]
    ) -> dict[str, os.stat_result]:
        """Return the files in the places of the outputs of tasks that run. Raises UnusableFile."""
        assert self._states is not None
        there: dict[str, os.stat_result] = {}
        for part, result in found.items():
            if isinstance(result, Miss):
                there.update(find_matching(self._states.folder, list_outputs(reading.stage, part.task, self._root)))
        return there

    def _begin_lookup(self, reading: StageReading, outputs: Mapping[str, os.stat_result]) -> _Lookup:
        keeps_items = reading.has_results_by_item and not reading.stage.traces_inputs
        keep_seconds = self._clock.monotonic() + _KEEP_SECONDS if keeps_items else math.inf
        return _Lookup(reading, outputs, keep_seconds, group_parts(reading.parts))

    def _release_all(self, lookup: _Lookup) -> None:
        """Unlock the keys and the outputs of a stage that has ended."""
        self._release((*lookup.reading.list_digests(), *self._list_output_locks(lookup.reading.stage)))

    def _read(self, stage: PlannedStage) -> StageReading:
        """Return the keys of a stage, without the list of its files if that is recorded and all results are there.

        Raises UnusableFile.
        """
        assert self._reader is not None
        if stage.traces_inputs:
            self._get_traced().refresh()
        if self._reads and not stage.traces_inputs:
            recorded = self._reader.read_recorded(stage)
            if recorded is not None and all(map(self._store.contains, recorded.list_digests())):
                return recorded
        return self._reader.read(stage)

    def _complete(
        self, recorded: StageReading, found: Mapping[StagePart, KeptTask | Miss]
    ) -> tuple[StageReading, dict[StagePart, KeptTask | Miss]]:
        """Return a whole reading, since tasks run whose results turned out to be damaged, with the results for it.

        Raises UnusableFile.
        """
        assert self._reader is not None
        reading = self._reader.read(recorded.stage)
        if reading.list_digests() != recorded.list_digests():  # a file has changed since
            return reading, self._load_results(reading, reading.parts)
        return reading, {new: found[old] for old, new in zip(recorded.parts, reading.parts, strict=True)}

    def _wait_for_other_run(
        self,
        stage: PlannedStage,
        wanted: Sequence[str],
        held: Sequence[str],
        report: Report,
        given_up: threading.Event,
    ) -> None:
        """On a thread of its own: look the stage up again once the other run has ended it."""
        assert self._locks is not None
        with suppress(OSError):  # without locks two runs may do the same work
            self._locks.acquire(wanted, given_up, WAIT_SECONDS)
        locked = (*wanted, *held)
        if given_up.is_set():
            self._release(locked)  # the next run of this process would wait for them
        else:
            self._put(lambda: self._look_up_alone(stage, locked, report, given_up))

    def _look_up_alone(
        self, stage: PlannedStage, locked: Sequence[str], report: Report, given_up: threading.Event
    ) -> None:
        """Look up a stage whose keys or outputs are locked."""
        if given_up.is_set():
            self._release(locked)
            return
        self._look_up(stage, report, given_up, lambda *_: self._find_results_alone(stage, locked))

    def _find_results_alone(self, stage: PlannedStage, locked: Sequence[str]) -> StageLookup:
        """Return the results of a stage whose inputs may have changed during the wait."""
        needed: set[str] = set()
        try:
            reading = self._read(stage)
            found = self._load_results(reading, reading.parts)
            there = self._find_outputs(reading, found)
            if missed := _list_missed(reading, found):
                needed = {*missed, *self._list_output_locks(stage)}
        except UnusableFile as error:
            return miss_all(stage, Miss(CacheReason.UNCACHEABLE, str(error)))
        finally:
            self._release(digest for digest in locked if digest not in needed)
        self._lookups[stage.name] = self._begin_lookup(reading, there)
        return sum_up(reading, found)

    def _choose_inputs(self, stage: PlannedStage) -> PlannedStage:
        """Return a stage with its declared inputs if it can't be traced."""
        if not stage.traces_inputs:
            return stage
        if self._refusal is None:
            from paropt_exporter.cache.traced_results import find_refusal  # here: few stages are traced

            self._refusal = (self._find_refusal or find_refusal)()
            if self._refusal:
                self._say(f"inputs: auto: nothing can be traced ({self._refusal}): the declared inputs count")
        return replace(stage, traces_inputs=False) if self._refusal else stage

    def _get_traced(self) -> TracedResults:
        if self._traced is None:
            from paropt_exporter.cache.traced_results import TracedResults  # here: it loads the executors

            assert self._states is not None
            self._traced = TracedResults(self._store, self._states, self._environ, self._own_files)
        return self._traced

    def _look_again(self, reading: StageReading, found: dict[StagePart, KeptTask | Miss]) -> StageLookup:
        """Look the misses up once more, now under their locks: another run may just have ended them."""
        missed = [part for part, result in found.items() if isinstance(result, Miss)]
        if self._reads and any(self._store.contains(reading.keys[part].digest) for part in missed):
            more = self._load_results(reading, missed)
            self._release(reading.keys[part].digest for part, result in more.items() if isinstance(result, KeptTask))
            found = {**found, **more}
        return sum_up(reading, found)

    def _prepare(self) -> Miss | None:
        """Open the store at the first lookup. Return why it can't be used, or None."""
        if self._states is None and not self._unusable:
            try:
                self._store.prepare()
                secret = self._store.read_secret()
            except StoreUnusable as error:
                self._unusable = str(error)
            else:
                index = self._store.index_folder / hash_bytes(os.fsencode(self._root))[:32]
                self._states = FileStates(os.fspath(self._root), index, read_clock_ns=self._read_clock_ns)
                self._reader = StageReader(self._root, self._states, self._environ, secret)
        return Miss(CacheReason.STORE, self._unusable) if self._unusable else None

    def _load_results(self, reading: StageReading, parts: Iterable[StagePart]) -> dict[StagePart, KeptTask | Miss]:
        return {part: self._load_result(reading, part) for part in parts}

    def _load_result(self, reading: StageReading, part: StagePart) -> KeptTask | Miss:
        if not self._reads:
            return Miss(CacheReason.DISABLED, "--no-cache")
        task, key = part.task, reading.keys[part]
        if not reading.stage.traces_inputs:
            return self._load_under(reading, task, key)
        from paropt_exporter.cache.traced_results import explain_traced_miss, explain_unproved

        traced = self._get_traced()
        candidates = traced.find_candidates(key)
        for strong in candidates.keys:
            if not self._store.contains(strong.key.digest) and not self._fetch(strong.key.digest):
                continue
            if candidates.proved:
                traced.mark_used(key, strong)
                found = self._load_under(reading, task, strong.key)
                if isinstance(found, KeptTask):
                    self._notes.forget_unkept(reading.stage.name, task.item)  # its weak key is that of other files, too
                return found
            if (fault := self._expect(part, strong.key)) is not None:
                return fault
            return explain_unproved(key, candidates.manifest.proofs, self._notes.load(reading.stage.name, task.item))
        notes = self._notes.load(reading.stage.name, task.item)
        return explain_traced_miss(key, candidates, notes, self._explainer)

    def _expect(self, part: StagePart, key: TaskKey) -> Miss | None:
        """Expect the result under a key from a task that runs to prove its traced inputs. A Miss: it doesn't count."""
        try:
            entry = self._store.load(key.digest)
        except BadEntry as error:
            self._store.remove(key.digest)
            return Miss(CacheReason.STORE, str(error))
        if entry is None:
            return None
        assert self._states is not None
        if (path := find_missing_leftover(self._states, entry)) is not None:
            return explain_missing_leftover(path)
        self._expected[part] = entry
        return None

    def _load_under(self, reading: StageReading, task: PlannedTask, key: TaskKey) -> KeptTask | Miss:
        """Return the result under a key, and restore its outputs."""
        assert self._states is not None
        entry: Entry | None = None
        try:
            entry = self._store.load(key.digest)
            if entry is None and self._fetch(key.digest):
                entry = self._store.load(key.digest)
            if entry is None:
                notes = self._notes.load(reading.stage.name, task.item)
                return self._explainer.explain(key, notes, reading.listings)
            missing = find_missing_leftover(self._states, entry)
            if missing is not None and self._fetch(key.digest):  # another host may have written this file
                entry = self._store.load(key.digest) or entry
                missing = find_missing_leftover(self._states, entry)
            if missing is not None:
                return explain_missing_leftover(missing)
            output = self._read_output(entry.output)
            patterns = list_outputs(reading.stage, task, self._root)
            restore_outputs(self._states, self._store, entry.files, patterns)
        except BadEntry as error:
            self._store.remove(key.digest)
            for digest in entry.list_blobs() if entry is not None else ():
                self._store.verify(digest)  # so that other damaged contents are not met one run after another
            reason = CacheReason.EVICTED if "evicted" in str(error) else CacheReason.STORE
            return Miss(reason, str(error))
        except (NotRestored, UnusableFile) as error:
            return Miss(CacheReason.STORE, str(error))
        self._store.mark_used(entry)
        return KeptTask(entry, output)

    def _read_output(self, digest: str) -> str:
        """Return a kept output. Many tasks print the same, often nothing: the last one is remembered."""
        if self._last_output[0] != digest:
            self._last_output = digest, self._store.read(digest).decode("utf-8", "replace")
        return self._last_output[1]

    def _fetch(self, digest: str) -> bool:
        """Download a result from the remote cache. Return whether the store has it now."""
        if self._remote is None or self._remote.failure:
            return False
        from paropt_exporter.cache.remote import RemoteFailed, ResultTooLarge

        try:
            return self._remote.fetch(digest, self._store, self._given_up)
        except (RemoteFailed, ResultTooLarge) as error:
            self._say(str(error))
        except StoreUnusable as error:
            log.debug("a result was not downloaded", extra={"err": str(error)})
        return False

    def _send(self, entry: Entry) -> None:
        if self._remote is None or self._remote.failure:
            return
        from paropt_exporter.cache.remote import RemoteFailed

        try:
            self._remote.send(entry, self._store)
        except RemoteFailed as error:
            self._say(str(error))

    def _acquire(self, digests: Sequence[str]) -> bool:
        """Lock keys or outputs; True also where the file system has no locks: then two runs may do the same work."""
        try:
            if self._locks is None:
                self._locks = KeyLocks(self._store.lock_path)
            return self._locks.try_acquire(digests)
        except OSError as error:
            log.debug("no locks in the cache", extra={"err": str(error)})
            return True

    def _release(self, digests: Iterable[str]) -> None:
        if self._locks is not None:
            with suppress(OSError):
                self._locks.release(digests)

    def _add_pending(self, stage: PlannedStage, task: PlannedTask, result: KeptResult) -> None:
        lookup = self._lookups.get(stage.name)
        if lookup is None:
            return
        reading = lookup.reading
        ran = [part for part in lookup.parts[task.index] if _covers(task, part.task)]
        rest_seconds = max(0.0, result.seconds - sum(result.item_seconds.values()))  # such as the start of the program
        for part in ran:
            if result.succeeded:
                seconds = result.item_seconds.get(part.task.item or "", 0.0) + rest_seconds / len(ran)
                lookup.pending.append((part, replace(result, seconds=seconds)))
            else:
                # Which items of a batch failed is known for a few programs only, and it has one exit code.
                why = "it failed in its last run" if len(ran) == 1 else "its batch failed in the last run"
                failed = Miss(CacheReason.FAILED, why)
                self._notes.add_unkept(stage.name, part.task.item, reading.keys[part].digest, failed)
                self._disprove(reading, part, self._expected.get(part))
                self._release([reading.keys[part].digest])
        if (began := self._clock.monotonic()) >= lookup.keep_seconds:
            self._keep_pending(lookup, ended=False)
            ended = self._clock.monotonic()
            lookup.keep_seconds = ended + max(_KEEP_SECONDS, _KEEP_RATIO * (ended - began))

    def _disprove(self, reading: StageReading, part: StagePart, expected: Entry | None) -> None:
        """Note that a task ended differently with the same traced inputs: a file that it reads was missed."""
        if expected is not None and self._traced is not None:
            self._store.remove(expected.key)
            with suppress(StoreUnusable):
                self._traced.disprove(reading.keys[part])

    def _flush(self, name: str, done: Callable[[], None]) -> None:
        lookup = self._lookups.pop(name, None)
        if lookup is not None:
            try:
                self._keep_pending(lookup)
            except Exception:  # the stage's result must not wait for the cache without a limit
                log.exception("the cache failed: no result is kept", extra={"stage": name})
            self._release_all(lookup)
        done()

    def _keep_pending(self, lookup: _Lookup, *, ended: bool = True) -> None:
        """Keep the results of parts whose files have not changed. Those of others stay until the stage has `ended`."""
        pending, lookup.pending = lookup.pending, []
        if not pending:
            return
        assert self._reader is not None
        if lookup.reading.stage.traces_inputs:
            self._get_traced().refresh()
        reading, name = lookup.reading, lookup.reading.stage.name
        changes = self._reader.find_changes(reading)
        edited = [part for part, _ in pending if part in changes]
        if not ended:
            lookup.pending = [(part, result) for part, result in pending if part in changes]
        elif edited:
            for part in edited:
                self._notes.add_unkept(name, part.task.item, reading.keys[part].digest, changes[part])
            first, *others = dict.fromkeys(changes[part].text for part in edited)
            self._say(f"{name}: not cached: {first}" + (f" (and {len(others)} more)" if others else ""))
        unchanged = [(part, result) for part, result in pending if part not in changes]
        for listing in {digest for part, _ in unchanged for digest in reading.keys[part].listings}:
            with suppress(StoreUnusable):  # the entry's own write fails too, and says so
                self._store.add(reading.listings[listing])
        fault: Miss | None = None
        for part, result in unchanged:
            if reading.stage.traces_inputs:
                kept = self._keep_traced(lookup, part, result)
            else:
                kept = self._keep_result(lookup, part, result, reading.keys[part])
            if isinstance(kept, Miss):
                fault = fault or kept
                if kept.reason is CacheReason.STORE:  # such as a full disk: the others could not be kept either
                    break
        if fault is not None:
            self._say(f"{name}: not cached: {fault.text}")
        if lookup.reads:
            self._notes.save_reads(name, lookup.reads)

    def _keep_traced(self, lookup: _Lookup, part: StagePart, result: KeptResult) -> Entry | Miss:
        """Put the result of a traced task into the store."""
        from paropt_exporter.cache.traced_results import PROOFS

        traced = self._get_traced()
        stage, weak = lookup.reading.stage, lookup.reading.keys[part]
        expected = self._expected.get(part)
        try:
            key = traced.find_key(stage, weak, result.trace)
            if isinstance(key, Miss):
                self._notes.add_unkept(stage.name, part.task.item, weak.digest, key)
                return key
            lookup.reads |= traced.list_read_files(key)
            kept = self._keep_result(lookup, part, result, key.key, expected)
            if isinstance(kept, Miss):
                return kept
            if expected is not None and expected.files != kept.files:
                self._disprove(lookup.reading, part, expected)
                other = min(file.path for file in {*expected.files} ^ {*kept.files})
                why = Miss(CacheReason.UNCACHEABLE, f"with the same inputs it wrote another {other} than before")
                self._notes.add_unkept(stage.name, part.task.item, weak.digest, why)
                return why
            proofs = traced.find_candidates(weak).manifest.proofs
            traced.save(weak, key, proofs=min(PROOFS, proofs + 1) if expected is not None else proofs)
        except StoreUnusable as error:
            return Miss(CacheReason.STORE, str(error))
        return kept

    def _keep_result(
        self, lookup: _Lookup, part: StagePart, result: KeptResult, key: TaskKey, expected: Entry | None = None
    ) -> Entry | Miss:
        """Put a result into the store under a key, or return why it could not be kept.

        `expected`: one under another key of the same task, which would have been a hit.
        """
        assert self._states is not None
        stage, task = lookup.reading.stage, part.task
        try:
            there = find_outputs(self._states.folder, list_outputs(stage, task, self._root))
            if (size_bytes := sum(state.st_size for _, state in there)) > self._store.limit_bytes:
                # To keep it would remove all other results, and then it.
                why = f"its outputs have {size_bytes:,} bytes, the whole cache {self._store.limit_bytes:,}"
                too_large = Miss(CacheReason.UNCACHEABLE, f"{why}: raise {SIZE_VARIABLE}")
                self._notes.add_unkept(stage.name, task.item, key.digest, too_large)
                return too_large
            outputs = keep_outputs(self._states, self._store, there)
            entry = Entry(
                key=key.digest,
                stage=stage.name,
                item=task.item,
                seconds=result.seconds,
                created_timestamp_seconds=self._clock.wall(),
                output=self._store.add(result.output.encode("utf-8", "replace")),
                files=outputs,
                components=key.components,
                listings=key.listings,
                leftovers=self._find_leftovers(key, outputs, list_leftovers(lookup.outputs, there), expected),
            )
            if not self._reads:
                self._compare(entry)
            self._store.save(entry)
        except UnusableFile as error:
            return Miss(CacheReason.UNCACHEABLE, str(error))
        except StoreUnusable as error:
            return Miss(CacheReason.STORE, str(error))
        self._notes.add_key(stage.name, task.item, key.digest)
        self._send(entry)
        return entry

    def _find_leftovers(
        self, key: TaskKey, outputs: Sequence[OutputFile], unwritten: set[str], expected: Entry | None
    ) -> tuple[str, ...]:
        """Return the outputs that no task with these inputs has written; `unwritten`: those that the last one did not.

        A compiler leaves the objects of unchanged sources as they are, but also those of sources that are gone.
        """
        equal = [expected]
        if unwritten:
            with suppress(BadEntry):
                equal.append(self._store.load(key.digest))
        for entry in equal:
            if entry is not None and entry.files == outputs:
                unwritten = unwritten.intersection(entry.leftovers)
        return tuple(file.path for file in outputs if file.path in unwritten)

    def _compare(self, entry: Entry) -> None:
        """Show a line if a task that ran again with an equal key has written other files: its key lacks something."""
        with suppress(BadEntry):
            before = self._store.load(entry.key)
            if before is not None and before.files != entry.files:
                paths = {file.path for file in {*before.files} ^ {*entry.files}}
                named = f"{entry.stage} {entry.item}" if entry.item is not None else entry.stage
                self._say(f"{named}: wrote another {min(paths)} than before, though nothing that it names has changed")

    def _end_run(self, done: Callable[[], None]) -> None:
        try:
            for name in [*self._lookups]:
                self._flush(name, lambda: None)
            # A process with --every lives for months: the next run tries again, and forgets the paths of this one.
            self._unusable, self._traced, self._explainer = "", None, MissExplainer(self._store)
            if self._states is not None:
                self._states.save()
            if self._store.written_bytes:
                self._store.prune_if_full()
        except Exception:  # the run has ended: its result stands
            log.exception("the cache failed at the end of the run")
        done()


def _work(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()


def _covers(task: PlannedTask, part: PlannedTask) -> bool:
    """Return whether a task that ran includes a part of its stage; a retried batch has fewer items."""
    return task.item == part.item or set(part.items) <= set(task.items)


def _list_missed(reading: StageReading, found: Mapping[StagePart, KeptTask | Miss]) -> list[str]:
    return [reading.keys[part].digest for part, result in found.items() if isinstance(result, Miss)]
