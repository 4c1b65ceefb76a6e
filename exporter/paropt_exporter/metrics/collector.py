"""Export the pools of a Python program on its own Prometheus endpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from paropt_exporter import families
from paropt_exporter.events import PoolStatistics
from paropt_exporter.executors.base import check_label
from paropt_exporter.families import Family
from paropt_exporter.metrics.client import Collector, Metric
from paropt_exporter.metrics.page import Labels, Page
from paropt_exporter.metrics.samples import NO_BACKLOG, POOL_FAMILIES, Backlog, iter_pool_samples

# the maximum of several pools; all other families are summed
_HIGHEST = (families.POOL_OLDEST_AGE, families.POOL_EPOCH)


@runtime_checkable
class MeasuredPool(Protocol):
    """A pool with statistics: any of this package."""

    def statistics(self) -> PoolStatistics | tuple[PoolStatistics, ...]: ...


@runtime_checkable
class PoolWithBacklog(Protocol):
    """A pool whose tasks may wait for a pool of its own: AdaptivePool, AdaptiveWorkerPool."""

    def backlogs(self) -> dict[str, Backlog]: ...


class PoolCollector(Collector):
    """A collector for the `paropt_pool_*` families of pools; it reads them at each scrape.

    `REGISTRY.register(PoolCollector(pool, project="shop"))` registers it with prometheus_client's registry. `project`
    becomes the label of that name. Pools with the same name, or without one, count as one pool; in two collectors they
    would be duplicate series, of which Prometheus keeps one. Pools do no work for it between scrapes.
    """

    def __init__(self, *measured: MeasuredPool, project: str) -> None:
        """Collect from these pools. Raises TypeError for other objects, and for a `project` that is no string."""
        for pool in measured:
            if not isinstance(pool, MeasuredPool):
                raise TypeError(f"{pool!r} has no statistics: expected a pool of this package")
        check_label("project", project)
        self._pools = measured
        self._project = project

    def collect(self) -> Iterator[Metric]:
        """Yield the current families; from the scraping thread."""
        page = Page(self._project)
        for (family, labels), value in self._add_up().items():
            page.put(family, labels, value)
        yield from page.iter_metrics(POOL_FAMILIES)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: without this method, registration would call `collect`."""
        return ()

    def _add_up(self) -> dict[tuple[Family, Labels], float]:
        totals: dict[tuple[Family, Labels], float] = {}
        for statistics, backlog in self._iter_statistics():
            for family, labels, value in iter_pool_samples(statistics, backlog=backlog):
                assert isinstance(value, int | float)  # no family of a pool is a histogram
                known = totals.get((family, labels), 0.0)
                totals[family, labels] = max(known, value) if family in _HIGHEST else known + value
        return totals

    def _iter_statistics(self) -> Iterator[tuple[PoolStatistics, Backlog]]:
        for pool in self._pools:
            backlogs = pool.backlogs() if isinstance(pool, PoolWithBacklog) else {}
            statistics = pool.statistics()
            for each in (statistics,) if isinstance(statistics, PoolStatistics) else statistics:
                yield each, backlogs.get(each.name, NO_BACKLOG)
