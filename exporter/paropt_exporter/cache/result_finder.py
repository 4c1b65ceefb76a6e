"""Decide which results of a stage's parts count now, or why they run. Nothing is written, neither here nor there.

A run and `plan --why` share these decisions. Only a run finds out that a kept content is damaged, since it reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.cache.entry import BadEntry, Entry, MissingContent, UnreadableFile
from paropt_exporter.cache.file_states import UnusableFile
from paropt_exporter.cache.keys import TaskKey
from paropt_exporter.cache.misses import Miss, explain_missing_leftover
from paropt_exporter.cache.open_cache import CacheSetup, OpenCache
from paropt_exporter.cache.output_files import (
    NotRestored,
    Restoration,
    find_matching,
    find_missing_leftover,
    plan_restoration,
)
from paropt_exporter.cache.stage_keys import StagePart, StageReading, list_outputs
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import PlannedStage, PlannedTask

if TYPE_CHECKING:
    import os

    from paropt_exporter.cache.path_sets import StrongKey


_NO_STATES: Mapping[str, str] = MappingProxyType({})


class FoundResult(Struct, frozen=True, kw_only=True):
    """A result that counts, and the files to write and to remove. `strong`: its key, if its inputs were traced."""

    entry: Entry
    restoration: Restoration
    strong: StrongKey | None = None


class DamagedResult(Exception):
    """The store has a result that can't be used. `entry`: None if it can't be read.

    It should be removed, unless it `may_be_sound`.
    """

    def __init__(self, key: str, entry: Entry | None, error: BadEntry) -> None:
        super().__init__(str(error))
        self.key = key
        self.entry = entry
        self.may_be_sound = isinstance(error, UnreadableFile)
        reason = CacheReason.EVICTED if isinstance(error, MissingContent) else CacheReason.STORE
        self.why = Miss(reason, str(error))


class ResultFinder:
    """Finds the results of one run. One thread at a time uses it."""

    def __init__(self, setup: CacheSetup, opened: OpenCache, fetch: Callable[[str], bool] = lambda _: False) -> None:
        """`fetch` downloads the result under a key from the remote cache, and returns whether the store has it now."""
        self._setup = setup
        self._store = setup.store
        self._opened = opened
        self._fetch = fetch

    def read(self, stage: PlannedStage, expected: Mapping[str, str] = _NO_STATES) -> StageReading | Miss:
        """Return the keys of a stage's parts, or why it can have no result.

        They lack the list of its files if that is recorded and the store may have all results. `expected`: the states
        of outputs of needed stages that are not yet in place, for a preview.
        """
        try:
            reading = self._opened.reader.read(stage, expected) if expected else self._read(stage)
        except UnusableFile as error:
            return Miss(CacheReason.UNCACHEABLE, str(error))
        return self._opened.reader.find_own_input(reading) or reading

    def find(self, reading: StageReading, part: StagePart) -> FoundResult | Miss:
        """Return the result of a part, or why it runs. Raises DamagedResult."""
        if not self._setup.reads:
            return Miss(CacheReason.DISABLED, "--no-cache")
        if reading.stage.traces_inputs:
            return self._find_traced(reading, part)
        return self._find_under(reading, part.task, reading.keys[part]) or self._explain(reading, part)

    def find_outputs(self, reading: StageReading, running: Iterable[StagePart]) -> Mapping[str, os.stat_result] | Miss:
        """Return the files in the places of the outputs of parts that run, or why no result could be kept."""
        there: dict[str, os.stat_result] = {}
        try:
            for part in running:
                patterns = list_outputs(reading.stage, part.task, self._setup.root)
                there.update(find_matching(self._opened.states.folder, patterns))
        except UnusableFile as error:
            return Miss(CacheReason.UNCACHEABLE, str(error))
        return there

    def _read(self, stage: PlannedStage) -> StageReading:
        if stage.traces_inputs:
            self._opened.traced.refresh()
        elif self._setup.reads:
            recorded = self._opened.reader.read_recorded(stage)
            if recorded is not None and all(map(self._store.contains, recorded.list_digests())):
                return recorded
        return self._opened.reader.read(stage)

    def _find_traced(self, reading: StageReading, part: StagePart) -> FoundResult | Miss:
        from paropt_exporter.cache.traced_results import explain_traced_miss, explain_unproved

        weak, traced = reading.keys[part], self._opened.traced
        notes = self._opened.notes.load(reading.stage.name, part.task.item)
        candidates = traced.find_candidates(weak)
        fault: Miss | None = None
        for strong in candidates.keys:
            found = self._find_under(reading, part.task, strong.key)
            if isinstance(found, Miss):
                fault = fault or found
            elif found is not None and not candidates.proved:
                traced.expected[part] = found.entry
                return explain_unproved(weak, candidates.manifest.proofs, notes)
            elif found is not None:
                return replace(found, strong=strong)
        return fault or explain_traced_miss(weak, candidates, notes, self._opened.explainer)

    def _find_under(self, reading: StageReading, task: PlannedTask, key: TaskKey) -> FoundResult | Miss | None:
        """Return the result under a key, or why it does not count; None if there is none. Raises DamagedResult."""
        found = self._check(reading, task, key)
        if _may_have_another(found) and self._fetch(key.digest):
            found = self._check(reading, task, key)
        if isinstance(found, DamagedResult):
            raise found
        return found

    def _check(
        self, reading: StageReading, task: PlannedTask, key: TaskKey
    ) -> FoundResult | Miss | DamagedResult | None:
        """Return the result under a key, or why it does not count; None if the store has none."""
        try:
            entry = self._store.load(key.digest)
        except BadEntry as error:
            return DamagedResult(key.digest, None, error)
        if entry is None:
            return None
        states = self._opened.states
        if (missing := find_missing_leftover(states, entry)) is not None:
            return explain_missing_leftover(missing)
        try:
            patterns = list_outputs(reading.stage, task, self._setup.root)
            restoration = plan_restoration(states, entry.files, patterns)
        except (NotRestored, UnusableFile) as error:
            return Miss(CacheReason.STORE, str(error))
        if not all(map(self._store.has, (entry.output, *restoration.list_blobs()))):
            return DamagedResult(key.digest, entry, MissingContent("a content of the cache was evicted"))
        return FoundResult(entry=entry, restoration=restoration)

    def _explain(self, reading: StageReading, part: StagePart) -> Miss:
        notes = self._opened.notes.load(reading.stage.name, part.task.item)
        return self._opened.explainer.explain(reading.keys[part], notes, reading.listings)


def _may_have_another(found: FoundResult | Miss | DamagedResult | None) -> bool:
    """Return whether the remote cache may have a result that counts where this one does not.

    On another host, the run may have found no leftovers. A place where files can't be restored stays as it is.
    """
    return not isinstance(found, FoundResult) and not (isinstance(found, Miss) and found.reason is CacheReason.STORE)
