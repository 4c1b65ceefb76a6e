"""Track the resources that running stages hold, and decide whether one more stage or task fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from paropt_exporter.cpu_demand import CORE_SLACK, UNKNOWN_DEMAND, WAITING_DEMAND, CoreBudget
from paropt_exporter.engine.interfaces import Admission, MachineShare
from paropt_exporter.plan import THREADS, PlannedStage


class _RunningTask(NamedTuple):
    """A running task, as the Admission knows it: its demand in cores, and the memory that it may still take."""

    stage: str
    pool: str
    demand: float | None
    growth_bytes: int


class Resources:
    """Slots, memory, cores, locks and exclusiveness of one run.

    Guarantees: two stages that share a lock never overlap; an exclusive stage overlaps with no other; running tasks
    never hold more slots or memory than there are, except for a single task that never fits: it runs alone. Under an
    Admission, no task starts unless cores are left for its demand, and memory for its peak, as known then. Under a
    MachineShare, computing tasks start only within it, and none without any core; tasks that only wait start at any
    time. A size that a person has fixed is kept once there is a core.
    """

    def __init__(self, memory_bytes: int, share: MachineShare | None = None) -> None:
        self._share = share
        self._memory_bytes = memory_bytes
        self._memory_held = 0
        self._slots_held = 0
        self._stages: dict[str, PlannedStage] = {}
        self._restrictive: dict[str, PlannedStage] = {}  # the running stages beside which some others can't run
        self._pools: Counter[str] = Counter()
        self._admission: Admission | None = None
        self._tasks: dict[str, _RunningTask] = {}  # by label
        # stages of which a task has begun in a thread, and of which one has ended there
        self._begun_in_threads: set[str] = set()
        self._tried_in_threads: set[str] = set()
        self._cores = CoreBudget(0.0)
        self._growth_bytes = 0  # the memory that the running tasks may still take
        self._least: frozenset[float | None] = frozenset()

    def set_admission(self, admission: Admission | None) -> bool:
        """Allocate cores by these demands from now on; None: ignore cores. Return whether the admission has changed."""
        if admission is self._admission:
            return False
        self._admission = admission
        self._cores = CoreBudget(0.0) if admission is None else CoreBudget(admission.cores, stuck=admission.stuck)
        self._growth_bytes = 0
        held_bytes = {} if admission is None else admission.held_bytes
        for label, task in self._tasks.items():
            self._count_task(label, task.stage, task.pool, held_bytes=held_bytes.get(label, 0))
        return True

    def set_share(self, share: MachineShare | None) -> None:
        """Use at most this part of the machine from now on; None: this run is alone on it."""
        self._share = share

    @property
    def share(self) -> MachineShare | None:
        return self._share

    @property
    def cores_held(self) -> float:
        """The demand in cores of the running tasks that compute."""
        return UNKNOWN_DEMAND * len(self._tasks) if self._admission is None else self._cores.computing

    @property
    def memory_held_bytes(self) -> int:
        return self._memory_held

    @property
    def slots_held(self) -> int:
        return self._slots_held

    def get_stage_demand(self, stage: str) -> float:
        """Return the cores that one more task of the stage would use; a waiting task counts as 0."""
        admission = self._admission
        demand = UNKNOWN_DEMAND if admission is None else admission.stages.get(stage, UNKNOWN_DEMAND)
        return demand if demand >= WAITING_DEMAND else 0.0

    def is_within_share(self, stage: PlannedStage) -> bool:
        """Return whether the run's share of the machine has room for one more task of the stage."""
        share = self._share
        if share is None:
            return True
        if stage.memory_bytes and self._memory_held + stage.memory_bytes > share.memory_bytes:
            return False
        demand = self.get_stage_demand(stage.name)
        if not demand:
            return True
        if share.cores <= 0:
            return False
        held = self.cores_held
        return held < WAITING_DEMAND or self._admission is None or held + demand <= share.cores + CORE_SLACK

    def set_expected_stages(self, stages: Iterable[str]) -> None:
        """Set the stages that may start tasks under this Admission, for `has_cores_left`."""
        if self._admission is None:
            return
        # `map` is fast: there may be a thousand stages, at each new admission
        demands = set(map(self._admission.stages.get, stages))
        known = [demand for demand in demands if demand is not None]
        least = [min((demand for demand in known if demand < WAITING_DEMAND), default=None)]
        least.append(min((demand for demand in known if demand >= WAITING_DEMAND), default=None))
        self._least = frozenset(demand for demand in least if demand is not None) | (demands & {None})

    def has_cores_left(self) -> bool:
        """Whether there are cores for a task of any expected stage."""
        share = self._share
        if share is not None and share.cores <= 0 and not any(map(_waits, self._least)):
            return False
        if self._admission is None or len(self._tasks) < self._admission.floor:
            return True
        return any(self._cores.room(demand) > 0 for demand in self._least)

    def _count_task(self, label: str, stage: str, pool: str, *, held_bytes: int = 0) -> None:
        admission = self._admission
        demand = 0.0 if admission is None else admission.tasks.get(label, admission.stages.get(stage))
        growth_bytes = max(0, self._get_peak(stage, pool) - held_bytes)
        self._tasks[label] = _RunningTask(stage, pool, demand, growth_bytes)
        self._cores.take(demand)
        self._growth_bytes += growth_bytes

    def _get_peak(self, stage: str, pool: str) -> int:
        """Return the peak memory of a task in bytes; 0: unknown, or in a thread, which has no memory of its own."""
        return 0 if self._admission is None or pool == THREADS else self._admission.peak_bytes.get(stage, 0)

    def count_in_pool(self, pool: str) -> int:
        """Return how many tasks run in `pool`."""
        return self._pools[pool]

    def can_begin_stage(self, stage: PlannedStage) -> bool:
        """Return whether locks and exclusiveness let the stage begin beside the running ones. From any thread."""
        if not self._stages:
            return True
        if stage.exclusive:
            return False
        running = tuple(self._restrictive.values())  # atomic
        return not any(other.exclusive or other.locks & stage.locks for other in running)

    def has_slot(self, size: int) -> bool:
        """Return whether there is room for a task of one slot, or no task runs. `size`: the lane's slots now."""
        return self._slots_held == 0 or self._slots_held < size

    def can_begin_task(self, stage: PlannedStage, pool: str, *, size: int) -> bool:
        """Return whether one more task of the stage fits. `size`: the lane's slots now."""
        if not self.is_within_share(stage):
            return False
        if self._slots_held == 0:
            return True
        enough_memory = self._memory_held + stage.memory_bytes <= self._memory_bytes or not stage.memory_bytes
        has_room = enough_memory and self._slots_held + stage.slots <= size and self.has_memory_for(stage.name, pool)
        return has_room and self.has_cores_for(stage.name, pool)

    def has_memory_for(self, stage: str, pool: str) -> bool:
        """Return whether the peak of one more task of the stage fits.

        The lane's size can't ensure it: it may come from an earlier run, or from small tasks that have just ended.
        """
        admission = self._admission
        if admission is None or admission.memory_bytes is None or len(self._tasks) < admission.floor:
            return True
        peak = self._get_peak(stage, pool)
        return not peak or self._growth_bytes + peak <= admission.memory_bytes

    def has_cores_for(self, stage: str, pool: str) -> bool:
        """Return whether there are cores for one more task of the stage, and for one in threads also the GIL.

        The first task of a stage that has not been measured runs alone in threads: two that compute would take turns at
        the GIL, and on a busy machine each turn waits for a core. Two calls of 0.4 s took 59 s beside 20 busy loops.
        Once it has ended, the pool is chosen by its measurement. Samples never show the demand of calls of a few
        milliseconds: if each waited for it, 200 calls of 5 ms would run one after another.
        """
        admission = self._admission
        if admission is None or len(self._tasks) < admission.floor:
            return True
        demand = admission.stages.get(stage)
        is_tried = demand is not None or stage in self._tried_in_threads
        if pool == THREADS and (stage in admission.held or (stage in self._begun_in_threads and not is_tried)):
            return False
        return self._cores.room(demand) > 0

    def begin_stage(self, stage: PlannedStage) -> None:
        self._stages[stage.name] = stage
        if stage.exclusive or stage.locks:
            self._restrictive[stage.name] = stage

    def end_stage(self, stage: PlannedStage) -> None:
        self._stages.pop(stage.name, None)
        self._restrictive.pop(stage.name, None)

    def begin_task(self, stage: PlannedStage, pool: str, label: str) -> None:
        self._count_task(label, stage.name, pool)
        self._slots_held += stage.slots
        self._memory_held += stage.memory_bytes
        self._pools[pool] += 1
        if pool == THREADS:
            self._begun_in_threads.add(stage.name)

    def end_task(self, stage: PlannedStage, pool: str, label: str) -> None:
        task = self._tasks.pop(label)
        self._cores.take(task.demand, -1)
        # The memory that it held is left only when it is read again: the last reading may have been after its end.
        self._growth_bytes -= task.growth_bytes
        self._slots_held -= stage.slots
        self._memory_held -= stage.memory_bytes
        self._pools[pool] -= 1
        if pool == THREADS:
            self._tried_in_threads.add(stage.name)


def _waits(demand: float | None) -> bool:
    return demand is not None and demand < WAITING_DEMAND


def needs_much_room(stage: PlannedStage) -> bool:
    """Return whether smaller stages could starve the stage by overtaking it."""
    return bool(stage.slots > 1 or stage.memory_bytes or stage.exclusive)
