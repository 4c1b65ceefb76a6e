"""Prints how long an adaptive pool takes for six shapes of work, against a schedule that knows them in advance.

Beside it: an adaptive pool that remembers an earlier run, the standard library's executors at their default, and the
best fixed size of a thread or process pool, found by trying sizes. Making and ending the pool counts.
Usage: python benchmarks/makespan.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from paropt_exporter.pool import AdaptivePool, ProcessPool, ThreadPool
from shapes import Shape, shapes, steps_a_second

ROUNDS = 3
SIZES = (1, 2, 4, 8, 16, 32, 64)  # tried of each fixed kind

Make = Callable[[], Executor]


def main() -> None:
    """Print one line of a Markdown table for each shape."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    cores = len(os.sched_getaffinity(0))
    print(f"Makespan over that of a perfect schedule, medians of {rounds} rounds on {cores} cores.")
    print()
    print("| work | perfect | adaptive, cold | with memory | standard threads | standard processes | best fixed |")
    print("|---|---|---|---|---|---|---|")
    for shape in shapes(steps_a_second(cores)):
        print(_line(shape, cores, rounds), flush=True)


def _line(shape: Shape, cores: int, rounds: int) -> str:
    ideal = shape.ideal_seconds(cores)
    with tempfile.TemporaryDirectory() as folder:
        memory = Path(folder) / "functions.json"
        _once(partial(AdaptivePool, memory=memory), shape)
        contenders: tuple[Make, ...] = (
            AdaptivePool,
            partial(AdaptivePool, memory=memory),
            ThreadPoolExecutor,
            ProcessPoolExecutor,
        )
        figures = " | ".join(f"{_median(make, shape, rounds) / ideal:.2f}" for make in contenders)
    fixed: dict[str, Make] = {f"{size} threads": partial(ThreadPool, size) for size in SIZES}
    fixed |= {f"{size} processes": partial(ProcessPool, size) for size in SIZES}
    best = min(fixed, key=lambda name: _once(fixed[name], shape))
    return f"| {shape.name} | {ideal:.2f} s | {figures} | {_median(fixed[best], shape, rounds) / ideal:.2f} ({best}) |"


def _median(make: Make, shape: Shape, rounds: int) -> float:
    return statistics.median(_once(make, shape) for _ in range(rounds))


def _once(make: Make, shape: Shape) -> float:
    begun = time.perf_counter()
    with make() as pool:
        for future in [pool.submit(function, argument) for function, argument in shape.calls]:
            future.result()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
