"""Predict what the cache would do now, for `plan --why`. This reads the files and the store, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from paropt_exporter.cache.file_states import ABSENT, get_state
from paropt_exporter.cache.misses import Miss
from paropt_exporter.cache.open_cache import CacheSetup, Tracing, open_cache_as_it_is
from paropt_exporter.cache.result_finder import DamagedResult, FoundResult, ResultFinder
from paropt_exporter.cache.result_store import Store, StoreUnusable
from paropt_exporter.cache.stage_keys import StagePart, StageReading
from paropt_exporter.clock import SystemClock
from paropt_exporter.events import CacheReason
from paropt_exporter.plan.structure import Plan, PlannedStage


class Preview(Struct, frozen=True, kw_only=True):
    """Why a task, or an item of a batch, would be skipped or run. `item`: None for the stage's only task."""

    stage: str
    item: str | None
    reason: CacheReason
    note: str
    seconds: float = 0.0


def preview_plan(plan: Plan, store: Store, environ: Mapping[str, str]) -> Iterator[Preview]:
    """Yield the previews of the cached stages. The remote cache is not asked.

    Of stages that they need, outputs that a run would restore count as restored, except for traced stages; outputs that
    it would write again count as they are.
    """
    setup = CacheSetup(
        root=plan.root,
        store=store,
        project=plan.project,
        environ=environ,
        clock=SystemClock(),
        say=lambda _: None,
    )
    tracing = Tracing(setup)
    stages = (stage for stage in plan.stages if stage.cached and stage.tasks)
    try:
        opened = open_cache_as_it_is(setup)
    except StoreUnusable as error:
        yield from (_preview_miss(stage, Miss(CacheReason.STORE, str(error))) for stage in stages)
        return
    finder, restored = ResultFinder(setup, opened), dict[str, str]()
    for stage in stages:
        yield from _preview_stage(finder, tracing.choose_inputs(stage), restored)


def find_hits(previews: Sequence[Preview]) -> frozenset[str]:
    """Return the stages of which the cache would skip all tasks."""
    missed = {preview.stage for preview in previews if preview.reason is not CacheReason.UNCHANGED}
    return frozenset(preview.stage for preview in previews) - missed


def _preview_stage(finder: ResultFinder, stage: PlannedStage, restored: dict[str, str]) -> Iterator[Preview]:
    """Yield the previews of a stage, and add the outputs that a run would restore to `restored`."""
    reading = finder.read(stage, restored if stage.needed_outputs else {})
    if isinstance(reading, Miss):
        yield _preview_miss(stage, reading)
        return
    found = {part: _find(finder, reading, part) for part in reading.parts}
    running = [part for part, result in found.items() if isinstance(result, Miss)]
    if isinstance(fault := finder.find_outputs(reading, running), Miss):
        yield _preview_miss(stage, fault)
        return
    for part, result in found.items():
        if isinstance(result, Miss):
            yield _preview_miss(stage, result, part.task.item)
        else:
            restored.update((path, get_state(ABSENT)) for path in result.restoration.stale)
            restored.update((file.path, file.state) for file in result.restoration.missing)
            yield Preview(
                stage=stage.name,
                item=part.task.item,
                reason=CacheReason.UNCHANGED,
                note="unchanged",
                seconds=result.entry.seconds,
            )


def _find(finder: ResultFinder, reading: StageReading, part: StagePart) -> FoundResult | Miss:
    try:
        return finder.find(reading, part)
    except DamagedResult as damaged:
        return damaged.why


def _preview_miss(stage: PlannedStage, why: Miss, item: str | None = None) -> Preview:
    return Preview(stage=stage.name, item=item, reason=why.reason, note=why.text)
