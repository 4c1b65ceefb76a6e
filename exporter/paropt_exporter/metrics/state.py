"""Hold the current value of every series that events decide, under one lock, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Lock

from paropt_exporter import aggregation, families
from paropt_exporter.aggregation import HistogramTotal, LastValues, Totals
from paropt_exporter.events import Event, Result, RunRecord, RunStarted, StageRecord, StageStarted, TaskRecord
from paropt_exporter.families import Family, Kind
from paropt_exporter.metrics import labels
from paropt_exporter.metrics.labels import LaneLabels
from paropt_exporter.metrics.page import Value

Series = tuple[Family, tuple[str, ...]]

_BATCH = 1000  # series copied under the lock at once: under a millisecond
_PLACES = ("lane", "stage", "pool")
_BY_NAME = {family.name: family for family in families.FAMILIES}


class _Buckets:
    """A histogram that is being filled."""

    __slots__ = ("counts", "sum")

    def __init__(self, total: HistogramTotal) -> None:
        self.counts = list(total.buckets)
        self.sum = total.sum

    def observe(self, seconds: float) -> None:
        self.counts[aggregation.bucket_index(seconds)] += 1
        self.sum += seconds

    def total(self) -> HistogramTotal:
        return HistogramTotal(buckets=tuple(self.counts), sum=self.sum)


class _Progress:
    """How far a running stage is."""

    __slots__ = ("ended", "tasks")

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.ended = 0


class State:
    """What is exported of lanes and stages.

        observe(event): numbers change, their series is marked      changes(): the marked ones, for the page

    Guarantees: an event is one short critical section of dict updates (a few µs), nothing is formatted in it; each
    change is handed out once; None says that the series is gone.
    """

    def __init__(
        self, lanes: Iterable[LaneLabels], totals: Totals, last: LastValues, *, pools: tuple[str, ...] = ()
    ) -> None:
        lanes = tuple(lanes)
        self._lock = Lock()  # guards: all below
        self._numbers: dict[Series, float | None] = {}
        self._histograms: dict[Series, _Buckets] = {}
        self._progress: dict[tuple[str, str], _Progress] = {}
        self._seed(lanes, pools)
        self._resume(lanes, pools, totals, last)
        self._changed: dict[Series, None] = dict.fromkeys((*self._numbers, *self._histograms))  # in this order

    def observe(self, event: Event) -> None:
        """Take one event in; called from whichever thread it happened in."""
        with self._lock:
            for increment in aggregation.increments(event):
                self._add((increment.family, increment.labels), increment.amount)
            for setting in aggregation.settings(event):
                self._set((setting.family, setting.labels), setting.value)
            self._follow(event)

    def reconfigure(
        self, lanes: Iterable[LaneLabels], totals: Totals, last: LastValues, *, pools: tuple[str, ...] = ()
    ) -> None:
        """Take the label sets of another config, between two runs.

        New ones begin at 0, or where history left them; those that are gone end; all others go on.
        """
        lanes = tuple(lanes)
        fresh, known = State(lanes, totals, last, pools=pools), _known_places(lanes, pools)
        with self._lock:
            for series in {**self._numbers, **self._histograms}:
                if series in fresh._numbers or series in fresh._histograms:
                    continue
                if series[0] in labels.DECIDED_BY_CONFIG or _place(*series) not in known:
                    self._histograms.pop(series, None)
                    self._set(series, None)
            for series, value in fresh._numbers.items():
                if series[0] in labels.CONSTANTS or self._numbers.get(series) is None:
                    self._set(series, value)
            for series, buckets in fresh._histograms.items():
                if series not in self._histograms:
                    self._histograms[series] = buckets
                    self._changed[series] = None

    def changes(self) -> Iterator[tuple[Family, tuple[str, ...], Value | None]]:
        """Yield each series that changed since the last call, with its value now."""
        with self._lock:
            changed, self._changed = self._changed, {}
        remaining = iter(changed)
        # In slices: the first scrape of a large config takes in everything, and the work must not wait for that.
        while batch := tuple(islice(remaining, _BATCH)):
            with self._lock:
                values = [(*series, self._value(series)) for series in batch]
            yield from values

    def number(self, family: Family, place: tuple[str, ...]) -> float | None:
        """Return a counter or gauge; None if it is not there."""
        with self._lock:
            return self._numbers.get((family, place))

    def _seed(self, lanes: tuple[LaneLabels, ...], pools: tuple[str, ...]) -> None:
        for family, place in (*labels.zeros(lanes), *labels.zeros_of_pools(pools)):
            if family.kind is Kind.HISTOGRAM:
                self._histograms[family, place] = _Buckets(HistogramTotal())
            else:
                self._numbers[family, place] = 0.0
        for family, place, value in labels.constants(lanes):
            self._numbers[family, place] = value

    def _resume(self, lanes: tuple[LaneLabels, ...], pools: tuple[str, ...], totals: Totals, last: LastValues) -> None:
        """Go on from history, but only for label sets of the config: a stage that was removed does not come back."""
        known = _known_places(lanes, pools)

        def found(name: str, values: tuple[str, ...]) -> Series | None:
            family = _BY_NAME.get(name)
            if family is None or len(values) != len(family.labels):
                return None
            return (family, values) if _place(family, values) in known else None

        for (name, values), number in (*totals.counters.items(), *last.gauges.items()):
            if (series := found(name, values)) is not None:
                self._numbers[series] = number
        for (name, values), total in totals.histograms.items():
            if (series := found(name, values)) is not None:
                self._histograms[series] = _Buckets(total)

    def _add(self, series: Series, amount: float) -> None:
        if series[0].kind is Kind.HISTOGRAM:
            self._histograms.setdefault(series, _Buckets(HistogramTotal())).observe(amount)
        else:
            self._numbers[series] = (self._numbers.get(series) or 0.0) + amount
        self._changed[series] = None

    def _set(self, series: Series, value: float | None) -> None:
        self._numbers[series] = value
        self._changed[series] = None

    def _value(self, series: Series) -> Value | None:
        buckets = self._histograms.get(series)
        return buckets.total() if buckets is not None else self._numbers[series]

    def _follow(self, event: Event) -> None:
        """Keep the series that are true only while something runs."""
        match event:
            case RunStarted():
                self._set((families.RUN_IN_PROGRESS, (event.lane,)), 1.0)
                for stage in event.stages:
                    self._set((families.STAGE_PROGRESS, (event.lane, stage)), 0.0)
            case StageStarted():
                self._start(event)
            case TaskRecord(final=True) if event.result is not Result.SKIP:
                self._advance((event.lane, event.stage))
            case StageRecord():
                self._end((event.lane, event.stage))
            case RunRecord():
                self._set((families.RUN_IN_PROGRESS, (event.lane,)), 0.0)
            case _:
                return

    def _start(self, stage: StageStarted) -> None:
        place = (stage.lane, stage.stage)
        self._progress[place] = _Progress(stage.tasks)
        self._set((families.STAGE_RUNNING, place), 1.0)
        if stage.sla is not None:
            deadline = stage.started_timestamp_seconds + stage.sla.max_seconds
            self._set((families.SLA_DEADLINE, place), deadline)

    def _advance(self, place: tuple[str, str]) -> None:
        progress = self._progress.get(place)
        if progress is not None:
            progress.ended += 1
            self._set((families.STAGE_PROGRESS, place), min(1.0, progress.ended / max(1, progress.tasks)))

    def _end(self, place: tuple[str, str]) -> None:
        self._progress.pop(place, None)
        self._set((families.STAGE_RUNNING, place), 0.0)
        self._set((families.SLA_DEADLINE, place), None)


def _known_places(lanes: Iterable[LaneLabels], pools: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """Return the lanes, their stages, and the pools: whatever a series may be about."""
    stages = {(lane.lane, stage.name) for lane in lanes for stage in lane.stages}
    return frozenset({(lane.lane,) for lane in lanes} | stages | {(pool,) for pool in pools})


def _place(family: Family, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for label, value in zip(family.labels, values, strict=True) if label in _PLACES)
