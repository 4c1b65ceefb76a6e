"""A pytest plugin: no test waits without end, not even after it has failed, and a failed test leaves no process.

pytest-timeout alone ends one wait of a test, and stops its timer at the first failure: a fixture that waits for a
command of a failed test then waits without end. Here the timer fires repeatedly, and again in the teardown.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from pytest_timeout import Settings, is_debugging

from paropt_exporter.executors import procfs
from paropt_exporter.executors.child_processes import list_helpers

_STDERR = 2
AGAIN_SECONDS = 5.0  # between two timeouts of a test: each ends one wait
TEARDOWN_SECONDS = 60.0  # a teardown waits for its servers at most
MOST_TIMES = 5  # the timeout, for a test that hardly gets a core
EXIT_SECONDS = 60.0  # for the exit of the interpreter, which waits for threads

_settings = pytest.StashKey[Settings]()
_in_phase = pytest.StashKey[bool]()  # whether setup, call or teardown runs
_earlier_processes = pytest.StashKey[set[int]]()  # of a failed test: those that were there before it, such as servers


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool:
    """Start a timer in place of pytest-timeout's, whose timer fires once.

    It interrupts the phases of the test only, and fires again if there is none at the moment: an exception in pytest's
    own code, which makes the report of a failure between two phases, would end the session.
    """

    began, began_delay = monotonic(), _read_delay_seconds()

    def end_wait(*_: object) -> None:
        left = compute_left_seconds(settings.timeout, monotonic() - began, _read_delay_seconds() - began_delay)
        if left > 0:
            signal.setitimer(signal.ITIMER_REAL, left, AGAIN_SECONDS)
        elif item.stash.get(_in_phase, False) and not is_debugging():
            faulthandler.dump_traceback(file=_STDERR)
            pytest.fail(f"took longer than {settings.timeout:g} s")

    item.stash[_settings] = settings
    signal.signal(signal.SIGALRM, end_wait)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN_SECONDS)
    return True


def compute_left_seconds(timeout: float, seconds: float, delay_seconds: float) -> float:
    """Return how much longer a test may take. Its waits for a core don't count: a simulation of 8 s of CPU time took
    longer than two minutes beside 30 busy loops. All together, it may take a few times as long.
    """
    return min(timeout - (seconds - delay_seconds), MOST_TIMES * timeout - seconds)


def _read_delay_seconds() -> float:
    """Return how long the calling thread, which runs the tests, has waited for a core."""
    return procfs.read_run_delay_seconds("/proc/thread-self/schedstat")


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer() -> bool:
    signal.setitimer(signal.ITIMER_REAL, 0)
    return True


@contextlib.contextmanager
def _phase(item: pytest.Item) -> Iterator[None]:
    """Mark a phase: whatever is raised in it is a result of the test."""
    item.stash[_in_phase] = True
    try:
        yield
    finally:
        item.stash[_in_phase] = False


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _phase(item):
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    earlier = _descendants(os.getpid())
    try:
        with _phase(item):
            yield
    except pytest.skip.Exception:
        raise
    except BaseException:
        item.stash[_earlier_processes] = earlier
        raise


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Kill the processes of a failed test before its fixtures wait for them, and bound these waits."""
    if _earlier_processes in item.stash:
        _kill_processes_except(item.stash[_earlier_processes])
    settings = item.stash.get(_settings, None)
    if settings is not None:
        seconds = min(settings.timeout, TEARDOWN_SECONDS)
        pytest_timeout_set_timer(item, settings._replace(timeout=seconds))
    try:
        with _phase(item):
            yield
    finally:
        pytest_timeout_cancel_timer()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Exit with an error if a thread keeps the interpreter from exiting. pytest-xdist ends its workers itself."""
    if hasattr(config, "workerinput"):
        return
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=_STDERR)


def _descendants(pid: int) -> set[int]:
    """Return the processes below this one, without a look at any other of the machine."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the process or thread has ended
            for child in map(int, path.read_text().split()):
                found |= {child, *_descendants(child)}
    return found


def _kill_processes_except(earlier: set[int]) -> None:
    # multiprocessing's tracker serves later tests too, and ends with this process.
    for pid in _descendants(os.getpid()) - earlier - list_helpers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
