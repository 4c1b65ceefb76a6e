"""A task on its way to a worker process, and what is kept about each of those processes."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from paropt_exporter.pool.future import TaskFuture
from paropt_exporter.pool.ledger import Tally
from paropt_exporter.pool.processes.link import ProcessLink
from paropt_exporter.pool.worker.payload import Packed


class ProcessTask(NamedTuple):
    """Packed when it was submitted: what its caller changes afterwards does not matter to it."""

    future: TaskFuture[Any]
    packed: Packed
    thorough: bool
    queued_seconds: float
    repacked: bool = False


class ProcessSlot:
    """One worker's place in its pool: the process changes when it dies or is used up, the slot stays.

    Its own thread writes the numbers; `link`, `open`, `size`, `ordered`, `leaving`, `recycling` and `stopping` change
    under the crew's lock (a task that has ended leaves `open` without it).
    """

    __slots__ = (
        "batched", "call", "cpu_base_seconds", "cpu_seconds", "delay_mark", "delay_seconds", "failures",
        "leaving", "link", "name", "open", "ordered", "ordered_seconds", "overdue", "pid", "ready_seconds",
        "recycling", "refusal", "settling", "size", "slot_seconds", "stopping", "taken", "tally", "taught",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.link: ProcessLink | None = None
        self.pid = 0
        self.open: dict[int, ProcessTask] = {}  # the batch's tasks that have not ended, by number
        self.settling: dict[int, ProcessTask] = {}  # of the batch before: ended, their futures not yet settled
        self.size = 0  # how many tasks the batch had
        self.ordered = False  # whether the worker has a batch that it has not said to be through
        self.batched = False  # whether that batch is through with a word of its own
        self.refusal: BaseException | None = None  # the initializer's last error
        self.taught = False  # whether a module that the initializer lacked goes by value now
        self.taken = 0  # tasks that this process was given
        self.ordered_seconds = 0.0
        self.overdue = False
        self.leaving = self.recycling = False
        self.stopping: TaskFuture[Any] | None = None
        self.failures = 0  # processes in a row that ended before they were of any use
        self.tally = Tally()
        self.ready_seconds: float | None = None
        self.delay_mark = (0.0, 0.0)  # of the batch ordered then: its worker's run delay at the first look at it
        self.slot_seconds = self.cpu_seconds = self.delay_seconds = self.cpu_base_seconds = 0.0

    def wake(self) -> None:
        """Have the slot's thread look around; with the crew's lock held, since the thread closes `call` under it."""
        if self.call >= 0:
            os.eventfd_write(self.call, 1)

    def ready(self, pid: int, now: float) -> None:
        self.pid, self.ready_seconds = pid, now

    def gone(self, now: float) -> None:
        if self.ready_seconds is not None:
            self.slot_seconds += now - self.ready_seconds
        self.ready_seconds, self.pid, self.cpu_base_seconds, self.taken = None, 0, 0.0, 0
        self.ordered, self.open, self.stopping = False, {}, None
