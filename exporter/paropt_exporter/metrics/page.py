"""Write series as Prometheus text, keeping the text of those that have not changed since the last scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.families import BUCKETS_SECONDS, Family, Kind

if TYPE_CHECKING:
    from paropt_exporter.metrics.client import Metric

Labels = tuple[str, ...]
Value = float | HistogramTotal


class Page:
    """The series of a scrape, and their text.

        put, drop, replace -> _values, _stale -> write(), of changed series -> _texts[family][labels] -> text()

    Why not prometheus_client's writer: it formats every line at every scrape, holding the GIL against the work; at
    10,000 stages (1.1 million lines) that is measured in tens of seconds, and under one here. The lines are, byte for
    byte, the same. Sample lines of the text formats and of OpenMetrics do not differ, only the heads of counters do.
    Not thread-safe: its owner holds a lock.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._values: dict[Family, dict[Labels, Value]] = {}
        self._texts: dict[Family, dict[Labels, str]] = {}
        self._stale: dict[Family, set[Labels]] = {}  # series that have changed since their text was written

    def put(self, family: Family, labels: Labels, value: Value) -> None:
        """Set one series. `labels` are the family's, without `project`."""
        values = self._values.setdefault(family, {})
        if values.get(labels) != value:
            values[labels] = value
            self._texts.setdefault(family, {}).setdefault(labels, "")  # its place in the page is that of its first put
            self._stale.setdefault(family, set()).add(labels)

    def drop(self, family: Family, labels: Labels) -> None:
        """Remove one series; nothing if it is not there."""
        self._values.get(family, {}).pop(labels, None)
        self._texts.get(family, {}).pop(labels, None)
        self._stale.get(family, set()).discard(labels)

    def replace(self, families: Iterable[Family], samples: Iterable[tuple[Family, Labels, Value]]) -> None:
        """Set the series of some families to exactly these."""
        gone = {(family, labels) for family in families for labels in self._values.get(family, ())}
        for family, labels, value in samples:
            self.put(family, labels, value)
            gone.discard((family, labels))
        for family, labels in gone:
            self.drop(family, labels)

    def number(self, family: Family, labels: Labels) -> float:
        """Return a counter or gauge as it was put last; 0 if it is not there."""
        value = self._values.get(family, {}).get(labels, 0.0)
        return value if not isinstance(value, HistogramTotal) else value.sum

    def text(self, families: Iterable[Family], *, openmetrics: bool) -> Iterator[str]:
        """Yield the page family by family, those without series left out."""
        for family in families:
            if texts := self._texts.get(family):
                self._write(family)
                yield _head(family, openmetrics=openmetrics)
                yield "".join(texts.values())

    def metrics(self, families: Iterable[Family]) -> Iterator[Metric]:
        """Yield the same series as objects of prometheus_client, for whoever has a registry of their own."""
        for family in families:
            if values := self._values.get(family):
                yield _metric(family, {(self._project, *labels): value for labels, value in values.items()})

    def write(self) -> None:
        """Write the text of all series that have changed, so that the next `text` need not."""
        for family in tuple(self._stale):
            self._write(family)

    def _write(self, family: Family) -> None:
        texts, values = self._texts.get(family, {}), self._values.get(family, {})
        for labels in self._stale.pop(family, ()):
            texts[labels] = self._written(family, labels, values[labels])

    def _written(self, family: Family, labels: Labels, value: Value) -> str:
        names, values = family.label_names, (self._project, *labels)
        if isinstance(value, HistogramTotal):
            return _histogram(family.name, sorted(zip(names, values, strict=True)), value)
        return f"{family.name}{{{_sorted(names, values)}}} {_go_number()(value)}\n"


@cache
def _go_number() -> Callable[[float], str]:
    from paropt_exporter.metrics.client import go_number  # slow to load, and a run that no one scrapes needs it not

    return go_number


@cache
def _bounds() -> tuple[str, ...]:
    return tuple(map(_go_number(), (*BUCKETS_SECONDS, float("inf"))))


def _head(family: Family, *, openmetrics: bool) -> str:
    name = family.name.removesuffix("_total") if openmetrics else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind.value}\n"


def _histogram(name: str, pairs: list[tuple[str, str]], total: HistogramTotal) -> str:
    # `le` has its place among the sorted labels: found once, not for each of the 24 bounds.
    go_number = _go_number()
    before = "".join(f"{_joined([pair])}," for pair in pairs if pair[0] < "le")
    after = "".join(f",{_joined([pair])}" for pair in pairs if pair[0] > "le")
    counts = list(accumulate(total.buckets))
    written = {count: go_number(count) for count in set(counts)}  # few differ: most of the cost is in go_number
    start, end = f'{name}_bucket{{{before}le="', f'"{after}}} '
    lines = [f"{start}{bound}{end}{written[count]}\n" for bound, count in zip(_bounds(), counts, strict=True)]
    labels = _joined(pairs)
    lines.append(f"{name}_count{{{labels}}} {go_number(counts[-1])}\n")
    lines.append(f"{name}_sum{{{labels}}} {go_number(total.sum)}\n")
    return "".join(lines)


@lru_cache(maxsize=1000)  # a stage's series come one after another, and a dozen families have the same labels
def _sorted(names: Labels, values: Labels) -> str:
    return _joined(sorted(zip(names, values, strict=True)))


def _joined(pairs: Iterable[tuple[str, str]]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs)


@lru_cache(maxsize=10_000)  # the same few names stand in every series
def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _metric(family: Family, values: Mapping[Labels, Value]) -> Metric:
    from paropt_exporter.metrics import client  # as in `_go_number`

    if family.kind is Kind.HISTOGRAM:
        histogram = client.HistogramMetricFamily(family.name, family.help, labels=family.label_names)
        for labels, total in values.items():
            assert isinstance(total, HistogramTotal)
            buckets = zip(_bounds(), accumulate(total.buckets), strict=True)
            histogram.add_metric(labels, buckets=list(buckets), sum_value=total.sum)
        return histogram
    kind = client.CounterMetricFamily if family.kind is Kind.COUNTER else client.GaugeMetricFamily
    metric = kind(family.name, family.help, labels=family.label_names)
    for labels, value in values.items():
        assert isinstance(value, int | float)
        metric.add_metric(labels, value)
    return metric
