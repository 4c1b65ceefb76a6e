"""Format series as Prometheus text; cache the text of series that have not changed since the last scrape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.families import BUCKETS_SECONDS, Family, Kind
from paropt_exporter.terminal import to_unicode

if TYPE_CHECKING:
    from paropt_exporter.metrics.client import Metric

Labels = tuple[str, ...]
Value = float | HistogramTotal


class Page:
    """The series of a scrape and their text.

        put, drop, replace -> _values, _stale -> write_changed() -> _texts[family][labels] -> format_page()

    prometheus_client's writer formats every line at every scrape and holds the GIL meanwhile: 7 s for 10,000 stages
    (1.1 million lines), 0.5 s here. The text of each series is kept as bytes, so that a page is one join, for which
    Python releases the GIL. The lines equal its lines, byte for byte. Sample lines of text and OpenMetrics are the
    same; only the heads of counters differ. Not thread-safe: its owner holds a lock.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._values: dict[Family, dict[Labels, Value]] = {}
        self._texts: dict[Family, dict[Labels, bytes]] = {}
        self._stale: dict[Family, set[Labels]] = {}  # series that have changed since their text was written

    def put(self, family: Family, labels: Labels, value: Value) -> None:
        """Set one series. `labels` are the family's, without `project`."""
        values = self._values.setdefault(family, {})
        if values.get(labels) != value:
            values[labels] = value
            self._texts.setdefault(family, {}).setdefault(labels, b"")  # reserves its place on the page
            self._stale.setdefault(family, set()).add(labels)

    def drop(self, family: Family, labels: Labels) -> None:
        """Remove one series, if it exists."""
        self._values.get(family, {}).pop(labels, None)
        self._texts.get(family, {}).pop(labels, None)
        self._stale.get(family, set()).discard(labels)

    def replace(self, families: Iterable[Family], samples: Iterable[tuple[Family, Labels, Value]]) -> None:
        """Replace all series of some families with these."""
        kept: defaultdict[Family, set[Labels]] = defaultdict(set)
        for family, labels, value in samples:
            self.put(family, labels, value)
            kept[family].add(labels)
        for family in families:
            known = self._values.get(family, {})
            if len(known) > len(kept[family]):
                for labels in known.keys() - kept[family]:
                    self.drop(family, labels)

    def get_number(self, family: Family, labels: Labels) -> float:
        """Return the current value of a counter or gauge; 0 if it has none."""
        value = self._values.get(family, {}).get(labels, 0.0)
        return value if not isinstance(value, HistogramTotal) else value.sum

    def iter_values(self, families: Iterable[Family]) -> Iterator[tuple[Family, Labels, Value]]:
        """Yield the series of some families."""
        for family in families:
            yield from ((family, labels, value) for labels, value in self._values.get(family, {}).items())

    def format_page(self, families: Iterable[Family], *, openmetrics: bool) -> list[list[bytes]]:
        """Return a list of lines for each family: its head and the text of each series; empty if it has no series."""
        return [format_part(family, self.format_family(family), openmetrics=openmetrics) for family in families]

    def format_family(self, family: Family) -> Collection[bytes]:
        """Return the sample lines of each series of one family, without its head."""
        self._format_changed(family)
        return self._texts.get(family, {}).values()

    def iter_metrics(self, families: Iterable[Family]) -> Iterator[Metric]:
        """Yield the series as prometheus_client's objects, for a program's own registry.

        A program may name a pool after a file: a name that is not UTF-8 would cost it the whole page.
        """
        for family in families:
            if values := self._values.get(family):
                named = {tuple(map(to_unicode, (self._project, *each))): value for each, value in values.items()}
                yield _build_metric(family, named)

    def write_changed(self) -> None:
        """Format all changed series now, so that the next `format_page` is fast."""
        for family in tuple(self._stale):
            self._format_changed(family)

    def _format_changed(self, family: Family) -> None:
        texts, values = self._texts.get(family, {}), self._values.get(family, {})
        for labels in self._stale.pop(family, ()):
            texts[labels] = self._format_series(family, labels, values[labels], texts[labels])

    def _format_series(self, family: Family, labels: Labels, value: Value, text: bytes) -> bytes:
        """Return the lines of a series; `text` has its previous lines, if any."""
        if isinstance(value, HistogramTotal):
            return _format_histogram(family, (self._project, *labels), value).encode()
        number = f"{_load_go_number()(value)}\n".encode()
        if text:  # only its number changes
            return text[: text.rindex(b" ") + 1] + number
        names, values = family.label_names, (self._project, *labels)
        return f"{family.name}{{{_format_sorted_labels(names, values)}}} ".encode() + number


@cache
def _load_go_number() -> Callable[[float], str]:
    from paropt_exporter.metrics.client import go_number  # slow to import; a run that is never scraped does not need it

    return go_number


@cache
def _format_bounds() -> tuple[str, ...]:
    return tuple(map(_load_go_number(), (*BUCKETS_SECONDS, float("inf"))))


def format_part(family: Family, lines: Collection[bytes], *, openmetrics: bool) -> list[bytes]:
    """Return the part of a family on the page: its head and lines, or nothing without lines."""
    return [_format_head(family, openmetrics=openmetrics), *lines] if lines else []


@cache
def _format_head(family: Family, *, openmetrics: bool) -> bytes:
    name = family.name.removesuffix("_total") if openmetrics else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind.value}\n".encode()


def _format_histogram(family: Family, values: Labels, total: HistogramTotal) -> str:
    go_number = _load_go_number()
    name, (before, after, labels) = family.name, _format_bucket_labels(family.label_names, values)
    start, bounds = f'{name}_bucket{{{before}le="', _format_bounds()
    # Most buckets are empty, so the cumulative count repeats at many bounds.
    edges = [0, *(place for place, observed in enumerate(total.buckets) if observed and place), len(bounds)]
    count, parts = 0.0, []
    for first, last in pairwise(edges):
        count += total.buckets[first]
        end = f'"{after}}} {go_number(count)}\n'
        parts += [start, f"{end}{start}".join(bounds[first:last]), end]
    parts.append(f"{name}_count{{{labels}}} {go_number(count)}\n{name}_sum{{{labels}}} {go_number(total.sum)}\n")
    return "".join(parts)


@lru_cache(maxsize=1000)  # as below
def _format_bucket_labels(names: Labels, values: Labels) -> tuple[str, str, str]:
    """Return the labels before and after `le` in the sorted order, and all without `le`."""
    pairs = sorted(zip(names, values, strict=True))
    before = "".join(f"{_join_labels([pair])}," for pair in pairs if pair[0] < "le")
    after = "".join(f",{_join_labels([pair])}" for pair in pairs if pair[0] > "le")
    return before, after, _join_labels(pairs)


@lru_cache(maxsize=1000)  # a stage's series come in sequence, and a dozen families have the same labels
def _format_sorted_labels(names: Labels, values: Labels) -> str:
    return _join_labels(sorted(zip(names, values, strict=True)))


def _join_labels(pairs: Iterable[tuple[str, str]]) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in pairs)


@lru_cache(maxsize=10_000)  # the same few values are in every series
def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _build_metric(family: Family, values: Mapping[Labels, Value]) -> Metric:
    from paropt_exporter.metrics import client  # as in `_load_go_number`

    if family.kind is Kind.HISTOGRAM:
        histogram = client.HistogramMetricFamily(family.name, family.help, labels=family.label_names)
        for labels, total in values.items():
            assert isinstance(total, HistogramTotal)
            buckets = zip(_format_bounds(), accumulate(total.buckets), strict=True)
            histogram.add_metric(labels, buckets=list(buckets), sum_value=total.sum)
        return histogram
    kind = client.CounterMetricFamily if family.kind is Kind.COUNTER else client.GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.label_names)
    for labels, value in values.items():
        assert isinstance(value, int | float)
        metric.add_metric(labels, value)
    return metric
