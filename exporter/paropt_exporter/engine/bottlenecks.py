"""Find what held a run up: pure functions over its records, with the thresholds of the tuning guide.

Each is stated as a fact; `advice` adds what would have helped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paropt_exporter.events import Bottleneck, Result, StageRecord

SLOW_RATIO = 1.5  # a stage over 1.5x the average stage
UNEVEN_RATIO = 3.0  # slowest over 3x the fastest
UNDER_USED_RATIO = 0.5  # busy under 50 % of the slots' time
SATURATED_RATIO = 0.9  # busy over 90 %
_FEWEST_STAGES = 3  # of two, one is over 1.5x their average just when it takes over 3x the other: that is `uneven`
_NOTICEABLE_SECONDS = 0.1  # ratios between shorter durations are noise that nobody should act on


def find(stages: Sequence[StageRecord], *, busy_ratio: float, queued: bool) -> tuple[Bottleneck, ...]:
    """Return the bottlenecks of a run. `queued`: whether tasks had to wait for a slot.

    A pool counts as saturated only where something waited for it: five busy slots for five tasks are just right.
    """
    # What could not start, or was stopped (a timeout too), says nothing about how long it takes.
    ran = [stage for stage in stages if stage.result in (Result.SUCCESS, Result.FAILURE)]
    # A stage that failed at once is not the fastest of anything, and would halve the average.
    whole = [stage for stage in ran if stage.result is Result.SUCCESS]
    return (*_of_stages(ran, whole), *_of_lane(ran, whole, busy_ratio=busy_ratio, queued=queued))


def _of_stages(ran: Sequence[StageRecord], whole: Sequence[StageRecord]) -> Iterator[Bottleneck]:
    average = sum(stage.duration_seconds for stage in whole) / len(whole) if whole else 0.0
    for stage in ran:
        ratio = stage.duration_seconds / average if average else 0.0
        if len(whole) >= _FEWEST_STAGES and ratio > SLOW_RATIO and stage.duration_seconds >= _NOTICEABLE_SECONDS:
            yield Bottleneck(
                kind="slow",
                stage=stage.stage,
                sentence=f"{stage.stage} is slow: {ratio:.1f}x the average stage",
            )
        if stage.tasks > 1 and _uneven(stage.fastest_task_seconds, stage.slowest_task_seconds):
            ratio = stage.slowest_task_seconds / max(stage.fastest_task_seconds, 1e-3)
            sentence = f"{stage.stage} is uneven: its slowest task took {ratio:.1f}x its fastest"
            yield Bottleneck(kind="uneven", stage=stage.stage, sentence=sentence)
        if stage.gil_bound:
            sentence = f"{stage.stage} is CPU-bound Python in threads: High CPU usage"
            yield Bottleneck(kind="gil_bound", stage=stage.stage, sentence=sentence)


def _of_lane(
    ran: Sequence[StageRecord], whole: Sequence[StageRecord], *, busy_ratio: float, queued: bool
) -> Iterator[Bottleneck]:
    fastest = min(whole, key=lambda stage: stage.duration_seconds, default=None)
    slowest = max(ran, key=lambda stage: stage.duration_seconds, default=None)
    if fastest and slowest and _uneven(fastest.duration_seconds, slowest.duration_seconds):
        ratio = slowest.duration_seconds / max(fastest.duration_seconds, 1e-3)
        sentence = f"stages are uneven: {slowest.stage} took {ratio:.1f}x as long as {fastest.stage}"
        yield Bottleneck(kind="uneven", stage=None, sentence=sentence)
    if ran and busy_ratio < UNDER_USED_RATIO:
        sentence = f"workers were busy {busy_ratio:.0%} of their time"
        yield Bottleneck(kind="under_used", stage=None, sentence=sentence)
    if queued and busy_ratio > SATURATED_RATIO:
        sentence = f"workers were busy {busy_ratio:.0%} of their time while tasks waited"
        yield Bottleneck(kind="saturated", stage=None, sentence=sentence)


def _uneven(fastest: float, slowest: float) -> bool:
    return slowest >= _NOTICEABLE_SECONDS and slowest > UNEVEN_RATIO * fastest
