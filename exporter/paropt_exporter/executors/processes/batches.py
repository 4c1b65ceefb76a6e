"""Puts tasks together that may travel as one batch: short ones, by what their functions took before."""

from __future__ import annotations

from collections import deque

from paropt_exporter.executors.processes.slot import ORDER_SECONDS, ProcessTask
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers

_WORTH_SECONDS = 5e-5  # no other worker is woken for less: to wake one takes about as long
_OVERHEAD_SECONDS = 1e-6  # what a task takes besides its own time: claimed, answered, settled
# What a byte of a task's arguments or result adds to the time that it is taken to need: copied, pickled and loaded at
# some GB a second. So a batch is bounded in memory as it is in time.
SECONDS_PER_BYTE = 1e-9
_UNKNOWN_SECONDS = 1.0  # a function that has not been timed goes alone
_SHARE = 0.25  # of the newest duration in a function's average
_MOST_KNOWN = 10_000


class Durations:
    """How long a function's tasks take, by its pickle. Slot threads learn, each its own tasks; a lost race is one
    measurement lost.
    """

    def __init__(self) -> None:
        self._seconds: dict[bytes, float] = {}

    def learn(self, function: bytes, total_seconds: float, count: int) -> None:
        """Take in what `count` tasks of a function took together."""
        if not count:
            return
        seconds = _OVERHEAD_SECONDS + total_seconds / count
        known = self._seconds.get(function)
        if known is None and len(self._seconds) >= _MOST_KNOWN:
            self._seconds.clear()
        self._seconds[function] = seconds if known is None else known + _SHARE * (seconds - known)

    def expected(self, function: bytes) -> float:
        return self._seconds.get(function, _UNKNOWN_SECONDS)


def take(
    queue: deque[ProcessTask], durations: Durations, now: float, *, share: int, most: int, busy: bool
) -> tuple[list[ProcessTask], float, int]:
    """Begin the first tasks of the queue, as many as make an order: a worker's `share` of them, or what is worth it.

    Returns the tasks, the seconds that they are expected to take, and how many turned out cancelled. One task is taken
    however long it is, unless the worker is `busy` with others; what follows it stays for another worker. One with
    large arguments goes alone.
    """
    tasks: list[ProcessTask] = []
    task: ProcessTask | None = None
    total, function, known, cancelled = 0.0, b"", 0.0, 0
    try:
        # The queue is looked at last: a signal handler or finalizer that runs meanwhile may take from it too.
        while len(tasks) < most and (len(tasks) < share or total < _WORTH_SECONDS) and queue:
            task = queue[0]  # known before it is taken, should an interrupt come with the return of popleft()
            queue.popleft()
            future, packed, profiled, _, _ = task
            if packed[0] is not function:
                function = packed[0]
                known = durations.expected(function)
            expected = known if type(packed[1]) is tuple and not profiled else _expected_seconds(known, task)
            if total + expected > ORDER_SECONDS and (tasks or busy):
                queue.appendleft(task)
                break
            if future.start_running(now):
                tasks.append(task)
                total += expected
            else:
                cancelled += 1
    except BaseException:  # an interrupt: what was begun goes back; raised again
        if task is not None and not (queue and queue[0] is task) and not (tasks and tasks[-1] is task):
            tasks.append(task)
        put_back(queue, tasks)
        raise
    return tasks, total, cancelled


def put_back(queue: deque[ProcessTask], tasks: list[ProcessTask]) -> None:
    """Put tasks that were begun, but that no worker came to, in front of the queue again."""
    for task in reversed(tasks):
        task.future.reset_to_pending()
        queue.appendleft(task)


def _expected_seconds(known: float, task: ProcessTask) -> float:
    arguments = task.packed[1]
    if task.profiled or isinstance(arguments, PickleBuffers):
        return _UNKNOWN_SECONDS
    return known + len(arguments) * SECONDS_PER_BYTE
