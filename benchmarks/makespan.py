"""Prints how long an adaptive pool takes for six shapes of work, against a schedule that knows them in advance.

Beside it: an adaptive pool that remembers an earlier run, the standard library's executors at their default, the best
of the other peers with a worker a core (their default), and the best fixed size of a thread or process pool, found by
trying sizes. Making and ending the pool counts for everyone. Usage: python benchmarks/makespan.py [ROUNDS]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from paropt_exporter.executors import AdaptivePool, ProcessPool, ThreadPool
from peers import NAIVE, OURS, PROCESSES, STANDARD, THREADS, Peer, installed, missing
from shapes import Shape, shapes, steps_a_second

ROUNDS = 3
SIZES = (1, 2, 4, 8, 16, 32, 64)  # tried of each fixed kind

Make = Callable[[], Executor]
Run = Callable[[Shape], float]  # runs the tasks of a shape, and returns the seconds


def main() -> None:
    """Print one line of a Markdown table for each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    cores = len(os.sched_getaffinity(0))
    print(f"Makespan over that of a perfect schedule, medians of {rounds} rounds on {cores} cores.")
    for package in missing():
        print(f"Skipped: {package} is not installed.")
    print()
    columns = ("perfect", "adaptive, cold", "with memory", "standard threads", "standard processes", "best peer")
    print(f"| work | {' | '.join(columns)} | best fixed |")
    print("|---" * (len(columns) + 2) + "|")
    for number in range(len(shapes(1.0))):
        print(_line(number, cores, rounds), flush=True)


def _line(number: int, cores: int, rounds: int) -> str:
    shape = shapes(1.0)[number]
    with tempfile.TemporaryDirectory() as folder:
        memory = Path(folder) / "functions.json"
        _measure(partial(_once, partial(AdaptivePool, memory=memory)), number, cores)
        contenders: tuple[Make, ...] = (
            AdaptivePool,
            partial(AdaptivePool, memory=memory),
            ThreadPoolExecutor,
            ProcessPoolExecutor,
        )
        figures = " | ".join(f"{_median(partial(_once, make), number, cores, rounds):.2f}" for make in contenders)
    peers = {
        f"{peer.name}, {kind}": partial(_once_with_peer, peer, cores)
        for kind, known in (("threads", THREADS), ("processes", PROCESSES))
        for peer in installed(known)
        if peer.name not in (STANDARD, OURS, NAIVE)
    }
    fixed = {f"{size} threads": partial(_once, partial(ThreadPool, size)) for size in SIZES}
    fixed |= {f"{size} processes": partial(_once, partial(ProcessPool, size)) for size in SIZES}
    cells = " | ".join(
        f"{ratio:.2f} ({name})" for name, ratio in (_best(each, number, cores, rounds) for each in (peers, fixed))
    )
    return f"| {shape.name} | {shape.ideal_seconds(cores):.2f} s | {figures} | {cells} |"


def _best(contenders: Mapping[str, Run], number: int, cores: int, rounds: int) -> tuple[str, float]:
    """Return who was the fastest in one try, and the median of more tries."""
    name = min(contenders, key=lambda name: _measure(contenders[name], number, cores))
    return name, _median(contenders[name], number, cores, rounds)


def _median(run: Run, number: int, cores: int, rounds: int) -> float:
    return statistics.median(_measure(run, number, cores) for _ in range(rounds))


def _measure(run: Run, number: int, cores: int) -> float:
    """Return the makespan of a shape over the perfect one.

    The machine's speed is measured again each time: it changes by more than a tenth within minutes.
    """
    shape = shapes(steps_a_second(cores))[number]
    return run(shape) / shape.ideal_seconds(cores)


def _once_with_peer(peer: Peer, workers: int, shape: Shape) -> float:
    begun = time.perf_counter()
    with peer.make(workers) as work:
        work.each(shape.calls)
    return time.perf_counter() - begun


def _once(make: Make, shape: Shape) -> float:
    begun = time.perf_counter()
    with make() as pool:
        for future in [pool.submit(function, argument) for function, argument in shape.calls]:
            future.result()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
