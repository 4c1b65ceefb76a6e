"""The queue and the worker processes of a ProcessPool: who gets which tasks, and how many workers there are."""

from __future__ import annotations

import logging
import marshal
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, NoReturn

from paropt_exporter.errors import InitializerFailed
from paropt_exporter.pool import lifetime
from paropt_exporter.pool.future import TaskFuture
from paropt_exporter.pool.ledger import Ledger
from paropt_exporter.pool.processes import view
from paropt_exporter.pool.processes.batches import Durations, put_back, take
from paropt_exporter.pool.processes.slot import ORDER_TASKS, Order, ProcessSlot, ProcessTask
from paropt_exporter.pool.worker import family, payload, wire
from paropt_exporter.pool.worker.pieces import Pieces
from paropt_exporter.records import PoolStatistics, RunningTask, WorkerMemory

log = logging.getLogger(__name__)

MOST_WORKERS = 1024  # processes; more is a slip of the keyboard
_AMPLE = 256  # tasks a worker in the queue: so many are worth an order to one that is at something yet
_ASK_AGAIN_SECONDS = 1.0  # after the system gave no thread or no descriptors
_REFUSAL = "cannot schedule new futures after shutdown"


class ProcessCrew:
    """Queue, processes and size of one pool.

        submit() ──> queue ──> orders of a worker ──> settled
                       ^            │ not begun when the worker died or was slow
                       └────────────┘

        slot:  starting ──> idle <──> busy ──> leaving ──> gone
                  ^           └────────┴──> dead ──┐
                  └───────── pause <───────────────┘

    Guarantees:
      * A task that was accepted settles once: result, exception, cancelled, stopped, or WorkerDied. It is begun once.
      * A waiting task and an idle worker never miss each other: submit() appends and then looks at `wakeable`; a worker
        lines up, sets `wakeable`, and then looks at the queue.
      * A worker holds one task, or several of functions known to be short (see `batches`). When those take longer all
        the same, what has ended is settled and what has not begun is given to others.
      * A worker's tasks reach it as they are numbered: it is given no order while one is still on its way.
      * An interrupt of a thread that hands out (Ctrl-C in submit) costs a worker, which is replaced, and no task.
      * Decisions are made under the lock; sending, receiving, settling and starting happen outside.
    """

    def __init__(
        self,
        name: str,
        initializer: Callable[..., object] | None,
        initargs: tuple[Any, ...],
        max_tasks_per_child: int | None,
        serve: Callable[[ProcessCrew, ProcessSlot], None],
    ) -> None:
        self.ledger = Ledger(name)
        self.queue: deque[ProcessTask] = deque()
        self.packer = payload.Packer()
        self._initializer, self._initargs = initializer, initargs
        self._pack_initializer()  # what can't travel is told to whoever makes the pool
        self.durations = Durations()
        self.lock = threading.RLock()  # guards: everything below, and the slots' states
        self.target = 0
        self.closed = False
        self.wakeable = False  # whether a submit has to call dispatch()
        self.ample: float = math.inf  # with so many tasks in the queue a submit has to call stock()
        self._most_tasks = max_tasks_per_child
        self._serve = serve
        self._refusal: Exception = RuntimeError(_REFUSAL)
        self._slots: list[ProcessSlot] = []
        self._idle: list[ProcessSlot] = []
        self._refused_seconds: float | None = None  # when the system would give no more slots; None: all are there
        self._threads: set[threading.Thread] = set()
        self._starting: dict[str, int] = {}  # by name: threads on their way, and the ident of who starts each
        self._all_started = threading.Condition(self.lock)
        self._made = 0
        lifetime.register(self)

    # Size

    def resize(self, n: int, reason: str) -> None:
        if not 1 <= n <= MOST_WORKERS:
            raise ValueError(f"a pool of {n} processes: expected 1 to {MOST_WORKERS}")
        with self.lock:
            self.ledger.resized(self.target, n, reason)
            self.target = n
            while self._idle and self._surplus() > 0:
                self.dismiss(self._idle.pop(0))
            # One that has begun to start stays until it is ready: the next resize may want it, and a storm of them
            # on a slow machine would otherwise have any number of processes on their way in and out.
            for slot in [slot for slot in self._slots if slot.failures and slot.link is None and not slot.leaving]:
                if self._surplus() > 0:
                    self.dismiss(slot)
            self.wakeable = self.closed or bool(self._idle)
        self._grow()

    def _surplus(self) -> int:
        return sum(not slot.leaving for slot in self._slots) - self.target

    def _grow(self) -> None:
        """Start the slots that are missing. The system may say no: then the pool goes on as it is, and says so."""
        self._refused_seconds = None
        while True:
            with self.lock:
                if self.closed or self._surplus() >= 0:
                    return
                try:
                    slot = ProcessSlot(f"{self.ledger.name}-{self._made}")
                    thread = threading.Thread(target=self._serve, args=(self, slot), name=slot.name, daemon=True)
                    self._slots.append(slot)
                    self._threads.add(thread)
                    self._starting[slot.name] = threading.get_ident()
                    self._made += 1
                except OSError as error:
                    trouble: Exception = error
                    break
            try:
                thread.start()
            except RuntimeError as error:
                self.leave(slot, thread)
                trouble = error
                break
            finally:
                self._started(slot.name)
        log.warning("no more workers to be had", extra={"pool": self.ledger.name, "err": str(trouble)})
        with self.lock:
            self._refused_seconds = monotonic()
            if not self._slots:
                raise trouble
            self._slots[0].wake()  # its thread asks again

    def _started(self, name: str) -> None:
        with self.lock:
            self._starting.pop(name, None)
            self._all_started.notify_all()

    def patience_seconds(self) -> float | None:
        """Return how long a slot's thread may wait before it has to `ask_again` for more of them; None: for ever."""
        refused = self._refused_seconds
        return None if refused is None else max(0.0, refused + _ASK_AGAIN_SECONDS - monotonic())

    def ask_again(self) -> None:
        """Start slots that the system would not give before, if it is time to."""
        if self.patience_seconds() == 0.0:
            self._grow()

    def dismiss(self, slot: ProcessSlot, *, recycle: bool = False) -> None:
        """Have a worker go when it has ended what it holds; with the lock held."""
        slot.leaving, slot.recycling = not recycle, recycle
        if slot.link is not None:
            slot.link.dismiss()
        slot.wake()

    def unlist(self, slot: ProcessSlot) -> None:
        """Take a worker that is no more from the idle ones; with the lock held."""
        if slot in self._idle:
            self._idle.remove(slot)

    def leave(self, slot: ProcessSlot, thread: threading.Thread) -> None:
        """Take a slot off the books, as the last thing that its thread does."""
        with self.lock:
            self._slots.remove(slot)
            self._threads.discard(thread)
            self.ledger.gone.add(slot.tally)
            self.ledger.slot_seconds += slot.slot_seconds
            self.ledger.cpu_seconds += slot.cpu_seconds
            self.ledger.run_delay_seconds += slot.delay_seconds
            os.close(slot.call)
            slot.call = -1

    # Work

    def refuse(self) -> NoReturn:
        raise self._refusal

    def unsubmitted(self, future: TaskFuture[Any], error: BaseException) -> TaskFuture[Any]:
        """Settle a task that can't travel."""
        with self.lock:
            self.ledger.gone.failed += 1
        future.stop(error)
        return future

    def dispatch(self, task: ProcessTask | None = None) -> None:
        """Give idle workers what waits. Raise where the pool was closed before `task` could be taken."""
        orders, refused = [], False
        try:
            with self.lock:
                while self._idle and self.queue:
                    slot = self._idle.pop()
                    order = self._hand_out(slot)
                    if order is None:
                        self._idle.append(slot)
                        break
                    orders.append(order)
                self.wakeable = self.closed or bool(self._idle)
                # After the loop: a signal handler that closes the pool may have come in between.
                if task is not None and self.closed and task in self.queue:
                    self.queue.remove(task)
                    refused = True
            for order in orders:
                self._send(order)
        except BaseException:  # an interrupt; raised again
            self._mend()
            raise
        if refused:
            self.refuse()

    def stock(self) -> None:
        """Give the worker that holds least more of what waits, while the thread that settles has no turn."""
        try:
            with self.lock:
                roomy = [slot for slot in self._slots if slot.has_room] if self._may_stock() else []
                slot = min(roomy, key=lambda slot: slot.held_tasks, default=None)
                order = None if slot is None else self._hand_out(slot)
                if order is None:
                    self.ample = math.inf  # until a worker is through with something
            if order is not None:
                self._send(order)
        except BaseException:  # an interrupt; raised again
            self._mend()
            raise

    def _may_stock(self) -> bool:
        """Whether workers may be given more before they are through: not where one is to go then."""
        return self._most_tasks is None and self._surplus() <= 0

    def _mend(self) -> None:
        """After an interrupt (Ctrl-C, no memory) while this thread handed out: nobody knows what a worker was sent.

        It is told that nothing follows: so it ends what came whole, and goes. What it has not begun by then goes to
        others. A worker that is in no list any more lines itself up.
        """
        me = threading.get_ident()
        with self.lock:
            for slot in self._slots:
                if slot.link is not None and slot.link.is_sending_by(me) and not slot.leaving:
                    slot.overdue = True
                    self.dismiss(slot, recycle=True)
            self.wakeable = True
            self._wake_all()

    def _wake_all(self) -> None:
        for slot in self._slots:
            slot.wake()

    def line_up(self, slot: ProcessSlot) -> None:
        """See to a worker that has nothing to do and is not among the idle ones: an interrupt came in between."""
        with self.lock:
            lost = slot.ready_seconds is not None and not slot.orders and slot not in self._idle
        if lost:
            self.free(slot)

    def free(self, slot: ProcessSlot) -> None:
        """Give a worker its next order, or line it up with the idle ones, or let it go."""
        with self.lock:
            order = self._more(slot) if slot.orders else self._next(slot)
        if order is not None:
            self._send(order)

    def _more(self, slot: ProcessSlot) -> Order | None:
        self.ample = _AMPLE * len(self._slots)
        if len(self.queue) < self.ample or not slot.has_room or not self._may_stock():
            return None
        return self._hand_out(slot)

    def _next(self, slot: ProcessSlot) -> Order | None:
        while not slot.leaving and not slot.recycling and slot.stopping is None:
            if self._most_tasks is not None and slot.taken >= self._most_tasks:
                self.dismiss(slot, recycle=True)
            elif self._surplus() > 0 or (self.closed and not self.queue):
                self.dismiss(slot)
            elif order := self._hand_out(slot):
                return order
            else:
                self._idle.append(slot)
                self.wakeable = True
                # A submit that did not find us lined up has appended before: look once more.
                if not self.queue and not self.closed:
                    break
                if slot in self._idle:
                    self._idle.remove(slot)
        return None

    def _hand_out(self, slot: ProcessSlot) -> Order | None:
        link = slot.link
        if link is None or not link.reserve(at_rest=not slot.orders):
            return None
        most = min(ORDER_TASKS, wire.MOST_TASKS - slot.held_tasks)
        if self._most_tasks is not None:
            most = min(most, self._most_tasks - slot.taken)
        share = math.ceil(len(self.queue) / len(self._slots))
        now, busy = monotonic(), bool(slot.orders)
        tasks, seconds, cancelled = take(self.queue, self.durations, now, share=share, most=most, busy=busy)
        self.ledger.gone.cancelled += cancelled
        if not tasks:
            link.give_back()
            return None
        alone = len(tasks) == 1 and not busy
        try:
            first = slot.give(tasks, seconds, now, alone=alone)
            link.offer(len(tasks))
        except BaseException:  # their numbers stay used, whether they were offered or not: see `_mend`
            slot.take_out(tasks)
            put_back(self.queue, tasks)
            raise
        self.ample = _AMPLE * len(self._slots)
        return Order(slot, link, first, tasks, alone)

    def _send(self, order: Order) -> None:
        slot, link, first, tasks, alone = order
        if alone:
            sent = link.order_one(first, tasks[0].packed, thorough=tasks[0].thorough)
        else:
            sent = link.order(first, [task.packed for task in tasks])
        if not sent:
            with self.lock:
                slot.wake()  # its thread sends the rest when there is room

    def reclaim(self, slot: ProcessSlot) -> list[ProcessTask]:
        """Put what a worker has not begun back in front of the queue; with the lock held. Return those tasks."""
        slot.overdue = bool(slot.orders)
        if slot.link is None or not slot.open:
            return []
        first = slot.numbered - slot.link.unclaimed()
        back = [slot.open.pop(number) for number in sorted(slot.open) if number >= first]
        slot.numbered = first
        if slot.alone >= first:
            slot.alone = -1
        put_back(self.queue, back)
        return back

    # Beginning and end

    def preparation(self) -> bytes:
        """Return what a new worker must know: this process's import path, folder, environment, initializer."""
        try:
            directory = os.getcwd()  # noqa: PTH109 -- marshal takes no Path
        except OSError:
            directory = "/"
        path = [os.fspath(entry) for entry in sys.path if isinstance(entry, (str, bytes, os.PathLike))]
        kin = family.key(), family.tracker() is not None
        arguments = [str(argument) for argument in sys.argv]
        return marshal.dumps((path, directory, dict(os.environb), arguments, *kin, *self._pack_initializer()))

    def _pack_initializer(self) -> tuple[bytes, bytes | tuple[Any, ...]]:
        """Pickle the initializer, anew for each worker: a descriptor among its arguments can be fetched once."""
        if self._initializer is None:
            return b"", b""
        function, arguments = self.packer.pack(self._initializer, self._initargs, {})
        return function, arguments.joined() if isinstance(arguments, Pieces) else arguments

    def give_up(self, error: BaseException) -> None:
        """End a pool whose workers can't begin, if none is left that can: what waits gets the cause."""
        with self.lock:
            if self.closed or any(slot.ready_seconds is not None for slot in self._slots):
                return
            self._refusal = InitializerFailed(f"workers of pool {self.ledger.name!r} can't begin: {error!r}")
            self._refusal.__cause__ = error
            self.closed = self.wakeable = True
            left = self._drain()
            for slot in self._slots:
                self.dismiss(slot)
        for task in left:
            self.settle_unbegun(task, self._refusal)

    def settle_unbegun(self, task: ProcessTask, error: BaseException) -> None:
        stopped = task.future.stop(error)
        with self.lock:
            self.ledger.gone.errors += stopped
            self.ledger.gone.cancelled += not stopped

    def close(self, *, cancel_futures: bool = False, refusal: str = _REFUSAL) -> None:
        with self.lock:
            if not self.closed:
                self.closed = self.wakeable = True
                self._refusal = RuntimeError(refusal)
            left = self._recall() if cancel_futures else []
            idle, self._idle = self._idle, []
            if not self.queue:
                idle += [slot for slot in self._slots if slot.ready_seconds is None]
            for slot in idle:
                self.dismiss(slot)
            self._wake_all()  # an interrupt may have left one in no list: it lines up
        for task in left:
            task.future.cancel()
            task.future.set_running_or_notify_cancel()
            with self.lock:
                self.ledger.gone.cancelled += 1

    def _recall(self) -> list[ProcessTask]:
        """Take back all that has not begun, from workers that hold several tasks too; see `_free` for what stays."""
        keep = self._free()
        for slot in self._slots:
            if len(slot.orders) > 1 or slot.alone < 0:
                self.reclaim(slot)
        return self._drain(keep=keep)

    def _free(self) -> int:
        """Count workers that hold nothing: the tasks that they are about to take, or to start with, have begun."""
        return sum(not slot.orders and not slot.leaving for slot in self._slots)

    def _drain(self, *, keep: int = 0) -> list[ProcessTask]:
        return [self.queue.pop() for _ in range(len(self.queue) - keep)][::-1]

    def join(self) -> None:
        me = threading.get_ident()
        with self.lock:
            # What another thread is starting now can't be joined yet. What we were starting when we were interrupted
            # to shut down must not be waited for.
            self._all_started.wait_for(lambda: all(starter == me for starter in self._starting.values()))
            threads = [thread for thread in self._threads if thread.ident is not None]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def forget(self) -> None:
        """In a forked child: the workers are the parent's, and a lock may have been held at the fork."""
        self.lock = threading.RLock()
        self._all_started, self._starting = threading.Condition(self.lock), {}
        self.closed = self.wakeable = True
        self._refusal = RuntimeError(lifetime.AFTER_FORK)
        self.queue.clear()
        for slot in self._slots:
            if slot.link is not None:
                slot.link.close()
        self._slots, self._idle, self._threads = [], [], set()

    def stop(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool:
        with self.lock:
            begun = self._stop_begun(future, error, grace_seconds)
        ended = future.stop(error) if begun is None else begun
        self.dispatch()
        return ended

    def _stop_begun(self, future: TaskFuture[Any], error: BaseException, grace_seconds: float) -> bool | None:
        """Have a running task's worker ended; False if the task has ended, None if it was not begun."""
        found = ((slot, number) for slot in self._slots for number in _numbers_of(future, slot.open))
        slot, number = next(found, (None, -1))
        if slot is None:
            return False if any(_numbers_of(future, slot.settling) for slot in self._slots) else None
        self.reclaim(slot)
        if number >= slot.numbered:
            return None
        # What was claimed last may be running. What was claimed before has ended, though its result was not read yet:
        # to end the worker would hit another task.
        if number < slot.numbered - 1 or not future.doom(error):
            return False
        slot.stopping = future
        lifetime.NURSERIES.end(slot.pid, grace_seconds)
        return True

    # What others see

    @property
    def live(self) -> int:
        return sum(slot.ready_seconds is not None for slot in tuple(self._slots))

    @property
    def busy(self) -> int:
        return sum(bool(slot.orders) for slot in tuple(self._slots))

    def statistics(self) -> PoolStatistics:
        with self.lock:
            tally = view.add_up(self._slots)
            moment, busy_seconds = view.look(self._slots, self.queue.copy(), self.target)
            return self.ledger.statistics(moment, tally, busy_seconds)

    def running(self) -> tuple[RunningTask, ...]:
        with self.lock:
            return view.running(self._slots)

    def worker_memory(self) -> tuple[WorkerMemory, ...]:
        return view.memory([slot.pid for slot in tuple(self._slots) if slot.pid])


def _numbers_of(future: TaskFuture[Any], tasks: dict[int, ProcessTask]) -> list[int]:
    return [number for number, task in tuple(tasks.items()) if task.future is future]
