"""Prints how long an adaptive pool takes for six shapes of work, against a schedule that knows them in advance.

Beside it: the standard library's executors at their default, and the best fixed size of a thread or process pool,
found by trying sizes. Making and ending the pool counts. Usage: python benchmarks/makespan.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

from shapes import Shape, shapes, steps_a_second

from paropt_exporter.pool import AdaptivePool, ProcessPool, ThreadPool

ROUNDS = 3
SIZES = (1, 2, 4, 8, 16, 32, 64)  # tried of each fixed kind


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    cores = len(os.sched_getaffinity(0))
    speed = steps_a_second()
    print(f"Times of a perfect schedule, medians of {rounds} rounds on {cores} cores; the best fixed pool of {SIZES}")
    print(f"{'':<37}{'perfect':>9}{'adaptive':>10}{'threads':>9}{'processes':>11}  best fixed")
    for shape in shapes(speed):
        _print(shape, cores, rounds)


def _print(shape: Shape, cores: int, rounds: int) -> None:
    ideal = shape.ideal_seconds(cores)
    found = {
        "adaptive": _median(AdaptivePool, shape, rounds),
        "threads": _median(ThreadPoolExecutor, shape, rounds),
        "processes": _median(ProcessPoolExecutor, shape, rounds),
    }
    fixed = {f"{kind.__name__} of {size}": _once(lambda kind=kind, size=size: kind(size), shape)
             for kind in (ThreadPool, ProcessPool) for size in SIZES}
    best = min(fixed, key=lambda name: fixed[name])
    again = _median(lambda: (ThreadPool if best.startswith("Thread") else ProcessPool)(int(best.split()[-1])), shape, rounds)
    columns = "".join(f"{seconds / ideal:>{width}.2f}" for seconds, width in zip(found.values(), (10, 9, 11), strict=True))
    print(f"{shape.name:<37}{ideal:>7.2f} s{columns}  {again / ideal:.2f} ({best})", flush=True)


def _median(make: Callable[[], Executor], shape: Shape, rounds: int) -> float:
    return statistics.median(_once(make, shape) for _ in range(rounds))


def _once(make: Callable[[], Executor], shape: Shape) -> float:
    begun = time.perf_counter()
    with make() as pool:
        for future in [pool.submit(function, argument) for function, argument in shape.calls]:
            future.result()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
