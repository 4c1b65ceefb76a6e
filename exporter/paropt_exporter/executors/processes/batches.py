"""A task of a ProcessPool, and how many tasks travel to a worker as one batch."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.worker import wire
from paropt_exporter.executors.worker.payload import AFRESH, Queued, UnpickledArguments
from paropt_exporter.executors.worker.pickle_buffers import LARGE_BYTES

# A worker may hold two batches of this size, so that it has the next one before it has finished the last. Their results
# fit into the pipe.
BATCH_SECONDS = 0.0005
BATCH_TASKS = wire.MOST_TASKS // 2
# On a busy machine the thread that sends a batch gets a core only after some milliseconds. So a busy worker gets more
# batches while it holds less than the first of these, or one more task while it runs one of up to the second.
HELD_SECONDS = 0.005
LONGEST_HELD_SECONDS = 0.05
# A busy worker gets no task with larger arguments: they travel as fast through shared memory, which has room for one
# value, and fill the socket.
_MOST_HELD_BYTES = 7 << 14
# Copying, pickling and loading runs at some GB a second. Counting it bounds a batch in memory as well as in time.
SECONDS_PER_BYTE = 1e-9

# Arguments count for more, so that a batch of them fits into one receive, and large ones travel alone.
_SECONDS_PER_ARGUMENT_BYTE = BATCH_SECONDS / LARGE_BYTES
_LOADING_SECONDS_PER_BYTE = 2e-8  # a closure of 600 bytes takes 12 µs

_WAKE_UP_SECONDS = 5e-5  # a batch that takes less is not worth waking another worker, which takes about as long
_OVERHEAD_SECONDS = 1e-6  # of a task beside its own time: to claim, answer and settle it
_UNKNOWN_SECONDS = 1.0  # a function that has not been timed travels alone
_NEWEST_WEIGHT = 0.25  # of the newest duration in a function's average
_MOST_FUNCTIONS = 10_000


class WorkItem(NamedTuple):
    """A task as it was submitted. It is pickled by then, unless its arguments are large and many tasks are queued."""

    future: TaskFuture[Any]
    packed: Queued
    profiled: bool  # travels alone and is measured in full
    queued_seconds: float
    repacked: bool = False


class Durations:
    """The average duration of a function's tasks, by the function's pickle.

    It is kept by the hash of the pickle, which keeps no pickle alive and takes no time to compare. Closures and bound
    methods have other pickles with other values, so these count by their label.
    The threads of the workers write without a lock: if two of them collide, one measurement is lost.
    """

    def __init__(self) -> None:
        self._seconds: dict[int | str, float] = {}

    def learn(self, function: bytes, label: str, total_seconds: float, count: int) -> None:
        """Record that `count` tasks of a function took `total_seconds` together."""
        if not count:
            return
        key = label if function[:1] == AFRESH else hash(function)
        seconds = _OVERHEAD_SECONDS + total_seconds / count
        known = self._seconds.get(key)
        if known is None and len(self._seconds) >= _MOST_FUNCTIONS:
            self._seconds.clear()
        self._seconds[key] = seconds if known is None else known + _NEWEST_WEIGHT * (seconds - known)

    def get_expected(self, function: bytes, label: str) -> float:
        """Return how long a task of a function takes, including the time in which a worker loads the function again."""
        if function[:1] != AFRESH:
            return self._seconds.get(hash(function), _UNKNOWN_SECONDS)
        return self._seconds.get(label, _UNKNOWN_SECONDS) + len(function) * _LOADING_SECONDS_PER_BYTE


def take_batch(
    items: list[WorkItem],
    dropped: deque[WorkItem],
    queue: deque[WorkItem],
    durations: Durations,
    now: float,
    *,
    share: int,
    most: int,
    busy: bool,
) -> float:
    """Begin the first tasks of the queue and move them to `items`: a worker's `share`, and `most` of them at most.

    Return their expected seconds. Tasks that were cancelled or stopped go to `dropped`. The first task is taken even if
    it is long, unless the worker is `busy`, where it would wait. A task with large arguments is taken alone. If an
    interrupt is raised in here, each task is in the queue, in `items` or in `dropped`.
    """
    item: WorkItem | None = None
    total, function, known = 0.0, b"", 0.0
    try:
        # The queue comes last in the condition: a signal handler or finalizer may take from it in between.
        while len(items) < most and (len(items) < share or total < _WAKE_UP_SECONDS) and queue:
            item = queue[0]  # before popleft(), which an interrupt may follow
            queue.popleft()
            future, packed, profiled, _, _ = item
            if packed[0] is not function:
                function = packed[0]
                known = durations.get_expected(function, future.label)
            expected = known if type(packed[1]) is tuple and not profiled else _expected_seconds(known, item)
            if total + expected > BATCH_SECONDS and (items or (busy and expected > LONGEST_HELD_SECONDS)):
                queue.appendleft(item)
                break
            if future.start_running(now):
                items.append(item)
                total += expected
            else:
                dropped.append(item)
    except BaseException:  # an interrupt; raised again
        present = [*([queue[0]] if queue else []), *items[-1:], *dropped]
        if item is not None and not any(item is other for other in present):
            items.append(item)
        raise
    return total


def put_back(queue: deque[WorkItem], items: list[WorkItem]) -> None:
    """Put tasks that were begun, but that no worker ran, in front of the queue again."""
    for item in reversed(items):
        item.future.reset_to_pending()
        queue.appendleft(item)


def _expected_seconds(known: float, item: WorkItem) -> float:
    arguments = item.packed[1]
    if item.profiled or isinstance(arguments, UnpickledArguments) or len(arguments) > _MOST_HELD_BYTES:
        return _UNKNOWN_SECONDS
    return known + min(len(arguments), LARGE_BYTES) * _SECONDS_PER_ARGUMENT_BYTE
