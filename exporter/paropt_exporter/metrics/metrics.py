"""Merge totals, live stages, pools and host into one page at each scrape."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, cast

from paropt_exporter import families
from paropt_exporter._version import __version__
from paropt_exporter.aggregation import HistogramTotal, LastValues, Totals
from paropt_exporter.events import ControlView, Event, LiveStage, PoolStatistics
from paropt_exporter.families import Family
from paropt_exporter.metrics import build, control, multiprocess, pools
from paropt_exporter.metrics.formats import Format, choose
from paropt_exporter.metrics.labels import LaneLabels
from paropt_exporter.metrics.page import Labels, Page, Value
from paropt_exporter.metrics.state import State

if TYPE_CHECKING:
    from paropt_exporter.metrics.client import Collector, CollectorRegistry, Metric

log = logging.getLogger(__name__)

Series = tuple[Family, tuple[str, ...]]

# Set anew from their source at each scrape; what the source does not name any more is gone from the page.
_READ_AT_SCRAPE = (
    *pools.FAMILIES,
    *control.FAMILIES,
    families.SLA_NEAR,
    families.SLA_PREDICTED_END,
    families.SLA_PREDICTED_RATIO,
    families.SLA_PREDICTED_BREACH,
    families.HOST_CPUS,
    families.HOST_MEMORY,
    families.HOST_MEMORY_LIMIT,
    families.OBSERVATIONS_DROPPED,
    families.DELIVERIES,
    families.WEB_CONFIG_RELOADS,
    families.CONFIG_RELOADS,
)
# What tells of lanes stays true when this process has ended; what tells of its pools and machine does not.
_OUTLASTING = tuple(family for family in families.FAMILIES if "lane" in family.labels)
_NO_RELOADS = dict.fromkeys(families.RELOAD_RESULTS, 0)
_NO_DELIVERIES = dict.fromkeys(product(families.DELIVERY_TARGETS, families.DELIVERY_RESULTS), 0)


class Metrics:
    """Everything that is exported, for one project.

        observe(event) -> State (numbers, own short lock) --changes--.
        live(), pools(), backlog(), control(), host ----read now-----+--> Page --> render(accept), render_final_page()
                                                                          process and GC, by prometheus_client --^

    Guarantees:
    * `observe` costs a few µs and waits for no scrape; all formatting is the scrape's.
    * A counter never goes down while this process lives, `paropt_stage_cpu_seconds_total` with its live part too.
    * Every counter, histogram and 0/1 gauge of the config's label sets is there from the first scrape.

    The callables are called at each scrape, in the scraping thread: `backlog` gives for a pool how many ready tasks
    wait outside of it and the oldest one's age, `dropped` how many records each observer failed to take, `deliveries`
    how often each target of final values was served and missed, `reloads` how often a changed web config was loaded and
    refused, `config_reloads` how often a changed paropt.yml was; `keep_shown` takes the CPU totals of running stages
    before they are shown. `bounds` is each pool's (min, max) of the config, `serves_on` whether this process is to be
    there until it is stopped. It is a prometheus_client Collector too: register it where there is a registry already,
    or use `registry`, which also has process and GC metrics.
    """

    def __init__(
        self,
        *,
        project: str,
        lanes: Sequence[LaneLabels],
        pools: Callable[[], Iterable[PoolStatistics]] = tuple,
        live: Callable[[], Iterable[LiveStage]] = tuple,
        backlog: Callable[[], Mapping[str, tuple[int, float]]] = dict,
        dropped: Callable[[], Mapping[str, int]] = dict,
        control: Callable[[], ControlView] = ControlView,
        deliveries: Callable[[], Mapping[tuple[str, str], int]] = dict,
        reloads: Callable[[], Mapping[str, int]] = dict,
        config_reloads: Callable[[], Mapping[str, int]] = dict,
        keep_shown: Callable[[Mapping[str, float]], None] | None = None,
        bounds: Mapping[str, tuple[int, int]] | None = None,
        totals: Totals | None = None,
        last: LastValues | None = None,
        process_metrics: bool = True,
        serves_on: bool = True,
        revision: str | None = None,
    ) -> None:
        self._pools, self._live, self._backlog, self._control = pools, live, backlog, control
        self._dropped, self._deliveries = dropped, deliveries
        self._reloads, self._config_reloads = reloads, config_reloads
        self._keep_shown = keep_shown
        self._state = State(lanes, totals or Totals(), last or LastValues(), pools=tuple(bounds or ()))
        self._limited = _limited(lanes)
        self._lock = (
            Lock()
        )  # guards: _page, _overlaid, _bounds, _limited; held for a whole scrape, never while an event is observed
        self._page = Page(project)
        self._overlaid: set[Series] = set()
        self._process_metrics = process_metrics
        self._process: CollectorRegistry | None = None
        self._bounds = bounds or {}
        self._put_constants(revision or build.revision(), serves_on=serves_on)
        if serves_on:  # with 10,000 stages a second's work, here and not in the first scrape
            self._take_changes()
            self._page.write()
        if multiprocess.DROPPED:
            log.warning(
                "ignored: it would move all of prometheus_client's values into shared files; tasks report without it",
                extra={"variable": multiprocess.DROPPED[0]},
            )

    def observe(self, event: Event) -> None:
        """Take an event into the totals and last values; after the history has committed it."""
        self._state.observe(event)

    def reconfigure(
        self,
        *,
        lanes: Sequence[LaneLabels],
        bounds: Mapping[str, tuple[int, int]],
        totals: Totals,
        last: LastValues,
    ) -> None:
        """Take another config, between two runs: its label sets are on the next page."""
        self._state.reconfigure(lanes, totals, last, pools=tuple(bounds))
        with self._lock:
            for pool in self._bounds.keys() - bounds.keys():
                self._page.drop(families.POOL_SIZE_MIN, (pool,))
                self._page.drop(families.POOL_SIZE_MAX, (pool,))
            self._bounds, self._limited = bounds, _limited(lanes)
            self._put_bounds()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the page in the format that an Accept header asks for, and its Content-Type."""
        choice = choose(accept)
        return self.render_page(openmetrics=choice.format is Format.OPENMETRICS), choice.content_type

    def render_page(self, *, openmetrics: bool) -> bytes:
        """Return the page as OpenMetrics or as text."""
        from paropt_exporter.metrics import client  # slow to load, and a run that no one scrapes needs it not

        with self._lock:
            if self._process is None:
                self._process = self._new_registry()
            self._refresh()
            own = [part.encode() for part in self._page.text(families.FAMILIES, openmetrics=openmetrics)]
        write = client.openmetrics_page if openmetrics else client.text_page
        return b"".join([*own, write(self._process)])

    def render_final_page(self) -> bytes:
        """Return what stays true after this process, in text format: the series of lanes, stages and limits."""
        with self._lock:
            self._refresh()
            return b"".join(part.encode() for part in self._page.text(_OUTLASTING, openmetrics=False))

    @property
    def registry(self) -> CollectorRegistry:
        """A new registry of prometheus_client that has this collector and the process and GC metrics."""
        registry = self._new_registry()
        registry.register(cast("Collector", self))
        return registry

    def _new_registry(self) -> CollectorRegistry:
        from paropt_exporter.metrics import client  # as in `page`

        registry = client.CollectorRegistry(auto_describe=False)
        if self._process_metrics:
            client.ProcessCollector(registry=registry)
            client.GCCollector(registry=registry)
        return registry

    def collect(self) -> Iterator[Metric]:
        """Yield every family as prometheus_client's registries want them."""
        with self._lock:
            self._refresh()
            metrics = tuple(self._page.metrics(families.FAMILIES))
        yield from metrics

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: a registry would otherwise collect everything once, at registration."""
        return ()

    def _put_constants(self, revision: str, *, serves_on: bool) -> None:
        self._page.put(families.BUILD_INFO, (__version__, platform.python_version(), revision), 1.0)
        self._page.put(families.SERVES_ON, (), float(serves_on))
        self._put_bounds()

    def _put_bounds(self) -> None:
        for pool, (minimum, maximum) in self._bounds.items():
            self._page.put(families.POOL_SIZE_MIN, (pool,), minimum)
            self._page.put(families.POOL_SIZE_MAX, (pool,), maximum)

    def _refresh(self) -> None:
        # Totals first, live stages after: a task that ends in between is missing from this scrape, and is not counted
        # twice; `_put` holds the counter where it was until the next one.
        self._take_changes()
        live = tuple(self._live())
        self._overlay(live)
        if self._keep_shown is not None:
            self._keep_shown({stage.stage: self._shown_cpu_total(stage) for stage in live})
        self._page.replace(_READ_AT_SCRAPE, self._read(live))

    def _shown_cpu_total(self, stage: LiveStage) -> float:
        return self._page.number(families.STAGE_CPU, (stage.lane, stage.stage))

    def _take_changes(self) -> None:
        for family, labels, value in self._state.changes():
            if value is None:
                self._page.drop(family, labels)
            elif isinstance(value, HistogramTotal):
                self._page.put(family, labels, value)
            else:
                self._put(family, labels, value)

    def _put(self, family: Family, labels: tuple[str, ...], value: float) -> None:
        if family is families.STAGE_CPU:
            value = max(value, self._page.number(family, labels))
        self._page.put(family, labels, value)

    def _overlay(self, live: Iterable[LiveStage]) -> None:
        """Add what running tasks have used so far; give back what was added for stages that run no more."""
        fresh: dict[Series, float] = {}
        for stage in live:
            place = (stage.lane, stage.stage)
            cpu_seconds = (self._state.number(families.STAGE_CPU, place) or 0.0) + stage.cpu_seconds
            fresh[families.STAGE_CPU, place] = cpu_seconds
            # The last run's peak stands until this run is higher: it does not fall to nothing at each start.
            peak_bytes = max(self._state.number(families.STAGE_MEMORY_PEAK, place) or 0.0, stage.memory_bytes)
            if peak_bytes:
                fresh[families.STAGE_MEMORY_PEAK, place] = peak_bytes
        for series in self._overlaid - fresh.keys():
            value = self._state.number(*series)
            if value is None:
                self._page.drop(*series)
            else:
                self._put(*series, value)
        for series, value in fresh.items():
            self._put(*series, value)
        self._overlaid = set(fresh)

    def _read(self, live: Iterable[LiveStage]) -> Iterator[tuple[Family, Labels, Value]]:
        backlog = self._backlog()
        for statistics in self._pools():
            yield from pools.samples(statistics, backlog=backlog.get(statistics.name, (0, 0.0)))
        for observer, count in self._dropped().items():
            yield families.OBSERVATIONS_DROPPED, (observer,), count
        yield from control.samples(self._control())
        yield from self._predictions(live)
        for delivery, count in {**_NO_DELIVERIES, **self._deliveries()}.items():
            yield families.DELIVERIES, delivery, count
        for result, count in {**_NO_RELOADS, **self._reloads()}.items():
            yield families.WEB_CONFIG_RELOADS, (result,), count
        for result, count in {**_NO_RELOADS, **self._config_reloads()}.items():
            yield families.CONFIG_RELOADS, (result,), count
        yield from pools.host_samples()

    def _predictions(self, live: Iterable[LiveStage]) -> Iterator[tuple[Family, Labels, Value]]:
        near, breaches = dict.fromkeys(self._limited, 0.0), dict.fromkeys(self._limited, 0.0)
        for stage in live:
            place = (stage.lane, stage.stage)
            if stage.predicted_end_timestamp_seconds is not None:
                yield families.SLA_PREDICTED_END, place, stage.predicted_end_timestamp_seconds
            if stage.predicted_ratio is not None:
                yield families.SLA_PREDICTED_RATIO, place, stage.predicted_ratio
            if stage.sla is not None:
                near[place], breaches[place] = float(stage.near_limit), float(stage.predicted_breach)
        for family, flags in ((families.SLA_NEAR, near), (families.SLA_PREDICTED_BREACH, breaches)):
            yield from ((family, place, flag) for place, flag in flags.items())


def _limited(lanes: Iterable[LaneLabels]) -> tuple[tuple[str, str], ...]:
    return tuple((lane.lane, stage.name) for lane in lanes for stage in lane.stages if stage.sla)
