"""Merge the series of the runs of one project into one set, family by family.

Totals come from the history, which all runs of a project share. Only series that describe processes are merged here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import add

from paropt_exporter import families
from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.families import Family, Kind
from paropt_exporter.metrics.page import Labels, Value

LiveSeries = Mapping[tuple[str, Labels], Value]  # by the name of the family and label values

# Counters of one process; ended processes stay in the sum.
SUMMED_COUNTERS = (
    families.POOL_SUBMITTED,
    families.POOL_FINISHED,
    families.POOL_BUSY,
    families.POOL_SLOT,
    families.POOL_CPU,
    families.POOL_RUN_DELAY,
    families.POOL_RESIZES,
    families.POOL_DEATHS,
    families.CONTROL_QUERY_DURATION,
    families.CONTROL_QUERY_ERRORS,
    families.OBSERVATIONS_DROPPED,
    families.DELIVERIES,
    families.CONFIG_RELOADS,
)
_SUMMED_GAUGES = (
    families.POOL_WORKERS,
    families.POOL_SIZE,
    families.POOL_SIZE_TARGET,
    families.POOL_SIZE_MIN,
    families.POOL_SIZE_MAX,
    families.POOL_QUEUE_DEPTH,
    families.STAGE_TASKS_RUNNING,
    families.CONTROL_RECOMMENDED,
    families.CONTROL_FLOOR,
    families.CONTROL_CEILING,
)
_HIGHEST = (
    families.RUN_IN_PROGRESS,
    families.RUN_INTERVAL,
    families.RUN_PREDICTED_END,
    families.STAGE_RUNNING,
    families.STAGE_MEMORY_PEAK,
    families.POOL_OLDEST_AGE,
    families.CONTROL_BLIND,
    families.CONTROL_FLAPPING,
    families.SLA_NEAR,
    families.SLA_PREDICTED_END,
    families.SLA_PREDICTED_RATIO,
    families.SLA_PREDICTED_BREACH,
)
_LOWEST = (
    families.RUN_STARTED,
    families.RUN_DEADLINE,
    families.STAGE_STARTED,
    families.SLA_DEADLINE,
    families.CONFIG_RELOAD_SUCCESSFUL,
    families.CONFIG_RELOAD_SUCCESS,
)
# The values of the run that began last. A run that is sized by queries finds its series by the epoch of its pools.
_NEWEST = (families.STAGE_PROGRESS, families.CONTROL_MODE, families.DELIVERY_FAILING, families.POOL_EPOCH)
# These stay after their process has ended, until another process replaces them.
_KEPT_GAUGES = (families.POOL_EPOCH, families.STAGE_PROGRESS, families.DELIVERY_FAILING)

_Rule = Callable[[Value, Value], Value]


def to_number(value: Value) -> float:
    """Return a number, or the sum of a histogram."""
    return value.sum if isinstance(value, HistogramTotal) else value


def _sum(one: Value, other: Value) -> Value:
    if isinstance(one, HistogramTotal) and isinstance(other, HistogramTotal):
        return HistogramTotal(buckets=tuple(map(add, one.buckets, other.buckets)), sum=one.sum + other.sum)
    return to_number(one) + to_number(other)


def _get_highest(one: Value, other: Value) -> Value:
    return max(to_number(one), to_number(other))


def _get_lowest(one: Value, other: Value) -> Value:
    return min(to_number(one), to_number(other))


def _get_newest(_: Value, other: Value) -> Value:
    return other


_RULES: dict[str, tuple[Family, _Rule]] = {
    family.name: (family, rule)
    for group, rule in (
        (SUMMED_COUNTERS, _sum),
        (_SUMMED_GAUGES, _sum),
        (_HIGHEST, _get_highest),
        (_LOWEST, _get_lowest),
        (_NEWEST, _get_newest),
    )
    for family in group
}
_KEPT_NAMES = frozenset(family.name for family in (*SUMMED_COUNTERS, *_KEPT_GAUGES))


def merge_series(sources: Iterable[LiveSeries]) -> dict[tuple[Family, Labels], Value]:
    """Return the merged series of processes, given the oldest first. Unknown families and those without a rule are left
    out.

    Series of a newer version with other labels, kinds or buckets are left out, too.
    """
    merged: dict[tuple[Family, Labels], Value] = {}
    for source in sources:
        for (name, labels), value in source.items():
            family, rule = _RULES.get(name, (None, _get_newest))
            if family is None or not _fits(family, labels, value):
                continue
            if family is families.CONTROL_MODE:  # an older run's mode would be a second series of the pool
                for other in [key for key in merged if key[0] is family and key[1][0] == labels[0]]:
                    del merged[other]
            before = merged.get((family, labels))
            merged[family, labels] = value if before is None else rule(before, value)
    return merged


def keep_counters(ended: LiveSeries, series: LiveSeries) -> dict[tuple[str, Labels], Value]:
    """Return the counters and kept gauges of ended processes, including one that ends now."""
    kept = dict(ended)
    for key, value in series.items():
        if key[0] in _KEPT_NAMES and _fits(_RULES[key[0]][0], key[1], value):
            kept[key] = _RULES[key[0]][1](kept[key], value) if key in kept else value
    return kept


def _fits(family: Family, labels: Labels, value: Value) -> bool:
    """Return whether this version can merge and format a series of the family."""
    if len(labels) != len(family.labels):
        return False
    if isinstance(value, HistogramTotal):
        return family.kind is Kind.HISTOGRAM and len(value.buckets) == len(families.BUCKETS_SECONDS) + 1
    return family.kind is not Kind.HISTOGRAM
