"""Merge totals, live stages, pools and host into one page at each scrape."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from paropt_exporter import families
from paropt_exporter._version import __version__
from paropt_exporter.aggregation import HistogramTotal, LastValues, Totals
from paropt_exporter.events import Event, LiveStage
from paropt_exporter.families import Family, Kind
from paropt_exporter.git import find_git_folder
from paropt_exporter.metrics.event_state import DeferredEventState, EventState, LabelSets, LaneLabels
from paropt_exporter.metrics.page import Labels, Page, Value
from paropt_exporter.metrics.samples import LIVE_FAMILIES, SCRAPE_FAMILIES, Snapshot, iter_samples

if TYPE_CHECKING:
    from paropt_exporter.metrics.client import CollectorRegistry

Series = tuple[Family, Labels]

_OVERLAID_FAMILIES = (families.STAGE_CPU, families.STAGE_MEMORY_PEAK)
# Series of lanes stay valid after this process has exited; those of its pools and host do not.
_FINAL_FAMILIES = tuple(family for family in families.FAMILIES if "lane" in family.labels)

UNKNOWN_REVISION = "unknown"
_CHECKOUT = Path(__file__).parents[3]  # the repository's root, if the package runs from a checkout
_REVISION_CHARACTERS = 12


class Metrics:
    """All exported metrics of one project.

        observe(event) -> EventState (numbers, built for the first page) --changes-.
        read_snapshot(): pools, live stages, backlogs, controller -----------------+--> Page -> render_parts()
                                                                                   |         -> render_final_page()
                                              process and GC, by prometheus_client -'

    Guarantees:
    * `observe` takes a few µs and never waits for a scrape; the scrape's thread does all formatting. If there is no
      scrape, the 10,000th event builds the EventState and applies all events: 0.1 to 0.2 s, once.
    * A counter never decreases while this process lives; this includes the live part of STAGE_CPU.
    * Every counter, histogram and 0/1 gauge of the config's label sets is on the page from the first scrape.

    Each scrape calls `read_snapshot`, and then `on_cpu_shown` with the CPU totals of running stages before the page
    shows them. `bounds` has the configured (min, max) of each pool. `serves_on` says whether this process serves until
    it is stopped.
    """

    def __init__(
        self,
        *,
        project: str,
        lanes: Sequence[LaneLabels],
        read_snapshot: Callable[[], Snapshot] = Snapshot,
        on_cpu_shown: Callable[[Mapping[str, float]], None] | None = None,
        bounds: Mapping[str, tuple[int, int]] | None = None,
        totals: Totals | None = None,
        last: LastValues | None = None,
        process_metrics: bool = True,
        serves_on: bool = True,
        revision: str | None = None,
    ) -> None:
        self._read_snapshot, self._on_cpu_shown = read_snapshot, on_cpu_shown
        resumed = totals or Totals(), last or LastValues()
        self._project, self._lanes = project, lanes
        self._state = DeferredEventState(lambda: EventState(lanes, *resumed, pools=tuple(bounds or ())))
        self._limited = _find_limited_stages(lanes)
        # Held for a whole scrape, never while an event is observed.
        self._lock = Lock()  # guards: _page, _recorded, _overlaid, _lanes, _bounds, _limited
        self._page = Page(project)
        self._recorded: dict[Series, float] = {}  # of _OVERLAID_FAMILIES, without running tasks
        self._overlaid: set[Series] = set()
        self._process_metrics = process_metrics
        self._process: CollectorRegistry | None = None
        self._bounds = bounds or {}
        self._put_constants(revision or read_revision(), serves_on=serves_on)
        if serves_on:  # takes a second for 10,000 stages: here rather than in the first scrape
            self._take_changes()
            self._page.write_changed()

    def observe(self, event: Event) -> None:
        """Apply an event to totals and last values; call it after the history has committed the event."""
        self._state.observe(event)

    def reconfigure(
        self,
        *,
        lanes: Sequence[LaneLabels],
        bounds: Mapping[str, tuple[int, int]],
        totals: Totals,
        last: LastValues,
    ) -> None:
        """Use the label sets of another config from the next page on; call it between two runs."""
        self._state.get().reconfigure(lanes, totals, last, pools=tuple(bounds))
        with self._lock:
            for pool in self._bounds.keys() - bounds.keys():
                self._page.drop(families.POOL_SIZE_MIN, (pool,))
                self._page.drop(families.POOL_SIZE_MAX, (pool,))
            self._lanes, self._bounds, self._limited = lanes, bounds, _find_limited_stages(lanes)
            self._put_bounds()

    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        """Return the page in parts: the lines of each family. Lines that have not changed are the same objects."""
        from paropt_exporter.metrics import client  # slow to import; a run that is never scraped does not need it

        with self._lock:
            if self._process is None:
                self._process = client.create_registry(process_metrics=self._process_metrics)
            self._refresh()
            own = self._page.format_page(families.FAMILIES, openmetrics=openmetrics)
        write = client.openmetrics_page if openmetrics else client.text_page
        return [*own, [write(self._process)]]

    def collect_live(self) -> dict[tuple[str, Labels], Value]:
        """Return the series that are not in the history, since they describe this process and its current run."""
        with self._lock:
            self._refresh()
            return {(family.name, labels): value for family, labels, value in self._page.iter_values(LIVE_FAMILIES)}

    def render_final_page(self, totals: Totals | None = None, last: LastValues | None = None) -> bytes:
        """Return the series of lanes, stages and limits, which stay valid after this process has exited, in text
        format.

        `totals` and `last`: those of the history now. Runs that overlap write one page after another to the same place,
        so each must count the runs of the others: to Prometheus a lower total is a restart, after which `increase()`
        counts all of it.
        """
        page = Page(self._project)
        with self._lock:
            self._refresh()
            own = {(family, labels): value for family, labels, value in self._page.iter_values(_FINAL_FAMILIES)}
            stored = LabelSets(self._lanes, ()).select(totals or Totals(), last or LastValues())
        for (family, labels), value in {**own, **stored}.items():
            page.put(family, labels, _choose_later(family, own.get((family, labels)), value))
        return b"".join(chain.from_iterable(page.format_page(_FINAL_FAMILIES, openmetrics=False)))

    def _put_constants(self, revision: str, *, serves_on: bool) -> None:
        self._page.put(families.BUILD_INFO, (__version__, sys.version.split()[0], revision), 1.0)
        self._page.put(families.SERVES_ON, (), float(serves_on))
        self._put_bounds()

    def _put_bounds(self) -> None:
        for pool, (minimum, maximum) in self._bounds.items():
            self._page.put(families.POOL_SIZE_MIN, (pool,), minimum)
            self._page.put(families.POOL_SIZE_MAX, (pool,), maximum)

    def _refresh(self) -> None:
        # First totals, then live stages: a task that ends in between, or later, is missing from the totals of this
        # scrape instead of counted twice, and `_put` keeps the counter until the next scrape.
        self._take_changes()
        snapshot = self._read_snapshot()
        self._overlay(snapshot.live)
        if self._on_cpu_shown is not None:
            self._on_cpu_shown({stage.stage: self._read_shown_cpu(stage) for stage in snapshot.live})
        self._page.replace(SCRAPE_FAMILIES, iter_samples(snapshot, limited=self._limited))

    def _read_shown_cpu(self, stage: LiveStage) -> float:
        return self._page.get_number(families.STAGE_CPU, (stage.lane, stage.stage))

    def _take_changes(self) -> None:
        for family, labels, value in self._state.get().iter_changes():
            if value is None:
                self._page.drop(family, labels)
                self._recorded.pop((family, labels), None)
            elif isinstance(value, HistogramTotal):
                self._page.put(family, labels, value)
            else:
                self._put(family, labels, value)
                if family in _OVERLAID_FAMILIES:
                    self._recorded[family, labels] = value

    def _put(self, family: Family, labels: Labels, value: float) -> None:
        if family is families.STAGE_CPU:
            value = max(value, self._page.get_number(family, labels))
        self._page.put(family, labels, value)

    def _overlay(self, live: Iterable[LiveStage]) -> None:
        """Add the resources that running tasks have used so far; restore the values of stages that have ended."""
        fresh: dict[Series, float] = {}
        for stage in live:
            place = (stage.lane, stage.stage)
            fresh[families.STAGE_CPU, place] = self._recorded.get((families.STAGE_CPU, place), 0.0) + stage.cpu_seconds
            # The last run's peak stays until this run exceeds it: the series does not drop to 0 at each start.
            peak_bytes = max(self._recorded.get((families.STAGE_MEMORY_PEAK, place), 0.0), stage.memory_bytes)
            if peak_bytes:
                fresh[families.STAGE_MEMORY_PEAK, place] = peak_bytes
        for series in self._overlaid - fresh.keys():
            value = self._recorded.get(series)
            if value is None:
                self._page.drop(*series)
            else:
                self._put(*series, value)
        for series, value in fresh.items():
            self._put(*series, value)
        self._overlaid = set(fresh)


def _choose_later(family: Family, own: Value | None, stored: Value) -> Value:
    """Return the later of two values of a series. A history that could not be written has lower totals."""
    if own is None or family.kind is Kind.GAUGE:
        return stored
    return max(own, stored, key=_count)


def _count(value: Value) -> float:
    return value.count if isinstance(value, HistogramTotal) else value


def _find_limited_stages(lanes: Iterable[LaneLabels]) -> tuple[tuple[str, str], ...]:
    return tuple((lane.lane, stage.name) for lane in lanes for stage in lane.stages if stage.sla)


def read_revision(root: Path = _CHECKOUT) -> str:
    """Return the git commit of a checkout, or "unknown" for an installed package.

    It reads git's files: a `git` process would take longer than the rest of the start-up.
    """
    folder = find_git_folder(root)
    head = _read_text(folder / "HEAD")
    name = head.removeprefix("ref: ")
    shared = folder / _read_text(folder / "commondir")  # a linked work tree has its own HEAD, and no branches
    commit = head if name == head else _read_text(shared / name) or _find_packed_ref(shared, name)
    return commit[:_REVISION_CHARACTERS] or UNKNOWN_REVISION


def _find_packed_ref(folder: Path, name: str) -> str:
    lines = (line.split(" ") for line in _read_text(folder / "packed-refs").splitlines())
    return next((line[0] for line in lines if line[1:] == [name]), "")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
