"""Carries out the scheduler's decisions: feeds, stops and ends the workers of a ProcessPool."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import get_ident
from time import monotonic
from typing import Any

from paropt_exporter.errors import UnpicklableError, renew
from paropt_exporter.executors import lifetime
from paropt_exporter.executors.base import SHUTDOWN_MESSAGE
from paropt_exporter.executors.counters import PoolCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.batches import WorkItem
from paropt_exporter.executors.processes.process_handler import Preparation, end_process, run_worker
from paropt_exporter.executors.processes.results import build_start_error
from paropt_exporter.executors.processes.scheduler import (
    Action,
    Cancel,
    Dismiss,
    Exit,
    Fail,
    Kill,
    Notice,
    Scheduler,
    Send,
    Wake,
)
from paropt_exporter.executors.processes.transport import WorkerConnection
from paropt_exporter.executors.processes.usage_sampler import UsageSampler
from paropt_exporter.executors.processes.worker_threads import WorkerThreads, close_waker, wake
from paropt_exporter.executors.processes.workers import Worker, WorkerProcess
from paropt_exporter.executors.worker import payload

_MOST_NOTIFIED = 1000  # tasks, of whose cancellation a thread notifies between two uses of the scheduler's lock


class ProcessManager:
    """The part of a pool that outlives the ProcessPool object.

        event ──> scheduler (under its lock) ──> Dismiss, Wake, offer of claims (under the lock)
                                             ──> Send, Kill, Cancel, Fail       (after it)

    Guarantees:
      * An accepted task settles once: result, exception, cancelled, stopped, or WorkerDied.
      * Nothing blocks under the lock, and no code of the user runs there.
    """

    def __init__(
        self,
        name: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks_per_child: int | None,
    ) -> None:
        self.counters = PoolCounters(name)
        self.packer = payload.Packer()
        self.preparation = Preparation(self.packer, initializer, initargs)
        self.scheduler = Scheduler(self.counters, max_tasks_per_child)
        self.threads = WorkerThreads(self.scheduler, name)
        self.sampler = UsageSampler(self.scheduler, self.counters)
        self.on_unsendable: Callable[[TaskFuture[Any], UnpicklableError], object] = _ignore_unsendable
        self.finalizer: weakref.finalize[..., object] | None = None
        lifetime.register(self)

    # Actions

    def _begin(self, actions: list[Action]) -> list[Action]:
        """Carry out the part of the actions that belongs under the lock, and return them for `_finish`."""
        for action in actions:
            if type(action) is Send:
                process = action.process
                process.connection.offer(len(action.items), process.sending, action.sender)
            elif isinstance(action, (Dismiss, Wake)):
                self._notify((action,))
        return actions

    def _notify(self, notices: Sequence[Notice]) -> None:
        """Carry out notices, under the lock."""
        for notice in notices:
            if isinstance(notice, Dismiss):
                notice.process.connection.dismiss()
                wake(notice.process.worker)
            else:
                wake(notice.worker)

    def _finish(self, actions: list[Action]) -> None:
        """Carry out the rest of the actions, without the lock."""
        cancels = False
        for action in actions:
            if type(action) is Send:
                actions += self._send(action)  # this loop carries these out, too
            elif type(action) is Kill:
                end_process(action.process, action.grace_seconds)
            elif type(action) is Cancel:
                cancels = True
                if action.item.future.cancel():  # False if a worker has begun it
                    action.item.future.notify_cancelled()
            elif type(action) is Fail:
                self.fail_unbegun(action.item, action.error)
        if cancels:  # after an interrupt, workers drop the cancelled tasks
            with self.scheduler.lock:
                self.scheduler.drop_ended()
        if self.scheduler.dropped:
            self._notify_dropped()

    def _notify_dropped(self) -> None:
        """Notify waiting threads of the dropped tasks' cancellation. If an interrupt comes, the next event does."""
        while self.scheduler.dropped:
            dropped = iter(self.scheduler.dropped.copy())  # a signal handler may change it at any point
            while items := list(islice(dropped, _MOST_NOTIFIED)):
                for item in items:
                    item.future.notify_cancelled()
                with self.scheduler.lock:
                    self.scheduler.note_notified(items)

    def _send(self, batch: Send) -> list[Action]:
        """Send a batch; return the actions that follow."""
        process, sender, first, items, single, shares_memory = batch
        if single:
            future, packed, profiled, _, _ = items[0]
            task = self.packer.pickle_arguments(packed, future.label)
            whole = process.connection.send_task(first, task, profiled=profiled, shares_memory=shares_memory)
        else:
            whole = process.connection.send_batch(first, [item.packed for item in items])
        if not whole:
            with self.scheduler.lock:
                self.scheduler.note_blocked(process)
                wake(process.worker)  # its thread sends the rest
        if not self.scheduler.note_sent(batch):
            return []
        with self.scheduler.lock:
            return self._begin(self.scheduler.give_more(process, monotonic(), sender))

    def _recover(self) -> None:
        with self.scheduler.lock:
            self._notify(self.scheduler.recover(get_ident()))

    def _requeue_unclaimed(self, process: WorkerProcess) -> None:
        """Put the tasks that a process has not begun in front of the queue, under the lock."""
        try:
            self.scheduler.begin_withdrawal(process)
            self.scheduler.requeue_unclaimed(process, process.connection.withdraw_claims())
        except BaseException:  # an interrupt; raised again
            self._notify(self.scheduler.note_unsure(process))
            raise

    # Events from threads that submit

    def dispatch(self, item: WorkItem | None = None) -> None:
        """Give idle workers the queued tasks. Raise if the pool was closed before a worker could get `item`."""
        try:
            with self.scheduler.lock:
                actions = self._begin(self.scheduler.dispatch(monotonic(), get_ident()))
                # Later than `dispatch`: a signal handler may close the pool in between.
                refusal = self.scheduler.closed
                refused = refusal is not None and item is not None and self.scheduler.withdraw(item)
                has_workers = bool(self.scheduler.workers)
            self._finish(actions)
            if not has_workers:  # the first task after a fork, or in a worker
                self.start_workers()
        except BaseException:  # an interrupt; raised again
            self._recover()
            raise
        if refused and refusal is not None:
            raise renew(refusal)

    def prefetch(self) -> None:
        """Give the busy worker with the fewest tasks more of the queued ones."""
        try:
            with self.scheduler.lock:
                actions = self._begin(self.scheduler.prefetch(monotonic(), get_ident()))
            self._finish(actions)
        except BaseException:  # an interrupt; raised again
            self._recover()
            raise

    def fail_unsubmitted(self, future: TaskFuture[Any], error: UnpicklableError) -> None:
        """Settle a task that can't be pickled."""
        with self.scheduler.lock:
            self.scheduler.count_unsubmitted()
        named = UnpicklableError(f"{future.label}: {error}")
        if error.__cause__ is not None:
            named.__cause__ = payload.replace_traceback(error.__cause__)
        future.force_exception(named)

    def fail_unbegun(self, item: WorkItem, error: BaseException) -> None:
        failed = item.future.fail_queued(error)
        with self.scheduler.lock:
            self.scheduler.count_unbegun(failed=failed)

    def stop(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool:
        stopped = self._stop_present(future, error, grace_seconds)
        if stopped is None:
            stopped = future.fail_queued(error)  # before another thread submits it, or else it has just done so
            stopped = stopped or self._stop_present(future, error, grace_seconds)
        if stopped is None:
            stopped = future.force_exception(error)  # it is being pickled again, or its process has exited
        self.dispatch()
        return stopped

    def _stop_present(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool | None:
        """Stop a queued or running task. Return False if it has just ended, None if the pool does not have it."""
        process: WorkerProcess | None = None
        queued: WorkItem | None = None
        try:
            with self.scheduler.lock:
                process = self.scheduler.find_process(future)
                if process is not None:
                    self._requeue_unclaimed(process)
                stopped, actions = self.scheduler.stop(future, error, grace_seconds)
                queued = self.scheduler.find_queued(future) if stopped is None else None
                if queued is not None:
                    self.scheduler.withdraw(queued)  # before its future is settled, no worker may begin it
            self._finish(actions)
            if queued is not None:
                stopped = future.fail_queued(error)
                with self.scheduler.lock:
                    self.scheduler.count_unbegun(failed=False)
        except BaseException:  # an interrupt; raised again
            if process is not None and process.stopping is future:
                end_process(process, grace_seconds)
            if queued is not None:
                future.fail_queued(error)
            raise
        return stopped

    # Events from workers' threads

    def connect(self, worker: Worker, connection: WorkerConnection) -> WorkerProcess:
        """Add the new process of a worker, which can be sent to."""
        with self.scheduler.lock:
            process = self.scheduler.add_process(worker, connection)
            if process.dismissed:
                connection.dismiss()
            return process

    def give_next_batch(self, process: WorkerProcess) -> None:
        """Give a process its next batch, or let it idle or exit."""
        with self.scheduler.lock:
            actions = self._give_next_batch(process, monotonic())
        self._finish(actions)

    def _give_next_batch(self, process: WorkerProcess, now: float) -> list[Action]:
        overloaded = self.scheduler.find_overloaded(process, now)
        if overloaded is not None:
            self._requeue_unclaimed(overloaded)
            wake(overloaded.worker)  # its thread settles those that have ended: the one that runs may take long
        return self._begin(self.scheduler.give_next_batch(process, now, get_ident()))

    def restore_idle(self, process: WorkerProcess) -> None:
        with self.scheduler.lock:
            actions = self._begin(self.scheduler.restore_idle(process, monotonic(), get_ident()))
        self._finish(actions)

    def note_flushed(self, process: WorkerProcess) -> None:
        with self.scheduler.lock:
            self.scheduler.note_flushed(process)

    def finish_batch(self, process: WorkerProcess, numbers: Collection[int], *, gives_next: bool) -> None:
        """Move the tasks of a finished batch to `settling`; if it `gives_next`, give the process its next batch."""
        actions: list[Action] = []
        with self.scheduler.lock:
            now = monotonic()
            self.scheduler.note_batch_ended(process, numbers, now)
            if gives_next:
                actions = self._give_next_batch(process, now)
        self._finish(actions)

    def take_from_slow(self, process: WorkerProcess) -> None:
        """Give the tasks that a slow process has not begun to others."""
        with self.scheduler.lock:
            self._requeue_unclaimed(process)
        self.dispatch()

    def note_exited(self, process: WorkerProcess, code: int | None, *, forked: bool) -> Exit:
        with self.scheduler.lock:
            unclaimed = process.connection.withdraw_claims()
            exit_ = self.scheduler.note_exited(process, code, unclaimed=unclaimed, forked=forked, now=monotonic())
            process.connection.close()
        return exit_

    def abandon(self, process: WorkerProcess) -> list[WorkItem]:
        """Give up a process; return the tasks that are lost with it."""
        with self.scheduler.lock:
            if process.worker.process is not process:  # its exit was noted
                return process.tasks.list_unsettled()
            lost = self.scheduler.note_abandoned(process, process.connection.withdraw_claims(), monotonic())
            process.connection.close()
        return lost

    def requeue(self, item: WorkItem) -> None:
        with self.scheduler.lock:
            self.scheduler.requeue(item)
        self.dispatch()

    def do_without(self, worker: Worker) -> bool:
        """Give up a worker for which there are no descriptors, so that the others have them.

        Return False if it is the only one. It is asked for again later.
        """
        with self.scheduler.lock:
            notices = self.scheduler.give_up_worker(worker)
            self._notify(notices)
            if notices:
                self.threads.group.note_shortage()
            return worker.leaving

    def give_up(self, error: BaseException) -> bool:
        """End a pool whose workers can't start, if none is left that could run a task: queued ones get the cause.

        Return whether this has ended it.
        """
        with self.scheduler.lock:
            actions = self.scheduler.give_up(build_start_error(self.counters.name, error))
            rest = self._begin(actions)
        self._finish(rest)
        return bool(actions)

    def reopen(self) -> bool:
        """Accept tasks again if no worker could start, and try to start new ones; return whether that was so."""
        with self.scheduler.lock:
            reopened = self.scheduler.reopen()
        if reopened:
            with suppress(OSError, RuntimeError):  # no thread: the next task asks again
                self.start_workers()
        return reopened

    # Size

    def resize(self, size: int, reason: str) -> None:
        self.set_size(size, reason)
        self.start_workers()

    def set_size(self, size: int, reason: str) -> None:
        """Set the size. A pool without workers starts them with its first task."""
        with self.scheduler.lock:
            self._notify(self.scheduler.resize(size, reason))
            if not self.scheduler.workers:
                self.scheduler.needs_dispatch = True

    def start_workers(self) -> None:
        """Start the missing workers; see `WorkerThreads.start_missing`."""
        self.threads.start_missing(partial(run_worker, self))

    # The end

    def close(self, *, cancel_futures: bool = False, refusal: str = SHUTDOWN_MESSAGE) -> None:
        with self.scheduler.lock:
            if cancel_futures:
                for process in self.scheduler.list_holders():
                    self._requeue_unclaimed(process)
            actions = self._begin(self.scheduler.close(RuntimeError(refusal), cancel_queued=cancel_futures))
        self._finish(actions)

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait until all workers have exited, but not longer than the timeout; return whether they have."""
        return self.threads.group.join(timeout_seconds)

    def end_workers(self, grace_seconds: float) -> tuple[str, ...]:
        """End the workers with all that they started: TERM now, KILL after the grace. Return their names.

        Tasks that no worker has begun are cancelled.
        """
        with self.scheduler.lock:
            actions = self._begin(self.scheduler.end())
            processes = [(process, process.pid) for process in self.scheduler.iter_processes()]
        for process, _ in processes:
            end_process(process, grace_seconds)
        self._finish(actions)
        return tuple(f"{each.worker.name} ({f'pid {pid}' if pid else 'starting'})" for each, pid in processes)

    def reset_after_fork(self) -> None:
        """In a forked child: the workers are the parent's."""
        workers = self.scheduler.reset_after_fork(RuntimeError(lifetime.AFTER_FORK_MESSAGE))
        self.threads.group.reset(self.scheduler.lock)
        for worker in workers:
            if worker.process is not None:
                worker.process.connection.close()
            close_waker(worker)


def _ignore_unsendable(_future: TaskFuture[Any], _error: UnpicklableError) -> None:
    """Do nothing: the task's future has the error."""
