"""Decide which ready tasks of a run start now: in plan order, as far as there is room."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from paropt_exporter.engine.interfaces import Admission, MachineUsage, Workers
from paropt_exporter.engine.open_stages import OpenStages
from paropt_exporter.engine.resources import Resources, needs_much_room
from paropt_exporter.engine.stage import StageState
from paropt_exporter.events import Strategy
from paropt_exporter.plan import COMMANDS, Plan


class TaskScheduler:
    """The room for the tasks of one run: the lane's size, limits of stages, the pools' sizes and `resources`.

    Guarantees: no stage overtakes one before it that waits for room of its own kind: several slots, memory, or to run
    alone. Any thread may set `size` and `admission`, and call `set_stage_limits`; the engine's thread calls the other
    methods.
    """

    def __init__(self, plan: Plan, open_stages: OpenStages, resources: Resources, workers: Workers) -> None:
        sequential = plan.strategy is Strategy.SEQUENTIAL
        self.size = 1 if sequential else plan.workers.start
        self.admission: Admission | None = None  # start only tasks for which there are cores, except up to its floor
        self.had_to_wait = False  # whether any task waited for room; a lock of another stage is none
        self._has_waited = False  # whether any task waited for anything
        self._most_slots = 1 if sequential else plan.workers.maximum
        self._open_stages = open_stages
        self._resources = resources
        self._workers = workers
        self._only_commands = all(stage.pool == COMMANDS for stage in plan.stages)
        self._stage_limits: Mapping[str, int] = {}
        self._expected_revision = open_stages.revision

    def set_stage_limits(self, stages: Mapping[str, int]) -> None:
        """Run at most so many tasks of these stages at once, and any number of other stages' tasks."""
        self._stage_limits = dict(stages)

    def start_tasks(self, startable: Sequence[StageState], start: Callable[[StageState], None]) -> None:
        """Call `start` for a stage as often as one of its ready tasks has room; it starts the first of them."""
        revision = self._open_stages.revision
        if self._resources.set_admission(self.admission) or revision != self._expected_revision:
            self._resources.set_expected_stages([state.name for state in startable])
            self._expected_revision = revision
        may_be_full, may_begin = self._has_waited, True
        for state in startable:
            if state.awaits_cache or not state.ready or not (may_begin or state.started):
                continue
            if may_be_full and self._is_full():
                return  # a walk over a thousand waiting stages at each event would cost more than their tasks
            may_be_full = False
            while state.ready and self._can_start(state):
                start(state)
                may_be_full = self._has_waited
            if state.ready and not self._is_at_limit(state):
                may_begin_it = state.started or self._resources.can_begin_stage(state.plan)
                may_be_full = may_be_full or not self._has_waited
                self._has_waited, self.had_to_wait = True, self.had_to_wait or may_begin_it
                if self._waits_for_much_room(state):
                    if may_begin_it:
                        return  # otherwise smaller stages behind it would starve it
                    # It waits for stages that have begun, so their other tasks may start.
                    may_begin = may_begin and not state.plan.exclusive

    def measure_usage(self, startable: Sequence[StageState], *, cores: float) -> MachineUsage | None:
        """Return the demand for cores and memory, `cores` at most; None if no other run shares the machine."""
        resources = self._resources
        if resources.share is None:
            return None
        held, memory_held = resources.cores_held, resources.memory_held_bytes
        wanted, memory_wanted, slots = held, memory_held, self._most_slots - resources.slots_held
        for state in startable:
            if slots <= 0 or wanted >= cores:
                break
            ready = 0 if state.awaits_cache else min(len(state.ready), slots // state.plan.slots)
            held_back = not state.started and not resources.can_begin_stage(state.plan)
            if not ready or held_back or self._is_at_limit(state):
                continue
            slots -= ready * state.plan.slots
            wanted += ready * resources.get_stage_demand(state.name)
            if state.plan.memory_bytes and memory_wanted == memory_held:
                memory_wanted += state.plan.memory_bytes
        return MachineUsage(
            number=resources.share.number,
            cores_held=round(held, 2),
            cores_wanted=round(max(held, min(wanted, cores)), 2),
            memory_held_bytes=memory_held,
            memory_wanted_bytes=memory_wanted,
        )

    def _is_full(self) -> bool:
        """Whether no task of any stage can start."""
        if not (self._resources.has_slot(self.size) and self._resources.has_cores_left()):
            return True
        return self._only_commands and self._resources.count_in_pool(COMMANDS) >= self._workers.get_pool_size(COMMANDS)

    def _can_start(self, state: StageState) -> bool:
        if not state.started and not self._resources.can_begin_stage(state.plan):
            return False
        if self._is_at_limit(state):
            return False
        pool = self._choose_pool(state)
        return self._resources.can_begin_task(state.plan, pool, size=self.size) and (
            self._resources.count_in_pool(pool) < self._workers.get_pool_size(pool)
        )

    def _waits_for_much_room(self, state: StageState) -> bool:
        """Return whether smaller stages could starve the stage by overtaking it, though there are cores for it."""
        pool = self._choose_pool(state)
        large = needs_much_room(state.plan) or not self._resources.has_memory_for(state.name, pool)
        return large and self._resources.has_cores_for(state.name, pool)

    def _choose_pool(self, state: StageState) -> str:
        return self._workers.choose_pool(state.plan, state.ready[0].task)

    def _is_at_limit(self, state: StageState) -> bool:
        return len(state.attempts) >= self._stage_limits.get(state.name, len(state.attempts) + 1)
