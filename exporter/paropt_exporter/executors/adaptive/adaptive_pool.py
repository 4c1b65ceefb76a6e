"""AdaptivePool: an executor that measures where each function's tasks run best, and on how many workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from paropt_exporter import host
from paropt_exporter.events import PoolStatistics, RunningTask, Strategy
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.adaptive.backlog import QueuedTask, get_function_key
from paropt_exporter.executors.adaptive.pools import PoolBounds
from paropt_exporter.executors.adaptive.routing import Router, is_thread_only
from paropt_exporter.executors.adaptive.scheduler import AdaptiveScheduler, ThreadFallback
from paropt_exporter.executors.base import check_arguments, check_size
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.interruptible import InterruptibleExecutor
from paropt_exporter.executors.mapping import has_own_submit, map_in_order
from paropt_exporter.executors.processes.executor import ProcessPool
from paropt_exporter.executors.processes.scheduler import MOST_WORKERS
from paropt_exporter.executors.threads.thread_pool import ThreadPool
from paropt_exporter.executors.worker.payload import MappedFunction

_STRATEGIES = tuple(strategy.value for strategy in Strategy if strategy is not Strategy.DASK)

P = ParamSpec("P")
T = TypeVar("T")


class AdaptivePool(InterruptibleExecutor):
    """A `concurrent.futures.Executor` over a ThreadPool and a ProcessPool, each made on first use.

        with AdaptivePool(max_workers=16) as pool:
            print(pool.submit(pow, 2, 10).result(), list(pool.map(len, ["tea", "milk"])))

    ADAPTIVE runs one task of an unknown function first, usually in a thread. It moves CPU-bound functions to processes,
    and adds threads for waiting ones, up to `max_workers` (64 by default). HYBRID starts with any number of tasks in
    threads, and has fixed sizes; THREAD, PROCESS and SEQUENTIAL use one pool. A function that is `thread_only` or can't
    be pickled stays in threads: `router.get_pin_reason("module.function")` has the reason. Any thread may call its
    methods.
    """

    def __init__(
        self,
        strategy: Strategy | str = Strategy.ADAPTIVE,
        max_workers: int | None = None,
        *,
        start: int | None = None,
        memory: str | os.PathLike[str] | None = None,
        name: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        """Make the pool.

        `strategy`: one of the strategies above, or its name, such as "hybrid". `max_workers`: 1 to 1024 of each kind.
        By default there are as many processes as cores; ADAPTIVE has up to 64 threads, THREAD and HYBRID have 4 more
        than there are cores, at most 32. `start`: the initial number of threads of an ADAPTIVE pool (default: the
        cores). `memory`: a JSON file of function profiles, read now and written when this pool has ended (`shutdown`
        that waits, `with`). `name`: with "orders" its pools are called "orders-threads" and "orders-processes", also in
        the metrics. `initializer(*initargs)` runs in each new thread and each new process before its first task; if it
        can't be pickled, all tasks run in threads. ValueError or TypeError for other arguments.
        """
        check_arguments(1 if max_workers is None else max_workers, initializer)
        for size in (max_workers, start):
            if size is not None:
                check_size(size, MOST_WORKERS, "workers")
        checked = _check_strategy(strategy)
        self._takes_chunks = checked not in (Strategy.THREAD, Strategy.SEQUENTIAL)
        cores = host.count_cpu_workers()
        bounds = PoolBounds(strategy=checked, cores=cores, max_workers=max_workers, start=start or cores, name=name)
        profiles_path = None if memory is None else Path(memory)
        self._scheduler = scheduler = AdaptiveScheduler(
            bounds, profiles_path=profiles_path, initializer=initializer, initargs=initargs
        )
        lifetime.close_when_dropped(self, scheduler)

    @property
    def router(self) -> Router:
        """The part that chooses threads or processes for each function."""
        return self._scheduler.router

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a call and return its future; the pool chooses where it runs. Raises RuntimeError after a shutdown.

        A function that can't be sent to a process runs in a thread. Waits for no task to end, except for the first one
        of its function, for up to 0.2 ms.
        """
        future: TaskFuture[T] = TaskFuture()
        future.label = key = get_function_key(fn)
        self._scheduler.submit(QueuedTask(future, key, fn, args, kwargs))
        return future

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a task that has `label` in errors and listings, and is measured in full."""
        future: TaskFuture[T] = TaskFuture()
        future.label = label
        self._scheduler.submit(QueuedTask(future, get_function_key(fn), fn, args, kwargs, profiled=True))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return results in order, as `Executor.map` does. For processes the function is pickled once.

        `timeout`: in seconds from this call; after it, waiting for a result raises TimeoutError. `chunksize`: so many
        items are one task, in a thread too, and are measured together; no effect with THREAD and SEQUENTIAL, and for
        `thread_only` functions. `buffersize`: the most tasks that are submitted ahead of the consumer; None: all.
        RuntimeError after a shutdown.
        """
        if has_own_submit(self, AdaptivePool):
            return map_in_order(self.submit, fn, iterables, timeout=timeout, chunksize=1, buffersize=buffersize)
        if not self._takes_chunks or is_thread_only(fn):
            chunksize = 1
        mapped = MappedFunction(fn, get_label(fn), in_chunks=chunksize > 1)
        # A brief function may compute for long in a chunk, and in a large chunk for far longer than in a small one.
        suffix = f" in chunks of up to {1 << int(chunksize - 1).bit_length()}" if chunksize > 1 else ""
        return map_in_order(
            partial(self._submit_mapped, mapped, suffix),
            fn,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            takes_chunks=True,
        )

    def _submit_mapped(self, mapped: MappedFunction, suffix: str, fn: Callable[..., T], /, *args: Any) -> TaskFuture[T]:
        future: TaskFuture[T] = TaskFuture()
        future.label = key = get_function_key(fn) + suffix
        self._scheduler.submit(QueuedTask(future, key, fn, args, {}, mapped=mapped))
        return future

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the maximum size of each pool; for strategies other than ADAPTIVE it is the size itself.

        Raises ValueError or TypeError for an invalid size.
        """
        self._scheduler.resize(check_size(n, MOST_WORKERS, "workers"), reason)

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = 10.0) -> bool:
        """Settle a task with `error`, as its pool's `stop` does; return False if it had ended. Does not block."""
        return self._scheduler.stop(future, error, grace_seconds)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks and, with `wait`, wait for those submitted, and write the file of `memory`.

        `cancel_futures`: cancel queued tasks. Running ones finish in any case.
        """
        self._scheduler.close(cancel_futures=cancel_futures)
        if wait:
            self._scheduler.join()

    def terminate_workers(self) -> None:
        """Shut down, cancel the queued tasks, and end the worker processes as `ProcessPool.terminate_workers` does.

        Threads finish their tasks. Does not block.
        """
        self._scheduler.close(cancel_futures=True)
        for pool in self.pools():
            if isinstance(pool, ProcessPool):
                pool.terminate_workers()

    def pools(self) -> tuple[ThreadPool | ProcessPool, ...]:
        """Return the pools that were used so far."""
        return self._scheduler.pools()

    @property
    def target(self) -> int:
        """The number of workers that the pools were asked to have."""
        return sum(pool.target for pool in self.pools())

    @property
    def _max_workers(self) -> int:
        """The standard executors' attribute, which dask and adaptive read."""
        return self._scheduler.max_workers

    @property
    def _first_size(self) -> int:
        """The number of workers with which the first task starts."""
        return self._scheduler.first_size

    @property
    def live(self) -> int:
        """The number of workers that are alive."""
        return sum(pool.live for pool in self.pools())

    @property
    def busy(self) -> int:
        """The number of workers that have a task."""
        return sum(pool.busy for pool in self.pools())

    @property
    def waiting(self) -> int:
        """How many tasks have not been submitted to a pool yet."""
        return self._scheduler.count_backlog()

    @property
    def abandoned(self) -> tuple[str, ...]:
        """The labels of stopped tasks whose threads still run."""
        return tuple(label for pool in self.pools() if isinstance(pool, ThreadPool) for label in pool.abandoned)

    @property
    def fallbacks(self) -> tuple[ThreadFallback, ...]:
        """The CPU-bound functions that run in threads because they can't be pickled."""
        return self._scheduler.fallbacks()

    def __repr__(self) -> str:
        return f"<AdaptivePool: {', '.join(map(repr, self.pools())) or 'not used yet'}>"

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """Return the statistics of each pool; `waiting` and `backlogs` have the tasks that wait before them."""
        return tuple(pool.statistics() for pool in self.pools())

    def backlogs(self) -> dict[str, tuple[int, float]]:
        """Return how many tasks wait to be submitted to each pool, by name, and the age of the oldest in seconds."""
        return self._scheduler.get_backlogs()

    def running(self) -> tuple[RunningTask, ...]:
        """List the running tasks of all pools."""
        return tuple(task for pool in self.pools() for task in pool.running())


def _check_strategy(strategy: str) -> Strategy:
    """Return the strategy of this name. Raises TypeError for a number of workers in its place."""
    if not isinstance(strategy, str):
        raise TypeError(f"strategy {strategy!r}: expected a Strategy; give a number as max_workers={strategy!r}")
    if strategy not in _STRATEGIES:
        raise ValueError(f"there is no strategy {strategy!r}: choose from {', '.join(_STRATEGIES)}")
    return Strategy(strategy)
