"""The guide's pool: an executor that measures the tasks of each stage."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from pathlib import Path
from time import monotonic
from typing import Any, ParamSpec, Protocol, TypeVar

from msgspec.structs import replace

from paropt_exporter.clock import SystemClock
from paropt_exporter.engine.outcome import Outcome, read_future
from paropt_exporter.errors import describe
from paropt_exporter.events import Measurement, PoolStatistics, Strategy
from paropt_exporter.executors import AdaptivePool, Router, TaskFuture, lifetime
from paropt_exporter.executors.base import PROFILES_NAME
from paropt_exporter.executors.counters import WorkerTime, WorkerTimeMeter, get_worker_time
from paropt_exporter.executors.interruptible import InterruptibleExecutor
from paropt_exporter.executors.mapping import has_own_submit, map_in_order
from paropt_exporter.guide.measured_function import ChildCpuMeter, MeasuredFunction
from paropt_exporter.guide.pool_metrics import CoreUse, StageMetrics, WorkerPoolMetrics, summarize
from paropt_exporter.guide.strategies import PROJECT_FOLDER, ParallelizationStrategy, WorkerPoolOptimizer
from paropt_exporter.plan import PROCESSES, THREADS

P = ParamSpec("P")
T = TypeVar("T")

_WAITED_SECONDS = 0.1  # for a slot; shorter waits need no action
_IS_ASYNC = CO_COROUTINE | CO_ASYNC_GENERATOR
_batches = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTask:
    """A stage's task whose future is settled. `pool` ran it. A task that never ran starts when it ends."""

    number: int
    name: str
    pool: str
    submitted_seconds: float
    measured: Measurement
    outcome: Outcome


class StageObserver(Protocol):
    """Observes a pool's stages. Its methods are called under the pool's lock, so they must not block."""

    def note_submitted(self, number: int, name: str, submitted_seconds: float) -> None: ...

    def note_ended(self, task: EndedTask) -> None: ...

    def note_run_end(self, worker_time: WorkerTime) -> None:
        """Note the end of a run: all tasks have ended, and `wait_all` reports them or the pool is shut down."""


class _Task:
    """A task of a stage, from `submit_stage` to `wait_all`."""

    __slots__ = ("batch", "future", "metrics", "name", "number", "observers", "submitted_seconds", "watched")

    def __init__(self, number: int, name: str, watched: MeasuredFunction) -> None:
        self.number = number
        self.name = name
        # None after the task's end, since it refers to the user's function
        self.watched: MeasuredFunction | None = watched
        self.future: TaskFuture[Any] | None = None  # likewise: it refers to the result
        self.batch = 0
        self.submitted_seconds = 0.0
        self.observers: tuple[StageObserver, ...] = ()  # those that noted its submission
        self.metrics: StageMetrics | None = None

    @property
    def label(self) -> str:
        return f"stage {self.number} ({self.name})"


class AdaptiveWorkerPool(InterruptibleExecutor):
    """A `concurrent.futures.Executor` that runs stages and measures them.

        with AdaptiveWorkerPool() as pool:
            pool.submit_stage(2, "quality_gates", pow, 2, 10)
            print(pool.wait_all(timeout=60), pool.metrics.avg_task_duration_seconds)

        submit_stage() ──> open ──(its future is settled)──> ended, in `metrics` ──> reported by wait_all()

    `initial_size` is the number of workers (HYBRID: of each kind), 1 to 1024, or None to choose it from cores, memory
    and history. ADAPTIVE starts with it and resizes itself. ValueError or TypeError for other arguments.
    Guarantees:
      * Every task of a stage has its own entry in `metrics`, even if tasks share a number or a name.
      * A task with a settled future is in `metrics`, also inside callbacks of the future.
      * `wait_all` reports each task once.
    Tasks of `submit` and `map` belong to no stage and are not in `metrics`. `metrics` has all tasks of the pool's life,
    at half a kilobyte each: a service that submits stages without an end should replace its pool from time to time.
    """

    def __init__(
        self,
        strategy: ParallelizationStrategy | str = ParallelizationStrategy.ADAPTIVE,
        initial_size: int | None = None,
    ) -> None:
        self.strategy = ParallelizationStrategy(strategy)
        if initial_size is not None and (isinstance(initial_size, bool) or not isinstance(initial_size, int)):
            raise TypeError(f"initial_size is {initial_size!r}: expected a whole number, or None to choose one")
        if initial_size is not None and initial_size < 1:
            raise ValueError(f"initial_size is {initial_size}: expected at least 1, or None to choose one")
        start = initial_size or WorkerPoolOptimizer.get_optimal_worker_count(self.strategy)
        most = _choose_max_workers(self.strategy, initial_size, start)
        self._pool = AdaptivePool(self.strategy.pool_strategy, most, start=start, memory=_find_profiles_path())
        self._children = ChildCpuMeter()
        self._gil = Router(Strategy.THREAD)
        # guards: everything below; reentrant, since a callback may cancel. Not the condition, as in `ThreadGroup`. No
        # thread takes a lock of the pool while it holds this one: a signal handler may take this one inside those.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._tasks: list[_Task] = []
        self._open: set[_Task] = set()
        self._unreported: list[_Task] = []
        self._slots = WorkerTimeMeter()
        self._batch = 0
        self._first_seconds = self._last_seconds = 0.0
        self._queued = False
        self._gil_bound: set[int] = set()
        self._in_processes: dict[int, CoreUse] = {}
        self._observers: tuple[tuple[StageObserver, Callable[[], object]], ...] = ()
        self._is_shut_down = False
        lifetime.register_lock_owner(self)

    def observe_stages(self, observer: StageObserver, on_run_end: Callable[[], object]) -> None:
        """Add an observer of the stages from now on, such as a `StageCollector`.

        `on_run_end` is called without a lock after a run has ended, in the thread that waited for it.
        """
        with self._lock:
            self._observers += ((observer, on_run_end),)

    def note_ended_tasks(self) -> None:
        """Tell the observers of each task whose future is settled, even if its callbacks have not run yet."""
        with self._lock:
            done = self._list_done_tasks()
        self._end_tasks(done)

    def submit_stage(
        self, stage_num: int, stage_name: str, task_func: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> TaskFuture[T]:
        """Run a task of a stage and return its future. One number may have many tasks.

        Raises RuntimeError after a shutdown, and TypeError for an async function, which would seem to succeed without
        running.
        """
        if getattr(getattr(task_func, "__code__", None), "co_flags", 0) & _IS_ASYNC:
            name = getattr(task_func, "__qualname__", task_func)
            raise TypeError(f"{name} is an async function: submit one that calls asyncio.run({name}(...))")
        task = _Task(stage_num, stage_name, watched := MeasuredFunction(task_func, self._children))
        self._open_task(task)
        try:
            future: TaskFuture[T] = self._pool.submit_named(stage_name, watched, *args, **kwargs)
        except BaseException:  # a rejected task is not open; raised again
            self._withdraw_task(task)
            raise
        with self._lock:
            task.observers = tuple(observer for observer, _ in self._observers)
            for observer in task.observers:
                observer.note_submitted(stage_num, stage_name, task.submitted_seconds)
            task.future = future
        future.add_done_callback(partial(self._on_settled, task))
        return future

    def wait_all(self, timeout: float | None = None) -> tuple[bool, list[str]]:
        """Wait for the tasks submitted since the last call. Return whether all succeeded, and their errors.

        An error is a text such as `stage 4 (unit_tests): ValueError: no number`; the futures have the exceptions.
        Tasks that have not ended after `timeout` seconds count as failures, and the next call waits for them too.
        """
        with self._lock:
            tasks = tuple(self._unreported)
            asked = frozenset(tasks)
            # two sets, so that only the smaller one is iterated
            self._changed.wait_for(lambda: asked.isdisjoint(self._open), timeout)
        self.note_ended_tasks()
        with self._lock:
            known = len(self._unreported)  # a signal handler may add tasks meanwhile
            left = filter(lambda task: task.metrics is None or task not in asked, self._unreported[:known])
            self._unreported[:known] = left
            if ended := not self._unreported:
                self._end_run()
            accepted = (task for task in tasks if task.metrics is not None or task in self._open)
            errors = list(filter(None, map(partial(_format_failure, timeout), accepted)))
        self._flush_observers(ended=ended)
        return not errors, errors

    @property
    def metrics(self) -> WorkerPoolMetrics:
        """A snapshot of the pool, also while tasks run."""
        self.note_ended_tasks()
        size, fallbacks, times = self.size, self._pool.fallbacks, self._read_times()
        with self._lock:
            ended = tuple(task.metrics for task in self._tasks if task.metrics is not None)
            until = monotonic() if self._open else self._last_seconds
            return summarize(
                ended,
                strategy=self.strategy,
                pool_size=size,
                submitted=len(self._tasks),
                wall_seconds=max(0.0, until - self._first_seconds),
                busy_ratio=self._slots.get_total(times).ratio,
                queued=self._queued,
                gil_bound=frozenset(self._gil_bound),
                in_processes=self._in_processes,
                fallbacks=fallbacks,
                now=datetime.fromtimestamp(SystemClock().wall(), UTC),
            )

    def __repr__(self) -> str:
        return f"<AdaptiveWorkerPool {self.strategy}: {self.size} workers>"

    @property
    def size(self) -> int:
        """The target number of workers, or the starting number before the first task."""
        return self._pool.target or self._pool._first_size

    @property
    def _max_workers(self) -> int:
        """The standard executors' attribute, which dask and adaptive read."""
        return self._pool._max_workers

    def resize(self, n: int) -> None:
        """Set the number of workers, for ADAPTIVE the maximum. Returns at once and interrupts no task."""
        self._pool.resize(n)

    def statistics(self) -> tuple[PoolStatistics, ...]:
        """Return a snapshot of each pool of workers used so far."""
        return self._pool.statistics()

    def backlogs(self) -> dict[str, tuple[int, float]]:
        """Return how many tasks wait to be submitted to each of them, by name, and the age of the oldest in seconds."""
        return self._pool.backlogs()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[T]:
        """Submit a call that belongs to no stage, and return its future. Raises RuntimeError after a shutdown."""
        return self._pool.submit(fn, *args, **kwargs)

    def map(
        self,
        fn: Callable[..., T],
        /,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Return results in order, as `AdaptivePool.map` does; the calls belong to no stage."""
        if has_own_submit(self, AdaptiveWorkerPool):
            return map_in_order(self.submit, fn, iterables, timeout=timeout, chunksize=1, buffersize=buffersize)
        return self._pool.map(fn, *iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the pool down after its tasks. Metrics stay readable. A second call has no effect."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)
        with self._lock:
            self._is_shut_down = True
        self.note_ended_tasks()
        with self._lock:
            if ended := not self._open:
                self._end_run()
        self._flush_observers(ended=ended)

    def terminate_workers(self) -> None:
        """Shut down, cancel the queued tasks, and end the worker processes; threads finish their tasks."""
        self._pool.terminate_workers()

    def reset_after_fork(self) -> None:
        """Reset in a forked child, where the lock may still be held. The child neither ends nor reports the tasks."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        if self._tasks:  # otherwise the pool becomes the child's
            self._open, self._unreported, self._observers = set(), [], ()

    def _end_run(self) -> None:
        """Note the end of a run; under the lock."""
        for observer, _ in self._observers:
            observer.note_run_end(self._slots.total)

    def _flush_observers(self, *, ended: bool) -> None:
        for _, on_run_end in self._observers if ended else ():
            on_run_end()

    def _read_times(self) -> dict[str, WorkerTime]:
        """Read the worker times of the pools; without the lock."""
        return {pool.name: get_worker_time(pool) for pool in self._pool.pools()}

    def _open_task(self, task: _Task) -> None:
        while not self._try_to_open_task(task, None if self._open else self._read_times()):
            pass  # the last task has just ended

    def _try_to_open_task(self, task: _Task, times: dict[str, WorkerTime] | None) -> bool:
        """Open a task. The first one of a batch needs the `times`; without them, return False."""
        with self._lock:
            now = monotonic()
            if not self._open:
                if times is None:
                    return False
                self._batch = next(_batches)
                self._slots.begin(times)
            if not self._tasks:
                self._first_seconds = now
            task.batch, task.submitted_seconds = self._batch, now
            for tasks in (self._tasks, self._unreported):
                tasks.append(task)
            self._open.add(task)
            return True

    def _withdraw_task(self, task: _Task) -> None:
        with self._lock:
            self._tasks.remove(task)
            self._unreported.remove(task)
            self._close_task(task)
        self._end_batch()

    def _on_settled(self, task: _Task, _: object) -> None:
        self._end_tasks([task])

    def _list_done_tasks(self) -> list[_Task]:
        """Return the tasks whose futures are settled but have not run their callbacks yet."""
        return [task for task in tuple(self._open) if task.future is not None and task.future.done()]

    def _end_tasks(self, tasks: list[_Task]) -> None:
        """Add the measurements of tasks whose futures are settled; without the lock."""
        if tasks:
            pools = self._pool.pools()
            idle = {pool.name: get_worker_time(pool) for pool in pools if pool.busy == 0}
            beside = 1 + sum(pool.busy for pool in pools if pool.name == THREADS)
            with self._lock:
                self._slots.note_idle(idle)
                for task in tasks:
                    self._end_task(task, beside)
        self._end_batch()

    def _end_batch(self) -> None:
        """End the batch of work if no task is open; without the lock."""
        if self._open or not self._slots.is_in_batch:
            return
        times = self._read_times()
        with self._lock:
            if not self._open and self._slots.is_in_batch:
                self._slots.end(times)
                if self._is_shut_down:  # by shutdown(wait=False)
                    self._end_run()

    def _end_task(self, task: _Task, beside: int) -> None:
        """`beside`: how many tasks ran in threads, including this one."""
        future, watched = task.future, task.watched
        if task.metrics is not None or future is None or watched is None:
            return
        measured = _measure(future, watched)
        task.metrics = _build_stage_metrics(task, measured, _describe_error(future))
        task.future = task.watched = None
        self._last_seconds = max(self._last_seconds, measured.ended_seconds)
        self._queued |= measured.started_seconds - task.submitted_seconds > _WAITED_SECONDS
        self._learn_core_use(task.number, measured, watched, beside)
        ran_in_process = watched.own_cpu_seconds is None and bool(measured.worker)
        self._note_ended(task, future, measured, PROCESSES if ran_in_process else THREADS)
        self._close_task(task)

    def _note_ended(self, task: _Task, future: TaskFuture[Any], measured: Measurement, pool: str) -> None:
        if not task.observers:
            return
        ended = EndedTask(
            number=task.number,
            name=task.name,
            pool=pool,
            submitted_seconds=task.submitted_seconds,
            measured=measured,
            outcome=read_future(future),
        )
        for observer in task.observers:
            observer.note_ended(ended)

    def _close_task(self, task: _Task) -> None:
        self._open.discard(task)
        self._changed.notify_all()

    def _learn_core_use(self, number: int, measured: Measurement, watched: MeasuredFunction, beside: int) -> None:
        """Record the core use of a task in a process, or learn whether a stage computes in concurrent threads."""
        if watched.own_cpu_seconds is None:
            self._in_processes.setdefault(number, CoreUse()).add(measured)
            return
        if self.strategy is ParallelizationStrategy.SEQUENTIAL:
            return
        key = f"{watched.__module__}.{watched.__qualname__}"
        if self._pool.router.choose(key) != THREADS:
            return
        self._gil.learn(key, replace(measured, cpu_seconds=watched.own_cpu_seconds), concurrent=beside)
        (self._gil_bound.add if self._gil.is_gil_bound(key) else self._gil_bound.discard)(number)


def _find_profiles_path() -> Path | None:
    """Return the profiles' file of the project in this folder, or None without a project."""
    return PROJECT_FOLDER.absolute() / PROFILES_NAME if PROJECT_FOLDER.is_dir() else None


def _choose_max_workers(strategy: ParallelizationStrategy, asked: int | None, start: int) -> int | None:
    """Return the maximum for the pool, or None if it chooses its size itself."""
    if strategy is ParallelizationStrategy.ADAPTIVE or (strategy is ParallelizationStrategy.HYBRID and asked is None):
        return None
    return start


def _measure(future: TaskFuture[Any], watched: MeasuredFunction) -> Measurement:
    """Return the task's measurement, or only its times if it never ran or its worker died."""
    found = future.measurement
    if found is None:
        now = monotonic()
        began = future.started_seconds
        worker = "" if began is None else "unknown"
        return Measurement(worker=worker, pid=0, started_seconds=began or now, ended_seconds=now)
    if watched.own_cpu_seconds is None:
        return found
    return replace(found, cpu_seconds=watched.own_cpu_seconds + watched.children_cpu_seconds)


def _build_stage_metrics(task: _Task, measured: Measurement, error: str | None) -> StageMetrics:
    took = max(0.0, measured.ended_seconds - measured.started_seconds)
    ended_ago = max(0.0, monotonic() - measured.ended_seconds)
    ended = datetime.fromtimestamp(SystemClock().wall() - ended_ago, UTC)
    return StageMetrics(
        stage_number=task.number,
        stage_name=task.name,
        start_time=ended - timedelta(seconds=took),
        end_time=ended,
        duration_seconds=took,
        worker_id=measured.worker,
        success=error is None,
        error_message=error,
        cpu_percent=measured.cpu_seconds / took * 100 if took else 0.0,
        memory_mb=measured.memory_peak_bytes / 1e6,
        batch=task.batch,
    )


def _describe_error(future: TaskFuture[Any]) -> str | None:
    if future.cancelled():
        return "cancelled before it began"
    error = future.exception()
    return None if error is None else describe(error)


def _format_failure(timeout: float | None, task: _Task) -> str:
    if task.metrics is None:
        return f"{task.label}: not ended after {timeout:g} s"
    return "" if task.metrics.success else f"{task.label}: {task.metrics.error_message}"
