"""The controller: while a lane runs, measure its stages and tasks, and move its size between floor and ceiling."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct, field

from paropt_exporter.autoscaling.decisions import serialize_decision, serialize_observation
from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup, RemainingWork, Sizing, lock_is_full
from paropt_exporter.autoscaling.policy.lane_size import (
    STABLE_SECONDS,
    LaneDecision,
    LaneObservation,
    LaneSizingState,
    assess_lane,
    compute_lane_sizing,
    compute_memory_bound,
    count_spare_slots,
    count_tasks,
    decide_by_sizing,
    group_equal_loads,
)
from paropt_exporter.autoscaling.policy.memory import Memory
from paropt_exporter.autoscaling.policy.scaling_effectiveness import COMPLETIONS
from paropt_exporter.autoscaling.policy.stabilization import Peaks, add_peak
from paropt_exporter.autoscaling.policy.stage_concurrency import (
    ConcurrencyLevel,
    StageLimitState,
    StageMeasurement,
    collect_limits,
)
from paropt_exporter.autoscaling.signals.local_counters import CounterSample, ServiceTimes
from paropt_exporter.autoscaling.state import ACT, ADVISE, PAUSE, PIN, PROMETHEUS, ControlState
from paropt_exporter.clock import Clock
from paropt_exporter.engine.interfaces import Admission, Demand, StageCounts
from paropt_exporter.events import Decision, Event, RunningTask
from paropt_exporter.executors.demand import DemandMeter, build_samples
from paropt_exporter.families import DECISION_REASONS
from paropt_exporter.plan import THREADS

log = logging.getLogger(__name__)

TICK_SECONDS = 0.03  # lanes of a few seconds gain nothing from a shorter interval; a step costs about 0.1 ms
STUCK_SECONDS = 0.7  # for which unknown tasks wait; tasks that only sleep may be held back for less than a second
_WHOLE_CORE = 0.75  # from this demand on, a task counts as one that only computes
IDLE_TICK_SECONDS = 0.1  # while no task waits, and there is nothing to decide
QUIET_SECONDS = 2.0  # by then a wrong size has been corrected and every demand is known
QUIET_TICK_SECONDS = 0.5  # once no task waits and nothing has changed for QUIET_SECONDS
_STEP_RATIO = 0.03  # of a core for steps at most: with a thousand waiting stages a step takes milliseconds
DEADLINE = "deadline"
_HOLD_SECONDS = 1.0  # between reports of a hold, whose reason or limits must have changed
_RENEWED_COMPLETIONS = 10 * COMPLETIONS  # then a measurement starts again, so that it shows the present tasks


class ControllableRun(Protocol):
    """The run that the controller sizes: `engine.Run`, or a fake."""

    @property
    def run_id(self) -> str: ...

    @property
    def size(self) -> int: ...

    def measure_demand(self) -> Demand: ...

    def resize(self, size: int) -> None: ...

    def set_stage_limits(self, stages: Mapping[str, int]) -> None:
        """Run at most so many tasks of these stages at once, and any number of other stages' tasks."""

    def set_admission(self, admission: Admission | None) -> None:
        """Start only tasks for which there are cores; None: start any task that has a slot."""


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


class KnownStages(Struct, frozen=True, kw_only=True):
    """Measurements of earlier runs by stage: CPU demands of a task in cores, and peaks of its memory in bytes."""

    cpu_demands: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    peak_bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class Controller:
    """Sizes one run from a thread of its own; `with Controller(...):` around the run.

        run, pools, host --observation--> decide_lane_size --decision--> run.resize, resize_pools, Decision events
                                                |
                                      stage limits, admission --> run

    Guarantees: only the controller writes the run's size; no move down within STABLE_SECONDS of a moment that needed
    more; while it sets the size itself, no task starts without cores for its demand as known then; each resize emits
    a Decision for each pool that it changes, and each new reason to hold one for each pool; an error ends one step.

    `objective`: fast, or deadline: just enough workers for the lane to keep its total. A stage that gets no more done
    with more tasks at once gets a limit of its own, and the other stages get its slots. Each step calls `offer` with
    the number of jobs for which there is room beside the run's tasks.
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
        self._known = known
        self._objective = objective
        self._offer = offer
        self._demands = DemandMeter(known.cpu_demands)
        self._peaks = PeakMeter(known.peak_bytes)
        self._concurrency = ConcurrencyMeter()
        self._limits: Mapping[str, int] = {}
        self._state = LaneSizingState()
        self._peak_size = 0
        self._has_waiting_tasks = True
        self._unknown_since: dict[str, float] = {}  # waiting stages without a measurement
        self._tasks_per_pool: Mapping[str, int] | None = None
        self._pool_peaks: dict[str, Peaks] = {}  # how many tasks each pool had within the stable time
        self._reported_hold: tuple[tuple[object, ...], float] = ((), 0.0)  # why it held at the last report, and when
        self._quiet: tuple[object, ...] = ()  # the running tasks and the bounds at the last check
        self._quiet_since = self._stepped_at = -math.inf
        self._has_failed = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run_steps, name="paropt-control", daemon=True)

    def __enter__(self) -> Controller:
        self.start_admission()
        try:
            self._thread.start()
        except RuntimeError as error:  # the system has no thread left: the pools took the last ones
            log.warning("no thread to size the lane: its size stays", extra={"err": str(error)})
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        # The next run starts with the size that this one could use, not with the one that sufficed at its end.
        sizes = self._pools.get_pool_sizes(self._peak_size or self._run.size)
        self._control_state.set_recommended_sizes(sizes)

    def start_admission(self) -> None:
        """Admit tasks by the demands of earlier runs, until the first measurement of this run."""
        if self._allocates_cores():
            self._run.set_admission(self._build_admission(self._known.cpu_demands, {}, frozenset()))

    def _run_steps(self) -> None:
        cost = 0.0
        while not self._done.wait(get_pause_seconds(has_waiting_tasks=self._has_waiting_tasks, cost_seconds=cost)):
            began = time.thread_time()
            try:
                if self._has_waiting_tasks or not self.is_quiet():  # waiting tasks end the quiet, and may be a thousand
                    self.step()
            except Exception:  # the thread's boundary: without it the lane would keep the last size and admission
                if not self._has_failed:
                    log.exception("a step of the controller failed; later failures are not logged")
                self._has_failed = True
            cost = time.thread_time() - began

    def is_quiet(self) -> bool:
        """Whether the next step can wait: no task waits, and the same tasks have been running for seconds."""
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
        self._demands.sample(build_samples(running, now), now)
        demand = self._run.measure_demand()
        observation = self._observe(demand, now, {task.label: task.memory_bytes for task in running})
        self._has_waiting_tasks = bool(observation.waiting)
        assessment = assess_lane(observation)
        sizing = compute_lane_sizing(observation, assessment)
        decision = decide_by_sizing(observation, assessment, sizing)
        self._state = decision.state
        self._set_stage_limits(collect_limits(decision.state.stages))
        allocates_cores = self._allocates_cores()
        self._run.set_admission(self._build_measured_admission(demand, observation) if allocates_cores else None)
        by_queries = self._control_state.source == PROMETHEUS
        size, reason = self._get_query_size(observation) if by_queries else (decision.size, decision.reason)
        if reason == "bounds":
            reason = self._find_cause_of_bound(observation.size, size)
        self._record_peak_size(sizing)
        self._tasks_per_pool = self._hold_pool_sizes(sizing.pools, now) if allocates_cores else None
        self._control_state.set_recommended_sizes(self._pools.get_pool_sizes(size))
        self._apply(_Evaluation(observation, decision, by_queries=by_queries), size, reason)
        if self._offer is not None:
            self._offer(count_spare_slots(observation, fixed=self._get_fixed_slots()))

    def _find_cause_of_bound(self, old: int, new: int) -> str:
        """Return which signal has moved the bound that decides a size; "bounds": the config's own bounds do."""
        bounds, config = self._control_state.size_bounds, self._control_state.config_bounds
        is_at_floor = old < bounds.floor or new <= min(old, bounds.floor)
        if is_at_floor and bounds.floor > config.minimum:
            return "load"
        return "limit" if new >= bounds.ceiling and bounds.ceiling < config.maximum else "bounds"

    def _record_peak_size(self, sizing: Sizing) -> None:
        """Keep the largest size that this run could use; a surplus contradicts an earlier, larger size."""
        self._peak_size = sizing.size if sizing.surplus else max(self._peak_size, sizing.size)

    def _hold_pool_sizes(self, pools: Mapping[str, int], now: float) -> Mapping[str, int]:
        """Return how many workers each pool needs: the most that it had tasks for within the stable time."""
        for pool in self._pool_peaks.keys() | pools.keys():
            self._pool_peaks[pool] = add_peak(self._pool_peaks.get(pool, ()), now, pools.get(pool, 0), STABLE_SECONDS)
        return {pool: peaks[0][1] for pool, peaks in self._pool_peaks.items()}

    def _allocates_cores(self) -> bool:
        """Whether tasks get cores by their demands: not if a person, the config or query results set the size."""
        return self._sets_size() and not self._control_state.config_bounds.fixed

    def _build_measured_admission(self, demand: Demand, observation: LaneObservation) -> Admission:
        stages = {one[1] for one in demand.ready} | {one[1] for one in demand.running}
        known = {stage: wanted for stage in stages if (wanted := self._demands.get_group_demand(stage)) is not None}
        tasks = {
            label: wanted
            for _, stage, label, _ in demand.running
            if (wanted := self._demands.get_task_demand(label, stage)) is not None
        }
        running = observation.running
        held = {group.load.stage for group in observation.waiting if lock_is_full(running, group.load)}
        return self._build_admission(known, tasks, frozenset(held), stuck=observation.stuck)

    def _build_admission(
        self, stages: Mapping[str, float], tasks: Mapping[str, float], held: frozenset[str], *, stuck: bool = False
    ) -> Admission:
        return Admission(
            cores=self._host.cores(),
            floor=self._control_state.size_bounds.floor,
            stages=stages,
            tasks=tasks,
            held=held,
            stuck=stuck,
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
        """Whether the lane has its fixed size, no pin asks for another, and no jobserver needs an offer."""
        state = self._control_state
        bounds = state.config_bounds
        at_rest = bounds.fixed and self._run.size == bounds.maximum and state.override.mode != PIN
        return at_rest and self._offer is None

    def _sets_size(self) -> bool:
        """Whether the controller's own decisions apply; otherwise it can't try stages with fewer tasks."""
        return self._control_state.override.mode == ACT and self._control_state.source != PROMETHEUS

    def _get_query_size(self, observation: LaneObservation) -> tuple[int, str]:
        """Return the size that query results decided, and the reason; before their first decision the size stays."""
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
        self._demands.learn_ended(demand.ended, now)
        holding = [(pool, stage, memory_bytes.get(label, 0)) for pool, stage, label, _ in demand.running]
        self._peaks.update(holding, demand.peaks)
        running = [
            Load(
                pool=pool,
                stage=stage,
                cpu_demand=_round_demand(self._demands.get_task_demand(label, stage)),
                thread_cpu_demand=round(self._demands.get_thread_demand(label, stage), 2) if pool == THREADS else 0.0,
                peak_bytes=self._peaks.get_task_peak(pool, stage),
                slots=demand.slots.get(stage, 1),
            )
            for pool, stage, label, _ in demand.running
        ]
        waiting = tuple(
            LoadGroup(
                load=Load(
                    pool=pool,
                    stage=stage,
                    cpu_demand=_round_demand(self._demands.get_group_demand(stage)),
                    peak_bytes=self._peaks.get_stage_peak(stage),
                    slots=demand.slots.get(stage, 1),
                ),
                count=count,
            )
            for pool, stage, count in demand.ready
        )
        stages = self._concurrency.update(demand.stages, self._state.stages, now) if self._sets_size() else ()
        return LaneObservation(
            now=now,
            size=self._run.size,
            floor=bounds.floor,
            ceiling=bounds.ceiling,
            cores=self._host.cores(),
            running=group_equal_loads(running),
            waiting=waiting,
            state=self._state,
            stages=stages,
            memory=self._read_memory(self._peaks.sum_held_bytes(holding)),
            work=self._get_remaining_work(demand),
            rescue_size=demand.rescue_size if self._objective == DEADLINE else 0,
            stuck=self._is_stuck(demand, now),
        )

    def _is_stuck(self, demand: Demand, now: float) -> bool:
        """Whether tasks of unknown demand have waited so long that one should be measured even on full cores.

        Not if more tasks than cores only compute: at most one of them may run beyond the cores.
        """
        unknown = {stage for _, stage, _ in demand.ready if self._demands.get_group_demand(stage) is None}
        self._unknown_since = {stage: self._unknown_since.get(stage, now) for stage in unknown}
        if not unknown or now - min(self._unknown_since.values()) < STUCK_SECONDS:
            return False
        wanted = [self._demands.get_task_demand(label, stage) for _, stage, label, _ in demand.running]
        computing = sum(demand is None or demand >= _WHOLE_CORE for demand in wanted)
        return computing <= max(1.0, self._host.cores())  # one runs on half a core too

    def _read_memory(self, held_bytes: int) -> Memory | None:
        available = self._host.memory_available_bytes()
        return Memory(available_bytes=available, held_bytes=held_bytes) if available else None

    def _get_remaining_work(self, demand: Demand) -> RemainingWork | None:
        if self._objective != DEADLINE or demand.left_seconds is None or demand.work_seconds <= 0:
            return None
        return RemainingWork(
            seconds=demand.work_seconds,
            critical_path_seconds=demand.path_seconds,
            left_seconds=demand.left_seconds,
        )

    def _apply(self, evaluation: _Evaluation, size: int, reason: str) -> None:
        """Resize to `size`, unless a person's override says otherwise."""
        override = self._control_state.override
        if override.mode == PIN and override.size is not None:
            self._resize_or_hold(evaluation, override.size, "pinned")
        elif override.mode in (PAUSE, ADVISE):
            self._report_hold(evaluation, "paused" if override.mode == PAUSE else "advised")
        else:
            self._resize_or_hold(evaluation, size, reason)

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
                why = "plan"  # the lane has room for more of its tasks, and there are none
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
                terms=_build_terms(evaluation.observation, evaluation.decision),
                run_id=self._run.run_id,
                situation=serialize_observation(evaluation.observation),
                choice=serialize_decision(evaluation.decision),
            )
        )


def get_pause_seconds(*, has_waiting_tasks: bool, cost_seconds: float) -> float:
    """Return how long to wait for the next step, after one that took `cost_seconds` of CPU time."""
    return max(TICK_SECONDS if has_waiting_tasks else IDLE_TICK_SECONDS, cost_seconds / _STEP_RATIO)


class ConcurrencyMeter:
    """Measures the service times of running stages while tasks of theirs wait.

    Guarantees: a stage's measurement starts again when its limit has changed; time without waiting tasks does not
    count.
    """

    def __init__(self) -> None:
        self._stages: dict[str, _StageMeter] = {}

    def update(
        self, counts: Iterable[StageCounts], states: Iterable[StageLimitState], now: float
    ) -> tuple[StageMeasurement, ...]:
        """Add the stages' counters at the monotonic moment `now`, and return each stage's measurement."""
        changes = {state.stage: state.changes for state in states}
        self._stages = {one.stage: self._update_stage(one, changes, now) for one in counts}
        return tuple(meter.build_measurement() for meter in self._stages.values())

    def _update_stage(self, counts: StageCounts, changes: Mapping[str, int], now: float) -> _StageMeter:
        meter, changed = self._stages.get(counts.stage), changes.get(counts.stage, 0)
        if meter is None or meter.changes != changed or meter.is_worn:
            return _StageMeter(counts, changed, now)
        meter.add(counts, now)
        return meter


class PeakMeter:
    """Measures the highest memory use of one task, by stage.

    Guarantees: a peak only grows; a task in a thread has no memory of its own, so it is promised none.
    """

    def __init__(self, known: Mapping[str, int] = MappingProxyType({})) -> None:
        """Start with the peaks of earlier runs, or of the config."""
        self._peaks = dict(known)

    def update(self, running: Iterable[tuple[str, str, int]], ended: Iterable[tuple[str, int]]) -> None:
        """Add the memory that running tasks hold now, as (pool, stage, bytes), and the peaks of ended tasks."""
        own = ((stage, size) for pool, stage, size in running if pool != THREADS)
        for stage, size in (*own, *ended):
            self._peaks[stage] = max(size, self._peaks.get(stage, 0))

    def get_task_peak(self, pool: str, stage: str) -> int:
        """Return the peak of a running task; 0: unknown, or not its own."""
        return 0 if pool == THREADS else self.get_stage_peak(stage)

    def get_stage_peak(self, stage: str) -> int:
        """Return the peak of a task of the stage; 0: unknown."""
        return self._peaks.get(stage, 0)

    def sum_held_bytes(self, running: Iterable[tuple[str, str, int]]) -> int:
        """Return the part of their peaks that running tasks hold."""
        return sum(min(size, self.get_task_peak(pool, stage)) for pool, stage, size in running)


class _Evaluation(Struct, frozen=True):
    """An observation with the policy's decision; both are recorded whatever a person's override says.

    `by_queries`: the bounds controller has decided the size and emitted the decision already.
    """

    observation: LaneObservation
    decision: LaneDecision
    by_queries: bool


def _round_demand(demand: float | None) -> float | None:
    """Return a demand to the hundredth of a core: no finer than it is measured, and equal ones form one group."""
    return None if demand is None else round(demand, 2)


def _build_terms(observation: LaneObservation, decision: LaneDecision) -> Mapping[str, float]:
    terms: dict[str, float] = {
        "running": count_tasks(observation.running),
        "waiting": count_tasks(observation.waiting),
        "cores": observation.cores,
        "cores_used": sum((group.load.cpu_demand or 0.0) * group.count for group in observation.running),
        "floor": observation.floor,
        "ceiling": observation.ceiling,
        "lane_size": observation.size,
        "lane_size_chosen": decision.size,
    }
    memory = observation.memory
    if memory is not None:
        terms |= {"memory_available_bytes": memory.available_bytes, "memory_held_bytes": memory.held_bytes}
    if (bound := compute_memory_bound(observation, assess_lane(observation))) is not None:
        terms["memory_size"] = bound
    return terms


class _StageMeter:
    """The measurement of one stage since its limit last changed."""

    def __init__(self, counts: StageCounts, changes: int, now: float) -> None:
        self.changes = changes
        self._times = ServiceTimes()
        self._seconds = self._busy_seconds = self._ended = 0.0
        self._last, self._counts = _sample_counts(counts, now), counts

    @property
    def is_worn(self) -> bool:
        return self._ended >= max(_RENEWED_COMPLETIONS, 4 * self._concurrency)

    @property
    def _concurrency(self) -> float:
        return self._busy_seconds / self._seconds if self._seconds > 0 else 0.0

    def add(self, counts: StageCounts, now: float) -> None:
        count = _sample_counts(counts, now)
        if counts.waiting and self._counts.waiting:
            self._times.add(self._last, count)
            self._ended += count.finished - self._last.finished
            self._seconds += count.moment - self._last.moment
            self._busy_seconds += max(0.0, count.busy - self._last.busy)
        self._last, self._counts = count, counts

    def build_measurement(self) -> StageMeasurement:
        counts = self._counts
        return StageMeasurement(
            stage=counts.stage,
            running=counts.running,
            waiting=counts.waiting,
            level=ConcurrencyLevel(concurrency=self._concurrency, sample=self._times.sample()),
            fastest_seconds=counts.fastest_seconds,
        )


def _sample_counts(counts: StageCounts, now: float) -> CounterSample:
    return CounterSample(
        moment=now,
        submitted=0.0,
        finished=counts.ended,
        busy=counts.busy_seconds,
        cpu=0.0,
        delay=counts.delay_seconds,
    )
