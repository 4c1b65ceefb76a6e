"""Say how an event changes the exported totals and last values: the one place that memory and SQLite both follow.

`increments` feeds counters and histograms, `settings` the gauges that tell of the last run. What is true only while
something runs (`paropt_stage_running`, deadlines) is not here: it ends with the process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from paropt_exporter import families
from paropt_exporter.events import (
    Decision,
    Event,
    Result,
    RunRecord,
    Scope,
    Severity,
    SlaRecord,
    StageRecord,
    TaskRecord,
)
from paropt_exporter.families import Family

SeriesKey = tuple[str, tuple[str, ...]]  # a family's name and the label values, `project` left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Increment:
    """What is added to a counter, or observed by a histogram. `labels` are the family's, without `project`."""

    family: Family
    labels: tuple[str, ...]
    amount: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a gauge becomes, and stays until the next run says otherwise."""

    family: Family
    labels: tuple[str, ...]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramTotal:
    """Observations by bucket, each counted once (not cumulated); the last one is +Inf."""

    buckets: tuple[float, ...] = (0.0,) * (len(families.BUCKETS_SECONDS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> float:
        return sum(self.buckets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The counters and histograms of all runs so far."""

    counters: Mapping[SeriesKey, float] = field(default_factory=lambda: MappingProxyType({}))
    histograms: Mapping[SeriesKey, HistogramTotal] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class LastValues:
    """The gauges that the last runs left behind."""

    gauges: Mapping[SeriesKey, float] = field(default_factory=lambda: MappingProxyType({}))


def bucket_index(seconds: float) -> int:
    """Return the place in `HistogramTotal.buckets` where a duration counts."""
    return bisect_left(families.BUCKETS_SECONDS, seconds)


def increments(event: Event) -> Iterator[Increment]:
    """Yield what an event adds. A skipped stage adds to `paropt_stage_runs_total` only; other events add nothing.

    A part of a stage, and a partial run of a lane, add to no histogram of durations: these are of whole ones.
    """
    match event:
        case TaskRecord():
            yield from _of_task(event)
        case StageRecord():
            yield from _of_stage(event)
        case SlaRecord():
            yield _of_limit(event)
        case RunRecord():
            yield from _of_run(event)
        case Decision():
            yield Increment(family=families.CONTROL_DECISIONS, labels=(event.pool, event.action, event.reason))
        case _:
            return


def settings(event: Event) -> Iterator[Setting]:
    """Yield what an event leaves as last values.

    A limit broken now shows at once; the end of the stage or run settles it. A skipped stage leaves only its result:
    duration, memory and breach stay those of the last time that it ran. So does a stage that ran failed items only; one
    with arguments of the command line leaves nothing. A partial run of a lane only leaves when it was completed.
    """
    match event:
        case SlaRecord(broken=True):
            yield from _breached(event.lane, event.stage, event.limit.severity)
        case StageRecord():
            yield from _last_of_stage(event)
        case RunRecord():
            yield from _last_of_run(event)
        case _:
            return


def _of_task(task: TaskRecord) -> Iterator[Increment]:
    if task.result is Result.SKIP:
        return
    place = (task.lane, task.stage)
    yield Increment(family=families.TASK_ATTEMPTS, labels=(*place, task.result.value))
    yield Increment(family=families.TASK_DURATION, labels=place, amount=task.duration_seconds)
    yield Increment(family=families.TASK_QUEUE_WAIT, labels=place, amount=task.queue_wait_seconds)
    if task.cpu_seconds > 0:
        yield Increment(family=families.STAGE_CPU, labels=place, amount=task.cpu_seconds)


def _of_stage(stage: StageRecord) -> Iterator[Increment]:
    place = (stage.lane, stage.stage)
    yield Increment(family=families.STAGE_RUNS, labels=(*place, stage.result.value))
    if stage.result is not Result.SKIP and stage.scope is Scope.ALL:
        yield Increment(family=families.STAGE_DURATION, labels=place, amount=stage.duration_seconds)
    if stage.checked:
        yield Increment(family=families.SLA_CHECKS, labels=place)


def _of_limit(limit: SlaRecord) -> Increment:
    # The engine sends the warning before every violation, so a violation need not count as a warning here.
    severity = limit.limit.severity.value
    if limit.stage is None and limit.broken:
        return Increment(family=families.LANE_SLA_VIOLATIONS, labels=(limit.lane, severity))
    if limit.stage is None:
        return Increment(family=families.LANE_SLA_WARNINGS, labels=(limit.lane,))
    if limit.broken:
        return Increment(family=families.SLA_VIOLATIONS, labels=(limit.lane, limit.stage, severity))
    return Increment(family=families.SLA_WARNINGS, labels=(limit.lane, limit.stage))


def _of_run(run: RunRecord) -> Iterator[Increment]:
    yield Increment(family=families.RUNS, labels=(run.lane, run.result.value))
    if not run.partial:
        yield Increment(family=families.RUN_DURATION, labels=(run.lane,), amount=run.duration_seconds)
    if run.checked:
        yield Increment(family=families.LANE_SLA_CHECKS, labels=(run.lane,))


def _last_of_stage(stage: StageRecord) -> Iterator[Setting]:
    if stage.scope is Scope.ARGUMENTS:
        return
    place = (stage.lane, stage.stage)
    for result in families.RESULTS:
        is_it = float(result == stage.result.value)
        yield Setting(family=families.STAGE_LAST_RESULT, labels=(*place, result), value=is_it)
    if stage.result is Result.SKIP or stage.scope is not Scope.ALL:
        return
    yield Setting(family=families.STAGE_LAST_DURATION, labels=place, value=stage.duration_seconds)
    if stage.memory_peak_bytes > 0:
        yield Setting(family=families.STAGE_MEMORY_PEAK, labels=place, value=float(stage.memory_peak_bytes))
    broken = stage.sla.severity if stage.sla is not None and stage.broken else None
    yield from _breached(stage.lane, stage.stage, broken)


def _last_of_run(run: RunRecord) -> Iterator[Setting]:
    yield Setting(family=families.RUN_LAST_COMPLETION, labels=(run.lane,), value=run.ended_timestamp_seconds)
    if run.partial:
        return
    if run.result is Result.SUCCESS:
        yield Setting(family=families.RUN_LAST_SUCCESS, labels=(run.lane,), value=run.ended_timestamp_seconds)
    yield from _breached(run.lane, None, run.total.severity if run.total is not None and run.broken else None)
    found = {(bottleneck.stage, bottleneck.kind) for bottleneck in run.bottlenecks}
    yield from _bottlenecks(run, found)


def _bottlenecks(run: RunRecord, found: Iterable[tuple[str | None, str]]) -> Iterator[Setting]:
    for kind in families.LANE_BOTTLENECKS:
        yield Setting(family=families.LANE_BOTTLENECK, labels=(run.lane, kind), value=float((None, kind) in found))
    for stage in run.stages:
        for kind in families.STAGE_BOTTLENECKS:
            labels, value = (run.lane, stage.stage, kind), float((stage.stage, kind) in found)
            yield Setting(family=families.BOTTLENECK, labels=labels, value=value)


def _breached(lane: str, stage: str | None, broken: Severity | None) -> Iterator[Setting]:
    """Set both severities: a limit whose `critical` was changed must not leave the other one firing."""
    family = families.LANE_SLA_BREACHED if stage is None else families.SLA_BREACHED
    place = (lane,) if stage is None else (lane, stage)
    for severity in Severity:
        yield Setting(family=family, labels=(*place, severity.value), value=float(severity is broken))
