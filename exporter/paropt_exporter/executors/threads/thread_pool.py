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
from paropt_exporter.executors.threads.map import ThreadMap
from paropt_exporter.executors.threads.pool_state import ThreadCrew

P = ParamSpec("P")
T = TypeVar("T")

_MOST_BY_DEFAULT = 32  # the standard library's bound, so that a default pool doesn't grow when it is swapped in
_names = itertools.count()


class ThreadPool(Executor):
    """A `concurrent.futures.Executor` of threads: resizable, measured, and fast for short tasks.

    Takes what `ThreadPoolExecutor` takes. All workers start at once. A task that starts child processes: their CPU
    counts in its measurement only while no other task of the pool runs beside it, since the kernel does not tell
    which thread a waited-for child belonged to.
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
        self._crew = crew = ThreadCrew(name, prefix, initializer, initargs)
        self._append = crew.queue.append
        # A pool that is dropped without a shutdown lets its workers end what was submitted, then go.
        self._finalizer = weakref.finalize(self, crew.close)
        self._finalizer.atexit = False
        crew.resize(max_workers, "start")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        crew = self._crew
        if crew.closed:
            crew.refuse()
        future: TaskFuture[T] = TaskFuture()
        future.label = get_label(fn)
        task = (future, fn, args, kwargs, False, monotonic())
        self._append(task)
        if crew.wakeable:
            crew.wake(task)
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
        """Run a task for a future that another executor has handed out already.

        `profiled`: as a named task, measured in full; else only if it takes a millisecond, and without its memory.
        """
        if self._crew.closed:
            self._crew.refuse()
        task = (future, fn, args, kwargs, profiled, monotonic())
        self._append(task)
        if self._crew.wakeable:
            self._crew.wake(task)

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a task that goes by `label` in errors and listings, and is measured in full however short it is."""
        crew = self._crew
        if crew.closed:
            crew.refuse()
        future: TaskFuture[T] = TaskFuture()
        future.label = label
        task = (future, fn, args, kwargs, True, monotonic())
        self._append(task)
        if crew.wakeable:
            crew.wake(task)
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
        """As `Executor.map`. Threads need no chunks: `chunksize` is accepted and changes nothing.

        `buffersize`: how many results may wait to be taken before no more of the iterables is read.
        """
        del chunksize
        if self._crew.closed:
            self._crew.refuse()
        return ThreadMap(self._crew, get_label(fn), fn, iterables, timeout=timeout, buffersize=buffersize).results()

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set how many workers there shall be, and return at once.

        Fewer: idle ones go now, busy ones after the task that they hold. ValueError for a size that makes no sense.
        """
        self._crew.resize(n, reason)

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = 10.0) -> bool:
        """End one task from outside with `error`; False if it had ended. Does not block.

        A thread can't be made to stop: a running task's future settles at once, its thread is left behind (see
        `abandoned`) and another takes its slot. So there is nothing to wait for, and the grace means nothing here.
        """
        del grace_seconds
        return self._crew.stop(future, error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._crew.close(cancel_futures=cancel_futures)
        if wait:
            self._crew.join()

    def __repr__(self) -> str:
        return f"<ThreadPool {self.name}: {self.live} of {self.target} workers, {self.busy} busy>"

    @property
    def name(self) -> str:
        return self._crew.counters.name

    @property
    def target(self) -> int:
        """How many workers the pool was told to have."""
        return self._crew.target

    @property
    def live(self) -> int:
        """How many workers there are, those included that will go after their task."""
        return self._crew.live

    @property
    def busy(self) -> int:
        """How many workers hold a task."""
        return self._crew.busy

    @property
    def queued(self) -> int:
        """How many tasks wait for a worker; a map counts as one."""
        return len(self._crew.queue)

    @property
    def abandoned(self) -> tuple[str, ...]:
        """Labels of stopped tasks whose threads still run."""
        return self._crew.abandoned()

    def statistics(self) -> PoolStatistics:
        return self._crew.statistics()

    def running(self) -> tuple[RunningTask, ...]:
        """List the tasks that run now; memory is the whole process's, since threads share it."""
        return self._crew.running()

    def glance(
        self, *, children: Callable[[TaskFuture[Any]], bool] = lambda _: True
    ) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
        """List the tasks that run now, each with its future, by as few reads as it takes to tell work from waiting.

        No memory is told, nor the delay of tasks that get nearly a whole core. `children`: of which to look at
        child processes too.
        """
        return self._crew.glance(children=children)

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return nothing: threads share one process, and none has memory of its own."""
        return ()
