"""Compute how an event changes exported totals and last values. Memory and SQLite both use these functions.

`iter_increments` feeds counters and histograms, `iter_gauge_values` the gauges about the last run. Gauges of a running
lane (`paropt_stage_running`, deadlines) are not here: they end with the process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct, field

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

SeriesKey = tuple[str, tuple[str, ...]]  # the name of a family and its label values, without `project`


class Increment(Struct, frozen=True, kw_only=True):
    """An amount to add to a counter, or to observe in a histogram. `labels` are the values without `project`."""

    family: Family
    labels: tuple[str, ...]
    amount: float = 1.0


class GaugeValue(Struct, frozen=True, kw_only=True):
    """The new value of a gauge, which stays until a later run changes it."""

    family: Family
    labels: tuple[str, ...]
    value: float


class HistogramTotal(Struct, frozen=True, kw_only=True):
    """Observations by bucket, not cumulative; the last bucket is +Inf."""

    buckets: tuple[float, ...] = (0.0,) * (len(families.BUCKETS_SECONDS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> float:
        return sum(self.buckets)


class Totals(Struct, frozen=True, kw_only=True):
    """The counters and histograms of all runs so far."""

    counters: Mapping[SeriesKey, float] = field(default_factory=lambda: MappingProxyType({}))
    histograms: Mapping[SeriesKey, HistogramTotal] = field(default_factory=lambda: MappingProxyType({}))


def sum_totals(parts: Sequence[Totals]) -> Totals:
    """Return the totals of several histories together."""
    if len(parts) == 1:
        return parts[0]
    counters: dict[SeriesKey, float] = {}
    histograms: dict[SeriesKey, HistogramTotal] = {}
    for part in parts:
        for key, number in part.counters.items():
            counters[key] = counters.get(key, 0.0) + number
        for key, total in part.histograms.items():
            before = histograms.get(key, HistogramTotal())
            buckets = tuple(one + other for one, other in zip(before.buckets, total.buckets, strict=True))
            histograms[key] = HistogramTotal(buckets=buckets, sum=before.sum + total.sum)
    return Totals(counters=counters, histograms=histograms)


class LastValues(Struct, frozen=True, kw_only=True):
    """The gauges about the last runs."""

    gauges: Mapping[SeriesKey, float] = field(default_factory=lambda: MappingProxyType({}))


def find_bucket(seconds: float) -> int:
    """Return the index in `HistogramTotal.buckets` of a duration's bucket."""
    return bisect_left(families.BUCKETS_SECONDS, seconds)


def iter_increments(event: Event) -> Iterator[Increment]:
    """Yield the increments of an event. A skipped stage counts in `paropt_stage_runs_total` only.

    Histograms of durations leave out stopped stages, executions of a part of a stage, partial and interrupted runs of a
    lane, runs of only failed stages or items, and runs in which a task was cached. So does `paropt_run_tasks_total`,
    which is divided by the durations of runs.
    """
    match event:
        case TaskRecord():
            yield from _iter_task(event)
        case StageRecord():
            yield from _iter_stage(event)
        case SlaRecord():
            yield _build_sla_increment(event)
        case RunRecord():
            yield from _iter_run(event)
        case Decision():
            yield Increment(family=families.CONTROL_DECISIONS, labels=(event.pool, event.action, event.reason))
        case _:
            return


def iter_gauge_values(event: Event) -> Iterator[GaugeValue]:
    """Yield the last values that an event sets.

    A broken limit shows at once; the end of the stage or run makes it final. A skipped or stopped stage sets only its
    result: duration, memory, breach and whether it is failing keep the values of its last run. A stage that ran only
    failed items sets no duration, memory or breach, either. If a stage succeeds with tasks that were skipped as
    unchanged, its breach is reset, since the limit does not apply. A stage with arguments from the command line sets
    nothing. A partial or interrupted run of a lane sets only its completion time; a run of failed stages also sets the
    time of its success.
    """
    match event:
        case SlaRecord(broken=True):
            yield from _iter_breach_gauges(event.lane, event.stage, event.limit.severity)
        case StageRecord():
            yield from _iter_stage_gauges(event)
        case RunRecord():
            yield from _iter_run_gauges(event)
        case _:
            return


def _iter_task(task: TaskRecord) -> Iterator[Increment]:
    if task.result is Result.SKIP:
        return
    place = (task.lane, task.stage)
    if task.cache is not None and task.attempt == 1:
        labels = (*place, "hit" if task.cached else "miss", task.cache.value)
        yield Increment(family=families.CACHE_LOOKUPS, labels=labels)
    if task.cached:
        yield Increment(family=families.CACHE_SAVED, labels=place, amount=task.saved_seconds)
        return
    yield Increment(family=families.TASK_ATTEMPTS, labels=(*place, task.result.value))
    yield Increment(family=families.TASK_DURATION, labels=place, amount=task.duration_seconds)
    yield Increment(family=families.TASK_QUEUE_WAIT, labels=place, amount=task.queue_wait_seconds)
    if task.cpu_seconds > 0:
        yield Increment(family=families.STAGE_CPU, labels=place, amount=task.cpu_seconds)


def _iter_stage(stage: StageRecord) -> Iterator[Increment]:
    place = (stage.lane, stage.stage)
    yield Increment(family=families.STAGE_RUNS, labels=(*place, stage.result.value))
    if _is_measured(stage):
        yield Increment(family=families.STAGE_DURATION, labels=place, amount=stage.duration_seconds)
    if stage.first_attempts:
        yield Increment(family=families.FIRST_ATTEMPTS, labels=place, amount=float(stage.first_attempts))
    if stage.flaky_attempts:
        yield Increment(family=families.FLAKY_ATTEMPTS, labels=place, amount=float(stage.flaky_attempts))
    if stage.checked:
        yield Increment(family=families.SLA_CHECKS, labels=place)


def _is_measured(stage: StageRecord) -> bool:
    """Return whether all of a stage ran until it ended by itself, or broke its limit.

    If Ctrl-C or another stage's failure stopped it, it has no duration, and has not kept its limit.
    """
    was_stopped = stage.result is Result.CANCELLATION and not stage.broken
    return stage.scope is Scope.ALL and stage.result is not Result.SKIP and not was_stopped


def _build_sla_increment(limit: SlaRecord) -> Increment:
    # The engine sends a warning before every violation, so a violation does not count as a warning here.
    severity = limit.limit.severity.value
    if limit.stage is None and limit.broken:
        return Increment(family=families.LANE_SLA_VIOLATIONS, labels=(limit.lane, severity))
    if limit.stage is None:
        return Increment(family=families.LANE_SLA_WARNINGS, labels=(limit.lane,))
    if limit.broken:
        return Increment(family=families.SLA_VIOLATIONS, labels=(limit.lane, limit.stage, severity))
    return Increment(family=families.SLA_WARNINGS, labels=(limit.lane, limit.stage))


def _iter_run(run: RunRecord) -> Iterator[Increment]:
    yield Increment(family=families.RUNS, labels=(run.lane, run.result.value))
    if run.is_whole and not run.has_cached and run.result is not Result.CANCELLATION:
        yield Increment(family=families.RUN_DURATION, labels=(run.lane,), amount=run.duration_seconds)
        tasks = sum(stage.first_attempts for stage in run.stages)
        yield Increment(family=families.RUN_TASKS, labels=(run.lane,), amount=float(tasks))
    if run.checked:
        yield Increment(family=families.LANE_SLA_CHECKS, labels=(run.lane,))


def _iter_stage_gauges(stage: StageRecord) -> Iterator[GaugeValue]:
    if stage.scope is Scope.ARGUMENTS:
        return
    place = (stage.lane, stage.stage)
    for result in families.RESULTS:
        is_it = float(result == stage.result.value)
        yield GaugeValue(family=families.STAGE_LAST_RESULT, labels=(*place, result), value=is_it)
    if stage.result.bad or stage.result is Result.SUCCESS:
        yield GaugeValue(family=families.STAGE_FAILING, labels=place, value=float(stage.result.bad))
    if stage.scope is Scope.CACHED and stage.result is Result.SUCCESS:
        yield from _iter_breach_gauges(stage.lane, stage.stage, None)
    if not _is_measured(stage):
        return
    yield GaugeValue(family=families.STAGE_LAST_DURATION, labels=place, value=stage.duration_seconds)
    if stage.memory_peak_bytes > 0:
        yield GaugeValue(family=families.STAGE_MEMORY_PEAK, labels=place, value=float(stage.memory_peak_bytes))
    broken = stage.sla.severity if stage.sla is not None and stage.broken else None
    yield from _iter_breach_gauges(stage.lane, stage.stage, broken)


def _iter_run_gauges(run: RunRecord) -> Iterator[GaugeValue]:
    yield GaugeValue(family=families.RUN_LAST_COMPLETION, labels=(run.lane,), value=run.ended_timestamp_seconds)
    if run.partial:
        return
    if run.result is Result.SUCCESS:
        yield GaugeValue(family=families.RUN_LAST_SUCCESS, labels=(run.lane,), value=run.ended_timestamp_seconds)
    if run.failed_only or (run.result is Result.CANCELLATION and not run.broken):
        return
    if run.result is not Result.CANCELLATION:
        yield GaugeValue(family=families.RUN_LAST_DURATION, labels=(run.lane,), value=run.duration_seconds)
    yield from _iter_breach_gauges(run.lane, None, run.total.severity if run.total is not None and run.broken else None)
    found = {(bottleneck.stage, bottleneck.kind) for bottleneck in run.bottlenecks}
    yield from _iter_bottleneck_gauges(run, found)


def _iter_bottleneck_gauges(run: RunRecord, found: Iterable[tuple[str | None, str]]) -> Iterator[GaugeValue]:
    for kind in families.LANE_BOTTLENECKS:
        yield GaugeValue(family=families.LANE_BOTTLENECK, labels=(run.lane, kind), value=float((None, kind) in found))
    for stage in run.stages:
        for kind in families.STAGE_BOTTLENECKS:
            labels, value = (run.lane, stage.stage, kind), float((stage.stage, kind) in found)
            yield GaugeValue(family=families.BOTTLENECK, labels=labels, value=value)


def _iter_breach_gauges(lane: str, stage: str | None, broken: Severity | None) -> Iterator[GaugeValue]:
    """Set both severities: if the config changes `critical`, the old severity must not stay at 1."""
    family = families.LANE_SLA_BREACHED if stage is None else families.SLA_BREACHED
    place = (lane,) if stage is None else (lane, stage)
    for severity in Severity:
        yield GaugeValue(family=family, labels=(*place, severity.value), value=float(severity is broken))
