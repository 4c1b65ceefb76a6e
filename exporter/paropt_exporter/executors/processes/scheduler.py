"""Decides which worker of a ProcessPool gets which tasks and how many workers there are. It does no I/O.

A task here is a work item: a function with its arguments and its future. `workers` describes workers, processes and
the tasks that they hold.

    submit() ──> queue ──> batch of a process ──> ended ──> settled
                   ^           │ not begun, and the process is slow, exits or is stopped
                   └───────────┘

    worker:  starting ──> idle <──> busy ──> draining ──> gone
                ^           └────────┴──> exited ──┐
                └────── waits to start again <─────┘

Each method is an event. It changes the state and returns actions for the manager to carry out:

    under the lock:   Wake     a worker's thread           Dismiss  a process, which exits after its tasks
    after that:       Send     a batch to a process        Kill     a process with its group
                      Cancel   a task, and withdraw it     Fail     a task that was not begun

Guarantees:
  * Only this module and `workers` write the state of the workers and the queue, and callers hold `lock`. Exceptions,
    each with one writer: `submit` appends to `queue`; a thread that has sent a batch removes its entry of `sending`; a
    worker's thread removes tasks from `settling` as it settles them, counts them in `counters`, and calls
    `WorkerProcess.account`.
  * A task is in one place: the queue, `assigned` to one process, or `settling`. It is begun once, settled once, and
    runs once: it goes back to the queue only if no process has claimed it.
  * A waiting task and an idle process never miss each other: `submit` appends, then reads `needs_dispatch`. A process
    joins `idle`, sets `needs_dispatch`, then reads the queue.
  * A process holds one task, or several of functions known to be short (see `batches`). If they take longer all the
    same, the ended ones are settled and those not begun go to others: at once to a worker that finds no queued tasks,
    and otherwise after 10 ms, or 100 ms if no worker is idle.
  * Batches reach a process in the order of their numbers: it gets no other batch while one is being sent.
  * A process gets no task after it was dismissed or while it is being stopped.
  * An interrupt (Ctrl-C, no memory) of a thread that submits or stops a task costs a process, which is replaced, and
    no other task.
  * A worker that is starting is not dismissed until it is ready: the next resize may need it, and otherwise a series
    of resizes on a slow machine would have any number of processes starting and exiting.
  * The last worker that is ready is not dismissed for its number while others start: tasks would wait for these.

The fast path for short tasks stays within these rules. A worker's thread moves a finished batch to `settling` and gets
the next batch in one pass under the lock, then settles the futures without it. `submit` appends without the lock as
long as no process is idle and the queue is shorter than `prefetch_length`; beyond that it has a busy one `prefetch`.
"""

from __future__ import annotations

import math
import signal
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from paropt_exporter.errors import renew
from paropt_exporter.executors.base import check_size
from paropt_exporter.executors.counters import PoolCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.batches import (
    BATCH_SECONDS,
    BATCH_TASKS,
    Durations,
    WorkItem,
    put_back,
    take_batch,
)
from paropt_exporter.executors.processes.workers import Worker, WorkerProcess
from paropt_exporter.executors.worker import wire

if TYPE_CHECKING:
    from paropt_exporter.executors.processes.transport import WorkerConnection

MOST_WORKERS = 1024  # processes; a larger size is a typing error

_PREFETCH_TASKS = 256  # queued tasks per worker that are worth another batch for a busy worker, however short they are
_MOST_EARLY_EXITS = 3  # in a row before the worker was ready: its start is at fault
_KILLED = (-signal.SIGKILL, -signal.SIGTERM, None)  # the worker or its fork server was killed, perhaps from outside
_MOST_FAILED_STARTS = 10  # in a row, over some 20 s, without a process or with one that was killed: it may pass


class Send(NamedTuple):
    """A batch for a process. `single`: the one task is a batch of its own, and its reply finishes the batch.

    Its claims are offered before the lock is released, see `WorkerConnection.offer`; it is sent afterwards.
    """

    process: WorkerProcess
    sender: int
    first_number: int
    items: list[WorkItem]
    single: bool
    shares_memory: bool  # whether its values may be put into shared memory: no other task's can be there


_make_send = tuple.__new__  # which Send's constructor calls, at a quarter of its cost


class Dismiss(NamedTuple):
    process: WorkerProcess


class Wake(NamedTuple):
    worker: Worker


class Kill(NamedTuple):
    """TERM now, KILL after the grace."""

    process: WorkerProcess
    grace_seconds: float


class Cancel(NamedTuple):
    item: WorkItem


class Fail(NamedTuple):
    item: WorkItem
    error: BaseException


Notice = Dismiss | Wake  # carried out under the lock
Action = Notice | Send | Kill | Cancel | Fail


class Exit(NamedTuple):
    """The consequences of a process's exit."""

    lost: list[WorkItem]  # claimed and not ended
    unexpected: bool  # neither asked for, nor caused by a task
    gives_up: bool  # the workers of this pool can't start


class Scheduler:
    """The queue and the workers of one pool; see the module's docstring."""

    def __init__(
        self,
        counters: PoolCounters,
        most_tasks_per_process: int | None,
        *,
        prefetch_tasks: int = _PREFETCH_TASKS,
    ) -> None:
        # guards: everything below, but for the exceptions above, and the wakers of `WorkerThreads`. Reentrant: a signal
        # handler or a finalizer may submit to the pool or shut it down at any point.
        self.lock = threading.RLock()
        self.queue: deque[WorkItem] = deque()
        self.durations = Durations()
        self.workers: list[Worker] = []
        self.idle: list[WorkerProcess] = []
        self.target = 0
        self.closed: Exception | None = None  # once closed: the exception that `submit` raises
        self.failure: Exception | None = None  # once given up, until a worker is ready: why none could start
        self.needs_dispatch = False  # whether a submit has to call `dispatch`: a worker is idle, or the pool is closed
        self.prefetch_length: float = math.inf  # with so many queued tasks a submit has to call `prefetch`
        self._counters = counters
        self._most_tasks = most_tasks_per_process
        self._most_prefetch_tasks = self._prefetch_tasks = prefetch_tasks  # queued tasks per worker
        self._made = 0
        self._has_assigned = False  # whether a process has got a task
        self._may_hold_unbegun = False  # whether a process may hold tasks that it has not begun
        # Processes that may hold such tasks, and whose threads wait for a reply without a limit. They are woken only if
        # need be, since a thread that wakes for nothing takes the interpreter's lock from one that submits.
        self._unwatched: set[WorkerProcess] = set()
        self._is_ending = False
        # Cancelled tasks that have left the queue, until waiting threads are notified. They are no actions, which an
        # interrupt would lose.
        self.dropped: deque[WorkItem] = deque()

    def __repr__(self) -> str:
        workers = ", ".join(map(repr, self.workers))
        return f"<Scheduler: {len(self.queue)} queued; {workers or 'no workers'}>"

    # Size

    def resize(self, size: int, reason: str) -> list[Notice]:
        """Set the target. Surplus idle workers exit now, others after their tasks; `add_worker` makes missing ones.

        ValueError if the size or the reason is invalid.
        """
        size = check_size(size, MOST_WORKERS, "processes")
        self._counters.count_resize(self.target, size, reason)
        self.target = size
        notices = [
            self._release(process.worker)
            for process in tuple(self.idle)
            if self._is_surplus(process.worker) and self._remove_idle(process)
        ]
        for worker in self.workers:
            waits = worker.failures and worker.process is None and not worker.leaving
            if waits and self.surplus > 0:
                notices.append(self._release(worker))
        self.needs_dispatch = self.closed is not None or bool(self.idle)
        return notices

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

    def give_up_worker(self, worker: Worker) -> list[Notice]:
        """Give up the place of a worker for which the system has no descriptors, unless it is the only one."""
        others = any(other is not worker and not other.leaving for other in self.workers)
        if worker.leaving or not others:
            return []
        return [self._release(worker), *self.wake_all()]  # one of the others asks for it again

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
            process = self.idle.pop()
            batch = self._assign(process, now, sender)
            if not batch:
                self.idle.append(process)
                break
            actions += batch
        self.needs_dispatch = self.closed is not None or bool(self.idle)
        return [*actions, *self._watch(now)] if self._unwatched else actions

    def withdraw(self, item: WorkItem) -> bool:
        """Remove a task from the queue; return whether it was there."""
        if item not in self.queue:
            return False
        self.queue.remove(item)
        return True

    def drop_ended(self) -> None:
        """Drop the cancelled and stopped tasks at the end of the queue; a worker drops those before others.

        All at once: to look for each one took minutes if 100,000 were queued, and workers began most of them meanwhile.
        """
        while self.queue and self.queue[-1].future.done():
            self.dropped.append(self.queue[-1])  # first: an interrupt may follow
            self.queue.pop()

    def note_notified(self, items: Iterable[WorkItem]) -> None:
        """Note that waiting threads know of the cancellation of the first dropped tasks.

        Another thread may have noted some of them: those are no longer the first.
        """
        for item in items:
            if self.dropped and self.dropped[0] is item:
                self.dropped.popleft()
                self.count_unbegun(failed=False)

    def prefetch(self, now: float, sender: int) -> list[Action]:
        """Give the busy worker that holds fewest tasks another batch, since its thread may not run soon."""
        found = [process for process in self.iter_processes() if process.has_room] if self._may_prefetch() else []
        process = min(found, key=lambda process: process.tasks.held_tasks, default=None)
        if process is None:
            self.prefetch_length = math.inf  # until a worker finishes a batch
            return []
        return self.give_more(process, now, sender)

    def give_next_batch(self, process: WorkerProcess, now: float, sender: int) -> list[Action]:
        """Give a process that finished a batch its next one, add it to the idle ones, or dismiss it."""
        actions = self._give_next_batch(process, now, sender)
        if self.queue and self.idle:  # tasks of an overloaded process, of which this one has got a part
            actions = [*actions, *self.dispatch(now, sender)]
        return [*actions, *self._watch(now)] if self._unwatched else actions

    def _give_next_batch(self, process: WorkerProcess, now: float, sender: int) -> list[Action]:
        if process.tasks.batches:
            return self.give_more(process, now, sender)
        while process.is_available:
            if self._is_used_up(process):
                process.dismissed = True  # and another one takes its place
                return [Dismiss(process)]
            if self._is_surplus(process.worker) or (self.closed and not self.queue):
                return [self._release(process.worker)]
            batch = self._assign(process, now, sender) if self.queue else []
            if batch:
                return batch
            self.idle.append(process)
            self.needs_dispatch = True
            # A submit that did not see this worker idle has appended its task before: look once more.
            if not self.queue and not self.closed:
                break
            self._remove_idle(process)
        return []

    def _watch(self, now: float) -> list[Notice]:
        """Wake the threads that must find out when their processes are slow: if they are, or if a worker is idle."""
        found = [process for process in self._unwatched if self.idle or process.tasks.is_slow(now)]
        self._unwatched.difference_update(found)
        return [Wake(process.worker) for process in found]

    def find_overloaded(self, process: WorkerProcess, now: float) -> WorkerProcess | None:
        """Return another process, whose unbegun tasks should move to one that finds no queued tasks."""
        if self.queue or not self._may_hold_unbegun or process.tasks.batches or not self._may_assign(process):
            return None
        holders = self.list_holders()
        self._may_hold_unbegun = bool(holders)
        found = (process for process in holders if process.tasks.is_worth_moving(now))
        return max(found, key=lambda process: process.tasks.held_seconds, default=None)

    def restore_idle(self, process: WorkerProcess, now: float, sender: int) -> list[Action]:
        """Feed a process that was left without tasks and outside the idle ones, as by an interrupt."""
        if not process.is_ready or process.tasks.batches or process in self.idle:
            return []
        return self.give_next_batch(process, now, sender)

    def note_blocked(self, process: WorkerProcess) -> None:
        """Note that a part of a batch did not fit into the socket: the worker's thread is to send it."""
        process.blocked = True

    def note_sent(self, batch: Send) -> bool:
        """Note that a thread has sent its batch; return whether to `give_more`. The thread need not hold the lock."""
        batch.process.sending.pop(batch.sender, None)
        return len(self.queue) >= self.prefetch_length

    def give_more(self, process: WorkerProcess, now: float, sender: int) -> list[Action]:
        """Give a busy process another batch, if it has room and many tasks are queued."""
        least = self._prefetch_tasks * len(self.workers) * len(process.tasks.batches)
        if len(self.queue) < least or not process.has_room or not self._may_prefetch():
            self.prefetch_length = least
            return []
        batch = self._assign(process, now, sender)
        if not batch:
            self.prefetch_length = math.inf  # until a worker finishes a batch
        return batch

    def note_flushed(self, process: WorkerProcess) -> None:
        """Note that the rest of a batch was sent."""
        process.blocked = False

    def recover(self, sender: int) -> list[Notice]:
        """Restore the state after an interrupt of thread `sender` in a transition or while it sent.

        How much of a batch the process has received is unknown. So it is dismissed: it runs the whole batches that it
        has and exits, and the tasks that it has not begun by then go to others.
        """
        notices: list[Notice] = []
        for process in self.iter_processes():
            if sender in process.sending:
                process.tasks.slow = process.dismissed = True
            if process.dismissed:
                notices.append(Dismiss(process))  # once more: the interrupt may have come before the first was done
        self.needs_dispatch = True
        return [*notices, *self.wake_all()]  # a process that is in no list adds itself

    # A process's life

    def add_process(self, worker: Worker, connection: WorkerConnection) -> WorkerProcess:
        """Add the new process of a worker. If the worker is to leave by now, the process was dismissed."""
        process = worker.process = WorkerProcess(worker, connection)
        process.dismissed = worker.leaving
        return process

    def note_ready(self, process: WorkerProcess, pid: int, now: float) -> None:
        """Note that a process has run the initializer."""
        process.note_ready(pid, now)
        if not process.dismissed:  # as each worker of a pool that was given up is
            self.failure = None

    def note_refused(self, process: WorkerProcess, error: BaseException, *, learned: bool) -> None:
        """Note that the initializer failed; `learned`: it lacked a module that travels by value from now on."""
        process.worker.initializer_error = error
        if learned:
            process.worker.learned = process.dismissed = True

    def note_failed_start(self, worker: Worker) -> bool:
        """Note that the system gave no process; return whether it is time to give up."""
        worker.failures += 1
        return worker.failures >= _MOST_FAILED_STARTS and not worker.leaving

    def note_task_ended(self, process: WorkerProcess, number: int, now: float) -> bool:
        """Move a task to `settling`; return whether its reply finished a batch: the task is a batch of its own."""
        self._unwatched.discard(process)
        process.worker.failures, tasks = 0, process.tasks
        tasks.settling[number] = tasks.assigned.pop(number)
        if not tasks.batches or tasks.batches[0].single != number:
            return False
        tasks.finish_batch(now)
        return True

    def note_batch_ended(self, process: WorkerProcess, numbers: Collection[int], now: float) -> None:
        """Move the tasks of a batch whose replies were read together to `settling`."""
        self._unwatched.discard(process)
        process.worker.failures = 0
        process.tasks.end_tasks(numbers)
        process.tasks.finish_batch(now)

    def note_leaving(self, process: WorkerProcess) -> None:
        """Note that a dismissed process exits without a task: it has not received its last batches, or only in part."""
        process.tasks.batches.clear()

    def note_exited(
        self, process: WorkerProcess, code: int | None, *, unclaimed: int, forked: bool, now: float
    ) -> Exit:
        """Note that a process has ended and that all its replies were read.

        `unclaimed`: the claims that it left. `forked`: whether there was a process at all.
        """
        self.requeue_unclaimed(process, unclaimed)
        if process.tasks.is_unsure:
            put_back(self.queue, process.tasks.take_back_unbegun())
        worker, lost = process.worker, list(process.tasks.assigned.values())
        if lost or (forked and not process.dismissed):
            self._counters.deaths[_death_cause(process, code)] += 1
        self._remove_process(process, now)
        worker.leaving = worker.leaving or self._is_surplus(worker)  # it need not start again
        unexpected = forked and not (process.dismissed or process.stopping or lost)
        worker.failures += unexpected
        most = _MOST_FAILED_STARTS if code in _KILLED else _MOST_EARLY_EXITS
        return Exit(lost, unexpected, unexpected and not process.is_ready and worker.failures >= most)

    def note_abandoned(self, process: WorkerProcess, unclaimed: int, now: float) -> list[WorkItem]:
        """Note that a worker's thread can't go on with its process; return the tasks that are lost with it."""
        self.requeue_unclaimed(process, unclaimed)
        lost = [*process.tasks.settling.values(), *process.tasks.assigned.values()]
        self._counters.deaths["signal"] += 1
        self._remove_process(process, now)
        return lost

    # Tasks that don't run

    def requeue(self, item: WorkItem) -> None:
        """Put a task that could not be loaded in front of the queue: it was not begun."""
        item.future.reset_to_pending()
        self.queue.appendleft(item)

    def begin_withdrawal(self, process: WorkerProcess) -> None:
        """Give a process no more tasks while its claims are withdrawn: a signal handler may submit some meanwhile.

        The last tasks would then not be those whose claims were withdrawn.
        """
        process.tasks.slow = True

    def requeue_unclaimed(self, process: WorkerProcess, unclaimed: int) -> None:
        """Put the last `unclaimed` tasks of a process in front of the queue. Its claims were withdrawn before."""
        self._take_back_unoffered(process)
        tasks = process.tasks
        if tasks.is_unsure:
            return
        tasks.slow = bool(tasks.batches)
        if tasks.assigned:
            first = tasks.next_number - unclaimed
            put_back(self.queue, tasks.list_from(first))
            tasks.drop_from(first)

    def note_unsure(self, process: WorkerProcess) -> list[Notice]:
        """Note an interrupt while the claims of a process were withdrawn: how many there were is unknown.

        So the process is dismissed. It finishes its task and exits; then those that it has not begun go to others.
        """
        tasks, queued = process.tasks, set(map(id, self.queue))
        tasks.assigned = {number: item for number, item in tasks.assigned.items() if id(item) not in queued}
        tasks.is_unsure = tasks.slow = process.dismissed = True
        self._remove_idle(process)
        return [Dismiss(process)]

    def find_queued(self, future: TaskFuture[Any]) -> WorkItem | None:
        """Return the queued task of a future that has not ended."""
        found = (item for item in self.queue.copy() if item.future is future and not future.done())
        return next(found, None)

    def find_process(self, future: TaskFuture[Any]) -> WorkerProcess | None:
        """Return the process that a task is assigned to."""
        found = (process for process in self.iter_processes() if process.tasks.find_number(future) is not None)
        return next(found, None)

    def stop(
        self, future: TaskFuture[Any], error: BaseException, grace_seconds: float
    ) -> tuple[bool | None, list[Action]]:
        """Stop a task, after its process has got its unclaimed tasks taken back.

        Return True and the action that ends its process if it runs, False if it has just ended, None if no process has
        begun it.
        """
        process = self.find_process(future)
        number = None if process is None else process.tasks.find_number(future)
        if process is None or number is None:
            ended = any(process.tasks.is_settling(future) for process in self.iter_processes())
            return (False if ended else None), []
        # Only the task that was claimed last can be running. Earlier ones have ended, though their results were not
        # read yet: killing the process would hit another task.
        may_run = number == process.tasks.next_number - 1 and not process.tasks.is_unsure
        if not may_run or not future.fail_on_exit(error):
            return False, []
        process.stopping = future
        return True, [Kill(process, grace_seconds)]

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

    def list_holders(self) -> list[WorkerProcess]:
        """Return the processes that may hold tasks that they have not begun."""
        found = self.iter_processes()
        return [process for process in found if process.tasks.may_hold_unbegun]

    def close(self, refusal: Exception, *, cancel_queued: bool = False) -> list[Action]:
        """Accept no more tasks. Workers exit once the queue is empty. A later call keeps the first refusal.

        `cancel_queued`: cancel the queued tasks, except as many as there are workers without one: those are about to
        take them, or to start with them, and count as begun. The others stay in the queue until they are cancelled.
        """
        self.closed = self.closed or refusal
        self.failure = None
        self.needs_dispatch = True
        left = list(self.queue)[self._count_free_workers() :] if cancel_queued else []
        idle, self.idle = self.idle, []
        unneeded = [process.worker for process in idle]
        if not self.queue:
            unneeded += [worker for worker in self.workers if not worker.is_ready]
        # An interrupt may have left a worker in no list: it asks for its next batch itself.
        return [*map(self._release, unneeded), *self.wake_all(), *map(Cancel, left)]

    def end(self) -> list[Action]:
        """Let no worker of a closed pool begin a task or start again, and cancel all queued tasks, now and later.

        For workers that are being ended: a task that one of them has not begun is queued again at its exit.
        """
        self._is_ending = True
        return [*self._release_all(), *map(Cancel, self.queue.copy())]

    def give_up(self, error: Exception) -> list[Action]:
        """Close the pool and fail the queued tasks, if no worker is left that could run them."""
        if any(worker.is_ready for worker in self.workers):
            return []
        if self.closed is None:
            self.closed = self.failure = renew(error)  # the tasks' error will have the frames of its callers
        self.needs_dispatch = True
        left = [self.queue.popleft() for _ in range(len(self.queue))]
        return [*self._release_all(), *(Fail(item, error) for item in left)]

    def reopen(self) -> bool:
        """Accept tasks again if the pool was given up, and was not closed since; return whether it was.

        The workers that could not start leave, and new ones take their places.
        """
        if self.failure is None or self.closed is None:
            return False
        self.closed = None
        return True

    def reset_after_fork(self, refusal: Exception) -> list[Worker]:
        """In a forked child: the workers are the parent's. Return them, for their descriptors to be closed.

        A pool that has had no task is the child's own, and starts its workers with the first one. The lock may have
        been held at the fork.
        """
        self.lock = threading.RLock()
        ended = any(self._counters.exited.count_by_result().values())
        if self.closed or self.queue or ended or self._has_assigned:
            self.closed, self.failure = refusal, None
        self.queue.clear()
        self.needs_dispatch = True
        self._made = 0
        workers, self.workers, self.idle = self.workers, [], []
        self._unwatched.clear()
        return workers

    def iter_processes(self) -> Iterator[WorkerProcess]:
        return (process for worker in self.workers if (process := worker.process) is not None)

    def wake_all(self) -> list[Notice]:
        return [Wake(worker) for worker in self.workers]

    # Below: parts of transitions

    def _assign(self, process: WorkerProcess, now: float, sender: int) -> list[Action]:
        """Give a process a batch of the queue's first tasks; return nothing if there is none that it may have now."""
        tasks = process.tasks
        most = min(BATCH_TASKS, wire.MOST_TASKS - tasks.held_tasks)
        if self._most_tasks is not None:
            most = min(most, self._most_tasks - tasks.next_number)
        share = -(-len(self.queue) // len(self.workers))  # rounded up
        busy = bool(tasks.batches)
        items: list[WorkItem] = []
        process.sending[sender] = items  # if an interrupt comes, `note_exited` finds them there
        seconds = take_batch(items, self.dropped, self.queue, self.durations, now, share=share, most=most, busy=busy)
        if not items:
            del process.sending[sender]
            return []
        self._has_assigned, count = True, len(items)
        if busy or count > 1:
            self._may_hold_unbegun = True
            if not tasks.may_hold_unbegun and sender != process.worker.thread:
                self._unwatched.add(process)
        first = tasks.add_batch(items, seconds, now)
        # With so many queued tasks each worker can get a full batch: a burst must not end in ever smaller ones.
        full_batch = max(1, int(count * BATCH_SECONDS / seconds))
        self._prefetch_tasks = min(full_batch, self._most_prefetch_tasks)
        self.prefetch_length = self._prefetch_tasks * len(self.workers)
        return [_make_send(Send, (process, sender, first, items, count == 1, not busy))]

    def _take_back_unoffered(self, process: WorkerProcess) -> None:
        """Take back the last tasks, if an interrupt came before they were offered: the claims are of those before."""
        for sender, items in process.sending.copy().items():
            if items:
                process.tasks.drop(items)
                put_back(self.queue, items)
                process.sending[sender] = None

    def _may_assign(self, process: WorkerProcess) -> bool:
        return process.is_available and not self._is_used_up(process) and not self._is_surplus(process.worker)

    def _is_used_up(self, process: WorkerProcess) -> bool:
        return self._most_tasks is not None and process.tasks.next_number >= self._most_tasks

    def _may_prefetch(self) -> bool:
        """Whether busy workers may hold more: not if one of them is to exit first."""
        return self._most_tasks is None and self.surplus <= 0

    def _is_surplus(self, worker: Worker) -> bool:
        """Return whether there are too many workers, and another one than this is ready: those that start may fail."""
        return (
            len(self.workers) > self.target
            and self.surplus > 0
            and any(
                process.is_available and process.is_ready
                for process in self.iter_processes()
                if process.worker is not worker
            )
        )

    def _release(self, worker: Worker) -> Notice:
        """Let a worker leave, now or after its tasks."""
        worker.leaving, process = True, worker.process
        if process is None:
            return Wake(worker)  # its thread may be waiting to start again
        process.dismissed = True
        return Dismiss(process)

    def _release_all(self) -> list[Notice]:
        return [self._release(worker) for worker in self.workers if not worker.leaving]

    def _remove_idle(self, process: WorkerProcess) -> bool:
        """Remove a process from the idle ones; return whether it was there: a signal handler may have taken it."""
        try:
            self.idle.remove(process)
        except ValueError:
            return False
        return True

    def _remove_process(self, process: WorkerProcess, now: float) -> None:
        """Take a process that has ended from its worker."""
        if process.is_ready:
            process.worker.slot_seconds += now - process.ready_seconds
        process.worker.process = None
        self._unwatched.discard(process)
        self._remove_idle(process)

    def _count_free_workers(self) -> int:
        return sum(
            not worker.leaving and (worker.process is None or not worker.process.tasks.batches)
            for worker in self.workers
        )


def _death_cause(process: WorkerProcess, code: int | None) -> str:
    if process.stopping is not None:
        return "stopped"
    if not process.is_ready:
        return "initializer"
    return "exit" if code is not None and code >= 0 else "signal"
