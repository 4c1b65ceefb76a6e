"""The stages of a run that have not ended, and those of them that may start tasks, kept up to date event by event."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from paropt_exporter.engine.stage import StageState
from paropt_exporter.events import Result


class OpenStages:
    """Open stages in plan order.

    ```
    waiting for needs --last need succeeded--> startable --end--> gone
           '--a need failed--> lost (returned once by `next_lost`)
    ```
    Guarantees: `end` costs no walk over the other stages; only stages that depend on the ended one are visited. The
    engine's thread calls `end` and `next_lost`; any thread may call `all` and `startable`.
    """

    def __init__(self, stages: Mapping[str, StageState]) -> None:
        self._open = dict(stages)
        self._position = {name: index for index, name in enumerate(stages)}
        self._unmet = {name: set(state.plan.needs) for name, state in stages.items()}
        self._failed: dict[str, set[str]] = {}  # stages that lost needs -> the needs that ended without success
        self._dependents: dict[str, list[str]] = {}
        for name, state in stages.items():
            for need in state.plan.needs:
                self._dependents.setdefault(need, []).append(name)
        self._startable = [state for name, state in stages.items() if not self._unmet[name]]
        self._positions = [self._position[state.name] for state in self._startable]
        self.revision = 0  # how many stages have become startable since the start

    def __len__(self) -> int:
        return len(self._open)

    def all(self) -> tuple[StageState, ...]:
        """Return the stages that have not ended."""
        return tuple(self._open.values())  # one bytecode's work: no other thread sees the dict change meanwhile

    def startable(self) -> tuple[StageState, ...]:
        """Return the open stages whose needs have succeeded, those that run included."""
        return tuple(self._startable)

    def end(self, state: StageState) -> None:
        """Take a stage out that has its record, and tell its dependents."""
        name, record = state.name, state.record
        del self._open[name]
        index = bisect_left(self._positions, self._position[name])
        if self._positions[index : index + 1] == [self._position[name]]:
            del self._startable[index], self._positions[index]
        succeeded = bool(state.plan.skip) or (record is not None and record.result is Result.SUCCESS)
        for dependent in self._dependents.get(name, ()):
            if dependent in self._open:
                self._tell(dependent, name, succeeded=succeeded)

    def next_lost(self) -> tuple[StageState, list[str]] | None:
        """Return the first stage in plan order that can't start any more, and the needs that failed; None: none."""
        self._failed = {name: failed for name, failed in self._failed.items() if name in self._open}
        if not self._failed:
            return None
        name = min(self._failed, key=self._position.__getitem__)
        state, failed = self._open[name], self._failed.pop(name)
        return state, [need for need in state.plan.needs if need in failed]

    def _tell(self, dependent: str, need: str, *, succeeded: bool) -> None:
        if not succeeded:
            self._failed.setdefault(dependent, set()).add(need)
            return
        unmet = self._unmet[dependent]
        unmet.discard(need)
        if not unmet:
            index = bisect_left(self._positions, self._position[dependent])
            self._startable.insert(index, self._open[dependent])
            self._positions.insert(index, self._position[dependent])
            self.revision += 1
