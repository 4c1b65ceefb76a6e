"""The controller: set the size of a running lane between floor and ceiling, and admit tasks by their demands."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from paropt_exporter.autoscaling.decisions import serialize_decision, serialize_observation
from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.lane_observer import KnownDemands, KnownStages, LaneObserver
from paropt_exporter.autoscaling.policy.fixed_workload import Sizing, lock_is_full
from paropt_exporter.autoscaling.policy.lane_size import (
    STABLE_SECONDS,
    LaneAssessment,
    LaneDecision,
    LaneObservation,
    LaneSizingState,
    assess_lane,
    compute_lane_sizing,
    compute_memory_bound,
    count_spare_slots,
    count_tasks,
    decide_by_sizing,
)
from paropt_exporter.autoscaling.policy.stabilization import Peaks, add_peak
from paropt_exporter.autoscaling.policy.stage_concurrency import collect_limits
from paropt_exporter.autoscaling.state import ADVISE, PAUSE, PIN, PROMETHEUS, ControlState
from paropt_exporter.clock import Clock
from paropt_exporter.engine.interfaces import Admission, Demand
from paropt_exporter.events import Decision, Event, RunningTask
from paropt_exporter.families import DECISION_REASONS

QUIET_SECONDS = 2.0  # by then a wrong size has been corrected and every demand is known
QUIET_TICK_SECONDS = 0.5  # once no task waits and nothing has changed for QUIET_SECONDS
_HOLD_SECONDS = 1.0  # the shortest time between reports of holds, of which only changed ones are reported


class ControllableRun(Protocol):
    """The run that the controller sizes: `engine.Run`, or a fake."""

    @property
    def run_id(self) -> str: ...

    @property
    def size(self) -> int: ...

    def measure_demand(self) -> Demand: ...

    def resize(self, size: int) -> None: ...

    def set_stage_limits(self, stages: Mapping[str, int]) -> None:
        """Limit how many tasks of these stages run at once; other stages have no limit."""

    def set_admission(self, admission: Admission | None) -> None:
        """Start only tasks for which cores are left; None: start any task for which a slot is free."""


class ControllablePools(Protocol):
    """The pools that the controller sizes: `engine.PoolWorkers`, or a fake."""

    def running(self) -> tuple[RunningTask, ...]: ...

    def get_pool_sizes(self, size: int) -> Mapping[str, int]:
        """Return how many slots of a lane of `size` the tasks of each pool could take."""

    def get_targets(self) -> Mapping[str, int]:
        """Return the target of each pool that this run uses."""

    def resize_pools(
        self, size: int, reason: str, tasks: Mapping[str, int] | None = None
    ) -> tuple[tuple[str, int, int], ...]:
        """Set the pools' targets for a lane of `size`; return (pool, old, new) for each that changed.

        `tasks`: how many of the lane's tasks each pool gets; None: any number.
        """


class Controller:
    """Sizes one run; `ControlThread` calls it from a thread of its own.

        run, pools, host --observation--> policy.lane_size --decision--> run.resize, resize_pools, Decision events
                                                |
                                      stage limits, admission --> run

    It takes the steps of `decide_lane_size` one by one, since it uses the assessment and the sizing, too.

    Guarantees: only the controller writes the run's size; the size does not fall within STABLE_SECONDS of a moment that
    needed more; while the controller sets the size itself, no task starts unless cores are left for its demand as known
    then; each resize emits a Decision for each pool that it changes, and each new reason to hold emits one for each
    pool.

    `objective`: `fast`, or `deadline`, which means just enough workers for the lane to keep its total. A stage that
    gets no more done with more tasks at once gets its own limit, and other stages get the slots. Each step calls
    `offer` with the number of jobs for which there is room beside the run's tasks.
    """

    def __init__(
        self,
        run: ControllableRun,
        pools: ControllablePools,
        *,
        control_state: ControlState,
        host: HostReadings,
        emit: Callable[[Event], None],
        clock: Clock,
        known: KnownStages = KnownStages(),  # noqa: B008 -- frozen
        objective: str = "fast",
        offer: Callable[[int], None] | None = None,
    ) -> None:
        self._run = run
        self._pools = pools
        self._control_state = control_state
        self._host = host
        self._emit = emit
        self._clock = clock
        self._offer = offer
        self._observer = LaneObserver(host, known, objective)
        self._limits: Mapping[str, int] = {}
        self._state = LaneSizingState()
        self.peak_size = 0  # the largest size that the run could use; 0 before the first step
        self.has_waiting_tasks = True
        self._tasks_per_pool: Mapping[str, int] | None = None
        self._pool_peaks: dict[str, Peaks] = {}  # the most tasks that each pool had within the stable time
        self._reported_hold: tuple[tuple[object, ...], float] = ((), 0.0)  # why it held at the last report, and when
        self._quiet: tuple[object, ...] = ()  # the running tasks and the bounds at the last check
        self._quiet_since = self._stepped_at = -math.inf

    def is_quiet(self) -> bool:
        """Return whether the next step can wait: no task waits, and the same tasks have been running for seconds."""
        now, demand = self._clock.monotonic(), self._run.measure_demand()
        state = self._control_state
        current = (state.override, state.size_bounds, demand.rescue_size, *(task[2] for task in demand.running))
        if demand.ready or self._offer is not None or current != self._quiet:
            self._quiet, self._quiet_since = current, now
        if now >= self._quiet_since + QUIET_SECONDS and now < self._stepped_at + QUIET_TICK_SECONDS:
            return True
        self._stepped_at = now
        return False

    def step(self) -> None:
        """Observe the lane once, decide, and apply the decision."""
        if self._has_nothing_to_do():
            return
        now, running = self._clock.monotonic(), self._pools.running()
        self._observer.sample(running, now)
        demand = self._run.measure_demand()
        observation = self._observe(demand, now, {task.label: task.memory_bytes for task in running})
        self.has_waiting_tasks = bool(observation.waiting)
        assessment = assess_lane(observation)
        sizing = compute_lane_sizing(observation, assessment)
        decision = decide_by_sizing(observation, assessment, sizing)
        self._state = decision.state
        self._set_stage_limits(collect_limits(decision.state.stages))
        allocates_cores = self._control_state.allocates_cores
        admission = self._build_admission(self._observer.get_demands(demand), observation) if allocates_cores else None
        self._run.set_admission(admission)
        by_queries = self._control_state.source == PROMETHEUS
        size, reason = self._get_query_size(observation) if by_queries else (decision.size, decision.reason)
        if reason == "bounds":
            reason = self._find_cause_of_bound(observation.size, size)
        self._record_peak_size(sizing)
        self._tasks_per_pool = self._hold_pool_sizes(sizing.pools, now) if allocates_cores else None
        self._control_state.set_recommended_sizes(self._pools.get_pool_sizes(size))
        self._apply(_Evaluation(observation, assessment, decision, by_queries=by_queries), size, reason)
        if self._offer is not None:
            self._offer(count_spare_slots(observation, fixed=self._get_fixed_slots()))

    def _find_cause_of_bound(self, old: int, new: int) -> str:
        """Return which signal set the bound that decides a size; "bounds" if it is the config's bound."""
        bounds, config = self._control_state.size_bounds, self._control_state.config_bounds
        is_raised, is_floor_moved = old < bounds.floor, bounds.floor > config.minimum
        # before the floor, which is no higher than a lowered ceiling, whatever the load
        if new >= bounds.ceiling and bounds.ceiling < config.maximum and not (is_raised and is_floor_moved):
            return "limit"
        return "load" if is_floor_moved and (is_raised or new <= min(old, bounds.floor)) else "bounds"

    def _record_peak_size(self, sizing: Sizing) -> None:
        """Keep the largest size that this run could use. A surplus shows that an earlier, larger one was wrong."""
        self.peak_size = sizing.size if sizing.surplus else max(self.peak_size, sizing.size)

    def _hold_pool_sizes(self, pools: Mapping[str, int], now: float) -> Mapping[str, int]:
        """Return how many workers each pool needs: the most tasks that it had within the stable time."""
        for pool in self._pool_peaks.keys() | pools.keys():
            self._pool_peaks[pool] = add_peak(self._pool_peaks.get(pool, ()), now, pools.get(pool, 0), STABLE_SECONDS)
        return {pool: peaks[0][1] for pool, peaks in self._pool_peaks.items()}

    def _build_admission(self, demands: KnownDemands, observation: LaneObservation) -> Admission:
        memory = observation.memory
        return Admission(
            cores=self._host.cores(),
            floor=self._control_state.size_bounds.floor,
            stages=demands.stages,
            tasks=demands.tasks,
            held=frozenset(
                group.load.stage for group in observation.waiting if lock_is_full(observation.running, group.load)
            ),
            stuck=observation.stuck,
            peak_bytes=self._observer.get_peaks(),
            memory_bytes=None if memory is None else memory.available_bytes - memory.reserve_bytes,
            held_bytes=self._observer.held_bytes,
        )

    def _set_stage_limits(self, stages: Mapping[str, int]) -> None:
        if stages != self._limits:
            self._limits = stages
            self._run.set_stage_limits(stages)

    def _get_fixed_slots(self) -> int | None:
        override, bounds = self._control_state.override, self._control_state.config_bounds
        if override.mode == PIN:
            return override.size
        return bounds.maximum if bounds.fixed else None

    def _has_nothing_to_do(self) -> bool:
        """Return whether the lane has its fixed size, no pin asks for another, and no jobserver needs an offer."""
        state = self._control_state
        bounds = state.config_bounds
        at_rest = bounds.fixed and self._run.size == bounds.maximum and state.override.mode != PIN
        return at_rest and self._offer is None

    def _get_query_size(self, observation: LaneObservation) -> tuple[int, str]:
        """Return the size by query results, and the reason; before their first decision the present size."""
        bounds = self._control_state.size_bounds
        if bounds.query_size is None:
            return observation.size, "no_data"
        up_or_down = "up" if bounds.query_size > observation.size else "down"
        action = "hold" if bounds.query_size == observation.size else up_or_down
        return bounds.query_size, bounds.reason if bounds.reason in DECISION_REASONS[action] else "demand"

    def _observe(self, demand: Demand, now: float, memory_bytes: Mapping[str, int]) -> LaneObservation:
        bounds = self._control_state.size_bounds
        self._control_state.set_rescue_size(demand.rescue_size)
        if (slots_per_task := demand.average_slots()) is not None:
            self._control_state.set_slots_per_task(slots_per_task)
        return self._observer.observe(
            demand,
            now,
            memory_bytes,
            size=self._run.size,
            floor=bounds.floor,
            ceiling=bounds.ceiling,
            state=self._state,
            limits_stages=self._control_state.follows_controller,
        )

    def _apply(self, evaluation: _Evaluation, size: int, reason: str) -> None:
        """Resize to `size`, unless a person's override says otherwise."""
        override = self._control_state.override
        if override.mode == PIN and override.size is not None:
            self._resize_or_hold(evaluation, override.size, "pinned")
        elif override.mode == PAUSE:
            observation = evaluation.observation
            self._control_state.keep_paused_size(observation.size)
            self._tasks_per_pool = self._count_tasks_per_pool(observation)
            self._resize_or_hold(evaluation, observation.size, "paused")
        elif override.mode == ADVISE:
            self._report_hold(evaluation, "advised")
        else:
            self._resize_or_hold(evaluation, size, reason)

    def _count_tasks_per_pool(self, observation: LaneObservation) -> Mapping[str, int]:
        """Return how many workers each pool needs for all of its tasks; at least as many as it has."""
        counts = Counter(self._pools.get_targets())
        tasks = Counter[str]()
        for group in (*observation.running, *observation.waiting):
            tasks[group.load.pool] += group.count
        return counts | tasks  # the larger of both

    def _resize_or_hold(self, evaluation: _Evaluation, size: int, reason: str) -> None:
        # One pool may grow and another shrink while the lane's size stays.
        observed_size = evaluation.observation.size
        resize_reason = reason if size != observed_size else "demand"
        changed = self._pools.resize_pools(size, resize_reason, self._tasks_per_pool)
        if size == observed_size and not changed:
            self._report_hold(evaluation, reason)
            return
        self._run.resize(size)
        for pool, old, new in changed:
            action = "up" if new > old else "down"
            default = "plan" if action == "down" else "demand"
            why = resize_reason if resize_reason in DECISION_REASONS[action] else default
            if new < min(old, size) and all(group.load.pool != pool for group in evaluation.observation.waiting):
                why = "plan"  # the lane has slots for more of its tasks, but there are no more
            self._emit_decision(evaluation, pool=pool, action=action, reason=why, old=old, new=new)

    def _report_hold(self, evaluation: _Evaluation, reason: str) -> None:
        observation = evaluation.observation
        why = (reason, *sorted(self._limits.items()))
        reported, at = self._reported_hold
        if why == reported or observation.now < at + _HOLD_SECONDS:
            return
        self._reported_hold = (why, observation.now)
        for pool, size in self._pools.get_targets().items():
            self._emit_decision(evaluation, pool=pool, action="hold", reason=reason, old=size, new=size)

    def _emit_decision(
        self, evaluation: _Evaluation, *, pool: str, action: str, reason: str, old: int, new: int
    ) -> None:
        if evaluation.by_queries and reason not in ("pinned", "paused", "advised"):
            return
        self._emit(
            Decision(
                pool=pool,
                action=action,
                reason=reason,
                old_size=old,
                new_size=new,
                at_timestamp_seconds=self._clock.wall(),
                terms=_build_terms(evaluation),
                run_id=self._run.run_id,
                situation=serialize_observation(evaluation.observation),
                choice=serialize_decision(evaluation.decision),
            )
        )


class _Evaluation(Struct, frozen=True):
    """An observation with the policy's decision, which are recorded even if a person's override applies instead.

    `by_queries`: the bounds controller has decided the size and emitted the decision already.
    """

    observation: LaneObservation
    assessment: LaneAssessment
    decision: LaneDecision
    by_queries: bool


def _build_terms(evaluation: _Evaluation) -> Mapping[str, float]:
    observation = evaluation.observation
    terms: dict[str, float] = {
        "running": count_tasks(observation.running),
        "waiting": count_tasks(observation.waiting),
        "cores": observation.cores,
        "cores_used": sum((group.load.cpu_demand or 0.0) * group.count for group in observation.running),
        "floor": observation.floor,
        "ceiling": observation.ceiling,
        "lane_size": observation.size,
        "lane_size_chosen": evaluation.decision.size,
    }
    memory = observation.memory
    if memory is not None:
        terms |= {"memory_available_bytes": memory.available_bytes, "memory_held_bytes": memory.held_bytes}
    if (bound := compute_memory_bound(observation, evaluation.assessment)) is not None:
        terms["memory_size"] = bound
    return terms
