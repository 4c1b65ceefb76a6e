"""The future of the pools: a standard Future that costs almost nothing until a thread waits for it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
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

_SETTLING = "SETTLING"  # no state of a future: see `_settle_shared`

# A worker's measurement: worker, pid, started, ended, CPU and run delay in seconds, peak memory in bytes.
Usage = tuple[str, int, float, float, float, float, int]

_CHANGE_TRIES, _CHANGE_SECONDS = 10_000, 1e-4  # a change takes less than a microsecond, once its thread runs
_read_type_name = vars(type)["__qualname__"].__get__  # runs no code of a metaclass
_condition_lock = threading.RLock()  # guards: the creation of a future's condition and lists
_unnotified: deque[TaskFuture[Any]] = deque()  # cancelled futures that `_notify_later` was called for
_notifying = threading.Lock()  # held by the thread that notifies for them
# Another thread may hold them during the fork.
os.register_at_fork(after_in_child=_condition_lock._at_fork_reinit)  # type: ignore[attr-defined]  # as in the library
os.register_at_fork(after_in_child=_notifying._at_fork_reinit)  # type: ignore[attr-defined]  # likewise
os.register_at_fork(after_in_child=_unnotified.clear)


class TaskFuture(Future[T]):
    """A Future that creates its condition on first use: the condition is most of the cost of a standard one.

        PENDING ── start_running() ──> RUNNING ── settle_result(), settle_exception() ──> FINISHED
           │  │                           └── force_exception() ──────────────────────────^
           │  └── fail_queued(), force_exception() ───────────────────────────────────────^
           └── cancel() ──> CANCELLED ── notify_cancelled() ──> CANCELLED_AND_NOTIFIED

    Guarantees:
      * It settles once, by its worker, `fail_queued`, `force_exception` or `cancel`, whichever comes first.
      * A worker takes no lock unless another thread has used the future. The order closes the race: the worker writes
        to `_leaving` which state it is about to change, then checks for a condition; other threads create the
        condition, then read `_leaving`. At least one of them sees the other: the worker takes the lock, or the other
        thread waits until the state has changed.
      * So once a thread holds the lock, the future does not finish. The library's `wait` and `as_completed` rely on
        that: a future that they see finished must not report its end to them afterwards.
      * `start_running`, `reset_to_pending`, and `fail_on_exit` of a running task take no lock, so that pools may call
        them under their own: a signal handler that interrupts `wait`, which locks all its futures, may need the pool's.
        A worker that claims a task and a thread that ends it see each other by `_leaving` and `_ending`, as above.
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
    _ending = False  # whether another thread is about to end a pending task
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
        """Wait while a worker is changing the state without the lock.

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
            if not self._end_pending(CANCELLED):
                return False
            self._condition.notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        return True

    # The methods below are for the pools.

    def start_running(self, now: float) -> bool:
        """Claim the task for a worker; return False if it was cancelled or stopped and must not run.

        Then call `notify_cancelled`, without the pool's lock.
        """
        if self._state != PENDING:
            return False
        self._leaving = PENDING
        if self._ending or self._state != PENDING:  # once more: it may have just ended
            self._leaving = None
            return False
        self.started_seconds = now
        self._state = RUNNING
        return True

    def notify_cancelled(self) -> None:
        """Notify waiting threads if the future was cancelled: they wait until its worker knows, as in the library.

        A signal handler or finalizer may have interrupted this thread in `wait`, after it looked at the future's state
        and before it added itself to the waiters: then another thread does it, once `wait` has unlocked the future.
        """
        if self._lock._is_owned():
            _notify_later(self)
            return
        with self._lock:
            if self._state == CANCELLED:
                self._state = CANCELLED_AND_NOTIFIED
                for waiter in self._waiters:
                    waiter.add_cancelled(self)

    def settle_result(self, result: T) -> bool:
        """Settle with the task's result; return False, and drop the result, if the future was settled before."""
        self._leaving = RUNNING
        if self._own_condition is None and self._exit_error is None:
            self._result = result
            self._state = FINISHED
            return True
        return self._settle_shared(result, None)

    def settle_exception(self, error: BaseException) -> bool:
        """Settle with the task's exception; return False, and drop it, if the future was settled before."""
        self._leaving = RUNNING
        if self._own_condition is None and self._exit_error is None:
            self._exception = error
            self._state = FINISHED
            return True
        return self._settle_shared(None, error)

    def fail_queued(self, error: BaseException) -> bool:
        """Fail a task that no worker has claimed; return False if one has, or if the task has ended."""
        with self._lock:
            failed = self._end_pending(FINISHED, error)
            if failed:
                self._wake_waiters()
        if failed:
            self._call_callbacks()
        else:
            self.notify_cancelled()
        return failed

    def force_exception(self, error: BaseException) -> bool:
        """Settle with `error` now, whatever the task's later outcome; return False if the task has ended."""
        with self._lock:
            if not self._end_pending(FINISHED, error):
                if self._state != RUNNING:
                    return False
                self._exception = error
                self._state = FINISHED
            self._wake_waiters()
        self._call_callbacks()
        return True

    def _end_pending(self, state: str, error: BaseException | None = None) -> bool:
        """End a task that no worker has claimed; under the lock. Return False if one has, or if the task has ended."""
        self._ending = True  # from now on no worker claims it
        try:
            self._wait_for_change()
            if self._state != PENDING or self._leaving == PENDING:
                return False
            self._exception = error
            self._state = state
            return True
        finally:
            self._ending = False  # the state shows it

    def fail_on_exit(self, error: BaseException) -> bool:
        """Settle with `error`, whatever the task's outcome, once its worker has exited. Return False if the task has
        ended.
        """
        self._exit_error = error
        if self._leaving not in (RUNNING, _SETTLING):
            return self._state == RUNNING
        with self._lock:  # the worker may not have read the error
            return self._state == RUNNING or self._exception is error

    def reset_to_pending(self) -> None:
        """Make a task pending again that a worker has claimed but not run, so that another worker can claim it."""
        if self._state in (PENDING, RUNNING):  # PENDING: an interrupt came during the claim
            self._leaving = self.started_seconds = None
            self._state = PENDING

    def _settle_shared(self, result: T | None, error: BaseException | None) -> bool:
        self._leaving = _SETTLING  # not RUNNING: a thread that holds the lock would wait for this one
        with self._lock:
            if self._state != RUNNING:
                return False
            fails = self._exit_error is not None
            self._result, self._exception = (None, self._exit_error) if fails else (result, error)
            self._state = FINISHED
            self._wake_waiters()
        self._call_callbacks()
        return not fails

    def _wake_waiters(self) -> None:
        """Wake the threads that are waiting for a settled future; under the lock."""
        for waiter in self._waiters:
            if self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)
        self._condition.notify_all()

    def _call_callbacks(self) -> None:
        try:
            self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        except BaseException:  # SystemExit or KeyboardInterrupt of a user's callback must not end the worker
            log.critical("exception calling callback", exc_info=True, extra={"task": self.label})

    def _wait(self, timeout: float | None) -> None:
        condition = self._get_condition()
        with self._own_lock:
            if self._state in (PENDING, RUNNING):
                condition.wait(timeout)
            if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                raise CancelledError
            if self._state != FINISHED:
                raise TimeoutError


def _notify_later(future: TaskFuture[Any]) -> None:
    """Notify waiting threads in another thread, as soon as this one has released the future's lock."""
    _unnotified.append(future)
    if not _notifying.locked():  # otherwise its holder looks once more
        with contextlib.suppress(RuntimeError):  # the system starts no more threads: the next call does it
            threading.Thread(target=_notify_unnotified, name="paropt-notifier", daemon=True).start()


def _notify_unnotified() -> None:
    while _unnotified and _notifying.acquire(blocking=False):
        try:
            while _unnotified:
                _unnotified[0].notify_cancelled()
                _unnotified.popleft()
        finally:
            _notifying.release()


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
