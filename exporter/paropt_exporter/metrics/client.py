"""The parts of prometheus_client that this package uses: none of them stores values."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

go_number: Callable[[float], str] = floatToGoString
text_page: Callable[[Collector], bytes] = generate_latest
openmetrics_page: Callable[[Collector], bytes] = openmetrics.generate_latest


def create_registry(*, process_metrics: bool) -> CollectorRegistry:
    """Create a registry; `process_metrics`: with those of this process and its garbage collector."""
    registry = CollectorRegistry(auto_describe=False)
    if process_metrics:
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)
    return registry


__all__ = [
    "Collector",
    "CollectorRegistry",
    "CounterMetricFamily",
    "GaugeMetricFamily",
    "HistogramMetricFamily",
    "Metric",
    "create_registry",
    "go_number",
    "openmetrics_page",
    "text_page",
]
