"""Read the controller's families from the controller itself, at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter import catalogue
from paropt_exporter.catalogue import Family
from paropt_exporter.metrics.page import Labels, Value
from paropt_exporter.records import ControlView, PoolControl, QueryCounts
from paropt_exporter.tally import HistogramTotal

FAMILIES = (
    catalogue.CONTROL_RECOMMENDED,
    catalogue.CONTROL_FLOOR,
    catalogue.CONTROL_CEILING,
    catalogue.CONTROL_MODE,
    catalogue.CONTROL_QUERY_DURATION,
    catalogue.CONTROL_QUERY_ERRORS,
    catalogue.CONTROL_BLIND,
    catalogue.CONTROL_FLAPPING,
)


def samples(view: ControlView) -> Iterator[tuple[Family, Labels, Value]]:
    """Yield the controller's series; those of queries are there, at 0, also where no Prometheus is asked."""
    for pool in view.pools:
        yield from _of_pool(pool)
    yield from _of_queries(view.queries)


def _of_pool(pool: PoolControl) -> Iterator[tuple[Family, Labels, Value]]:
    name = (pool.pool,)
    yield catalogue.CONTROL_MODE, (*name, pool.mode, pool.source), 1.0
    yield catalogue.CONTROL_RECOMMENDED, name, pool.recommended_size
    yield catalogue.CONTROL_FLOOR, name, pool.floor
    yield catalogue.CONTROL_CEILING, name, pool.ceiling
    yield catalogue.CONTROL_BLIND, name, float(pool.blind)
    yield catalogue.CONTROL_FLAPPING, name, float(pool.flapping)


def _of_queries(queries: QueryCounts) -> Iterator[tuple[Family, Labels, Value]]:
    buckets = tuple(map(float, queries.buckets))
    took = HistogramTotal(buckets=buckets, sum=queries.seconds) if buckets else HistogramTotal()
    yield catalogue.CONTROL_QUERY_DURATION, (), took
    for kind in catalogue.QUERY_ERRORS:
        yield catalogue.CONTROL_QUERY_ERRORS, (kind,), queries.errors.get(kind, 0)
