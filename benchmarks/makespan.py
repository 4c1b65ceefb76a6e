"""Prints how long an adaptive pool takes for six shapes of work, against a schedule that knows them in advance.

Beside it: an adaptive pool that remembers an earlier run, the standard library's executors at their default, the best
of the other peers with a worker a core (their default), and the best fixed size of a thread or process pool, found by
trying sizes. Making and ending the pool counts, but for the peers: some take seconds to begin.
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
from peers import OURS, PROCESSES, STANDARD, THREADS, Peer, installed, missing
from shapes import Shape, shapes, steps_a_second

ROUNDS = 3
SIZES = (1, 2, 4, 8, 16, 32, 64)  # tried of each fixed kind

Make = Callable[[], Executor]


def main() -> None:
    """Print one line of a Markdown table for each shape."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    cores = len(os.sched_getaffinity(0))
    print(f"Makespan over that of a perfect schedule, medians of {rounds} rounds on {cores} cores.")
    for package in missing():
        print(f"Skipped: {package} is not installed.")
    print()
    columns = ("perfect", "adaptive, cold", "with memory", "standard threads", "standard processes", "best peer")
    print(f"| work | {' | '.join(columns)} | best fixed |")
    print("|---" * (len(columns) + 2) + "|")
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
    peer, seconds = _best_peer(shape, cores)
    fixed: dict[str, Make] = {f"{size} threads": partial(ThreadPool, size) for size in SIZES}
    fixed |= {f"{size} processes": partial(ProcessPool, size) for size in SIZES}
    best = min(fixed, key=lambda name: _once(fixed[name], shape))
    last = f"{seconds / ideal:.2f} ({peer}) | {_median(fixed[best], shape, rounds) / ideal:.2f} ({best})"
    return f"| {shape.name} | {ideal:.2f} s | {figures} | {last} |"


def _best_peer(shape: Shape, cores: int) -> tuple[str, float]:
    known = (STANDARD, OURS, "naive prometheus-client")
    found = {
        f"{peer.name}, {kind}": _seconds_of(peer, shape, cores)
        for kind, peers in (("threads", THREADS), ("processes", PROCESSES))
        for peer in installed(peers)
        if peer.name not in known
    }
    return min(found.items(), key=lambda item: item[1])


def _seconds_of(peer: Peer, shape: Shape, workers: int) -> float:
    with peer.make(workers) as work:
        begun = time.perf_counter()
        work.each(shape.calls)
        return time.perf_counter() - begun


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
