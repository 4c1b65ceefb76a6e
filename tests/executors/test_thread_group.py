"""ThreadGroup starts threads, joins them, and retries refused ones."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Callable

import pytest

from paropt_exporter.executors import thread_group
from paropt_exporter.executors.thread_group import PoolThread, ThreadGroup
from support.interrupts import interrupt_locking
from support.pool_tasks import eventually


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_timeout_of_a_signal_handler_is_no_refusal_by_the_system() -> None:
    """It is an OSError; the pool swallowed it if it had another worker."""
    group = ThreadGroup(threading.RLock())

    def time_out() -> PoolThread:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        group.start_workers(time_out, print, lambda: True)
    assert not group.has_shortage


def test_join_waits_for_a_thread_that_another_thread_starts() -> None:
    group, done = ThreadGroup(threading.RLock()), threading.Event()
    expected, joined = threading.Event(), threading.Event()

    def start() -> None:
        group.announce("late")
        expected.set()
        assert not joined.wait(0.05)  # the join has the chance to return too early
        group.start("late", done.set)

    starter = threading.Thread(target=start)
    starter.start()
    assert expected.wait(10)
    group.join()
    joined.set()
    assert done.is_set()
    starter.join()


def test_join_waits_for_a_thread_that_starts_meanwhile() -> None:
    group, done = ThreadGroup(threading.RLock()), threading.Event()
    joining, joined = threading.Event(), threading.Event()

    def finish() -> None:
        assert not joined.wait(0.05)  # the join has the chance to return too early
        done.set()

    def start_successor() -> None:
        assert joining.wait(10)
        assert not joined.wait(0.05)  # the join has begun
        group.announce("second")
        group.start("second", finish)

    group.announce("first")
    group.start("first", start_successor)
    joining.set()
    group.join()
    joined.set()
    assert done.is_set()


def test_join_skips_a_start_that_its_own_thread_interrupted() -> None:
    group = ThreadGroup(threading.RLock())
    group.announce("never")
    group.join()


def test_threads_may_exit_during_join() -> None:
    group, go = ThreadGroup(threading.RLock()), threading.Event()

    def work() -> None:
        assert go.wait(10)

    for number in range(50):
        group.announce(f"worker {number}")
        group.start(f"worker {number}", work)
    threading.Timer(0.0, go.set).start()
    group.join()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker ")]


def test_join_waits_until_a_thread_after_its_work_has_exited(monkeypatch: pytest.MonkeyPatch) -> None:
    group, leaving, joined = ThreadGroup(threading.RLock()), threading.Event(), threading.Event()
    run = PoolThread.run

    def run_and_stay(thread: PoolThread) -> None:
        run(thread)
        leaving.set()
        joined.wait(0.05)  # the join has the chance to return too early

    monkeypatch.setattr(PoolThread, "run", run_and_stay)
    group.announce("leaving")
    group.start("leaving", threading.Event().set)
    assert leaving.wait(10)
    assert group.join()
    assert "leaving" not in {thread.name for thread in threading.enumerate()}
    joined.set()


def test_group_keeps_no_thread_that_has_exited() -> None:
    group, seen = ThreadGroup(threading.RLock()), []

    def work() -> None:
        seen.append(weakref.ref(threading.current_thread()))

    for number in range(5):
        group.announce(f"worker {number}")
        group.start(f"worker {number}", work)
        group.join()
    gc.collect()
    assert [thread() for thread in seen[:-1]] == [None] * 4


def test_exit_of_a_thread_does_not_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    group, looks = ThreadGroup(threading.RLock()), []

    def is_alive(thread: threading.Thread) -> bool:
        looks.append(thread)
        return True

    ended: list[threading.Thread] = []
    monkeypatch.setattr(PoolThread, "is_alive", is_alive)
    for number in range(40):
        group.announce(f"worker {number}")
        group.start(f"worker {number}", lambda: ended.append(threading.current_thread()))
    assert eventually(lambda: len(ended) == 40)
    for thread in ended:
        thread.join()
    assert len(looks) <= 40


@pytest.mark.parametrize(
    "use",
    [
        lambda group: group.announce("w"),
        lambda group: group.withdraw_unstarted(["w"]),
        lambda group: group.forget_thread("w"),
        lambda group: group.join(0),
    ],
    ids=["announce", "withdraw", "forget", "join"],
)
def test_interrupted_use_leaves_no_pool_locked(use: Callable[[ThreadGroup], object]) -> None:
    """Each other thread then waited for the pool's lock without end."""
    lock = threading.RLock()
    group, free = ThreadGroup(lock), list[bool]()
    interrupt_locking(lambda: use(group))
    other = threading.Thread(target=lambda: free.append(lock.acquire(blocking=False)))
    other.start()
    other.join(10)
    assert free == [True]


def test_thread_that_a_task_has_renamed_counts_as_started() -> None:
    """When the system refused another thread, the pool dropped the worker that was running a task."""
    group, renamed, go = ThreadGroup(threading.RLock()), threading.Event(), threading.Event()

    def work() -> None:
        threading.current_thread().name = "mine"
        renamed.set()
        assert go.wait(10)

    group.announce("worker")
    group.start("worker", work)
    assert renamed.wait(10)
    assert group.withdraw_unstarted(["worker"]) == set()
    go.set()
    group.join()


def test_thread_whose_start_became_a_runtime_error_counts_as_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """So an interrupt may end in the library's `Condition.wait`. The pool dropped a worker whose thread ran."""
    group, started, go = ThreadGroup(threading.RLock()), threading.Event(), threading.Event()
    start = PoolThread.start

    def work() -> None:
        started.set()
        assert go.wait(10)

    def start_and_raise(thread: PoolThread) -> None:
        start(thread)
        assert started.wait(10)
        raise RuntimeError("release unlocked lock")

    monkeypatch.setattr(PoolThread, "start", start_and_raise)
    group.announce("worker")
    with pytest.raises(RuntimeError, match="unlocked"):
        group.start("worker", work)
    assert group.withdraw_unstarted(["worker"]) == set()
    go.set()
    group.join()


@pytest.mark.parametrize("consequence", [RuntimeError("release unlocked lock"), KeyError("in limbo")])
def test_interrupt_that_the_start_of_a_thread_turns_into_another_error_is_raised(
    monkeypatch: pytest.MonkeyPatch, consequence: Exception
) -> None:
    """A RuntimeError counted as a refusal by the system: a Ctrl-C was lost if the pool had another worker."""
    group = ThreadGroup(threading.RLock())

    def start_and_raise(_: PoolThread) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise consequence

    workers = [PoolThread(name="worker")]
    monkeypatch.setattr(PoolThread, "start", start_and_raise)
    with pytest.raises(KeyboardInterrupt):
        group.start_workers(lambda: workers.pop() if workers else None, print, lambda: True)
    assert not group.has_shortage


def test_refused_thread_is_no_interrupt_while_the_caller_handles_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ThreadGroup(threading.RLock())
    monkeypatch.setattr(PoolThread, "start", _refuse)
    with pytest.raises(RuntimeError, match="can't start"):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            group.start("worker", print)


def test_join_skips_forgotten_threads() -> None:
    group, go = ThreadGroup(threading.RLock()), threading.Event()

    def work() -> None:
        started.set()
        assert go.wait(10)

    started = threading.Event()
    group.announce("left behind")
    group.start("left behind", work)
    assert started.wait(10)
    group.forget_thread("left behind")
    group.join()
    go.set()


def test_join_stops_to_wait_for_a_thread_that_is_forgotten_meanwhile() -> None:
    group, go, started = ThreadGroup(threading.RLock()), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert go.wait(10)

    group.announce("left behind")
    group.start("left behind", work)
    joining = threading.Thread(target=group.join)
    joining.start()
    assert eventually(lambda: _is_in(joining, "wait") and started.is_set())
    group.forget_thread("left behind")
    joining.join(10)
    assert not joining.is_alive()
    go.set()


def _is_in(thread: threading.Thread, name: str) -> bool:
    """Return whether a thread's innermost Python function has this name."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == name


def test_refused_thread_is_retried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ThreadGroup(threading.RLock())
    assert group.get_retry_delay() is None
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    group.announce("refused")
    with pytest.raises(RuntimeError, match="can't start"):
        group.start("refused", lambda: None)
    group.note_shortage()
    assert group.has_shortage
    patience = group.get_retry_delay()
    assert patience is not None
    assert 0.0 <= patience <= 1.0
    group.join()  # no thread to join
    group.clear_shortage()
    assert not group.has_shortage


def test_shortage_is_news_once_however_often_it_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter((100.0, 101.0, 102.0, 110.0))  # the last one after a while without a refusal
    monkeypatch.setattr(thread_group, "monotonic", lambda: next(moments))
    group = ThreadGroup(threading.RLock())
    news = []
    for _ in range(4):
        group.clear_shortage()
        group.note_shortage()
        news.append(group.take_shortage_news())
    assert news == [True, False, False, True]
