"""Render one page with the series of all registered projects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from threading import Lock
from typing import TYPE_CHECKING

from msgspec import Struct

from paropt_exporter import families, host
from paropt_exporter._version import __version__
from paropt_exporter.aggregation import sum_totals
from paropt_exporter.exposition.protection import NoProtection, ProtectionSource
from paropt_exporter.families import Family
from paropt_exporter.metrics.event_state import LabelSets, LaneLabels
from paropt_exporter.metrics.metrics import read_revision
from paropt_exporter.metrics.page import Labels, Page, Value, format_part
from paropt_exporter.serve.merging import LiveSeries, merge_series, to_number
from paropt_exporter.serve.messages import Registration
from paropt_exporter.serve.registry import RegisteredProject, merge_last, refresh_checkouts, sum_shown_cpu

if TYPE_CHECKING:
    from paropt_exporter.metrics.client import CollectorRegistry

Series = tuple[Family, Labels]
_NO_RELOADS = dict.fromkeys(families.RELOAD_RESULTS, 0)


class ProjectView(Struct, frozen=True, kw_only=True):
    """The checkouts of a project at a scrape, with the series of its runs (ended ones first) and shares."""

    name: str
    checkouts: tuple[RegisteredProject, ...]
    live: tuple[LiveSeries, ...]
    shares: Mapping[Series, float]

    def has_runs(self) -> bool:
        return bool(self.shares.get((families.SERVE_RUNS, ())))


class ServePage:
    """The page of all projects; `take_views` returns their state at a scrape.

        take_views() -> refresh histories -> ProjectPage for each name -> text, family by family

    Guarantees: each family has one head; a counter does not fall while this process lives; if a history can't be read,
    only its project's totals are out of date, or missing if it could not be read since this process started.
    """

    def __init__(
        self,
        take_views: Callable[[], Sequence[ProjectView]],
        *,
        protection: ProtectionSource | None = None,
        process_metrics: bool = True,
    ) -> None:
        self._take_views = take_views
        self._protection = protection or NoProtection()
        self._revision = read_revision()
        self._process_metrics = process_metrics
        self._lock = Lock()  # guards: all below
        self._pages: dict[str, _ProjectPage] = {}
        self._process: CollectorRegistry | None = None

    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        """Return the page as OpenMetrics or as text, in parts: the lines of each family."""
        from paropt_exporter.metrics import client  # slow to import

        with self._lock:
            if self._process is None:
                self._process = client.create_registry(process_metrics=self._process_metrics)
            own = self._collect_own()
            for view in self._take_views():
                refresh_checkouts(view.checkouts)
                if all(project.is_missing for project in view.checkouts) and not view.has_runs():
                    continue
                page = self._pages.get(view.name)
                if page is None:
                    page = self._pages[view.name] = _ProjectPage(view.name)
                page.update(view, own)
            own_parts = [self._format_family(family, openmetrics=openmetrics) for family in families.FAMILIES]
        write = client.openmetrics_page if openmetrics else client.text_page
        return [*own_parts, [write(self._process)]]

    def _collect_own(self) -> dict[Series, Value]:
        """Return the series of this process and of the host, which each project has."""
        series: dict[Series, Value] = {
            (families.BUILD_INFO, (__version__, sys.version.split()[0], self._revision)): 1.0,
            (families.SERVES_ON, ()): 1.0,
            (families.HOST_CPUS, ()): host.count_cpus(),
        }
        if available := host.read_available_memory_bytes():
            series[families.HOST_MEMORY, ()] = available
        if limit := host.read_total_memory_bytes():
            series[families.HOST_MEMORY_LIMIT, ()] = limit
        for result, count in {**_NO_RELOADS, **self._protection.count_reloads()}.items():
            series[families.WEB_CONFIG_RELOADS, (result,)] = count
        if (successful := self._protection.was_reload_successful()) is not None:
            series[families.WEB_CONFIG_RELOAD_SUCCESSFUL, ()] = float(successful)
        return series

    def _format_family(self, family: Family, *, openmetrics: bool) -> list[bytes]:
        lines = [line for page in self._pages.values() for line in page.format_family(family)]
        return format_part(family, lines, openmetrics=openmetrics)


class _ProjectPage:
    """The series of one project name."""

    def __init__(self, name: str) -> None:
        self._page = Page(name)
        self._registrations: tuple[Registration, ...] = ()
        self._label_sets = LabelSets((), ())  # those of `_registrations`
        self._stored: dict[Series, Value] = {}
        self._revisions: object = None

    def update(self, view: ProjectView, own: Mapping[Series, Value]) -> None:
        """Take the values of the checkouts, whose histories have been read; those that could not be are left out."""
        known = tuple(project for project in view.checkouts if project.is_known)
        revisions = tuple((project.key, project.revision) for project in known)
        if revisions != self._revisions:
            self._revisions, self._stored = revisions, self._build_stored(known)
        readable = not any(project.fault for project in view.checkouts)
        series = {**self._stored, **own, (families.SERVE_HISTORY_READABLE, ()): float(readable)}
        for key, value in merge_series(view.live).items():
            if key[0] is families.STAGE_PROGRESS and key not in self._stored:
                continue  # an ended run had this stage, and paropt.yml no longer has it
            is_peak = key[0] is families.STAGE_MEMORY_PEAK
            series[key] = max(to_number(value), to_number(series.get(key, 0.0))) if is_peak else value
        series |= view.shares
        cpu = {key: value for key, value in series.items() if key[0] is families.STAGE_CPU}
        for (family, labels), value in cpu.items():
            series[family, labels] = max(to_number(value), self._page.get_number(family, labels))
        self._page.replace(families.FAMILIES, ((family, labels, value) for (family, labels), value in series.items()))

    def format_family(self, family: Family) -> Collection[bytes]:
        return self._page.format_family(family)

    def _build_stored(self, checkouts: Sequence[RegisteredProject]) -> dict[Series, Value]:
        """Return the series of label sets, totals and last values."""
        registrations = tuple(project.registration for project in checkouts)
        if registrations != self._registrations:  # rarely, whereas a history changes with each event of a run
            self._registrations, self._label_sets = registrations, _build_label_sets(registrations)
        values = [project.values for project in checkouts]
        series = self._label_sets.resume(sum_totals([each.totals for each in values]), merge_last(values))
        for place, seconds in sum_shown_cpu(values).items():
            key = (families.STAGE_CPU, place)
            if key in series:
                series[key] = max(to_number(series[key]), seconds)
        return series


def _build_label_sets(registrations: Iterable[Registration]) -> LabelSets:
    lanes: dict[str, LaneLabels] = {}
    pools: dict[str, None] = {}
    for registration in registrations:
        for lane in registration.lanes:
            lanes[lane.lane] = _merge_lanes(lanes[lane.lane], lane) if lane.lane in lanes else lane
        pools.update(dict.fromkeys(registration.bounds))
    label_sets = LabelSets(lanes.values(), pools)
    for lane in lanes.values():
        for stage in lane.stages:
            if stage.sla is not None:
                for family in (families.SLA_NEAR, families.SLA_PREDICTED_BREACH):
                    label_sets.series[family, (lane.lane, stage.name)] = 0.0
    return label_sets


def _merge_lanes(one: LaneLabels, other: LaneLabels) -> LaneLabels:
    """Return a lane with the stages of both checkouts, which may be of two branches; `other` wins for equal names."""
    stages = {stage.name: stage for stage in (*one.stages, *other.stages)}
    intervals = [seconds for seconds in (one.interval_seconds, other.interval_seconds) if seconds is not None]
    return LaneLabels(
        lane=other.lane,
        stages=tuple(stages.values()),
        total=other.total or one.total,
        interval_seconds=max(intervals, default=None),
    )
