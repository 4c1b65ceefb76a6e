"""Executors to compare with, each behind the same three questions; those that are not installed are named.

`pip install '.[bench]'` installs them all. Each is made with so many workers and as its own documentation has it.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import importlib.util
import multiprocessing.pool
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from paropt_exporter import PoolCollector
from paropt_exporter.executors import ProcessPool, ThreadPool

Task = Callable[[Any], object]
Call = tuple[Task, object]  # a task and its argument

OURS = "paropt-exporter"
STANDARD = "standard library"
NAIVE = "naive prometheus-client"


class Work(Protocol):
    """What a benchmark asks of an executor."""

    def many(self, function: Task, argument: object, count: int) -> None:
        """Hand in all tasks one by one, then await all."""

    def map(self, function: Task, items: Iterable[object]) -> None:
        """Map, without chunks, and take all results."""

    def one(self, function: Task, argument: object) -> None:
        """Hand in one task and await it."""

    def each(self, calls: Iterable[Call]) -> None:
        """Hand in different tasks one by one, then await all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """`slower` divides how many tasks it is given, so that a round takes no minutes: figures are per task."""

    name: str
    make: Callable[[int], AbstractContextManager[Work]]
    package: str = ""
    slower: int = 1

    def is_installed(self) -> bool:
        return not self.package or importlib.util.find_spec(self.package) is not None


class _Executor:
    """Anything with the interface of concurrent.futures."""

    def __init__(self, executor: Any) -> None:
        self._executor = executor

    def many(self, function: Task, argument: object, count: int) -> None:
        submit = self._executor.submit
        for future in [submit(function, argument) for _ in range(count)]:
            future.result()

    def map(self, function: Task, items: Iterable[object]) -> None:
        for _ in self._executor.map(function, items, chunksize=1):
            pass

    def one(self, function: Task, argument: object) -> None:
        self._executor.submit(function, argument).result()

    def each(self, calls: Iterable[Call]) -> None:
        for future in [self._executor.submit(function, argument) for function, argument in calls]:
            future.result()


class _Measured(concurrent.futures.Executor):
    """The standard library's executor with metrics put around it by hand, as tutorials do."""

    def __init__(self, inner: concurrent.futures.Executor) -> None:
        registry = CollectorRegistry()
        self._inner = inner
        self._submitted = Counter("submitted_total", "Tasks submitted.", registry=registry)
        self._finished = Counter("finished_total", "Tasks finished.", ["result"], registry=registry)
        self._waiting = Gauge("in_flight", "Tasks in flight.", registry=registry)
        self._seconds = Histogram("task_seconds", "From submit to end.", registry=registry)

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> concurrent.futures.Future[Any]:
        self._submitted.inc()
        self._waiting.inc()
        begun = time.perf_counter()
        future = self._inner.submit(function, *arguments, **keywords)

        def end(ended: concurrent.futures.Future[Any]) -> None:
            self._waiting.dec()
            self._seconds.observe(time.perf_counter() - begun)
            self._finished.labels("failure" if ended.exception() else "success").inc()

        future.add_done_callback(end)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._inner.shutdown(wait, cancel_futures=cancel_futures)


class _Multiprocessing:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def many(self, function: Task, argument: object, count: int) -> None:
        for result in [self._pool.apply_async(function, (argument,)) for _ in range(count)]:
            result.get()

    def map(self, function: Task, items: Iterable[object]) -> None:
        self._pool.map(function, items, chunksize=1)

    def one(self, function: Task, argument: object) -> None:
        self._pool.apply(function, (argument,))

    def each(self, calls: Iterable[Call]) -> None:
        for result in [self._pool.apply_async(function, (argument,)) for function, argument in calls]:
            result.get()


class _Pebble:
    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def many(self, function: Task, argument: object, count: int) -> None:
        for future in [self._pool.schedule(function, args=[argument]) for _ in range(count)]:
            future.result()

    def map(self, function: Task, items: Iterable[object]) -> None:
        for _ in self._pool.map(function, items, chunksize=1).result():
            pass

    def one(self, function: Task, argument: object) -> None:
        self._pool.schedule(function, args=[argument]).result()

    def each(self, calls: Iterable[Call]) -> None:
        for future in [self._pool.schedule(function, args=[argument]) for function, argument in calls]:
            future.result()


class _Joblib:
    def __init__(self, parallel: Any, delayed: Any) -> None:
        self._parallel, self._delayed = parallel, delayed

    def many(self, function: Task, argument: object, count: int) -> None:
        self._parallel(self._delayed(function)(argument) for _ in range(count))

    def map(self, function: Task, items: Iterable[object]) -> None:
        self._parallel(self._delayed(function)(item) for item in items)

    def one(self, function: Task, argument: object) -> None:
        self.many(function, argument, 1)

    def each(self, calls: Iterable[Call]) -> None:
        self._parallel(self._delayed(function)(argument) for function, argument in calls)


class _Dask:
    def __init__(self, client: Any) -> None:
        self._client = client

    def many(self, function: Task, argument: object, count: int) -> None:
        self._client.gather([self._client.submit(function, argument, pure=False) for _ in range(count)])

    def map(self, function: Task, items: Iterable[object]) -> None:
        self._client.gather(self._client.map(function, list(items), pure=False))

    def one(self, function: Task, argument: object) -> None:
        self._client.submit(function, argument, pure=False).result()

    def each(self, calls: Iterable[Call]) -> None:
        self._client.gather([self._client.submit(function, argument, pure=False) for function, argument in calls])


def _executor(make: Callable[..., Any]) -> Callable[[int], AbstractContextManager[Work]]:
    @contextmanager
    def open_it(workers: int) -> Iterator[Work]:
        with make(max_workers=workers) as executor:
            yield _Executor(executor)

    return open_it


def _naive(make: Callable[..., concurrent.futures.Executor]) -> Callable[[int], AbstractContextManager[Work]]:
    return _executor(lambda max_workers: _Measured(make(max_workers=max_workers)))


def _ours(make: Callable[..., ThreadPool | ProcessPool]) -> Callable[[int], AbstractContextManager[Work]]:
    @contextmanager
    def open_it(workers: int) -> Iterator[Work]:
        with make(max_workers=workers) as pool:
            CollectorRegistry().register(PoolCollector(pool, project="benchmark"))
            yield _Executor(pool)

    return open_it


@contextmanager
def _multiprocessing_threads(workers: int) -> Iterator[Work]:
    with multiprocessing.pool.ThreadPool(workers) as pool:
        yield _Multiprocessing(pool)


@contextmanager
def _multiprocessing_processes(workers: int) -> Iterator[Work]:
    with multiprocessing.pool.Pool(workers) as pool:
        yield _Multiprocessing(pool)


@contextmanager
def _loky(workers: int) -> Iterator[Work]:
    with importlib.import_module("loky").ProcessPoolExecutor(max_workers=workers) as executor:
        yield _Executor(executor)


def _pebble(kind: str) -> Callable[[int], AbstractContextManager[Work]]:
    @contextmanager
    def open_it(workers: int) -> Iterator[Work]:
        with getattr(importlib.import_module("pebble"), kind)(max_workers=workers) as pool:
            yield _Pebble(pool)

    return open_it


def _joblib(backend: str) -> Callable[[int], AbstractContextManager[Work]]:
    @contextmanager
    def open_it(workers: int) -> Iterator[Work]:
        joblib = importlib.import_module("joblib")
        with joblib.Parallel(n_jobs=workers, backend=backend) as parallel:
            yield _Joblib(parallel, joblib.delayed)

    return open_it


def _dask(*, processes: bool) -> Callable[[int], AbstractContextManager[Work]]:
    @contextmanager
    def open_it(workers: int) -> Iterator[Work]:
        distributed = importlib.import_module("distributed")
        shape = {"n_workers": workers, "threads_per_worker": 1} if processes else {"threads_per_worker": workers}
        quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": 50}
        cluster = distributed.LocalCluster(processes=processes, **({"n_workers": 1} | shape), **quiet)
        with cluster, distributed.Client(cluster) as client:
            yield _Dask(client)

    return open_it


THREADS = (
    Peer(name=STANDARD, make=_executor(concurrent.futures.ThreadPoolExecutor)),
    Peer(name=OURS, make=_ours(ThreadPool)),
    Peer(name=NAIVE, make=_naive(concurrent.futures.ThreadPoolExecutor)),
    Peer(name="multiprocessing.pool", make=_multiprocessing_threads),
    Peer(name="joblib", package="joblib", make=_joblib("threading")),
    Peer(name="pebble", package="pebble", make=_pebble("ThreadPool")),
    Peer(name="dask", package="distributed", make=_dask(processes=False), slower=20),
)
PROCESSES = (
    Peer(name=STANDARD, make=_executor(concurrent.futures.ProcessPoolExecutor)),
    Peer(name=OURS, make=_ours(ProcessPool)),
    Peer(name=NAIVE, make=_naive(concurrent.futures.ProcessPoolExecutor)),
    Peer(name="multiprocessing.pool", make=_multiprocessing_processes),
    Peer(name="loky", package="loky", make=_loky),
    Peer(name="joblib", package="joblib", make=_joblib("loky")),
    Peer(name="pebble", package="pebble", make=_pebble("ProcessPool")),
    Peer(name="dask", package="distributed", make=_dask(processes=True), slower=20),
)


def installed(peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
    return tuple(peer for peer in peers if peer.is_installed())


def missing() -> tuple[str, ...]:
    """Return the packages of peers that are not installed."""
    return tuple(sorted({peer.package for peer in (*THREADS, *PROCESSES) if not peer.is_installed()}))
