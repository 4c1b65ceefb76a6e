"""A task on its way to a worker process, and what is kept about each of those processes."""

from __future__ import annotations

import os
from collections import deque
from typing import Any, NamedTuple

from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import WorkerCounters
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.link import ProcessLink
from paropt_exporter.executors.worker import wire
from paropt_exporter.executors.worker.payload import Packed

# What a worker may hold are two orders' worth, so that it has the next before it is through with the last: a
# millisecond's together, and no more than what the pipe has room for.
ORDER_SECONDS = 0.0005
ORDER_TASKS = wire.MOST_TASKS // 2


class ProcessTask(NamedTuple):
    """Packed when it was submitted: what its caller changes afterwards does not matter to it."""

    future: TaskFuture[Any]
    packed: Packed
    profiled: bool
    queued_seconds: float
    repacked: bool = False


class Order(NamedTuple):
    """Tasks on their way to a worker; `alone`: the one task is an order of its own, else they are a batch."""

    slot: ProcessSlot
    link: ProcessLink
    first: int
    tasks: list[ProcessTask]
    alone: bool


class ProcessSlot:
    """One worker's place in its pool: the process changes when it dies or is used up, the slot stays.

        order ─> order ─> order        the worker runs the eldest; replies come in this order, tasks are numbered in it

    Its own thread writes the numbers; `link`, `open`, `orders`, `leaving`, `recycling` and `stopping` change under the
    crew's lock (a task that has ended leaves `open` without it).
    """

    __slots__ = (
        "alone", "call", "cpu_base_seconds", "cpu_seconds", "delay_mark", "delay_seconds", "failures",
        "held_seconds", "held_tasks", "leaving", "link", "name", "numbered", "open", "ordered_seconds", "orders",
        "overdue", "pid", "ready_seconds", "recycling", "refusal", "sampled", "settling", "slot_seconds", "stopping",
        "taken", "tally", "taught",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.link: ProcessLink | None = None
        self.pid = 0
        self.open: dict[int, ProcessTask] = {}  # what the worker was given and has not ended, by number
        self.settling: dict[int, ProcessTask] = {}  # ended, their futures not yet settled
        self.numbered = 0  # the next task's number
        self.orders: deque[tuple[int, float]] = deque()  # the worker is not through with: tasks, seconds expected
        self.held_tasks, self.held_seconds = 0, 0.0  # sums over the orders
        self.alone = -1  # the number of the task that is an order of its own: its reply says that it is through
        self.refusal: BaseException | None = None  # the initializer's last error
        self.taught = False  # whether a module that the initializer lacked goes by value now
        self.taken = 0  # tasks that this process was given
        self.ordered_seconds = 0.0  # when the worker had the eldest order, and none before it
        self.overdue = False  # what it had not begun was taken back: no more before it is through with all orders
        self.leaving = self.recycling = False
        self.stopping: TaskFuture[Any] | None = None
        self.failures = 0  # processes in a row that ended before they were of any use
        self.tally = WorkerCounters()
        self.ready_seconds: float | None = None
        self.delay_mark = (0.0, 0.0)  # of the batch ordered then: its worker's run delay at the first look at it
        self.sampled: tuple[int, TreeTime] | None = None  # the process that this is of, and its threads' times
        self.slot_seconds = self.cpu_seconds = self.delay_seconds = self.cpu_base_seconds = 0.0

    def wake(self) -> None:
        """Have the slot's thread look around; with the crew's lock held, since the thread closes `call` under it."""
        if self.call >= 0:
            os.eventfd_write(self.call, 1)

    def give(self, tasks: list[ProcessTask], seconds: float, now: float, *, alone: bool) -> int:
        """Note an order that is expected to take so long; return the number of its first task."""
        first = self.numbered
        if alone:
            self.alone = first
        self.open.update(enumerate(tasks, first))
        self.numbered += len(tasks)
        if not self.orders:
            self.ordered_seconds, self.overdue = now, False
        self.orders.append((len(tasks), seconds))
        self.held_tasks += len(tasks)
        self.held_seconds += seconds
        self.taken += len(tasks)
        return first

    def take_out(self, tasks: list[ProcessTask]) -> None:
        """Note that tasks will not reach the worker, which is about to be replaced."""
        for number, task in tuple(self.open.items()):
            if any(task is other for other in tasks):
                self.open.pop(number, None)

    def through(self, now: float) -> None:
        """Note that the worker is through with the eldest order."""
        tasks, seconds = self.orders.popleft()
        self.held_tasks -= tasks
        self.held_seconds = self.held_seconds - seconds if self.orders else 0.0
        self.ordered_seconds = now

    @property
    def has_room(self) -> bool:
        """Whether a worker that is at something may be given more: all that it holds is known to be short."""
        return (
            0 < self.held_tasks <= ORDER_TASKS
            and self.held_seconds <= ORDER_SECONDS
            and not (self.overdue or self.leaving or self.recycling or self.stopping)
            and self.link is not None
            and not self.link.sending
        )

    def ready(self, pid: int, now: float) -> None:
        self.pid, self.ready_seconds = pid, now

    def gone(self, now: float) -> None:
        if self.ready_seconds is not None:
            self.slot_seconds += now - self.ready_seconds
        self.ready_seconds, self.pid, self.cpu_base_seconds, self.taken = None, 0, 0.0, 0
        self.open, self.stopping, self.alone = {}, None, -1
        self.orders.clear()
        self.held_tasks, self.held_seconds = 0, 0.0
