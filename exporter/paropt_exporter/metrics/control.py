"""Read the controller's families from the controller itself, at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter import families
from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.events import ControlView, PoolControl, QueryCounts
from paropt_exporter.families import Family
from paropt_exporter.metrics.page import Labels, Value

FAMILIES = (
    families.CONTROL_RECOMMENDED,
    families.CONTROL_FLOOR,
    families.CONTROL_CEILING,
    families.CONTROL_MODE,
    families.CONTROL_QUERY_DURATION,
    families.CONTROL_QUERY_ERRORS,
    families.CONTROL_BLIND,
    families.CONTROL_FLAPPING,
)


def samples(view: ControlView) -> Iterator[tuple[Family, Labels, Value]]:
    """Yield the controller's series; those of queries are there, at 0, also where no Prometheus is asked."""
    for pool in view.pools:
        yield from _of_pool(pool)
    yield from _of_queries(view.queries)


def _of_pool(pool: PoolControl) -> Iterator[tuple[Family, Labels, Value]]:
    name = (pool.pool,)
    yield families.CONTROL_MODE, (*name, pool.mode, pool.source), 1.0
    yield families.CONTROL_RECOMMENDED, name, pool.recommended_size
    yield families.CONTROL_FLOOR, name, pool.floor
    yield families.CONTROL_CEILING, name, pool.ceiling
    yield families.CONTROL_BLIND, name, float(pool.no_data)
    yield families.CONTROL_FLAPPING, name, float(pool.flapping)


def _of_queries(queries: QueryCounts) -> Iterator[tuple[Family, Labels, Value]]:
    buckets = tuple(map(float, queries.buckets))
    took = HistogramTotal(buckets=buckets, sum=queries.seconds) if buckets else HistogramTotal()
    yield families.CONTROL_QUERY_DURATION, (), took
    for kind in families.QUERY_ERRORS:
        yield families.CONTROL_QUERY_ERRORS, (kind,), queries.errors.get(kind, 0)
