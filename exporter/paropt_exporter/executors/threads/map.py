"""Map a function over items in the threads of a pool, without a future for each item."""

from __future__ import annotations

import _thread
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import count, islice
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from paropt_exporter.errors import drop_first_frame
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.threads.thread_worker import Worker

if TYPE_CHECKING:
    from paropt_exporter.executors.threads.pool_state import ThreadPoolState

T = TypeVar("T")


class _Raised:
    """The exception of an item, in the place of its result."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class MapWorkItem(Generic[T]):
    """One map call: free workers take items from `_pending` and store outcomes by index.

    Guarantees:
      * Workers take items one by one, so that a slow item delays no other, and start them in order.
      * An item's arguments are dropped when it starts, its result when the consumer has taken it.
      * Consumer and worker never miss each other: the consumer stores a lock in `_awaited` and then reads the outcomes;
        a worker stores the outcome and then reads `_awaited`.
    """

    def __init__(
        self,
        state: ThreadPoolState,
        label: str,
        function: Callable[..., T],
        iterables: tuple[Iterable[Any], ...],
        *,
        timeout: float | None,
        buffersize: int | None,
    ) -> None:
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._state = state
        self._deadline = None if timeout is None else monotonic() + timeout
        self._function = function
        self._marker: TaskFuture[Any] = TaskFuture()  # represents the map among the pool's running tasks
        self._marker.label = label
        self._source = enumerate(zip(*iterables, strict=False))
        self._pending: deque[tuple[int, tuple[Any, ...]]] = deque(
            self._source if buffersize is None else islice(self._source, buffersize)
        )
        self._lazily = buffersize is not None
        self._slow_path = self._lazily  # whether results can't just be popped; set before an item that raised
        self._enqueued = False
        self._total = len(self._pending)
        self._outcomes: dict[int, Any] = {}
        self._awaited: dict[int, _thread.LockType] = {}
        self.queued_seconds = monotonic()
        self._enqueue()

    def results(self) -> Iterator[T]:
        outcomes, pop = self._outcomes, self._outcomes.pop
        try:
            for index in count() if self._lazily else range(self._total):
                # No name for the result: the generator must not keep it alive while the consumer uses it.
                if index in outcomes and not self._slow_path:
                    yield pop(index)  # the fast path
                elif index < self._total:
                    yield self._take_outcome(index)
                else:
                    return
        finally:
            self._state.cancel_shared(self)

    def _take_outcome(self, index: int) -> T:
        outcome = self._outcomes.pop(index) if index in self._outcomes else self._wait_for(index)
        if self._lazily:
            self._read_next()
        if outcome.__class__ is _Raised:
            try:
                raise outcome.error
            finally:
                del outcome  # the traceback holds this frame: break the cycle
        return outcome  # type: ignore[no-any-return]  # the function's own value

    def run_items(self, worker: Worker, now: float) -> float:
        """Run items until none is pending, in one of the pool's threads; return the time of the end."""
        pending, outcomes, awaited = self._pending, self._outcomes, self._awaited
        function, counters, state = self._function, worker.counters, self._state
        mine = (self._marker, function)
        self._enqueued = False
        if len(pending) > 1:
            self._enqueue(first=True)  # the next free worker joins, before it runs later tasks
        worker.started_seconds = now
        while True:
            try:
                index, arguments = pending.popleft()
            except IndexError:
                break
            worker.task = mine
            try:
                outcome: Any = function(*arguments)
            except BaseException as error:  # noqa: BLE001 -- any exception of an item is that item's outcome
                outcome = _Raised(drop_first_frame(error))
                worker.task = None
                counters.failed += 1
                self._slow_path = True
            else:
                worker.task = None
                counters.succeeded += 1
            outcomes[index] = outcome
            del arguments, outcome
            if awaited:
                self._notify_consumer(index)
            if state.must_check_exit:
                break
        ended = monotonic()
        counters.busy_seconds += ended - now
        return ended

    def _enqueue(self, *, first: bool = False) -> None:
        self._enqueued = True
        queue = self._state.work_queue
        (queue.appendleft if first else queue.append)(self)
        if self._state.needs_wake:
            self._state.wake(None if first else self)  # a map that was accepted continues after the pool was closed

    def _read_next(self) -> None:
        for item in islice(self._source, 1):
            self._total += 1
            self._pending.append(item)
            if not self._enqueued:
                self._enqueue()

    def _wait_for(self, index: int) -> Any:
        lock = _thread.allocate_lock()
        lock.acquire()
        self._awaited[index] = lock
        if index not in self._outcomes:
            left = -1.0 if self._deadline is None else max(0.0, self._deadline - monotonic())
            if not lock.acquire(timeout=left):
                self._awaited.pop(index, None)
                raise TimeoutError
        self._awaited.pop(index, None)
        return self._outcomes.pop(index)

    def count_pending(self) -> int:
        return len(self._pending)

    def cancel_pending(self) -> int:
        """Drop the pending items and return their number. A consumer that waits for one gets CancelledError."""
        dropped = 0
        while self._pending:
            try:
                index, _ = self._pending.popleft()
            except IndexError:
                break
            dropped += 1
            self._slow_path = True
            self._outcomes[index] = _Raised(CancelledError())
            self._notify_consumer(index)
        return dropped

    def _notify_consumer(self, index: int) -> None:
        lock = self._awaited.pop(index, None)
        if lock is not None:
            lock.release()
