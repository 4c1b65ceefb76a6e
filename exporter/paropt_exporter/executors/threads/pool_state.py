"""The state of a ThreadPool: its work queue, its worker threads, their measurements and its counters."""

from __future__ import annotations

import _thread
import contextlib
import os
import resource
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, thread_time
from typing import Any, NamedTuple, NoReturn, Protocol

from paropt_exporter.cpu_demand import NO_SWITCHES, CoreTime, Switches
from paropt_exporter.errors import describe, drop_first_frame, renew
from paropt_exporter.events import PoolStatistics, RunningTask
from paropt_exporter.executors import lifetime, procfs
from paropt_exporter.executors.base import check_size
from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import PoolCounters, PoolSnapshot, WorkerCounters, WorkerTime
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.thread_group import ThreadGroup

log = PoolLogger(__name__)

MAX_WORKERS = 4096  # a request for more threads in one process is most likely a typing error
_INITIALIZER_ATTEMPTS = 3
_RETRY_SECONDS = 0.1  # doubled after each attempt
# Idle workers that close() wakes; each of them wakes another. All at once would compete for the interpreter's lock.
_WOKEN_AT_END = 4
_SHUTDOWN_MESSAGE = "cannot schedule new futures after shutdown"
# How a task is measured: if it takes a millisecond; with its wait for a core in samples; in full.
NO_PROFILE, SAMPLES, FULL_PROFILE = range(3)
# future, function, arguments, keywords, how it is measured, when it was submitted
WorkItem = tuple[TaskFuture[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any], int, float]

# Two reads of a thread's CPU clock cost as much as a short task's whole round trip (1.2 µs). Shorter tasks are not
# measured one by one; the pool's totals, which other threads read, miss nothing.
MIN_MEASURED_SECONDS = 0.001
CHILD_SAMPLING_SECONDS = 0.003  # for sampling all child processes; if it takes longer, a thread computes meanwhile
_SHORT_LIFE_SECONDS = 0.01  # the run delay of a thread that lived no longer is not worth a read, which takes 0.1 ms
_COMPUTING_CORES = 0.9  # a task that got so much of a core has waited little
_BUSY_DELAY_RATIO = 0.05  # a thread that waited for a core for a smaller part of its time was hardly ever preempted


class ThreadPoolState:
    """Work queue, workers and size of one pool. It outlives the ThreadPool until its last worker exits.

        submit() ──> work_queue ──> busy ──(queue empty)──> idle ──(wake)──> busy <──(start)── parked
                                     │ size reduced, closed   │                                   │
                                     └──────> exited <────────┴───────────────────────────────────┘

    A parked worker is idle without a thread: its thread starts when a task finds no other idle worker. A pool with an
    initializer parks no workers, nor does a pool that has queued tasks when it adds a worker.

    Guarantees:
      * An accepted task is run, cancelled or stopped exactly once.
      * A queued task and an idle worker never miss each other: submit() appends and then reads `needs_wake`; a worker
        sets `needs_wake` and then reads the queue. The lock is for idling, waking and resizing, not for tasks.
      * At most one woken or started worker is on its way; it wakes or starts the next one if two tasks are queued. A
        burst of short tasks wakes few workers, so that few threads compete for the interpreter's lock.
      * The lock is reentrant, and a worker reads the queue once more after it has become idle: a garbage collection
        or a signal handler may submit or close in the middle of each of these methods. An interrupt (Ctrl-C) in the
        middle of submit() or close() loses no worker.
    """

    def __init__(
        self, name: str, prefix: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
    ) -> None:
        self.counters = PoolCounters(name)
        self.work_queue: deque[WorkItem | SharedWorkItem] = deque()
        self.lock = threading.RLock()  # guards: everything below
        self.target = 0
        self.closed = False
        self.needs_wake = False  # whether submit() must call wake()
        self.must_check_exit = False  # whether a worker must check after its task whether to exit
        self._refusal: Exception = RuntimeError(_SHUTDOWN_MESSAGE)
        self._workers: list[Worker] = []
        self._idle: dict[Worker, None] = {}  # a set in the order in which they became idle
        self._parked: deque[Worker] = deque()
        self._wake_pending = False  # whether a woken worker is on its way
        self._threads = ThreadGroup()
        self._abandoned: list[tuple[Worker, str]] = []
        self._created = 0
        self._prefix = prefix
        self._initializer = initializer
        self._initargs = initargs
        lifetime.register(self)

    def submit(
        self,
        future: TaskFuture[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        profile: int = NO_PROFILE,
    ) -> None:
        """Queue a task whose future another object has returned, to be measured as `profile` says."""
        if self.closed:
            self.refuse()
        task = (future, fn, args, kwargs, profile, monotonic())
        self.work_queue.append(task)
        if self.needs_wake:
            self.wake(task)

    # Size

    def resize(self, n: int, reason: str) -> None:
        n = check_size(n, MAX_WORKERS, "threads")
        with self.lock:
            self.counters.count_resize(self.target, n, reason)
            self.target = n
            self._wake_surplus()
            self._update_must_check_exit()
        self._start_missing()

    def _wake_surplus(self) -> None:
        """Remove surplus workers that are parked, and wake idle ones, which exit; under the lock."""
        while self._parked and len(self._workers) > self.target:
            self._remove_worker(self._parked.pop())
        for _ in range(len(self._workers) - self.target):
            self._wake_idle()

    def _wake_idle(self) -> None:
        """Wake the last worker that became idle, if there is one; under the lock."""
        while True:
            try:
                worker = next(reversed(self._idle), None)
                break
            except RuntimeError:  # a garbage collection or a signal handler has changed it meanwhile
                continue
        if worker is not None:
            worker.wake()  # first: after an interrupt here, it must not be asleep and in no list
            self._idle.pop(worker, None)

    def _start_missing(self) -> None:
        """Add the missing workers, and start the threads of those that are not parked.

        If the system refuses a thread, log a warning and continue without it.
        """
        self._threads.clear_shortage()
        self._start_workers(self._add_worker)

    def _start_parked(self) -> None:
        """Start the thread of a parked worker, unless another worker is on its way; errors as in `_start_missing`."""
        self._start_workers(self._take_parked)

    def start_first_thread(self) -> None:
        """Start the thread of a parked worker if none has a thread. RuntimeError if the system refuses it."""
        self._start_workers(self._take_first)

    def _start_workers(self, take: Callable[[], Worker | None]) -> None:
        try:
            while (worker := take()) is not None:
                self._threads.start(worker.name, partial(self._run_worker, worker))
        except BaseException as error:
            refused = isinstance(error, RuntimeError)
            has_threads = self._drop_unstarted(refused=refused)
            if not refused:  # an interrupt
                raise
            if self._threads.take_shortage_news() and lifetime.starts_threads():
                log.warning("the system starts no more threads", extra={"pool": self.counters.name, "err": str(error)})
            if not has_threads:
                raise
        self._update_must_check_exit()

    def _drop_unstarted(self, *, refused: bool) -> bool:
        """Drop the workers that this thread could not start, to retry later; return whether there are other threads.

        A parked worker whose start was interrupted, and not `refused` by the system, is parked again for the next task.
        """
        with self.lock:
            parked = {worker.name for worker in self._parked}
            names = self._threads.withdraw_unstarted({worker.name for worker in self._workers} - parked)
            for worker in [worker for worker in self._workers if worker.name in names]:
                if worker.ready_seconds is None:
                    self._workers.remove(worker)
                elif refused:
                    self._remove_worker(worker)
                else:
                    self._parked.append(worker)
            self._threads.note_shortage()
            self._update_must_check_exit()
            self._wake_idle()  # idle workers wait with a timeout from now on, and retry
            self._wake_pending = False  # a dropped worker may have been the one on its way
            has_threads = self._has_threads() or bool(self._abandoned)
            self.needs_wake = self.needs_wake or bool(self._parked) or not has_threads  # the next task retries
            return has_threads

    def _has_threads(self) -> bool:
        """Return whether there is a worker that has a thread, or is about to have one; under the lock."""
        return len(self._workers) > len(self._parked)

    def _add_worker(self) -> Worker | None:
        """Add missing workers. Return the first one that needs a thread at once; None if none does."""
        with self.lock:
            while not (self.closed and not self.work_queue) and len(self._workers) < self.target:
                worker = Worker(f"{self._prefix}_{self._created}")
                worker.read_activity = self._read_activity
                self._created += 1
                if self._initializer is not None or self.work_queue:
                    self._workers.append(worker)
                    self._threads.announce(worker.name)
                    self._wake_pending |= self.target > 1 and self._initializer is None  # an initializer may take long
                    return worker
                worker.ready_seconds = monotonic()
                self._workers.append(worker)
                self._parked.append(worker)
                self.needs_wake = self.closed or not self._wake_pending
            return None

    def _take_parked(self) -> Worker | None:
        """Return a parked worker for a queued task, for its thread to be started; None if another one is on its way."""
        with self.lock:
            if self._wake_pending or not self.work_queue or not self._parked:
                return None
            return self._unpark()

    def _take_first(self) -> Worker | None:
        """Return a parked worker, for its thread to be started; None if another worker has a thread."""
        with self.lock:
            return None if self._has_threads() or not self._parked else self._unpark()

    def _unpark(self) -> Worker:
        worker = self._parked.popleft()
        self._threads.announce(worker.name)
        self._wake_pending = True
        self.needs_wake = self.closed
        return worker

    def _update_must_check_exit(self) -> None:
        with self.lock:
            wrong_size = len(self._workers) > self.target or self._threads.has_shortage
            self.must_check_exit = wrong_size or bool(self._abandoned)

    # Work

    def refuse(self) -> NoReturn:
        raise renew(self._refusal)

    def wake(self, item: WorkItem | SharedWorkItem | None = None) -> None:
        """Wake an idle worker. Raise if the pool was closed, or the system refused its first thread, before a worker
        took `item`.
        """
        with self.lock:
            if item is not None and self.closed and self._withdraw(item):
                self.refuse()
            starts = self._wake_next()
            has_threads = self._has_threads()
        try:
            if starts:
                self._start_parked()
            elif not has_threads:  # the first task after a fork
                self._start_missing()
        except RuntimeError as error:  # the system refused the first thread
            refused = item is None or self._withdraw(item)
            with self.lock:  # other threads' tasks relied on the thread that could not start
                left = [] if self._has_threads() else self._take_queued()
            self._fail_items(left, error)
            if refused:
                raise

    def _withdraw(self, item: WorkItem | SharedWorkItem) -> bool:
        """Remove an item from the queue; return False if a worker has taken it."""
        try:
            self.work_queue.remove(item)
        except ValueError:
            return False
        return True

    def _wake_next(self) -> bool:
        """Wake an idle worker; return whether the caller must start a parked one, without the lock."""
        if self._idle and not self._wake_pending:
            self._wake_idle()
            self._wake_pending = True
        starts = bool(self._parked) and not self._wake_pending
        self.needs_wake = self.closed or starts or bool(self._idle and not self._wake_pending)
        return starts

    def _run_worker(self, worker: Worker) -> None:
        if self._start_worker(worker):
            if self._wake_pending:  # this may be the worker that was on its way
                self._note_awake(worker)
            self._process_queue(worker)
            self._add_usage(worker)

    def _process_queue(self, worker: Worker) -> None:
        take = self.work_queue.popleft
        now = monotonic()
        while True:
            try:
                item = take()
            except IndexError:
                if self._wait_for_work(worker):
                    now = monotonic()
                    worker.skip_idle_time(now)
                    continue
                return
            is_task = item.__class__ is tuple  # otherwise a SharedWorkItem
            now = run_work_item(worker, item, now) if is_task else item.run_items(worker, now)  # type: ignore[arg-type, union-attr]
            del item  # the worker must not keep the user's arguments alive
            if self.must_check_exit:
                if self._threads.get_retry_delay() == 0:
                    self._start_missing()
                if self._exit_if_surplus(worker):
                    return

    def _wait_for_work(self, worker: Worker) -> bool:
        """Wait until there is a task; return False if the worker must exit."""
        with self.lock:
            if self._exit_if_surplus(worker):
                return False
            self._idle[worker] = None
            self.needs_wake = self.closed or not self._wake_pending
            if (self.work_queue or self.closed) and worker in self._idle:
                del self._idle[worker]
                return bool(self.work_queue) or not self._exit_if_surplus(worker)
        while not worker.wakeup.acquire(timeout=_to_lock_timeout(self._threads.get_retry_delay())):
            self._start_missing()
        self._note_awake(worker)
        return True

    def _note_awake(self, worker: Worker) -> None:
        """Note that a worker was woken or started, and wake or start another if it does not suffice."""
        with self.lock:
            self._idle.pop(worker, None)
            self._wake_pending = False
            self.needs_wake = self.closed or bool(self._idle or self._parked)  # set before the queue is read
            starts = len(self.work_queue) > 1 and self._wake_next()
            if self.closed:
                self._wake_idle()
        if starts:
            self._start_parked()

    def _exit_if_surplus(self, worker: Worker) -> bool:
        """Remove the worker from the pool if it must exit, and return whether it must."""
        with self.lock:
            if worker.abandoned:
                self._abandoned = [(other, label) for other, label in self._abandoned if other is not worker]
                if not self._has_other_ready(worker) and (self.work_queue or not self.closed):
                    self._take_back(worker)
                self._update_must_check_exit()
                return worker.abandoned
            if worker not in self._workers:
                return True  # in a process that a task forked, and in which the task has returned
            surplus = len(self._workers) > self.target and self._has_other_ready(worker)
            if not surplus and not (self.closed and not self.work_queue):
                return False
            self._remove_worker(worker)
            self._remove_unneeded()
            return True

    def _remove_unneeded(self) -> None:
        """Remove the parked workers of a closed pool that has no queued task for them; under the lock."""
        if not self._parked or not self.closed or self.work_queue:
            return
        now, parked = monotonic(), set(self._parked)  # they have counted nothing
        self._workers = [worker for worker in self._workers if worker not in parked]
        self._parked.clear()
        self.counters.slot_seconds += sum(now - (worker.ready_seconds or now) for worker in parked)
        self._update_must_check_exit()

    def _has_other_ready(self, worker: Worker) -> bool:
        """Return whether the pool surely has another worker: the system may yet refuse one that is starting."""
        return any(other.ready_seconds is not None and other.ident for other in self._workers if other is not worker)

    def _take_back(self, worker: Worker) -> None:
        """Make an abandoned thread a worker again, since the system refused its successor, or may yet refuse it."""
        worker.abandoned, worker.counters = False, WorkerCounters()
        worker.start(monotonic())
        self._workers.append(worker)
        self._threads.add_current()

    def _add_usage(self, worker: Worker) -> None:
        """Add the CPU time and run delay of an exiting worker; read outside the lock, since the reads take a while."""
        if not worker.abandoned:
            cpu, lived = thread_time() - worker.cpu_base_seconds, monotonic() - worker.thread_started_seconds
            delay = procfs.read_run_delay_seconds(worker.schedstat) if lived > _SHORT_LIFE_SECONDS else 0.0
            with self.lock:
                self.counters.cpu_seconds += cpu
                self.counters.run_delay_seconds += delay

    def _remove_worker(self, worker: Worker) -> None:
        self._workers.remove(worker)
        self.counters.exited.add(worker.counters)
        self.counters.slot_seconds += monotonic() - (worker.ready_seconds or 0.0)
        self._update_must_check_exit()

    # Start and end

    def _start_worker(self, worker: Worker) -> bool:
        error = self._initialize(worker)
        with self.lock:
            if error is None:
                parked_seconds = worker.ready_seconds
                worker.start(monotonic())
                worker.ready_seconds = parked_seconds or worker.ready_seconds
                self._wake_surplus()  # a worker may have stayed until this one was ready
                return True
            self._workers.remove(worker)
            self.counters.deaths["initializer"] += 1
            if self._workers:
                return False
            from paropt_exporter.executors.threads.thread_pool import (
                ThreadInitializerFailed,
            )  # here: it has loaded this

            failure = ThreadInitializerFailed(f"the pool's initializer failed {_INITIALIZER_ATTEMPTS} times: {error!r}")
            failure.__cause__ = error
            if not self.closed:
                self.closed = self.needs_wake = True
                self._refusal = failure
            queued = self._take_queued()
        self._fail_items(queued, failure)
        return False

    def _initialize(self, worker: Worker) -> BaseException | None:
        """Call the user's initializer, retry it with a growing delay if it fails, and return its last error."""
        if self._initializer is None:
            return None
        last: BaseException | None = None
        for attempt in range(_INITIALIZER_ATTEMPTS):
            try:
                self._initializer(*self._initargs)
                return None
            except BaseException as error:  # noqa: BLE001 -- user code: the pool's tasks fail with its error
                last = error
            facts = {"pool": self.counters.name, "err": describe(last)}
            if attempt + 1 < _INITIALIZER_ATTEMPTS:
                log.warning("initializer failed: it is called again", extra=facts)
                worker.wakeup.acquire(timeout=_RETRY_SECONDS * 2**attempt)
            else:
                log.critical("initializer failed", exc_info=last, extra=facts)
        return last

    def close(self, *, cancel_futures: bool = False, refusal: str = _SHUTDOWN_MESSAGE) -> None:
        with self.lock:
            if not self.closed:
                self.closed = self.needs_wake = True
                self._refusal = RuntimeError(refusal)
            queued = self._list_unbegun() if cancel_futures else []
        for item in queued:
            self._cancel_queued(item)
        with self.lock:
            self._remove_unneeded()
            for _ in range(min(_WOKEN_AT_END, len(self._idle))):
                self._wake_idle()
            unstarted = bool(self.work_queue) and not self._has_threads()
        if unstarted:  # another thread is about to start the first thread for its task: `join` must wait for that
            with contextlib.suppress(RuntimeError):  # logged, and that thread gets the error, too
                self._start_parked()

    def join(self) -> None:
        self._threads.join()

    def runs_caller(self) -> bool:
        return self._threads.has_current()

    def reset_after_fork(self) -> None:
        """Reset in a forked child, which has no worker threads, and in which the lock may still be held.

        A pool that has had no task becomes the child's, and starts its threads with the first task.
        """
        self.lock = threading.RLock()
        if self.closed or self.work_queue or self.busy or self._has_ended_tasks():
            self.closed, self._refusal = True, RuntimeError(lifetime.AFTER_FORK_MESSAGE)
        self.needs_wake = True
        self.work_queue.clear()
        self._created = 0
        self._wake_pending = False
        self._workers, self._idle, self._parked = [], {}, deque()
        self._threads.reset()  # don't replace it: a task that has forked ends in its thread of this group

    def _has_ended_tasks(self) -> bool:
        counters = sum_counters(self._workers)
        counters.add(self.counters.exited)
        return any(counters.count_by_result().values())

    def cancel_shared(self, shared: SharedWorkItem) -> None:
        if shared.count_pending():
            count = shared.cancel_pending()
            with self.lock:
                self.counters.exited.cancelled += count

    def _list_unbegun(self) -> list[WorkItem | SharedWorkItem]:
        """Return the queued tasks, except those that free workers are about to take, which count as started."""
        free = sum(worker.task is None for worker in self._workers)
        unbegun = []
        for item in self.work_queue.copy():
            if isinstance(item, tuple) and free:
                free -= 1
            else:
                unbegun.append(item)
        return unbegun

    def _cancel_queued(self, item: WorkItem | SharedWorkItem) -> None:
        """Cancel a task, then remove it from the queue. If an interrupt comes in between, a worker drops it."""
        if not isinstance(item, tuple):
            self.cancel_shared(item)
        elif item[0].cancel():  # False if a worker has begun it
            item[0].start_running(0.0)  # tells waiting threads of the cancellation
            with self.lock, contextlib.suppress(ValueError):  # not in the queue: a worker has taken and counts it
                self.work_queue.remove(item)
                self.counters.exited.cancelled += 1

    def _take_queued(self) -> list[WorkItem | SharedWorkItem]:
        taken = []
        while self.work_queue:
            taken.append(self.work_queue.popleft())
        return taken

    def _fail_items(self, items: list[WorkItem | SharedWorkItem], error: BaseException) -> None:
        for item in items:
            if isinstance(item, tuple):
                failed = item[0].fail_queued(error)
                with self.lock:
                    self.counters.exited.errors += failed
                    self.counters.exited.cancelled += not failed
            else:
                self.cancel_shared(item)

    def stop(self, future: TaskFuture[Any], error: BaseException) -> bool:
        if not future.force_exception(error):
            return False
        stopped: Worker | None = None
        with self.lock:
            for worker in self._workers:
                task = worker.task
                if task is not None and task[0] is future and future.started_seconds is not None:
                    self._abandon_worker(worker, task)
                    stopped = worker
                    break
        with contextlib.suppress(RuntimeError):  # logged; the abandoned thread is taken back when its task has ended
            self._start_missing()
        with self.lock:  # only now, since a `join` in another thread must see the stopped worker or its successor
            if stopped is not None and stopped.abandoned:
                self._threads.forget_thread(stopped.ident)
        return True

    def _abandon_worker(self, worker: Worker, task: tuple[Any, ...]) -> None:
        worker.abandoned = True
        self._abandoned.append((worker, task[0].label or get_label(task[1])))
        worker.counters.busy_seconds += monotonic() - worker.started_seconds
        worker.counters.cancelled += 1
        self._remove_worker(worker)
        self.counters.cpu_seconds += procfs.read_thread_cpu_seconds(worker.ident) - worker.cpu_base_seconds
        self.counters.run_delay_seconds += procfs.read_run_delay_seconds(worker.schedstat)
        worker.counters = WorkerCounters()  # the thread's further counts are ignored
        self.counters.deaths["stopped"] += 1

    # Measurements

    @property
    def live(self) -> int:
        return sum(worker.ready_seconds is not None for worker in tuple(self._workers))

    @property
    def busy(self) -> int:
        return sum(worker.task is not None for worker in tuple(self._workers))

    def list_abandoned(self) -> tuple[str, ...]:
        with self.lock:
            return tuple(label for _, label in self._abandoned)

    def _read_activity(self) -> int:
        """Return a number that changes whenever a task starts or ends beside another one; 0 while several tasks run."""
        if self.busy > 1:
            return 0
        counters = [worker.counters for worker in tuple(self._workers)]
        return 1 + sum(worker.succeeded + worker.failed for worker in counters)

    def statistics(self) -> PoolStatistics:
        with self.lock:
            counters = sum_counters(self._workers)
            queued = tuple(self.work_queue.copy())
            snapshot, busy_seconds = take_snapshot(self._workers, queued, self.target)
            return self.counters.build_statistics(snapshot, counters, busy_seconds)

    def get_worker_time(self) -> WorkerTime:
        """Return how long the workers have been busy and available, current tasks included."""
        with self.lock:
            now, live = monotonic(), [worker for worker in self._workers if worker.ready_seconds is not None]
            busy = sum(max(0.0, now - worker.started_seconds) for worker in live if worker.task is not None)
            return WorkerTime(
                self.counters.exited.busy_seconds + sum(worker.counters.busy_seconds for worker in live) + busy,
                self.counters.slot_seconds + sum(now - (worker.ready_seconds or now) for worker in live),
            )

    def list_running(self) -> tuple[RunningTask, ...]:
        memory = procfs.read_memory_bytes()
        with self.lock:
            return list_running(self._workers, memory)

    def sample_running(
        self, *, children: Callable[[TaskFuture[Any]], bool], youngest_seconds: float
    ) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
        with self.lock:
            latest = monotonic() - youngest_seconds
            workers = [worker for worker in self._workers if worker.started_seconds <= latest]
            return sample_running(workers, children=children)


class SharedWorkItem(Protocol):
    """A queued work item that several workers run at once: a map."""

    queued_seconds: float

    def run_items(self, worker: Worker, now: float) -> float: ...

    def count_pending(self) -> int: ...

    def cancel_pending(self) -> int: ...


class TaskSample(NamedTuple):
    """The times and switches of a running task's thread, from the task's start to the monotonic time `at`."""

    at: float
    time: CoreTime
    switches: Switches


class Worker:
    """One worker thread of a pool. The thread writes, others read. An idle thread waits for the lock `wakeup`."""

    __slots__ = (
        "abandoned", "child_tree", "counters", "cpu_base_seconds", "cpu_read_seconds", "cpu_seconds",
        "delay_baseline", "ident", "name", "native_id", "read_activity", "ready_seconds",
        "started_seconds", "switches_baseline", "task", "thread_started_seconds", "wakeup",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.wakeup = _thread.allocate_lock()
        self.wakeup.acquire()
        self.counters = WorkerCounters()
        self.task: tuple[Any, ...] | None = None
        self.started_seconds = self.thread_started_seconds = 0.0
        self.ready_seconds: float | None = None
        self.ident = self.native_id = 0
        self.abandoned = False
        # the start of the task sampled last, and the thread's run delay at that sample
        self.delay_baseline = (0.0, 0.0)
        self.switches_baseline = (0.0, NO_SWITCHES)  # likewise
        self.read_activity: Callable[[], int] = int  # see ThreadPoolState._read_activity
        self.child_tree: tuple[float, TreeTime] | None = None  # the start of the task, and its processes
        self.cpu_base_seconds = self.cpu_seconds = self.cpu_read_seconds = 0.0

    def start(self, now: float) -> None:
        self.ident, self.native_id = _thread.get_ident(), _thread.get_native_id()
        self.ready_seconds = self.thread_started_seconds = self.cpu_read_seconds = now
        self.cpu_base_seconds = self.cpu_seconds = thread_time()

    def wake(self) -> None:
        """Wake the thread if it waits; it then checks the reason itself. From any thread."""
        with contextlib.suppress(RuntimeError):  # it was woken already
            self.wakeup.release()

    @property
    def schedstat(self) -> str:
        return f"/proc/self/task/{self.native_id}/schedstat"

    def sample_task(self, *, exact: bool) -> TaskSample:
        """Sample the running task. Under the pool's lock.

        Unless it must be `exact`, the wait is not read for a task that has hardly waited, and is 0. If the task is not
        prepared for samples, the wait counts from its first sample: reading the run delay at the start of each short
        task would cost more than the task. Switches are read only if the task has waited.
        """
        now, cpu = monotonic(), max(0.0, procfs.read_thread_cpu_seconds(self.ident) - self.cpu_seconds)
        if not exact and cpu >= _COMPUTING_CORES * (now - self.started_seconds):
            return TaskSample(now, CoreTime(cpu), NO_SWITCHES)
        # The CPU time is read again: opening the file may have taken tens of milliseconds.
        now, run, delay = procfs.sample_schedstat(self.schedstat)
        if self.delay_baseline[0] != self.started_seconds:
            self.delay_baseline = (self.started_seconds, delay)
        time = CoreTime(max(cpu, run - self.cpu_seconds), delay - self.delay_baseline[1])
        waited = not exact and time.wait_seconds >= _BUSY_DELAY_RATIO * (now - self.started_seconds)
        return TaskSample(now, time, self._sample_switches() if waited else NO_SWITCHES)

    def _sample_switches(self) -> Switches:
        read = procfs.read_switches(f"/proc/self/task/{self.native_id}")
        if read is None:
            return NO_SWITCHES
        switches = Switches(*read)
        if self.switches_baseline[0] != self.started_seconds:
            self.switches_baseline = (self.started_seconds, switches)
        return switches.since(self.switches_baseline[1])

    def sample_children(self) -> TreeTime | None:
        """Sample the child processes of the running task; None if it has started none. Under the pool's lock."""
        started = self.started_seconds
        tree = self.child_tree[1] if self.child_tree and self.child_tree[0] == started else None
        # The fork server is not a child of the task, though the first thread that needs it starts it.
        children = tuple(pid for pid in procfs.list_thread_children(self.native_id) if pid != lifetime.FORK_SERVERS.pid)
        if tree is None and not children:
            return None
        if tree is None:
            tree = TreeTime()
            self.child_tree = (started, tree)
        tree.sample(children, monotonic())
        return tree

    def get_children_peak_bytes(self) -> int:
        """Return the highest sampled total memory of the running task's child processes."""
        tree = self.child_tree
        return tree[1].memory_peak_bytes if tree is not None and tree[0] == self.started_seconds else 0

    def store_usage(self, future: TaskFuture[Any], started: float, ended: float) -> None:
        """Read the thread's CPU clock at the end of a task of more than MIN_MEASURED_SECONDS."""
        cpu = thread_time()
        # The CPU time includes short tasks before this one, which were not measured: at most a millisecond.
        spent = max(0.0, cpu - self.cpu_seconds - max(0.0, started - self.cpu_read_seconds))
        self.cpu_seconds, self.cpu_read_seconds = cpu, ended
        future._usage = (self.name, os.getpid(), started, ended, min(spent, ended - started), 0.0, 0)

    def skip_idle_time(self, now: float) -> None:
        """Note that the thread was idle: its CPU time until now belongs to no task."""
        if now - self.cpu_read_seconds > MIN_MEASURED_SECONDS:
            self.cpu_seconds, self.cpu_read_seconds = thread_time(), now


def run_work_item(worker: Worker, item: WorkItem, now: float) -> float:
    """Run a task and settle its future; return when it ended.

    Updates counters and `worker.task` before it settles the future, so that waiting threads find correct numbers.
    """
    future, function, arguments, keywords, profile, _ = item
    worker.task = item
    worker.started_seconds = now
    if not future.start_running(now):
        worker.task = None
        worker.counters.cancelled += 1
        return now
    if profile == FULL_PROFILE:
        ended = _run_profiled(worker, item)
        del item, future, function, arguments, keywords  # see below
        return ended
    if profile == SAMPLES:
        worker.delay_baseline = (now, procfs.read_run_delay_seconds(worker.schedstat))
        worker.switches_baseline = (now, _read_own_switches())
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 -- any exception of a task is that task's outcome
        ended = _finish_task(worker, future, now)
        worker.counters.failed += 1
        future.settle_exception(drop_first_frame(error))
        # The exception's traceback refers to the frames of the task, and they to their callers' frames.
        del item, future, function, arguments, keywords
    else:
        ended = _finish_task(worker, future, now)
        worker.counters.succeeded += 1
        future.settle_result(result)
    return ended


def sum_counters(workers: Sequence[Worker]) -> WorkerCounters:
    """Add up the counters of live workers. Call it before `take_snapshot`: a task that ends between is then missed
    once, not counted twice.
    """
    total = WorkerCounters()
    for worker in workers:
        if worker.ready_seconds is not None:
            total.add(worker.counters)
    return total


def take_snapshot(
    workers: Sequence[Worker], queue: Sequence[WorkItem | SharedWorkItem], target: int
) -> tuple[PoolSnapshot, float]:
    """Return a snapshot of the workers and the queue, and the seconds for which busy workers have been busy."""
    now = monotonic()
    live = [worker for worker in workers if worker.ready_seconds is not None]
    busy = [worker.started_seconds for worker in live if worker.task is not None]
    threads = [worker for worker in live if worker.ident]  # parked workers have none
    snapshot = PoolSnapshot(
        target=target,
        live=len(live),
        busy=len(busy),
        starting=len(workers) - len(live),
        queued=sum(1 if isinstance(item, tuple) else item.count_pending() for item in queue),
        oldest_queued_age_seconds=max(0.0, now - _get_queued_seconds(queue[0])) if queue else 0.0,
        slot_seconds=sum(now - (worker.ready_seconds or now) for worker in live),
        cpu_seconds=sum(procfs.read_thread_cpu_seconds(worker.ident) - worker.cpu_base_seconds for worker in threads),
        run_delay_seconds=sum(procfs.read_run_delay_seconds(worker.schedstat) for worker in threads),
    )
    return snapshot, sum(max(0.0, now - started) for started in busy)


def list_running(workers: Sequence[Worker], memory_bytes: int) -> tuple[RunningTask, ...]:
    """List the running tasks, including their child processes; one entry stands for all items of a map."""
    return tuple(
        _build_running_task(worker, task, worker.sample_task(exact=True), worker.sample_children(), memory_bytes)
        for worker in workers
        if (task := worker.task) is not None
    )


def sample_running(
    workers: Sequence[Worker], *, children: Callable[[TaskFuture[Any]], bool]
) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
    """List the running tasks with their futures, with as few reads as show whether a task computes or waits.

    While a thread computes, each read of /proc waits for the GIL three times, for 5 ms each. So run delay and child
    processes are read only for tasks that may have spent more than a tenth of their time on them.
    """
    running, began = [], monotonic()
    for worker in workers:
        task = worker.task
        if task is not None:
            sample = worker.sample_task(exact=False)
            wanted_seconds = sample.time.run_seconds + sample.time.wait_seconds
            computes = wanted_seconds >= _COMPUTING_CORES * (sample.at - worker.started_seconds)
            wanted = not computes and monotonic() < began + CHILD_SAMPLING_SECONDS and children(task[0])
            tree = worker.sample_children() if wanted else None
            running.append((task[0], _build_running_task(worker, task, sample, tree, 0)))
    return tuple(running)


def _finish_task(worker: Worker, future: TaskFuture[Any], started: float) -> float:
    ended = monotonic()
    worker.task = None
    worker.counters.busy_seconds += ended - started
    if ended - worker.cpu_read_seconds > MIN_MEASURED_SECONDS:
        if ended - started > MIN_MEASURED_SECONDS:
            worker.store_usage(future, started, ended)
        else:
            worker.cpu_seconds, worker.cpu_read_seconds = thread_time(), ended
    return ended


def _run_profiled(worker: Worker, item: WorkItem) -> float:
    future, function, arguments, keywords, _, _ = item
    profiler = _Profiler(worker)
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 -- any exception of a task is that task's outcome
        ended = profiler.finish(future)
        worker.counters.failed += 1
        future.settle_exception(drop_first_frame(error))
        del item, future, function, arguments, keywords  # as in `run_work_item`
    else:
        ended = profiler.finish(future)
        worker.counters.succeeded += 1
        future.settle_result(result)
    return ended


class _Profiler:
    """Measures CPU time, run delay and memory of one task. This costs about 30 µs, mostly for the peak memory."""

    __slots__ = ("_activity", "_children_cpu", "_children_peak", "_delay", "_started", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._activity = worker.read_activity()
        self._children_cpu, self._children_peak = _read_children_usage()
        self._delay = procfs.read_run_delay_seconds(worker.schedstat)
        self._started = worker.started_seconds = worker.cpu_read_seconds = monotonic()
        worker.delay_baseline = (self._started, self._delay)
        worker.switches_baseline = (self._started, _read_own_switches())
        worker.cpu_seconds = thread_time()

    def finish(self, future: TaskFuture[Any]) -> float:
        worker, started = self._worker, self._started
        ended, cpu_now, switches = monotonic(), thread_time(), _read_own_switches()
        cpu = cpu_now - worker.cpu_seconds
        most_delay = max(0.0, ended - started - cpu)
        children_cpu, children_peak = _read_children_usage()
        if self._activity and worker.read_activity() == self._activity:  # no task ran beside this one
            cpu += children_cpu - self._children_cpu
        # On a busy machine the thread may wait for a core again before it reads its run delay.
        delay = min(procfs.read_run_delay_seconds(worker.schedstat) - self._delay, most_delay)
        future._switches = switches.since(worker.switches_baseline[1])
        future.started_seconds = started
        # The kernel keeps only the largest child so far. If that has grown, a child of a running task was larger.
        grown = children_peak if children_peak > self._children_peak else 0
        memory = max(procfs.read_memory_peak_bytes(), worker.get_children_peak_bytes(), grown)
        future._usage = (worker.name, os.getpid(), started, ended, cpu, delay, memory)
        worker.cpu_seconds, worker.cpu_read_seconds = cpu_now, ended
        worker.task = None
        worker.counters.busy_seconds += ended - started
        return ended


def _read_own_switches() -> Switches:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return Switches(usage.ru_nvcsw, usage.ru_nivcsw)


def _read_children_usage() -> tuple[float, int]:
    """Return the CPU seconds of all reaped child processes, and the memory of the largest one in bytes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


# The functions below sample workers from other threads; their callers hold the pool's lock.


def _build_running_task(
    worker: Worker,
    task: tuple[Any, ...],
    sample: TaskSample,
    children: TreeTime | None,
    memory_bytes: int,
) -> RunningTask:
    time = sample.time
    below = CoreTime(children.run_seconds, children.wait_seconds) if children is not None else CoreTime()
    return RunningTask(
        label=task[0].label or get_label(task[1]),
        worker=worker.name,
        started_seconds=worker.started_seconds,
        cpu_seconds=time.run_seconds + below.run_seconds,
        memory_bytes=memory_bytes + (children.memory_bytes if children is not None else 0),
        run_delay_seconds=time.wait_seconds,
        switches=sample.switches,
        core_time=time + below,
        thread_run_seconds=time.run_seconds,
        sampled_seconds=sample.at,
    )


def _get_queued_seconds(item: WorkItem | SharedWorkItem) -> float:
    return item[5] if isinstance(item, tuple) else item.queued_seconds


def _to_lock_timeout(seconds: float | None) -> float:
    """Return a timeout for Lock.acquire, where -1 means no limit."""
    return -1 if seconds is None else seconds
