"""Write series as Prometheus text, keeping the text of those that have not changed since the last scrape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate

from paropt_exporter.catalogue import BUCKETS_SECONDS, Family
from paropt_exporter.metrics.client import Metric, go_number
from paropt_exporter.tally import HistogramTotal

Labels = tuple[str, ...]
Value = float | HistogramTotal

_BOUNDS = tuple(go_number(bound) for bound in (*BUCKETS_SECONDS, float("inf")))


class Page:
    """The series of a scrape, and their text.

        put, drop, replace -> _values[family][labels] -> text(), only of what changed -> _texts[family][labels]

    Why not prometheus_client's writer: it formats every line at every scrape, holding the GIL against the work; at
    10,000 stages (1.1 million lines) that is measured in tens of seconds, and under one here. The lines are, byte for
    byte, the same. Sample lines of the text formats and of OpenMetrics do not differ, only the heads of counters do.
    Not thread-safe: its owner holds a lock.
    """

    def __init__(self, project: str) -> None:
        self._project = project
        self._values: dict[Family, dict[Labels, Value]] = {}
        self._texts: dict[Family, dict[Labels, str]] = {}

    def put(self, family: Family, labels: Labels, value: Value) -> None:
        """Set one series. `labels` are the family's, without `project`."""
        values = self._values.setdefault(family, {})
        if values.get(labels) != value:
            values[labels] = value
            self._texts.setdefault(family, {})[labels] = self._written(family, labels, value)

    def drop(self, family: Family, labels: Labels) -> None:
        """Remove one series; nothing if it is not there."""
        self._values.get(family, {}).pop(labels, None)
        self._texts.get(family, {}).pop(labels, None)

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
                yield _head(family, openmetrics=openmetrics)
                yield "".join(texts.values())

    def metrics(self, families: Iterable[Family]) -> Iterator[Metric]:
        """Yield the same series as objects of prometheus_client, for whoever has a registry of their own."""
        for family in families:
            if values := self._values.get(family):
                metric = Metric(family.name.removesuffix("_total"), family.help, family.kind.value)
                for labels, value in values.items():
                    _add(metric, family, dict(zip(family.label_names, (self._project, *labels), strict=True)), value)
                yield metric

    def _written(self, family: Family, labels: Labels, value: Value) -> str:
        names, values = family.label_names, (self._project, *labels)
        if isinstance(value, HistogramTotal):
            return _histogram(family.name, sorted(zip(names, values, strict=True)), value)
        return f"{family.name}{{{_sorted(names, values)}}} {go_number(value)}\n"


def _head(family: Family, *, openmetrics: bool) -> str:
    name = family.name.removesuffix("_total") if openmetrics else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.kind.value}\n"


def _histogram(name: str, pairs: list[tuple[str, str]], total: HistogramTotal) -> str:
    # `le` has its place among the sorted labels: found once, not for each of the 24 bounds.
    before = "".join(f"{_joined([pair])}," for pair in pairs if pair[0] < "le")
    after = "".join(f",{_joined([pair])}" for pair in pairs if pair[0] > "le")
    counts = list(accumulate(total.buckets))
    written = {count: go_number(count) for count in set(counts)}  # few differ: most of the cost is in go_number
    start, end = f'{name}_bucket{{{before}le="', f'"{after}}} '
    lines = [f"{start}{bound}{end}{written[count]}\n" for bound, count in zip(_BOUNDS, counts, strict=True)]
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


def _add(metric: Metric, family: Family, labels: dict[str, str], value: Value) -> None:
    if not isinstance(value, HistogramTotal):
        metric.add_sample(family.name, labels, value)
        return
    counts = list(accumulate(value.buckets))
    for bound, count in zip(_BOUNDS, counts, strict=True):
        metric.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    metric.add_sample(f"{family.name}_count", labels, counts[-1])
    metric.add_sample(f"{family.name}_sum", labels, value.sum)
