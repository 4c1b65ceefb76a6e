"""Observe a lane: measure the CPU demand, memory and service times of its tasks while they run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct, field

from paropt_exporter.autoscaling.host_readings import HostReadings
from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup, RemainingWork
from paropt_exporter.autoscaling.policy.lane_size import (
    LaneObservation,
    LaneSizingState,
    group_equal_loads,
)
from paropt_exporter.autoscaling.policy.memory import Memory
from paropt_exporter.autoscaling.policy.scaling_effectiveness import COMPLETIONS
from paropt_exporter.autoscaling.policy.stage_concurrency import (
    ConcurrencyLevel,
    StageLimitState,
    StageMeasurement,
)
from paropt_exporter.autoscaling.signals.local_counters import CounterSample, ServiceTimes
from paropt_exporter.autoscaling.state import DEADLINE
from paropt_exporter.cpu_demand import count_task_cores
from paropt_exporter.engine.interfaces import Demand, StageCounts
from paropt_exporter.events import RunningTask
from paropt_exporter.executors.demand import DemandMeter, build_samples
from paropt_exporter.plan import THREADS

# how long tasks of unknown demand wait; tasks that only sleep may be held back for less than a second
STUCK_SECONDS = 0.7
# how long a reading, which takes longer than a decision, is used: memory fills by a few GB/s at most, and the policy
# waits 1 s before a lack of memory costs slots
MEMORY_SECONDS = 0.2
_WHOLE_CORE = 0.75  # a task with at least this demand counts as one that only computes
_RENEWED_COMPLETIONS = 10 * COMPLETIONS  # after which a measurement starts again, so that it shows the present tasks


class KnownStages(Struct, frozen=True, kw_only=True):
    """Measurements of earlier runs by stage: CPU demands of a task in cores, and peaks of its memory in bytes."""

    cpu_demands: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    peak_bytes: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class KnownDemands(Struct, frozen=True, kw_only=True):
    """CPU demands in cores: of a stage's next task, and of running tasks by label."""

    stages: Mapping[str, float]
    tasks: Mapping[str, float] = field(default_factory=dict)


class LaneObserver:
    """Builds the observations of one run for the controller, from whose thread all methods are called.

    `known`: measurements of earlier runs, until this run has its own.
    """

    def __init__(self, host: HostReadings, known: KnownStages, objective: str) -> None:
        self._host = host
        self._objective = objective
        self._demands = DemandMeter(known.cpu_demands)
        self._peaks = PeakMeter(known.peak_bytes)
        self._concurrency = ConcurrencyMeter()
        self._unknown_since: dict[str, float] = {}  # waiting stages without a measurement
        self.held_bytes: Mapping[str, int] = {}  # by running tasks, by label, when the memory was last read
        self._memory: Memory | None = None
        self._memory_until = -math.inf

    def sample(self, running: Sequence[RunningTask], now: float) -> None:
        """Measure the running tasks; call it before the run's demand is read."""
        self._demands.sample(build_samples(running, now), now)

    def observe(
        self,
        demand: Demand,
        now: float,
        memory_bytes: Mapping[str, int],
        *,
        size: int,
        floor: int,
        ceiling: int,
        state: LaneSizingState,
        limits_stages: bool,
    ) -> LaneObservation:
        """Return the lane as it is at the monotonic moment `now`. `memory_bytes`: of running tasks, by label.

        `limits_stages`: measure the stages, since the controller may try them with fewer tasks.
        """
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
        stages = self._concurrency.update(demand.stages if limits_stages else (), state.stages, now)
        return LaneObservation(
            now=now,
            size=size,
            floor=floor,
            ceiling=ceiling,
            cores=self._host.cores(),
            running=group_equal_loads(running),
            waiting=waiting,
            state=state,
            stages=stages,
            memory=self._get_memory(demand, memory_bytes, now),
            work=self._get_remaining_work(demand),
            rescue_size=demand.rescue_size if self._objective == DEADLINE else 0,
            stuck=self._is_stuck(demand, now),
        )

    def get_demands(self, demand: Demand) -> KnownDemands:
        """Return the measured CPU demands of the stages and tasks that wait or run."""
        stages = {one[1] for one in demand.ready} | {one[1] for one in demand.running}
        return KnownDemands(
            stages={stage: wanted for stage in stages if (wanted := self._demands.get_group_demand(stage)) is not None},
            tasks={
                label: wanted
                for _, stage, label, _ in demand.running
                if (wanted := self._demands.get_task_demand(label, stage)) is not None
            },
        )

    def get_peaks(self) -> Mapping[str, int]:
        """Return the peak memory of a task of each stage in bytes, as far as it is known."""
        return self._peaks.copy()

    def _is_stuck(self, demand: Demand, now: float) -> bool:
        """Return whether tasks of unknown demand have waited so long that one should be measured even on full cores.

        Not if more tasks than there are cores compute already: only one may run beyond the cores.
        """
        unknown = {stage for _, stage, _ in demand.ready if self._demands.get_group_demand(stage) is None}
        self._unknown_since = {stage: self._unknown_since.get(stage, now) for stage in unknown}
        if not unknown or now - min(self._unknown_since.values()) < STUCK_SECONDS:
            return False
        wanted = [self._demands.get_task_demand(label, stage) for _, stage, label, _ in demand.running]
        computing = sum(demand is None or demand >= _WHOLE_CORE for demand in wanted)
        return computing <= max(1.0, count_task_cores(self._host.cores()))  # with less than a core, still one

    def _get_memory(self, demand: Demand, memory_bytes: Mapping[str, int], now: float) -> Memory | None:
        """Return the last reading of the available memory, with the memory that tasks held at that moment.

        Beside an older reading, memory that tasks have taken since would count twice: as theirs and as available. Once
        one of these tasks has ended, a new reading shows the memory that it has freed.
        """
        own = {
            label: size for pool, _, label, _ in demand.running if pool != THREADS and (size := memory_bytes.get(label))
        }
        if now >= self._memory_until or not self.held_bytes.keys() <= own.keys():
            self.held_bytes, self._memory_until = own, now + MEMORY_SECONDS
            self._memory = self._read_memory(sum(own.values()))
        return self._memory

    def _read_memory(self, held_bytes: int) -> Memory | None:
        available = self._host.memory_available_bytes()
        if not available:
            return None
        reserve = self._host.memory_reserve_bytes()
        return Memory(available_bytes=available, held_bytes=held_bytes, reserve_bytes=reserve)

    def _get_remaining_work(self, demand: Demand) -> RemainingWork | None:
        if self._objective != DEADLINE or demand.left_seconds is None or demand.work_seconds <= 0:
            return None
        return RemainingWork(
            seconds=demand.work_seconds,
            critical_path_seconds=demand.path_seconds,
            left_seconds=demand.left_seconds,
        )


class ConcurrencyMeter:
    """Measures the service times of each running stage while some of its tasks wait.

    Guarantees: a stage's measurement starts again when its limit has changed, and after an update without the stage;
    time without waiting tasks does not count.
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

    Guarantees: a peak only grows. Tasks in threads have no memory of their own, and none is promised to them.
    """

    def __init__(self, known: Mapping[str, int] = MappingProxyType({})) -> None:
        """Start with the peaks of earlier runs, or of the config."""
        self._peaks = dict(known)

    def update(self, running: Iterable[tuple[str, str, int]], ended: Iterable[tuple[str, int]]) -> None:
        """Record the memory that running tasks hold now, as (pool, stage, bytes), and the peaks of ended tasks."""
        own = ((stage, size) for pool, stage, size in running if pool != THREADS)
        for stage, size in (*own, *ended):
            self._peaks[stage] = max(size, self._peaks.get(stage, 0))

    def get_task_peak(self, pool: str, stage: str) -> int:
        """Return the peak of a running task; 0: unknown, or in a thread."""
        return 0 if pool == THREADS else self.get_stage_peak(stage)

    def get_stage_peak(self, stage: str) -> int:
        """Return the peak of a task of the stage; 0: unknown."""
        return self._peaks.get(stage, 0)

    def copy(self) -> Mapping[str, int]:
        return dict(self._peaks)


def _round_demand(demand: float | None) -> float | None:
    """Return a demand to the hundredth of a core: no finer than it is measured, and equal ones form one group."""
    return None if demand is None else round(demand, 2)


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
