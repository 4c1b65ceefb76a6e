"""What running stages hold of the machine, and whether one more stage or task fits beside them."""

from __future__ import annotations

from collections import Counter

from paropt_exporter.plan import PlannedStage


class Shares:
    """Slots, memory, locks and exclusiveness of one run.

    Guarantees: two stages that share a lock never overlap; an exclusive stage overlaps with nothing; the slots and the
    memory held by running tasks never exceed what there is, but for a single task that would fit nowhere else: it runs
    alone rather than never.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._memory_held = 0
        self._slots_held = 0
        self._stages: dict[str, PlannedStage] = {}
        self._pools: Counter[str] = Counter()

    def in_pool(self, pool: str) -> int:
        """Return how many tasks run in `pool`."""
        return self._pools[pool]

    def stage_fits(self, stage: PlannedStage) -> bool:
        """Whether the stage may begin beside those that run: locks and exclusiveness."""
        if stage.exclusive and self._stages:
            return False
        return not any(other.exclusive or other.locks & stage.locks for other in self._stages.values())

    def task_fits(self, stage: PlannedStage, *, size: int) -> bool:
        """Whether one more task of the stage fits: `size` is how many slots the lane may use now."""
        if self._slots_held == 0:
            return True
        enough_memory = self._memory_held + stage.memory_bytes <= self._memory_bytes or not stage.memory_bytes
        return enough_memory and self._slots_held + stage.slots <= size

    def begin_stage(self, stage: PlannedStage) -> None:
        self._stages[stage.name] = stage

    def end_stage(self, stage: PlannedStage) -> None:
        self._stages.pop(stage.name, None)

    def begin_task(self, stage: PlannedStage, pool: str) -> None:
        self._slots_held += stage.slots
        self._memory_held += stage.memory_bytes
        self._pools[pool] += 1

    def end_task(self, stage: PlannedStage, pool: str) -> None:
        self._slots_held -= stage.slots
        self._memory_held -= stage.memory_bytes
        self._pools[pool] -= 1
