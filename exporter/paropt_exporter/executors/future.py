"""The future of the pools: a standard Future that costs almost nothing until a thread waits for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import (  # the states with which the library's wait() and as_completed() compare
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    PENDING,
    RUNNING,
)
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from paropt_exporter.cpu_demand import NO_SWITCHES
from paropt_exporter.events import Measurement
from paropt_exporter.executors.pool_log import PoolLogger

log = PoolLogger(__name__)

T = TypeVar("T")

# A worker's measurement: worker, pid, started, ended, CPU and run delay in seconds, peak memory in bytes.
Usage = tuple[str, int, float, float, float, float, int]

_CHANGE_TRIES, _CHANGE_SECONDS = 10_000, 1e-4  # a change takes less than a microsecond, once its thread runs
_read_type_name = vars(type)["__qualname__"].__get__  # runs no code of a metaclass
_condition_lock = threading.RLock()  # guards: the creation of a future's condition and lists
# Another thread may hold the lock during the fork.
os.register_at_fork(after_in_child=_condition_lock._at_fork_reinit)  # type: ignore[attr-defined]  # as in the library


class TaskFuture(Future[T]):
    """A Future that creates its condition on first use: the condition is most of the cost of a standard one.

        PENDING ── start_running() ──> RUNNING ── settle_result(), settle_exception() ──> FINISHED
           │  └──────────────────────────┴── force_exception() ─────────────────────────────^
           └── cancel() ──> CANCELLED ── start_running() refuses ──> CANCELLED_AND_NOTIFIED

    Guarantees:
      * It settles once, by its worker, `force_exception` or `cancel`, whichever comes first.
      * A worker takes no lock unless another thread has used the future. The order closes the race: the worker writes
        to `_leaving` which state it is about to change, then checks for a condition; other threads create the
        condition, then read `_leaving`. At least one of them sees the other: the worker takes the lock, or the other
        thread waits until the state has changed.
      * So the state changes only under the lock once a thread holds it. The library's `wait` and `as_completed` rely on
        that: a future that they see finished must not report its end to them afterwards.
    """

    # Class attributes instead of an __init__: most futures never set most of these.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _own_condition: threading.Condition | None = None
    _own_lock: Any = None  # of the condition
    _waiters: Any = ()
    _done_callbacks: Any = ()
    _leaving: str | None = None  # the state that a worker is changing without the lock
    _usage: Usage | None = None
    _switches = NO_SWITCHES
    _exit_error: BaseException | None = None
    label: str = ""
    started_seconds: float | None = None  # when its task started, on the monotonic clock

    def __init__(self) -> None:
        """Set no attribute: the class attributes are the defaults."""

    def _get_condition(self) -> threading.Condition:
        made = self._own_condition
        if made is None:
            with _condition_lock:
                waiters: list[Any] = []
                callbacks: list[Any] = []
                lock = threading.RLock()
                condition = threading.Condition(lock)
                if self._own_condition is None:  # last: a signal handler may have created one in between
                    self._own_lock, self._waiters, self._done_callbacks = lock, waiters, callbacks
                    self._own_condition = condition
                made = self._own_condition
        if self._leaving == self._state:
            self._wait_for_change()
        return made

    def _wait_for_change(self) -> None:
        """Wait while a worker is between its check for a condition and its change of the state.

        The wait is bounded, in case a signal handler or finalizer uses a future which its own thread is changing.
        """
        for _ in range(_CHANGE_TRIES):
            if self._leaving != self._state:
                return
            sleep(_CHANGE_SECONDS)

    @property
    def _lock(self) -> Any:
        """The condition's lock, for `with` in its place: an interrupt in `Condition.__enter__` leaves it locked."""
        self._get_condition()
        return self._own_lock

    if not TYPE_CHECKING:  # as_completed's protocol would refuse a property in place of the attribute in the type stubs
        _condition = property(_get_condition)

    @property
    def measurement(self) -> Measurement | None:
        """The task's measurement; None before it has ended, and for tasks too short to be measured individually."""
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
            switches=self._switches,
            memory_peak_bytes=memory,
        )

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled, as a standard Future does because of its lock: a copy would never settle."""
        raise TypeError("cannot pickle a future: pass its result")

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
        with self._lock:
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                return True
            if self._state != PENDING:
                return False
            self._state = CANCELLED
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        return True

    # The methods below are for the pools.

    def start_running(self, now: float) -> bool:
        """Claim the task for a worker; return False if it was cancelled or stopped and must not run."""
        self._leaving = PENDING
        if self._own_condition is None:
            self.started_seconds = now
            self._state = RUNNING
            return True
        self._leaving = None
        with self._own_lock:
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
        """Settle with the task's result; return False, and drop the result, if the future was settled before."""
        self._leaving = RUNNING
        if self._own_condition is None:
            self._result = result
            self._state = FINISHED
            return True
        return self._settle_shared(result, None)

    def settle_exception(self, error: BaseException) -> bool:
        """Settle with the task's exception; return False, and drop it, if the future was settled before."""
        self._leaving = RUNNING
        if self._own_condition is None:
            self._exception = error
            self._state = FINISHED
            return True
        return self._settle_shared(None, error)

    def force_exception(self, error: BaseException) -> bool:
        """Settle with `error` now, whatever the task's later outcome; return False if the task has ended."""
        failed = self.mark_failed(error)
        if failed:
            self.call_callbacks()
        return failed

    def mark_failed(self, error: BaseException) -> bool:
        """Do the part of `force_exception` that runs no user code. If it returns True, call `call_callbacks` next."""
        with self._lock:
            if self._state not in (PENDING, RUNNING):
                return False
            self._exception = error
            self._finish()
            return True

    def call_callbacks(self) -> None:
        """Call the callbacks of a settled future."""
        try:
            self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        except BaseException:  # SystemExit or KeyboardInterrupt of a user's callback must not end the worker
            log.critical("exception calling callback", exc_info=True, extra={"task": self.label})

    def fail_queued(self, error: BaseException) -> bool:
        """Fail a task that no worker will take; return False if it was cancelled or stopped before."""
        if self.force_exception(error):
            return True
        self.start_running(0.0)  # notifies waiting threads of a cancellation
        return False

    def fail_on_exit(self, error: BaseException) -> bool:
        """Settle with `error`, whatever the task's outcome, once its worker has exited. Return False if the task has
        ended.
        """
        with self._lock:
            if self._state != RUNNING:
                return False
            self._exit_error = error
            return True

    def reset_to_pending(self) -> None:
        """Make a task pending again that a worker has claimed but not run, so that another worker can claim it."""
        self._leaving = None  # first: if an interrupt came during the claim, nothing changes the state any more
        with self._lock:
            if self._state in (PENDING, RUNNING):
                self._state, self.started_seconds = PENDING, None

    def _settle_shared(self, result: T | None, error: BaseException | None) -> bool:
        self._leaving = None
        with self._own_lock:
            if self._state != RUNNING:
                return False
            fails = self._exit_error is not None
            self._result, self._exception = (None, self._exit_error) if fails else (result, error)
            self._finish()
        self.call_callbacks()
        return not fails

    def _finish(self) -> None:
        """Change the state, and wake the threads that are waiting for it; under the lock."""
        self._state = FINISHED
        for waiter in self._waiters:
            if self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)
        self._condition.notify_all()

    def _wait(self, timeout: float | None) -> None:
        condition = self._get_condition()
        with self._own_lock:
            if self._state in (PENDING, RUNNING):
                condition.wait(timeout)
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                raise CancelledError
            if self._state != FINISHED:
                raise TimeoutError


def get_label(function: Callable[..., Any]) -> str:
    """Return the label of a function's tasks in errors and listings. Never raises, though reading a proxy may."""
    try:
        name = function.__qualname__  # as almost always: without a call
    except Exception:  # noqa: BLE001 -- it has none, or this is code of the user, such as a proxy's
        name = ""
    if type(name) is str and name:
        return name
    inner = unwrap_partial(function)
    return _read_text(inner, "__qualname__") or _read_type_name(type(inner))


def get_module(function: Callable[..., Any]) -> str:
    """Return the name of a function's module, "" if it has none. Never raises."""
    return _read_text(unwrap_partial(function), "__module__") or ""


def unwrap_partial(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function inside functools.partial. `func` of other types doesn't count: mocks nest it."""
    while issubclass(type(function), partial):
        function = function.func  # type: ignore[attr-defined]  # mypy narrows no type by issubclass
    return function


def _read_text(function: Callable[..., Any], name: str) -> str | None:
    try:
        text = getattr(function, name, None)
    except Exception:  # noqa: BLE001 -- code of the user, such as a proxy's
        return None
    return text if type(text) is str else None
