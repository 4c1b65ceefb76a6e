"""The Python API of the user's tuning guide, a thin layer over the other packages.

The package's top exports the same names, and loads each on its first use (PEP 562): `detect_lane` needs no pool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import paropt_exporter

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

if not TYPE_CHECKING:  # if a type checker saw this function, it would accept any misspelt name as Any

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(paropt_exporter, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
