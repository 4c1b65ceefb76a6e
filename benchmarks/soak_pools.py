"""Minutes of all pools at once under random faults, resizes every 10 ms and scrapes: nothing may get lost or stay.

Usage: python benchmarks/soak_pools.py [SECONDS] [SEED]. The seed is printed and gives the same tasks again. At the end
every task has settled once, the pools' counters say what became of the tasks, and threads, processes, descriptors and
memory are back where they were. Then, in a long soak, a result of 500 MB and a million tasks in a queue. Exits with 1
and says what is wrong otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest

from paropt_exporter import PoolCollector
from paropt_exporter.errors import WorkerDied
from paropt_exporter.executors import AdaptivePool, ProcessPool, ThreadPool, procfs

SECONDS = 300.0
LONG_SECONDS = 60.0  # from here on the large result and the long queue are tried too
SETTLE_SECONDS = 60.0
IN_FLIGHT = 400  # tasks of each pool that are not settled yet
_RESIZE_SECONDS, _SCRAPE_SECONDS, _KILL_SECONDS, _SAMPLE_SECONDS = 0.01, 0.1, 0.2, 1.0
_LEAST_SAMPLES = 5  # in a fifth of the time
_MEMORY_GROWTH_BYTES = 16 << 20  # allocators keep freed memory; one kept result per round would exceed this soon
_RESULT_BYTES = 500_000_000
_QUEUED = 1_000_000
_MOST_BYTES_A_TASK = 1500  # of a queued task: its future, its function's and its arguments' pickles

Pool = ThreadPool | ProcessPool | AdaptivePool


class PlannedError(Exception):
    """What a task raises on purpose."""


def quick(number: int) -> int:
    return number


def sleeps(number: int) -> int:
    time.sleep(0.001 * (number % 5))
    return number


def burns(number: int) -> int:
    end = time.process_time() + 0.001
    while time.process_time() < end:
        pass
    return number


def returns_much(number: int) -> bytes:
    return bytes(1000 * (number % 300))


def takes_much(body: bytes) -> int:
    return len(body)


def filled(size_bytes: int) -> bytes:
    return b"x" * size_bytes


def fails(number: int) -> None:
    raise PlannedError(number)


def dies(number: int) -> None:
    os.kill(os.getpid(), (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM)[number % 3])


def leaves(number: int) -> None:
    os._exit(number % 256)


def leaves_a_child(number: int) -> int:
    """Leave a process behind whose parent is gone too."""
    if os.fork() == 0:
        os.execvp("sh", ["sh", "-c", "sleep 0.05 &"])
    return number


GENTLE: tuple[Callable[[Any], object], ...] = (quick, quick, quick, sleeps, burns, returns_much, takes_much, fails)
HARSH = (*GENTLE, dies, leaves, leaves_a_child)


class PoolCounters:
    """What became of one pool's tasks, as their futures told; `settled` counts callbacks, so twice shows."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards: all below, which callbacks of all workers write
        self.submitted = self.settled = 0
        self.results: Counter[str] = Counter()
        self.wrong = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=SECONDS)
    parser.add_argument("seed", nargs="?", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    seconds, seed = options.seconds, options.seed
    print(f"soak of the pools, {seconds:.0f} s, seed {seed}", flush=True)
    faults = [*soak(seconds, seed)]
    if seconds >= LONG_SECONDS:
        faults += [*large_result(), *long_queue()]
    print("\n".join(faults) if faults else "nothing lost, nothing left behind")
    sys.exit(1 if faults else 0)


def soak(seconds: float, seed: int) -> Iterator[str]:
    round_of_all(min(seconds / 10, 3.0), seed, [])  # caches fill, the fork server starts
    before = holdings()
    memory_bytes: list[int] = []
    yield from round_of_all(seconds, seed + 1, memory_bytes)
    yield from left_behind(before)
    yield from grown(memory_bytes)


def round_of_all(seconds: float, seed: int, memory_bytes: list[int]) -> list[str]:
    pools: dict[str, Pool] = {"threads": ThreadPool(4), "processes": ProcessPool(4), "adaptive": AdaptivePool()}
    ledgers = {name: PoolCounters() for name in pools}
    stop = threading.Event()
    helpers = [
        *(repeat(stop, _RESIZE_SECONDS, resize(pool, random.Random(seed))) for pool in pools.values()),
        repeat(stop, _SCRAPE_SECONDS, scrape(pools)),
        repeat(stop, _SAMPLE_SECONDS, lambda: memory_bytes.append(procfs.read_memory_bytes())),
        repeat(stop, _KILL_SECONDS, kill_a_worker(random.Random(seed))),
        *(feed(stop, pool, ledgers[name], random.Random(seed), name) for name, pool in pools.items()),
    ]
    stop.wait(seconds)
    stop.set()
    for helper in helpers:
        helper.join()
    for pool in pools.values():
        pool.shutdown()
    return [fault for name, pool in pools.items() for fault in check(name, pool, ledgers[name])]


def repeat(stop: threading.Event, pause_seconds: float, action: Callable[[], object]) -> threading.Thread:
    def go_on() -> None:
        while not stop.wait(pause_seconds):
            action()

    thread = threading.Thread(target=go_on)
    thread.start()
    return thread


def resize(pool: Pool, chance: random.Random) -> Callable[[], object]:
    return lambda: pool.resize(chance.randint(1, 8))


def scrape(pools: dict[str, Pool]) -> Callable[[], object]:
    registries = []
    for pool in pools.values():
        if not isinstance(pool, AdaptivePool):
            registries.append(CollectorRegistry())
            registries[-1].register(PoolCollector(pool, project="soak"))
    return lambda: [generate_latest(registry) for registry in registries]


def kill_a_worker(chance: random.Random) -> Callable[[], object]:
    """Kill any descendant: a worker at work or idle, one that begins, now and then the fork server of them all."""

    def kill() -> None:
        found = descendants()
        if found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)

    return kill


def feed(stop: threading.Event, pool: Pool, ledger: PoolCounters, chance: random.Random, name: str) -> threading.Thread:
    kinds = HARSH if name == "processes" else GENTLE
    room = threading.Semaphore(IN_FLIGHT)

    def go_on() -> None:
        number = 0
        while not stop.is_set():
            room.acquire()
            task = chance.choice(kinds)
            argument: object = bytes(1000 * (number % 300)) if task is takes_much else number
            future = pool.submit(task, argument)
            ledger.submitted += 1
            if chance.random() < 0.02:
                future.cancel()
            future.add_done_callback(partial(settle, ledger, room, task, argument))
            number += 1

    thread = threading.Thread(target=go_on, name=f"feed-{name}")
    thread.start()
    return thread


def settle(
    ledger: PoolCounters, room: threading.Semaphore, task: Callable[[Any], object], argument: object, ended: Future[Any]
) -> None:
    room.release()
    try:
        result = ended.result(0)
    except CancelledError:
        kind = "cancellation"
    except WorkerDied:
        kind = "error"
    except PlannedError as error:
        kind = "failure" if task is fails and error.args == (argument,) else "wrong"
    except Exception:  # noqa: BLE001 -- any other exception was not planned, and is reported
        kind = "wrong"
    else:
        kind = "success" if result == expected(task, argument) else "wrong"
    with ledger.lock:
        ledger.settled += 1
        ledger.results[kind] += 1
        if kind == "wrong":
            ledger.wrong = f"{task.__name__}: {ended!r:.300}"


def expected(task: Callable[[Any], object], argument: Any) -> object:
    if task is returns_much:
        return bytes(1000 * (argument % 300))
    return len(argument) if task is takes_much else argument


def check(name: str, pool: Pool, ledger: PoolCounters) -> Iterator[str]:
    counted: Counter[str] = Counter()
    for statistics in pool.statistics() if isinstance(pool, AdaptivePool) else (pool.statistics(),):
        counted.update(statistics.finished)
    counts = {result: count for result, count in counted.items() if count}
    print(f"{name}: {ledger.submitted} submitted, {dict(ledger.results)}", flush=True)
    if ledger.settled != ledger.submitted:
        yield f"{name}: {ledger.submitted} tasks submitted, {ledger.settled} settled"
    if ledger.wrong:
        yield f"{name}: {ledger.wrong}"
    if not isinstance(pool, AdaptivePool) and counts != {key: n for key, n in ledger.results.items() if n}:
        yield f"{name}: futures said {dict(ledger.results)}, the pool counted {counts}"
    if name != "processes" and ledger.results["error"] and not isinstance(pool, AdaptivePool):
        yield f"{name}: a thread can't die"


# What must not stay


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What this process has of the machine."""

    threads: int
    processes: int
    descriptors: int


def holdings() -> Holdings:
    gc.collect()
    return Holdings(
        threads=threading.active_count(),
        processes=len(descendants()),
        descriptors=psutil.Process().num_fds(),
    )


def left_behind(before: Holdings) -> Iterator[str]:
    """Compare resources with those before; work that ends in the background gets some time."""
    pause, end = threading.Event(), time.monotonic() + SETTLE_SECONDS
    while (found := _excess(before, holdings())) and time.monotonic() < end:
        pause.wait(0.1)
    print(f"before {before}\nafter  {holdings()}", flush=True)
    yield from found


def _excess(before: Holdings, after: Holdings) -> list[str]:
    return [
        f"{what} grew from {getattr(before, what)} to {getattr(after, what)}"
        for what in ("threads", "processes", "descriptors")
        if getattr(after, what) > getattr(before, what)
    ]


def grown(memory_bytes: list[int]) -> Iterator[str]:
    """Compare the last fifth with the second, each at its lowest: running tasks come and go."""
    fifth = len(memory_bytes) // 5
    if fifth < _LEAST_SAMPLES:
        return  # too short to tell growth from a beginning
    early, late = min(memory_bytes[fifth : 2 * fifth]), min(memory_bytes[-fifth:])
    print(f"memory: {early} bytes early, {late} late", flush=True)
    if late > early + _MEMORY_GROWTH_BYTES:
        yield f"memory grew from {early} to {late} bytes"


def descendants() -> list[int]:
    """Return all processes below this one, the fork server's too; what has ended and was not waited for counts."""
    return sorted(child.pid for child in psutil.Process().children(recursive=True))


def large_result() -> Iterator[str]:
    """Have 500 MB back from a worker: more than a copy or two of it at once would be too much."""
    before = procfs.read_memory_bytes()
    with ProcessPool(1) as pool:
        future = pool.submit_named("large", filled, _RESULT_BYTES)
        size = len(future.result())
        peak = procfs.read_memory_peak_bytes() - before
        used = future.measurement.memory_peak_bytes if future.measurement is not None else 0
    del future
    gc.collect()
    after = procfs.read_memory_bytes()
    print(f"a result of {size} bytes: {peak / size:.2f} of it here, {used / size:.2f} in the worker", flush=True)
    if size != _RESULT_BYTES or peak > 3.2 * size or not size <= used <= 4 * size:
        yield f"a large result: {size} bytes, {peak} at the peak here, {used} in the worker"
    if after > before + _MEMORY_GROWTH_BYTES:
        yield f"a large result stays in memory: {after - before} bytes"


def long_queue() -> Iterator[str]:
    """Queue a million tasks: memory grows with queued tasks, and not with ended ones."""
    for make in (ThreadPool, ProcessPool):
        gate = f"/tmp/paropt-soak-{os.getpid()}"
        os.mkfifo(gate)
        with make(1) as pool:
            first = pool.submit(Path(gate).read_text)
            before = procfs.read_memory_bytes()
            futures = [pool.submit(quick, number) for number in range(_QUEUED)]
            each = (procfs.read_memory_bytes() - before) / _QUEUED
            queued = pool.statistics().queued
            Path(gate).write_text("go on")
            first.result()
            right = all(future.result() == number for number, future in enumerate(futures))
        Path(gate).unlink()
        del futures
        gc.collect()
        kept = procfs.read_memory_bytes() - before
        print(f"{make.__name__}: a million tasks waiting, {each:.0f} bytes each; {kept} bytes kept", flush=True)
        if not right or queued != _QUEUED or each > _MOST_BYTES_A_TASK:
            yield f"{make.__name__}: {queued} of {_QUEUED} waiting, {each:.0f} bytes each, right {right}"
        if kept > 4 * _MEMORY_GROWTH_BYTES:
            yield f"{make.__name__}: {kept} bytes kept of a queue that is gone"


if __name__ == "__main__":
    main()
