"""The Python API of the user's tuning guide, a thin layer over the real parts; nothing in the package uses it."""

from __future__ import annotations

from paropt_exporter.guide.lanes import LaneType, detect_lane
from paropt_exporter.guide.measures import StageMetrics, WorkerPoolMetrics
from paropt_exporter.guide.pool import AdaptiveWorkerPool
from paropt_exporter.guide.profiler import ParallelizationProfiler
from paropt_exporter.guide.report import ParallelizationDashboard
from paropt_exporter.guide.sla import ParallelizationSLAManager, SLATarget
from paropt_exporter.guide.strategies import ParallelizationStrategy, WorkerPoolOptimizer

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
