"""The races between a worker that claims a future and a thread that stops it, one step at a time."""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from itertools import count
from types import FrameType
from typing import Any

import pytest

from paropt_exporter.errors import TaskStopped
from paropt_exporter.executors import future as module
from paropt_exporter.executors.future import TaskFuture, get_label
from support.interrupts import act_before, interrupt_locking
from support.pool_tasks import HANG_SECONDS, eventually
from support.processes import run_in_forked_child

SECOND_WRITE = "self._state = RUNNING"  # of `start_running`, which notes the claim first


def test_stop_in_the_middle_of_a_claim_settles_once() -> None:
    future: TaskFuture[int] = TaskFuture()
    error, calls, claims = TaskStopped("no longer wanted"), list[object](), list[bool]()
    claiming, goes_on = threading.Event(), threading.Event()

    def pause() -> None:
        claiming.set()
        goes_on.wait(HANG_SECONDS)

    def claim() -> None:
        with act_before(TaskFuture.start_running, SECOND_WRITE, pause):
            claims.append(future.start_running(1.0))

    worker = threading.Thread(target=claim, daemon=True)
    worker.start()
    assert claiming.wait(HANG_SECONDS)

    def force() -> None:
        future.add_done_callback(calls.append)  # not before: a worker would take the lock then
        future.force_exception(error)

    stop = threading.Thread(target=force, daemon=True)
    stop.start()
    stop.join(0.01)  # it may wait for the worker
    goes_on.set()
    worker.join(HANG_SECONDS)
    stop.join(HANG_SECONDS)
    assert claims == [True]
    assert not future.settle_result(3)
    assert future.exception(0) is error
    assert calls == [future]


class _Waiter:
    """Waits for a future as the library's `wait` and `as_completed` do."""

    def __init__(self) -> None:
        self.saw_end = self.notified = self.saw_lock = False
        self.notifier = 0

    def wait_for(self, future: TaskFuture[int]) -> None:
        with future._condition:
            self.saw_end = future._state in ("FINISHED", "CANCELLED_AND_NOTIFIED")
            future._waiters.append(self)

    def add_result(self, future: TaskFuture[int]) -> None:
        condition: Any = future._condition
        self.saw_lock = condition._is_owned()
        self.notifier = threading.get_ident()
        self.notified = True

    add_exception = add_cancelled = add_result


def _wait_at_line(number: int, settle: Callable[[TaskFuture[int]], object]) -> _Waiter | None:
    """Let a thread wait for a future before the line of this number, of those that settle it; None after the last."""
    future, waiter = TaskFuture[int](), _Waiter()
    future.start_running(1.0)
    thread = threading.Thread(target=waiter.wait_for, args=(future,), daemon=True)
    lines = iter(range(number, -1, -1))

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != TaskFuture.settle_result.__code__.co_filename:
            return None
        if event == "line" and next(lines, None) == 0:
            thread.start()
            thread.join(0.01)  # it may wait for the one that settles
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        settle(future)
    finally:
        sys.settrace(before)
    if not thread.ident:
        return None
    thread.join(HANG_SECONDS)
    return waiter


@pytest.mark.parametrize(
    "settle",
    [
        lambda future: future.settle_result(1),
        lambda future: future.settle_exception(ValueError()),
        lambda future: future.force_exception(ValueError()),
    ],
    ids=["result", "exception", "stop"],
)
def test_waiting_thread_sees_an_ended_future_or_is_notified(settle: Callable[[TaskFuture[int]], object]) -> None:
    """`wait` returned before all futures had ended if it saw the end of one and was notified of it, too."""
    numbers = count()
    waiters = list(iter(lambda: _wait_at_line(next(numbers), settle), None))
    assert waiters
    assert [waiter.saw_end for waiter in waiters] == [not waiter.notified for waiter in waiters]


def _cancel(future: TaskFuture[int]) -> None:
    future.cancel()
    future.notify_cancelled()


ENDS_OF_QUEUED = pytest.mark.parametrize(
    "end",
    [_cancel, lambda future: future.fail_queued(ValueError()), lambda future: future.force_exception(ValueError())],
    ids=["cancel", "failed start", "stop"],
)


@ENDS_OF_QUEUED
def test_signal_handler_may_end_a_future_for_which_its_thread_begins_to_wait(
    end: Callable[[TaskFuture[int]], object],
) -> None:
    """`wait` had looked at the future's state by then, and added itself to the waiters later: it waited without end."""
    future, waiter = TaskFuture[int](), _Waiter()
    with future._condition:
        end(future)
        waiter.wait_for(future)
    assert not waiter.saw_end
    assert eventually(lambda: waiter.notified)


@ENDS_OF_QUEUED
def test_no_worker_claims_a_task_that_a_signal_handler_ends(end: Callable[[TaskFuture[int]], object]) -> None:
    """`stop` returned True, and the task ran and succeeded."""
    future = TaskFuture[int]()
    with future._condition:
        end(future)
        assert not future.start_running(1.0)
    assert eventually(future.done)


def test_running_task_that_a_signal_handler_stops_fails() -> None:
    """`stop` returned True, and the task succeeded: its worker got the future's lock first."""
    future, error = TaskFuture[int](), ValueError()
    future.start_running(1.0)
    worker = threading.Thread(target=future.settle_result, args=(1,), daemon=True)
    with future._condition:
        worker.start()
        assert eventually(lambda: future._leaving == "SETTLING")
        assert future.force_exception(error)
    worker.join(HANG_SECONDS)
    assert future.exception(HANG_SECONDS) is error


@ENDS_OF_QUEUED
def test_main_thread_reports_no_end_to_waiting_threads(end: Callable[[TaskFuture[int]], object]) -> None:
    """In a signal handler it waited for the lock of an event that it held itself, as `wait` had just locked it."""
    future, waiter = TaskFuture[int](), _Waiter()
    waiter.wait_for(future)
    end(future)
    assert eventually(lambda: waiter.notified)
    assert waiter.notifier != threading.get_ident()


def test_many_ends_in_the_main_thread_start_few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown that cancelled 10,000 tasks started 10,000 threads, if another thread waited for the tasks."""
    starts, futures, waiter = list[object](), [TaskFuture[int]() for _ in range(1000)], _Waiter()
    for future in futures:
        waiter.wait_for(future)
    assert eventually(lambda: not module._postponed._has_thread)  # that of another test
    monkeypatch.setattr(_thread, "start_new_thread", lambda run, _: starts.append(run))
    for future in futures:
        _cancel(future)
    assert len(starts) == 1
    monkeypatch.undo()
    module._postponed._run()
    assert waiter.notified


def test_error_in_a_postponed_call_delays_no_other_call(caplog: pytest.LogCaptureFixture) -> None:
    """The call was made again and again, and those after it never."""
    called = threading.Event()
    with module._postponed._lock:
        module._postponed.add(partial(int, "no number"))
        module._postponed.add(called.set)
    assert called.wait(HANG_SECONDS)
    assert caplog.messages == ["exception in a postponed call"]


def test_refused_thread_leaves_calls_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[str]()

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    module._postponed.add(lambda: calls.append("first"))
    monkeypatch.undo()
    module._postponed.add(lambda: calls.append("second"))
    assert eventually(lambda: calls == ["first", "second"])


def test_end_is_reported_without_the_lock_of_the_future() -> None:
    """A signal handler in `wait` that used the future waited for its worker, which waited for the event of `wait`."""
    future, waiter = TaskFuture[int](), _Waiter()
    waiter.wait_for(future)
    future.start_running(1.0)
    worker = threading.Thread(target=future.settle_result, args=(1,), daemon=True)
    worker.start()
    worker.join(HANG_SECONDS)
    assert (waiter.notified, waiter.saw_lock) == (True, False)


def test_short_wait_in_a_signal_handler_lets_no_future_end_that_its_thread_has_locked() -> None:
    """`wait`, which had seen it running, was not notified of its end."""
    future = TaskFuture[int]()
    future.start_running(1.0)
    worker = threading.Thread(target=future.settle_result, args=(1,), daemon=True)
    with future._condition:
        worker.start()
        with pytest.raises(TimeoutError):
            future.result(0.01)
        assert not future.done()
    worker.join(HANG_SECONDS)
    assert future.result(0) == 1


def test_thread_that_waits_for_a_future_whose_cancellation_was_interrupted_goes_on() -> None:
    future = TaskFuture[int]()

    def wait_for_result() -> None:
        with suppress(CancelledError):
            future.result()

    thread = threading.Thread(target=wait_for_result, daemon=True)
    thread.start()
    condition: Any = future._condition
    assert eventually(lambda: bool(condition._waiters))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with act_before(TaskFuture.cancel, "self._get_condition().notify_all()", interrupt), suppress(KeyboardInterrupt):
        future.cancel()
    future.notify_cancelled()
    thread.join(HANG_SECONDS)
    assert not thread.is_alive()


def test_failed_stop_of_a_queued_task_leaves_threads_waiting_for_its_result() -> None:
    """A worker had just begun it, and `result` without a timeout raised TimeoutError."""
    future, results = TaskFuture[int](), list[int]()
    thread = threading.Thread(target=lambda: results.append(future.result()), daemon=True)
    thread.start()
    condition: Any = future._condition
    assert eventually(lambda: bool(condition._waiters))
    future.start_running(1.0)
    assert not future.fail_queued(ValueError())
    assert condition._waiters
    future.settle_result(1)
    thread.join(HANG_SECONDS)
    assert results == [1]


def test_wait_that_times_out_while_its_worker_notifies_raises_nothing_there() -> None:
    """IndexError in the worker: the thread had left the condition's list meanwhile."""
    future = TaskFuture[int]()
    future.start_running(1.0)

    def wait_shortly() -> None:
        with suppress(TimeoutError):
            future.result(0.05)

    thread = threading.Thread(target=wait_shortly, daemon=True)
    thread.start()
    condition: Any = future._condition
    assert eventually(lambda: bool(condition._waiters))
    with act_before(threading.Condition.notify, "waiter = waiters[0]", partial(thread.join, 0.2)):
        assert future.settle_result(1)
    thread.join(HANG_SECONDS)


def test_future_works_in_a_child_that_was_forked_while_another_thread_used_one() -> None:
    used, goes_on = threading.Event(), threading.Event()

    def pause() -> None:
        used.set()
        goes_on.wait(HANG_SECONDS)

    def use() -> None:
        with act_before(vars(TaskFuture)["_condition"].fget, "condition = _Condition()", pause):
            TaskFuture[int]().add_done_callback(id)

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    assert used.wait(HANG_SECONDS)
    try:
        assert run_in_forked_child(lambda: TaskFuture[int]().cancel()) == 0
    finally:
        goes_on.set()
        thread.join(HANG_SECONDS)


def test_signal_handler_may_use_a_future_that_is_getting_its_condition() -> None:
    """The future got the lock of one condition and another condition, so that its worker raised RuntimeError."""
    future, called = TaskFuture[int](), list[object]()
    handlers = [lambda: future.add_done_callback(called.append)]

    def trace(frame: FrameType, _: str, __: object) -> None:
        if handlers and frame.f_code is threading.Condition.__init__.__code__:
            handlers.pop()()

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        future.add_done_callback(called.append)
    finally:
        sys.settrace(before)
    future.start_running(1.0)
    future.settle_result(1)
    assert called == [future, future]


def test_task_whose_claim_was_interrupted_can_be_cancelled() -> None:
    future: TaskFuture[int] = TaskFuture()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with act_before(TaskFuture.start_running, SECOND_WRITE, interrupt), pytest.raises(KeyboardInterrupt):
        future.start_running(1.0)
    future.reset_to_pending()
    assert future.cancel()


@pytest.mark.parametrize(
    "end",
    [
        lambda future: future.cancel(),
        lambda future: future.fail_queued(ValueError()),
        lambda future: future.force_exception(ValueError()),
    ],
    ids=["cancel", "stop of a queued task", "stop"],
)
def test_task_that_no_worker_may_claim_ends_although_its_cancellation_is_interrupted(
    end: Callable[[TaskFuture[int]], object],
) -> None:
    """A worker had dropped it, and it stayed pending without end."""
    future, claims = TaskFuture[int](), list[bool]()

    def claim() -> None:
        claims.append(future.start_running(1.0))
        raise KeyboardInterrupt

    with (
        act_before(TaskFuture._refuse_claims, "if self._leaving == self._state:", claim),
        pytest.raises(KeyboardInterrupt),
    ):
        end(future)
    assert claims == [False]
    assert future.done()


class _Nameless(type):
    """The type of classes whose names can't be read."""

    def __getattribute__(cls, name: str) -> Any:
        if name == "__qualname__":
            raise RuntimeError(name)
        return super().__getattribute__(name)


class _NamelessList(list[int], metaclass=_Nameless):
    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "label"), [(_NamelessList().append, "builtin_function_or_method"), (_NamelessList(), "_NamelessList")]
)
def test_label_of_a_callable_whose_class_hides_its_name(function: Callable[..., Any], label: str) -> None:
    assert get_label(function) == label


@pytest.mark.parametrize(
    "use",
    [
        lambda future: future.cancel(),
        lambda future: future.result(0),
        lambda future: future.exception(0),
        lambda future: future.force_exception(ValueError()),
        lambda future: future.fail_on_exit(ValueError()),
        lambda future: future.add_done_callback(id),
        lambda future: future.running(),
        repr,
    ],
    ids=["cancel", "result", "exception", "stop", "stop of a running task", "callback", "running", "repr"],
)
def test_interrupted_use_leaves_no_future_locked(use: Callable[[TaskFuture[int]], object]) -> None:
    """Its worker waited for the future's lock, with that of the pool's scheduler."""
    future: TaskFuture[int] = TaskFuture()
    interrupt_locking(lambda: use(future))
    worker = threading.Thread(target=future.notify_cancelled, daemon=True)
    worker.start()
    worker.join(HANG_SECONDS)
    assert not worker.is_alive()


def test_cancel_of_a_finished_future_makes_no_condition() -> None:
    future: TaskFuture[int] = TaskFuture()
    future.start_running(0.0)
    future.settle_result(1)
    assert not future.cancel()
    assert future._own_condition is None


def test_cancelled_future_for_which_no_thread_waits_has_no_condition() -> None:
    """A shutdown that cancelled 200,000 queued tasks took 4 s, half of it for garbage collections."""
    future = TaskFuture[int]()
    assert future.cancel()
    future.notify_cancelled()
    assert (future._own_condition, future._state) == (None, "CANCELLED_AND_NOTIFIED")
    assert future.cancel()


def test_callback_that_a_signal_handler_adds_during_a_cancellation_is_called() -> None:
    future, seen = TaskFuture[int](), list[object]()
    with act_before(TaskFuture._end_pending, "self._state = state", lambda: future.add_done_callback(seen.append)):
        assert future.cancel()
    assert seen == [future]
