"""List scheduling (Graham, 1966) by the engine's rules, for computed runs: `--what-if`, advice, `plan`, simulations."""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from paropt_exporter.engine.resources import Resources, needs_much_room
from paropt_exporter.plan import PlannedStage

_Task = TypeVar("_Task")


@dataclass(frozen=True, slots=True, eq=False)
class StartedTask(Generic[_Task]):
    """A task that runs. `label` is unique within the run."""

    stage: PlannedStage
    label: str
    task: _Task


@dataclass(slots=True, eq=False)
class _Stage(Generic[_Task]):
    plan: PlannedStage
    queue: deque[_Task]
    unmet: set[str]
    running: int = 0
    started: int = 0


class ListScheduler(Generic[_Task]):
    """Starts tasks of stages in list order as far as slots, memory, locks and cores allow.

    ```
    queued --start_tasks--> running --end_task--> ended      a stage's last end makes its dependents startable
    ```
    Guarantees: a stage starts only after all stages that it needs have ended (a need without tasks counts as ended);
    tasks of one stage start in their order; `resources` decides whether a task fits, as in a real run. For one thread.
    """

    def __init__(
        self, stages: Iterable[PlannedStage], tasks: Mapping[str, Sequence[_Task]], resources: Resources
    ) -> None:
        """Take stages in the engine's order, and the tasks of each by its name."""
        self.resources = resources
        self._stages = {
            stage.name: _Stage(stage, deque(tasks[stage.name]), set[str]()) for stage in stages if tasks.get(stage.name)
        }
        self._positions = {name: position for position, name in enumerate(self._stages)}
        self._dependents: dict[str, list[_Stage[_Task]]] = {}
        for stage in self._stages.values():
            stage.unmet.update(need for need in stage.plan.needs if need in self._stages)
            for need in stage.unmet:
                self._dependents.setdefault(need, []).append(stage)
        self._startable = [place for name, place in self._positions.items() if not self._stages[name].unmet]
        self._by_position = [*self._stages.values()]
        self._left = len(self._stages)

    @property
    def has_ended(self) -> bool:
        """Whether all tasks have ended."""
        return not self._left

    def get_queue(self, stage: str) -> Sequence[_Task]:
        """Return the tasks of a stage that have not started."""
        return tuple(self._stages[stage].queue)

    def count_running(self, stage: str) -> int:
        """Return how many tasks of a stage run."""
        return self._stages[stage].running

    def start_tasks(self, size: int, limits: Mapping[str, int] = MappingProxyType({})) -> Sequence[StartedTask[_Task]]:
        """Start as many tasks as fit into `size` slots, at most `limits` of a stage at once, and return them."""
        started: list[StartedTask[_Task]] = []
        blocked = False
        for position in tuple(self._startable):
            if blocked or not self.resources.has_slot(size):
                break
            stage = self._by_position[position]
            limit = limits.get(stage.plan.name)
            while stage.queue and (limit is None or stage.running < limit) and self._can_start(stage, size):
                started.append(self._start(stage))
            if not stage.queue:
                self._startable.remove(position)
            # As in the engine, a stage that needs much room is not overtaken, or smaller stages could starve it.
            blocked = bool(stage.queue) and needs_much_room(stage.plan)
        return started

    def end_task(self, started: StartedTask[_Task]) -> None:
        """Free the resources of a task; make the dependents of its stage startable if it was the last one."""
        stage = self._stages[started.stage.name]
        self.resources.end_task(stage.plan, stage.plan.pool, started.label)
        stage.running -= 1
        if stage.queue or stage.running:
            return
        self._left -= 1
        self.resources.end_stage(stage.plan)
        for dependent in self._dependents.get(stage.plan.name, ()):
            dependent.unmet.discard(stage.plan.name)
            if not dependent.unmet:
                insort(self._startable, self._positions[dependent.plan.name])

    def _can_start(self, stage: _Stage[_Task], size: int) -> bool:
        if not stage.started and not self.resources.can_begin_stage(stage.plan):
            return False
        return self.resources.can_begin_task(stage.plan, size=size)

    def _start(self, stage: _Stage[_Task]) -> StartedTask[_Task]:
        if not stage.started:
            self.resources.begin_stage(stage.plan)
        label = f"{stage.plan.name}[{stage.started}]"
        stage.started += 1
        stage.running += 1
        self.resources.begin_task(stage.plan, stage.plan.pool, label)
        return StartedTask(stage.plan, label, stage.queue.popleft())
