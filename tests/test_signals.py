"""Signals end runs and waits; no signal is lost."""

from __future__ import annotations

import itertools
import os
import signal
import threading

import pytest

from paropt_exporter.signals import DeferredSignals, Signals
from support.processes import run_python

HANG_SECONDS = 30.0


class Running:
    """A run that records its interruptions."""

    def __init__(self) -> None:
        self.stops: list[tuple[str, bool]] = []

    def interrupt(self, reason: str, *, now: bool) -> None:
        self.stops.append((reason, now))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_is_polite_and_second_is_not(number: signal.Signals) -> None:
    running, seconds = Running(), itertools.count()
    with Signals(read_clock=lambda: float(next(seconds))) as signals:
        signals.send_to(running)
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
    assert running.stops == [(f"interrupted by {number.name}", False), ("interrupted by SIGTERM", True)]
    assert signals.interrupted_run
    assert signals.number == number


def test_signal_that_timeout_sends_twice_counts_once() -> None:
    """It went to the process and to its group, and the stages of `timeout 10m paropt-exporter` were killed at once."""
    running, moments = Running(), iter((5.0, 5.05, 5.09, 5.11))
    with Signals(read_clock=lambda: next(moments)) as signals:
        signals.send_to(running)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert running.stops == [("interrupted by SIGTERM", False)]
        signal.raise_signal(signal.SIGTERM)
    assert running.stops[1:] == [("interrupted by SIGTERM", True)]


def test_other_signal_soon_after_the_first_is_a_second_one() -> None:
    running = Running()
    with Signals(read_clock=lambda: 5.0) as signals:
        signals.send_to(running)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert [now for _, now in running.stops] == [False, True]


def test_signal_before_the_run_reaches_it() -> None:
    running = Running()
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signals.send_to(running)
    assert running.stops == [("interrupted by SIGTERM", False)]


def test_signal_between_runs_ends_the_wait_and_interrupts_no_run() -> None:
    with Signals() as signals:
        signals.send_to(Running())
        signals.send_to(None)
        signal.raise_signal(signal.SIGTERM)
        assert signals.wait(None)
    assert not signals.interrupted_run


def test_signal_in_another_thread_ends_the_wait_of_the_main_thread() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    with Signals() as signals:
        other.start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
            assert signals.wait(HANG_SECONDS)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            done.set()
            other.join()


def test_timeout_and_wake_end_a_wait_without_a_signal() -> None:
    with Signals() as signals:
        assert not signals.wait(0.0)
        threading.Timer(0.0, signals.wake).start()
        assert not signals.wait(HANG_SECONDS)


def test_previous_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_reload_by_hangup_ends_a_wait_and_no_run() -> None:
    running = Running()
    with Signals(reloads=True) as signals:
        signals.send_to(running)
        signal.raise_signal(signal.SIGHUP)
        signals.send_to(None)
        assert not signals.wait(HANG_SECONDS)
        assert (signals.take_reload(), signals.take_reload()) == (True, False)
    assert (running.stops, signals.number) == ([], None)


def test_two_hangups_before_a_wait_end_one_wait() -> None:
    """The second one ended the wait for the next run, which began at once instead of after its interval."""
    with Signals(reloads=True) as signals:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        assert not signals.wait(HANG_SECONDS)
        assert signals.take_reload()
        assert signals.wait(HANG_SECONDS)


def test_other_signals_end_a_run_that_a_hangup_reloads() -> None:
    running = Running()
    with Signals(reloads=True) as signals:
        signals.send_to(running)
        signal.raise_signal(signal.SIGTERM)
    assert running.stops == [("interrupted by SIGTERM", False)]


def test_reload_by_hangup_does_not_end_an_awaited_program() -> None:
    with Signals(reloads=True) as signals:
        with DeferredSignals() as held:
            signal.raise_signal(signal.SIGHUP)
            assert held.number is None
        assert signals.take_reload()


_INTERRUPTED = """
import os, resource, _signal
from paropt_exporter.signals import Signals

class Running:
    def interrupt(self, reason, *, now):
        print(reason)

with Signals() as signals:
    signals.send_to(Running())
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    os.kill(os.getpid(), _signal.SIGTERM)
"""


def test_signal_ends_a_run_that_has_no_descriptors_left() -> None:
    """The handler imports nothing: otherwise it would fail, and the run would go on."""
    done = run_python(_INTERRUPTED)
    assert (done.stdout, done.stderr) == ("interrupted by SIGTERM\n", "")
