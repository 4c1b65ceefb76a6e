"""Look at a run from outside while it goes on: what waits and what runs; from any thread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from paropt_exporter.engine.interfaces import Demand
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


def demand(
    states: Sequence[StageState],
    startable: Iterable[StageState],
    *,
    now: float,
    size: int,
    ends_seconds: float | None,
    work: bool,
) -> Demand:
    """Return the tasks that could run, in the order in which they would start, those that do, and what is left to do.

    `ends_seconds`: the moment at which the lane breaks its total. `work`: whether to sum up the work left.
    """
    return Demand(
        ready=tuple((state.pool, state.name, count) for state in startable if (count := len(state.ready))),
        running=tuple(
            (attempt.running.pool, state.name, attempt.running.label, attempt.started_seconds)
            for state in states
            for attempt in tuple(state.attempts)
        ),
        ended=tuple(
            (state.name, state.attempts_ended, state.wanted_seconds, state.busy_seconds)
            for state in states
            if state.attempts_ended
        ),
        peaks=tuple((state.name, peak) for state in states if (peak := state.task_peak_bytes)),
        stages=tuple(state.counts(now) for state in states if state.started and len(state.plan.tasks) > 1),
        work_seconds=sum(state.work_seconds(now) for state in states) if work else 0.0,
        path_seconds=_longest_path(states, now) if work else 0.0,
        left_seconds=None if ends_seconds is None else ends_seconds - now,
        rescue_size=_rescue_size(states, now, size),
    )


def _longest_path(states: Sequence[StageState], now: float) -> float:
    """Return the longest chain of tasks that depend on each other, in seconds; stages stand in any order."""
    by_name = {state.name: state for state in states}
    known: dict[str, float] = {}
    for first in by_name:
        stack = [first]
        while stack:
            state = by_name[stack[-1]]
            needs = [need for need in state.plan.needs if need in by_name]
            if open_needs := [need for need in needs if need not in known]:
                stack += open_needs
                continue
            known[state.name] = state.longest_task_seconds(now) + max((known[need] for need in needs), default=0.0)
            stack.pop()
    return max(known.values(), default=0.0)


def _rescue_size(states: Iterable[StageState], now: float, size: int) -> int:
    """Return the smallest size that saves every stage at risk that more workers can save; 0: there is none."""
    more = [extra for state in states if state.started and (extra := state.workers_to_be_saved(now)) > 0]
    return size + sum(more) if more else 0
