"""Measure a running lane: the concurrency and service times of its stages, and the memory peaks of their tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from paropt_exporter.autoscaling.policy.scaling_effectiveness import COMPLETIONS
from paropt_exporter.autoscaling.policy.stage_concurrency import ConcurrencyLevel, StageLimitState, StageMeasurement
from paropt_exporter.autoscaling.signals.local_counters import CounterSample, ServiceTimes
from paropt_exporter.engine import StageCounts
from paropt_exporter.plan import THREADS

_RENEWED = 10 * COMPLETIONS  # completions after which a measurement starts again, so that it shows how tasks are now


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


class _StageMeter:
    """The measurement of one stage since its limit last changed."""

    def __init__(self, counts: StageCounts, changes: int, now: float) -> None:
        self.changes = changes
        self._times = ServiceTimes()
        self._seconds = self._busy_seconds = self._ended = 0.0
        self._last, self._counts = _sample_counts(counts, now), counts

    @property
    def is_worn(self) -> bool:
        return self._ended >= max(_RENEWED, 4 * self._concurrency)

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
        slots=0.0,
        cpu=0.0,
        delay=counts.delay_seconds,
    )


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
