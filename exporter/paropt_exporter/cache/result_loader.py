"""Load the results of tasks from the store or the remote cache, and restore their outputs."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Mapping

from msgspec import Struct

from paropt_exporter.cache.entry import BadEntry, Entry
from paropt_exporter.cache.file_states import UnusableFile
from paropt_exporter.cache.keys import TaskKey
from paropt_exporter.cache.misses import Miss, explain_missing_leftover
from paropt_exporter.cache.open_cache import CacheSetup, OpenCache
from paropt_exporter.cache.output_files import NotRestored, find_matching, find_missing_leftover, restore_outputs
from paropt_exporter.cache.result_store import StoreUnusable
from paropt_exporter.cache.stage_keys import KeptTask, StagePart, StageReading, list_outputs
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import PlannedStage, PlannedTask

log = logging.getLogger(__name__)


class StageResults(Struct, frozen=True, kw_only=True):
    """The results of a stage's parts, and why the others have none.

    `outputs`: the files in the places of the outputs of the parts that run.
    """

    reading: StageReading
    found: Mapping[StagePart, KeptTask | Miss]
    outputs: Mapping[str, os.stat_result]

    def list_missed(self) -> list[str]:
        """Return the keys of the parts that run."""
        return [self.reading.keys[part].digest for part, result in self.found.items() if isinstance(result, Miss)]


class ResultLoader:
    """Finds the results of tasks for one run, or the reason why there is none. One thread at a time uses it."""

    def __init__(self, setup: CacheSetup, opened: OpenCache, given_up: threading.Event) -> None:
        """`given_up`: set when the run ends, which ends downloads."""
        self._setup = setup
        self._store = setup.store
        self._opened = opened
        self._given_up = given_up
        self._last_output = ("", "")  # its digest and its text

    def find(self, stage: PlannedStage) -> StageResults | Miss:
        """Return the results of a stage as its inputs are now, and restore their outputs; a Miss: it can have none."""
        try:
            reading = self._read(stage)
            if (why := self._opened.reader.find_own_input(reading)) is not None:
                return why
            found = self._load(reading, reading.parts)
            if reading.is_recorded and any(isinstance(result, Miss) for result in found.values()):
                reading, found = self._complete(reading, found)
            return StageResults(reading=reading, found=found, outputs=self._find_outputs(reading, found))
        except UnusableFile as error:
            return Miss(CacheReason.UNCACHEABLE, str(error))

    def find_kept_meanwhile(self, results: StageResults) -> dict[StagePart, KeptTask]:
        """Return the results of missed parts that another run has just kept."""
        reading = results.reading
        missed = [part for part, result in results.found.items() if isinstance(result, Miss)]
        if not self._setup.reads or not any(self._store.contains(reading.keys[part].digest) for part in missed):
            return {}
        more = self._load(reading, missed)
        return {part: result for part, result in more.items() if isinstance(result, KeptTask)}

    def _read(self, stage: PlannedStage) -> StageReading:
        """Return the keys of a stage, without the list of its files if that is recorded and all results are there.

        Raises UnusableFile.
        """
        if stage.traces_inputs:
            self._opened.traced.refresh()
        elif self._setup.reads:
            recorded = self._opened.reader.read_recorded(stage)
            if recorded is not None and all(map(self._store.contains, recorded.list_digests())):
                return recorded
        return self._opened.reader.read(stage)

    def _complete(
        self, recorded: StageReading, found: Mapping[StagePart, KeptTask | Miss]
    ) -> tuple[StageReading, dict[StagePart, KeptTask | Miss]]:
        """Return a whole reading with its results, for tasks that run since their results turned out to be damaged.

        Raises UnusableFile.
        """
        reading = self._opened.reader.read(recorded.stage)
        if reading.list_digests() != recorded.list_digests():  # a file has changed since
            return reading, self._load(reading, reading.parts)
        return reading, {new: found[old] for old, new in zip(recorded.parts, reading.parts, strict=True)}

    def _find_outputs(
        self, reading: StageReading, found: Mapping[StagePart, KeptTask | Miss]
    ) -> dict[str, os.stat_result]:
        """Return the files in the places of the outputs of tasks that run. Raises UnusableFile."""
        there: dict[str, os.stat_result] = {}
        for part, result in found.items():
            if isinstance(result, Miss):
                patterns = list_outputs(reading.stage, part.task, self._setup.root)
                there.update(find_matching(self._opened.states.folder, patterns))
        return there

    def _load(self, reading: StageReading, parts: Iterable[StagePart]) -> dict[StagePart, KeptTask | Miss]:
        return {part: self._load_part(reading, part) for part in parts}

    def _load_part(self, reading: StageReading, part: StagePart) -> KeptTask | Miss:
        if not self._setup.reads:
            return Miss(CacheReason.DISABLED, "--no-cache")
        if reading.stage.traces_inputs:
            return self._load_traced(reading, part)
        return self._load_under(reading, part.task, reading.keys[part])

    def _load_traced(self, reading: StageReading, part: StagePart) -> KeptTask | Miss:
        from paropt_exporter.cache.traced_results import explain_traced_miss, explain_unproved

        task, key, traced, notes = part.task, reading.keys[part], self._opened.traced, self._opened.notes
        candidates = traced.find_candidates(key)
        for strong in candidates.keys:
            if not self._store.contains(strong.key.digest) and not self._fetch(strong.key.digest):
                continue
            if candidates.proved:
                traced.mark_used(key, strong)
                found = self._load_under(reading, task, strong.key)
                if isinstance(found, KeptTask):
                    notes.forget_unkept(reading.stage.name, task.item)  # its weak key is that of other files, too
                return found
            if (fault := self._expect(part, strong.key)) is not None:
                return fault
            return explain_unproved(key, candidates.manifest.proofs, notes.load(reading.stage.name, task.item))
        return explain_traced_miss(key, candidates, notes.load(reading.stage.name, task.item), self._opened.explainer)

    def _expect(self, part: StagePart, key: TaskKey) -> Miss | None:
        """Expect the result under a key from a task that runs to prove its traced inputs. A Miss: it doesn't count."""
        try:
            entry = self._store.load(key.digest)
        except BadEntry as error:
            self._store.remove(key.digest)
            return Miss(CacheReason.STORE, str(error))
        if entry is None:
            return None
        if (path := find_missing_leftover(self._opened.states, entry)) is not None:
            return explain_missing_leftover(path)
        self._opened.traced.expected[part] = entry
        return None

    def _load_under(self, reading: StageReading, task: PlannedTask, key: TaskKey) -> KeptTask | Miss:
        """Return the result under a key, and restore its outputs."""
        states = self._opened.states
        entry: Entry | None = None
        try:
            entry = self._store.load(key.digest)
            if entry is None and self._fetch(key.digest):
                entry = self._store.load(key.digest)
            if entry is None:
                notes = self._opened.notes.load(reading.stage.name, task.item)
                return self._opened.explainer.explain(key, notes, reading.listings)
            missing = find_missing_leftover(states, entry)
            if missing is not None and self._fetch(key.digest):  # another host may have written this file
                entry = self._store.load(key.digest) or entry
                missing = find_missing_leftover(states, entry)
            if missing is not None:
                return explain_missing_leftover(missing)
            output = self._read_output(entry.output)
            patterns = list_outputs(reading.stage, task, self._setup.root)
            restore_outputs(states, self._store, entry.files, patterns)
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
        remote = self._setup.remote
        if remote is None or remote.failure:
            return False
        from paropt_exporter.cache.remote import RemoteFailed, ResultTooLarge

        try:
            return remote.fetch(digest, self._store, self._given_up)
        except (RemoteFailed, ResultTooLarge) as error:
            self._setup.say(str(error))
        except StoreUnusable as error:
            log.debug("a result was not downloaded", extra={"err": str(error)})
        return False
