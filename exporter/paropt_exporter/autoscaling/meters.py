"""Measure among how many of its stage tasks run, and how long they take there, from one look to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from paropt_exporter.autoscaling.policy.scaling_effectiveness import COMPLETIONS
from paropt_exporter.autoscaling.policy.stage_concurrency import ConcurrencyLevel, StageMeasurement, StageState
from paropt_exporter.autoscaling.signals.local_counters import CounterSample, ServiceTimes
from paropt_exporter.clock import Clock
from paropt_exporter.engine import StageCounts
from paropt_exporter.plan import THREADS

_RENEWED = 10 * COMPLETIONS  # completions after which a measure begins anew: it is of how tasks are now


class ConcurrencyMeter:
    """Service times of running stages while tasks of theirs wait.

    Guarantees: a stage's measure begins anew when its state has changed; time while nothing waits does not count.
    """

    def __init__(self) -> None:
        self._stages: dict[str, _Measure] = {}

    def look(
        self, counts: Iterable[StageCounts], states: Iterable[StageState], now: float
    ) -> tuple[StageMeasurement, ...]:
        """Take the stages' counters at the monotonic moment `now`; return each as it is seen since its last change."""
        changes = {state.stage: state.changes for state in states}
        self._stages = {one.stage: self._measured(one, changes, now) for one in counts}
        return tuple(measure.measurement() for measure in self._stages.values())

    def _measured(self, counts: StageCounts, changes: Mapping[str, int], now: float) -> _Measure:
        measure, changed = self._stages.get(counts.stage), changes.get(counts.stage, 0)
        if measure is None or measure.changes != changed or measure.worn:
            return _Measure(counts, changed, now)
        measure.add(counts, now)
        return measure


class _Measure:
    """One stage since its state last changed."""

    def __init__(self, counts: StageCounts, changes: int, now: float) -> None:
        self.changes = changes
        self._times = ServiceTimes()
        self._seconds = self._busy_seconds = self._ended = 0.0
        self._last, self._counts = _count(counts, now), counts

    @property
    def worn(self) -> bool:
        return self._ended >= max(_RENEWED, 4 * self._company)

    @property
    def _company(self) -> float:
        return self._busy_seconds / self._seconds if self._seconds > 0 else 0.0

    def add(self, counts: StageCounts, now: float) -> None:
        count = _count(counts, now)
        if counts.waiting and self._counts.waiting:
            self._times.add(self._last, count)
            self._ended += count.finished - self._last.finished
            self._seconds += count.moment - self._last.moment
            self._busy_seconds += max(0.0, count.busy - self._last.busy)
        self._last, self._counts = count, counts

    def measurement(self) -> StageMeasurement:
        counts = self._counts
        return StageMeasurement(
            stage=counts.stage,
            running=counts.running,
            waiting=counts.waiting,
            level=ConcurrencyLevel(concurrency=self._company, sample=self._times.sample()),
            fastest_seconds=counts.fastest_seconds,
        )


def _count(counts: StageCounts, now: float) -> CounterSample:
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
    """The highest memory use of one task, by stage.

    Guarantees: a peak only grows; a task in a thread has no memory of its own, so it is promised none either.
    """

    def __init__(self, known: Mapping[str, int] = MappingProxyType({})) -> None:
        """Begin with what is known from earlier runs, or from the config."""
        self._peaks = dict(known)

    def look(self, running: Iterable[tuple[str, str, int]], ended: Iterable[tuple[str, int]]) -> None:
        """Take what running tasks hold now, as (pool, stage, bytes), and what ended ones held at most."""
        own = ((stage, size) for pool, stage, size in running if pool != THREADS)
        for stage, size in (*own, *ended):
            self._peaks[stage] = max(size, self._peaks.get(stage, 0))

    def of_task(self, pool: str, stage: str) -> int:
        """Return the most that a running task takes; 0: not known, or not its own."""
        return 0 if pool == THREADS else self.of_stage(stage)

    def of_stage(self, stage: str) -> int:
        """Return the most that a task of the stage takes; 0: not known."""
        return self._peaks.get(stage, 0)

    def held(self, running: Iterable[tuple[str, str, int]]) -> int:
        """Return what running tasks hold of their peaks."""
        return sum(min(size, self.of_task(pool, stage)) for pool, stage, size in running)


_Value = TypeVar("_Value")

CORES_SECONDS = 1.0  # a quota or an affinity changes by hand: half of the 2 s within which a wrong size is corrected
MEMORY_SECONDS = 0.2  # memory fills at some GB/s at most, and the policy waits 1 s before it takes slots away for it


class CachedReading(Generic[_Value]):
    """A callable that reads anew once its last reading is older than `seconds`. For one thread."""

    def __init__(self, read: Callable[[], _Value], seconds: float, clock: Clock) -> None:
        self._read = read
        self._seconds = seconds
        self._clock = clock
        self._value: _Value | None = None
        self._until = 0.0

    def __call__(self) -> _Value:
        now = self._clock.monotonic()
        if self._value is None or now >= self._until:
            self._value, self._until = self._read(), now + self._seconds
        return self._value
