"""Prints how fast the pools are, as ratios against concurrent.futures, in interleaved rounds on this machine.

Usage: PYTHONPATH=exporter python benchmarks/pools.py [ROUNDS]
"""

from __future__ import annotations

import concurrent.futures
import importlib
import operator
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from paropt_exporter.pool import ProcessPool, ThreadPool

LARGE = bytes(1 << 20)
Make = Callable[[int], Any]  # makes an executor with so many workers


def submit_many(pool: Any) -> float:
    """Return seconds per no-op, all submitted and then all awaited."""
    return _per_task(pool, 5000)


def map_many(pool: Any) -> float:
    begun = time.perf_counter()
    for _ in pool.map(operator.not_, range(10_000), chunksize=1):
        pass
    return (time.perf_counter() - begun) / 10_000


def one_at_a_time(pool: Any) -> float:
    return _one_by_one(pool, 300, 1)


def megabytes(pool: Any) -> float:
    return _one_by_one(pool, 30, LARGE)


def _per_task(pool: Any, count: int) -> float:
    begun = time.perf_counter()
    for future in [pool.submit(operator.not_, 1) for _ in range(count)]:
        future.result()
    return (time.perf_counter() - begun) / count


def _one_by_one(pool: Any, count: int, argument: object) -> float:
    function: Callable[..., object] = bytes if argument is LARGE else operator.not_
    begun = time.perf_counter()
    for _ in range(count):
        pool.submit(function, argument).result()
    return (time.perf_counter() - begun) / count


def _peer(module: str, name: str, **options: object) -> Make | None:
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError:
        print(f"skipped: {module} is not installed")
        return None
    return lambda workers: found(max_workers=workers, **options)


def main() -> None:
    """Print one line for each figure and number of workers."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    loky = _peer("loky", "ProcessPoolExecutor")
    threads: dict[str, Make | None] = {"standard": concurrent.futures.ThreadPoolExecutor, "paropt": ThreadPool}
    processes: dict[str, Make | None] = {
        "standard": concurrent.futures.ProcessPoolExecutor,
        "paropt": ProcessPool,
        "loky": loky,
    }
    for workers in (2, 4):
        _compare("threads: no-op submit + result", threads, submit_many, workers, rounds, goal=5)
        _compare("threads: map of no-ops", threads, map_many, workers, rounds, goal=25)
        _compare("processes: no-op submit + result", processes, submit_many, workers, rounds, goal=20)
        _compare("processes: one at a time", processes, one_at_a_time, workers, rounds, goal=1.8)
        _compare("processes: 1 MB each way", processes, megabytes, workers, rounds, goal=1.5)


def _compare(
    title: str,
    makers: dict[str, Make | None],
    measure: Callable[[Any], float],
    workers: int,
    rounds: int,
    *,
    goal: float,
) -> None:
    seconds: dict[str, list[float]] = {name: [] for name, make in makers.items() if make is not None}
    for _ in range(rounds):
        for name, make in makers.items():
            if make is not None:
                with make(workers) as pool:
                    _per_task(pool, 200)  # warm
                    seconds[name].append(measure(pool))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = "  ".join(
        f"{name} {medians['standard'] / median:.1f} ({median * 1e6:.1f} µs)" for name, median in medians.items()
    )
    print(f"{title:34} {workers} workers  {ratios}  goal {goal}", flush=True)


if __name__ == "__main__":
    main()
