"""Track the resources that running stages hold, and decide whether one more stage or task fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from paropt_exporter.cpu_demand import WAITING_DEMAND, CoreBudget
from paropt_exporter.engine.interfaces import Admission
from paropt_exporter.plan import PlannedStage


class Resources:
    """Slots, memory, cores, locks and exclusiveness of one run.

    Guarantees: two stages that share a lock never overlap; an exclusive stage overlaps with no other; running tasks
    never hold more slots or memory than there are, except for a single task that fits nowhere: it runs alone. Under an
    Admission, no task starts without cores for its demand as known then.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._memory_held = 0
        self._slots_held = 0
        self._stages: dict[str, PlannedStage] = {}
        self._restrictive: dict[str, PlannedStage] = {}  # those of them beside which some stages can't run
        self._pools: Counter[str] = Counter()
        self._admission: Admission | None = None
        self._tasks: dict[str, tuple[str, float | None]] = {}  # label -> stage, demand in cores
        self._cores = CoreBudget(0.0)
        self._least: frozenset[float | None] = frozenset()

    def set_admission(self, admission: Admission | None) -> bool:
        """Allocate cores by these demands from now on; None: ignore cores. Return whether they are new."""
        if admission is self._admission:
            return False
        self._admission = admission
        self._cores = CoreBudget(0.0) if admission is None else CoreBudget(admission.cores, stuck=admission.stuck)
        for label, (stage, _) in self._tasks.items():
            self._count_demand(label, stage)
        return True

    def set_expected_stages(self, stages: Iterable[str]) -> None:
        """Set the stages that may start tasks under this Admission, for `has_cores_left`."""
        if self._admission is None:
            return
        demands = {self._admission.stages.get(stage) for stage in stages}
        known = [demand for demand in demands if demand is not None]
        least = [min((demand for demand in known if demand < WAITING_DEMAND), default=None)]
        least.append(min((demand for demand in known if demand >= WAITING_DEMAND), default=None))
        self._least = frozenset(demand for demand in least if demand is not None) | (demands & {None})

    def has_cores_left(self) -> bool:
        """Whether there are cores for a task of any expected stage."""
        if self._admission is None or len(self._tasks) < self._admission.floor:
            return True
        return any(self._cores.room(demand) > 0 for demand in self._least)

    def _count_demand(self, label: str, stage: str) -> None:
        admission = self._admission
        demand = 0.0 if admission is None else admission.tasks.get(label, admission.stages.get(stage))
        self._tasks[label] = stage, demand
        self._cores.take(demand)

    def count_in_pool(self, pool: str) -> int:
        """Return how many tasks run in `pool`."""
        return self._pools[pool]

    def can_begin_stage(self, stage: PlannedStage) -> bool:
        """Whether locks and exclusiveness let the stage begin beside the running ones."""
        if not self._stages:
            return True
        if stage.exclusive:
            return False
        return not any(other.exclusive or other.locks & stage.locks for other in self._restrictive.values())

    def has_slot(self, size: int) -> bool:
        """Whether there is a slot for a task of one slot, or no task runs. `size`: the lane's slots now."""
        return self._slots_held == 0 or self._slots_held < size

    def can_begin_task(self, stage: PlannedStage, *, size: int) -> bool:
        """Whether one more task of the stage fits. `size`: the lane's slots now."""
        if self._slots_held == 0:
            return True
        enough_memory = self._memory_held + stage.memory_bytes <= self._memory_bytes or not stage.memory_bytes
        return enough_memory and self._slots_held + stage.slots <= size and self.has_cores_for(stage.name)

    def has_cores_for(self, stage: str) -> bool:
        """Whether there are cores for one more task of the stage."""
        admission = self._admission
        if admission is None or len(self._tasks) < admission.floor:
            return True
        return stage not in admission.held and self._cores.room(admission.stages.get(stage)) > 0

    def begin_stage(self, stage: PlannedStage) -> None:
        self._stages[stage.name] = stage
        if stage.exclusive or stage.locks:
            self._restrictive[stage.name] = stage

    def end_stage(self, stage: PlannedStage) -> None:
        self._stages.pop(stage.name, None)
        self._restrictive.pop(stage.name, None)

    def begin_task(self, stage: PlannedStage, pool: str, label: str) -> None:
        self._count_demand(label, stage.name)
        self._slots_held += stage.slots
        self._memory_held += stage.memory_bytes
        self._pools[pool] += 1

    def end_task(self, stage: PlannedStage, pool: str, label: str) -> None:
        _, demand = self._tasks.pop(label)
        self._cores.take(demand, -1)
        self._slots_held -= stage.slots
        self._memory_held -= stage.memory_bytes
        self._pools[pool] -= 1


def needs_much_room(stage: PlannedStage) -> bool:
    """Whether smaller stages could starve the stage by overtaking it."""
    return bool(stage.slots > 1 or stage.memory_bytes or stage.exclusive)
