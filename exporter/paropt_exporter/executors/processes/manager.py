"""Carries out the scheduler's decisions: starts, feeds, stops, ends and samples the workers of a ProcessPool."""

from __future__ import annotations

import marshal
import os
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from threading import get_ident
from time import monotonic
from typing import Any, NoReturn

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.environment import copy_environment
from paropt_exporter.errors import InitializerFailed, UnpicklableError, WorkerDied, renew
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors import lifetime, procfs
from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import PoolCounters, PoolSnapshot, WorkerCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.pool_log import PoolLogger
from paropt_exporter.executors.processes.batches import WorkItem
from paropt_exporter.executors.processes.scheduler import (
    Action,
    Cancel,
    Dismiss,
    Exit,
    Fail,
    Kill,
    Scheduler,
    Send,
    Wake,
    Worker,
)
from paropt_exporter.executors.processes.transport import WorkerConnection
from paropt_exporter.executors.thread_group import ThreadGroup
from paropt_exporter.executors.worker import mp_context, payload
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers

log = PoolLogger(__name__)

_REFUSAL = "cannot schedule new futures after shutdown"


def end_process(pid: int, connection: WorkerConnection, grace_seconds: float) -> None:
    """End a worker's process: TERM now, KILL after the grace. `pid`: 0 if the worker is starting."""
    if pid:
        lifetime.FORK_SERVERS.end(pid, grace_seconds)
    else:
        lifetime.FORK_SERVERS.abort(connection.spawn_number, grace_seconds)


class ProcessManager:
    """The part of a pool that outlives the ProcessPool object: its scheduler, its threads and its connections.

        event ──> scheduler (under the lock) ──> Dismiss, Wake, offer of claims (under the lock)
                                             ──> Send, Kill, Cancel, Fail       (after it)

    Guarantees:
      * An accepted task settles once: result, exception, cancelled, stopped, or WorkerDied.
      * Nothing blocks under the lock, and no code of the user runs there. The lock is reentrant: a signal handler or a
        finalizer may submit to the pool or shut it down at any point.
      * Each worker has one thread, from its first process to its last. What the system refuses is asked for again.
    """

    def __init__(
        self,
        name: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks_per_child: int | None,
        run_worker: Callable[[ProcessManager, Worker], None],
    ) -> None:
        self.counters = PoolCounters(name)
        self.packer = payload.Packer()
        self._initializer, self._initargs = initializer, tuple(initargs)  # users pass lists too
        self._pack_initializer()  # raises for the caller if it can't be pickled
        self.lock = threading.RLock()  # guards: the scheduler and _wakers
        self.scheduler = Scheduler(self.counters, max_tasks_per_child)
        self._wakers: dict[Worker, int] = {}  # event descriptors, on which the workers' threads wait
        self._threads = ThreadGroup()
        self._sampler = UsageSampler()
        self._run_worker = run_worker
        self.on_unsendable: Callable[[TaskFuture[Any], UnpicklableError], object] = _ignore_unsendable
        lifetime.register(self)

    # Actions

    def _begin(self, actions: list[Action]) -> list[Action]:
        """Carry out the part of the actions that belongs under the lock, and return them."""
        for action in actions:
            if type(action) is Send:
                action.connection.offer(len(action.items))
                self.scheduler.note_offered(action)
            elif type(action) is Dismiss:
                if action.worker.connection is not None:
                    action.worker.connection.dismiss()
                self._wake(action.worker)
            elif type(action) is Wake:
                self._wake(action.worker)
        return actions

    def _finish(self, actions: list[Action]) -> None:
        """Carry out the rest of the actions, without the lock."""
        for action in actions:
            if type(action) is Send:
                self._send(action)
            elif type(action) is Kill:
                lifetime.FORK_SERVERS.end(action.pid, action.grace_seconds)
            elif type(action) is Cancel:
                self._cancel(action.item)
            elif type(action) is Fail:
                self.fail_unbegun(action.item, action.error)

    def _cancel(self, item: WorkItem) -> None:
        """Cancel a task, then take it from the queue: if an interrupt comes in between, a worker drops it."""
        if item.future.cancel():
            item.future.start_running(0.0)  # tells waiting threads of the cancellation
        elif not item.future.done():  # a worker has begun it; otherwise it was stopped
            return
        with self.lock:
            if self.scheduler.withdraw(item):
                self.scheduler.count_unbegun(failed=False)

    def _send(self, batch: Send) -> None:
        _, connection, _, first, items, single = batch
        if single:
            item = items[0]
            task = self.packer.pickle_arguments(item.packed, item.future.label)
            whole = connection.send_task(first, task, profiled=item.profiled)
        else:
            whole = connection.send_batch(first, [item.packed for item in items])
        with self.lock:
            self.scheduler.note_sent(batch, whole=whole)
            if not whole:
                self._wake(batch.worker)  # its thread sends the rest

    def _wake(self, worker: Worker) -> None:
        waker = self._wakers.get(worker)
        if waker is not None:
            os.eventfd_write(waker, 1)

    def _recover(self) -> None:
        with self.lock:
            self._begin(self.scheduler.recover(get_ident()))

    # Events from threads that submit

    def dispatch(self, item: WorkItem | None = None) -> None:
        """Give idle workers the queued tasks. Raise if the pool was closed before a worker could get `item`."""
        try:
            with self.lock:
                actions = self._begin(self.scheduler.dispatch(monotonic(), get_ident()))
                # Later than `dispatch`: a signal handler may close the pool in between.
                refused = self.scheduler.closed is not None and item is not None and self.scheduler.withdraw(item)
                has_workers = bool(self.scheduler.workers)
            self._finish(actions)
            if not has_workers:  # the first task after a fork, or in a worker
                self._add_workers()
        except BaseException:  # an interrupt; raised again
            self._recover()
            raise
        if refused:
            self.refuse()

    def prefetch(self) -> None:
        """Give the busy worker with the fewest tasks more of the queued ones."""
        try:
            with self.lock:
                actions = self._begin(self.scheduler.prefetch(monotonic(), get_ident()))
            self._finish(actions)
        except BaseException:  # an interrupt; raised again
            self._recover()
            raise

    def fail_unsubmitted(self, future: TaskFuture[Any], error: UnpicklableError) -> None:
        """Settle a task that can't be pickled."""
        with self.lock:
            self.scheduler.count_unsubmitted()
        named = UnpicklableError(f"{future.label}: {error}")
        if error.__cause__ is not None:
            named.__cause__ = payload.replace_traceback(error.__cause__)
        future.force_exception(named)

    def fail_unbegun(self, item: WorkItem, error: BaseException) -> None:
        failed = item.future.fail_queued(error)
        with self.lock:
            self.scheduler.count_unbegun(failed=failed)

    def refuse(self) -> NoReturn:
        assert self.scheduler.closed is not None
        raise renew(self.scheduler.closed)

    def stop(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool:
        with self.lock:
            worker = self.scheduler.find_worker(future)
            unclaimed = 0 if worker is None else _withdraw_claims(worker)
            stopped, actions = self.scheduler.stop(future, error, unclaimed=unclaimed, grace_seconds=grace_seconds)
            queued = self.scheduler.find_queued(future) if stopped is None else None
            if queued is not None:
                self.scheduler.withdraw(queued)  # before its future is settled, no worker may begin it
            # Otherwise it has ended, or another thread is about to submit it: under the lock, no worker begins it.
            failed = queued is None and stopped is None and future.mark_failed(error)
        self._finish(actions)
        if queued is not None:
            stopped = future.fail_queued(error)
            with self.lock:
                self.scheduler.count_unbegun(failed=False)
        elif failed:
            future.notify_waiters()
        self.dispatch()
        return failed if stopped is None else stopped

    # Events from workers' threads

    def give_next_batch(self, worker: Worker) -> None:
        """Give a worker its next batch, or let it idle or exit."""
        with self.lock:
            actions = self._begin(self.scheduler.give_next_batch(worker, monotonic(), get_ident()))
        self._finish(actions)

    def restore_idle(self, worker: Worker) -> None:
        with self.lock:
            actions = self._begin(self.scheduler.restore_idle(worker, monotonic(), get_ident()))
        self._finish(actions)

    def connect(self, worker: Worker, connection: WorkerConnection) -> None:
        connection.watch(self._wakers[worker])
        with self.lock:
            self._begin(self.scheduler.note_connected(worker, connection))

    def note_flushed(self, worker: Worker) -> None:
        with self.lock:
            self.scheduler.note_flushed(worker)

    def note_ready(self, worker: Worker, pid: int) -> None:
        with self.lock:
            self.scheduler.note_ready(worker, pid, monotonic())

    def note_refused(self, worker: Worker, error: BaseException, *, learned: bool) -> None:
        with self.lock:
            self.scheduler.note_refused(worker, error, learned=learned)

    def note_failed_start(self, worker: Worker) -> bool:
        with self.lock:
            return self.scheduler.note_failed_start(worker)

    def note_task_ended(self, worker: Worker, number: int) -> bool:
        with self.lock:
            return self.scheduler.note_task_ended(worker, number, monotonic())

    def finish_batch(self, worker: Worker, numbers: Collection[int], *, gives_next: bool) -> None:
        """Move the tasks of a finished batch to `settling`; if it `gives_next`, give the worker its next batch."""
        actions: list[Action] = []
        with self.lock:
            now = monotonic()
            self.scheduler.note_batch_ended(worker, numbers, now)
            if gives_next:
                actions = self._begin(self.scheduler.give_next_batch(worker, now, get_ident()))
        self._finish(actions)

    def move_to_settling(self, worker: Worker, numbers: Collection[int]) -> None:
        with self.lock:
            self.scheduler.move_to_settling(worker, numbers)

    def take_from_slow(self, worker: Worker, connection: WorkerConnection, numbers: Collection[int]) -> None:
        """Move the ended tasks of a slow worker to `settling`, and give those that it has not begun to others."""
        with self.lock:
            self.scheduler.move_to_settling(worker, numbers)
            self.scheduler.requeue_unclaimed(worker, connection.withdraw_claims())
        self.dispatch()

    def note_exited(self, worker: Worker, connection: WorkerConnection, code: int | None, *, forked: bool) -> Exit:
        with self.lock:
            unclaimed = connection.withdraw_claims()
            exit_ = self.scheduler.note_exited(worker, code, unclaimed=unclaimed, forked=forked, now=monotonic())
            connection.close()
        return exit_

    def abandon(self, worker: Worker, connection: WorkerConnection) -> list[WorkItem]:
        """Give up a worker's process; return the tasks that are lost with it."""
        with self.lock:
            lost = self.scheduler.note_abandoned(worker, connection.withdraw_claims(), monotonic())
            connection.close()
        return lost

    def requeue(self, item: WorkItem) -> None:
        with self.lock:
            self.scheduler.requeue(item)
        self.dispatch()

    def give_up(self, error: BaseException) -> bool:
        """End a pool whose workers can't start, if none is left that could run a task: queued ones get the cause.

        Return whether this has ended it.
        """
        refusal = get_error_types()[1](f"workers of pool {self.counters.name!r} can't start: {error!r}")
        refusal.__cause__ = error
        with self.lock:
            actions = self._begin(self.scheduler.give_up(refusal))
        self._finish(actions)
        return bool(actions)

    def get_waker(self, worker: Worker) -> int:
        """Return the descriptor that is readable when the worker's thread was woken."""
        return self._wakers[worker]

    # Size

    def resize(self, size: int, reason: str) -> None:
        self.set_size(size, reason)
        self._add_workers()

    def set_size(self, size: int, reason: str) -> None:
        """Set the size. A pool without workers starts them with its first task."""
        with self.lock:
            self._begin(self.scheduler.resize(size, reason))
            if not self.scheduler.workers:
                self.scheduler.needs_dispatch = True

    def add_refused_workers(self) -> None:
        """Start workers that the system has refused, if it is time to ask again."""
        if self.get_retry_delay() == 0.0:
            self._add_workers()

    def get_retry_delay(self) -> float | None:
        """Return how long to wait before `add_refused_workers`; None if the system has refused none."""
        return self._threads.get_retry_delay()

    def take_shortage_news(self) -> bool:
        """Return whether to log that the system refuses workers: True once for each shortage."""
        return self._threads.take_shortage_news()

    def do_without(self, worker: Worker) -> bool:
        """Give up a worker for which there are no descriptors, so that the others have them.

        Return False if it is the only one. It is asked for again later.
        """
        with self.lock:
            actions = self._begin(self.scheduler.give_up_worker(worker))
            if actions:
                self._threads.note_shortage()
            return worker.leaving

    def _add_workers(self) -> None:
        """Start the missing workers. If the system refuses, go on without them, log it, and try again later.

        A worker's thread that finds no descriptors gives up its place, which stays free until then.
        """
        self._threads.clear_shortage()
        try:
            while not self._threads.has_shortage and (worker := self._add_worker()) is not None:
                self._threads.start(worker.name, partial(self._run_thread, worker))
        except BaseException as error:
            has_workers = self._drop_unstarted()
            if not isinstance(error, (OSError, RuntimeError)):  # an interrupt
                raise
            if self.take_shortage_news():
                log.warning("the system gives no more workers", extra={"pool": self.counters.name, "err": str(error)})
            if not has_workers:
                raise

    def _add_worker(self) -> Worker | None:
        with self.lock:
            worker = self.scheduler.add_worker()
            if worker is not None:
                self._wakers[worker] = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                self._threads.announce(worker.name)
            return worker

    def _drop_unstarted(self) -> bool:
        """Drop the workers that this thread could not start, to retry later; return whether there are others."""
        with self.lock:
            workers = tuple(self.scheduler.workers)
            names = self._threads.withdraw_unstarted(worker.name for worker in workers)
            for worker in [worker for worker in workers if worker.name in names]:
                self._remove(worker)
            self._threads.note_shortage()
            if self.scheduler.workers:
                self._wake(self.scheduler.workers[0])  # its thread asks again
            else:
                self.scheduler.needs_dispatch = True  # the next task does
            return bool(self.scheduler.workers)

    def _run_thread(self, worker: Worker) -> None:
        try:
            self._run_worker(self, worker)
        finally:
            self._remove(worker)

    def _remove(self, worker: Worker) -> None:
        with self.lock:
            self.scheduler.remove_worker(worker)
            waker = self._wakers.pop(worker, None)
            if waker is not None:  # the system may have refused it
                os.close(waker)

    # Beginning and end of workers and pool

    def build_preparation(self, name: str) -> bytes:
        """Return the state that a new worker takes over: import path, folder, environment, limits, initializer."""
        try:
            directory = os.getcwd()  # noqa: PTH109 -- marshal takes no Path
        except OSError:
            directory = "/"
        # str() also of strings, since marshal takes no subclass.
        path = [str(os.fsdecode(entry)) for entry in sys.path if isinstance(entry, (str, bytes, os.PathLike))]
        parent = mp_context.get_authkey(), mp_context.get_name(), os.getpid()
        context = name, parent, mp_context.get_tracker() is not None
        arguments = [str(argument) for argument in sys.argv]
        limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
        taken = path, directory, copy_environment(), arguments, limits
        return marshal.dumps((*taken, *context, *self._pack_initializer()))

    def _pack_initializer(self) -> tuple[bytes, bytes | tuple[Any, ...]]:
        """Pickle the initializer, each time again: a descriptor among its arguments can be fetched once."""
        if self._initializer is None:
            return b"", b""
        function, arguments = self.packer.pack(self._initializer, self._initargs, {})
        return function, arguments.join() if isinstance(arguments, PickleBuffers) else arguments

    def close(self, *, cancel_futures: bool = False, refusal: str = _REFUSAL) -> None:
        with self.lock:
            if cancel_futures:
                for worker in self.scheduler.list_holders():
                    self.scheduler.requeue_unclaimed(worker, _withdraw_claims(worker))
            actions = self._begin(self.scheduler.close(RuntimeError(refusal), cancel_queued=cancel_futures))
        self._finish(actions)

    def join(self) -> None:
        """Wait until all workers have exited."""
        self._threads.join()

    def runs_caller(self) -> bool:
        return self._threads.has_current()

    def join_within(self, timeout_seconds: float) -> bool:
        """Wait for so long until all workers have exited; return whether they have."""
        return self._threads.join(timeout_seconds)

    def end_workers(self, grace_seconds: float) -> tuple[str, ...]:
        """End the workers with all that they started: TERM now, KILL after the grace. Return their names.

        Tasks that no worker has begun are cancelled.
        """
        with self.lock:
            actions = self._begin(self.scheduler.end())
            workers = [(each.name, each.pid, each.connection) for each in self.scheduler.workers if each.connection]
        for _, pid, connection in workers:
            end_process(pid, connection, grace_seconds)
        self._finish(actions)
        return tuple(f"{name} ({f'pid {pid}' if pid else 'starting'})" for name, pid, _ in workers)

    def reset_after_fork(self) -> None:
        """In a forked child: the workers are the parent's, and any lock may have been held at the fork."""
        self.lock = threading.RLock()
        self._threads.reset()
        for worker in self.scheduler.reset_after_fork(RuntimeError(lifetime.AFTER_FORK_MESSAGE)):
            if worker.connection is not None:
                worker.connection.close()
        while self._wakers:
            os.close(self._wakers.popitem()[1])

    # Observation

    @property
    def live(self) -> int:
        return sum(worker.ready_seconds is not None for worker in tuple(self.scheduler.workers))

    @property
    def busy(self) -> int:
        return sum(bool(worker.batches) for worker in tuple(self.scheduler.workers))

    def statistics(self) -> PoolStatistics:
        with self.lock:
            return self._sampler.build_statistics(self.scheduler, self.counters)

    def running(self) -> tuple[RunningTask, ...]:
        with self.lock:
            return self._sampler.list_running(self.scheduler.workers)

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        return self._sampler.read_memory([worker.pid for worker in tuple(self.scheduler.workers) if worker.pid])


def get_error_types() -> tuple[type[WorkerDied], type[InitializerFailed]]:
    """Return the classes of the errors: those that are `BrokenProcessPool`s if the program may catch that class."""
    if "concurrent.futures.process" not in sys.modules:
        return WorkerDied, InitializerFailed
    from paropt_exporter.executors.processes import broken_pool

    return broken_pool.WorkerDied, broken_pool.InitializerFailed


def _ignore_unsendable(_future: TaskFuture[Any], _error: UnpicklableError) -> None:
    """Do nothing: the task's future has the error."""


def _withdraw_claims(worker: Worker) -> int:
    return 0 if worker.connection is None else worker.connection.withdraw_claims()


class UsageSampler:
    """Samples the workers of one pool. The pool's lock is held, except for `read_memory`."""

    def __init__(self) -> None:
        # By worker process: the start of the batch that it was first sampled in, and its run delay then. So a batch
        # that is never sampled costs no read.
        self._first_delays: dict[int, tuple[float, float]] = {}
        self._tree_times: dict[int, TreeTime] = {}  # of the worker's threads and descendants
        self._reported_delays: dict[int, float] = {}  # by worker process: its run delay less that of its ended tasks

    def build_statistics(self, scheduler: Scheduler, counters: PoolCounters) -> PoolStatistics:
        """Return the pool's statistics now."""
        workers = scheduler.workers
        # Added up first: a task that ends meanwhile is missed once, and not counted twice.
        totals = WorkerCounters()
        for worker in workers:
            totals.add(worker.counters)
        queue, now = scheduler.queue.copy(), monotonic()
        live = [worker for worker in workers if worker.ready_seconds is not None]
        busy = [worker for worker in live if worker.batches]
        spent = _read_spent(busy)
        self._forget_processes({worker.pid for worker in workers})
        snapshot = PoolSnapshot(
            target=scheduler.target,
            live=len(live),
            busy=len(busy),
            starting=len(workers) - len(live),
            queued=len(queue),
            oldest_queued_age_seconds=max(0.0, now - queue[0].queued_seconds) if queue else 0.0,
            slot_seconds=sum(worker.slot_seconds for worker in workers)
            + sum(now - (worker.ready_seconds or now) for worker in live),
            cpu_seconds=sum(worker.cpu_seconds for worker in workers) + sum(cpu for cpu, _ in spent.values()),
            run_delay_seconds=sum(worker.delay_seconds + self._read_unreported_delay(worker) for worker in workers),
            running=sum(len(worker.settling) for worker in live) + sum(len(worker.assigned) for worker in busy),
        )
        busy_seconds = sum(max(0.0, now - worker.batch_seconds) for worker in busy)
        return counters.build_statistics(snapshot, totals, busy_seconds)

    def list_running(self, workers: Sequence[Worker]) -> tuple[RunningTask, ...]:
        """Return the running tasks: of each worker's tasks the first that has not ended."""
        busy = [worker for worker in workers if worker.batches and worker.assigned]
        self._forget_processes({worker.pid for worker in workers})
        spent = _read_spent(busy)
        found = []
        for worker in busy:
            item = next(iter(tuple(worker.assigned.values())), None)
            if item is not None:
                cpu, memory = spent.get(worker.pid, (0.0, 0))
                found.append(
                    RunningTask(
                        label=item.future.label,
                        worker=worker.name,
                        started_seconds=worker.batch_seconds,
                        cpu_seconds=cpu,
                        memory_bytes=memory,
                        run_delay_seconds=self._read_run_delay(worker),
                        sampled_seconds=(now := monotonic()),
                        core_time=self._sample_core_time(worker.pid, now),
                    )
                )
        return tuple(found)

    @staticmethod
    def read_memory(pids: Sequence[int]) -> tuple[WorkerMemory, ...]:
        """Return the memory of each worker process; takes some 20 µs for each."""
        found = (procfs.read_memory_and_peak_bytes(pid) for pid in pids)
        return tuple(WorkerMemory(now_bytes=now, peak_bytes=max(now, peak)) for now, peak in found if now)

    def _forget_processes(self, pids: set[int]) -> None:
        for known in (self._tree_times, self._first_delays, self._reported_delays):
            for pid in known.keys() - pids:
                del known[pid]

    def _read_run_delay(self, worker: Worker) -> float:
        """Return how long the worker waited for a core since its batch was first sampled."""
        delay = procfs.read_run_delay_seconds(f"{procfs.locate(worker.pid)}/schedstat")
        batch_seconds, first = self._first_delays.get(worker.pid, (None, 0.0))
        if batch_seconds != worker.batch_seconds:
            self._first_delays[worker.pid] = (worker.batch_seconds, delay)
            return 0.0
        return max(0.0, delay - first)

    def _read_unreported_delay(self, worker: Worker) -> float:
        """Return how long a busy worker waited for a core in the tasks that it has not reported yet.

        Between two tasks the difference to the reported delay is smallest. It is unknown before the first task ends,
        so that the first one's wait counts from its first sample on.
        """
        if not worker.pid or not worker.batches:
            return 0.0
        beyond = procfs.read_run_delay_seconds(f"{procfs.locate(worker.pid)}/schedstat") - worker.delay_seconds
        least = self._reported_delays[worker.pid] = min(beyond, self._reported_delays.get(worker.pid, beyond))
        return beyond - least

    def _sample_core_time(self, pid: int, now: float) -> CoreTime:
        """Return how long the worker's threads and descendants ran and waited for a core, since first sampled."""
        tree = self._tree_times.setdefault(pid, TreeTime())
        tree.sample((pid,), now)
        return CoreTime(tree.run_seconds, tree.wait_seconds)


def _read_spent(workers: Sequence[Worker]) -> dict[int, tuple[float, int]]:
    """Return the CPU of the workers' process trees since their last reply, and their memory, by one walk over /proc."""
    pids = {worker.pid: worker.cpu_base_seconds for worker in workers if worker.pid}
    usage = procfs.measure_trees(set(pids)) if pids else {}
    return {pid: (max(0.0, cpu - pids[pid]), memory) for pid, (cpu, memory) in usage.items()}
