"""ProcessPool: an executor of processes that can be resized while it runs and survives its workers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from paropt_exporter import host
from paropt_exporter.errors import UnpicklableError
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.mapping import map_in_order
from paropt_exporter.executors.processes.crew import ProcessCrew
from paropt_exporter.executors.processes.serving import serve
from paropt_exporter.executors.processes.slot import ProcessTask

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

P = ParamSpec("P")
T = TypeVar("T")

_task = tuple.__new__  # what ProcessTask's own constructor calls, at a quarter of its cost


class ProcessPool(Executor):
    """A `concurrent.futures.Executor` of processes: resizable, measured, and it goes on when a worker dies.

    Takes what `ProcessPoolExecutor` takes. Workers are forked from a small process that never imports the caller's
    `__main__` (what is defined there travels by value), whatever start method `mp_context` names: the argument is there
    for the standard library's sake. A dead worker fails the task that it was running, with
    `WorkerDied`, a `BrokenExecutor`; the others never notice.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        name: str = "processes",
    ) -> None:
        if max_workers is None:
            max_workers = host.count_cpu_workers()
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if mp_context is not None and mp_context.get_start_method(allow_none=False) == "fork":
                raise ValueError("max_tasks_per_child is incompatible with the 'fork' start method of mp_context")
        self._crew = crew = ProcessCrew(name, initializer, initargs, max_tasks_per_child, serve)
        self._roster, self._desk = crew.roster, crew.desk
        self._pack, self._append = crew.packer.pack, crew.desk.queue.append
        # A pool that is dropped without a shutdown lets its workers end what was submitted, then go.
        self._finalizer = weakref.finalize(self, crew.close)
        self._finalizer.atexit = False
        crew.resize(max_workers, "start")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        roster = self._roster
        if roster.closed:
            roster.refuse()
        future: TaskFuture[T] = TaskFuture()
        future.label = get_label(fn)
        try:
            packed = self._pack(fn, args, kwargs)
        except UnpicklableError as error:
            return self._crew.unsubmitted(future, error)
        task = _task(ProcessTask, (future, packed, False, monotonic(), False))
        self._append(task)
        if roster.wakeable:
            self._desk.dispatch(task)
        elif len(self._desk.queue) >= self._desk.ample:
            self._desk.stock()
        return future

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a task that goes by `label` in errors and listings, runs in no batch, and is measured in full."""
        if self._roster.closed:
            self._roster.refuse()
        future: TaskFuture[T] = TaskFuture()
        future.label = label
        try:
            self.submit_future(future, fn, args, kwargs, profiled=True)
        except UnpicklableError as error:
            return self._crew.unsubmitted(future, error)
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
        """Run a task for a future that another executor has handed out already. UnpicklableError if it can't travel.

        `profiled`: as a named task, in no batch and measured in full.
        """
        roster = self._roster
        if roster.closed:
            roster.refuse()
        task = ProcessTask(future, self._pack(fn, args, kwargs), profiled, monotonic())
        self._append(task)
        if roster.wakeable:
            self._desk.dispatch(task)
        elif len(self._desk.queue) >= self._desk.ample:
            self._desk.stock()

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """As `Executor.map`. Short tasks travel together anyway: a `chunksize` helps where arguments are tiny.

        `buffersize`: how many chunks' results may wait to be taken before no more of the iterables is read.
        """
        return map_in_order(self.submit, fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set how many workers there shall be, and return at once.

        Fewer: idle ones go now, busy ones after the task that they hold. ValueError for a size that makes no sense.
        """
        self._crew.resize(n, reason)

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = 10.0) -> bool:
        """End one task from outside with `error`; False if it had ended. Does not block.

        A running one's worker and all processes in its group get TERM, and KILL after the grace; the future settles
        when the worker is gone, and another takes its slot. Call again with a shorter grace to make it quicker.
        """
        return self._crew.stop(future, error, grace_seconds)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._crew.close(cancel_futures=cancel_futures)
        if wait:
            self._crew.join()

    def kill_workers(self, after_seconds: float) -> tuple[str, ...]:
        """Shut down; kill the workers that have not gone by then, and return their names.

        Threads that a task left running keep a worker from ending by itself. Blocks so long at most.
        """
        self._crew.close(cancel_futures=True)
        return () if self._roster.join(after_seconds) else self._crew.kill()

    def __repr__(self) -> str:
        return f"<ProcessPool {self.name}: {self.live} of {self.target} workers, {self.busy} busy>"

    @property
    def name(self) -> str:
        return self._crew.counters.name

    @property
    def target(self) -> int:
        """How many workers the pool was told to have."""
        return self._roster.target

    @property
    def _max_workers(self) -> int:
        """The standard executors' attribute, which dask and adaptive read."""
        return self.target

    @property
    def live(self) -> int:
        """How many workers there are, those included that will go after their task."""
        return self._crew.live

    @property
    def busy(self) -> int:
        """How many workers hold a task."""
        return self._crew.busy

    def statistics(self) -> PoolStatistics:
        return self._crew.statistics()

    def running(self) -> tuple[RunningTask, ...]:
        """List the tasks that run now, with what their worker and its descendants have used since they began."""
        return self._crew.running()

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return what each worker process has in memory, its descendants not counted."""
        return self._crew.worker_memory()
