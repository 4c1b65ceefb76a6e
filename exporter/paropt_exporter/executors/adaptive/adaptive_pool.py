"""AdaptivePool: an executor that measures where each function's tasks run best, and on how many workers."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from paropt_exporter.events import PoolStatistics, RunningTask, Strategy
from paropt_exporter.executors.adaptive.routing import Router
from paropt_exporter.executors.adaptive.scheduler import AdaptiveScheduler, ThreadFallback, Waiting, key_of
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.mapping import map_in_order
from paropt_exporter.executors.processes import ProcessPool
from paropt_exporter.executors.processes.roster import MOST_WORKERS
from paropt_exporter.executors.threads import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class AdaptivePool(Executor):
    """A `concurrent.futures.Executor` over a ThreadPool and a ProcessPool, each made when it is first needed.

    ADAPTIVE knows nothing in advance: a function's first tasks run in threads; CPU-bound ones move to processes, for
    waiting ones threads are added up to `max_workers` (64 by default). HYBRID routes alike and keeps its sizes; THREAD,
    PROCESS and SEQUENTIAL do what they say. What may not move (`thread_only`, unpicklable) stays, see `router.kept`.
    """

    def __init__(
        self,
        strategy: Strategy = Strategy.ADAPTIVE,
        max_workers: int | None = None,
        *,
        start: int | None = None,
        memory: str | os.PathLike[str] | None = None,
    ) -> None:
        """Make the pool.

        `start`: with how many threads an ADAPTIVE one begins (default: the cores). `memory`: a JSON file with what
        pools learned of functions: read now, and written when this pool has ended (`shutdown` that waits, `with`).
        """
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._crew = crew = AdaptiveScheduler(
            strategy, max_workers, start=start, memory=None if memory is None else Path(memory)
        )
        self._finalizer = weakref.finalize(self, crew.close)
        self._finalizer.atexit = False

    @property
    def router(self) -> Router:
        return self._crew.router

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        future: TaskFuture[T] = TaskFuture()
        future.label = key_of(fn)
        self._crew.submit(Waiting(future, fn, args, kwargs))
        return future

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a task that goes by `label` and is measured in full; it is routed by its function all the same."""
        future: TaskFuture[T] = TaskFuture()
        future.label = label
        self._crew.submit(Waiting(future, fn, args, kwargs, profiled=True))
        return future

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As `Executor.map`; items are routed one by one, so `chunksize` changes nothing."""
        del chunksize
        return map_in_order(self.submit, fn, iterables, timeout=timeout, chunksize=1, buffersize=buffersize)

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the most workers of a kind there may be: for ADAPTIVE a bound, for the others the size itself.

        ValueError for a size that makes no sense.
        """
        if not 1 <= n <= MOST_WORKERS:
            raise ValueError(f"a pool of {n} workers: expected 1 to {MOST_WORKERS}")
        self._crew.resize(n, reason)

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = 10.0) -> bool:
        """End one task from outside with `error`; False if it had ended. As its pool's `stop`; does not block."""
        return self._crew.stop(future, error, grace_seconds)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._crew.close(cancel_futures=cancel_futures)
        if wait:
            self._crew.join()

    def pools(self) -> tuple[ThreadPool | ProcessPool, ...]:
        """Return the pools that were needed so far."""
        return self._crew.pools()

    @property
    def target(self) -> int:
        return sum(pool.target for pool in self.pools())

    @property
    def live(self) -> int:
        return sum(pool.live for pool in self.pools())

    @property
    def busy(self) -> int:
        return sum(pool.busy for pool in self.pools())

    @property
    def waiting(self) -> int:
        """How many tasks have been given to no pool yet."""
        return self._crew.waiting()

    @property
    def abandoned(self) -> tuple[str, ...]:
        return tuple(label for pool in self.pools() if isinstance(pool, ThreadPool) for label in pool.abandoned)

    @property
    def fallbacks(self) -> tuple[ThreadFallback, ...]:
        """The functions that were to run in processes but can't be sent to one, and so run in threads."""
        return self._crew.fallbacks()

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """Return a snapshot of each pool; tasks that wait for either are in `waiting`."""
        return tuple(pool.statistics() for pool in self.pools())

    def running(self) -> tuple[RunningTask, ...]:
        return tuple(task for pool in self.pools() for task in pool.running())
