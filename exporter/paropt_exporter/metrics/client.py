"""Import prometheus_client after its multi-process mode is disabled."""

from __future__ import annotations

from collections.abc import Callable

from paropt_exporter.metrics import multiprocess

DROPPED = multiprocess.DROPPED

# E402: `multiprocess` must be imported before these.
from prometheus_client import CollectorRegistry  # noqa: E402
from prometheus_client.exposition import generate_latest  # noqa: E402
from prometheus_client.gc_collector import GCCollector  # noqa: E402
from prometheus_client.metrics_core import (  # noqa: E402
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics  # noqa: E402
from prometheus_client.process_collector import ProcessCollector  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402
from prometheus_client.utils import floatToGoString  # noqa: E402

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
    "DROPPED",
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
