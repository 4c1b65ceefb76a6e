"""Run stages in parallel on pools that size themselves, and export them to Prometheus.

Names are loaded when they are first used (PEP 562): a worker process imports only
`paropt_exporter.executors.worker`, and nothing else may add to its start-up time.
"""

from __future__ import annotations

from importlib import import_module

from paropt_exporter._version import __version__

TYPE_CHECKING = False  # typing takes longer to load than the whole of `python -c pass`
if TYPE_CHECKING:
    from typing import Any

_HOMES = {
    "ThreadPool": "paropt_exporter.executors",
    "ProcessPool": "paropt_exporter.executors",
    "WorkerDied": "paropt_exporter.errors",
    "ParoptError": "paropt_exporter.errors",
    "AdaptiveWorkerPool": "paropt_exporter.guide",
    "LaneType": "paropt_exporter.guide",
    "ParallelizationDashboard": "paropt_exporter.guide",
    "ParallelizationProfiler": "paropt_exporter.guide",
    "ParallelizationSLAManager": "paropt_exporter.guide",
    "ParallelizationStrategy": "paropt_exporter.guide",
    "PoolCollector": "paropt_exporter.metrics.collector",
    "SLATarget": "paropt_exporter.guide",
    "StageMetrics": "paropt_exporter.guide",
    "WorkerPoolMetrics": "paropt_exporter.guide",
    "WorkerPoolOptimizer": "paropt_exporter.guide",
    "detect_lane": "paropt_exporter.guide",
    "steer": "paropt_exporter.autoscaling.pool_controller",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604 -- the names are those of the table above


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
