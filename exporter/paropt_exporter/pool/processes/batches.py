"""Puts tasks together that may travel as one batch: short ones, by what their functions took before."""

from __future__ import annotations

from collections import deque

from paropt_exporter.pool.processes.slot import ProcessTask
from paropt_exporter.pool.worker.pieces import Pieces

BATCH_SECONDS = 0.001  # what the tasks of one batch may take together
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
        seconds = total_seconds / count
        known = self._seconds.get(function)
        if known is None and len(self._seconds) >= _MOST_KNOWN:
            self._seconds.clear()
        self._seconds[function] = seconds if known is None else known + _SHARE * (seconds - known)

    def expected(self, function: bytes) -> float:
        return self._seconds.get(function, _UNKNOWN_SECONDS)


def take(queue: deque[ProcessTask], durations: Durations, most: int, now: float) -> tuple[list[ProcessTask], int]:
    """Begin the first tasks of the queue, as many as make a batch; return them, and how many turned out cancelled.

    One task is taken however long it is: what follows it stays for another worker. One with large arguments goes alone.
    """
    tasks: list[ProcessTask] = []
    left, function, known, cancelled = BATCH_SECONDS, b"", 0.0, 0
    while queue and len(tasks) < most:
        task = queue[0]
        future, packed, thorough, _, _ = task
        if packed[0] is not function:
            function = packed[0]
            known = durations.expected(function)
        expected = _UNKNOWN_SECONDS if thorough else known
        if type(packed[1]) is Pieces:
            expected = _UNKNOWN_SECONDS
        elif type(packed[1]) is bytes:
            expected += len(packed[1]) * SECONDS_PER_BYTE
        if expected > left and tasks:
            break
        queue.popleft()
        if future.begin(now):
            tasks.append(task)
            left -= expected
        else:
            cancelled += 1
    return tasks, cancelled
