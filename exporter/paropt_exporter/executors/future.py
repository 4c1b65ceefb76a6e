"""The future of the pools: a standard Future that costs almost nothing until a thread waits for it."""

from __future__ import annotations

import _thread
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
from operator import attrgetter
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
# Another thread may hold it during the fork.
os.register_at_fork(after_in_child=_condition_lock._at_fork_reinit)  # type: ignore[attr-defined]  # as in the library


class _PostponedCalls:
    """Calls for another thread, since they may wait for a lock that the calling thread holds.

    The thread exits after the last call. If the system or an interrupt keeps it from starting, the next call starts it.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.RLock()  # guards: the exit of the thread
        self._calls: deque[Callable[[], object]] = deque()
        self._has_thread = False

    def add(self, call: Callable[[], object]) -> None:
        self._calls.append(call)
        with self._lock, contextlib.suppress(RuntimeError):  # the system starts no more threads
            if self._has_thread:
                return
            try:
                self._has_thread = True
                # A `threading.Thread` waits, during its start, for locks that the interrupted thread may hold.
                _thread.start_new_thread(self._run, ())
            except BaseException:  # after an interrupt, two threads may run
                self._has_thread = False
                raise

    def _run(self) -> None:
        while (call := self._take()) is not None:
            try:
                call()
            except BaseException:  # the other calls must not wait for this one
                log.critical("exception in a postponed call", exc_info=True)

    def _take(self) -> Callable[[], object] | None:
        with self._lock:
            if self._calls:
                return self._calls.popleft()
            self._has_thread = False
            return None


_postponed = _PostponedCalls()


class _Condition(threading.Condition):
    """A condition that an interrupt never leaves locked: `with` calls its lock's own methods, which are not in Python.

    So an interrupt of the library's `add_done_callback` does not keep the worker from settling the future.
    """

    if not TYPE_CHECKING:
        __enter__ = property(attrgetter("_lock.__enter__"))
        __exit__ = property(attrgetter("_lock.__exit__"))


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
        that: a future that they see finished must not report its end to them afterwards. The report comes without
        the lock: if a signal handler has interrupted them while they hold a lock of their own, the report waits for
        that, and the handler must not wait for the future's lock.
      * `start_running`, `reset_to_pending`, and `fail_on_exit` of a running task take no lock, so that pools may call
        them under their own: a signal handler that interrupts `wait`, which locks all its futures, may need the pool's.
        A worker that claims a task and a thread that ends it see each other by `_leaving` and `_ending`, as above.
    """

    # Class attributes instead of an __init__: most futures never set most of these.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _own_condition: _Condition | None = None
    _waiters: Any = ()
    _done_callbacks: Any = ()
    _leaving: str | None = None  # the state that a worker is changing without the lock
    _ending = False  # whether another thread is about to end a pending task
    _usage: Usage | None = None
    _switches = NO_SWITCHES
    _exit_error: BaseException | None = None
    label: str = ""
    queued_seconds: float | None = None  # when its task was queued in an AdaptivePool, on the monotonic clock
    started_seconds: float | None = None  # when its task started, likewise

    def __init__(self) -> None:
        """Set no attribute: the class attributes are the defaults."""

    def _get_condition(self) -> _Condition:
        made = self._own_condition
        if made is None:
            with _condition_lock:
                waiters: list[Any] = []
                callbacks: list[Any] = []
                condition = _Condition()
                if self._own_condition is None:  # last: a signal handler may have created one in between
                    self._waiters, self._done_callbacks = waiters, callbacks
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

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of the measurement; 0 without one."""
        return 0.0 if self._usage is None else self._usage[4]

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

    def cancelled(self) -> bool:  # without a lock, as `done`: a pool asks it under its own
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def done(self) -> bool:
        return self._state in (FINISHED, CANCELLED, CANCELLED_AND_NOTIFIED)

    def cancel(self) -> bool:
        if self._state == FINISHED:  # `map` asks each future whose result it has taken: no condition for that
            return False
        ended = False
        if self._own_condition is None:
            # Without a condition, no thread waits and there is no callback. Under this lock, none can come meanwhile.
            with _condition_lock:
                ended = self._own_condition is None and self._end_pending(CANCELLED)
            if ended and self._own_condition is None:  # a signal handler may have created one
                return True
        with self._get_condition():
            if not ended:
                if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
                    return True
                if not self._end_pending(CANCELLED):
                    return False
            self._get_condition().notify_all()
        self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        return True

    # The methods below are for the pools.

    def add_first_callback(self, callback: Callable[[Future[T]], object]) -> None:
        """Have a function called before those that were added earlier; now if the future has settled."""
        with self._get_condition():
            if not self.done():
                self._done_callbacks.insert(0, callback)
                return
        callback(self)

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
        """Notify waiting threads if the future was cancelled: they wait until its worker knows, as in the library."""
        if self._own_condition is None:
            with _condition_lock:  # as in `cancel`
                if self._own_condition is None:
                    if self._state == CANCELLED:
                        self._state = CANCELLED_AND_NOTIFIED
                    return
        if self._interrupts_wait():
            _postponed.add(self.notify_cancelled)
            return
        with self._get_condition():
            self._wake_again()
            if self._state != CANCELLED:
                return
            self._state = CANCELLED_AND_NOTIFIED
            waiters = tuple(self._waiters)
        self._report_end_safely(waiters)

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
        if self._interrupts_wait():
            _postponed.add(partial(self.fail_queued, error))
            self._refuse_claims()
            return self._state == PENDING
        waiters: tuple[Any, ...] = ()
        with self._get_condition():
            failed = self._end_pending(FINISHED, error)
            if failed:
                waiters = self._wake_waiters()
        self._report_end_safely(waiters)
        if failed:
            self._call_callbacks()
        else:
            self.notify_cancelled()
        return failed

    def force_exception(self, error: BaseException) -> bool:
        """Settle with `error` now, whatever the task's later outcome; return False if the task has ended."""
        if self._interrupts_wait():
            _postponed.add(partial(self.force_exception, error))
            self._exit_error = error  # if its worker ends the task first
            self._refuse_claims()
            return not self.done()
        with self._get_condition():
            if not self._end_pending(FINISHED, error):
                if self._state != RUNNING:
                    return False
                self._exception = error
                self._state = FINISHED
            waiters = self._wake_waiters()
        self._report_end_safely(waiters)
        self._call_callbacks()
        return True

    def _end_pending(self, state: str, error: BaseException | None = None) -> bool:
        """End a task that no worker has claimed; under the lock. Return False if one has, or if the task has ended."""
        ended = False
        try:
            self._refuse_claims()
        finally:  # after an interrupt too, since a worker may have been refused the task
            if self._state == PENDING != self._leaving:
                self._exception = error
                self._state = state
                ended = True
            self._ending = False  # the state shows it
        return ended

    def _refuse_claims(self) -> None:
        """Let no worker claim the task from now on; wait while one does."""
        self._ending = True
        if self._leaving == self._state:
            self._wait_for_change()

    def fail_on_exit(self, error: BaseException) -> bool:
        """Settle with `error`, whatever the task's outcome, once its worker has exited. Return False if the task has
        ended.
        """
        self._exit_error = error
        if self._leaving not in (RUNNING, _SETTLING):
            return self._state == RUNNING
        with self._get_condition():  # the worker may not have read the error
            return self._state == RUNNING or self._exception is error

    def reset_to_pending(self) -> None:
        """Make a task pending again that a worker has claimed but not run, so that another worker can claim it."""
        if self._state in (PENDING, RUNNING):  # PENDING: an interrupt came during the claim
            self._leaving = self.started_seconds = None
            self._state = PENDING

    def _settle_shared(self, result: T | None, error: BaseException | None) -> bool:
        self._leaving = _SETTLING  # not RUNNING: a thread that holds the lock would wait for this one
        with self._own_condition or self._get_condition():  # the first if possible: the second takes longer
            if self._state != RUNNING:
                self._wake_again()
                return False
            fails = self._exit_error is not None
            self._result, self._exception = (None, self._exit_error) if fails else (result, error)
            self._state = FINISHED
            waiters = self._wake_waiters()
        if waiters:
            self._report_end(waiters)
        if self._done_callbacks:
            self._call_callbacks()
        return not fails

    def _wake_waiters(self) -> tuple[Any, ...]:
        """Wake the threads that wait for a settled future alone; under the lock.

        Return the waiters of those that wait for several, for `_report_end`.
        """
        self._get_condition().notify_all()
        return tuple(self._waiters)

    def _wake_again(self) -> None:
        """Wake the threads in `result` if an interrupt kept `cancel` or `force_exception` from it; under the lock.

        Only if the future has ended: woken before, they would raise TimeoutError.
        """
        if self.done():
            self._get_condition().notify_all()

    def _report_end_safely(self, waiters: tuple[Any, ...]) -> None:
        """Report the end of the future, but not in the main thread.

        That one may be in a signal handler, and hold the lock of a waiter's event.
        """
        if waiters and threading.get_ident() == threading.main_thread().ident:
            _postponed.add(partial(self._report_end, waiters))
        else:
            self._report_end(waiters)

    def _report_end(self, waiters: tuple[Any, ...]) -> None:
        """Report the end of the future to threads that wait for several; without the lock."""
        for waiter in waiters:
            if self._state == CANCELLED_AND_NOTIFIED:
                waiter.add_cancelled(self)
            elif self._exception is None:
                waiter.add_result(self)
            else:
                waiter.add_exception(self)

    def _interrupts_wait(self) -> bool:
        """Return whether a signal handler or finalizer calls that has interrupted `wait` or `as_completed`.

        These may have looked at the future's state, but not added themselves to the waiters yet: then the future must
        not end before they have unlocked it.
        """
        return self._own_condition is not None and self._own_condition._is_owned()  # type: ignore[attr-defined]

    def _call_callbacks(self) -> None:
        try:
            self._invoke_callbacks()  # type: ignore[attr-defined]  # the library's own, unknown to typeshed
        except BaseException:  # SystemExit or KeyboardInterrupt of a user's callback must not end the worker
            log.critical("exception calling callback", exc_info=True, extra={"task": self.label})

    def wait_for_end(self, timeout: float | None) -> None:
        """Wait until the task has ended, but not longer than `timeout`."""
        # Not by `Condition.wait`. In a signal handler that has interrupted the library's `wait`, it would unlock the
        # future for others. And it unlocks it just before its `try`: an interrupt there becomes a RuntimeError.
        condition = self._get_condition()
        waiter = threading.Lock()
        waiter.acquire()
        with condition:
            waits = self._state in (PENDING, RUNNING)
            if waits:
                condition._waiters.append(waiter)  # type: ignore[attr-defined]  # whom its `notify_all` wakes
        if waits and not waiter.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            with condition, contextlib.suppress(ValueError):  # it has just been woken
                condition._waiters.remove(waiter)  # type: ignore[attr-defined]  # in a `notify_all`, it would raise there

    def _wait(self, timeout: float | None) -> None:
        self.wait_for_end(timeout)
        if self.cancelled():
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
