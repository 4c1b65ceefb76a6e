"""The Python API of the user's tuning guide, a thin layer over the other packages.

Names load on first use (PEP 562): `detect_lane` needs no pool.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paropt_exporter.guide.lane_types import LaneType as LaneType
    from paropt_exporter.guide.lane_types import detect_lane as detect_lane
    from paropt_exporter.guide.pool_metrics import ParallelizationDashboard as ParallelizationDashboard
    from paropt_exporter.guide.pool_metrics import StageMetrics as StageMetrics
    from paropt_exporter.guide.pool_metrics import WorkerPoolMetrics as WorkerPoolMetrics
    from paropt_exporter.guide.profiler import ParallelizationProfiler as ParallelizationProfiler
    from paropt_exporter.guide.sla_manager import ParallelizationSLAManager as ParallelizationSLAManager
    from paropt_exporter.guide.sla_manager import SLATarget as SLATarget
    from paropt_exporter.guide.strategies import ParallelizationStrategy as ParallelizationStrategy
    from paropt_exporter.guide.strategies import WorkerPoolOptimizer as WorkerPoolOptimizer
    from paropt_exporter.guide.worker_pool import AdaptiveWorkerPool as AdaptiveWorkerPool

__all__ = [
    "AdaptiveWorkerPool",
    "LaneType",
    "ParallelizationDashboard",
    "ParallelizationProfiler",
    "ParallelizationSLAManager",
    "ParallelizationStrategy",
    "SLATarget",
    "StageMetrics",
    "WorkerPoolMetrics",
    "WorkerPoolOptimizer",
    "detect_lane",
]

_HOMES = {
    "AdaptiveWorkerPool": "paropt_exporter.guide.worker_pool",
    "LaneType": "paropt_exporter.guide.lane_types",
    "ParallelizationDashboard": "paropt_exporter.guide.pool_metrics",
    "ParallelizationProfiler": "paropt_exporter.guide.profiler",
    "ParallelizationSLAManager": "paropt_exporter.guide.sla_manager",
    "ParallelizationStrategy": "paropt_exporter.guide.strategies",
    "SLATarget": "paropt_exporter.guide.sla_manager",
    "StageMetrics": "paropt_exporter.guide.pool_metrics",
    "WorkerPoolMetrics": "paropt_exporter.guide.pool_metrics",
    "WorkerPoolOptimizer": "paropt_exporter.guide.strategies",
    "detect_lane": "paropt_exporter.guide.lane_types",
}

if not TYPE_CHECKING:  # with this function in sight a type checker would accept any misspelt name as Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
