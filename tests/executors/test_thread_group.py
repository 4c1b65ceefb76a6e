"""The threads of a pool: started, waited for, asked for again."""

from __future__ import annotations

import threading

import pytest

from paropt_exporter.executors.thread_group import ThreadGroup


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_join_waits_for_a_thread_that_another_thread_starts() -> None:
    hands, done = ThreadGroup(), threading.Event()
    expected, joined = threading.Event(), threading.Event()

    def start() -> None:
        hands.announce("late")
        expected.set()
        assert not joined.wait(0.05)  # the join has every chance to come too early
        hands.start("late", done.set)

    starter = threading.Thread(target=start)
    starter.start()
    assert expected.wait(10)
    hands.join()
    joined.set()
    assert done.is_set()
    starter.join()


def test_join_skips_a_start_that_its_own_thread_interrupted() -> None:
    hands = ThreadGroup()
    hands.announce("never")
    hands.join()


def test_threads_may_exit_during_join() -> None:
    hands, go = ThreadGroup(), threading.Event()

    def work() -> None:
        assert go.wait(10)
        hands.remove_current()

    for number in range(50):
        hands.announce(f"worker {number}")
        hands.start(f"worker {number}", work)
    threading.Timer(0.0, go.set).start()
    hands.join()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker ")]


def test_join_skips_forgotten_threads() -> None:
    hands, go, idents = ThreadGroup(), threading.Event(), []

    def work() -> None:
        idents.append(threading.get_ident())
        started.set()
        assert go.wait(10)

    started = threading.Event()
    hands.announce("left behind")
    hands.start("left behind", work)
    assert started.wait(10)
    hands.forget_thread(idents[0])
    hands.join()
    go.set()


def test_refused_thread_is_retried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = ThreadGroup()
    assert hands.get_retry_delay() is None
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    hands.announce("refused")
    with pytest.raises(RuntimeError, match="can't start"):
        hands.start("refused", lambda: None)
    hands.note_shortage()
    assert hands.has_shortage
    patience = hands.get_retry_delay()
    assert patience is not None
    assert 0.0 <= patience <= 1.0
    hands.join()  # there is nobody to wait for
    hands.clear_shortage()
    assert not hands.has_shortage
