"""Keep the results of tasks that ran, if no input changed meanwhile: in the store, and in the remote cache."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter.cache.entry import BadEntry, Entry, OutputFile
from paropt_exporter.cache.file_states import UnusableFile
from paropt_exporter.cache.keys import TaskKey
from paropt_exporter.cache.misses import Miss
from paropt_exporter.cache.open_cache import CacheSetup, OpenCache
from paropt_exporter.cache.output_files import (
    find_changed_output,
    find_matching,
    find_outputs,
    keep_outputs,
    list_leftovers,
)
from paropt_exporter.cache.result_store import SIZE_VARIABLE, StoreUnusable
from paropt_exporter.cache.stage_keys import StagePart, StageReading, group_parts, list_outputs
from paropt_exporter.engine.interfaces import KeptResult
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import PlannedTask

# How often results of items are kept before their stage has ended: a killed exporter loses only later ones. Keeping
# compares all inputs of the stage, and takes a twentieth of the time at most.
_KEEP_SECONDS, _KEEP_RATIO = 10.0, 20.0


class PendingResult(Struct, frozen=True):
    """A result that waits to be kept.

    `outputs`: the task's outputs at its end; None if they may change until the result is kept.
    """

    part: StagePart
    result: KeptResult
    outputs: Mapping[str, os.stat_result] | None


class LookedUpStage(Struct):
    """A stage at the moment before it ran, and the results that wait to be kept, some of them before its end.

    `outputs`: the files that were in the places of the outputs of the tasks that run. `locks`: the locked keys and
    outputs.
    """

    reading: StageReading
    outputs: Mapping[str, os.stat_result]
    keep_seconds: float
    parts: Mapping[int, Sequence[StagePart]]  # by the index of their task
    pending: list[PendingResult] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)  # the files of the project that its traced tasks read
    locks: set[str] = field(default_factory=set)


class ResultKeeper:
    """Puts results into the store during one run, and notes why others are not kept. One thread at a time uses it."""

    def __init__(self, setup: CacheSetup, opened: OpenCache) -> None:
        self._setup = setup
        self._store = setup.store
        self._clock = setup.clock
        self._opened = opened
        self._notes = opened.notes

    def begin_stage(self, reading: StageReading, outputs: Mapping[str, os.stat_result]) -> LookedUpStage:
        """Return the stage of a reading, before its tasks run; `outputs` are the files in their outputs' places."""
        keeps_items = reading.has_results_by_item and not reading.stage.traces_inputs
        keep_seconds = self._clock.monotonic() + _KEEP_SECONDS if keeps_items else math.inf
        return LookedUpStage(reading, outputs, keep_seconds, group_parts(reading.parts))

    def add(self, stage: LookedUpStage, task: PlannedTask, result: KeptResult) -> list[StagePart]:
        """Add the result of a task. Return the parts that failed, which have nothing to keep."""
        reading = stage.reading
        ran = [part for part in stage.parts[task.index] if _covers(task, part.task)]
        rest_seconds = max(0.0, result.seconds - sum(result.item_seconds.values()))  # such as the start of the program
        failed: list[StagePart] = []
        for part in ran:
            if result.succeeded:
                seconds = result.item_seconds.get(part.task.item or "", 0.0) + rest_seconds / len(ran)
                outputs = self._find_present_outputs(stage, part)
                stage.pending.append(PendingResult(part, replace(result, seconds=seconds), outputs))
            else:
                # Which items of a batch failed is known for a few programs only, and it has one exit code.
                why = "it failed in its last run" if len(ran) == 1 else "its batch failed in the last run"
                self._note_unkept(reading, part, Miss(CacheReason.FAILED, why))
                if reading.stage.traces_inputs:
                    self._disprove(reading, part)
                failed.append(part)
        if (began := self._clock.monotonic()) >= stage.keep_seconds:
            self._keep_pending(stage, ended=False)
            ended = self._clock.monotonic()
            stage.keep_seconds = ended + max(_KEEP_SECONDS, _KEEP_RATIO * (ended - began))
        return failed

    def end_stage(self, stage: LookedUpStage) -> None:
        """Keep the results that wait."""
        self._keep_pending(stage, ended=True)

    def _keep_pending(self, stage: LookedUpStage, *, ended: bool) -> None:
        """Keep the results of parts whose files have not changed. Those of others stay until the stage has `ended`."""
        pending, stage.pending = stage.pending, []
        if not pending:
            return
        reading, name = stage.reading, stage.reading.stage.name
        if reading.stage.traces_inputs:
            self._opened.traced.refresh()
        changes = self._opened.reader.find_changes(reading)
        if ended:
            self._report_changes(reading, {each.part: changes[each.part] for each in pending if each.part in changes})
        else:
            stage.pending = [each for each in pending if each.part in changes]
        fault = self._keep_all(stage, [each for each in pending if each.part not in changes])
        if fault is not None:
            self._setup.say(f"{name}: not cached: {fault.text}")
        if stage.reads:
            self._notes.save_reads(name, stage.reads)

    def _report_changes(self, reading: StageReading, changes: Mapping[StagePart, Miss]) -> None:
        if not changes:
            return
        for part, change in changes.items():
            self._note_unkept(reading, part, change)
        first, *others = dict.fromkeys(change.text for change in changes.values())
        more = f" (and {len(others)} more)" if others else ""
        self._setup.say(f"{reading.stage.name}: not cached: {first}{more}")

    def _keep_all(self, stage: LookedUpStage, results: Sequence[PendingResult]) -> Miss | None:
        """Keep results. Return the first reason why one could not be kept, or None."""
        reading = stage.reading
        for listing in {digest for each in results for digest in reading.keys[each.part].listings}:
            with suppress(StoreUnusable):  # the entry's own write fails too, and says so
                self._store.add(reading.listings[listing])
        fault: Miss | None = None
        for each in results:
            if reading.stage.traces_inputs:
                kept = self._keep_traced(stage, each)
            else:
                kept = self._keep_result(stage, each, reading.keys[each.part])
            if isinstance(kept, Miss):
                fault = fault or kept
                if kept.reason is CacheReason.STORE:  # such as a full disk: the others could not be kept either
                    break
        return fault

    def _find_present_outputs(self, stage: LookedUpStage, part: StagePart) -> Mapping[str, os.stat_result] | None:
        """Return the outputs of a task that has ended, unless later tasks write to the same places."""
        if len(stage.reading.parts) > 1 and not stage.reading.has_results_by_item:
            return None
        try:
            patterns = list_outputs(stage.reading.stage, part.task, self._setup.root)
            return dict(find_matching(self._opened.states.folder, patterns))
        except UnusableFile:
            return None  # its result can't be kept, for a reason that is found again

    def _keep_traced(self, stage: LookedUpStage, pending: PendingResult) -> Entry | Miss:
        """Put the result of a traced task into the store."""
        from paropt_exporter.cache.traced_results import PROOFS

        traced, reading, part = self._opened.traced, stage.reading, pending.part
        weak, expected = reading.keys[part], traced.expected.get(part)
        try:
            key = traced.find_key(reading.stage, weak, pending.result.trace)
            if isinstance(key, Miss):
                self._note_unkept(reading, part, key)
                return key
            stage.reads |= traced.list_read_files(key)
            kept = self._keep_result(stage, pending, key.key, expected)
            if isinstance(kept, Miss):
                return kept
            if expected is not None and expected.files != kept.files:
                self._disprove(reading, part)
                other = min(file.path for file in {*expected.files} ^ {*kept.files})
                why = Miss(CacheReason.UNCACHEABLE, f"with the same inputs it wrote a different {other}")
                self._note_unkept(reading, part, why)
                return why
            proofs = traced.find_candidates(weak).manifest.proofs
            traced.save(weak, key, proofs=min(PROOFS, proofs + 1) if expected is not None else proofs)
        except StoreUnusable as error:
            return Miss(CacheReason.STORE, str(error))
        return kept

    def _disprove(self, reading: StageReading, part: StagePart) -> None:
        """Note that a task ended differently with the same traced inputs: a file that it reads was missed."""
        expected = self._opened.traced.expected.get(part)
        if expected is not None:
            self._store.remove(expected.key)
            with suppress(StoreUnusable):
                self._opened.traced.disprove(reading.keys[part])

    def _keep_result(
        self, stage: LookedUpStage, pending: PendingResult, key: TaskKey, expected: Entry | None = None
    ) -> Entry | Miss:
        """Put a result into the store under a key, or return why it could not be kept.

        `expected`: one under another key of the same task, which would have been a hit.
        """
        states, planned, task, result = self._opened.states, stage.reading.stage, pending.part.task, pending.result
        try:
            there = find_outputs(states.folder, list_outputs(planned, task, self._setup.root))
            if (changed := find_changed_output(states.folder, pending.outputs, there)) is not None:
                edited = Miss(CacheReason.EDITED, f"{changed} changed during the run")
                self._notes.add_unkept(planned.name, task.item, key.digest, edited)
                return edited
            if (size_bytes := sum(state.st_size for _, state in there)) > self._store.limit_bytes:
                # To keep it would remove all other results, and then it.
                why = f"its outputs have {size_bytes:,} bytes, the whole cache {self._store.limit_bytes:,}"
                too_large = Miss(CacheReason.UNCACHEABLE, f"{why}: raise {SIZE_VARIABLE}")
                self._notes.add_unkept(planned.name, task.item, key.digest, too_large)
                return too_large
            outputs = keep_outputs(states, self._store, there)
            entry = Entry(
                key=key.digest,
                stage=planned.name,
                item=task.item,
                seconds=result.seconds,
                created_timestamp_seconds=self._clock.wall(),
                output=self._store.add(result.output.encode("utf-8", "replace")),
                files=outputs,
                components=key.components,
                listings=key.listings,
                leftovers=self._find_leftovers(key, outputs, list_leftovers(stage.outputs, there), expected),
            )
            if not self._setup.reads:
                self._compare(entry)
            self._store.save(entry)
        except UnusableFile as error:
            return Miss(CacheReason.UNCACHEABLE, str(error))
        except StoreUnusable as error:
            return Miss(CacheReason.STORE, str(error))
        self._notes.add_key(planned.name, task.item, key.digest)
        self._send(entry)
        return entry

    def _note_unkept(self, reading: StageReading, part: StagePart, why: Miss) -> None:
        self._notes.add_unkept(reading.stage.name, part.task.item, reading.keys[part].digest, why)

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
                line = f"{named}: {min(paths)} differs from the kept result, although no known input has changed"
                self._setup.say(line)

    def _send(self, entry: Entry) -> None:
        """Upload a result."""
        remote = self._setup.remote
        if remote is None or remote.failure:
            return
        from paropt_exporter.cache.remote import RemoteFailed

        try:
            remote.send(entry, self._store)
        except RemoteFailed as error:
            self._setup.say(str(error))


def _covers(task: PlannedTask, part: PlannedTask) -> bool:
    """Return whether a task that ran includes a part of its stage; a retried batch has fewer items."""
    return task.item == part.item or set(part.items) <= set(task.items)
