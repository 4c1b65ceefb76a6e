"""ThreadPool: an executor of threads that can be resized while it runs. `map` creates no future for each item."""

from __future__ import annotations

import _thread
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures.thread import BrokenThreadPool, ThreadPoolExecutor
from itertools import count, islice
from time import monotonic
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from paropt_exporter import host
from paropt_exporter.errors import InitializerFailed, drop_first_frame
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.base import check_arguments, refuse_pickling
from paropt_exporter.executors.counters import WorkerTime
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.mapping import check_buffersize, has_own_submit, map_in_order
from paropt_exporter.executors.threads.pool_state import ThreadPoolState
from paropt_exporter.executors.threads.worker import FULL_PROFILE, NO_PROFILE, SAMPLES, Worker

P = ParamSpec("P")
T = TypeVar("T")

# Iterating over these types runs no user code and never blocks, so a map may read them before its first task runs.
_AT_HAND = frozenset({list, tuple, range, dict, set, frozenset, str, bytes})
# the standard library's bound, so that a default pool that replaces a standard one is no larger
_MAX_DEFAULT_WORKERS = 32
_names = itertools.count()


class ThreadInitializerFailed(InitializerFailed, BrokenThreadPool):
    """The initializer of a ThreadPool failed repeatedly. Programs can catch it by the standard library's class, too."""


class ThreadPool(ThreadPoolExecutor):
    """A `concurrent.futures.Executor` of threads: resizable, measured, and fast for short tasks.

        with ThreadPool(8, name="orders") as pool:
            print(pool.submit(pow, 2, 10).result(), list(pool.map(len, ["tea", "milk"])))

    It takes the arguments of `ThreadPoolExecutor` and is a subclass, since asyncio and others ask for that class, but
    uses none of its code. A worker's thread starts when a task finds no idle one, or at once if there is an
    initializer. Any thread may call its methods. The CPU time of a task's child processes is part of its measurement
    only if no other task of the pool ran beside it, since the kernel does not tell which thread has reaped a child.
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
        """Make the pool. Its threads start as tasks need them, or now if there is an initializer.

        `max_workers`: 1 to 4096; by default the cores that this process may use and 4 more, at most 32.
        `thread_name_prefix`: by default `paropt-NAME-COUNT`. `initializer(*initargs)` runs in each new thread; if it
        has failed three times in each, all tasks fail with an InitializerFailed, which is a BrokenThreadPool. `name`:
        the label `pool` of the metrics. ValueError or TypeError for other arguments. RuntimeError, here or from
        `submit`, if the system can't start a thread.
        """
        if max_workers is None:
            max_workers = min(_MAX_DEFAULT_WORKERS, host.count_cpu_workers() + 4)
        check_arguments(max_workers, initializer)
        prefix = thread_name_prefix or f"paropt-{name}-{next(_names)}"
        self._state = state = ThreadPoolState(name, prefix, initializer, initargs)
        self._append = state.work_queue.append
        self._workers = state.workers
        lifetime.close_when_dropped(self, state)
        state.resize(max_workers, "start")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a call and return its future. Raises RuntimeError after a shutdown. Does not block."""
        workers = self._workers
        if workers.closed:
            self._state.refuse()
        future: TaskFuture[T] = TaskFuture()
        future.label = get_label(fn)
        task = (future, fn, args, kwargs, NO_PROFILE, monotonic())
        self._append(task)
        if workers.needs_wake:
            self._state.wake(task)
        return future

    def submit_future(
        self,
        future: TaskFuture[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        profiled: bool = False,
        sampled: bool = False,
    ) -> None:
        """Run a task whose future another executor has already returned.

        `profiled`: measure it in full, like a named task; otherwise only if it takes a millisecond, and without memory.
        `sampled`: prepare for `sample_running`, so that the first sample has the whole wait for a core.
        """
        profile = FULL_PROFILE if profiled else SAMPLES if sampled else NO_PROFILE
        self._state.submit(future, fn, args, kwargs, profile)

    def submit_named(self, label: str, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a task with a label for errors and listings, and measure it in full, however short it is."""
        future: TaskFuture[T] = TaskFuture()
        future.label = label
        self.submit_future(future, fn, args, kwargs, profiled=True)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return results in order, as `Executor.map` does. Threads need no chunks: `chunksize` has no effect.

        `timeout`: in seconds from this call; after it, waiting for a result raises TimeoutError. `buffersize`: how many
        results may wait for the consumer before the map stops reading the iterables. RuntimeError after a shutdown.
        """
        del chunksize
        if self._workers.closed or has_own_submit(self, ThreadPool):  # after a shutdown, only an empty map succeeds
            return map_in_order(self.submit, fn, iterables, timeout=timeout, chunksize=1, buffersize=buffersize)
        item = MapWorkItem(self._state, get_label(fn), fn, iterables, timeout=timeout, buffersize=buffersize)
        item.pool = None if buffersize is None else self
        return item.results()

    def start_first_thread(self) -> None:
        """Start a thread now instead of with the first task. Raises RuntimeError if the system refuses it."""
        self._state.start_first_thread()

    def resize(self, n: int, *, reason: str = "caller") -> None:
        """Set the target number of workers and return at once.

        Surplus workers exit now if idle, otherwise after their task. Raises ValueError or
        TypeError for an invalid size.
        """
        self._state.resize(n, reason)

    def stop(self, future: TaskFuture[Any], error: BaseException, *, grace_seconds: float = 10.0) -> bool:
        """Settle a task's future with `error` at once; return False if the task had ended. Does not block.

        A thread can't be stopped: the thread of a running task continues (see `abandoned`), and the pool starts another
        worker in its place. `grace_seconds` has no effect.
        """
        del grace_seconds
        return self._state.stop(future, error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks and, with `wait`, wait for those submitted. In a task of the pool it does not wait.

        `cancel_futures`: cancel queued tasks. Running ones finish in any case.
        """
        self._state.close(cancel_futures=cancel_futures)
        if wait:
            self._state.join()

    def runs_caller(self) -> bool:
        """Return whether the calling thread is one of the pool's, in a task or in a future's callback."""
        return self._state.runs_caller()

    def close_within(self, seconds: float) -> tuple[str, ...]:
        """Shut down without waiting. Return (), since a thread can't be killed; it ends with the interpreter."""
        del seconds
        self.shutdown(wait=False, cancel_futures=True)
        return ()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    def __repr__(self) -> str:
        return f"<ThreadPool {self.name}: {self.live} of {self.target} workers, {self.busy} busy>"

    @property
    def name(self) -> str:
        """The label `pool` of the metrics."""
        return self._state.counters.name

    @property
    def target(self) -> int:
        """How many workers the pool should have."""
        return self._workers.target

    @property
    def _max_workers(self) -> int:  # type: ignore[override]  # read-only here
        """The standard executors' attribute, which dask and adaptive read."""
        return self.target

    @property
    def _shutdown(self) -> bool:  # type: ignore[override]  # read-only here
        """The standard executor's attribute: whether the pool takes no more tasks."""
        return self._workers.closed

    @property
    def live(self) -> int:
        """How many workers there are, with or without a thread, including those that will exit after their task."""
        return self._workers.live

    @property
    def busy(self) -> int:
        """How many workers run a task."""
        return self._workers.busy

    @property
    def queued(self) -> int:
        """How many tasks are queued; a map counts as one."""
        return len(self._state.work_queue)

    @property
    def abandoned(self) -> tuple[str, ...]:
        """The labels of stopped tasks whose threads still run."""
        return self._state.list_abandoned()

    def statistics(self) -> PoolStatistics:
        """Return the number of workers and queued tasks, and totals, which never fall."""
        return self._state.statistics()

    def read_cpu_seconds(self) -> float:
        """Return the CPU time of the workers so far, as `statistics` does, but much faster while threads compute."""
        return self._state.read_cpu_seconds()

    def get_worker_time(self) -> WorkerTime:
        """Return how long the workers have been busy and available."""
        return self._state.get_worker_time()

    def running(self) -> tuple[RunningTask, ...]:
        """List the running tasks. Memory is that of the whole process, since threads share it."""
        return self._state.list_running()

    def prepare_samples(self) -> None:
        """Let samples of the running tasks that were not submitted as `sampled` count from now on."""
        self._state.prepare_samples()

    def sample_running(
        self,
        *,
        children: Callable[[TaskFuture[Any]], bool],
        state: Callable[[TaskFuture[Any]], bool],
        youngest_seconds: float = 0.0,
    ) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
        """List the running tasks with their futures, with as few reads as show whether they compute or wait.

        Leaves out memory, and the run delay of tasks that get nearly a whole core. `children` and `state`: for which
        futures to sample child processes, and to read the state of the thread, too. `youngest_seconds`: the age from
        which tasks are listed.
        """
        return self._state.sample_running(children=children, state=state, youngest_seconds=youngest_seconds)

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        """Return an empty tuple, since threads share the memory of their process."""
        return ()


class _Raised:
    """The exception of an item, in place of its result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class MapWorkItem(Generic[T]):
    """One map call: free workers take items from `_pending` and store outcomes by index.

    Guarantees:
      * Workers take items one by one, so that a slow item delays no other, and start them in order.
      * An item's arguments are dropped when it starts, its result when the consumer has taken it.
      * Consumer and worker never miss each other: the consumer stores a lock in `_awaited` and then reads the outcomes;
        a worker stores the outcome and then reads `_awaited`.
    """

    def __init__(
        self,
        state: ThreadPoolState,
        label: str,
        function: Callable[..., T],
        iterables: tuple[Iterable[Any], ...],
        *,
        timeout: float | None,
        buffersize: int | None,
    ) -> None:
        check_buffersize(buffersize)
        self.pool: ThreadPool | None = None  # keeps the pool open while the map has items to read
        self._state = state
        self._deadline = None if timeout is None else monotonic() + timeout
        self._function = function
        self._marker: TaskFuture[Any] = TaskFuture()  # represents the map among the pool's running tasks
        self._marker.label = label
        self._source = enumerate(zip(*iterables, strict=False))
        self._pending: deque[tuple[int, tuple[Any, ...]]] = deque()
        self._lazily = buffersize is not None
        # whether results need more than a pop; set before the outcome of an item that raised is stored
        self._slow_path = self._lazily
        self._enqueued = False
        self._total = 0
        self._outcomes: dict[int, Any] = {}
        self._awaited: dict[int, _thread.LockType] = {}
        self.queued_seconds = monotonic()
        if not self._lazily and all(type(each) in _AT_HAND for each in iterables):
            self._pending.extend(self._source)
            self._total = len(self._pending)
            self._enqueue()
        else:
            self._read(buffersize)

    def results(self) -> Iterator[T]:
        outcomes, pop = self._outcomes, self._outcomes.pop
        try:
            for index in count() if self._lazily else range(self._total):
                # No local name for the result: the generator must not keep it alive while the consumer uses it.
                if index in outcomes and not self._slow_path:
                    yield pop(index)  # the fast path
                elif index < self._total:
                    yield self._take_outcome(index)
                else:
                    return
        finally:
            self._state.cancel_shared(self)
            self.pool = None  # the traceback of an item's error holds this frame

    def _take_outcome(self, index: int) -> T:
        outcome = self._outcomes.pop(index) if index in self._outcomes else self._wait_for(index)
        if self._lazily:
            self._read(1)
        if type(outcome) is _Raised:  # not `__class__`: a proxy's is its object's, or raises
            try:
                raise outcome.error
            finally:
                del outcome  # the traceback holds this frame: break the cycle
        return outcome  # type: ignore[no-any-return]  # the function's own value

    def run_items(self, worker: Worker, now: float) -> float:
        """Run items until none is pending, in one of the pool's threads; return the time of the end."""
        pending, outcomes, awaited = self._pending, self._outcomes, self._awaited
        function, counters, workers = self._function, worker.counters, self._state.workers
        mine = (self._marker, function)
        self._enqueued = False
        if len(pending) > 1:
            self._enqueue(first=True)  # the next free worker joins in before it runs later tasks
        worker.started_seconds = now
        while True:
            try:
                index, arguments = pending.popleft()
            except IndexError:
                break
            worker.task = mine
            try:
                outcome: Any = function(*arguments)
            except BaseException as error:  # noqa: BLE001 -- any exception of an item is that item's outcome
                outcome = _Raised(drop_first_frame(error))
                worker.task = None
                counters.failed += 1
                self._slow_path = True
            else:
                worker.task = None
                counters.succeeded += 1
            outcomes[index] = outcome
            del arguments, outcome
            if awaited:
                self._notify_consumer(index)
            if workers.must_check_exit:
                break
        ended = monotonic()
        counters.busy_seconds += ended - now
        # The tracebacks of errors that no consumer takes refer to this frame, so it must not refer to the errors.
        del self, outcomes
        return ended

    def _enqueue(self, *, first: bool = False) -> None:
        self._enqueued = True
        queue = self._state.work_queue
        (queue.appendleft if first else queue.append)(self)
        if self._state.workers.needs_wake:
            self._state.wake(None if first else self)  # an accepted map continues after the pool is closed

    def _read(self, most: int | None) -> None:
        """Read at most `most` items. Each is queued before the next is read, which may depend on its task."""
        for item in islice(self._source, most):
            self._total += 1
            self._pending.append(item)
            if not self._enqueued:
                self._enqueue()

    def _wait_for(self, index: int) -> Any:
        lock = _thread.allocate_lock()
        lock.acquire()
        self._awaited[index] = lock
        if index not in self._outcomes:
            left = -1.0 if self._deadline is None else max(0.0, self._deadline - monotonic())
            if not lock.acquire(timeout=left):
                self._awaited.pop(index, None)
                raise TimeoutError
        self._awaited.pop(index, None)
        return self._outcomes.pop(index)

    def count_pending(self) -> int:
        return len(self._pending)

    def cancel_pending(self) -> int:
        """Drop the pending items and return their number. A consumer that is waiting for one gets CancelledError."""
        dropped = 0
        while self._pending:
            try:
                index, _ = self._pending.popleft()
            except IndexError:
                break
            dropped += 1
            self._slow_path = True
            self._outcomes[index] = _Raised(CancelledError())
            self._notify_consumer(index)
        return dropped

    def _notify_consumer(self, index: int) -> None:
        lock = self._awaited.pop(index, None)
        if lock is not None:
            lock.release()
