"""Show the pools of a Python program on the Prometheus endpoint that it has already."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from paropt_exporter.events import PoolStatistics
from paropt_exporter.metrics import pools
from paropt_exporter.metrics.client import Collector, Metric
from paropt_exporter.metrics.page import Page


class Measured(Protocol):
    """A pool that can be looked at: ThreadPool, ProcessPool, AdaptiveWorkerPool."""

    def statistics(self) -> PoolStatistics | tuple[PoolStatistics, ...]: ...


class PoolCollector(Collector):
    """The `paropt_pool_*` families of some pools, read at each scrape.

    `REGISTRY.register(PoolCollector(pool, project="shop"))`, with prometheus_client's registry. `project` becomes the
    label of that name; pools of one project need different names. Costs the pools nothing between scrapes.
    """

    def __init__(self, *measured: Measured, project: str) -> None:
        self._measured = measured
        self._project = project

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they stand now; from whichever thread scrapes."""
        page = Page(self._project)
        for statistics in self._statistics():
            for family, labels, value in pools.samples(statistics, backlog=(0, 0.0)):
                page.put(family, labels, value)
        yield from page.metrics(pools.FAMILIES)

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: a registry would otherwise collect everything once, at registration."""
        return ()

    def _statistics(self) -> Iterator[PoolStatistics]:
        for pool in self._measured:
            snapshot = pool.statistics()
            yield from (snapshot,) if isinstance(snapshot, PoolStatistics) else snapshot
