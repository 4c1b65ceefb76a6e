"""The scheduler of an AdaptivePool: it chooses a pool for each queued task, and the sizes of the pools."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

from msgspec.structs import replace

from paropt_exporter.cpu_demand import WAITING_DEMAND
from paropt_exporter.errors import UnpicklableError, describe, is_from_signal_handler
from paropt_exporter.events import RunningTask, Strategy
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.adaptive.backlog import Backlog, QueuedTask
from paropt_exporter.executors.adaptive.pools import PoolBounds, Pools, compute_thread_count
from paropt_exporter.executors.adaptive.routing import (
    CPU_BOUND_DEMAND,
    FunctionProfile,
    PoolName,
    Router,
    is_thread_only,
    load_profiles,
    save_profiles,
)
from paropt_exporter.executors.base import PROCESSES, SHUTDOWN_MESSAGE, THREADS
from paropt_exporter.executors.demand import (
    ChildDemand,
    compute_thread_demand,
    count_competing,
    is_asleep,
    measure_so_far,
    shows_demand,
)
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.processes.executor import ProcessPool
from paropt_exporter.executors.thread_group import start_thread
from paropt_exporter.executors.threads.thread_pool import ThreadPool
from paropt_exporter.executors.worker import run_chunk
from paropt_exporter.executors.worker.pickle_buffers import LARGE_BYTES, measure_large

log = PoolLogger(__name__)

_MAX_CHILD_SAMPLE_SECONDS = 0.25  # between two samples of child processes while no task is queued
# How long `submit` waits for the first task of a function before it queues the second one: if it is brief, no further
# task needs a decision. Otherwise its thread may wait for the GIL for 5 ms, in which hundreds are submitted.
_TRIAL_SECONDS = 0.0002
_FIRST_SAMPLE_SECONDS = 0.005  # after the first task is queued: long enough to measure a thread's CPU demand
_TRIAL_SAMPLE_SECONDS = _FIRST_SAMPLE_SECONDS / 2  # of an unknown function: two samples show whether it sleeps
_LATE_SECONDS = 0.001  # if the monitor wakes up so much later than planned, it has waited for a core or for the GIL
_MAX_SAMPLE_SECONDS = 0.05
_CHILD_SAMPLING_SECONDS = 0.003  # for sampling all child processes; if it takes longer, a thread computes meanwhile
_IDLE_SECONDS = 10.0  # how long no task is queued before surplus threads are released


class ThreadFallback(NamedTuple):
    """A CPU-bound function that can't be pickled: the reason, and how many of its tasks ran in threads."""

    function: str
    reason: str
    tasks: int


class AdaptiveScheduler:
    """Passes the tasks of an AdaptivePool on to its pools, and learns from them where they run best.

        submit() ──> backlog, by function ──(may start)──> threads | processes ──> done ──> next task
           │              ^                                    ^ │
           │              └── monitor: the CPU demand of running tasks moves functions and changes sizes
           └───(no decision needed: brief function, or a single pool)

    `Backlog` has the tasks that have not ended, `Pools` the pools and their sizes, `Router` and `ChildDemand` the
    measurements. `Placement` decides by all of these, without changing them; this class acts on its decisions. One lock
    guards them all, except the router, which has its own. Pools are made, resized and given tasks outside it.

    Guarantees:
      * A task that needs a decision is submitted to a pool only when the pool has a free worker, so that measurements
        of a function's first tasks apply to all queued ones. Only if these have shown that its tasks are short and stay
        in threads, and no other function's are queued, the thread pool gets more.
      * The tasks of a function start in the order of submission; with a single pool of threads, all tasks do.
      * The monitor's thread ends when no task has been queued, or run in a thread, for 10 s.
    """

    def __init__(
        self,
        bounds: PoolBounds,
        *,
        profiles_path: Path | None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        self.router = Router(bounds.strategy)
        self.lock = threading.RLock()  # guards: everything below
        self.closed = False
        self.refusal = SHUTDOWN_MESSAGE
        self.monitor_wakeup = threading.Condition(self.lock)
        self._ended = threading.Condition(self.lock)  # a task has ended
        self._strategy = bounds.strategy
        self._measures = bounds.strategy in (Strategy.ADAPTIVE, Strategy.HYBRID)
        self._profiles_path = profiles_path
        known = () if profiles_path is None else load_profiles(profiles_path)
        self.router.load_profiles(known)
        parents = {profile.function: profile.children_demand for profile in known if profile.children_demand}
        self._backlog, self._children = Backlog(), ChildDemand(parents)
        self._pools = Pools(bounds, self.lock, self._keep_in_threads, initializer, initargs)
        self._placement = Placement(self.router, self._backlog, self._pools, self._children)
        self._is_choosing = False  # whether a thread is in `_choose_startable`
        self._must_choose_again = False  # whether a signal handler or finalizer has interrupted it there, and tried to
        self._competing = 1  # how many threads competed for the GIL at the last sample
        # The last samples of unknown functions; weak, since no sample may follow, and a future has its result
        self._trial_samples = weakref.WeakKeyDictionary[TaskFuture[Any], RunningTask]()
        self._fallbacks: dict[str, ThreadFallback] = {}  # by function
        self._monitor = Monitor(self)
        self.finalizer: weakref.finalize[..., object] | None = None
        lifetime.register(self, schedules=True)

    # Pools

    @property
    def max_workers(self) -> int:
        """The most tasks that run at once."""
        return self._pools.bounds.most_workers

    @property
    def first_size(self) -> int:
        """The initial size of the pool that gets the first task."""
        return self._pools.bounds.first_size

    def pools(self) -> tuple[ThreadPool | ProcessPool, ...]:
        return self._pools.list()

    def resize(self, n: int, reason: str) -> None:
        self._pools.resize(n, reason)
        self.dispatch()

    # Work

    def submit(self, task: QueuedTask) -> None:
        if not self._submit_directly(task):
            self._enqueue(task)

    def _submit_directly(self, task: QueuedTask) -> bool:
        """Submit a task to its pool if no decision is needed; return False if one is, or if it can't be pickled."""
        pool_name = self._choose_direct_pool(task)
        if pool_name is None:
            return False
        try:
            pool = self._pools.made.get(pool_name) or self._pools.get(pool_name)
            _submit_future(pool, task, profiled=task.profiled)
        except UnpicklableError:
            return False
        if isinstance(pool, ThreadPool) and pool.queued > self._pools.sizes[THREADS] and not self._monitor.is_sampling:
            self._wake_monitor()
        return True

    def _choose_direct_pool(self, task: QueuedTask) -> PoolName | None:
        if self.closed:
            return None
        if self._measures:  # first: this is part of each short task's time
            return THREADS if not task.profiled and self.router.needs_no_decision(task.key) else None
        if self._strategy is not Strategy.PROCESS:
            return THREADS
        # Tasks with large arguments are not pickled until a worker is free, and later tasks stay behind them.
        large = measure_large((*task.arguments, *task.keywords.values())) >= LARGE_BYTES
        return None if large or self._backlog.queued else PROCESSES

    def _enqueue(self, task: QueuedTask) -> None:
        task.future.queued_seconds = monotonic()
        with self.lock:
            if self.has_closed():
                raise RuntimeError(self.refusal)
            if is_thread_only(task.function):
                self.router.pin_to_threads(task.key, "it is marked thread_only")
            is_behind = self._backlog.enqueue(task)
            if self.has_closed() and self._backlog.withdraw(task):  # a signal handler has closed it meanwhile
                raise RuntimeError(self.refusal)
            trial = None if is_behind else self._get_trial(task.key)
        if self._strategy is Strategy.ADAPTIVE and self.router.get_cpu_demand(task.key) is not None:
            self._prepare_threads()
        if is_behind and self._strategy is Strategy.ADAPTIVE:
            self._monitor.wake()  # enough also if an interrupt kept the task before it from being dispatched
            return
        if trial is not None:
            trial.wait_for_end(_TRIAL_SECONDS)
        self.dispatch()

    def has_closed(self) -> bool:  # a call, after which mypy does not rely on the last value
        return self.closed

    def _get_trial(self, key: str) -> TaskFuture[Any] | None:
        """Return the first task of a function, on which its other tasks wait; under the lock."""
        if self._strategy is not Strategy.ADAPTIVE or self.router.get_cpu_demand(key) is not None:
            return None
        return self._backlog.get_submitted(key)

    def dispatch(self) -> None:
        """Submit the tasks that the pools have room for, and wake the monitor for the others."""
        self._submit_startable()
        self._wake_monitor()

    def _wake_monitor(self) -> None:
        if self._strategy is Strategy.ADAPTIVE:
            self._monitor.wake()

    def _submit_startable(self) -> None:
        try:
            self._submit_all_startable()
        except BaseException:  # an interrupt; raised again
            with self.lock:
                self._is_choosing = False
                self._backlog.take_back()
            try:
                self._submit_all_startable()
            except BaseException as error:  # noqa: BLE001 -- no interrupt: pickling the task, code of the user, raised it
                self._fail_in_transit(error)
            raise
        if self.closed:
            self._close_pools()

    def _submit_all_startable(self) -> None:
        while self._backlog.queued:
            found = self._pop_startable()
            self._backlog.notify_dropped()
            if found is None:
                return
            pool_name, task = found
            # Only now: with a callback a future takes 1.4 kB more. First: the user's callbacks may take long.
            task.future.add_first_callback(self._on_task_done)
            try:
                self._submit_to(pool_name, task)
            except (RuntimeError, OSError) as error:  # the pool has failed, or the system starts no thread
                if is_from_signal_handler(error):
                    raise
                self._fail_task(task, error)
            with self.lock:
                self._backlog.note_arrival(task)

    def _fail_in_transit(self, error: BaseException) -> None:
        with self.lock:
            failed = self._backlog.pop_in_transit()
        for task in failed:
            self._fail_task(task, error)

    def _submit_to(self, pool_name: PoolName, task: QueuedTask) -> None:
        if pool_name == PROCESSES:
            try:
                self._submit_future(pool_name, task)
                return
            except UnpicklableError as error:
                self._fall_back_to_threads(task, error)
        self._count_fallback(task)
        self._submit_future(THREADS, task)

    def _submit_future(self, pool_name: PoolName, task: QueuedTask) -> None:
        submitted = self._backlog.submitted.get(task.future)  # None: it was stopped meanwhile
        profiled = task.profiled or submitted is None or submitted.profiled
        # Samples of a function's first task decide about the others: they need its wait for a core from its start on.
        sampled = self.router.get_cpu_demand(task.key) is None and not self.runs_only_task()
        _submit_future(self._get_pool_for(task, pool_name), task, profiled=profiled, sampled=sampled)

    def _get_pool_for(self, task: QueuedTask, pool_name: PoolName) -> ThreadPool | ProcessPool:
        """Return a pool; the thread pool if the system has no threads left for a process pool."""
        if pool_name == PROCESSES and (processes := self._pools.get_processes()) is not None:
            return processes
        if pool_name == PROCESSES:
            with self.lock:
                self._backlog.move_to_threads(task.future)
        return self._pools.get(THREADS)

    def _pop_startable(self) -> tuple[PoolName, QueuedTask] | None:
        """Take the next task that may start from the queue.

        In a signal handler or finalizer that has interrupted this method, it returns None: the interrupted call looks
        at the queue again. Otherwise, both would take the same task, and one of them drop the next one.
        """
        with self.lock:
            if self._is_choosing:
                self._must_choose_again = True
                return None
            return self._choose_startable()

    def _choose_startable(self) -> tuple[PoolName, QueuedTask] | None:
        found = self._choose_startable_once()
        while found is None and self._must_choose_again:
            found = self._choose_startable_once()
        return found

    def _choose_startable_once(self) -> tuple[PoolName, QueuedTask] | None:
        backlog, full_for_unknown = self._backlog, False
        try:
            self._is_choosing, self._must_choose_again = True, False
            for key, tasks in list(backlog.queued.items()):
                if backlog.drop_done(key):
                    self._note_ended()
                if not tasks:
                    backlog.drop_queue(key)
                    continue
                unknown = self.router.get_cpu_demand(key) is None
                if unknown and full_for_unknown:  # hundreds of functions that are used once may be queued
                    continue
                pool_name = self._placement.choose_pool(key)
                if self._placement.may_start(key, pool_name):
                    profiled = self._choose_to_profile(tasks[0], pool_name)
                    return pool_name, backlog.take(key, pool_name, profiled=profiled)
                full_for_unknown = full_for_unknown or (unknown and self._placement.is_full(pool_name))
            return None
        finally:
            self._is_choosing = False

    def _choose_to_profile(self, task: QueuedTask, pool_name: PoolName) -> bool:
        # If its profile is saved, the first task is measured, for a program that may run each function once.
        sampled = self.router.choose_to_measure(task.key, first=self._profiles_path is not None)
        return sampled or task.profiled or pool_name == PROCESSES

    def _fail_task(self, task: QueuedTask, error: BaseException) -> None:
        """Settle a task that its pool has refused."""
        with self.lock:
            if self._backlog.end(task.future) is not None:  # otherwise it was stopped meanwhile
                self._note_ended()
        task.future.fail_queued(error)

    def _fall_back_to_threads(self, task: QueuedTask, error: UnpicklableError) -> None:
        """Run a task that can't be pickled, and its function from now on, in threads."""
        key = task.key
        # An unknown function goes to a process only for a trial: it may prove to wait, and so to belong in threads.
        unknown = self._strategy is not Strategy.PROCESS and self.router.choose(key) == THREADS
        self.router.pin_to_threads(key, f"it can't be pickled for a process: {error}")
        facts = {"function": key, "err": str(error)}
        with self.lock:
            self._backlog.move_to_threads(task.future)
        if unknown:
            log.info("a function stays in threads", extra=facts)
        elif self._add_fallback(key, error):
            # The message has name and reason, since scripts that configure no logging see only the message.
            reason = ": ".join(filter(None, (error.part, describe(error.__cause__ or error))))
            log.warning("%s can't be sent to a process, so its tasks run in threads: %s", key, reason, extra=facts)

    def _add_fallback(self, key: str, error: UnpicklableError) -> bool:
        """Add a function to the fallbacks, or count one more of its tasks. Return False if it was one already."""
        with self.lock:
            added = ThreadFallback(key, str(error), 0)
            return self._fallbacks.setdefault(key, added) is added

    def _count_fallback(self, task: QueuedTask) -> None:
        if not self._fallbacks:
            return
        with self.lock:
            known = self._fallbacks.get(task.key)
            if known is not None:
                self._fallbacks[task.key] = known._replace(tasks=known.tasks + 1)

    def fallbacks(self) -> tuple[ThreadFallback, ...]:
        with self.lock:
            return tuple(self._fallbacks.values())

    def _on_task_done(self, future: Any) -> None:
        with self.lock:
            submitted = self._backlog.end(future)
            if submitted is None:
                return  # cancelled or stopped before it was submitted to a pool
            self._backlog.has_ended_tasks = True
            has_queue = self._backlog.counts[submitted.pool_name] > self._pools.sizes[submitted.pool_name]
            concurrent = self._competing if submitted.pool_name == THREADS else 1
            self._note_ended()
        if not submitted.profiled:  # then a measurement would lack the wait for a core
            if (started := future.started_seconds) is not None:
                self.router.learn_duration(submitted.key, monotonic() - started, future.cpu_seconds)
        elif (measurement := future.measurement) is not None:
            self.router.learn(submitted.key, measurement, concurrent=concurrent)
        if not has_queue and (self._backlog.queued or self.closed):
            self.dispatch()

    def _note_ended(self) -> None:
        """Wake threads that wait for the last task, and the monitor, which may end then; under the lock."""
        if self.closed:  # nothing waits before, and waking the monitor costs each short task two switches
            self._ended.notify_all()
            self.monitor_wakeup.notify_all()

    def _keep_in_threads(self, future: TaskFuture[Any], error: UnpicklableError) -> None:
        """From now on, run a function whose result can't be sent back in threads. The failed task must not run again.

        Called before the task's future settles: the next task may be submitted by a thread that waits for it.
        """
        with self.lock:
            submitted = self._backlog.submitted.get(future)
        if submitted is None:
            return  # stopped
        key = submitted.key
        self.router.pin_to_threads(key, f"its results can't be pickled in a process: {error}")
        if self._add_fallback(key, error):
            facts = {"function": key, "err": str(error)}
            log.warning("results of %s can't be sent back, so it runs in threads now: %s", key, error, extra=facts)

    def stop(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool:
        pool, failed = self._find_pool_of(future), False
        if pool is None:
            failed = future.fail_queued(error)
            pool = None if failed else self._find_pool_of(future)  # it has just been begun, or has ended
        if pool is not None:
            try:
                return pool.stop(future, error, grace_seconds=grace_seconds)
            finally:
                if future.done():  # an interrupt may have kept it from calling this
                    self._on_task_done(future)
        self.dispatch()
        return failed

    def _find_pool_of(self, future: TaskFuture[Any]) -> ThreadPool | ProcessPool | None:
        """Return the pool that may have a task; None if it is queued here."""
        # A task that is not in the backlog was submitted directly, or has ended.
        direct = PROCESSES if self._strategy is Strategy.PROCESS else THREADS
        with self.lock:
            submitted = self._backlog.submitted.get(future)
            pool_name = direct if submitted is None else submitted.pool_name
            return None if self._backlog.is_queued(future) else self._pools.made.get(pool_name)

    def count_pending(self) -> int:
        """Return how many tasks are queued, here or in the thread pool."""
        threads = self._pools.threads
        return self.count_backlog() + (threads.queued if threads is not None else 0)

    def runs_in_threads(self) -> bool:
        """Return whether tasks run in threads; the monitor measures their child processes while these live."""
        return self._strategy is Strategy.ADAPTIVE and self._backlog.counts[THREADS] > 0

    def runs_only_task(self) -> bool:
        """Return whether the pool's first task runs, alone, and its measurement is not needed."""
        submitted = self._backlog.submitted
        if len(submitted) != 1 or self._backlog.has_ended_tasks or self._profiles_path is not None:
            return False
        return not any(task.profiled for task in tuple(submitted.values())) and not self.count_pending()

    def count_backlog(self) -> int:
        with self.lock:
            return self._backlog.count_queued()

    def get_backlogs(self) -> dict[str, tuple[int, float]]:
        """Return for each pool, by name, how many tasks are queued for it, and how long the oldest has been, in
        seconds.
        """
        backlogs: dict[str, tuple[int, float]] = {}
        with self.lock:
            queued = [(key, tuple(tasks)) for key, tasks in tuple(self._backlog.queued.items())]
        now = monotonic()
        for key, tasks in queued:
            name = self._pools.bounds.build_name(self.router.choose(key))
            count, oldest = backlogs.get(name, (0, 0.0))
            ages = [now - (task.future.queued_seconds or now) for task in tasks[:1]]
            backlogs[name] = count + len(tasks), max([oldest, *ages])
        return backlogs

    # Called by the monitor

    def knows_backlog(self) -> bool:
        with self.lock:
            return all(
                self.router.get_cpu_demand(key) is not None
                for key, tasks in tuple(self._backlog.queued.items())
                if tasks
            )

    def list_trials(self) -> set[TaskFuture[Any]]:
        """Return the tasks of unknown functions in threads."""
        submitted = tuple(self._backlog.submitted.items())
        in_threads = ((future, task.key) for future, task in submitted if task.pool_name == THREADS)
        return {future for future, key in in_threads if self.router.get_cpu_demand(key) is None}

    def prepare_samples(self) -> None:
        """Read the waits for a core of the running tasks now: the monitor's thread may start late on a busy machine."""
        if (threads := self._pools.threads) is not None:
            threads.prepare_samples()

    def sample_running(self, *, is_late: bool = False) -> None:
        """Learn from running tasks, so that a function that waits is recognized before its first task ends.

        `is_late`: the monitor has just waited for a core or for the GIL, as the tasks may have.
        """
        if (threads := self._pools.threads) is not None:
            demands = self._learn_from_samples(threads, is_late=is_late)
            if demands:
                self._size_threads(sum(demands) / len(demands))
            else:  # tasks that end before a sample shows anything
                self._prepare_threads()
        with self.lock:
            self._backlog.end_cancelled()
        self.dispatch()

    def _learn_from_samples(self, threads: ThreadPool, *, is_late: bool) -> list[float]:
        """Sample the tasks in threads, and learn from them; return the CPU demands of those that show one."""
        began, parents, trials = monotonic(), set[TaskFuture[Any]](), self.list_trials()
        due = bool(trials) or self._children.is_due(began)

        def has_children(future: TaskFuture[Any]) -> bool:
            """Return whether to sample a task's child processes now, and note it if so."""
            has_time = future in trials or monotonic() < began + _CHILD_SAMPLING_SECONDS
            if not due or not has_time or not self._may_have_children(future, began):
                return False
            parents.add(future)
            return True

        youngest_seconds = (_TRIAL_SAMPLE_SECONDS if trials else _FIRST_SAMPLE_SECONDS) / 2
        seen = threads.sample_running(
            children=has_children, state=trials.__contains__, youngest_seconds=youngest_seconds
        )
        before = self._trial_samples
        self._trial_samples = weakref.WeakKeyDictionary(each for each in seen if each[0] in trials)
        running = [each for each in seen if shows_demand(each[1])]
        demands = [compute_thread_demand(task) for _, task in running]
        self._competing = count_competing(demands)
        if due:
            seen_parents = [each for each in seen if each[0] in parents]
            with self.lock:
                self._children.sample(self._iter_submitted(seen_parents), monotonic())
        self._children.schedule(monotonic(), computing=any(demand >= 0.5 for demand in demands))
        for future, task in running:
            submitted = self._backlog.submitted.get(future)
            key = submitted.key if submitted is not None else future.label
            computes = compute_thread_demand(task) >= CPU_BOUND_DEMAND
            if future in trials and not computes and not is_asleep(task, None if is_late else before.get(future)):
                continue
            if submitted is not None or self.router.get_cpu_demand(key) is not None:
                self.router.learn(key, measure_so_far(task), concurrent=self._competing, running=True)
        return demands

    def _iter_submitted(
        self, seen: Iterable[tuple[TaskFuture[Any], RunningTask]]
    ) -> Iterator[tuple[TaskFuture[Any], str, RunningTask]]:
        for future, task in seen:
            if (submitted := self._backlog.submitted.get(future)) is not None:
                yield future, submitted.key, task

    def _may_have_children(self, future: TaskFuture[Any], now: float) -> bool:
        submitted = self._backlog.submitted.get(future)
        return submitted is None or self._children.may_have_children(submitted.key, now)

    def _prepare_threads(self) -> None:
        """Add threads at once for queued functions that are known to wait."""
        if self._pools.sizes[THREADS] >= self._pools.bounds.most_threads and not self._children.parents:
            return
        with self.lock:
            demand = self._placement.get_queued_thread_demand()
        if demand is not None and self._pools.get(THREADS):
            self._size_threads(demand)

    def _size_threads(self, demand: float) -> None:
        """Resize to as many threads as tasks of `demand` cores keep busy, and submit tasks to new ones."""
        threads = self._pools.threads
        assert threads is not None
        in_pool = threads.busy + threads.queued
        with self.lock:
            before = self._pools.sizes[THREADS]
            size = self._pools.sizes[THREADS] = self._placement.choose_thread_count(demand, in_pool)
        if size < before:
            self._pools.apply_size(THREADS, "cpu_limit")
        elif size > before:
            self._submit_startable()  # first, so that each new thread finds a task when it starts
            self._pools.apply_size(THREADS, "demand")

    def release_surplus(self) -> None:
        """Release the threads that only waiting tasks needed."""
        self._pools.reset_threads()

    # Shutdown

    def close(self, *, cancel_futures: bool = False, refusal: str = SHUTDOWN_MESSAGE) -> None:
        with self.lock:
            if not self.closed:
                self.closed, self.refusal = True, refusal
            left = list(self._backlog.iter_queued()) if cancel_futures else []
            self._note_ended()
        for task in left:
            if task.future.cancel():  # False if `stop` has settled it, or if it was submitted to a pool
                task.future.notify_cancelled()
        self._submit_startable()  # drops the cancelled tasks; after an interrupt, the end of the next task does
        self._close_pools(cancel_futures=cancel_futures)

    def _close_pools(self, *, cancel_futures: bool = False) -> None:
        with self.lock:
            is_passed_on = self._backlog.is_passed_on
        if is_passed_on:
            for pool in self.pools():
                pool.shutdown(wait=False, cancel_futures=cancel_futures)

    def join(self) -> None:
        """Wait until all tasks have ended; call `close` first. A task that calls this does not wait for itself."""
        if any(pool.runs_caller() for pool in self.pools()):
            return
        with self.lock:
            self._backlog.end_cancelled()
            self._ended.wait_for(lambda: self._backlog.is_empty)
        for pool in self.pools():
            pool.shutdown(wait=True)
        self._monitor.join()
        if self._profiles_path is not None:
            save_profiles(self._profiles_path, self._iter_profiles())

    def _iter_profiles(self) -> Iterable[FunctionProfile]:
        for profile in self.router.build_profiles():
            yield replace(profile, children_demand=self._children.get(profile.function) or 0.0)

    def reset_after_fork(self) -> None:
        """Reset in a forked child: the pools and the file of profiles are the parent's."""
        self.lock = self._pools.lock = threading.RLock()
        self._ended, self.monitor_wakeup = threading.Condition(self.lock), threading.Condition(self.lock)
        self._profiles_path, self._is_choosing = None, False
        if (
            self.closed or self._pools.made or self._backlog.queued
        ):  # otherwise it has had no task, and becomes the child's
            self.closed, self.refusal = True, lifetime.AFTER_FORK_MESSAGE
        self._backlog.clear()


class Placement:
    """Decides where queued tasks run, whether they may start now, and how many threads they need.

    It changes nothing. The scheduler calls it under its lock.
    """

    def __init__(self, router: Router, backlog: Backlog, pools: Pools, children: ChildDemand) -> None:
        self._router = router
        self._backlog = backlog
        self._pools = pools
        self._children = children
        self._adapts = pools.bounds.strategy is Strategy.ADAPTIVE

    def choose_pool(self, key: str) -> PoolName:
        """Return the pool for a function's tasks. While other tasks compute in threads, an unknown function goes to
        processes: in a thread it would only wait for the GIL.
        """
        pool_name = self._router.choose(key)
        if not self._adapts:
            return pool_name
        if self._pools.lacks_processes:
            return THREADS
        if self._router.get_cpu_demand(key) is None:
            return PROCESSES if self._computes_in_threads() else pool_name
        if (
            pool_name == PROCESSES
            and self._backlog.counts[PROCESSES] >= self._pools.sizes[PROCESSES]
            and self._may_compute_in_thread()
        ):
            return THREADS
        if pool_name == THREADS and self._router.needs_trial(key) and not self._backlog.runs_in_process(key):
            return PROCESSES
        return pool_name

    def _may_compute_in_thread(self) -> bool:
        """Return whether one task may compute in a thread while no process has started yet: the GIL allows only one.

        It may not if a process is starting and will be ready within milliseconds: its start waits for the GIL a dozen
        times.
        """
        processes = self._pools.processes
        slow_start = processes is not None and not processes.live and not lifetime.FORK_SERVERS.warm
        return slow_start and not self._computes_in_threads()

    def _computes_in_threads(self) -> bool:
        return any(
            task.pool_name == THREADS and self._router.choose(task.key) == PROCESSES
            for task in tuple(self._backlog.submitted.values())
        )

    def is_full(self, pool_name: PoolName) -> bool:
        """Return whether a pool has a task for each worker. Then no unknown function starts, as all choose one pool."""
        return self._backlog.counts[pool_name] >= self._pools.sizes[pool_name]

    def may_start(self, key: str, pool_name: PoolName) -> bool:
        """Return whether the next task of a function may be submitted to this pool now."""
        if self._backlog.counts[pool_name] >= self._get_most_submitted(pool_name, key):
            return False
        return not self._adapts or (not self._has_trial(key) and self._has_cores_for(key))

    def _get_most_submitted(self, pool_name: PoolName, key: str) -> float:
        """Return up to how many tasks a pool may get, if the last one is of this function: one for each worker.

        Of short tasks more, so that a thread finds the next one without a decision.
        """
        queued = 0.0
        if pool_name == THREADS and key not in self._children.parents:
            queued = self._router.get_queue_length(key, alone=len(self._backlog.queued) == 1)
        return self._pools.sizes[pool_name] * (1 + queued)

    def _has_trial(self, key: str) -> bool:
        """Return whether a task of this unknown function is running, so that its other tasks wait for the measurement.

        One trial is enough, and limits the harm to other threads if the function holds the GIL.
        """
        if self._router.get_cpu_demand(key) is not None and not self._children.is_unmeasured(key):
            return False
        return self._backlog.runs(key)

    def _has_cores_for(self, key: str) -> bool:
        """Return whether the cores have room for the child processes of one more task."""
        demand = self._children.get(key) or 0.0
        return demand < WAITING_DEMAND or self._count_room(demand) > 0

    def _count_room(self, demand: float) -> int:
        """Return for how many more tasks whose child processes want `demand` cores there is room."""
        running = [task.key for task in tuple(self._backlog.submitted.values())]
        return self._children.build_core_budget(self._pools.bounds.cores, running).room(demand)

    def get_queued_thread_demand(self) -> float | None:
        """Return the mean CPU demand of the queued tasks of known functions in threads; None: there are none."""
        known = [(self._router.get_cpu_demand(key) or 0.0, tasks) for key, tasks in self._iter_known_in_threads()]
        count = sum(tasks for _, tasks in known)
        return sum(demand * tasks for demand, tasks in known) / count if count else None

    def choose_thread_count(self, demand: float, in_pool: int) -> int:
        """Return how many threads tasks of `demand` cores keep busy, but no more than there are tasks.

        `in_pool`: the tasks that the thread pool has. Only tasks with child processes take threads away.
        """
        before, submitted = self._pools.sizes[THREADS], self._backlog.counts[THREADS]
        startable = sum(self._count_startable(key, tasks) for key, tasks in self._iter_known_in_threads())
        startable += self._may_try_another()
        size = compute_thread_count(demand, max(in_pool, submitted) + startable, self._pools.bounds.most_threads)
        if size < before and not self._children.parents.isdisjoint(self._backlog.queued):
            return max(size, submitted, min(before, self._pools.bounds.get_initial(THREADS)))
        return max(size, before)

    def _iter_known_in_threads(self) -> Iterator[tuple[str, int]]:
        """Yield the known functions that belong in threads, and how many of their tasks are queued."""
        for key, tasks in tuple(self._backlog.queued.items()):
            if self._router.get_cpu_demand(key) is not None and self._router.choose(key) == THREADS:
                yield key, len(tasks)

    def _may_try_another(self) -> bool:
        """Return whether an unknown function may start beside the tasks in threads. These may wait without an end, even
        for its result. They must all be measured, with their child processes: so one is tried at a time.
        """
        in_threads = [task.key for task in tuple(self._backlog.submitted.values()) if task.pool_name == THREADS]
        if any(self._router.get_cpu_demand(key) is None or not self._children.is_known(key) for key in in_threads):
            return False
        if self._children.build_core_budget(self._pools.bounds.cores, in_threads).room(None) == 0:
            return False
        queued = tuple(self._backlog.queued.items())
        return any(tasks and self._router.get_cpu_demand(key) is None for key, tasks in queued)

    def _count_startable(self, key: str, tasks: int) -> int:
        """Return for how many of a function's queued tasks there is room on the cores."""
        if key not in self._children.parents:
            return tasks
        demand = self._children.get(key)
        return 0 if demand is None else min(tasks, self._count_room(demand))


def _submit_future(pool: ThreadPool | ProcessPool, task: QueuedTask, *, profiled: bool, sampled: bool = False) -> None:
    function: Any = task.function
    if isinstance(pool, ProcessPool):
        function = task.mapped or function
        pool.submit_future(task.future, function, task.arguments, task.keywords, profiled=profiled)
        return
    if task.mapped is not None and task.mapped.in_chunks:
        function = partial(run_chunk, function)
    pool.submit_future(task.future, function, task.arguments, task.keywords, profiled=profiled, sampled=sampled)


class Monitor:
    """A thread that samples running tasks while others are queued, at growing intervals, and then releases threads.

        no thread ──wake()──> sampling <──(tasks queued)── idle ──(10 s)──> no thread
                                 └──(none queued, none in threads)──^

    While tasks run in threads and none is queued, it samples a few times a second, since the CPU time and memory of
    child processes can be read only while they live.

    The scheduler calls it without any lock held; the scheduler's lock guards the state.
    """

    def __init__(self, scheduler: AdaptiveScheduler) -> None:
        self._scheduler = scheduler
        self._thread: threading.Thread | None = None
        self._has_begun = False  # whether this thread runs
        self._idle = False
        self._warned = False  # whether it has logged that the system refused a thread

    @property
    def is_sampling(self) -> bool:
        return self._thread is not None and not self._idle

    def wake(self) -> None:
        """Start sampling if tasks are queued or run in threads.

        The first task of a pool is not sampled as long as it is the only one: no other task needs the result, and a
        pool for a single call needs no second thread. It is if it is to be measured in full, with its child processes.
        """
        if self.is_sampling:
            return  # it looks for work, under the lock, before it becomes idle
        scheduler = self._scheduler
        with scheduler.lock:
            if scheduler.closed or not (scheduler.count_pending() or scheduler.runs_in_threads()):
                return
            if self._thread is not None:
                if self._idle:
                    scheduler.monitor_wakeup.notify_all()
                return
            if scheduler.runs_only_task():
                return
            thread = self._thread = threading.Thread(target=self._run, name="paropt-adaptive-monitor", daemon=True)
            self._has_begun = False
        try:
            scheduler.prepare_samples()
            self._start(thread)
        except BaseException:  # an interrupt; raised again
            with scheduler.lock:
                if not self._has_begun:
                    self._thread = None  # if it does start, it ends at once
            raise

    def _start(self, thread: threading.Thread) -> None:
        try:
            start_thread(thread)
        except RuntimeError as error:
            self._thread = None  # retried when the next task is submitted or ends
            if not self._warned:
                log.warning("the system starts no thread to sample running tasks", extra={"err": str(error)})
            self._warned = True

    def join(self) -> None:
        """Join the thread, which ends with its scheduler."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        scheduler, pause, last_busy = self._scheduler, self._get_next_pause(_FIRST_SAMPLE_SECONDS), monotonic()
        with scheduler.lock:
            if self._thread is not threading.current_thread():
                return
            self._has_begun = True
        while not scheduler.closed or scheduler.count_pending() or scheduler.runs_in_threads():
            with scheduler.lock:
                is_idle = not (scheduler.count_pending() or scheduler.runs_in_threads())
                left = _IDLE_SECONDS - (monotonic() - last_busy) if is_idle else pause
                if is_idle and left <= 0:
                    self._thread = None
                    break
                self._idle, planned = is_idle, monotonic() + left
                scheduler.monitor_wakeup.wait_for(self._must_wake, timeout=left)
                self._idle = False
            if not is_idle:
                last_busy = monotonic()
                scheduler.sample_running(is_late=last_busy > planned + _LATE_SECONDS)
                pause = self._get_next_pause(pause)
        if not scheduler.closed:
            scheduler.release_surplus()

    def _get_next_pause(self, pause: float) -> float:
        if not self._scheduler.count_pending():
            return min(pause * 1.5, _MAX_CHILD_SAMPLE_SECONDS)
        if self._scheduler.knows_backlog():
            return min(pause * 1.5, _MAX_SAMPLE_SECONDS)
        return _TRIAL_SAMPLE_SECONDS if self._scheduler.list_trials() else _FIRST_SAMPLE_SECONDS

    def _must_wake(self) -> bool:
        work = self._scheduler.count_pending() > 0 or self._scheduler.runs_in_threads()
        return (self._scheduler.closed and not work) or (self._idle and work)
