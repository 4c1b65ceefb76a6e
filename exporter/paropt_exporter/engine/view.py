"""Look at a run from outside while it goes on: what waits and what runs; from any thread."""

from __future__ import annotations

from collections.abc import Iterable

from paropt_exporter.engine.contract import Demand
from paropt_exporter.engine.stage import StageState


def backlog(startable: Iterable[StageState], now: float) -> dict[str, tuple[int, float]]:
    """Return, for each pool, how many tasks wait for room, and the age in seconds of the oldest."""
    waiting: dict[str, tuple[int, float]] = {}
    for state in startable:
        since = [ready.ready_seconds for ready in tuple(state.ready)]
        if since:
            count, oldest = waiting.get(state.pool, (0, 0.0))
            waiting[state.pool] = (count + len(since), max(oldest, now - min(since)))
    return waiting


def demand(states: Iterable[StageState], startable: Iterable[StageState]) -> Demand:
    """Return the tasks that could run, in the order in which they would start, and those that do."""
    return Demand(
        ready=tuple((state.pool, state.name) for state in startable for _ in tuple(state.ready)),
        running=tuple(
            (attempt.running.pool, state.name, attempt.running.label, attempt.started_seconds)
            for state in states
            for attempt in tuple(state.attempts)
        ),
    )
