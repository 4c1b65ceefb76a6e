"""The queue of a ProcessPool, and which of its workers gets which tasks."""

from __future__ import annotations

import math
import threading
from collections import deque
from time import monotonic

from paropt_exporter.executors.counters import PoolCounters
from paropt_exporter.executors.processes.batches import Durations, put_back, take
from paropt_exporter.executors.processes.roster import Roster
from paropt_exporter.executors.processes.slot import ORDER_TASKS, Order, ProcessSlot, ProcessTask
from paropt_exporter.executors.worker import wire

_AMPLE = 256  # tasks a worker in the queue: so many are worth an order to one that is at something yet


class Desk:
    """Hands what waits to the workers on a roster; the roster's lock is its lock too.

        submit() ──> queue ──> orders of a worker ──> settled
                       ^            │ not begun when the worker died or was slow
                       └────────────┘

    Guarantees:
      * A task is handed to one worker at a time, and is begun once.
      * A waiting task and an idle worker never miss each other: submit() appends and then looks at `wakeable`; a worker
        lines up, sets `wakeable`, and then looks at the queue.
      * A worker holds one task, or several of functions known to be short (see `batches`). When those take longer all
        the same, what has ended is settled and what has not begun is given to others.
      * A worker's tasks reach it as they are numbered: it is given no order while one is still on its way.
      * An interrupt of a thread that hands out (Ctrl-C in submit) costs a worker, which is replaced, and no task.
    """

    def __init__(self, roster: Roster, counters: PoolCounters, max_tasks_per_child: int | None) -> None:
        self.queue: deque[ProcessTask] = deque()
        self.durations = Durations()
        self.ample: float = math.inf  # with so many tasks in the queue a submit has to call stock()
        self._roster = roster
        self._ledger = counters
        self._most_tasks = max_tasks_per_child

    # For threads that submit

    def dispatch(self, task: ProcessTask | None = None) -> None:
        """Give idle workers what waits. Raise where the pool was closed before `task` could be taken."""
        roster, refused = self._roster, False
        orders: list[Order] = []
        try:
            with roster.lock:
                self._assign_idle(orders)
                roster.look()
                # After the loop: a signal handler that closes the pool may have come in between.
                if task is not None and roster.closed and task in self.queue:
                    self.queue.remove(task)
                    refused = True
            for order in orders:
                self._send(order)
        except BaseException:  # an interrupt; raised again
            self._mend()
            raise
        if refused:
            roster.refuse()

    def _assign_idle(self, orders: list[Order]) -> None:
        """Add an order for each idle worker to `orders`; with the lock held.

        Not a loop in `dispatch`: in Python 3.13 an interrupt at a jump back with a condition passes by the handlers of
        its own function (CPython issue 130279), so that the lock would stay locked.
        """
        idle = self._roster.idle
        while idle and self.queue:
            slot = idle.pop()
            order = self._hand_out(slot)
            if order is None:
                idle.append(slot)
                break
            orders.append(order)

    def stock(self) -> None:
        """Give the worker that holds least more of what waits, while the thread that settles has no turn."""
        roster = self._roster
        try:
            with roster.lock:
                slot = self._find_least_loaded() if self._may_stock() else None
                order = None if slot is None else self._hand_out(slot)
                if order is None:
                    self.ample = math.inf  # until a worker is through with something
            if order is not None:
                self._send(order)
        except BaseException:  # an interrupt; raised again
            self._mend()
            raise

    def _find_least_loaded(self) -> ProcessSlot | None:
        """Return the worker with room that holds least; with the lock held, apart from it as in `_assign_idle`."""
        roomy = [slot for slot in self._roster.slots if slot.has_room]
        return min(roomy, key=lambda slot: slot.held_tasks, default=None)

    def _may_stock(self) -> bool:
        """Whether workers may be given more before they are through: not where one is to go then."""
        return self._most_tasks is None and self._roster.surplus() <= 0

    def _mend(self) -> None:
        """After an interrupt (Ctrl-C, no memory) while this thread handed out: nobody knows what a worker was sent.

        It is told that nothing follows: so it ends what came whole, and goes. What it has not begun by then goes to
        others. A worker that is in no list any more lines itself up.
        """
        roster, me = self._roster, threading.get_ident()
        with roster.lock:
            for slot in roster.slots:
                if slot.link is not None and slot.link.is_sending_by(me) and not slot.leaving:
                    slot.overdue = True
                    roster.dismiss(slot, recycle=True)
            roster.wakeable = True
            roster.wake_all()

    # For the threads that serve workers

    def line_up(self, slot: ProcessSlot) -> None:
        """See to a worker that has nothing to do and is not among the idle ones: an interrupt came in between."""
        with self._roster.lock:
            lost = slot.ready_seconds is not None and not slot.orders and slot not in self._roster.idle
        if lost:
            self.free(slot)

    def free(self, slot: ProcessSlot) -> None:
        """Give a worker its next order, or line it up with the idle ones, or let it go."""
        with self._roster.lock:
            order = self._more(slot) if slot.orders else self._next(slot)
        if order is not None:
            self._send(order)

    def _more(self, slot: ProcessSlot) -> Order | None:
        self.ample = _AMPLE * len(self._roster.slots)
        if len(self.queue) < self.ample or not slot.has_room or not self._may_stock():
            return None
        return self._hand_out(slot)

    def _next(self, slot: ProcessSlot) -> Order | None:
        roster = self._roster
        while not slot.leaving and not slot.recycling and slot.stopping is None:
            if self._most_tasks is not None and slot.taken >= self._most_tasks:
                roster.dismiss(slot, recycle=True)
            elif roster.surplus() > 0 or (roster.closed and not self.queue):
                roster.dismiss(slot)
            elif order := self._hand_out(slot):
                return order
            else:
                roster.idle.append(slot)
                roster.wakeable = True
                # A submit that did not find us lined up has appended before: look once more.
                if not self.queue and not roster.closed:
                    break
                roster.unlist(slot)
        return None

    # Orders

    def _hand_out(self, slot: ProcessSlot) -> Order | None:
        link = slot.link
        if link is None or not link.reserve(at_rest=not slot.orders):
            return None
        most = min(ORDER_TASKS, wire.MOST_TASKS - slot.held_tasks)
        if self._most_tasks is not None:
            most = min(most, self._most_tasks - slot.taken)
        share = math.ceil(len(self.queue) / len(self._roster.slots))
        now, busy = monotonic(), bool(slot.orders)
        tasks, seconds, cancelled = take(self.queue, self.durations, now, share=share, most=most, busy=busy)
        self._ledger.exited.cancelled += cancelled
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
        self.ample = _AMPLE * len(self._roster.slots)
        return Order(slot, link, first, tasks, alone)

    def _send(self, order: Order) -> None:
        slot, link, first, tasks, alone = order
        if alone:
            sent = link.order_one(first, tasks[0].packed, profiled=tasks[0].profiled)
        else:
            sent = link.order(first, [task.packed for task in tasks])
        if not sent:
            with self._roster.lock:
                slot.wake()  # its thread sends the rest when there is room

    # With the lock held

    def reclaim(self, slot: ProcessSlot) -> None:
        """Put what a worker has not begun back in front of the queue."""
        slot.overdue = bool(slot.orders)
        if slot.link is None or not slot.open:
            return
        first = slot.numbered - slot.link.unclaimed()
        back = [slot.open.pop(number) for number in sorted(slot.open) if number >= first]
        slot.numbered = first
        if slot.alone >= first:
            slot.alone = -1
        put_back(self.queue, back)

    def drain(self, *, keep: int = 0) -> list[ProcessTask]:
        """Empty the queue, but for the first tasks."""
        return [self.queue.pop() for _ in range(len(self.queue) - keep)][::-1]
