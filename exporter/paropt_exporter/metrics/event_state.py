"""Hold the current value of every series that the config and events define, under one lock, as plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice, product
from threading import Lock

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import aggregation, families
from paropt_exporter.aggregation import HistogramTotal, LastValues, Totals
from paropt_exporter.events import (
    CacheReason,
    Decision,
    Event,
    Result,
    RunRecord,
    RunStarted,
    SlaLimit,
    StageRecord,
    StageStarted,
    TaskRecord,
)
from paropt_exporter.families import Family, Kind
from paropt_exporter.metrics.page import Labels, Value

Series = tuple[Family, Labels]

_COPIED_AT_ONCE = 1000  # series copied under the lock at once: under a millisecond
_MOST_DEFERRED = 10_000  # events that a lane with no scrape keeps: a few MB
_PLACE_LABELS = ("lane", "stage", "pool")
_FAMILIES_BY_NAME = {family.name: family for family in families.FAMILIES}

_LANE = (
    families.RUNS,
    families.RUN_DURATION,
    families.RUN_TASKS,
    families.RUN_IN_PROGRESS,
    families.LANE_BOTTLENECK,
)
_LANE_WITH_LIMIT = (
    families.LANE_SLA_CHECKS,
    families.LANE_SLA_WARNINGS,
    families.LANE_SLA_VIOLATIONS,
    families.LANE_SLA_BREACHED,
)
_STAGE = (
    families.STAGE_DURATION,
    families.STAGE_LAST_RESULT,
    families.STAGE_FAILING,
    families.STAGE_RUNS,
    families.STAGE_RUNNING,
    families.STAGE_PROGRESS,
    families.STAGE_CPU,
    families.TASK_DURATION,
    families.TASK_QUEUE_WAIT,
    families.TASK_ATTEMPTS,
    families.FIRST_ATTEMPTS,
    families.FLAKY_ATTEMPTS,
    families.BOTTLENECK,
)
_STAGE_WITH_LIMIT = (
    families.SLA_CHECKS,
    families.SLA_WARNINGS,
    families.SLA_VIOLATIONS,
    families.SLA_BREACHED,
)

_CONSTANT_FAMILIES = frozenset(
    {
        families.RUN_INTERVAL,
        families.LANE_SLA_LIMIT,
        families.LANE_SLA_WARNING,
        families.STAGE_INFO,
        families.SLA_LIMIT,
        families.SLA_WARNING,
    }
)
# A lane or stage without a limit has none of the SLA families.
_CONFIG_FAMILIES = _CONSTANT_FAMILIES | {*_LANE_WITH_LIMIT, *_STAGE_WITH_LIMIT}


class StageLabels(Struct, frozen=True, kw_only=True):
    """A stage of the config; `pool` runs its tasks. `cached`: it is skipped if nothing has changed."""

    name: str
    number: int
    pool: str
    sla: SlaLimit | None = None
    cached: bool = False


class LaneLabels(Struct, frozen=True, kw_only=True):
    """A lane with its stages. `total` limits the whole run; `interval_seconds` is that of `--every`."""

    lane: str
    stages: tuple[StageLabels, ...]
    total: SlaLimit | None = None
    interval_seconds: float | None = None


class LabelSets:
    """The series that a config defines. `series` has their initial values: 0, or the value that the config sets."""

    def __init__(self, lanes: Collection[LaneLabels], pools: Collection[str]) -> None:
        self._places = _collect_places(lanes, pools)
        zeros = {Kind.HISTOGRAM: HistogramTotal()}
        self.series: dict[Series, Value] = {
            (family, labels): zeros.get(family.kind, 0.0)
            for family, labels in (*_iter_zeros(lanes), *_iter_pool_zeros(pools))
        }
        self.series |= {(family, labels): value for family, labels, value in _iter_constants(lanes)}

    def resume(self, totals: Totals, last: LastValues) -> dict[Series, Value]:
        """Return the series with the values of a history, without its lanes, stages and pools that the config lacks."""
        return self.series | self.select(totals, last)

    def select(self, totals: Totals, last: LastValues) -> dict[Series, Value]:
        """Return a history's values of the lanes, stages and pools that the config has."""
        found: dict[Series, Value] = {}
        for values in (totals.counters, last.gauges, totals.histograms):
            for (name, labels), value in values.items():
                family = _FAMILIES_BY_NAME.get(name)
                if family is not None and self._has_place(family, labels, value):
                    found[family, labels] = value
        return found

    def _has_place(self, family: Family, labels: Labels, value: Value) -> bool:
        if len(labels) != len(family.labels) or (family.kind is Kind.HISTOGRAM) != isinstance(value, HistogramTotal):
            return False
        if family in _CONFIG_FAMILIES and (family, labels) not in self.series:  # the config no longer has this limit
            return False
        return _get_place(family, labels) in self._places


class EventState:
    """The series of lanes and stages.

        observe(event): change numbers, mark their series      iter_changes(): yield the marked series, for the page

    Guarantees: an event takes one short critical section of dict updates (a few µs) without formatting. Each change is
    yielded once. The value None means that the series is gone.
    """

    def __init__(
        self, lanes: Iterable[LaneLabels], totals: Totals, last: LastValues, *, pools: tuple[str, ...] = ()
    ) -> None:
        lanes = tuple(lanes)
        self._lock = Lock()  # guards: all below
        self._numbers: dict[Series, float | None] = {}
        self._histograms: dict[Series, _Histogram] = {}
        self._progress: dict[tuple[str, str], _Progress] = {}
        for series, value in LabelSets(lanes, pools).resume(totals, last).items():
            if isinstance(value, HistogramTotal):
                self._histograms[series] = _Histogram(value)
            else:
                self._numbers[series] = value
        self._changed: dict[Series, None] = dict.fromkeys((*self._numbers, *self._histograms))  # in this order

    def observe(self, event: Event) -> None:
        """Apply an event; from any thread."""
        with self._lock:
            for increment in aggregation.iter_increments(event):
                self._add((increment.family, increment.labels), increment.amount)
            for setting in aggregation.iter_gauge_values(event):
                series = setting.family, setting.labels
                if self._is_in_config(series):
                    self._set(series, setting.value)
            self._update_live_series(event)

    def reconfigure(
        self, lanes: Iterable[LaneLabels], totals: Totals, last: LastValues, *, pools: tuple[str, ...] = ()
    ) -> None:
        """Replace the label sets with those of another config, between two runs.

        New series start at 0 or continue from history, series without a place in the config end, others continue.
        """
        lanes = tuple(lanes)
        fresh, known = EventState(lanes, totals, last, pools=pools), _collect_places(lanes, pools)
        with self._lock:
            for series in {**self._numbers, **self._histograms}:
                if series in fresh._numbers or series in fresh._histograms:
                    continue
                if series[0] in _CONFIG_FAMILIES or _get_place(*series) not in known:
                    self._histograms.pop(series, None)
                    self._numbers.pop(series, None)
                    self._changed[series] = None
            for series, value in fresh._numbers.items():
                if series[0] in _CONSTANT_FAMILIES or self._numbers.get(series) is None:
                    self._set(series, value)
            for series, histogram in fresh._histograms.items():
                if series not in self._histograms:
                    self._histograms[series] = histogram
                    self._changed[series] = None

    def iter_changes(self) -> Iterator[tuple[Family, Labels, Value | None]]:
        """Yield each series that has changed since the last call, with its current value."""
        with self._lock:
            changed, self._changed = self._changed, {}
        remaining = iter(changed)
        # In slices: the first scrape of a large config yields all series, and events must not wait that long.
        while batch := tuple(islice(remaining, _COPIED_AT_ONCE)):
            with self._lock:
                values = [(*series, self._read_value(series)) for series in batch]
            yield from values

    def _is_in_config(self, series: Series) -> bool:
        """Return False for a limit's series if the config no longer has the limit: events and history set them, too."""
        return series[0] not in _CONFIG_FAMILIES or self._numbers.get(series) is not None

    def _add(self, series: Series, amount: float) -> None:
        if series[0].kind is Kind.HISTOGRAM:
            histogram = self._histograms.get(series)
            if histogram is None:
                histogram = self._histograms[series] = _Histogram(HistogramTotal())
            histogram.observe(amount)
        else:
            self._numbers[series] = (self._numbers.get(series) or 0.0) + amount
        self._changed[series] = None

    def _set(self, series: Series, value: float | None) -> None:
        if self._numbers.get(series) != value:  # a stage sets a dozen gauges at each end, and few of them change
            self._numbers[series] = value
            self._changed[series] = None

    def _read_value(self, series: Series) -> Value | None:
        buckets = self._histograms.get(series)
        return buckets.total() if buckets is not None else self._numbers.get(series)

    def _update_live_series(self, event: Event) -> None:
        """Set the series that describe running stages and lanes."""
        match event:
            case RunStarted():
                self._set((families.RUN_IN_PROGRESS, (event.lane,)), 1.0)
                self._set((families.RUN_STARTED, (event.lane,)), event.started_timestamp_seconds)
                self._start_deadline(event)
                for stage in event.stages:
                    self._progress[event.lane, stage] = _Progress()
                    self._set((families.STAGE_PROGRESS, (event.lane, stage)), 0.0)
            case StageStarted():
                self._start_stage(event)
            case TaskRecord(final=True) if event.result is not Result.SKIP:
                self._count_task((event.lane, event.stage))
            case StageRecord():
                self._end_stage(event)
            case RunRecord():
                self._set((families.RUN_IN_PROGRESS, (event.lane,)), 0.0)
                for family in (families.RUN_STARTED, families.RUN_DEADLINE, families.RUN_PREDICTED_END):
                    if self._numbers.get((family, (event.lane,))) is not None:
                        self._set((family, (event.lane,)), None)
            case _:
                return

    def _start_deadline(self, run: RunStarted) -> None:
        for family, seconds in (
            (families.RUN_DEADLINE, run.deadline_seconds),
            (families.RUN_PREDICTED_END, run.predicted_seconds),
        ):
            if seconds is not None:
                self._set((family, (run.lane,)), run.started_timestamp_seconds + seconds)

    def _start_stage(self, stage: StageStarted) -> None:
        place = (stage.lane, stage.stage)
        progress = self._progress.setdefault(place, _Progress())
        progress.tasks = stage.tasks
        self._set_progress(place, progress)
        self._set((families.STAGE_RUNNING, place), 1.0)
        self._set((families.STAGE_STARTED, place), stage.started_timestamp_seconds)
        if stage.sla is not None:
            deadline = stage.started_timestamp_seconds + stage.sla.max_seconds
            self._set((families.SLA_DEADLINE, place), deadline)

    def _count_task(self, place: tuple[str, str]) -> None:
        progress = self._progress.get(place)
        if progress is not None:
            progress.ended += 1
            self._set_progress(place, progress)

    def _set_progress(self, place: tuple[str, str], progress: _Progress) -> None:
        if progress.tasks:  # cached tasks end before their stage starts
            self._set((families.STAGE_PROGRESS, place), min(1.0, progress.ended / progress.tasks))

    def _end_stage(self, stage: StageRecord) -> None:
        place = (stage.lane, stage.stage)
        self._progress.pop(place, None)
        if stage.cached:  # it never started
            self._set((families.STAGE_PROGRESS, place), 1.0)
        self._set((families.STAGE_RUNNING, place), 0.0)
        self._set((families.STAGE_STARTED, place), None)
        self._set((families.SLA_DEADLINE, place), None)


class DeferredEventState:
    """An EventState that is built for the first reader: a run that ends before a scrape needs none.

        observe(): keep the event      get(): build the state and apply the kept events; later ones go to it directly

    Guarantees: the state has each event once, in order; `observe` does not wait while another thread builds the state.
    Building it for 1,000 stages takes as long as ten of their tasks. At `_MOST_DEFERRED` events, `observe` builds it.
    """

    def __init__(self, build: Callable[[], EventState]) -> None:
        self._building = Lock()  # guards: _build
        self._build: Callable[[], EventState] | None = build
        self._lock = Lock()  # guards: all below
        self._deferred: list[Event] = []
        self._state: EventState | None = None

    def observe(self, event: Event) -> None:
        """Apply an event, now or later; from any thread."""
        with self._lock:
            state = self._state
            if state is None:
                self._deferred.append(_drop_texts(event))
                is_full = len(self._deferred) >= _MOST_DEFERRED
        if state is not None:
            state.observe(event)
        elif is_full and self._building.acquire(blocking=False):
            try:
                self._build_state()
            finally:
                self._building.release()

    def get(self) -> EventState:
        """Return the state with all events so far; from any thread."""
        if self._build is not None:
            with self._building:
                self._build_state()
        assert self._state is not None
        return self._state

    def _build_state(self) -> None:
        if self._build is not None:
            self._replay_into(self._build())
            self._build = None  # it holds the totals of the history

    def _replay_into(self, state: EventState) -> None:
        while True:
            with self._lock:
                events, self._deferred = self._deferred, []
                if not events:
                    self._state = state
                    return
            for event in events:
                state.observe(event)


def _drop_texts(event: Event) -> Event:
    """Return an event without long texts that no series uses: output, messages, a decision's figures."""
    match event:
        case TaskRecord() if event.output or event.items or event.message:
            return replace(event, output="", items=(), message="")
        case Decision():
            return replace(event, situation="", choice="", terms={})
        case _:
            return event


def _collect_places(lanes: Iterable[LaneLabels], pools: Iterable[str]) -> frozenset[Labels]:
    """Return the place labels of all lanes, stages and pools."""
    stages = {(lane.lane, stage.name) for lane in lanes for stage in lane.stages}
    return frozenset({(lane.lane,) for lane in lanes} | stages | {(pool,) for pool in pools})


def _get_place(family: Family, values: Labels) -> Labels:
    return tuple([values[position] for position in _find_place(family)])


@cache
def _find_place(family: Family) -> tuple[int, ...]:
    return tuple(position for position, label in enumerate(family.labels) if label in _PLACE_LABELS)


def _iter_zeros(lanes: Iterable[LaneLabels]) -> Iterator[tuple[Family, Labels]]:
    """Yield every counter, histogram and 0/1 gauge of the lanes, so that their series are 0 from the start.

    Only stages and lanes with a limit have SLA families, and only cached stages have those of the cache.
    """
    for lane in lanes:
        yield from _iter_products(_LANE, (lane.lane,))
        if lane.total is not None:
            yield from _iter_products(_LANE_WITH_LIMIT, (lane.lane,))
        for stage in lane.stages:
            yield from _iter_products(_STAGE, (lane.lane, stage.name))
            if stage.sla is not None:
                yield from _iter_products(_STAGE_WITH_LIMIT, (lane.lane, stage.name))
            if stage.cached:
                yield families.CACHE_SAVED, (lane.lane, stage.name)
                for reason in families.CACHE_REASONS:
                    result = "hit" if reason == CacheReason.UNCHANGED else "miss"
                    yield families.CACHE_LOOKUPS, (lane.lane, stage.name, result, reason)


def _iter_pool_zeros(pools: Iterable[str]) -> Iterator[tuple[Family, Labels]]:
    """Yield the counters of each pool's decisions: each action with its possible reasons."""
    for pool in pools:
        for action, reasons in families.DECISION_REASONS.items():
            for reason in reasons:
                yield families.CONTROL_DECISIONS, (pool, action, reason)


def _iter_constants(lanes: Iterable[LaneLabels]) -> Iterator[tuple[Family, Labels, float]]:
    """Yield the gauges that the config defines."""
    for lane in lanes:
        if lane.interval_seconds is not None:
            yield families.RUN_INTERVAL, (lane.lane,), lane.interval_seconds
        if lane.total is not None:
            yield families.LANE_SLA_LIMIT, (lane.lane,), lane.total.max_seconds
            yield families.LANE_SLA_WARNING, (lane.lane,), lane.total.warn_seconds
        for stage in lane.stages:
            place = (lane.lane, stage.name)
            yield families.STAGE_INFO, (*place, str(stage.number), stage.pool), 1.0
            if stage.sla is not None:
                yield families.SLA_LIMIT, place, stage.sla.max_seconds
                yield families.SLA_WARNING, place, stage.sla.warn_seconds


def _iter_products(chosen: Sequence[Family], place: Labels) -> Iterator[tuple[Family, Labels]]:
    """Yield each family for a lane or stage, with each combination of values of its closed labels, which come last."""
    for family in chosen:
        for values in _list_closed_values(family):
            yield family, (*place, *values)


@cache
def _list_closed_values(family: Family) -> tuple[Labels, ...]:
    return tuple(product(*families.CLOSED_VALUES.get(family, {}).values()))


class _Histogram:
    """A histogram that changes with each observation."""

    __slots__ = ("counts", "sum")

    def __init__(self, total: HistogramTotal) -> None:
        self.counts = list(total.buckets)
        self.sum = total.sum

    def observe(self, seconds: float) -> None:
        self.counts[aggregation.find_bucket(seconds)] += 1
        self.sum += seconds

    def total(self) -> HistogramTotal:
        return HistogramTotal(buckets=tuple(self.counts), sum=self.sum)


class _Progress:
    """A stage's number of tasks, 0 until it starts, and how many have ended."""

    __slots__ = ("ended", "tasks")

    def __init__(self) -> None:
        self.tasks = 0
        self.ended = 0
