"""Sum up the results and misses of a stage's parts for the engine: skipped tasks, narrowed batches, and a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from msgspec import Struct

from paropt_exporter.cache.entry import Entry
from paropt_exporter.cache.keys import TaskKey, hash_bytes
from paropt_exporter.cache.misses import Miss
from paropt_exporter.cache.stage_keys import StagePart, StageReading
from paropt_exporter.engine.interfaces import CachedTask, StageLookup, UncachedTask
from paropt_exporter.plan.structure import PlannedStage


class KeptTask(Struct, frozen=True):
    """A kept result, and its output."""

    entry: Entry
    output: str


def miss_all(stage: PlannedStage, why: Miss) -> StageLookup:
    """Return a lookup in which all tasks run for one reason."""
    missed = UncachedTask(reason=why.reason, note=why.text, key="")
    return StageLookup(hits={}, misses={task.index: missed for task in stage.tasks}, note=why.text)


def sum_up(reading: StageReading, found: Mapping[StagePart, KeptTask | Miss]) -> StageLookup:
    """Return the tasks that are skipped, and those that run, of the results of their parts."""
    hits: dict[int, CachedTask] = {}
    misses: dict[int, UncachedTask] = {}
    narrowed: dict[int, tuple[str, ...]] = {}
    saved_seconds = 0.0
    for owner, group in groupby(reading.parts, key=lambda part: part.owner):
        parts = [(part, found[part]) for part in group]
        results = [result for _, result in parts if isinstance(result, KeptTask)]
        missed = [(part, why) for part, why in parts if isinstance(why, Miss)]
        if not missed:
            hits[owner] = _merge_results([reading.keys[part] for part, _ in parts], results)
            continue
        why = missed[0][1]
        misses[owner] = UncachedTask(reason=why.reason, note=why.text, key=_merge_keys(reading, missed))
        if results:
            narrowed[owner] = tuple(item for part, _ in missed for item in part.task.items)
            saved_seconds += sum(result.entry.seconds for result in results)
    return StageLookup(
        hits=hits, misses=misses, narrowed=narrowed, saved_seconds=saved_seconds, note=_describe_misses(found)
    )


def _merge_results(keys: Sequence[TaskKey], results: Sequence[KeptTask]) -> CachedTask:
    """Return the result of a task from those of its parts, with each output once."""
    outputs = {result.entry.output: result.output for result in results}
    key = keys[0].digest if len(keys) == 1 else hash_bytes("".join(key.digest for key in keys).encode())
    return CachedTask(output="".join(outputs.values()), seconds=sum(each.entry.seconds for each in results), key=key)


def _merge_keys(reading: StageReading, missed: Sequence[tuple[StagePart, Miss]]) -> str:
    digests = [reading.keys[part].digest for part, _ in missed]
    return digests[0] if len(digests) == 1 else hash_bytes("".join(digests).encode())


def _describe_misses(found: Mapping[StagePart, KeptTask | Miss]) -> str:
    missed = [(part, why) for part, why in found.items() if isinstance(why, Miss)]
    if not missed:
        return ""
    (part, why), *others = missed
    named = f"{part.task.item}: {why.text}" if part.task.item is not None and len(found) > 1 else why.text
    if part.task.item is not None and why.text.startswith(part.task.item):
        named = why.text
    more = f" (and {len(others)} more)" if others and len(others) + 1 < len(found) else ""
    return (
        f"{len(found) - len(missed)} of {len(found)} items unchanged; {named}{more}"
        if len(missed) < len(found)
        else named
    )
