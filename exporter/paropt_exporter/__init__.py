"""Run stages in parallel on pools that size themselves, and export them to Prometheus.

Executors: `ThreadPool` and `ProcessPool`, which `steer` sizes by their load, and `AdaptivePool`, which sizes itself.
Stages: `AdaptiveWorkerPool`, with `ParallelizationSLAManager`, `ParallelizationProfiler` and others.
Metrics: `PoolCollector` and `StageCollector`, for prometheus_client's registry.
"""

# Names are loaded when they are first used (PEP 562): a worker process imports only
# `paropt_exporter.executors.worker`, and nothing else may add to its start-up time.

from __future__ import annotations

import sys
from importlib import import_module

from paropt_exporter._version import __version__ as __version__

TYPE_CHECKING = False  # type checkers know the name; the supervisor and workers don't need typing

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.pool_controller import steer as steer
    from paropt_exporter.errors import ParoptError as ParoptError
    from paropt_exporter.errors import WorkerDied as WorkerDied
    from paropt_exporter.executors.adaptive.adaptive_pool import AdaptivePool as AdaptivePool
    from paropt_exporter.executors.processes.executor import ProcessPool as ProcessPool
    from paropt_exporter.executors.threads.thread_pool import ThreadPool as ThreadPool
    from paropt_exporter.guide.lane_types import LaneType as LaneType
    from paropt_exporter.guide.lane_types import detect_lane as detect_lane
    from paropt_exporter.guide.pool_metrics import ParallelizationDashboard as ParallelizationDashboard
    from paropt_exporter.guide.pool_metrics import StageMetrics as StageMetrics
    from paropt_exporter.guide.pool_metrics import WorkerPoolMetrics as WorkerPoolMetrics
    from paropt_exporter.guide.profiler import ParallelizationProfiler as ParallelizationProfiler
    from paropt_exporter.guide.sla_manager import ParallelizationSLAManager as ParallelizationSLAManager
    from paropt_exporter.guide.sla_manager import SLATarget as SLATarget
    from paropt_exporter.guide.stage_collector import StageCollector as StageCollector
    from paropt_exporter.guide.strategies import ParallelizationStrategy as ParallelizationStrategy
    from paropt_exporter.guide.strategies import WorkerPoolOptimizer as WorkerPoolOptimizer
    from paropt_exporter.guide.worker_pool import AdaptiveWorkerPool as AdaptiveWorkerPool
    from paropt_exporter.metrics.collector import PoolCollector as PoolCollector

__all__ = [
    "AdaptivePool",
    "AdaptiveWorkerPool",
    "LaneType",
    "ParallelizationDashboard",
    "ParallelizationProfiler",
    "ParallelizationSLAManager",
    "ParallelizationStrategy",
    "ParoptError",
    "PoolCollector",
    "ProcessPool",
    "SLATarget",
    "StageCollector",
    "StageMetrics",
    "ThreadPool",
    "WorkerDied",
    "WorkerPoolMetrics",
    "WorkerPoolOptimizer",
    "__version__",
    "detect_lane",
    "steer",
]

_HOMES = {
    "AdaptivePool": "paropt_exporter.executors.adaptive.adaptive_pool",
    "AdaptiveWorkerPool": "paropt_exporter.guide.worker_pool",
    "LaneType": "paropt_exporter.guide.lane_types",
    "ParallelizationDashboard": "paropt_exporter.guide.pool_metrics",
    "ParallelizationProfiler": "paropt_exporter.guide.profiler",
    "ParallelizationSLAManager": "paropt_exporter.guide.sla_manager",
    "ParallelizationStrategy": "paropt_exporter.guide.strategies",
    "ParoptError": "paropt_exporter.errors",
    "PoolCollector": "paropt_exporter.metrics.collector",
    "ProcessPool": "paropt_exporter.executors.processes.executor",
    "SLATarget": "paropt_exporter.guide.sla_manager",
    "StageCollector": "paropt_exporter.guide.stage_collector",
    "StageMetrics": "paropt_exporter.guide.pool_metrics",
    "ThreadPool": "paropt_exporter.executors.threads.thread_pool",
    "WorkerDied": "paropt_exporter.errors",
    "WorkerPoolMetrics": "paropt_exporter.guide.pool_metrics",
    "WorkerPoolOptimizer": "paropt_exporter.guide.strategies",
    "detect_lane": "paropt_exporter.guide.lane_types",
    "steer": "paropt_exporter.autoscaling.pool_controller",
}

if not TYPE_CHECKING:  # if a type checker saw this function, it would accept any misspelt name as Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if sys.platform != "linux" or (hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled()):
            from paropt_exporter.platform_check import find_unsuitable

            raise ImportError(f"paropt_exporter {find_unsuitable()}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
