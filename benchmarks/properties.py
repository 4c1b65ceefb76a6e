"""Prints what the pools cost beside their work: memory, scrapes, idleness, resizing.

Usage: python benchmarks/properties.py [ROUNDS]
"""

from __future__ import annotations

import argparse
import operator
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, generate_latest

import paropt_exporter
from paropt_exporter import PoolCollector
from paropt_exporter.executors import ProcessPool, ThreadPool

ROUNDS = 5
SCRAPE_SECONDS = 1.0
_ITEMS = 1_000_000
_LARGE = 64

Kind = type[ThreadPool] | type[ProcessPool]

# Peak memory of a process that maps a million no-ops and takes all results, its workers' not counted.
_MILLION = """
import operator, sys
from paropt_exporter.executors import ProcessPool, ThreadPool, procfs
with {kind}(2) as pool:
    assert sum(1 for _ in pool.map(operator.not_, range({items}), buffersize=1000)) == {items}
print(procfs.read_memory_peak_bytes())
"""


_FORKSERVER = """
import multiprocessing, time
context = multiprocessing.get_context("forkserver")
first = context.Process(target=abs, args=(1,))
first.start()
first.join()
reading, writing = context.Pipe(duplex=False)
begun = time.perf_counter()
processes = [context.Process(target=writing.send, args=(None,)) for _ in range({count})]
for process in processes: process.start()
for process in processes: reading.recv()
print(1e3 * (time.perf_counter() - begun))
for process in processes: process.join()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"Medians of {rounds} rounds.\n\n| property | threads | processes | goal |\n|---|---|---|---|")
    _row("1,000,000 no-ops through map, buffersize 1000: peak", million_megabytes, 1, "{:.0f} MB", "under 100 MB")
    _row("scrapes at 1 Hz: throughput of no-ops lost", scrape_cost_percent, rounds, "{:.1f} %", "under 2 %")
    _row("one scrape under load", scrape_milliseconds, rounds, "{:.2f} ms", "")
    _row("64 idle workers: CPU used in a second", idle_milliseconds, rounds, "{:.2f} ms", "0 ms")
    _row("resize 1 to 64 workers", grow_milliseconds, rounds, "{:.0f} ms", "threads under 500 ms both ways")
    _row("resize 64 to 1 worker", shrink_milliseconds, rounds, "{:.0f} ms", "")
    started = statistics.median(forkserver_milliseconds() for _ in range(rounds))
    print(f"| 64 processes of multiprocessing's warm fork server | | {started:.0f} ms | resize no slower |")


def _row(title: str, measure: Callable[[Kind], float], rounds: int, form: str, goal: str) -> None:
    found = [statistics.median(measure(kind) for _ in range(rounds)) for kind in (ThreadPool, ProcessPool)]
    print(f"| {title} | {' | '.join(form.format(value) for value in found)} | {goal} |", flush=True)


def million_megabytes(kind: Kind) -> float:
    environment = {**os.environ, "PYTHONPATH": str(Path(paropt_exporter.__file__).parents[1])}
    code = _MILLION.format(kind=kind.__name__, items=_ITEMS)
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)
    return int(found.stdout) / 1e6


def scrape_cost_percent(kind: Kind) -> float:
    """Compare seconds with a scrape and seconds without, in turns."""
    registry = CollectorRegistry()
    with kind(2) as pool:
        registry.register(PoolCollector(pool, project="benchmark"))
        _throughput(pool, lambda: None)
        pairs = [
            (_throughput(pool, lambda: None), _throughput(pool, lambda: generate_latest(registry))) for _ in range(5)
        ]
    return 100 * (1 - statistics.median(scraped / left_alone for left_alone, scraped in pairs))


def _throughput(pool: ThreadPool | ProcessPool, scrape: Callable[[], object]) -> float:
    """Return tasks a second, over one scrape interval in the middle of which `scrape` is called by another thread."""
    timer = threading.Timer(SCRAPE_SECONDS / 2, scrape)
    timer.start()
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < SCRAPE_SECONDS:
        wait([pool.submit(operator.not_, 1) for _ in range(1000)])
        count += 1000
    seconds = time.perf_counter() - begun
    timer.join()
    return count / seconds


def scrape_milliseconds(kind: Kind) -> float:
    registry = CollectorRegistry()
    with kind(2) as pool:
        registry.register(PoolCollector(pool, project="benchmark"))
        futures = [pool.submit(sum, range(1000)) for _ in range(20_000)]
        begun = time.perf_counter()
        for _ in range(10):
            generate_latest(registry)
        seconds = time.perf_counter() - begun
        for future in futures:
            future.cancel()
    return seconds * 100  # of ten, in milliseconds of one


def idle_milliseconds(kind: Kind) -> float:
    with kind(_LARGE) as pool:
        _await_live(pool, _LARGE)
        threading.Event().wait(0.5)  # what the start left to do
        before = _cpu_nanoseconds()
        threading.Event().wait(1.0)
        return (_cpu_nanoseconds() - before) / 1e6


def _cpu_nanoseconds() -> int:
    """Return the CPU time of all threads of all workers, and of this process's but the one that asks."""
    me = threading.get_native_id()
    total = 0
    for pid in (os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if int(task.name) != me:
                total += int((task / "schedstat").read_text().split()[0])
    return total


def grow_milliseconds(kind: Kind) -> float:
    with kind(1) as pool:
        pool.submit(abs, 1).result()
        begun = time.perf_counter()
        pool.resize(_LARGE)
        _await_live(pool, _LARGE)
        return (time.perf_counter() - begun) * 1e3


def shrink_milliseconds(kind: Kind) -> float:
    with kind(_LARGE) as pool:
        _await_live(pool, _LARGE)
        begun = time.perf_counter()
        pool.resize(1)
        _await_live(pool, 1)
        return (time.perf_counter() - begun) * 1e3


def _await_live(pool: ThreadPool | ProcessPool, size: int) -> None:
    pause = threading.Event()
    while pool.live != size:
        pause.wait(0.0005)


def forkserver_milliseconds() -> float:
    """Return how long as many processes of the library's own fork server take to begin."""
    code = _FORKSERVER.format(count=_LARGE)  # a script without a file: its children have no __main__ to import
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


if __name__ == "__main__":
    main()
