"""The state of a ThreadPool: its work queue, the threads of its workers, and its counters."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic, thread_time
from typing import Any, NoReturn

from paropt_exporter.errors import describe, renew
from paropt_exporter.events import PoolStatistics, RunningTask
from paropt_exporter.executors import lifetime, procfs
from paropt_exporter.executors.base import SHUTDOWN_MESSAGE, check_size
from paropt_exporter.executors.counters import PoolCounters, WorkerTime
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.thread_group import ThreadGroup
from paropt_exporter.executors.threads.worker import (
    NO_PROFILE,
    SharedWorkItem,
    Worker,
    WorkerSet,
    WorkItem,
    list_running,
    run_work_item,
    sample_running,
    sum_counters,
    sum_cpu_seconds,
    take_snapshot,
)

log = PoolLogger(__name__)

_MAX_WORKERS = 4096  # a request for more threads in one process is most likely a typing error
_INITIALIZER_ATTEMPTS = 3
_RETRY_SECONDS = 0.1  # doubled after each attempt
# Idle workers that close() wakes; each of them wakes another. All at once would compete for the interpreter's lock.
_WOKEN_AT_END = 4
_SHORT_LIFE_SECONDS = 0.01  # the run delay of a thread that lived no longer is not worth a read, which takes 0.1 ms


class ThreadPoolState:
    """Work queue, workers and size of one pool. It outlives the ThreadPool until its last worker exits.

        submit() ──> work_queue ──> busy ──(queue empty)──> idle ──(wake)──> busy <──(start)── a missing worker
                                     │ size reduced, closed   │
                                     └──────> exited <────────┘

    `WorkerSet` knows the workers and decides which are woken, started or exit. This class has the queue, starts the
    threads, runs their loop and calls the user's initializer. Its lock guards the workers and the counters; threads
    start, and tasks and initializers run, outside it. `submit` reads `workers.closed` and `workers.needs_wake` without
    it.

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
        self._threads = ThreadGroup(self.lock)
        self.workers = WorkerSet(prefix, self.work_queue, self._threads, self.counters, eager=initializer is not None)
        self._refusal: Exception = RuntimeError(SHUTDOWN_MESSAGE)
        self._initializer = initializer
        self._initargs = initargs
        self.finalizer: weakref.finalize[..., object] | None = None
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
        if self.workers.closed:
            self.refuse()
        task = (future, fn, args, kwargs, profile, monotonic())
        self.work_queue.append(task)
        if self.workers.needs_wake:
            self.wake(task)

    # Size

    def resize(self, n: int, reason: str) -> None:
        n = check_size(n, _MAX_WORKERS, "threads")
        with self.lock:
            self.counters.count_resize(self.workers.target, n, reason)
            self.workers.set_target(n)
        self._start_missing()

    def _start_missing(self) -> None:
        """Start the missing workers that are needed now.

        If the system refuses a thread, log a warning and continue without it; RuntimeError if there is no other.
        """
        self._threads.clear_shortage()
        self._start_workers(self.workers.add_needed)

    def start_first_thread(self) -> None:
        """Start a worker if there is none. RuntimeError if the system refuses its thread."""
        self._start_workers(self.workers.add_first)

    def _start_workers(self, add: Callable[[], Worker | None]) -> None:
        error = self._threads.start_workers(add, self._run_worker, self.workers.drop_unstarted)
        if error is not None and lifetime.starts_threads():
            log.warning("the system starts no more threads", extra={"pool": self.counters.name, "err": str(error)})
        with self.lock:
            self.workers.note_change()

    # Work

    def refuse(self) -> NoReturn:
        raise renew(self._refusal)

    def wake(self, item: WorkItem | SharedWorkItem | None = None) -> None:
        """Wake an idle worker. Raise if the pool was closed, or the system refused its first thread, before a worker
        took `item`.
        """
        with self.lock:
            if item is not None and self.workers.closed and self._withdraw(item):
                self.refuse()
            starts = self.workers.wake_next()
        try:
            if starts:
                self._start_missing()
        except RuntimeError as error:  # the system refused the first thread
            refused = item is None or self._withdraw(item)
            with self.lock:  # other threads' tasks relied on the thread that could not start
                left = [] if self.workers.has_threads else self._take_queued()
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

    def _run_worker(self, worker: Worker) -> None:
        if self._start_worker(worker):
            if self.workers.wake_pending:  # this may be the worker that was on its way
                self._note_awake(worker)
            self._process_queue(worker)
            self._add_usage(worker)

    def _process_queue(self, worker: Worker) -> None:
        take, workers = self.work_queue.popleft, self.workers
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
            if workers.must_check_exit:
                if self._threads.get_retry_delay() == 0:
                    self._start_missing()
                with self.lock:
                    if workers.remove_if_surplus(worker):
                        return

    def _wait_for_work(self, worker: Worker) -> bool:
        """Wait until there is a task; return False if the worker must exit."""
        with self.lock:
            if self.workers.remove_if_surplus(worker):
                return False
            self.workers.note_idle(worker)
            if self.workers.stay_awake(worker):
                return bool(self.work_queue) or not self.workers.remove_if_surplus(worker)
        while not worker.wakeup.acquire(timeout=_to_lock_timeout(self._threads.get_retry_delay())):
            self._start_missing()
        self._note_awake(worker)
        return True

    def _note_awake(self, worker: Worker) -> None:
        """Note that a worker was woken or started, and wake or start another if it does not suffice."""
        with self.lock:
            starts = self.workers.note_awake(worker)
        if starts:
            self._start_missing()

    def _add_usage(self, worker: Worker) -> None:
        """Add the CPU time and run delay of an exiting worker; read outside the lock, since the reads take a while."""
        if not worker.abandoned:
            cpu, lived = thread_time() - worker.cpu_base_seconds, monotonic() - worker.thread_started_seconds
            delay = procfs.read_run_delay_seconds(worker.schedstat) if lived > _SHORT_LIFE_SECONDS else 0.0
            with self.lock:
                self.counters.cpu_seconds += cpu
                self.counters.run_delay_seconds += delay

    # Start and end

    def _start_worker(self, worker: Worker) -> bool:
        error = self._initialize(worker)
        with self.lock:
            if error is None:
                self.workers.note_ready(worker)
                return True
            self.workers.drop_failed(worker)
            self.counters.deaths["initializer"] += 1
            if self.workers.all:
                return False
            # here, since that module imports this one
            from paropt_exporter.executors.threads.thread_pool import ThreadInitializerFailed

            failure = ThreadInitializerFailed(f"the pool's initializer failed {_INITIALIZER_ATTEMPTS} times: {error!r}")
            failure.__cause__ = error
            self._refuse_tasks(renew(failure))  # the tasks' error will have the frames of its callers
            queued = self._take_queued()
        self._fail_items(queued, failure)
        del queued, failure  # the pool keeps this frame: it called the one in which the initializer failed
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

    def close(self, *, cancel_futures: bool = False, refusal: str = SHUTDOWN_MESSAGE) -> None:
        with self.lock:
            self._refuse_tasks(RuntimeError(refusal))
            queued = self._list_unbegun() if cancel_futures else []
        for item in queued:
            self._cancel_queued(item)
        if queued:
            self._drop_ended()
        with self.lock:
            self.workers.wake_idle(_WOKEN_AT_END)
            unstarted = bool(self.work_queue) and not self.workers.all
        if unstarted:  # another thread is about to start the first thread for its task: `join` must wait for that
            with contextlib.suppress(RuntimeError):  # that thread gets the error, too
                self._start_missing()

    def _refuse_tasks(self, refusal: Exception) -> None:
        """Close the pool, if it is not closed yet; under the lock."""
        if not self.workers.closed:
            self.workers.close()
            self._refusal = refusal

    def join(self) -> None:
        self._threads.join()

    def runs_caller(self) -> bool:
        return self._threads.has_current()

    def reset_after_fork(self) -> None:
        """Reset in a forked child, which has no worker threads, and in which the lock may still be held.

        A pool that has had no task becomes the child's, and starts its threads with the first task.
        """
        self.lock = threading.RLock()
        workers = self.workers
        if workers.closed or self.work_queue or workers.busy or workers.has_ended_tasks:
            workers.closed, self._refusal = True, RuntimeError(lifetime.AFTER_FORK_MESSAGE)
        self.work_queue.clear()
        workers.reset()
        self._threads.reset(self.lock)  # don't replace it: a task that has forked ends in its thread of this group

    def cancel_shared(self, shared: SharedWorkItem) -> None:
        if shared.count_pending():
            count = shared.cancel_pending()
            with self.lock:
                self.counters.exited.cancelled += count

    def _list_unbegun(self) -> list[WorkItem | SharedWorkItem]:
        """Return the queued tasks, except those that free workers are about to take, which count as started."""
        free = sum(worker.task is None for worker in self.workers.all)
        unbegun = []
        for item in self.work_queue.copy():
            if isinstance(item, tuple) and free:
                free -= 1
            else:
                unbegun.append(item)
        return unbegun

    def _cancel_queued(self, item: WorkItem | SharedWorkItem) -> None:
        """Cancel a task that stays in the queue: after an interrupt, a worker drops it."""
        if not isinstance(item, tuple):
            self.cancel_shared(item)
        elif item[0].cancel():  # False if a worker has begun it
            item[0].notify_cancelled()

    def _drop_ended(self) -> None:
        """Remove the cancelled and stopped tasks from the end of the queue; a worker drops those before others.

        All at once: each search for one that a worker has dropped meanwhile would go through the whole queue.
        """
        queue, dropped = self.work_queue, 0
        with contextlib.suppress(IndexError):  # a worker has taken the last one
            while isinstance(last := queue[-1], tuple) and last[0].done():
                last[0].notify_cancelled()  # another thread may have cancelled it
                if (item := queue.pop()) is not last:  # a map, which was added meanwhile
                    queue.appendleft(item)
                    self.wake()
                    break
                dropped += 1
        with self.lock:
            self.counters.exited.cancelled += dropped

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
        with self.lock:
            stopped = self.workers.abandon(future)
        with contextlib.suppress(RuntimeError):  # the abandoned thread is taken back when its task has ended
            self._start_missing()
        with self.lock:  # only now, since a `join` in another thread must see the stopped worker or its successor
            if stopped is not None and stopped.abandoned:
                self._threads.forget_thread(stopped.name)
        return True

    # Measurements

    def statistics(self) -> PoolStatistics:
        with self.lock:
            counters = sum_counters(self.workers.all)
            self.workers.count_slots()
            snapshot, busy_seconds = take_snapshot(self.workers, tuple(self.work_queue.copy()))
            return self.counters.build_statistics(snapshot, counters, busy_seconds)

    def read_cpu_seconds(self) -> float:
        with self.lock:
            return self.counters.cpu_seconds + sum_cpu_seconds(self.workers.all)

    def get_worker_time(self) -> WorkerTime:
        """Return how long the workers have been busy and available, current tasks included."""
        with self.lock:
            self.workers.count_slots()
            now, workers = monotonic(), self.workers.all
            busy = sum(max(0.0, now - worker.started_seconds) for worker in workers if worker.task is not None)
            ended = self.counters.exited.busy_seconds + sum(worker.counters.busy_seconds for worker in workers)
            return WorkerTime(ended + busy, self.counters.slot_seconds)

    def list_abandoned(self) -> tuple[str, ...]:
        with self.lock:
            return self.workers.list_abandoned()

    def list_running(self) -> tuple[RunningTask, ...]:
        memory = procfs.read_memory_bytes()
        with self.lock:
            return list_running(self.workers.all, memory)

    def prepare_samples(self) -> None:
        with self.lock:
            for worker in self.workers.all:
                worker.prepare_samples()

    def sample_running(
        self,
        *,
        children: Callable[[TaskFuture[Any]], bool],
        state: Callable[[TaskFuture[Any]], bool],
        youngest_seconds: float,
    ) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
        with self.lock:
            latest = monotonic() - youngest_seconds
            workers = tuple(worker for worker in self.workers.all if worker.started_seconds <= latest)
            return sample_running(workers, children=children, state=state)


def _to_lock_timeout(seconds: float | None) -> float:
    """Return a timeout for Lock.acquire, where -1 means no limit."""
    return -1 if seconds is None else seconds
