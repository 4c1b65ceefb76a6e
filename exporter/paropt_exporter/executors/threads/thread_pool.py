"""ThreadPool: an executor of threads that can be resized while it runs."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from paropt_exporter import host
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.threads.map import MapWorkItem
from paropt_exporter.executors.threads.pool_state import ThreadPoolState

P = ParamSpec("P")
T = TypeVar("T")

_MOST_BY_DEFAULT = 32  # the standard library's bound, so that a default pool doesn't grow when it is swapped in
_names = itertools.count()


class ThreadPool(Executor):
    """A `concurrent.futures.Executor` of threads: resizable, measured, and fast for short tasks.

    Takes the arguments of `ThreadPoolExecutor`. All workers start at once. The CPU time of a task's child processes is
    part of its measurement only if no other task of the pool ran beside it, since the kernel does not tell which
    thread has reaped a child.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        name: str = "threads",
    ) -> None:
        if max_workers is None:
            max_workers = min(_MOST_BY_DEFAULT, host.count_cpu_workers() + 4)
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        prefix = thread_name_prefix or f"paropt-{name}-{next(_names)}"
        self._state = state = ThreadPoolState(name, prefix, initializer, initargs)
        self._append = state.work_queue.append
        # If the pool is dropped without a shutdown, its workers finish the submitted tasks and exit.
        self._finalizer = weakref.finalize(self, state.close)
        self._finalizer.atexit = False
        state.resize(max_workers, "start")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        state = self._state
        if state.closed:
            state.refuse()
        future: TaskFuture[T] = TaskFuture()
        future.label = get_label(fn)
        task = (future, fn, args, kwargs, False, monotonic())
        self._append(task)
        if state.needs_wake:
            state.wake(task)
        return future

    def submit_future(
        self,
        future: TaskFuture[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        profiled: bool = False,
    ) -> None:
        """Run a task for a future that another executor has already returned.

        `profiled`: measure it in full, like a named task; otherwise only if it takes a millisecond, without memory.
        """
        if self._state.closed:
            self._state.refuse()
        task = (future, fn, args, kwargs, profiled, monotonic())
        self._append(task)
        if self._state.needs_wake:
            self._state.wake(task)

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a task with a label for errors and listings, and measure it in full, however short it is."""
        state = self._state
        if state.closed:
            state.refuse()
        future: TaskFuture[T] = TaskFuture()
        future.label = label
        task = (future, fn, args, kwargs, True, monotonic())
        self._append(task)
        if state.needs_wake:
            state.wake(task)
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
        """Return results in order, as `Executor.map` does. Threads need no chunks: `chunksize` has no effect.

        `buffersize`: how many results may wait for the consumer before the map stops reading the iterables.
        """
        del chunksize
        if self._state.closed:
            self._state.refuse()
        return MapWorkItem(self._state, get_label(fn), fn, iterables, timeout=timeout, buffersize=buffersize).results()

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the target number of workers and return at once.

        Surplus workers exit now if idle, otherwise after their task. Raises ValueError for an invalid size.
        """
        self._state.resize(n, reason)

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = 10.0) -> bool:
        """Settle a task's future with `error` at once; return False if the task had ended. Does not block.

        A thread can't be stopped: the thread of a running task continues (see `abandoned`), and the pool starts
        another worker in its place. So `grace_seconds` has no effect.
        """
        del grace_seconds
        return self._state.stop(future, error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._state.close(cancel_futures=cancel_futures)
        if wait:
            self._state.join()

    def kill_workers(self, after_seconds: float) -> tuple[str, ...]:
        """Shut down without waiting. Return nothing: a thread can't be killed, and ends with the interpreter."""
        del after_seconds
        self.shutdown(wait=False, cancel_futures=True)
        return ()

    def __repr__(self) -> str:
        return f"<ThreadPool {self.name}: {self.live} of {self.target} workers, {self.busy} busy>"

    @property
    def name(self) -> str:
        return self._state.counters.name

    @property
    def target(self) -> int:
        """How many workers the pool should have."""
        return self._state.target

    @property
    def live(self) -> int:
        """How many workers are alive, including those that will exit after their task."""
        return self._state.live

    @property
    def busy(self) -> int:
        """How many workers run a task."""
        return self._state.busy

    @property
    def queued(self) -> int:
        """How many tasks are queued; a map counts as one."""
        return len(self._state.work_queue)

    @property
    def abandoned(self) -> tuple[str, ...]:
        """The labels of stopped tasks whose threads still run."""
        return self._state.list_abandoned()

    def statistics(self) -> PoolStatistics:
        return self._state.statistics()

    def running(self) -> tuple[RunningTask, ...]:
        """List the running tasks. Memory is that of the whole process, since threads share it."""
        return self._state.list_running()

    def sample_running(
        self, *, children: Callable[[TaskFuture[Any]], bool] = lambda _: True
    ) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
        """List the running tasks with their futures, by the fewest reads that show whether they compute or wait.

        Leaves out memory, and the run delay of tasks that get nearly a whole core. `children`: for which futures to
        sample child processes too.
        """
        return self._state.sample_running(children=children)

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return an empty tuple: threads share the memory of their process."""
        return ()
