"""The graph of stages by their needs, and the order of a run that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from paropt_exporter.plan.structure import PlannedStage, compute_median

UNKNOWN_SECONDS = 1.0  # of each stage, if no duration is known, so that only the graph decides the order


def map_dependents(needs: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return for each stage the stages that need it, in the order of `needs`."""
    dependents: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for need in wanted:
            dependents.setdefault(need, []).append(name)
    return dependents


def measure_chain(
    name: str, needs: Mapping[str, Iterable[str]], seconds: Mapping[str, float], chains: dict[str, float]
) -> float:
    """Return the seconds of the longest chain of needs that ends with a stage.

    `needs` and `seconds` have the stages that count; `chains` caches the results, and is updated.
    """
    waiting = [name]
    while waiting:
        last = waiting[-1]
        wanted = [need for need in needs[last] if need in needs]
        if more := [need for need in wanted if need not in chains]:
            waiting += more
            continue
        chains[last] = seconds[last] + max((chains[need] for need in wanted), default=0.0)
        waiting.pop()
    return chains[name]


def order_stages(stages: list[PlannedStage]) -> tuple[PlannedStage, ...]:
    """Set `remaining_seconds`, and sort by it, longest first and ties by number: the order of a run."""
    remaining = _compute_remaining(stages)
    filled = [replace(stage, remaining_seconds=remaining[stage.name]) for stage in stages]
    return tuple(sorted(filled, key=lambda stage: (-stage.remaining_seconds, stage.number)))


def _compute_remaining(stages: list[PlannedStage]) -> dict[str, float]:
    """Return the seconds of the longest path from each stage's start to the run's end, by name."""
    known = [stage.expected_seconds for stage in stages if stage.expected_seconds is not None]
    unknown = compute_median(known) if known else UNKNOWN_SECONDS
    after = {stage.name: 0.0 for stage in stages}
    remaining: dict[str, float] = {}
    for stage in reversed(_sort_topologically(stages)):
        remaining[stage.name] = _estimate_own_seconds(stage, unknown) + after[stage.name]
        for need in stage.needs:
            after[need] = max(after[need], remaining[stage.name])
    return remaining


def _estimate_own_seconds(stage: PlannedStage, unknown: float) -> float:
    if stage.skip or stage.fault:
        return 0.0
    if stage.expected_seconds is not None:
        return stage.expected_seconds
    return max(unknown, stage.failure_seconds or 0.0)  # it may have failed at once, but hardly takes less


def _sort_topologically(stages: Iterable[PlannedStage]) -> list[PlannedStage]:
    by_name = {stage.name: stage for stage in stages}
    open_needs = {name: len(stage.needs) for name, stage in by_name.items()}
    dependents = map_dependents({name: stage.needs for name, stage in by_name.items()})
    ready = [name for name, count in open_needs.items() if count == 0]
    for name in ready:  # the list grows during the loop
        for dependent in dependents[name]:
            open_needs[dependent] -= 1
            if open_needs[dependent] == 0:
                ready.append(dependent)
    return [by_name[name] for name in ready]
