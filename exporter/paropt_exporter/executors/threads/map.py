"""Maps a function over items in a pool's threads, without a future for each item."""

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
from paropt_exporter.executors.threads.worker_thread import Slot

if TYPE_CHECKING:
    from paropt_exporter.executors.threads.pool_state import ThreadCrew

T = TypeVar("T")


class _Raised:
    """Stands in the place of a result: the exception that the item ended with."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class ThreadMap(Generic[T]):
    """One map call: items wait in `_pending`, each taken by whichever thread is free; outcomes by index.

    Guarantees:
      * Items are taken one by one, so that a slow one holds up no other, and begun in order.
      * An item's arguments are dropped when it begins, its result when it was taken.
      * Consumer and worker never miss each other: the consumer leaves a lock in `_awaited` and then looks for the
        result; a worker leaves the result and then looks for a lock.
    """

    def __init__(
        self,
        crew: ThreadCrew,
        label: str,
        function: Callable[..., T],
        iterables: tuple[Iterable[Any], ...],
        *,
        timeout: float | None,
        buffersize: int | None,
    ) -> None:
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        self._crew = crew
        self._deadline = None if timeout is None else monotonic() + timeout
        self._function = function
        self._marker: TaskFuture[Any] = TaskFuture()  # what stands for the map among the pool's running tasks
        self._marker.label = label
        self._source = enumerate(zip(*iterables, strict=False))
        self._pending: deque[tuple[int, tuple[Any, ...]]] = deque(
            self._source if buffersize is None else islice(self._source, buffersize)
        )
        self._lazily = buffersize is not None
        self._particular = self._lazily  # whether taking a result takes more than that; set before one that raised
        self._offered = False
        self._total = len(self._pending)
        self._outcomes: dict[int, Any] = {}
        self._awaited: dict[int, _thread.LockType] = {}
        self.queued_seconds = monotonic()
        self._offer()

    def results(self) -> Iterator[T]:
        outcomes, pop = self._outcomes, self._outcomes.pop
        try:
            for index in count() if self._lazily else range(self._total):
                # No name for the result: while the consumer has it, the generator must not hold it too.
                if index in outcomes and not self._particular:
                    yield pop(index)  # the short way of the many
                elif index < self._total:
                    yield self._take(index)
                else:
                    return
        finally:
            self._crew.cancel_share(self)

    def _take(self, index: int) -> T:
        outcome = self._outcomes.pop(index) if index in self._outcomes else self._wait_for(index)
        if self._lazily:
            self._read_on()
        if outcome.__class__ is _Raised:
            try:
                raise outcome.error
            finally:
                del outcome  # the traceback holds this frame: break the cycle
        return outcome  # type: ignore[no-any-return]  # the function's own value

    def work(self, slot: Slot, now: float) -> float:
        """Take items until there are no more, in one of the pool's threads; return the time."""
        pending, outcomes, awaited = self._pending, self._outcomes, self._awaited
        function, tally, crew = self._function, slot.tally, self._crew
        mine = (self._marker, function)
        self._offered = False
        if len(pending) > 1:
            self._offer(first=True)  # the next free thread joins in, before anything that was submitted later
        slot.started_seconds = now
        while True:
            try:
                index, arguments = pending.popleft()
            except IndexError:
                break
            slot.task = mine
            try:
                outcome: Any = function(*arguments)
            except BaseException as error:  # noqa: BLE001 -- whatever an item raises is that item's outcome
                outcome = _Raised(drop_first_frame(error))
                slot.task = None
                tally.failed += 1
                self._particular = True
            else:
                slot.task = None
                tally.succeeded += 1
            outcomes[index] = outcome
            del arguments, outcome
            if awaited:
                self._tell(index)
            if crew.attention:
                break
        ended = monotonic()
        tally.busy_seconds += ended - now
        return ended

    def _offer(self, *, first: bool = False) -> None:
        self._offered = True
        queue = self._crew.queue
        (queue.appendleft if first else queue.append)(self)
        if self._crew.wakeable:
            self._crew.wake(None if first else self)  # what was accepted goes on after the pool was closed

    def _read_on(self) -> None:
        for item in islice(self._source, 1):
            self._total += 1
            self._pending.append(item)
            if not self._offered:
                self._offer()

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

    def waiting(self) -> int:
        return len(self._pending)

    def cancel(self) -> int:
        """Drop what has not begun; who waits for one of those gets CancelledError. Return how many they were."""
        dropped = 0
        while self._pending:
            try:
                index, _ = self._pending.popleft()
            except IndexError:
                break
            dropped += 1
            self._particular = True
            self._outcomes[index] = _Raised(CancelledError())
            self._tell(index)
        return dropped

    def _tell(self, index: int) -> None:
        lock = self._awaited.pop(index, None)
        if lock is not None:
            lock.release()
