"""The future that the pools hand out: a standard Future that costs next to nothing until somebody waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import (  # the states that the library's own wait() and as_completed() compare with
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from typing import Any, TypeVar

from paropt_exporter.events import Measurement

log = logging.getLogger(__name__)

T = TypeVar("T")

# What a worker measured: worker, pid, started, ended, CPU and run delay in seconds, peak memory in bytes.
Usage = tuple[str, int, float, float, float, float, int]

_NEW, _STARTED, _SETTLING, _STOPPED = range(4)
_condition_lock = threading.RLock()  # guards: the making of a future's condition and lists, by whoever first needs them


class TaskFuture(Future[T]):
    """A Future whose condition is made when it is first needed: that is most of what a standard one costs.

        PENDING ── begin() ──> RUNNING ── finish(), fail() ──> FINISHED
           │  └──────────────────┴── stop() ─────────────────────^
           └── cancel() ──> CANCELLED ── begin() refuses ──> CANCELLED_AND_NOTIFIED

    Guarantees:
      * It settles once, whoever comes first: its worker, `force_exception` or `cancel`.
      * A worker takes no lock unless somebody else has looked at the future. The order closes the race: the worker
        writes its mark (`_progress`), then looks for a condition; the others make the condition, then look at the mark.
        One of them always sees the other, and then the condition decides.
    """

    # Class attributes stand in for an __init__: a future that nobody waits for never gets most of them.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _own_condition: threading.Condition | None = None
    _waiters: Any = ()
    _done_callbacks: Any = ()
    _progress = _NEW
    _usage: Usage | None = None
    _doom: BaseException | None = None
    label: str = ""
    started_seconds: float | None = None  # of the monotonic clock; when its task began

    def __init__(self) -> None:
        """Leave everything to the class attributes."""

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]  # the library only reads it
        made = self._own_condition
        if made is None:
            with _condition_lock:
                if self._own_condition is None:
                    self._waiters, self._done_callbacks = [], []
                    self._own_condition = threading.Condition()
                made = self._own_condition
        return made

    @property
    def measurement(self) -> Measurement | None:
        """What the task used; None before it ended, and for tasks too short to be measured one by one."""
        if self._usage is None:
            return None
        worker, pid, started, ended, cpu, delay, memory = self._usage
        return Measurement(
            worker=worker,
            pid=pid,
            started_seconds=started,
            ended_seconds=ended,
            cpu_seconds=cpu,
            run_delay_seconds=delay,
            memory_peak_bytes=memory,
        )

    def result(self, timeout: float | None = None) -> T:
        if self._state != FINISHED:
            self._wait(timeout)
        if self._exception is None:
            return self._result  # type: ignore[no-any-return]  # the task's own value
        try:
            raise self._exception
        finally:
            del self  # the traceback holds this frame, and the future holds the exception: break the cycle

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if self._state != FINISHED:
            self._wait(timeout)
        return self._exception

    def done(self) -> bool:
        return self._state in (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)

    def cancel(self) -> bool:
        with self._condition:
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            if self._state != PENDING or self._progress != _NEW:
                return False
            self._state = CANCELLED
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        return True

    # What follows is for the pools.

    def start_running(self, now: float) -> bool:
        """Claim the task for a worker; False when it was cancelled or stopped before, and must not run."""
        self._progress = _STARTED
        if self._own_condition is None:
            self._state = RUNNING
            self.started_seconds = now
            return True
        with self._condition:
            if self._state == PENDING:
                self._state = RUNNING
                self.started_seconds = now
                return True
            if self._state == CANCELLED:
                self._state = CANCELLED_AND_NOTIFIED
                for waiter in self._waiters:
                    waiter.add_cancelled(self)
            return False

    def settle_result(self, result: T) -> bool:
        """Settle with the task's result; False when `force_exception` came first and the result is dropped."""
        self._progress = _SETTLING
        if self._own_condition is None:
            self._result = result
            self._state = FINISHED
            return self._notify_late_waiters()
        return self._settle_shared(result, None)

    def settle_exception(self, error: BaseException) -> bool:
        """Settle with the task's exception; False when `force_exception` came first and it is dropped."""
        self._progress = _SETTLING
        if self._own_condition is None:
            self._exception = error
            self._state = FINISHED
            return self._notify_late_waiters()
        return self._settle_shared(None, error)

    def force_exception(self, error: BaseException) -> bool:
        """Settle with `error` in the place of whatever the task will come to; False when it has ended."""
        with self._condition:
            if self._state not in (PENDING, RUNNING) or self._progress in (_SETTLING, _STOPPED):
                return False
            self._progress = _STOPPED
            self._exception = error
            self._state = FINISHED
        return self._notify_waiters()

    def fail_on_exit(self, error: BaseException) -> bool:
        """Have the task settle with `error` once its worker is gone, whatever it comes to; False when it has ended."""
        with self._condition:
            if self._state != RUNNING or self._progress in (_SETTLING, _STOPPED):
                return False
            self._doom = error
            return True

    def reset_to_pending(self) -> None:
        """Make a task whose worker never came to it pending again, for another worker to begin."""
        with self._condition:
            if self._state == RUNNING:
                self._state, self.started_seconds = PENDING, None
                self._progress = _NEW

    def _settle_shared(self, result: T | None, error: BaseException | None) -> bool:
        with self._condition:
            if self._state != RUNNING:
                return False
            doomed = self._doom is not None
            self._result, self._exception = (None, self._doom) if doomed else (result, error)
            self._state = FINISHED
        return self._notify_waiters() and not doomed

    def _notify_late_waiters(self) -> bool:
        """Tell those who made the condition since `settle_result` looked for it: they may be waiting."""
        return self._own_condition is None or self._notify_waiters()

    def _notify_waiters(self) -> bool:
        with self._condition:
            for waiter in self._waiters:
                if self._exception is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        try:
            self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        except BaseException:  # an exit or an interrupt out of a user's callback: no worker is to end by it
            log.critical("exception calling callback", exc_info=True, extra={"task": self.label})
        return True

    def _wait(self, timeout: float | None) -> None:
        with self._condition:
            if self._state in (PENDING, RUNNING):
                self._condition.wait(timeout)
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                raise CancelledError
            if self._state != FINISHED:
                raise TimeoutError


def get_label(function: Callable[..., Any]) -> str:
    """Return the name by which a task of this function goes in errors and listings."""
    name = getattr(function, "__qualname__", None)
    if type(name) is str:
        return name
    inner = getattr(function, "func", None)  # functools.partial
    return get_label(inner) if callable(inner) and inner is not function else type(function).__qualname__
