"""The open stages of a run in plan order, and the demand of their tasks."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from paropt_exporter.engine.interfaces import Demand
from paropt_exporter.engine.stage import StageState
from paropt_exporter.events import Result
from paropt_exporter.plan import PlannedStage
from paropt_exporter.plan.stage_graph import map_dependents, measure_chain


class OpenStages:
    """Open stages in plan order.

    ```
    waiting for needs --last need succeeded--> startable --remove--> gone
           |'--the same, planned to be skipped--> skippable (returned once by `pop_skippable`) --remove--^
           '--a need failed--> lost (returned once by `pop_lost`) --remove--^
    ```
    Guarantees: `remove` visits only stages that depend on the ended one. The engine's thread calls `remove` and the
    `pop_` methods; any thread may call `all` and `startable`.
    """

    def __init__(self, stages: Mapping[str, StageState]) -> None:
        self._open = dict(stages)
        self._position = {name: index for index, name in enumerate(stages)}
        self._unmet = {name: set(state.plan.needs) for name, state in stages.items()}
        self._failed: dict[str, set[str]] = {}  # stages with failed needs -> the needs that ended without success
        self._dependents = map_dependents({name: state.plan.needs for name, state in stages.items()})
        first = [state for name, state in stages.items() if not self._unmet[name]]
        self._skippable = deque(state for state in first if state.plan.skip)
        self._startable = [state for state in first if not state.plan.skip]
        self._positions = [self._position[state.name] for state in self._startable]
        self.revision = 0  # how many stages have become startable since the start

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> tuple[StageState, ...]:
        """Return the stages that have not ended."""
        return tuple(self._open.values())  # atomic: one bytecode copies the dict

    def startable(self) -> tuple[StageState, ...]:
        """Return the open stages whose needs have succeeded, including running ones, without planned skips."""
        return tuple(self._startable)

    def remove(self, state: StageState, now: float) -> None:
        """Remove an ended stage and notify its dependents."""
        name, record = state.name, state.record
        del self._open[name]
        index = bisect_left(self._positions, self._position[name])
        if self._positions[index : index + 1] == [self._position[name]]:
            del self._startable[index], self._positions[index]
        skipped_as_planned = bool(state.plan.skip) and not self._unmet[name]
        succeeded = skipped_as_planned or (record is not None and record.result is Result.SUCCESS)
        for dependent in self._dependents[name]:
            if dependent in self._open:
                self._notify_dependent(dependent, name, now, succeeded=succeeded)

    def pop_lost(self) -> tuple[StageState, list[str]] | None:
        """Return the first stage in plan order that can no longer start, and its failed needs; None without one."""
        self._failed = {name: failed for name, failed in self._failed.items() if name in self._open}
        if not self._failed:
            return None
        name = min(self._failed, key=self._position.__getitem__)
        state, failed = self._open[name], self._failed.pop(name)
        return state, [need for need in state.plan.needs if need in failed]

    def pop_skippable(self) -> StageState | None:
        """Return the next open planned skip whose needs have succeeded; None without one."""
        while self._skippable:
            if not (state := self._skippable.popleft()).ended:
                return state
        return None

    def _notify_dependent(self, dependent: str, need: str, now: float, *, succeeded: bool) -> None:
        if not succeeded:
            self._failed.setdefault(dependent, set()).add(need)
            return
        unmet = self._unmet[dependent]
        unmet.discard(need)
        if unmet:
            return
        state = self._open[dependent]
        if state.plan.skip:
            self._skippable.append(state)
        else:
            index = bisect_left(self._positions, self._position[dependent])
            state.startable_seconds = now
            self._startable.insert(index, state)
            self._positions.insert(index, self._position[dependent])
            self.revision += 1


def measure_backlog(
    startable: Iterable[StageState], now: float, *, can_begin: Callable[[PlannedStage], bool]
) -> dict[str, tuple[int, float]]:
    """Return, for each pool, how many tasks wait for room, and the age in seconds of the oldest.

    Stages that wait for the cache, or that locks keep from beginning, could not use a worker.
    """
    waiting: dict[str, tuple[int, float]] = {}
    for state in startable:
        ready = tuple(state.ready)
        if ready and not state.awaits_cache and (state.started or can_begin(state.plan)):
            count, oldest = waiting.get(state.pool, (0, 0.0))
            since = max(state.startable_seconds, min(each.ready_seconds for each in ready))
            waiting[state.pool] = (count + len(ready), max(oldest, now - since))
    return waiting


def measure_demand(
    open_stages: OpenStages,
    *,
    now: float,
    ends_seconds: float | None,
    sums_work: bool,
    can_begin: Callable[[PlannedStage], bool],
) -> Demand:
    """Return the startable tasks in the order in which they will start, the running ones, and the remaining work.

    Stages that locks keep from beginning could not use a worker. `ends_seconds`: the moment at which the lane breaks
    its total. `sums_work`: whether to sum up the remaining work and find the rescue size, of which only limits make
    use.
    """
    states, startable = open_stages.all(), open_stages.startable()
    return Demand(
        ready=tuple(
            (state.pool, state.name, count)
            for state in startable
            if (count := len(state.ready)) and (state.started or can_begin(state.plan))
        ),
        running=tuple(
            (attempt.running.pool, state.name, attempt.running.label, attempt.started_seconds)
            for state in states
            for attempt in tuple(state.attempts)
        ),
        ended=tuple(
            (state.name, state.attempts_ended, state.wanted_seconds, state.alone_seconds, state.busy_seconds)
            for state in states
            if state.attempts_ended
        ),
        peaks=tuple((state.name, peak) for state in states if (peak := state.task_peak_bytes)),
        stages=tuple(state.build_counts(now) for state in states if state.started and len(state.plan.tasks) > 1),
        work_seconds=sum(state.estimate_work_seconds(now) for state in states) if sums_work else 0.0,
        path_seconds=_compute_longest_path(states, now) if sums_work else 0.0,
        left_seconds=None if ends_seconds is None else ends_seconds - now,
        rescue_size=_compute_rescue_size(states, now) if sums_work else 0,
        slots={state.name: state.plan.slots for state in states if state.plan.slots > 1},
    )


def _compute_longest_path(states: Sequence[StageState], now: float) -> float:
    """Return the longest chain of dependent tasks in seconds; stages may be in any order."""
    needs = {state.name: state.plan.needs for state in states}
    seconds = {state.name: state.estimate_longest_task_seconds(now) for state in states}
    chains: dict[str, float] = {}
    return max((measure_chain(name, needs, seconds, chains) for name in needs), default=0.0)


def _compute_rescue_size(states: Iterable[StageState], now: float) -> int:
    """Return the smallest size that keeps all stages that need several workers within their limits; 0: none does.

    It is an absolute size, since one that saves a stage must not fall again as soon as the stage is safe.
    """
    slots, missing = 0, list[int]()
    for state in states:
        slots += len(state.attempts) * state.plan.slots
        if state.started and (workers := state.count_missing_workers(now)) is not None:
            missing.append(workers * state.plan.slots)
    return slots + sum(missing) if missing else 0
