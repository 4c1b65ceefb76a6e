"""Six shapes of work, and how long a schedule that knows everything in advance takes for each.

A task computes a fixed number of steps, so that waiting for a core or for the interpreter's lock is not work done. A
perfect schedule has each core at work until nothing is left to compute, and at most WAITING tasks that wait at once.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from math import ceil

WAITING = 64  # tasks that wait at once, at most
WAIT_SECONDS = 0.05
CHILD_SECONDS = 1.5
_CALIBRATION_STEPS, _CALIBRATIONS = 2_000_000, 8

Call = tuple[Callable[..., object], object]  # a function and its argument


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Tasks in the order of their submits. `waits` and `computes` are seconds of each task's kinds."""

    name: str
    calls: tuple[Call, ...]
    waits: tuple[float, ...]
    computes: tuple[float, ...]

    def ideal_seconds(self, cores: int) -> float:
        """Return the longest of: the longest task, all computing over the cores, all waiting over WAITING."""
        rounds = ceil(len(self.waits) / WAITING)
        waiting = rounds * sum(self.waits) / len(self.waits) if self.waits else 0.0
        return max(waiting, sum(self.computes) / cores, *self.waits, *self.computes)


def wait(seconds: float) -> None:
    time.sleep(seconds)


def compute(steps: int) -> None:
    total = 0
    for number in range(steps):
        total += number


def wait_for_a_child(seconds: float) -> None:
    subprocess.run(["sleep", str(seconds)], check=True)


def steps_a_second(cores: int) -> float:
    """Return how many steps of `compute` a core does a second while all others compute too."""
    with ProcessPoolExecutor(cores) as pool:
        return statistics.median(pool.map(_speed, range(cores * _CALIBRATIONS)))


def _speed(_: int) -> float:
    begun = time.perf_counter()
    compute(_CALIBRATION_STEPS)
    return _CALIBRATION_STEPS / (time.perf_counter() - begun)


def shapes(speed: float) -> tuple[Shape, ...]:
    """Return the six shapes for a machine that does `speed` steps a second."""

    def computing(seconds: float) -> Call:
        return compute, int(seconds * speed)

    waiting: Call = (wait, WAIT_SECONDS)
    fixed = 0.05
    lengths = _pareto(60, mean=0.05)
    mixed = tuple(call for _ in range(30) for call in (waiting, computing(fixed)))
    return (
        Shape(name="200 that wait 50 ms", calls=(waiting,) * 200, waits=(WAIT_SECONDS,) * 200, computes=()),
        Shape(name="60 that compute 50 ms", calls=(computing(fixed),) * 60, waits=(), computes=(fixed,) * 60),
        Shape(name="half and half", calls=mixed, waits=(WAIT_SECONDS,) * 30, computes=(fixed,) * 30),
        Shape(
            name="60 that compute, Pareto",
            calls=tuple(computing(seconds) for seconds in lengths),
            waits=(),
            computes=lengths,
        ),
        Shape(
            name="100 that wait, then 30 that compute",
            calls=(waiting,) * 100 + (computing(fixed),) * 30,
            waits=(WAIT_SECONDS,) * 100,
            computes=(fixed,) * 30,
        ),
        Shape(
            name="5 child processes of 1.5 s",
            calls=((wait_for_a_child, CHILD_SECONDS),) * 5,
            waits=(CHILD_SECONDS,) * 5,
            computes=(),
        ),
    )


def _pareto(count: int, *, mean: float) -> tuple[float, ...]:
    """Return durations of a Pareto distribution of shape 1.5, cut at 20 means and scaled to `mean`."""
    numbers = random.Random(1)
    raw = [min(numbers.paretovariate(1.5), 20.0) for _ in range(count)]
    return tuple(value * mean * count / sum(raw) for value in raw)


if __name__ == "__main__":
    sys.exit("a part of the benchmarks: run benchmarks/makespan.py")
