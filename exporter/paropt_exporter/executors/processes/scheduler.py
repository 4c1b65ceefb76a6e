"""Decides which worker of a ProcessPool gets which tasks and how many workers there are. It does no I/O.

A task here is a work item: a function with its arguments and its future.

    submit() ──> queue ──> batch of a worker ──> ended ──> settled
                   ^           │ not begun, and the worker is slow, exits or is stopped
                   └───────────┘

    worker:  starting ──> idle <──> busy ──> draining ──> gone
                ^           └────────┴──> exited ──┐
                └────── waits to start again <─────┘

Each method is an event. It changes the state and returns actions for the manager to carry out:

    Send     a batch of tasks to a worker       Dismiss  a worker, which exits after its tasks
    Kill     a worker and its process group     Wake     a worker's thread
    Cancel   a task, and withdraw it            Fail     a task that was not begun

Guarantees:
  * Only this module writes the state of the workers and the queue, and callers hold the manager's lock. Exceptions,
    each with one writer: `submit` appends to `queue`; a worker's thread removes tasks from `settling` as it settles
    them, counts them in `counters`, and calls `account`.
  * A task is in one place: the queue, `assigned` to one worker, or `settling`. It is begun once, settled once, and
    runs once: it goes back to the queue only if no worker has claimed it.
  * A waiting task and an idle worker never miss each other: `submit` appends, then reads `needs_dispatch`. A worker
    joins `idle`, sets `needs_dispatch`, then reads the queue.
  * A worker holds one task, or several of functions known to be short (see `batches`). If they take longer all the
    same, the ended ones are settled and those not begun go to others.
  * Batches reach a worker in the order of their numbers: it gets no other batch while one is being sent.
  * A worker gets no task after it was dismissed or while it is being stopped.
  * An interrupt (Ctrl-C, no memory) of a thread that submits costs a worker, which `recover` has replaced, and no task.
  * A worker that is starting is not dismissed until it is ready: the next resize may need it, and otherwise a series
    of resizes on a slow machine would have any number of processes starting and exiting.
  * The last worker that is ready is not dismissed for its number while others start: tasks would wait for these.

The fast path for short tasks stays within these rules. A worker's thread moves a finished batch to `settling` and gets
the next batch in one pass under the lock, then settles the futures without it. `submit` appends without the lock as
long as no worker is idle and the queue is shorter than `prefetch_length`; beyond that it has a busy worker `prefetch`.
"""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Collection
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from paropt_exporter.executors.base import check_size
from paropt_exporter.executors.counters import PoolCounters, WorkerCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.batches import (
    BATCH_SECONDS,
    BATCH_TASKS,
    Durations,
    WorkItem,
    put_back,
    take_batch,
)
from paropt_exporter.executors.worker import wire

if TYPE_CHECKING:
    from paropt_exporter.executors.processes.transport import WorkerConnection

MOST_WORKERS = 1024  # processes; a larger size is a typing error

_PREFETCH_TASKS = 256  # queued tasks per worker that are worth a second batch for a busy worker
_SLOW_SECONDS = 0.01  # ten times the planned duration of a batch: more than a stall of the machine
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.05, 5.0  # before a worker starts again
_MOST_DOUBLINGS = 10  # enough for the longest delay; a power without a bound would overflow one day
_MOST_EARLY_EXITS = 3  # in a row before the worker was ready: its start is at fault
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, None)  # the worker or its fork server was killed, perhaps from outside
_MOST_FAILED_STARTS = 10  # in a row, over some 20 s, without a process or with one that was killed: it may pass


_NONE: list[WorkItem] = []  # stays empty


class WorkerState(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"


class Worker:
    """One worker's place in its pool. Its process changes when it dies or is used up; the place stays."""

    __slots__ = (
        "assigned", "assigned_tasks", "batch_seconds", "batches", "blocked", "connection", "counters",
        "cpu_base_seconds", "cpu_seconds", "delay_seconds", "failures", "held_seconds", "held_tasks",
        "initializer_error", "learned", "leaving", "name", "next_number", "pid", "ready_seconds", "recycled",
        "sending", "settling", "single", "slot_seconds", "slow", "stopping",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.counters = WorkerCounters()  # written by the worker's thread, as it settles
        # Of the process:
        self.connection: WorkerConnection | None = None
        self.pid = 0
        self.ready_seconds: float | None = None
        self.leaving = False  # exits after its tasks, and its place is removed
        self.recycled = False  # exits after its tasks, and another process takes its place
        self.stopping: TaskFuture[Any] | None = None  # the task whose stop ends the process
        # Of its tasks:
        self.assigned: dict[int, WorkItem] = {}  # by number; sent or being sent, and not ended
        self.settling: dict[int, WorkItem] = {}  # ended, their futures not yet settled
        self.next_number = 0
        self.batches: deque[tuple[int, float]] = deque()  # unfinished ones: number of tasks, expected seconds
        self.held_tasks, self.held_seconds = 0, 0.0  # sums over `batches`
        self.batch_seconds = 0.0  # when the worker began the eldest batch
        self.single = -1  # the number of a task that is a batch of its own: its reply finishes the batch
        self.slow = False  # its unclaimed tasks were taken back: it gets no more until all batches are finished
        self.assigned_tasks = 0  # that this process was given
        self.sending: dict[int, list[WorkItem]] = {}  # by thread: of a batch that is not sent, the tasks not offered
        self.blocked = False  # a part of a batch waits for room in the socket
        # Of its starts:
        self.failures = 0  # in a row: processes that could not be made, or that ended before they were of any use
        self.initializer_error: BaseException | None = None
        self.learned = False  # whether a module that the initializer lacked travels by value now
        # Totals:
        self.slot_seconds = self.cpu_seconds = self.delay_seconds = self.cpu_base_seconds = 0.0

    def __repr__(self) -> str:
        held = f" {self.held_tasks}" if self.held_tasks else ""
        return f"{self.name}: {self.state}{held}"

    @property
    def state(self) -> WorkerState:
        if self.leaving:
            return WorkerState.DRAINING
        if self.ready_seconds is None:
            return WorkerState.STARTING
        return WorkerState.BUSY if self.batches else WorkerState.IDLE

    @property
    def is_available(self) -> bool:
        """Whether it may be given tasks, as far as it is not about to exit."""
        return not (self.leaving or self.recycled or self.stopping)

    @property
    def has_room(self) -> bool:
        """Whether a busy worker may hold more: all of its tasks are known to be short."""
        return (
            0 < self.held_tasks <= BATCH_TASKS
            and self.held_seconds <= BATCH_SECONDS
            and not (self.slow or self.leaving or self.recycled or self.stopping)
            and not (self.sending or self.blocked)
            and self.connection is not None
        )

    @property
    def retry_delay_seconds(self) -> float:
        """How long to wait before the next process: the longer, the more of them failed."""
        if not self.failures:
            return 0.0
        doublings = min(self.failures - 1, _MOST_DOUBLINGS)
        return min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0**doublings)

    def get_slow_delay(self, now: float) -> float | None:
        """Return how long its batch may still take; None if there are no unclaimed tasks to take back."""
        if self.slow or not self.batches or (len(self.batches) == 1 and self.single >= 0):
            return None
        return max(0.0, self.batch_seconds + _SLOW_SECONDS - now)


class Send(NamedTuple):
    """A batch for a worker. `single`: the one task is a batch of its own, and its reply finishes the batch.

    Its claims are offered before the lock is released, see `Scheduler.note_offered`; it is sent afterwards.
    """

    worker: Worker
    connection: WorkerConnection
    sender: int
    first_number: int
    items: list[WorkItem]
    single: bool


_make_send = tuple.__new__  # which Send's constructor calls, at a quarter of its cost


class Dismiss(NamedTuple):
    worker: Worker


class Wake(NamedTuple):
    worker: Worker


class Kill(NamedTuple):
    """TERM now, KILL after the grace."""

    pid: int
    grace_seconds: float


class Cancel(NamedTuple):
    item: WorkItem


class Fail(NamedTuple):
    item: WorkItem
    error: BaseException


Action = Send | Dismiss | Wake | Kill | Cancel | Fail


class Exit(NamedTuple):
    """The consequences of a worker's exit."""

    lost: list[WorkItem]  # claimed and not ended
    pid: int
    unexpected: bool  # neither asked for, nor caused by a task
    gives_up: bool  # the workers of this pool can't start


class Scheduler:
    """The queue and the workers of one pool; see the module's docstring."""

    def __init__(
        self,
        counters: PoolCounters,
        most_tasks_per_worker: int | None,
        *,
        prefetch_tasks: int = _PREFETCH_TASKS,
    ) -> None:
        self.queue: deque[WorkItem] = deque()
        self.durations = Durations()
        self.workers: list[Worker] = []
        self.idle: list[Worker] = []
        self.target = 0
        self.closed: Exception | None = None  # once closed: the exception that `submit` raises
        self.needs_dispatch = False  # whether a submit has to call `dispatch`: a worker is idle, or the pool is closed
        self.prefetch_length: float = math.inf  # with so many queued tasks a submit has to call `prefetch`
        self._counters = counters
        self._most_tasks = most_tasks_per_worker
        self._prefetch_tasks = prefetch_tasks
        self._made = 0
        self._is_ending = False

    def __repr__(self) -> str:
        workers = ", ".join(map(repr, self.workers))
        return f"<Scheduler: {len(self.queue)} queued; {workers or 'no workers'}>"

    # Size

    def resize(self, size: int, reason: str) -> list[Action]:
        """Set the target. Surplus idle workers exit now, others after their tasks; `add_worker` makes missing ones.

        ValueError if the size or the reason is invalid.
        """
        size = check_size(size, MOST_WORKERS, "processes")
        self._counters.count_resize(self.target, size, reason)
        self.target = size
        actions: list[Action] = []
        while self.idle and self._is_surplus(self.idle[0]):
            actions.append(self._dismiss(self.idle.pop(0)))
        for worker in self.workers:
            waits = worker.failures and worker.connection is None and not worker.leaving
            if waits and self.surplus > 0:
                actions.append(self._dismiss(worker))
        self._note_idle()
        return actions

    @property
    def surplus(self) -> int:
        """How many workers there are too many; below 0: how many are missing."""
        return sum(not worker.leaving for worker in self.workers) - self.target

    def add_worker(self) -> Worker | None:
        """Add a worker that is missing, for the manager to start; None if none is."""
        if self.closed or self.surplus >= 0:
            return None
        worker = Worker(f"{self._counters.name}-{self._made}")
        self._made += 1
        self.workers.append(worker)
        return worker

    def give_up_worker(self, worker: Worker) -> list[Action]:
        """Give up the place of a worker for which the system has no descriptors, unless it is the only one."""
        others = any(other is not worker and not other.leaving for other in self.workers)
        if worker.leaving or not others:
            return []
        return [self._dismiss(worker), *self.wake_all()]  # one of the others asks for it again

    def remove_worker(self, worker: Worker) -> None:
        """Forget a worker that has left, and keep its totals."""
        self.workers.remove(worker)
        self._counters.exited.add(worker.counters)
        self._counters.slot_seconds += worker.slot_seconds
        self._counters.cpu_seconds += worker.cpu_seconds
        self._counters.run_delay_seconds += worker.delay_seconds

    # Tasks for workers

    def dispatch(self, now: float, sender: int) -> list[Action]:
        """Give queued tasks to idle workers. `sender`: the thread that sends."""
        if self._is_ending:
            return [Cancel(item) for item in self.queue.copy()]
        actions: list[Action] = []
        while self.idle and self.queue:
            worker = self.idle.pop()
            batch = self._assign(worker, now, sender)
            if batch is None:
                self.idle.append(worker)
                break
            actions.append(batch)
        self._note_idle()
        return actions

    def withdraw(self, item: WorkItem) -> bool:
        """Remove a task from the queue; return whether it was there."""
        if item not in self.queue:
            return False
        self.queue.remove(item)
        return True

    def prefetch(self, now: float, sender: int) -> list[Action]:
        """Give the busy worker that holds fewest tasks another batch, since its thread may not run soon."""
        workers = [worker for worker in self.workers if worker.has_room] if self._may_prefetch() else []
        worker = min(workers, key=lambda worker: worker.held_tasks, default=None)
        batch = None if worker is None else self._assign(worker, now, sender)
        if batch is None:
            self.prefetch_length = math.inf  # until a worker finishes a batch
            return []
        return [batch]

    def give_next_batch(self, worker: Worker, now: float, sender: int) -> list[Action]:
        """Give a worker that finished a batch its next one, add it to the idle ones, or dismiss it."""
        if worker.batches:
            self.prefetch_length = self._prefetch_tasks * len(self.workers)
            if len(self.queue) < self.prefetch_length or not worker.has_room or not self._may_prefetch():
                return []
            batch = self._assign(worker, now, sender)
            return [] if batch is None else [batch]
        while worker.is_available and not worker.blocked:
            if self._most_tasks is not None and worker.assigned_tasks >= self._most_tasks:
                return [self._dismiss(worker, recycle=True)]
            if self._is_surplus(worker) or (self.closed and not self.queue):
                return [self._dismiss(worker)]
            batch = self._assign(worker, now, sender) if self.queue else None
            if batch is not None:
                return [batch]
            self.idle.append(worker)
            self.needs_dispatch = True
            # A submit that did not see this worker idle has appended its task before: look once more.
            if not self.queue and not self.closed:
                break
            self._remove_idle(worker)
        return []

    def restore_idle(self, worker: Worker, now: float, sender: int) -> list[Action]:
        """Feed a worker that an interrupt has left without tasks and outside the idle ones."""
        if worker.ready_seconds is None or worker.batches or worker in self.idle:
            return []
        return self.give_next_batch(worker, now, sender)

    def note_offered(self, batch: Send) -> None:
        """Note that the worker may claim the batch's tasks: from here on its claims tell which ones it has begun."""
        batch.worker.sending[batch.sender] = _NONE

    def note_sent(self, batch: Send, *, whole: bool) -> None:
        """Note that a batch was sent; if not `whole`, the worker's thread sends the rest, then `note_flushed` comes."""
        worker = batch.worker
        if worker.connection is batch.connection:
            worker.blocked = worker.blocked or not whole
            worker.sending.pop(batch.sender, None)

    def note_flushed(self, worker: Worker) -> None:
        worker.blocked = False

    def recover(self, sender: int) -> list[Action]:
        """Restore the state after an interrupt of thread `sender` in a transition or while it sent.

        How much of a batch the worker has received is unknown. So it is dismissed: it runs the whole batches that it
        has and exits, and the tasks that it has not begun by then go to others.
        """
        actions: list[Action] = []
        for worker in self.workers:
            if sender in worker.sending and not worker.leaving:
                worker.slow = True
                worker.recycled = True
            if worker.leaving or worker.recycled:
                actions.append(Dismiss(worker))  # once more: the interrupt may have come before the first was done
        self.needs_dispatch = True
        return [*actions, *self.wake_all()]  # a worker that is in no list adds itself

    # A worker's life

    def note_connected(self, worker: Worker, connection: WorkerConnection) -> list[Action]:
        """Note a new process of a worker, which can be sent to."""
        worker.connection = connection
        worker.recycled = worker.blocked = False
        worker.sending = {}
        return [Dismiss(worker)] if worker.leaving else []

    def note_ready(self, worker: Worker, pid: int, now: float) -> None:
        worker.pid, worker.ready_seconds, worker.initializer_error = pid, now, None

    def note_refused(self, worker: Worker, error: BaseException, *, learned: bool) -> None:
        """Note that the initializer failed; `learned`: it lacked a module that travels by value from now on."""
        worker.initializer_error = error
        if learned:
            worker.learned = worker.recycled = True

    def note_failed_start(self, worker: Worker) -> bool:
        """Note that the system gave no process; return whether it is time to give up."""
        worker.failures += 1
        return worker.failures >= _MOST_FAILED_STARTS

    def note_task_ended(self, worker: Worker, number: int, now: float) -> bool:
        """Move a task to `settling`; return whether its reply finished a batch."""
        worker.failures = 0
        worker.settling[number] = worker.assigned.pop(number)
        if number != worker.single:
            return False
        worker.single = -1
        self._finish_batch(worker, now)
        return True

    def note_batch_ended(self, worker: Worker, numbers: Collection[int], now: float) -> None:
        """Move the tasks of a batch whose replies were read together to `settling`."""
        worker.failures = 0
        self.move_to_settling(worker, numbers)
        self._finish_batch(worker, now)

    def move_to_settling(self, worker: Worker, numbers: Collection[int]) -> None:
        """Move tasks that have ended out of reach of `stop` and `note_exited`."""
        if len(numbers) == len(worker.assigned) and not worker.settling:
            worker.settling, worker.assigned = worker.assigned, worker.settling
            return
        for number in numbers:
            worker.settling[number] = worker.assigned.pop(number)

    def note_exited(self, worker: Worker, code: int | None, *, unclaimed: int, forked: bool, now: float) -> Exit:
        """Note that a worker's process has ended and that all its replies were read.

        `unclaimed`: the claims that it left. `forked`: whether there was a process at all.
        """
        self.requeue_unclaimed(worker, unclaimed)
        lost, pid, ready = list(worker.assigned.values()), worker.pid, worker.ready_seconds is not None
        asked = worker.leaving or worker.recycled
        if lost or (forked and not asked):
            self._counters.deaths[_death_cause(worker, code)] += 1
        self._reset(worker, now)
        worker.leaving = worker.leaving or self._is_surplus(worker)  # it need not start again
        unexpected = forked and not asked and not lost
        worker.failures += unexpected
        most = _MOST_FAILED_STARTS if code in _KILLED else _MOST_EARLY_EXITS
        return Exit(lost, pid, unexpected, unexpected and not ready and worker.failures >= most)

    def note_abandoned(self, worker: Worker, unclaimed: int, now: float) -> list[WorkItem]:
        """Note that a worker's thread can't go on with its process; return the tasks that are lost with it."""
        self.requeue_unclaimed(worker, unclaimed)
        lost = [*worker.settling.values(), *worker.assigned.values()]
        self._counters.deaths["signal"] += 1
        self._reset(worker, now)
        return lost

    def account(self, worker: Worker, cpu_seconds: float, delay_seconds: float, total_cpu_seconds: float) -> None:
        """Add the usage of a task or batch. For the worker's own thread, without the lock."""
        worker.cpu_seconds += cpu_seconds
        worker.delay_seconds += delay_seconds
        worker.cpu_base_seconds = total_cpu_seconds

    # Tasks that don't run

    def requeue(self, item: WorkItem) -> None:
        """Put a task that could not be loaded in front of the queue: it was not begun."""
        item.future.reset_to_pending()
        self.queue.appendleft(item)

    def requeue_unclaimed(self, worker: Worker, unclaimed: int) -> None:
        """Put the last `unclaimed` tasks of a worker in front of the queue. Its claims were withdrawn before."""
        self._take_back_unoffered(worker)
        worker.slow = bool(worker.batches)
        if not worker.assigned:
            return
        first = worker.next_number - unclaimed
        items = [worker.assigned.pop(number) for number in sorted(worker.assigned) if number >= first]
        worker.next_number = first
        if worker.single >= first:
            worker.single = -1
        put_back(self.queue, items)

    def find_queued(self, future: TaskFuture[Any]) -> WorkItem | None:
        """Return the queued task of a future that has not ended."""
        found = (item for item in self.queue.copy() if item.future is future and not future.done())
        return next(found, None)

    def find_worker(self, future: TaskFuture[Any]) -> Worker | None:
        """Return the worker that a task is assigned to."""
        return next((worker for worker in self.workers if _numbers_of(future, worker.assigned)), None)

    def stop(
        self, future: TaskFuture[Any], error: BaseException, *, unclaimed: int, grace_seconds: float
    ) -> tuple[bool | None, list[Action]]:
        """Stop a task. `unclaimed`: of the worker that `find_worker` returned, whose claims were withdrawn.

        Return True and the action that ends its worker if it runs, False if it has ended, None if it was not begun:
        then its future may be settled now.
        """
        worker = self.find_worker(future)
        if worker is None:
            return (False if any(_numbers_of(future, worker.settling) for worker in self.workers) else None), []
        (number,) = _numbers_of(future, worker.assigned)
        self.requeue_unclaimed(worker, unclaimed)
        if number >= worker.next_number:
            return None, []
        # Only the task that was claimed last can be running. Earlier ones have ended, though their results were not
        # read yet: killing the worker would hit another task.
        if number < worker.next_number - 1 or not future.fail_on_exit(error):
            return False, []
        worker.stopping = future
        return True, [Kill(worker.pid, grace_seconds)]

    def count_unsubmitted(self) -> None:
        """Count a task that failed before it was queued."""
        self._counters.exited.failed += 1

    def count_unbegun(self, *, failed: bool) -> None:
        """Count a task that ended before it was begun: it `failed`, or was cancelled or stopped."""
        if failed:
            self._counters.exited.errors += 1
        else:
            self._counters.exited.cancelled += 1

    # The end

    def list_holders(self) -> list[Worker]:
        """Return the workers that may hold tasks that they have not begun."""
        return [worker for worker in self.workers if len(worker.batches) > 1 or worker.single < 0]

    def close(self, refusal: Exception, *, cancel_queued: bool = False) -> list[Action]:
        """Accept no more tasks. Workers exit once the queue is empty. A later call keeps the first refusal.

        `cancel_queued`: cancel the queued tasks, except as many as there are workers without one: those are about to
        take them, or to start with them, and count as begun. The others stay in the queue until they are cancelled.
        """
        self.closed = self.closed or refusal
        self.needs_dispatch = True
        left = list(self.queue)[self._count_free_workers() :] if cancel_queued else []
        idle, self.idle = self.idle, []
        if not self.queue:
            idle += [worker for worker in self.workers if worker.ready_seconds is None]
        # An interrupt may have left a worker in no list: it asks for its next batch itself.
        return [*(self._dismiss(worker) for worker in idle), *self.wake_all(), *map(Cancel, left)]

    def end(self) -> list[Action]:
        """Let no worker of a closed pool begin a task or start again, and cancel all queued tasks, now and later.

        For workers that are being ended: a task that one of them has not begun is queued again at its exit.
        """
        self._is_ending = True
        dismissed = [self._dismiss(worker) for worker in self.workers if not worker.leaving]
        return [*dismissed, *map(Cancel, self.queue.copy())]

    def give_up(self, error: Exception) -> list[Action]:
        """Close the pool and fail the queued tasks, if no worker is left that could run them."""
        if any(worker.ready_seconds is not None for worker in self.workers):
            return []
        self.closed = self.closed or error
        self.needs_dispatch = True
        left = [self.queue.popleft() for _ in range(len(self.queue))]
        dismissed = [self._dismiss(worker) for worker in self.workers if not worker.leaving]
        return [*dismissed, *(Fail(item, error) for item in left)]

    def reset_after_fork(self, refusal: Exception) -> list[Worker]:
        """In a forked child: the workers are the parent's. Return them, for their connections to be closed.

        A pool that has had no task is the child's own, and starts its workers with the first one.
        """
        ended = any(self._counters.exited.count_by_result().values())
        if self.closed or self.queue or ended or any(worker.next_number for worker in self.workers):
            self.closed = refusal
        self.queue.clear()
        self.needs_dispatch = True
        self._made = 0
        workers, self.workers, self.idle = self.workers, [], []
        return workers

    def wake_all(self) -> list[Action]:
        return [Wake(worker) for worker in self.workers]

    # Below: parts of transitions

    def _assign(self, worker: Worker, now: float, sender: int) -> Send | None:
        if worker.connection is None:
            return None
        most = min(BATCH_TASKS, wire.MOST_TASKS - worker.held_tasks)
        if self._most_tasks is not None:
            most = min(most, self._most_tasks - worker.assigned_tasks)
        share = math.ceil(len(self.queue) / len(self.workers))
        busy = bool(worker.batches)
        items: list[WorkItem] = []
        worker.sending[sender] = items  # if an interrupt comes, `note_exited` finds them there
        seconds, cancelled = take_batch(items, self.queue, self.durations, now, share=share, most=most, busy=busy)
        self._counters.exited.cancelled += cancelled
        if not items:
            del worker.sending[sender]
            return None
        count, first = len(items), worker.next_number
        single = count == 1 and not busy
        if single:
            worker.single = first
        worker.assigned.update(enumerate(items, first))
        worker.next_number += count  # their numbers are not used again, unless the tasks are taken back
        if not busy:
            worker.batch_seconds, worker.slow = now, False
        worker.batches.append((count, seconds))
        worker.held_tasks += count
        worker.held_seconds += seconds
        worker.assigned_tasks += count
        self.prefetch_length = self._prefetch_tasks * len(self.workers)
        return _make_send(Send, (worker, worker.connection, sender, first, items, single))

    def _take_back_unoffered(self, worker: Worker) -> None:
        """Take back the last tasks, if an interrupt came before they were offered: the claims are of those before."""
        for sender, items in worker.sending.items():
            for number, item in tuple(worker.assigned.items()):
                if any(item is other for other in items):
                    worker.next_number = min(worker.next_number, number)
                    del worker.assigned[number]
            put_back(self.queue, items)
            worker.sending[sender] = _NONE

    def _finish_batch(self, worker: Worker, now: float) -> None:
        tasks, seconds = worker.batches.popleft()
        worker.held_tasks -= tasks
        worker.held_seconds = worker.held_seconds - seconds if worker.batches else 0.0
        worker.batch_seconds = now

    def _may_prefetch(self) -> bool:
        """Whether busy workers may hold more: not if one of them is to exit first."""
        return self._most_tasks is None and self.surplus <= 0

    def _is_surplus(self, worker: Worker) -> bool:
        """Return whether there are too many workers, and another one than this is ready: those that start may fail."""
        return self.surplus > 0 and any(
            other.is_available and other.ready_seconds is not None for other in self.workers if other is not worker
        )

    def _dismiss(self, worker: Worker, *, recycle: bool = False) -> Dismiss:
        worker.leaving, worker.recycled = not recycle, recycle
        return Dismiss(worker)

    def _note_idle(self) -> None:
        self.needs_dispatch = self.closed is not None or bool(self.idle)

    def _remove_idle(self, worker: Worker) -> None:
        if worker in self.idle:
            self.idle.remove(worker)

    def _reset(self, worker: Worker, now: float) -> None:
        """Take a process that has ended from its worker."""
        if worker.ready_seconds is not None:
            worker.slot_seconds += now - worker.ready_seconds
        worker.connection, worker.ready_seconds, worker.pid, worker.cpu_base_seconds = None, None, 0, 0.0
        worker.assigned, worker.settling, worker.sending, worker.stopping = {}, {}, {}, None
        worker.single, worker.assigned_tasks, worker.blocked = -1, 0, False
        worker.batches.clear()
        worker.held_tasks, worker.held_seconds = 0, 0.0
        self._remove_idle(worker)

    def _count_free_workers(self) -> int:
        return sum(not worker.batches and not worker.leaving for worker in self.workers)


def _numbers_of(future: TaskFuture[Any], tasks: dict[int, WorkItem]) -> list[int]:
    return [number for number, item in tuple(tasks.items()) if item.future is future]


def _death_cause(worker: Worker, code: int | None) -> str:
    if worker.stopping is not None:
        return "stopped"
    if worker.ready_seconds is None:
        return "initializer"
    return "exit" if code is not None and code >= 0 else "signal"
