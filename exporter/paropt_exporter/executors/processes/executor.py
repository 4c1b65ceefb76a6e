"""ProcessPool: an executor of processes that can be resized while it runs and survives the death of workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from paropt_exporter import host
from paropt_exporter.errors import UnpicklableError, renew
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.base import check_arguments
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.interruptible import InterruptibleExecutor
from paropt_exporter.executors.mapping import has_own_submit, map_in_order
from paropt_exporter.executors.processes.batches import WorkItem
from paropt_exporter.executors.processes.manager import ProcessManager
from paropt_exporter.executors.worker import main_module
from paropt_exporter.executors.worker.payload import MappedFunction

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

P = ParamSpec("P")
T = TypeVar("T")

_TERM_GRACE_SECONDS = 10.0
_new_item = tuple.__new__  # which WorkItem's constructor calls, at a quarter of its cost


class ProcessPool(InterruptibleExecutor):
    """A `concurrent.futures.Executor` of processes that can be resized, measures its tasks, and survives dead workers.

        with ProcessPool(2, name="reports") as pool:
            print(pool.submit(pow, 2, 10).result(), list(pool.map(lambda number: number + 1, range(3))))

    It has the arguments of `ProcessPoolExecutor`. Workers are forked from a small process that never imports the
    caller's `__main__`, whose definitions travel by value. `mp_context` is accepted for compatibility and changes
    nothing: with `fork` too, workers do not share the caller's memory; `initializer` passes objects to them. If a
    worker dies, its running task fails with `WorkerDied`, a `BrokenExecutor`, and a `BrokenProcessPool` if the program
    has loaded that class; other tasks go on. Any thread may call its methods.
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
        """Make the pool and start its processes.

        `max_workers`: 1 to 1024; by default the cores that this process may use. `initializer(*initargs)` runs in each
        new process; if none can start since it fails, all tasks fail with an InitializerFailed, which is a
        BrokenExecutor. `max_tasks_per_child`: after so many tasks another process takes a worker's place; None:
        never. `name`: the label `pool` of the metrics. ValueError or TypeError for other arguments, UnpicklableError
        for an initializer that can't travel, RuntimeError in a frozen program.
        """
        if max_workers is None:
            max_workers = host.count_cpu_workers()
        check_arguments(max_workers, initializer)
        if getattr(sys, "frozen", False):  # it would start itself, without end
            raise RuntimeError("a frozen program has no Python that could start workers: use a ThreadPool")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
            if mp_context is not None and mp_context.get_start_method(allow_none=False) == "fork":
                raise ValueError("max_tasks_per_child is incompatible with the 'fork' start method of mp_context")
        self._manager = manager = ProcessManager(name, initializer, initargs, max_tasks_per_child)
        self._scheduler, self._queue = manager.scheduler, manager.scheduler.queue
        self._pack, self._append = manager.packer.pack_queued, manager.scheduler.queue.append
        lifetime.close_when_dropped(self, manager)
        # A module that is imported by a worker may have a pool, which that process hardly needs.
        start = manager.set_size if main_module.is_worker() else manager.resize
        start(max_workers, "start")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a call and return its future. RuntimeError after a shutdown.

        The arguments are pickled now; an error in this is the future's. If 64 MB of large arguments (from 64 kB on) are
        queued, further ones are pickled when a worker gets them: do not change them until the task has ended.
        """
        scheduler = self._scheduler
        if (refusal := scheduler.closed) is not None:
            raise renew(refusal)
        future: TaskFuture[T] = TaskFuture()
        future.label = get_label(fn)
        try:
            packed = self._pack(fn, args, kwargs, self._queue)
        except UnpicklableError as error:
            self._manager.fail_unsubmitted(future, error)
            return future
        item = _new_item(WorkItem, (future, packed, False, monotonic(), False))
        self._append(item)
        if scheduler.needs_dispatch:
            self._manager.dispatch(item)
        elif len(self._queue) >= scheduler.prefetch_length:
            self._manager.prefetch()
        return future

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a task that has `label` in errors and listings, travels alone, and is measured in full."""
        if (refusal := self._scheduler.closed) is not None:
            raise renew(refusal)
        future: TaskFuture[T] = TaskFuture()
        future.label = label
        try:
            self.submit_future(future, fn, args, kwargs, profiled=True)
        except UnpicklableError as error:
            self._manager.fail_unsubmitted(future, error)
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
        """Submit a task for a future that another executor has returned already. UnpicklableError if it can't travel.

        `profiled`: like a named task, alone and measured in full.
        """
        scheduler = self._scheduler
        if (refusal := scheduler.closed) is not None:
            raise renew(refusal)
        item = WorkItem(future, self._manager.packer.pack(fn, args, kwargs), profiled, monotonic())
        self._append(item)
        if scheduler.needs_dispatch:
            self._manager.dispatch(item)
        elif len(self._queue) >= scheduler.prefetch_length:
            self._manager.prefetch()

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Map like `Executor.map`. Short tasks travel together anyway; a `chunksize` helps if the arguments are tiny.

        The function is pickled once. `timeout`: in seconds from this call; after it, waiting for a result raises
        TimeoutError. `buffersize`: the most chunks that are submitted ahead of the consumer; None: all. RuntimeError
        after a shutdown.
        """
        if has_own_submit(self, ProcessPool):
            return map_in_order(self.submit, fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)
        mapped: Any = MappedFunction(fn, get_label(fn), in_chunks=chunksize > 1)
        return map_in_order(
            self.submit,
            mapped,
            iterables,
            timeout=timeout,
            chunksize=chunksize,
            buffersize=buffersize,
            takes_chunks=True,
        )

    def observe_unsendable(self, observe: Callable[[TaskFuture[Any], UnpicklableError], object]) -> None:
        """Call `observe` with each task whose result can't be sent back, and the error, before its future settles."""
        self._manager.on_unsendable = observe

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the number of workers and return at once.

        Surplus workers exit now if idle, otherwise after their task. ValueError or TypeError for an
        invalid size.
        """
        self._manager.resize(n, reason)

    @property
    def failure(self) -> Exception | None:
        """Why no worker could start, if the pool has failed for that, until one is ready after a `reopen`."""
        return self._scheduler.failure

    def reopen(self) -> bool:
        """Accept tasks again if the pool has failed since no worker could start; the reason may be gone.

        Return whether it had failed. Does nothing to a pool that works, or was shut down.
        """
        return self._manager.reopen()

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = 10.0) -> bool:
        """Stop a task, whose future gets `error`; return False if it has ended already. Does not block.

        The worker of a running task and all processes in its group get TERM, and KILL after the grace. The future
        settles when the worker has exited, and another worker takes its place. A second call may shorten the grace.
        """
        return self._manager.stop(future, error, grace_seconds)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks and, with `wait`, wait for those submitted and for the processes to exit.

        `cancel_futures`: cancel queued tasks. Running ones finish in any case: `terminate_workers` ends them.
        """
        self._manager.close(cancel_futures=cancel_futures)
        if wait:
            self._manager.join()

    def runs_caller(self) -> bool:
        """Return whether the calling thread is one of the pool's: that of a task, or of a future's callback."""
        return self._manager.threads.group.has_current()

    def close_within(self, seconds: float) -> tuple[str, ...]:
        """Shut down, wait up to `seconds` for the workers, kill those that are left, and return their names.

        Running tasks of killed workers fail with `WorkerDied`. A thread that a task left running keeps its worker from
        exiting.
        """
        self._manager.close(cancel_futures=True)
        return () if self._manager.join(seconds) else self._manager.end_workers(0.0)

    def kill_workers(self) -> None:
        """Shut down and kill the workers at once. Running tasks fail with `WorkerDied`.

        As in Python 3.14's `ProcessPoolExecutor`. Does not block.
        """
        self.close_within(0.0)

    def terminate_workers(self) -> None:
        """Shut down and end the workers: TERM now, KILL after 10 s. Running tasks fail with `WorkerDied`.

        As in Python 3.14's `ProcessPoolExecutor`. Does not block.
        """
        self._manager.close(cancel_futures=True)
        self._manager.end_workers(_TERM_GRACE_SECONDS)

    def __repr__(self) -> str:
        return f"<ProcessPool {self.name}: {self.live} of {self.target} workers, {self.busy} busy>"

    @property
    def name(self) -> str:
        """The label `pool` of the metrics."""
        return self._manager.counters.name

    @property
    def target(self) -> int:
        """The number of workers that the pool was asked to have."""
        return self._scheduler.target

    @property
    def _max_workers(self) -> int:
        """The standard executors' attribute, which dask and adaptive read."""
        return self.target

    if not TYPE_CHECKING:  # the stubs of the standard executor have it as an attribute that may be set

        @property
        def _shutdown_thread(self):
            """The standard executor's attribute, which futurist reads: whether the pool takes no more tasks."""
            return self._scheduler.closed is not None

    @property
    def live(self) -> int:
        """The number of workers that are ready, including those that exit after their task."""
        return self._manager.sampler.count_ready()

    @property
    def busy(self) -> int:
        """The number of workers that hold a task."""
        return self._manager.sampler.count_busy()

    def statistics(self) -> PoolStatistics:
        """Return the number of workers and queued tasks, and totals, which never fall."""
        return self._manager.sampler.build_statistics()

    def running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks, with the CPU and memory of their worker and its descendants."""
        return self._manager.sampler.list_running()

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return the memory of each worker process, without its descendants."""
        return self._manager.sampler.read_memory()
