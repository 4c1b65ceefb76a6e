"""The workers of a ProcessPool: the places of the pool, the processes that take them, and the tasks of each process.

    Worker              a place of the pool, with one thread, from `add_worker` to `remove_worker`
      └ WorkerProcess   the process in that place, from its connection to its exit; the next one is another object
          └ AssignedTasks   the tasks that it holds

All that belongs to a process ends with its object, so that a late event of a process that has exited changes nothing
for the next one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import WorkerCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.batches import BATCH_TASKS, HELD_SECONDS, LONGEST_HELD_SECONDS, WorkItem

if TYPE_CHECKING:
    from paropt_exporter.executors.processes.transport import WorkerConnection

_SLOW_SECONDS = 0.01  # ten times the planned duration of a batch: more than a stall of the machine
_SLOWEST_SECONDS = 0.1  # the same if no other worker is idle, beside several stalls of a busy machine
_LEAST_MOVED_SECONDS = 0.001  # of tasks: ten times the cost of taking them back and sending them elsewhere
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.05, 5.0  # before a worker starts again
_MOST_DOUBLINGS = 10  # enough for the longest delay; a power without a bound would overflow one day


class WorkerState(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"


class Worker:
    """A place of the pool. Its process changes when it dies or is used up; name, thread and totals stay."""

    __slots__ = (
        "counters", "cpu_seconds", "delay_seconds", "failures", "initializer_error", "learned", "leaving", "name",
        "process", "slot_seconds", "thread", "waker",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: WorkerProcess | None = None
        self.thread = 0  # its thread's identifier, once that runs
        self.waker: int | None = None  # the event descriptor on which its thread waits; see `WorkerThreads`
        self.leaving = False  # no other process takes the place: it is removed after the exit of the present one
        # Of its starts:
        self.failures = 0  # in a row: processes that could not be made, or that ended before they were of any use
        self.initializer_error: BaseException | None = None  # since the last process that was ready
        self.learned = False  # whether a module that the initializer lacked travels by value now
        # Totals, which its thread writes without the lock; `slot_seconds`, of ended processes, under it:
        self.counters = WorkerCounters()
        self.slot_seconds = self.cpu_seconds = self.delay_seconds = 0.0

    def __repr__(self) -> str:
        held = self.process.tasks.held_tasks if self.process is not None else 0
        return f"{self.name}: {self.state}{f' {held}' if held else ''}"

    @property
    def state(self) -> WorkerState:
        if self.leaving:
            return WorkerState.DRAINING
        if self.process is None or not self.process.is_ready:
            return WorkerState.STARTING
        return WorkerState.BUSY if self.process.tasks.batches else WorkerState.IDLE

    @property
    def is_ready(self) -> bool:
        """Whether its process has run the initializer."""
        process = self.process
        return process is not None and process.is_ready

    @property
    def retry_delay_seconds(self) -> float:
        """How long to wait before the next process: the longer, the more of them failed."""
        if not self.failures:
            return 0.0
        doublings = min(self.failures - 1, _MOST_DOUBLINGS)
        return min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0**doublings)


class WorkerProcess:
    """One process of a worker.

    `leaving` of its worker implies `dismissed`; the reverse does not hold: a process that is used up is replaced.
    """

    __slots__ = (
        "blocked", "connection", "cpu_base_seconds", "dismissed", "pid", "ready_seconds", "samples", "sending",
        "stopping", "tasks", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker, connection: WorkerConnection) -> None:
        self.worker = worker
        self.connection = connection
        self.tasks = AssignedTasks()
        self.pid, self.ready_seconds = 0, 0.0  # 0 until it is ready
        self.dismissed = False  # it gets no more tasks, and exits after those that it has
        self.stopping: TaskFuture[Any] | None = None  # the task whose stop ends the process
        # The batches on their way, by the thread that sends: the tasks while they are not offered yet, then None.
        self.sending: dict[int, list[WorkItem] | None] = {}
        self.blocked = False  # a part of a batch waits for room in the socket
        self.cpu_base_seconds = 0.0  # the CPU time of its tree at its last reply
        self.samples = UsageSamples()

    @property
    def is_ready(self) -> bool:
        return self.pid != 0

    @property
    def is_available(self) -> bool:
        """Whether it may be given tasks."""
        return not (self.dismissed or self.stopping)

    @property
    def has_room(self) -> bool:
        """Whether it is busy and may hold more: all of its tasks are known to be short, and no batch is on its way."""
        tasks = self.tasks
        return (
            0 < tasks.held_tasks <= BATCH_TASKS
            and tasks.held_seconds <= (LONGEST_HELD_SECONDS if len(tasks.batches) == 1 else HELD_SECONDS)
            and not (tasks.slow or self.dismissed or self.stopping)
            and not (self.sending or self.blocked)
        )

    def note_ready(self, pid: int, now: float) -> None:
        self.pid, self.ready_seconds, self.worker.initializer_error = pid, now, None

    def account(self, cpu_seconds: float, delay_seconds: float, total_cpu_seconds: float) -> None:
        """Add the usage of a task or batch. For the worker's own thread, without the lock."""
        self.worker.cpu_seconds += cpu_seconds
        self.worker.delay_seconds += delay_seconds
        self.cpu_base_seconds = total_cpu_seconds


class UsageSamples:
    """The values that `UsageSampler` keeps of a process from one sample to the next; the scheduler's lock guards them.

    `first_delay`: the start of the batch that was sampled last, and the process's run delay when it was first sampled,
    so that a batch that is never sampled costs no read. `unreported_delay`: the least run delay so far, less that of
    ended tasks. `tree_time`: of its threads and descendants.
    """

    __slots__ = ("first_delay", "tree_time", "unreported_delay")

    def __init__(self) -> None:
        self.first_delay, self.unreported_delay = (-1.0, 0.0), math.inf
        self.tree_time = TreeTime()


class Batch(NamedTuple):
    """`single`: the number of the only task, whose reply finishes the batch; -1: the process's word does."""

    task_count: int
    expected_seconds: float
    single: int


_make_batch = tuple.__new__  # which Batch's constructor calls, at a quarter of its cost


class AssignedTasks:
    """The tasks that one process holds, by their numbers, and the batches in which it got them.

        add_batch ──> assigned ──(reply)──> settling ──(its future settles)──> gone
                         └──(not begun)──> taken back, for the queue

    A task's number is the count of those before it. The process claims tasks in this order, so the tasks that it has
    not begun are the last ones, as many as it left claims. A batch is finished by the process's word, not by the
    replies to its tasks, some of which may have been taken back.
    """

    __slots__ = (
        "assigned", "batch_seconds", "batches", "held_seconds", "held_tasks", "is_unsure", "next_number", "settling",
        "slow", "slow_seconds",
    )  # fmt: skip

    def __init__(self) -> None:
        self.assigned: dict[int, WorkItem] = {}  # sent or being sent, and not ended
        self.settling: dict[int, WorkItem] = {}  # ended; the worker's thread removes them without the lock
        self.next_number = 0
        self.batches: deque[Batch] = deque()  # unfinished ones
        self.held_tasks, self.held_seconds = 0, 0.0  # sums over `batches`
        self.batch_seconds = 0.0  # when the process began the oldest batch
        self.slow_seconds = 0.0  # when to take back unclaimed tasks, if the oldest batch is unfinished by then
        self.slow = False  # its unclaimed tasks were taken back: it gets no more until all batches are finished
        self.is_unsure = False  # some of its claims were withdrawn, and it is unknown how many: until its exit

    def add_batch(self, items: list[WorkItem], expected_seconds: float, now: float) -> int:
        """Add the tasks of a batch; return the number of the first. An interrupt may leave it half done."""
        count, first, begins = len(items), self.next_number, not self.batches
        if count == 1:
            self.assigned[first] = items[0]
        else:
            self.assigned.update(enumerate(items, first))
        self.next_number += count
        if begins:
            self.slow = False
            self.batch_seconds, self.slow_seconds = now, now + _SLOW_SECONDS
        self.batches.append(_make_batch(Batch, (count, expected_seconds, first if count == 1 else -1)))
        self.held_tasks += count
        self.held_seconds += expected_seconds
        return first

    def end_tasks(self, numbers: Collection[int]) -> None:
        """Move tasks that have ended to `settling`, out of reach of a stop and of the process's exit."""
        if len(numbers) == len(self.assigned) and not self.settling:
            self.settling, self.assigned = self.assigned, self.settling
            return
        for number in numbers:
            self.settling[number] = self.assigned.pop(number)

    def finish_batch(self, now: float) -> None:
        count, expected_seconds, _ = self.batches.popleft()
        self.held_tasks -= count
        if self.batches:
            self.held_seconds -= expected_seconds
            self.batch_seconds, self.slow_seconds = now, now + _SLOW_SECONDS
        else:
            self.held_seconds = 0.0

    def list_from(self, first: int) -> list[WorkItem]:
        """Return the tasks from number `first` on."""
        return [self.assigned[number] for number in sorted(self.assigned) if number >= first]

    def list_unsettled(self) -> list[WorkItem]:
        return [item for item in self.assigned.values() if not item.future.done()]

    def drop_from(self, first: int) -> None:
        """Remove the tasks from number `first` on. Their numbers are given again."""
        self.assigned = {number: item for number, item in self.assigned.items() if number < first}
        self.next_number = first
        self.batches = deque(batch._replace(single=-1) if batch.single >= first else batch for batch in self.batches)

    def take_back_unbegun(self) -> list[WorkItem]:
        """Remove and return the tasks that a process which has ended had certainly not begun.

        All results of ended tasks have been read. It was running the first of the others, unless it has finished all
        batches.
        """
        first = min(self.assigned, default=0) + bool(self.batches)
        items = self.list_from(first)
        self.drop_from(first)
        return items

    def drop(self, items: list[WorkItem]) -> None:
        """Remove the last tasks, as far as an interrupted `add_batch` has added them."""
        for number, item in tuple(self.assigned.items()):
            if any(item is other for other in items):
                self.next_number = min(self.next_number, number)
                del self.assigned[number]

    def find_number(self, future: TaskFuture[Any]) -> int | None:
        """Return the number of an assigned task."""
        return _find_number(future, self.assigned)

    def is_settling(self, future: TaskFuture[Any]) -> bool:
        return _find_number(future, self.settling) is not None

    def get_slow_delay(self, now: float) -> float | None:
        """Return how long the batch may still take; None if there are no unclaimed tasks to take back."""
        if self.slow or not self.may_hold_unbegun:
            return None
        return max(0.0, self.slow_seconds - now)

    def wait_longer(self, now: float) -> bool:
        """Give a slow batch more time, since no other worker is idle; return False once that has passed, too."""
        self.slow_seconds = self.batch_seconds + _SLOWEST_SECONDS
        return now < self.slow_seconds

    def is_worth_moving(self, now: float) -> bool:
        """Return whether an idle worker should get the tasks that the process has not begun."""
        if self.slow or not self.may_hold_unbegun:
            return False
        unbegun_seconds = self.held_seconds - self.batches[0].expected_seconds
        return unbegun_seconds >= _LEAST_MOVED_SECONDS or self.is_slow(now)

    def is_slow(self, now: float) -> bool:
        return now >= self.batch_seconds + _SLOW_SECONDS

    @property
    def may_hold_unbegun(self) -> bool:
        """Whether there may be tasks that the process has not claimed. A single one is claimed at once."""
        return len(self.batches) > 1 or (len(self.batches) == 1 and self.batches[0].single < 0)


def _find_number(future: TaskFuture[Any], tasks: dict[int, WorkItem]) -> int | None:
    # A copy: a signal handler or a finalizer may change it in between.
    return next((number for number, item in tuple(tasks.items()) if item.future is future), None)
