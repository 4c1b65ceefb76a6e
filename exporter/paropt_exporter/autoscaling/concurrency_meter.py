"""Measure among how many of its stage tasks run, and how long they take there, from one look to the next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from paropt_exporter.autoscaling.policy.scaling_effectiveness import COMPLETIONS
from paropt_exporter.autoscaling.policy.stage_concurrency import Level, StageSeen, StageState
from paropt_exporter.autoscaling.signals.local import Count, ServiceTimes
from paropt_exporter.engine import StageCounts

_RENEWED = 10 * COMPLETIONS  # completions after which a measure begins anew: it is of how tasks are now


class CompanyMeter:
    """Service times of running stages while tasks of theirs wait.

    Guarantees: a stage's measure begins anew when its state has changed; time while nothing waits does not count.
    """

    def __init__(self) -> None:
        self._stages: dict[str, _Measure] = {}

    def look(self, counts: Iterable[StageCounts], states: Iterable[StageState], now: float) -> tuple[StageSeen, ...]:
        """Take the stages' counters at the monotonic moment `now`; return each as it is seen since its last change."""
        changes = {state.stage: state.changes for state in states}
        self._stages = {one.stage: self._measured(one, changes, now) for one in counts}
        return tuple(measure.seen() for measure in self._stages.values())

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

    def seen(self) -> StageSeen:
        counts = self._counts
        return StageSeen(
            stage=counts.stage,
            running=counts.running,
            waiting=counts.waiting,
            level=Level(company=self._company, sample=self._times.sample()),
            fastest_seconds=counts.fastest_seconds,
        )


def _count(counts: StageCounts, now: float) -> Count:
    return Count(
        moment=now,
        submitted=0.0,
        finished=counts.ended,
        busy=counts.busy_seconds,
        slots=0.0,
        cpu=0.0,
        delay=counts.delay_seconds,
    )
