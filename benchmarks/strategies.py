"""Prints what each strategy of the Python API gains over one task after another, for three kinds of work.

Each round runs every strategy once, in turn; figures are medians of the rounds' ratios. The work is a fixed number of
steps, so that waiting for a core or for the interpreter's lock is not work done. Starting and ending the pool counts.
Usage: python benchmarks/strategies.py [ROUNDS]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from paropt_exporter import AdaptiveWorkerPool, ParallelizationStrategy

ROUNDS = 3
TASKS = 8
STEPS = 12_000_000  # some 0.5 s of a core
BURNER = f"n = 0\nfor n in range({STEPS}): n += 1"


def wait() -> None:
    time.sleep(0.5)


def compute() -> None:
    total = 0
    for number in range(STEPS):
        total += number


def run_a_child() -> None:
    subprocess.run([sys.executable, "-c", BURNER], check=True)


WORK: dict[str, Callable[[], None]] = {
    "waits": wait,
    "computes in Python": compute,
    "child process computes": run_a_child,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    cores = len(os.sched_getaffinity(0))
    print(
        f"Strategies: {TASKS} tasks of one stage, medians of {rounds} rounds on {cores} cores; times faster than a loop"
    )
    print(f"{'a task that':<26}{'a loop':>9}" + "".join(f"{strategy.name:>15}" for strategy in ParallelizationStrategy))
    for name, work in WORK.items():
        baselines: list[float] = []
        ratios: dict[str, list[float]] = {strategy.name: [] for strategy in ParallelizationStrategy}
        for _ in range(rounds):
            baselines.append(_loop(work))
            for strategy in ParallelizationStrategy:
                ratios[strategy.name].append(baselines[-1] / _pool(strategy, work))
        figures = "".join(f"{statistics.median(found):>14.2f}x" for found in ratios.values())
        print(f"{name:<26}{statistics.median(baselines):>7.2f} s{figures}", flush=True)


def _loop(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    for _ in range(TASKS):
        work()
    return time.perf_counter() - begun


def _pool(strategy: ParallelizationStrategy, work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    with AdaptiveWorkerPool(strategy) as pool:
        for _ in range(TASKS):
            pool.submit_stage(4, "work", work)
        success, errors = pool.wait_all()
    if not success:
        raise SystemExit(f"{strategy}: {errors}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
