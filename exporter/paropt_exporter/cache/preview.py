"""What the cache would do now, for `plan --why`: reads the files and the store, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import files
from paropt_exporter.cache.digests import hash_bytes
from paropt_exporter.cache.entry import BadEntry
from paropt_exporter.cache.file_states import FileStates, UnusableFile
from paropt_exporter.cache.misses import Miss, Notes, explain_miss, explain_missing_leftover
from paropt_exporter.cache.output_files import find_missing_leftover
from paropt_exporter.cache.result_store import Store
from paropt_exporter.cache.stage_keys import StagePart, StageReader, StageReading
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import Plan, PlannedStage

if TYPE_CHECKING:
    from paropt_exporter.cache.traced_results import TracedResults


class Preview(Struct, frozen=True, kw_only=True):
    """A task, or an item of a batch: why it would be skipped or run; `item` None: the stage's only task."""

    stage: str
    item: str | None
    reason: CacheReason
    note: str
    seconds: float = 0.0


def preview_plan(plan: Plan, store: Store, environ: Mapping[str, str]) -> Iterator[Preview]:
    """Yield the previews of the cached stages, as the outputs of the stages that they need are now."""
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
    for stage in stages:
        yield from _preview_stage(stage, reader, traced, states, store, notes)


def find_hits(previews: Sequence[Preview]) -> frozenset[str]:
    """Return the stages of which the cache would skip all tasks."""
    missed = {preview.stage for preview in previews if preview.reason is not CacheReason.UNCHANGED}
    return frozenset(preview.stage for preview in previews) - missed


def _preview_stage(
    stage: PlannedStage,
    reader: StageReader,
    traced: TracedResults | None,
    states: FileStates,
    store: Store,
    notes: Notes,
) -> Iterator[Preview]:
    try:
        reading = reader.read(stage)
    except UnusableFile as error:
        yield Preview(stage=stage.name, item=None, reason=CacheReason.UNCACHEABLE, note=str(error))
        return
    if (why := reader.find_own_input(reading)) is not None:
        yield Preview(stage=stage.name, item=None, reason=why.reason, note=why.text)
        return
    for part in reading.parts:
        if stage.traces_inputs and traced is not None:
            yield _preview_traced(reading, part, traced, states, store, notes)
        else:
            yield _preview_part(reading, part, states, store, notes)


def _preview_traced(
    reading: StageReading, part: StagePart, traced: TracedResults, states: FileStates, store: Store, notes: Notes
) -> Preview:
    from paropt_exporter.cache.traced_results import explain_traced_miss, explain_unproved

    stage, item, weak = reading.stage.name, part.task.item, reading.keys[part]
    candidates = traced.find_candidates(weak)
    for strong in candidates.keys:
        if not store.contains(strong.key.digest):
            continue
        if not candidates.proved:
            why = explain_unproved(weak, candidates.manifest.proofs, notes.load(stage, item))
            return Preview(stage=stage, item=item, reason=why.reason, note=why.text)
        found = replace(reading, keys={part: strong.key}, listings=strong.listings)
        return _preview_part(found, part, states, store, notes)
    why = explain_traced_miss(weak, candidates, notes.load(stage, item), store)
    return Preview(stage=stage, item=item, reason=why.reason, note=why.text)


def _preview_part(reading: StageReading, part: StagePart, states: FileStates, store: Store, notes: Notes) -> Preview:
    stage, item, key = reading.stage.name, part.task.item, reading.keys[part]
    try:
        entry = store.load(key.digest)
    except BadEntry as error:
        return Preview(stage=stage, item=item, reason=CacheReason.STORE, note=str(error))
    if entry is not None and (path := find_missing_leftover(states, entry)) is not None:
        why = explain_missing_leftover(path)
    elif entry is None:
        why = explain_miss(key, notes.load(stage, item), store, reading.listings)
    elif not all(store.has(digest) for digest in entry.list_blobs()):
        why = Miss(CacheReason.EVICTED, "a content of the cache was evicted")
    else:
        return Preview(stage=stage, item=item, reason=CacheReason.UNCHANGED, note="unchanged", seconds=entry.seconds)
    return Preview(stage=stage, item=item, reason=why.reason, note=why.text)


def _read_secret(store: Store) -> bytes:
    try:
        return files.read_file(store.secret_path, 1024)
    except OSError:
        return b""
