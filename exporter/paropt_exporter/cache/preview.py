"""Predict what the cache would do now, for `plan --why`. This reads the files and the store, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import BadEntry, Entry
from paropt_exporter.cache.file_states import FileStates, UnusableFile
from paropt_exporter.cache.misses import Miss, MissExplainer, Notes, explain_missing_leftover
from paropt_exporter.cache.output_files import find_missing_leftover
from paropt_exporter.cache.result_store import Store
from paropt_exporter.cache.stage_keys import StagePart, StageReader, StageReading
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import Plan, PlannedStage

if TYPE_CHECKING:
    from paropt_exporter.cache.traced_results import TracedResults


class Preview(Struct, frozen=True, kw_only=True):
    """Why a task, or an item of a batch, would be skipped or run. `item`: None for the stage's only task."""

    stage: str
    item: str | None
    reason: CacheReason
    note: str
    seconds: float = 0.0


def preview_plan(plan: Plan, store: Store, environ: Mapping[str, str]) -> Iterator[Preview]:
    """Yield the previews of the cached stages, with the present outputs of the stages that they need."""
    root = plan.root
    index = store.index_folder / hash_bytes(os.fsencode(root))[:32]
    states = FileStates(os.fspath(root), index)
    reader = StageReader(root, states, environ, _read_secret(store))
    notes = Notes(store.last_folder, plan.project)
    stages = [stage for stage in plan.stages if stage.cached and stage.tasks]
    traced = None
    if any(stage.traces_inputs for stage in stages):
        from paropt_exporter.cache.traced_results import TracedResults, find_refusal  # here: few stages are traced

        traced = TracedResults(store, states, environ)
        if find_refusal():
            stages = [replace(stage, traces_inputs=False) for stage in stages]
    previewer = _Previewer(reader=reader, traced=traced, states=states, store=store, notes=notes)
    for stage in stages:
        yield from previewer.preview(stage)


def find_hits(previews: Sequence[Preview]) -> frozenset[str]:
    """Return the stages of which the cache would skip all tasks."""
    missed = {preview.stage for preview in previews if preview.reason is not CacheReason.UNCHANGED}
    return frozenset(preview.stage for preview in previews) - missed


class _Previewer:
    def __init__(
        self, *, reader: StageReader, traced: TracedResults | None, states: FileStates, store: Store, notes: Notes
    ) -> None:
        self._reader = reader
        self._traced = traced
        self._states = states
        self._store = store
        self._notes = notes
        self._explainer = MissExplainer(store)

    def preview(self, stage: PlannedStage) -> Iterator[Preview]:
        try:
            reading = self._reader.read(stage)
        except UnusableFile as error:
            yield Preview(stage=stage.name, item=None, reason=CacheReason.UNCACHEABLE, note=str(error))
            return
        if (why := self._reader.find_own_input(reading)) is not None:
            yield Preview(stage=stage.name, item=None, reason=why.reason, note=why.text)
            return
        for part in reading.parts:
            found = self._explain_traced(reading, part) if stage.traces_inputs else self._explain(reading, part)
            if isinstance(found, Miss):
                yield Preview(stage=stage.name, item=part.task.item, reason=found.reason, note=found.text)
            else:
                yield Preview(
                    stage=stage.name,
                    item=part.task.item,
                    reason=CacheReason.UNCHANGED,
                    note="unchanged",
                    seconds=found.seconds,
                )

    def _explain_traced(self, reading: StageReading, part: StagePart) -> Entry | Miss:
        """Return the result of a task with traced inputs, or why it runs."""
        from paropt_exporter.cache.traced_results import explain_traced_miss, explain_unproved

        assert self._traced is not None
        weak = reading.keys[part]
        candidates = self._traced.find_candidates(weak)
        notes = self._notes.load(reading.stage.name, part.task.item)
        for strong in candidates.keys:
            if not self._store.contains(strong.key.digest):
                continue
            if not candidates.proved:
                return explain_unproved(weak, candidates.manifest.proofs, notes)
            return self._explain(replace(reading, keys={part: strong.key}, listings=strong.listings), part)
        return explain_traced_miss(weak, candidates, notes, self._explainer)

    def _explain(self, reading: StageReading, part: StagePart) -> Entry | Miss:
        """Return the result of a task, or why it runs."""
        key = reading.keys[part]
        try:
            entry = self._store.load(key.digest)
        except BadEntry as error:
            return Miss(CacheReason.STORE, str(error))
        if entry is None:
            return self._explainer.explain(key, self._notes.load(reading.stage.name, part.task.item), reading.listings)
        if (path := find_missing_leftover(self._states, entry)) is not None:
            return explain_missing_leftover(path)
        if not all(self._store.has(digest) for digest in entry.list_blobs()):
            return Miss(CacheReason.EVICTED, "a content of the cache was evicted")
        return entry


def _read_secret(store: Store) -> bytes:
    try:
        return files.read_file(store.secret_path, 1024)
    except OSError:
        return b""
