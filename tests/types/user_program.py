"""What a type checker tells a user's program: each result has its type, and a wrong argument is an error.

`make types` gives this file to mypy and to pyright, both strict, beside the installed wheel. An expected error carries
`type: ignore`, and both checkers report one that ignores nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from datetime import datetime
from typing import assert_type

from prometheus_client import CollectorRegistry

import paropt_exporter
from paropt_exporter import (
    AdaptivePool,
    AdaptiveWorkerPool,
    LaneType,
    ParallelizationDashboard,
    ParallelizationProfiler,
    ParallelizationSLAManager,
    ParallelizationStrategy,
    ParoptError,
    PoolCollector,
    ProcessPool,
    SLATarget,
    StageMetrics,
    ThreadPool,
    WorkerDied,
    WorkerPoolMetrics,
    WorkerPoolOptimizer,
    detect_lane,
    steer,
)
from paropt_exporter.events import PoolStatistics
from paropt_exporter.executors import CommandOutcome, CommandPool, Router, TaskFuture, thread_only


def measure(text: str, *, factor: float = 1.0) -> float:
    return len(text) * factor


@thread_only
def count(number: int) -> list[int]:
    return [number]


def threads() -> None:
    with ThreadPool(4, name="orders") as pool:
        assert_type(pool, ThreadPool)
        assert_type(pool.submit(measure, "a", factor=2.0), TaskFuture[float])
        assert_type(pool.submit(count, 3).result(timeout=1.0), list[int])
        assert_type(pool.map(measure, ["a", "b"]), Iterator[float])
        assert_type(pool.submit_named("label", count, 3), TaskFuture[list[int]])
        assert_type(pool.target, int)
        pool.resize(8)
        pool.submit(measure, 1)  # type: ignore[arg-type]
        pool.submit(measure, "a", factor="2")  # type: ignore[arg-type]
        pool.submit(measure)  # type: ignore[call-arg]
        pool.resize("8")  # type: ignore[arg-type]
        pool.nothing()  # type: ignore[attr-defined]


def processes() -> None:
    with ProcessPool(max_workers=2) as pool:
        assert_type(pool, ProcessPool)
        assert_type(pool.submit(measure, "a"), TaskFuture[float])
        assert_type(pool.map(count, range(3), chunksize=2), Iterator[list[int]])
        pool.submit(count, "3")  # type: ignore[arg-type]
        try:
            pool.submit(count, 3).result()
        except WorkerDied as died:
            assert_type(died.exit_code_or_signal, int | None)


def adaptive() -> None:
    with AdaptivePool(max_workers=8, memory="functions.json", name="orders") as pool:
        assert_type(pool, AdaptivePool)
        assert_type(pool.submit(measure, "a"), TaskFuture[float])
        assert_type(pool.map(measure, ["a"], timeout=1.0), Iterator[float])
        assert_type(pool.router, Router)
        assert_type(pool.pools(), tuple[ThreadPool | ProcessPool, ...])
        pool.submit(count)  # type: ignore[call-arg]
    assert_type(AdaptivePool("hybrid").statistics(), tuple[PoolStatistics, ...])
    AdaptivePool(8)  # type: ignore[arg-type]


def commands() -> None:
    with CommandPool(2) as pool:
        assert_type(pool, CommandPool)
        future = pool.submit_commands("lint", [["ruff", "check"]], cwd=".")
        assert_type(future, TaskFuture[CommandOutcome])


def guide() -> None:
    with AdaptiveWorkerPool(strategy=ParallelizationStrategy.ADAPTIVE) as pool:
        assert_type(pool, AdaptiveWorkerPool)
        assert_type(pool.submit(measure, "a"), TaskFuture[float])
        assert_type(pool.map(measure, ["a"]), Iterator[float])
        assert_type(pool.submit_stage(2, "quality_gates", count, 4), TaskFuture[list[int]])
        assert_type(pool.wait_all(timeout=60.0), tuple[bool, list[str]])
        assert_type(pool.metrics, WorkerPoolMetrics)
        pool.submit_stage(2, "quality_gates", count, "4")  # type: ignore[arg-type]
        report(pool.metrics)
    ParallelizationProfiler(num_iterations=2).profile_stage(2, "quality_gates", count, 4)
    ParallelizationProfiler().profile_stage(2, "quality_gates", count, "4")  # type: ignore[arg-type]
    assert_type(WorkerPoolOptimizer.get_optimal_worker_count("adaptive"), int)
    assert_type(detect_lane(["docs/guide.md"]), LaneType)


def report(metrics: WorkerPoolMetrics) -> None:
    assert_type(metrics.stage_metrics, list[StageMetrics])
    assert_type(metrics.timestamp, datetime)
    assert_type(ParallelizationDashboard.format_metrics_report(metrics), str)
    manager = ParallelizationSLAManager({4: SLATarget(4, 60.0)})
    assert_type(manager.check_all_stages(metrics), bool)


def beside_the_standard_library(executor: Executor) -> None:
    """Our executors and futures go where the standard library's go."""
    futures: list[Future[float]] = [pool.submit(measure, "a") for pool in (ThreadPool(1), ProcessPool(1))]
    for future in as_completed(futures):
        assert_type(future.result(), float)
    ours = [ThreadPool(1).submit(measure, "a")]
    for future in as_completed(ours):
        assert_type(future.result(), float)
    beside_the_standard_library(AdaptivePool())
    assert_type(executor.submit(measure, "a"), Future[float])


class Processes(ProcessPool, ProcessPoolExecutor):
    """For packages that check for the standard class. From Python 3.14 on that has `kill_workers`, too."""


def exported() -> None:
    pool = ThreadPool(2)
    CollectorRegistry().register(PoolCollector(pool, AdaptivePool(), AdaptiveWorkerPool(), project="shop"))
    with steer(pool, maximum=8):
        pass
    steer("pool", maximum=8)  # type: ignore[arg-type]
    PoolCollector("pool", project="shop")  # type: ignore[arg-type]
    failed: type[Exception] = ParoptError
    assert_type(paropt_exporter.__version__, str)
    print(failed, paropt_exporter.ThreadPol)  # type: ignore[attr-defined]
