"""Measure where executors differ less, or in the other direction: starts, callbacks, asyncio, failures, memory.

Usage: python benchmarks/pool_cases.py [ROUNDS]

Prints the CPU time of the whole process tree and the wall time of each case: the standard library's in milliseconds,
ours as a multiple. Below 1 ours takes less. Memory is the proportional set size of an idle worker process.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import psutil

from paropt_exporter.executors import AdaptivePool, ProcessPool, ThreadPool

ROUNDS = 7
_IDLE_WORKERS = 8
_STARTS = 10  # Linux counts the CPU time of other processes in steps of 10 ms
_FORKSERVER = multiprocessing.get_context("forkserver")

Make = Callable[[int], Executor]
THREADS: dict[str, Make] = {
    "standard": ThreadPoolExecutor,
    "ThreadPool": ThreadPool,
    "AdaptivePool": lambda workers: AdaptivePool(max_workers=workers),
}
PROCESSES: dict[str, Make] = {
    "standard": ProcessPoolExecutor,
    "standard, forkserver": lambda workers: ProcessPoolExecutor(workers, _FORKSERVER),
    "ProcessPool": ProcessPool,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`new`: `run` makes its pools; otherwise it receives one that has workers."""

    title: str
    run: Callable[[Make], object] | Callable[[Executor], object]
    new: bool = False


def nothing(*_: object) -> None:
    """Do nothing."""


def rest(seconds: float) -> None:
    """Sleep. As a function of this module, it makes a worker import it."""
    time.sleep(seconds)


def fail(number: int) -> None:
    raise ValueError(number)


def start_and_end(workers: int, make: Make) -> None:
    for _ in range(_STARTS):
        with make(workers) as pool:
            pool.submit(nothing).result()


def take_turns(count: int, pool: Executor) -> None:
    for number in range(count):
        pool.submit(nothing, number).result()


def sleep_all(count: int, pool: Executor) -> None:
    for future in [pool.submit(time.sleep, 0.01) for _ in range(count)]:
        future.result()


def map_chunks(count: int, pool: Executor) -> None:
    for _ in pool.map(nothing, range(count), chunksize=500):
        pass


def call_back(count: int, pool: Executor) -> None:
    ended, left = threading.Event(), iter(range(count - 1))

    def note(_: Future[None]) -> None:
        if next(left, None) is None:
            ended.set()

    for number in range(count):
        pool.submit(nothing, number).add_done_callback(note)
    ended.wait()


def gather(count: int, pool: Executor) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(pool, nothing, number) for number in range(count)))

    asyncio.run(run())


def fail_all(count: int, pool: Executor) -> None:
    for future in [pool.submit(fail, number) for number in range(count)]:
        assert future.exception() is not None


def send_arrays(pool: Executor) -> None:
    array = bytearray(1_000_000)
    for _ in range(20):
        pool.submit(bytearray, array).result()


CASES = (
    *(
        Case(title=f"{_STARTS} pools of {workers} workers, a task each", run=partial(start_and_end, workers), new=True)
        for workers in (2, 8)
    ),
    Case(title="2,000 tasks, one at a time", run=partial(take_turns, 2000)),
    Case(title="200 sleeps of 10 ms", run=partial(sleep_all, 200)),
    Case(title="map of 20,000 no-ops in chunks of 500", run=partial(map_chunks, 20_000)),
    Case(title="2,000 tasks with a callback", run=partial(call_back, 2000)),
    Case(title="2,000 tasks in asyncio.gather", run=partial(gather, 2000)),
    Case(title="2,000 tasks that fail", run=partial(fail_all, 2000)),
    Case(title="20 bytearrays of 1 MB, there and back", run=send_arrays),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    for kinds in (THREADS, PROCESSES):
        print(f"\n| {'threads' if kinds is THREADS else 'processes'}: CPU, wall | {' | '.join(kinds)} |")
        print(f"|---|{'---|' * len(kinds)}")
        for case in CASES:
            print(_row(case, kinds, rounds), flush=True)
    idle = [f"{measure_idle_megabytes(make):.1f} MB" for make in PROCESSES.values()]
    print(f"| memory of an idle worker | {' | '.join(idle)} |")


def _row(case: Case, kinds: dict[str, Make], rounds: int) -> str:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for _ in range(rounds):
        for name, make in kinds.items():
            found[name].append(measure(case, make))
    medians = {
        name: tuple(statistics.median(column) for column in zip(*pairs, strict=True)) for name, pairs in found.items()
    }
    first_cpu, first_wall = medians["standard"]
    cells = [f"{cpu / first_cpu:.2f}, {wall / first_wall:.2f}" for cpu, wall in list(medians.values())[1:]]
    return f"| {case.title} | {1e3 * first_cpu:.1f} ms, {1e3 * first_wall:.1f} ms | {' | '.join(cells)} |"


def measure(case: Case, make: Make) -> tuple[float, float]:
    """Return the CPU and wall seconds of a case."""
    if case.new:
        with make(1) as pool:
            pool.submit(nothing).result()  # starts the fork server, if there is one
        return _measure(partial(case.run, make))  # type: ignore[arg-type]  # `new` tells which it takes
    with make(2) as pool:
        for function in (time.sleep, rest):  # until both workers have started and imported this module
            for future in [pool.submit(function, 0.05) for _ in range(4)]:
                future.result()
        return _measure(partial(case.run, pool))  # type: ignore[arg-type]  # as above


def _measure(run: Callable[[], object]) -> tuple[float, float]:
    others_before = _read_others_cpu_seconds()
    own_before, begun = time.process_time(), time.perf_counter()
    run()
    wall, own = time.perf_counter() - begun, time.process_time() - own_before
    return own + _read_others_cpu_seconds() - others_before, wall


def _read_others_cpu_seconds() -> float:
    """Return the CPU time of this process's descendants, and of children that it or they have waited for."""
    process = psutil.Process()
    waited = process.cpu_times()
    below = [child.cpu_times() for child in process.children(recursive=True)]
    alive = sum(times.user + times.system + times.children_user + times.children_system for times in below)
    return waited.children_user + waited.children_system + alive


def measure_idle_megabytes(make: Make) -> float:
    own = psutil.Process()
    others = {child.pid for child in own.children(recursive=True)}
    with make(_IDLE_WORKERS) as pool:
        for future in [pool.submit(time.sleep, 0.05) for _ in range(2 * _IDLE_WORKERS)]:
            future.result()
        new = [child for child in own.children(recursive=True) if child.pid not in others]
        return sum(child.memory_full_info().pss for child in new) / _IDLE_WORKERS / 1e6


if __name__ == "__main__":
    main()
