"""Import prometheus_client, once its multi-process mode is ruled out."""

from __future__ import annotations

import os
from collections.abc import Callable

# The client looks at this at import, and would then keep every value in memory-mapped files that other programs read
# too. Tasks here bring their measurements home themselves, so it must be gone before the import below.
DROPPED = [name for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir") if os.environ.pop(name, None)]

# E402: the imports have to come after the line above, that is this module's one job.
from prometheus_client import CollectorRegistry  # noqa: E402
from prometheus_client.exposition import generate_latest as text_page  # noqa: E402
from prometheus_client.gc_collector import GCCollector  # noqa: E402
from prometheus_client.metrics_core import Metric  # noqa: E402
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_page  # noqa: E402
from prometheus_client.process_collector import ProcessCollector  # noqa: E402
from prometheus_client.registry import Collector  # noqa: E402
from prometheus_client.utils import floatToGoString  # noqa: E402

go_number: Callable[[float], str] = floatToGoString

__all__ = [
    "DROPPED",
    "Collector",
    "CollectorRegistry",
    "GCCollector",
    "Metric",
    "ProcessCollector",
    "go_number",
    "openmetrics_page",
    "text_page",
]
