"""The state of an AdaptivePool: it chooses a pool for each queued task, and the sizes of the pools."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from types import FunctionType
from typing import Any, NamedTuple

from msgspec.structs import replace

from paropt_exporter import host
from paropt_exporter.cpu_demand import (
    CORE_SLACK,
    CROWDED_RATIO,
    NO_TIME,
    TIME_SLICE_SECONDS,
    WAITING_DEMAND,
    CoreBudget,
    CoreTime,
    cpu_demand,
)
from paropt_exporter.errors import UnpicklableError, describe
from paropt_exporter.events import Measurement, RunningTask, Strategy
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.adaptive.routing import (
    FunctionProfile,
    PoolName,
    Router,
    is_thread_only,
    load_profiles,
    save_profiles,
)
from paropt_exporter.executors.base import PROCESSES, THREADS
from paropt_exporter.executors.demand import FULL_LOCK_CORES, DemandMeter, Sample
from paropt_exporter.executors.future import TaskFuture, get_label, get_module
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.processes.executor import ProcessPool
from paropt_exporter.executors.threads.thread_pool import ThreadPool
from paropt_exporter.executors.worker import run_chunk
from paropt_exporter.executors.worker.payload import MappedFunction
from paropt_exporter.executors.worker.pickle_buffers import measure_large

log = PoolLogger(__name__)

_CHILD_SAMPLE_SECONDS = 0.2  # between two samples of child processes while threads compute
# A task that has no child process after this time, waits for a core not counted, is assumed to start none for as long
# again. Each such finding about its function doubles the time, since a function may start its process late.
_NO_CHILD_SECONDS = 0.02
_MAX_NO_CHILD_SECONDS = 1.0
MAX_WAITING_THREADS = 64  # threads that wait at once, unless the caller sets a bound
_SHUTDOWN_MESSAGE = "cannot schedule new futures after shutdown"
_MAX_CHILD_SAMPLE_SECONDS = 0.25  # between two samples of child processes while no task is queued
_FIRST_SAMPLE_SECONDS = 0.005  # after the first task is queued: long enough to measure a thread's CPU demand
_MAX_SAMPLE_SECONDS = 0.05
_PROCESSES_RETRY_SECONDS = 1.0
_IDLE_SECONDS = 10.0  # how long no task is queued before surplus threads are released


class QueuedTask(NamedTuple):
    """A task in the scheduler's backlog, which has not been submitted to a pool yet."""

    future: TaskFuture[Any]
    key: str  # of its function
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    profiled: bool = False  # whether to measure it in full, in any case
    mapped: MappedFunction | None = None  # the function of a map, for processes


class SubmittedTask(NamedTuple):
    """A task that was submitted to a pool: which one, the key of its function, and whether it is measured in full."""

    pool_name: PoolName
    key: str
    profiled: bool


class ThreadFallback(NamedTuple):
    """A CPU-bound function that can't be pickled: the reason, and how many of its tasks ran in threads."""

    function: str
    reason: str
    tasks: int


class AdaptiveScheduler:
    """The backlog of an AdaptivePool, with a monitor that samples running tasks.

        submit() ──> backlog, by function ──(free worker)──> threads | processes ──> done ──> next task
           │              ^                                    ^ │
           │              └── monitor: the CPU demand of running tasks moves functions and changes sizes
           └───(no decision needed: brief function, or a single pool)

    Guarantees:
      * A task that needs a decision is submitted to a pool only when the pool has a free worker, so that measurements
        of a function's first tasks apply to all queued ones. Only if these have shown that its tasks are short and stay
        in threads, and no other function's are queued, the thread pool gets more.
      * The tasks of a function start in the order of submission; SEQUENTIAL keeps the order across functions.
      * The monitor's thread ends when no task has been queued, or run in a thread, for 10 s.
    """

    def __init__(
        self,
        strategy: Strategy,
        max_workers: int | None,
        *,
        start: int | None,
        profiles_path: Path | None,
    ) -> None:
        self.router = Router(strategy)
        self.lock = threading.RLock()  # guards: everything below
        self.closed = False
        self.refusal = _SHUTDOWN_MESSAGE
        self._ended = threading.Condition(self.lock)  # a task has ended
        self.monitor_wakeup = threading.Condition(self.lock)
        self._strategy = strategy
        self._cores = host.count_cpu_workers()
        self._max_workers = max_workers
        self._start = start or self._cores
        self._backlog: OrderedDict[str, deque[QueuedTask]] = OrderedDict()
        self._submitted_counts: dict[PoolName, int] = {THREADS: 0, PROCESSES: 0}
        self._submitted: dict[TaskFuture[Any], SubmittedTask] = {}
        self._has_ended_tasks = False
        self._fallbacks: dict[str, ThreadFallback] = {}  # by function
        # The tasks that threads are submitting to a pool now, with the thread's identifier and their keys in the
        # backlog.
        self._in_transit: dict[TaskFuture[Any], tuple[int, str, QueuedTask]] = {}
        self._children = DemandMeter()  # CPU demand of the child processes of tasks in threads, by function
        # Functions whose sampled tasks had no child processes: for how long they are assumed to start none, until when.
        self._childless: dict[str, tuple[float, float]] = {}
        self._next_child_sample = 0.0  # when to sample child processes next
        self._parents: set[str] = set()  # functions whose sampled tasks had child processes
        self._competing = 1  # how many threads competed for the GIL at the last sample
        self._pools: dict[PoolName, ThreadPool | ProcessPool] = {}
        self._retry_processes_seconds = 0.0  # when to retry making a process pool that the system has refused
        self._sizes: dict[PoolName, int] = {
            pool_name: self._get_initial_size(pool_name) for pool_name in (THREADS, PROCESSES)
        }
        self._monitor = Monitor(self)
        self._profiles_path = profiles_path
        if profiles_path is not None:
            known = load_profiles(profiles_path)
            self.router.load_profiles(known)
            parents = {profile.function: profile.children_demand for profile in known if profile.children_demand}
            self._children, self._parents = DemandMeter(parents), set(parents)
        lifetime.register(self, schedules=True)

    # Sizes

    def _get_initial_size(self, pool_name: PoolName) -> int:
        if self._strategy is Strategy.SEQUENTIAL:
            return 1
        if pool_name == PROCESSES:
            processes = self._max_workers or self._cores
            return min(processes, self._cores) if self._strategy is Strategy.ADAPTIVE else processes
        if self._strategy is Strategy.ADAPTIVE:
            return min(self._max_workers or self._start, self._start)
        return self._max_workers or min(32, self._cores + 4)

    @property
    def _most_threads(self) -> int:
        """The most threads of an ADAPTIVE pool."""
        return self._max_workers or MAX_WAITING_THREADS

    @property
    def max_workers(self) -> int:
        """The most tasks that run at once."""
        if self._strategy is Strategy.ADAPTIVE:
            return self._most_threads
        return self._get_initial_size(PROCESSES if self._strategy is Strategy.PROCESS else THREADS)

    def resize(self, n: int, reason: str) -> None:
        with self.lock:
            self._max_workers = n
            self._sizes = {pool_name: self._get_initial_size(pool_name) for pool_name in self._sizes}
            sizes = [(pool, self._sizes[pool_name]) for pool_name, pool in self._pools.items()]
        for pool, size in sizes:
            pool.resize(size, reason=reason)
        self.dispatch()

    def get_pool(self, pool_name: PoolName) -> ThreadPool | ProcessPool:
        """Return a pool, which is made on its first use.

        The pool is made without the lock: a new thread may collect garbage whose finalizer submits a task here, while
        the thread that started it waits. If two threads make a pool at once, one of the two is shut down again.
        """
        with self.lock:
            pool, size = self._pools.get(pool_name), self._sizes[pool_name]
        if pool is not None:
            return pool
        made = ThreadPool(size) if pool_name == THREADS else self._make_process_pool(size)
        with self.lock:
            pool, wanted = self._pools.setdefault(pool_name, made), self._sizes[pool_name]
        if pool is not made:
            made.shutdown(wait=False)
        elif wanted != size:  # the size changed meanwhile
            pool.resize(wanted, reason="caller")
        return pool

    def _make_process_pool(self, size: int) -> ProcessPool:
        pool = ProcessPool(size)
        if self._strategy is not Strategy.PROCESS:
            pool.observe_unsendable(self._keep_in_threads)
        return pool

    def pools(self) -> tuple[ThreadPool | ProcessPool, ...]:
        with self.lock:
            return tuple(self._pools.values())

    # Work

    def submit(self, task: QueuedTask) -> None:
        if not self._submit_directly(task):
            self._enqueue(task)

    def _submit_directly(self, task: QueuedTask) -> bool:
        """Submit a task to its pool if no decision is needed; return False if one is, or if it can't be pickled."""
        pool_name = self._choose_direct_pool(task)
        if pool_name is None:
            return False
        pool = self._pools.get(pool_name) or self.get_pool(pool_name)
        try:
            _submit_future(pool, task, profiled=task.profiled)
        except UnpicklableError:
            return False
        if isinstance(pool, ThreadPool) and pool.queued > self._sizes[THREADS] and not self._monitor.is_sampling:
            self._wake_monitor()
        return True

    def _choose_direct_pool(self, task: QueuedTask) -> PoolName | None:
        if self.closed or self._strategy is Strategy.SEQUENTIAL:
            return None
        if self._strategy is Strategy.THREAD:
            return THREADS
        if self._strategy is Strategy.PROCESS:
            # Tasks with large arguments are not pickled until a worker is free, and later tasks stay behind them.
            return None if self._backlog or measure_large((*task.arguments, *task.keywords.values())) else PROCESSES
        return THREADS if not task.profiled and self.router.needs_no_decision(task.key) else None

    def _enqueue(self, task: QueuedTask) -> None:
        # First: if an interrupt comes now, the task never runs, and its end is noted later.
        task.future.add_done_callback(self._on_task_done)
        with self.lock:
            if self.closed:
                raise RuntimeError(self.refusal)
            if is_thread_only(task.function):
                self.router.pin_to_threads(task.key, "it is marked thread_only")
            self._backlog.setdefault("" if self._strategy is Strategy.SEQUENTIAL else task.key, deque()).append(task)
        if self._strategy is Strategy.ADAPTIVE and self.router.get_cpu_demand(task.key) is not None:
            self._prepare_threads()
        self.dispatch()

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
            self._take_back()
            try:
                self._submit_all_startable()
            except BaseException as error:  # noqa: BLE001 -- no interrupt: pickling the task, code of the user, raised it
                self._fail_in_transit(error)
            raise
        if self.closed:
            self._close_pools()

    def _submit_all_startable(self) -> None:
        while (found := self._pop_startable()) is not None:
            pool_name, task = found
            try:
                self._submit_to(pool_name, task)
            except (RuntimeError, OSError) as error:  # the pool has failed, or the system starts no thread
                self._fail_task(task, error)
            with self.lock:
                self._in_transit.pop(task.future, None)

    def _take_back(self) -> None:
        """After an interrupt of the calling thread, put the tasks that it was submitting back into the backlog.

        A pool may have received one before the interrupt, and then receives it twice. It runs once: its future, which
        has a condition because of its callback, refuses the second claim.
        """
        with self.lock:
            for key, task in self._pop_in_transit():
                self._submitted.pop(task.future, None)
                tasks = self._backlog.setdefault(key, deque())
                if not any(task is other for other in tasks):
                    tasks.appendleft(task)
            self._submitted_counts = {THREADS: 0, PROCESSES: 0}
            for submitted in self._submitted.values():
                self._submitted_counts[submitted.pool_name] += 1

    def _fail_in_transit(self, error: BaseException) -> None:
        with self.lock:
            failed = self._pop_in_transit()
        for _, task in failed:
            self._fail_task(task, error)

    def _pop_in_transit(self) -> list[tuple[str, QueuedTask]]:
        """Return the tasks that the calling thread is submitting, and their keys; under the lock."""
        me = threading.get_ident()
        mine = [(key, task) for thread, key, task in self._in_transit.values() if thread == me]
        for _, task in mine:
            del self._in_transit[task.future]
        return mine

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
        submitted = self._submitted.get(task.future)  # None: it was stopped meanwhile
        profiled = task.profiled or submitted is None or submitted.profiled
        # Samples of a function's first task decide about the others: they need its wait for a core from its start on.
        sampled = self.router.get_cpu_demand(task.key) is None and not self.runs_only_task()
        _submit_future(self._get_pool_for(task, pool_name), task, profiled=profiled, sampled=sampled)

    def _get_pool_for(self, task: QueuedTask, pool_name: PoolName) -> ThreadPool | ProcessPool:
        """Return a pool; the thread pool if the system has no threads left for a process pool."""
        threads = self._pools.get(THREADS)
        if threads is None or pool_name == THREADS:
            return self.get_pool(pool_name)
        if PROCESSES in self._pools or (lifetime.starts_threads() and monotonic() >= self._retry_processes_seconds):
            try:
                return self.get_pool(pool_name)
            except (RuntimeError, OSError) as error:
                log.warning("no process pool: its tasks run in threads for now", extra={"err": str(error)})
                self._retry_processes_seconds = monotonic() + _PROCESSES_RETRY_SECONDS
        with self.lock:
            self._move_to_threads(task.future)
        return threads

    def _move_to_threads(self, future: TaskFuture[Any]) -> None:
        """Count a task of the process pool as a task of the thread pool, unless it was stopped; under the lock."""
        if future in self._submitted:
            self._submitted[future] = self._submitted[future]._replace(pool_name=THREADS)
            self._submitted_counts[PROCESSES] -= 1
            self._submitted_counts[THREADS] += 1

    def _pop_startable(self) -> tuple[PoolName, QueuedTask] | None:
        with self.lock:
            for key, tasks in list(self._backlog.items()):
                if tasks and tasks[0].future.done():
                    self._drop_done(tasks)
                if not tasks:
                    del self._backlog[key]
                    continue
                pool_name = self._choose_pool(key)
                if (
                    self._submitted_counts[pool_name] < self._get_most_submitted(pool_name, key)
                    and not self._has_trial(key)
                    and self._has_cores_for(key)
                ):
                    task = tasks[0]
                    self._in_transit[task.future] = threading.get_ident(), key, task  # first: see `_take_back`
                    tasks.popleft()
                    self._submitted_counts[pool_name] += 1
                    # Its profile is saved, for a program that may run each function once.
                    first = self._profiles_path is not None
                    profiled = self.router.choose_to_measure(task.key, first=first)
                    profiled = profiled or task.profiled or pool_name == PROCESSES
                    self._submitted[task.future] = SubmittedTask(pool_name, task.key, profiled)
                    self._backlog.move_to_end(key)  # the next function's turn
                    return pool_name, task
            return None

    def _get_most_submitted(self, pool_name: PoolName, key: str) -> float:
        """Return up to how many tasks a pool may get, if the last one is of this function: one for each worker.

        Of short tasks more, so that a thread finds the next one without a decision.
        """
        queued = 0.0
        if pool_name == THREADS and key not in self._parents:
            queued = self.router.get_queue_length(key, alone=len(self._backlog) == 1)
        return self._sizes[pool_name] * (1 + queued)

    def _drop_done(self, tasks: deque[QueuedTask]) -> None:
        """Drop cancelled and stopped tasks from the start of a queue; under the lock."""
        while tasks and tasks[0].future.done():
            # Refuses a cancelled task, and notifies waiting threads of the cancellation.
            tasks.popleft().future.start_running(monotonic())
        self._note_ended()

    def _choose_pool(self, key: str) -> PoolName:
        """Return the pool for a function's tasks. While other tasks compute in threads, an unknown function goes to
        processes: in a thread it would only wait for the GIL.
        """
        pool_name = self.router.choose(key)
        if self._strategy is not Strategy.ADAPTIVE:
            return pool_name
        if monotonic() < self._retry_processes_seconds:
            return THREADS
        if self.router.get_cpu_demand(key) is None:
            return PROCESSES if self._computes_in_threads() else pool_name
        if (
            pool_name == PROCESSES
            and self._submitted_counts[PROCESSES] >= self._sizes[PROCESSES]
            and self._may_compute_in_thread()
        ):
            return THREADS
        if pool_name == THREADS and self.router.needs_trial(key) and not self._runs_in_process(key):
            return PROCESSES
        return pool_name

    def _may_compute_in_thread(self) -> bool:
        """Return whether one task may compute in a thread while no process has started yet: the GIL allows only one.

        It may not if a process is starting and will be ready within milliseconds: its start waits for the GIL a dozen
        times.
        """
        processes = self._pools.get(PROCESSES)
        slow_start = processes is not None and not processes.live and not lifetime.FORK_SERVERS.warm
        return slow_start and not self._computes_in_threads()

    def _runs_in_process(self, key: str) -> bool:
        return any(task.pool_name == PROCESSES and task.key == key for task in self._submitted.values())

    def _computes_in_threads(self) -> bool:
        return any(
            task.pool_name == THREADS and self.router.choose(task.key) == PROCESSES for task in self._submitted.values()
        )

    def _has_trial(self, key: str) -> bool:
        """Return whether a task of this unknown function is running, so that its other tasks wait for the measurement.

        One trial is enough, and limits the harm to other threads if the function holds the GIL.
        """
        if self._strategy is not Strategy.ADAPTIVE:
            return False
        unmeasured = key in self._parents and self._children.get_group_demand(key) is None
        if self.router.get_cpu_demand(key) is not None and not unmeasured:
            return False
        return any(task.key == key for task in self._submitted.values())

    def _has_cores_for(self, key: str) -> bool:
        """Return whether the cores have room for the child processes of one more task."""
        demand = self._children.get_group_demand(key) or 0.0
        if self._strategy is not Strategy.ADAPTIVE or demand < WAITING_DEMAND:
            return True
        return self._build_core_budget().room(demand) > 0

    def _build_core_budget(self) -> CoreBudget:
        """Return the core budget less the demand of running tasks' child processes; under the lock."""
        budget = CoreBudget(float(self._cores))
        for task in self._submitted.values():
            budget.take(self._children.get_group_demand(task.key) or 0.0)
        return budget

    def _count_startable(self, key: str, tasks: int) -> int:
        """Return for how many of a function's queued tasks there is room on the cores; under the lock."""
        if key not in self._parents:
            return tasks
        demand = self._children.get_group_demand(key)
        return 0 if demand is None else min(tasks, self._build_core_budget().room(demand))

    def _fail_task(self, task: QueuedTask, error: BaseException) -> None:
        """Settle a task that its pool has refused."""
        with self.lock:
            submitted = self._submitted.pop(task.future, None)
            if submitted is not None:  # otherwise it was stopped meanwhile
                self._submitted_counts[submitted.pool_name] -= 1
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
            self._move_to_threads(task.future)
        if unknown:
            log.info("a function stays in threads", extra=facts)
        elif self._add_fallback(key, error):
            # The message has name and reason, since scripts that configure no logging see only the message.
            reason = describe(error.__cause__ or error)
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
            submitted = self._submitted.pop(future, None)
            if submitted is None:
                return  # cancelled or stopped before it was submitted to a pool
            self._has_ended_tasks = True
            self._submitted_counts[submitted.pool_name] -= 1
            has_queue = self._submitted_counts[submitted.pool_name] > self._sizes[submitted.pool_name]
            concurrent = self._competing if submitted.pool_name == THREADS else 1
            self._note_ended()
        if not submitted.profiled:  # then a measurement would lack the wait for a core
            if (started := future.started_seconds) is not None:
                self.router.learn_duration(submitted.key, monotonic() - started)
        elif (measurement := future.measurement) is not None:
            self.router.learn(submitted.key, measurement, concurrent=concurrent)
        if not has_queue:
            self.dispatch()

    def _note_ended(self) -> None:
        """Wake threads that wait for the last task, and the monitor, which may end then; under the lock."""
        self._ended.notify_all()
        if self.closed:  # only then: otherwise each short task would cost two switches of threads
            self.monitor_wakeup.notify_all()

    def _keep_in_threads(self, future: TaskFuture[Any], error: UnpicklableError) -> None:
        """From now on, run a function whose result can't be sent back in threads. The failed task must not run again.

        Called before the task's future settles: the next task may be submitted by a thread that waits for it.
        """
        with self.lock:
            submitted = self._submitted.get(future)
        if submitted is None:
            return  # stopped
        key = submitted.key
        self.router.pin_to_threads(key, f"its results can't be pickled in a process: {error}")
        if self._add_fallback(key, error):
            facts = {"function": key, "err": str(error)}
            log.warning("results of %s can't be sent back, so it runs in threads now: %s", key, error, extra=facts)

    def stop(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool:
        # A task that is neither in the backlog nor in `_submitted` was submitted directly, or has ended.
        direct = PROCESSES if self._strategy is Strategy.PROCESS else THREADS
        with self.lock:
            queued = any(task.future is future for tasks in self._backlog.values() for task in tasks)
            submitted = self._submitted.get(future)
            pool = None if queued else self._pools.get(direct if submitted is None else submitted.pool_name)
            failed = pool is None and future.mark_failed(error)  # under the lock, so that no pool gets it meanwhile
        if pool is not None:
            return pool.stop(future, error, grace_seconds=grace_seconds)
        if failed:
            future.notify_waiters()
        self.dispatch()
        return failed

    def count_pending(self) -> int:
        """Return how many tasks are queued, here or in the thread pool."""
        threads = self._pools.get(THREADS)
        return self.count_backlog() + (threads.queued if isinstance(threads, ThreadPool) else 0)

    def runs_in_threads(self) -> bool:
        """Return whether tasks run in threads; the monitor measures their child processes while these live."""
        return self._strategy is Strategy.ADAPTIVE and self._submitted_counts[THREADS] > 0

    def runs_only_task(self) -> bool:
        """Return whether the pool's first task runs, alone, and its measurement is not needed."""
        if len(self._submitted) != 1 or self._has_ended_tasks or self._profiles_path is not None:
            return False
        return not any(task.profiled for task in tuple(self._submitted.values())) and not self.count_pending()

    def count_backlog(self) -> int:
        with self.lock:
            return sum(map(len, self._backlog.values()))

    # Called by the monitor

    def knows_backlog(self) -> bool:
        with self.lock:
            return all(self.router.get_cpu_demand(key) is not None for key, tasks in self._backlog.items() if tasks)

    def prepare_samples(self) -> None:
        """Read the waits for a core of the running tasks now: the monitor's thread may start late on a busy machine."""
        threads = self._pools.get(THREADS)
        if isinstance(threads, ThreadPool):
            threads.sample_running(children=lambda _: False)

    def sample_running(self) -> None:
        """Learn from running tasks, so that a function that waits is recognized before its first task ends."""
        threads = self._pools.get(THREADS)
        if isinstance(threads, ThreadPool):
            began, parents = monotonic(), set[TaskFuture[Any]]()

            def has_children(future: TaskFuture[Any]) -> bool:
                """Return whether to sample a task's child processes now, and note it if so."""
                if began < self._next_child_sample or not self._may_have_children(future, began):
                    return False
                parents.add(future)
                return True

            seen = threads.sample_running(children=has_children, youngest_seconds=_FIRST_SAMPLE_SECONDS / 2)
            running = [each for each in seen if _shows_demand(each[1])]
            demands = [get_cpu_demand(task) for _, task in running]
            self._competing = count_competing(demands)
            if began >= self._next_child_sample:
                self._learn_children([each for each in seen if each[0] in parents])
            # While a thread computes, each read waits for the interpreter's lock.
            self._next_child_sample = monotonic() + (
                _CHILD_SAMPLE_SECONDS if any(demand >= 0.5 for demand in demands) else 0.0
            )
            for future, task in running:
                submitted = self._submitted.get(future)
                key = submitted.key if submitted is not None else future.label
                if submitted is not None or self.router.get_cpu_demand(key) is not None:
                    self.router.learn(key, measure_so_far(task), concurrent=self._competing, running=True)
            if demands:
                self._size_threads(sum(demands) / len(demands))
            else:  # tasks that end before a sample shows anything
                self._prepare_threads()
        self.dispatch()

    def _learn_children(self, sampled: Iterable[tuple[TaskFuture[Any], RunningTask]]) -> None:
        """Learn from tasks whose child processes were sampled just now. The others' may exist all the same: those of
        threads that compute, or wait for a core, are not sampled.
        """
        now, found = monotonic(), dict[Hashable, tuple[str, Sample]]()
        with self.lock:
            for future, task in sampled:
                if (submitted := self._submitted.get(future)) is None:
                    continue
                key, below = submitted.key, get_children_time(task)
                found[future] = key, Sample(now, below)
                if below != NO_TIME:
                    self._parents.add(key)
                elif key not in self._parents and get_age_seconds(task) - task.run_delay_seconds >= _NO_CHILD_SECONDS:
                    self._note_childless(key, now)
            self._children.sample(found, now)

    def _note_childless(self, key: str, now: float) -> None:
        seconds, until = self._childless.get(key, (_NO_CHILD_SECONDS / 2, 0.0))
        if now >= until:  # once for all tasks of a sample
            seconds = min(2 * seconds, _MAX_NO_CHILD_SECONDS)
            self._childless[key] = seconds, now + seconds

    def _may_have_children(self, future: TaskFuture[Any], now: float) -> bool:
        submitted = self._submitted.get(future)
        if submitted is None or submitted.key in self._parents:
            return True
        _, until = self._childless.get(submitted.key, (0.0, 0.0))
        return now >= until

    def _prepare_threads(self) -> None:
        """Add threads at once for queued functions that are known to wait."""
        if self._sizes[THREADS] >= self._most_threads and not self._parents:
            return
        with self.lock:
            known = [
                (demand, len(tasks))
                for key, tasks in self._backlog.items()
                if (demand := self.router.get_cpu_demand(key)) is not None and self.router.choose(key) == THREADS
            ]
        count = sum(number for _, number in known)
        if count and self.get_pool(THREADS):
            self._size_threads(sum(demand * number for demand, number in known) / count)

    def _size_threads(self, demand: float) -> None:
        """Resize to as many threads as use one core with tasks of `demand` cores, but no more than there are tasks."""
        threads, bound = self._pools[THREADS], self._most_threads
        in_pool = threads.busy + (threads.queued if isinstance(threads, ThreadPool) else 0)
        with self.lock:
            startable = sum(
                self._count_startable(key, len(tasks))
                for key, tasks in self._backlog.items()
                if self.router.get_cpu_demand(key) is not None and self.router.choose(key) == THREADS
            )
            wanted = max(in_pool, self._submitted_counts[THREADS]) + startable
            # Threads share one core because of the GIL: more threads than use it up don't help.
            size = min(bound, wanted, int(1 / max(demand, 1 / bound) + CORE_SLACK))
            room = self._sizes[THREADS]
            if size < room and self._parents.intersection(self._backlog):
                size = max(size, self._submitted_counts[THREADS], min(room, self._get_initial_size(THREADS)))
            elif size <= room:
                return
            self._sizes[THREADS] = size
        if size < room:
            threads.resize(size, reason="cpu_limit")
            return
        self._submit_startable()  # first, so that each new thread finds a task when it starts
        threads.resize(size, reason="demand")

    def release_surplus(self) -> None:
        """Release the threads that only waiting tasks needed."""
        with self.lock:
            size = self._sizes[THREADS] = self._get_initial_size(THREADS)
            threads = self._pools.get(THREADS)
        if threads is not None and threads.target > size:
            threads.resize(size, reason="demand")

    # Shutdown

    def close(self, *, cancel_futures: bool = False, refusal: str = _SHUTDOWN_MESSAGE) -> None:
        with self.lock:
            if not self.closed:
                self.closed, self.refusal = True, refusal
            left = [task for tasks in self._backlog.values() for task in tasks] if cancel_futures else []
            self._note_ended()
        for task in left:
            if task.future.cancel():  # False if `stop` has settled it, or if it was submitted to a pool
                task.future.start_running(monotonic())  # tells waiting threads of the cancellation
        self._submit_startable()  # drops the cancelled tasks; after an interrupt, the end of the next task does
        self._close_pools(cancel_futures=cancel_futures)

    def _close_pools(self, *, cancel_futures: bool = False) -> None:
        with self.lock:
            all_submitted = not any(self._backlog.values()) and not self._in_transit
        if all_submitted:
            for pool in self.pools():
                pool.shutdown(wait=False, cancel_futures=cancel_futures)

    def join(self) -> None:
        """Wait until all tasks have ended. If a task calls this, don't wait, since it would wait for itself."""
        if any(pool.runs_caller() for pool in self.pools()):
            return
        with self.lock:
            self._ended.wait_for(lambda: not self.count_backlog() and not self._submitted)
        for pool in self.pools():
            pool.shutdown(wait=True)
        self._monitor.join()
        if self._profiles_path is not None:
            save_profiles(self._profiles_path, self._iter_profiles())

    def _iter_profiles(self) -> Iterable[FunctionProfile]:
        for profile in self.router.build_profiles():
            yield replace(profile, children_demand=self._children.get_group_demand(profile.function) or 0.0)

    def reset_after_fork(self) -> None:
        """Reset in a forked child: the pools and the file of profiles are the parent's."""
        self.lock = threading.RLock()
        self._ended, self.monitor_wakeup = threading.Condition(self.lock), threading.Condition(self.lock)
        self._profiles_path = None
        if self.closed or self._pools or self._backlog:  # otherwise it has had no task, and becomes the child's
            self.closed, self.refusal = True, lifetime.AFTER_FORK_MESSAGE
        self._backlog, self._submitted, self._in_transit = OrderedDict(), {}, {}


def _submit_future(pool: ThreadPool | ProcessPool, task: QueuedTask, *, profiled: bool, sampled: bool = False) -> None:
    function: Any = task.function
    if isinstance(pool, ProcessPool):
        function = task.mapped or function
        pool.submit_future(task.future, function, task.arguments, task.keywords, profiled=profiled)
        return
    if task.mapped is not None and task.mapped.in_chunks:
        function = partial(run_chunk, function)
    pool.submit_future(task.future, function, task.arguments, task.keywords, profiled=profiled, sampled=sampled)


def get_function_key(function: Callable[..., Any]) -> str:
    if type(function) is FunctionType:  # as the general case, in half of the time
        return f"{function.__module__}.{function.__qualname__}"
    return f"{get_module(function)}.{get_label(function)}"


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
        try:
            scheduler.prepare_samples()
        except BaseException:  # an interrupt; raised again
            self._thread = None
            raise
        try:
            thread.start()
        except RuntimeError as error:
            if not self._warned:
                log.warning("the system starts no thread to sample running tasks", extra={"err": str(error)})
            self._thread, self._warned = None, True  # retried when the next task is submitted or ends

    def join(self) -> None:
        """Join the thread, which ends with its scheduler."""
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        scheduler, pause, last_busy = self._scheduler, _FIRST_SAMPLE_SECONDS, monotonic()
        while not scheduler.closed or scheduler.count_pending() or scheduler.runs_in_threads():
            with scheduler.lock:
                is_idle = not (scheduler.count_pending() or scheduler.runs_in_threads())
                left = _IDLE_SECONDS - (monotonic() - last_busy) if is_idle else pause
                if is_idle and left <= 0:
                    self._thread = None
                    break
                self._idle = is_idle
                scheduler.monitor_wakeup.wait_for(self._must_wake, timeout=left)
                self._idle = False
            if not is_idle:
                last_busy = monotonic()
                scheduler.sample_running()
                pause = self._get_next_pause(pause)
        if not scheduler.closed:
            scheduler.release_surplus()

    def _get_next_pause(self, pause: float) -> float:
        if not self._scheduler.count_pending():
            return min(pause * 1.5, _MAX_CHILD_SAMPLE_SECONDS)
        return min(pause * 1.5, _MAX_SAMPLE_SECONDS) if self._scheduler.knows_backlog() else _FIRST_SAMPLE_SECONDS

    def _must_wake(self) -> bool:
        work = self._scheduler.count_pending() > 0 or self._scheduler.runs_in_threads()
        return (self._scheduler.closed and not work) or (self._idle and work)


def get_age_seconds(task: RunningTask) -> float:
    """Return a task's age in seconds when it was sampled."""
    return max(1e-6, _get_sampled_seconds(task) - task.started_seconds)


def _shows_demand(task: RunningTask) -> bool:
    """Return whether a task has run or slept for long enough. One that has only waited for a core shows nothing yet."""
    age, wait = get_age_seconds(task), task.run_delay_seconds
    only_waited = task.thread_run_seconds < TIME_SLICE_SECONDS and wait > CROWDED_RATIO * age
    return age - wait >= _FIRST_SAMPLE_SECONDS / 2 and not only_waited


def _get_sampled_seconds(task: RunningTask) -> float:
    return monotonic() if task.sampled_seconds is None else task.sampled_seconds


def count_competing(demands: Sequence[float]) -> int:
    """Return how many running tasks compete for the GIL: 1 unless they saturate it."""
    total = sum(demands)
    return sum(demand >= total / len(demands) / 2 for demand in demands) if total >= FULL_LOCK_CORES else 1


def get_cpu_demand(task: RunningTask) -> float:
    """Return the CPU demand of a task's own thread so far, at most 1 core."""
    time = CoreTime(task.thread_run_seconds, task.run_delay_seconds)
    return min(1.0, cpu_demand(time, max(get_age_seconds(task), 1e-3)))


def get_children_time(task: RunningTask) -> CoreTime:
    """Return the core time of a task's child processes."""
    return task.core_time.since(CoreTime(task.thread_run_seconds, task.run_delay_seconds))


def measure_so_far(task: RunningTask) -> Measurement:
    return Measurement(
        worker=task.worker,
        pid=os.getpid(),
        started_seconds=task.started_seconds,
        ended_seconds=_get_sampled_seconds(task),
        cpu_seconds=task.thread_run_seconds,
        run_delay_seconds=task.run_delay_seconds,
    )
