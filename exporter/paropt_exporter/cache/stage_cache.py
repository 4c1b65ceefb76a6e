"""The cache of a run: looks up the tasks of each stage before it starts, and keeps the results of those that ran."""

from __future__ import annotations

import logging
import os
import posixpath
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from paropt_exporter.cache.entry import BadEntry, Entry
from paropt_exporter.cache.file_states import FileStates, Snapshot, UnusableFile
from paropt_exporter.cache.inputs import (
    StageInputs,
    find_changed_file,
    find_own_input,
    list_written,
    read_inputs,
)
from paropt_exporter.cache.key_locks import KeyLocks
from paropt_exporter.cache.keys import StageKey, TaskKey, build_listing, hash_bytes
from paropt_exporter.cache.misses import Miss, Notes, explain_miss
from paropt_exporter.cache.outputs import NotRestored, find_outputs, keep_outputs, restore_outputs
from paropt_exporter.cache.store import Store, StoreUnusable
from paropt_exporter.cache.tools import Tools, find_environment
from paropt_exporter.clock import Clock
from paropt_exporter.engine.interfaces import CachedTask, KeptResult, StageLookup, UncachedTask
from paropt_exporter.events import CacheReason
from paropt_exporter.input_files import ITEM, fill_item
from paropt_exporter.plan.batches import build_task
from paropt_exporter.plan.stage_environment import build_command_environment, select_keyed_variables
from paropt_exporter.plan.structure import Commands, PlannedStage, PlannedTask

log = logging.getLogger(__name__)

WAIT_SECONDS = 3600.0  # for another run of the same task; then it runs here too
_END_SECONDS = 60.0  # for the last writes of a run


@dataclass(frozen=True, slots=True, eq=False)  # each is one object: the hash of a long command would cost more
class _Unit:
    """A part of a stage with a result of its own: a task, or one item of a batch. `owner` is the index of its task."""

    task: PlannedTask
    owner: int


@dataclass(slots=True)
class _Lookup:
    """A stage's keys and inputs at the moment before it ran, and the results that wait to be kept."""

    stage: PlannedStage
    units: tuple[_Unit, ...]
    inputs: StageInputs
    tools: Mapping[str, str]
    keys: Mapping[_Unit, TaskKey]
    pending: list[tuple[_Unit, KeptResult]] = field(default_factory=list)

    def list_digests(self) -> list[str]:
        return [key.digest for key in self.keys.values()]


@dataclass(frozen=True, slots=True)
class _Result:
    """A kept result, and its output."""

    entry: Entry
    output: str


class StageCache:
    """The results of earlier runs, for one run at a time.

    ```
    look_up -> [thread: read inputs -> keys -> store] -> report: each task is skipped, or runs for a reason
    keep    -> results wait -> flush -> [thread: inputs unchanged? -> outputs and result into the store] -> done
    ```
    Guarantees: all methods return at once, except `end_run`; a result is kept only if its task succeeded and no input
    changed between the lookup and the moment after its end; errors of the disk cost a miss and one line, never a run.
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
    ) -> None:
        """`reads` False: every task runs, and its result replaces the one in the store. `say` shows a line."""
        self._root = root
        self._store = store
        self._environ = environ
        self._clock = clock
        self._say = say
        self._reads = reads
        self._notes = Notes(store.last_folder, project)
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._given_up = threading.Event()
        self._lookups: dict[str, _Lookup] = {}
        self._listings: dict[str, bytes] = {}  # contents of lists of files by digest, of this run
        self._states: FileStates | None = None
        self._secret = b""
        self._locks: KeyLocks | None = None
        self._unusable = ""  # why the store is not used

    # The engine's interface

    def begin_run(self) -> None:
        """Begin a run; nothing of an earlier one is pending."""
        self._lookups.clear()
        self._listings.clear()
        self._given_up.clear()

    def look_up(self, stage: PlannedStage, report: Callable[[StageLookup], None]) -> None:
        self._put(lambda: self._look_up(stage, report))

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
        if not ended.wait(_END_SECONDS):
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
            self._thread = threading.Thread(target=self._work, name="paropt-cache", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _look_up(self, stage: PlannedStage, report: Callable[[StageLookup], None]) -> None:
        try:
            found = self._find_results(stage, report)
        except Exception as error:  # a fault of the cache must not end the run, nor hang it
            log.exception("the cache failed: the stage runs", extra={"stage": stage.name})
            found = _miss_all(stage, Miss(CacheReason.STORE, f"the cache failed: {error}"))
        if found is not None:
            report(found)

    def _find_results(self, stage: PlannedStage, report: Callable[[StageLookup], None]) -> StageLookup | None:
        """Return the stage's results and misses; None: `report` gets them later."""
        if (why := self._prepare()) is not None:
            return _miss_all(stage, why)
        try:
            lookup = self._read_stage(stage)
        except UnusableFile as error:
            return _miss_all(stage, Miss(CacheReason.UNCACHEABLE, str(error)))
        if (path := find_own_input(list_written(stage), lookup.inputs)) is not None:
            return _miss_all(stage, Miss(CacheReason.OWN_INPUT, f"it writes its own input {path}: leave that out"))
        self._lookups[stage.name] = lookup
        found = self._load_results(lookup, lookup.units)
        wanted = [lookup.keys[unit].digest for unit, result in found.items() if isinstance(result, Miss)]
        if not wanted:
            return _sum_up(lookup, found)
        if self._acquire(wanted):
            return self._look_again(lookup, found)
        self._say(f"{stage.name}: waits for another run of it")
        waiter = threading.Thread(
            target=self._wait_for_other_run,
            args=(stage, wanted, report),
            name="paropt-cache-wait",
            daemon=True,
        )
        waiter.start()
        return None

    def _wait_for_other_run(
        self, stage: PlannedStage, wanted: Sequence[str], report: Callable[[StageLookup], None]
    ) -> None:
        """On a thread of its own: look the stage up again once the other run has ended it."""
        assert self._locks is not None
        with suppress(OSError):  # without locks two runs may do the same work
            self._locks.acquire(wanted, self._given_up, WAIT_SECONDS)
        if not self._given_up.is_set():
            self._put(lambda: self._look_up_alone(stage, wanted, report))

    def _look_up_alone(self, stage: PlannedStage, wanted: Sequence[str], report: Callable[[StageLookup], None]) -> None:
        """Look up a stage whose keys are locked; its inputs may have changed during the wait."""
        try:
            lookup = self._lookups[stage.name] = self._read_stage(stage)
            found = self._load_results(lookup, lookup.units)
            needed = {lookup.keys[unit].digest for unit, result in found.items() if isinstance(result, Miss)}
            self._release(digest for digest in wanted if digest not in needed)
            summary = _sum_up(lookup, found)
        except UnusableFile as error:
            summary = _miss_all(stage, Miss(CacheReason.UNCACHEABLE, str(error)))
        report(summary)

    def _look_again(self, lookup: _Lookup, found: dict[_Unit, _Result | Miss]) -> StageLookup:
        """Look the misses up once more, now under their locks: another run may just have ended them."""
        missed = [unit for unit, result in found.items() if isinstance(result, Miss)]
        if self._reads and any(self._store.contains(lookup.keys[unit].digest) for unit in missed):
            more = self._load_results(lookup, missed)
            self._release(lookup.keys[unit].digest for unit, result in more.items() if not isinstance(result, Miss))
            found = {**found, **more}
        return _sum_up(lookup, found)

    def _prepare(self) -> Miss | None:
        """Open the store at the first lookup. Return why it can't be used, or None."""
        if self._states is None and not self._unusable:
            try:
                self._store.prepare()
                self._secret = self._store.read_secret()
            except StoreUnusable as error:
                self._unusable = str(error)
            else:
                index = self._store.index_folder / hash_bytes(os.fsencode(self._root))[:32]
                self._states = FileStates(os.fspath(self._root), index)
        return Miss(CacheReason.STORE, self._unusable) if self._unusable else None

    def _read_stage(self, stage: PlannedStage) -> _Lookup:
        """Return the keys of a stage's tasks as its inputs are now. Raises UnusableFile."""
        assert self._states is not None
        if stage.output_file is not None and len(stage.tasks) > 1:
            raise UnusableFile("the output of several tasks goes into one file: leave `file` out")
        tools = self._identify_tools(stage)
        units = _list_units(stage)
        inputs = self._read_inputs(stage, units)
        cwd = posixpath.relpath(os.fspath(stage.cwd), os.fspath(self._root))
        variables = select_keyed_variables(stage, self._environ)
        stage_key = StageKey(stage, cwd=cwd, variables=variables, tools=tools, secret=self._secret)
        shared = self._add_listing(inputs.shared)
        keys = {}
        for unit in units:
            own = inputs.own.get(unit.task.index)
            keys[unit] = stage_key.build(unit.task, (shared,) if own is None else (shared, self._add_listing(own)))
        return _Lookup(stage, units, inputs, tools, keys)

    def _read_inputs(self, stage: PlannedStage, units: Sequence[_Unit]) -> StageInputs:
        assert self._states is not None
        return read_inputs(self._states, stage, [unit.task for unit in units])

    def _identify_tools(self, stage: PlannedStage) -> dict[str, str]:
        assert self._states is not None
        variables = build_command_environment(stage, self._environ)
        steps = {step: None for task in stage.tasks if isinstance(task.work, Commands) for step in task.work.steps}
        return Tools(self._root, self._states).identify(
            steps, cwd=stage.cwd, path=variables.get("PATH", os.defpath), environment=find_environment(variables)
        )

    def _add_listing(self, snapshot: Snapshot) -> str:
        content = build_listing(snapshot)
        digest = hash_bytes(content)
        self._listings[digest] = content
        return digest

    def _load_results(self, lookup: _Lookup, units: Iterable[_Unit]) -> dict[_Unit, _Result | Miss]:
        return {unit: self._load_result(lookup, unit.task, lookup.keys[unit]) for unit in units}

    def _load_result(self, lookup: _Lookup, task: PlannedTask, key: TaskKey) -> _Result | Miss:
        if not self._reads:
            return Miss(CacheReason.DISABLED, "--no-cache")
        assert self._states is not None
        entry: Entry | None = None
        try:
            entry = self._store.load(key.digest)
            if entry is None:
                notes = self._notes.load(lookup.stage.name, task.item)
                return explain_miss(key, notes, self._store, self._listings)
            output = self._store.read(entry.output).decode("utf-8", "replace")
            there = find_outputs(self._states.folder, _list_outputs(lookup.stage, task, self._root))
            restore_outputs(self._states, self._store, entry.files, there)
        except BadEntry as error:
            self._store.remove(key.digest)
            for digest in entry.list_blobs() if entry is not None else ():
                self._store.verify(digest)  # so that other damaged contents are not met one run after another
            reason = CacheReason.EVICTED if "evicted" in str(error) else CacheReason.STORE
            return Miss(reason, str(error))
        except (NotRestored, UnusableFile) as error:
            return Miss(CacheReason.STORE, str(error))
        self._store.mark_used(entry)
        return _Result(entry, output)

    def _acquire(self, digests: Sequence[str]) -> bool:
        """Lock keys; True also where the file system has no locks: then two runs may do the same work."""
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
        ran = [unit for unit in lookup.units if unit.owner == task.index and _covers(task, unit.task)]
        for unit in ran:
            if result.succeeded:
                seconds = result.item_seconds.get(unit.task.item or "", result.seconds / len(ran))
                lookup.pending.append((unit, replace(result, seconds=seconds)))
            else:
                failed = Miss(CacheReason.FAILED, "it failed in its last run")
                self._notes.add_unkept(stage.name, unit.task.item, lookup.keys[unit].digest, failed)
                self._release([lookup.keys[unit].digest])

    def _flush(self, name: str, done: Callable[[], None]) -> None:
        try:
            lookup = self._lookups.pop(name, None)
            if lookup is not None:
                self._keep_pending(lookup)
                self._release(lookup.list_digests())
        except Exception:  # the stage's result must not wait for the cache without a limit
            log.exception("the cache failed: no result is kept", extra={"stage": name})
        done()

    def _keep_pending(self, lookup: _Lookup) -> None:
        pending, lookup.pending = lookup.pending, []
        if not pending:
            return
        if (why := self._find_reason_against(lookup)) is not None:
            for unit, _ in pending:
                self._notes.add_unkept(lookup.stage.name, unit.task.item, lookup.keys[unit].digest, why)
            self._say(f"{lookup.stage.name}: not cached: {why.text}")
            return
        for listing in {digest for unit, _ in pending for digest in lookup.keys[unit].listings}:
            with suppress(StoreUnusable):  # the entry's own write fails too, and says so
                self._store.add(self._listings[listing])
        for unit, result in pending:
            if (why := self._keep_result(lookup, unit, result)) is not None:
                self._say(f"{lookup.stage.name}: not cached: {why.text}")
                return

    def _find_reason_against(self, lookup: _Lookup) -> Miss | None:
        """Return why the results of tasks that ran since the lookup prove nothing, or None."""
        assert self._states is not None
        stage = lookup.stage
        try:
            now = self._read_inputs(stage, lookup.units)
            if (path := find_changed_file(lookup.inputs, now)) is not None:
                return Miss(CacheReason.EDITED, f"{path} changed during the run")
            if (path := find_own_input(list_written(stage), now)) is not None:
                return Miss(CacheReason.OWN_INPUT, f"it writes its own input {path}: leave that out")
            if self._identify_tools(stage) != dict(lookup.tools):
                return Miss(CacheReason.EDITED, "a tool changed during the run")
        except UnusableFile as error:
            return Miss(CacheReason.UNCACHEABLE, str(error))
        return None

    def _keep_result(self, lookup: _Lookup, unit: _Unit, result: KeptResult) -> Miss | None:
        """Put a result into the store. Return why it could not be kept, or None."""
        assert self._states is not None
        key, stage, task = lookup.keys[unit], lookup.stage, unit.task
        try:
            written = find_outputs(self._states.folder, _list_outputs(stage, task, self._root))
            entry = Entry(
                key=key.digest,
                stage=stage.name,
                item=task.item,
                seconds=result.seconds,
                created_timestamp_seconds=self._clock.wall(),
                output=self._store.add(result.output.encode("utf-8", "replace")),
                files=keep_outputs(self._states, self._store, written),
                components=key.components,
                listings=key.listings,
            )
            self._store.save(entry)
        except UnusableFile as error:
            return Miss(CacheReason.UNCACHEABLE, str(error))
        except StoreUnusable as error:
            return Miss(CacheReason.STORE, str(error))
        self._notes.add_key(stage.name, task.item, key.digest)
        return None

    def _end_run(self, done: Callable[[], None]) -> None:
        try:
            for lookup in [*self._lookups.values()]:
                self._keep_pending(lookup)
                self._release(lookup.list_digests())
            self._lookups.clear()
            if self._states is not None:
                self._states.save()
            if self._store.written_bytes:
                self._store.written_bytes = 0
                self._store.prune()
        except Exception:  # the run has ended: its result stands
            log.exception("the cache failed at the end of the run")
        done()


def _miss_all(stage: PlannedStage, why: Miss) -> StageLookup:
    missed = UncachedTask(reason=why.reason, note=why.text, key="")
    return StageLookup(hits={}, misses={task.index: missed for task in stage.tasks}, note=why.text)


def _list_units(stage: PlannedStage) -> tuple[_Unit, ...]:
    """Return the parts of a stage that have results of their own.

    The items of a batch are such parts, since each run cuts its batches by the durations that it knows, unless an
    output belongs to the batch as a whole.
    """
    units: list[_Unit] = []
    by_item = stage.template is not None and all(ITEM in pattern for pattern in stage.outputs)
    for task in stage.tasks:
        if stage.template is None or not task.items or not by_item:
            units.append(_Unit(replace(task, index=len(units)), task.index))
            continue
        for item in task.items:
            units.append(_Unit(build_task(stage.template, len(units), (item,), task.apart), task.index))
    return tuple(units)


def _covers(task: PlannedTask, part: PlannedTask) -> bool:
    """Return whether a task that ran includes a part of its stage; a retried batch has fewer items."""
    return task.item == part.item or set(part.items) <= set(task.items)


def _sum_up(lookup: _Lookup, found: Mapping[_Unit, _Result | Miss]) -> StageLookup:
    """Return the tasks that are skipped, and those that run, of the results of their parts."""
    hits: dict[int, CachedTask] = {}
    misses: dict[int, UncachedTask] = {}
    narrowed: dict[int, tuple[str, ...]] = {}
    saved_seconds = 0.0
    for owner, units in groupby(lookup.units, key=lambda unit: unit.owner):
        parts = [(unit, found[unit]) for unit in units]
        results = [result for _, result in parts if isinstance(result, _Result)]
        missed = [(unit, why) for unit, why in parts if isinstance(why, Miss)]
        if not missed:
            hits[owner] = _merge_results([lookup.keys[unit] for unit, _ in parts], results)
            continue
        why = missed[0][1]
        misses[owner] = UncachedTask(reason=why.reason, note=why.text, key=_merge_keys(lookup, missed))
        if results:
            narrowed[owner] = tuple(item for unit, _ in missed for item in unit.task.items)
            saved_seconds += sum(result.entry.seconds for result in results)
    return StageLookup(
        hits=hits, misses=misses, narrowed=narrowed, saved_seconds=saved_seconds, note=_describe_misses(found)
    )


def _merge_results(keys: Sequence[TaskKey], results: Sequence[_Result]) -> CachedTask:
    """Return the result of a task from those of its parts, with each output once."""
    outputs = {result.entry.output: result.output for result in results}
    key = keys[0].digest if len(keys) == 1 else hash_bytes("".join(key.digest for key in keys).encode())
    return CachedTask(output="".join(outputs.values()), seconds=sum(each.entry.seconds for each in results), key=key)


def _merge_keys(lookup: _Lookup, missed: Sequence[tuple[_Unit, Miss]]) -> str:
    digests = [lookup.keys[unit].digest for unit, _ in missed]
    return digests[0] if len(digests) == 1 else hash_bytes("".join(digests).encode())


def _describe_misses(found: Mapping[_Unit, _Result | Miss]) -> str:
    missed = [(unit, why) for unit, why in found.items() if isinstance(why, Miss)]
    if not missed:
        return ""
    (unit, why), *others = missed
    named = f"{unit.task.item}: {why.text}" if unit.task.item is not None and len(found) > 1 else why.text
    if unit.task.item is not None and why.text.startswith(unit.task.item):
        named = why.text
    more = f" (and {len(others)} more)" if others and len(others) + 1 < len(found) else ""
    return (
        f"{len(found) - len(missed)} of {len(found)} items unchanged; {named}{more}"
        if len(missed) < len(found)
        else named
    )


def _list_outputs(stage: PlannedStage, task: PlannedTask, root: Path) -> tuple[str, ...]:
    """Return the patterns of a task's outputs, with the file of its output."""
    patterns: list[str] = []
    for item in task.items or (task.item,):
        patterns += fill_item(stage.outputs, item)
    if stage.output_file is not None:
        patterns.append(posixpath.relpath(os.fspath(stage.output_file), os.fspath(root)))
    return tuple(dict.fromkeys(patterns))
