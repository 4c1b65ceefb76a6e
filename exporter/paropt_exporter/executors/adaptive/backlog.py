"""The tasks of an AdaptivePool that have not ended: queued, on their way to a pool, or submitted to one."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, NamedTuple

from paropt_exporter.executors.adaptive.routing import PoolName
from paropt_exporter.executors.base import PROCESSES, THREADS
from paropt_exporter.executors.future import TaskFuture, get_label, get_module
from paropt_exporter.executors.worker.payload import MappedFunction


class QueuedTask(NamedTuple):
    """A task that has not been submitted to a pool yet."""

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


def get_function_key(function: Callable[..., Any]) -> str:
    if type(function) is FunctionType:  # as the general case, in half of the time
        return f"{function.__module__}.{function.__qualname__}"
    return f"{get_module(function)}.{get_label(function)}"


class Backlog:
    """The queued tasks by function, those in transit to a pool, and the submitted ones.

        enqueue() ──> queued ──take()──> in transit, submitted ──note_arrival()──> submitted ──end()──> gone
                        ^                    │
                        └────take_back()─────┘ (an interrupt of the thread that submits it)

    Callers hold the scheduler's lock, except for single reads of `submitted` and `counts`. A task takes a place in its
    pool from `take` on. The tasks of a function leave the queue in the order in which they came. A signal handler or
    finalizer that interrupts a method may call any other one, except that only one removes tasks from the queue at a
    time: see `AdaptiveScheduler._pop_startable`.
    """

    def __init__(self) -> None:
        self.queued: OrderedDict[str, deque[QueuedTask]] = OrderedDict()
        self.submitted: dict[TaskFuture[Any], SubmittedTask] = {}
        self.counts: dict[PoolName, int] = {THREADS: 0, PROCESSES: 0}  # of submitted tasks
        self.has_ended_tasks = False
        self.dropped: deque[QueuedTask] = deque()  # cancelled tasks of which waiting threads are not notified yet
        # The tasks that threads are submitting to a pool now, with the thread's identifier.
        self._in_transit: dict[TaskFuture[Any], tuple[int, QueuedTask]] = {}

    def enqueue(self, task: QueuedTask) -> bool:
        """Queue a task. Return whether one of its function is queued before it that the end of a submitted task starts.

        Then there is nothing to decide, unless an interrupt came after that one had been queued.
        """
        key = task.key
        tasks = self.queued.setdefault(key, deque())
        is_behind = bool(tasks and self.submitted)
        tasks.append(task)
        if self.queued.get(key) is not tasks:  # a signal handler or finalizer has dropped it
            self.queued[key] = tasks + self.queued.get(key, deque())
        return is_behind

    def withdraw(self, task: QueuedTask) -> bool:
        """Remove a task from its queue; return False if it has left it."""
        try:
            self.queued[task.key].remove(task)
        except (KeyError, ValueError):
            return False
        return True

    def drop_queue(self, key: str) -> None:
        """Drop the queue of a function, unless a task has just come."""
        if tasks := self.queued.pop(key):
            self.queued[key] = tasks + self.queued.get(key, deque())

    def drop_done(self, key: str) -> bool:
        """Drop cancelled and stopped tasks from the start of a queue; return whether there were any."""
        tasks, dropped = self.queued[key], False
        while tasks and tasks[0].future.done():
            self.dropped.append(tasks[0])  # first: an interrupt may follow
            tasks.popleft()
            dropped = True
        return dropped

    def notify_dropped(self) -> None:
        """Notify waiting threads of the dropped tasks' cancellation. Without the lock: see `TaskFuture`."""
        for task in self.dropped.copy():
            task.future.notify_cancelled()
            with contextlib.suppress(ValueError):  # another thread has removed it
                self.dropped.remove(task)  # last: an interrupt may come before

    def take(self, key: str, pool_name: PoolName, *, profiled: bool) -> QueuedTask:
        """Take the first task of a queue for a pool, and let the next function take its turn."""
        tasks = self.queued[key]
        task = tasks[0]
        self._in_transit[task.future] = threading.get_ident(), task  # first: see `take_back`
        tasks.popleft()
        self.counts[pool_name] += 1
        self.submitted[task.future] = SubmittedTask(pool_name, key, profiled)
        if tasks:
            self.queued.move_to_end(key)
        else:
            self.drop_queue(key)
        return task

    def note_arrival(self, task: QueuedTask) -> None:
        """Note that the task's pool has it, or has refused it."""
        self._in_transit.pop(task.future, None)

    def take_back(self) -> None:
        """After an interrupt of the calling thread, queue the tasks again that it was submitting.

        A pool may have received one before the interrupt, and then receives it twice. It runs once: its future refuses
        the second claim.
        """
        for task in self.pop_in_transit():
            self.submitted.pop(task.future, None)
            tasks = self.queued.setdefault(task.key, deque())
            if not any(task is other for other in tasks):
                tasks.appendleft(task)
        self._recount()

    def _recount(self) -> None:
        self.counts = {THREADS: 0, PROCESSES: 0}
        for submitted in tuple(self.submitted.values()):
            self.counts[submitted.pool_name] += 1

    def pop_in_transit(self) -> list[QueuedTask]:
        """Return the tasks that the calling thread was submitting, and forget that it was."""
        me = threading.get_ident()
        mine = [task for thread, task in tuple(self._in_transit.values()) if thread == me]
        for task in mine:
            self._in_transit.pop(task.future, None)
        return mine

    def move_to_threads(self, future: TaskFuture[Any]) -> None:
        """Count a task of the process pool as a task of the thread pool, unless it was stopped."""
        if future in self.submitted:
            self.submitted[future] = self.submitted[future]._replace(pool_name=THREADS)
            self.counts[PROCESSES] -= 1
            self.counts[THREADS] += 1

    def end(self, future: TaskFuture[Any]) -> SubmittedTask | None:
        """Remove a submitted task; return None if it was not submitted, or was stopped meanwhile."""
        submitted = self.submitted.pop(future, None)
        if submitted is not None:
            self.counts[submitted.pool_name] -= 1
        return submitted

    def end_cancelled(self) -> None:
        """Remove submitted tasks that were cancelled: an interrupt of `cancel` loses the callbacks of its future.

        It may also come in the middle of `end`, so the rest is counted again.
        """
        for future in tuple(self.submitted):
            if future.cancelled():
                self.submitted.pop(future, None)
        self._recount()

    def runs(self, key: str) -> bool:
        """Return whether a task of this function is submitted."""
        return self.get_submitted(key) is not None

    def get_submitted(self, key: str) -> TaskFuture[Any] | None:
        """Return a submitted task of this function, if there is one."""
        return next((future for future, task in tuple(self.submitted.items()) if task.key == key), None)

    def runs_in_process(self, key: str) -> bool:
        return any(task.pool_name == PROCESSES and task.key == key for task in tuple(self.submitted.values()))

    def is_queued(self, future: TaskFuture[Any]) -> bool:
        return any(task.future is future for task in self.iter_queued())

    def iter_queued(self) -> Iterator[QueuedTask]:
        for tasks in tuple(self.queued.values()):
            yield from tuple(tasks)

    def count_queued(self) -> int:
        return sum(map(len, self.queued.values()))

    @property
    def is_passed_on(self) -> bool:
        """Whether every task has reached its pool."""
        return not any(self.queued.values()) and not self._in_transit

    @property
    def is_empty(self) -> bool:
        """Whether all tasks have ended."""
        return not any(self.queued.values()) and not self.submitted

    def clear(self) -> None:
        self.queued, self.submitted, self._in_transit, self.dropped = OrderedDict(), {}, {}, deque()
