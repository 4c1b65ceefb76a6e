"""Handle SIGINT, SIGTERM and SIGHUP: the first ends a run gracefully, the second at once; between runs they end a wait.

Both classes wake a waiting thread through a pipe, to which Python's C handler or the Python handler writes.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Protocol

from paropt_exporter.signal_numbers import name_signal, signal

_READ_BYTES = 4096  # any number of wake-ups counts as one
_ONE_SIGNAL_SECONDS = 0.1  # timeout(1) sends its signal to the process, and at once again to its group
_WAKE = 0  # no signal has this number
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


class DeferredSignals:
    """Hold back stop signals while this process waits for a program; at the end, raise the first one again.

    Outside of the main thread it holds back nothing. Guarantee: the caller can end the program before the signal has
    its usual effect, which may be the end of this process.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.wake_reader, self._wake_writer = os.pipe()  # the reader is readable once a signal has come
        os.set_blocking(self._wake_writer, False)
        self._previous: dict[int, object] = {}

    def __enter__(self) -> DeferredSignals:
        for number in _STOP_SIGNALS if threading.current_thread() is threading.main_thread() else ():
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN and not isinstance(handler, ReloadHandler):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # signal.signal accepts its own results
        os.close(self.wake_reader)
        os.close(self._wake_writer)
        if self.number is not None:
            signal.raise_signal(self.number)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        with suppress(BlockingIOError):  # the pipe is full: the reader is readable already
            os.write(self._wake_writer, b"\0")


class ReloadHandler:
    """The handler of SIGHUP in a service: it requests a reload of the config, and stops nothing."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._requested = False
        self._wake = wake

    def __call__(self, _: int, __: FrameType | None) -> None:
        if not self._requested:  # otherwise the second wake would end the wait after the reload
            self._requested = True
            self._wake()

    def take_request(self) -> bool:
        """Return whether a reload was requested since the last call."""
        requested, self._requested = self._requested, False
        return requested


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal, which sends SIGHUP when it closes."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Interruptible(Protocol):
    """A run that a signal may end."""

    def interrupt(self, reason: str, *, now: bool) -> None: ...


class Signals:
    """The stop signals of this process: `with Signals() as signals:` on the main thread, which restores old handlers.

    Guarantees: no signal is lost; the same signal within 0.1 s counts once. During a run a signal reaches the run, an
    earlier one reaches the next run, and each ends a `wait`. A lock or a queue would lose some: after a signal between
    the last check and the sleep, no Python handler runs until the sleep ends. Python's C handler writes to the pipe,
    whichever thread the signal hits.
    """

    def __init__(self, *, reloads: bool = False, read_clock: Callable[[], float] = time.monotonic) -> None:
        """With `reloads` SIGHUP stops nothing: it ends a `wait` and is reported by `take_reload`."""
        self._read_clock = read_clock
        self._last: tuple[int, float] | None = None  # the last signal that counted, and when it came
        self._arrived: deque[int] = deque()
        self._reload = ReloadHandler(self.wake) if reloads else None
        self._wake_reader, self._wake_writer = os.pipe()
        self._previous_wakeup_fd = -1
        self._run: Interruptible | None = None
        self._during_run = 0
        self._previous: dict[int, object] = {}
        self.number: int | None = None

    @property
    def interrupted_run(self) -> bool:
        """Whether a signal came during a run."""
        return self._during_run > 0

    def __enter__(self) -> Signals:
        for end in (self._wake_reader, self._wake_writer):
            os.set_blocking(end, False)  # a full pipe wakes the reader too
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._wake_writer, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: the process outlives its terminal
            handler = self._reload if number == signal.SIGHUP and self._reload is not None else self._on_signal
            self._previous[number] = signal.signal(number, handler)
        return self

    def take_reload(self) -> bool:
        """Return whether SIGHUP requested a reload since the last call."""
        return self._reload is not None and self._reload.take_request()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # signal.signal accepts its own results
        signal.set_wakeup_fd(self._previous_wakeup_fd)
        reader, writer, self._wake_reader, self._wake_writer = self._wake_reader, self._wake_writer, -1, -1
        os.close(reader)
        os.close(writer)

    def send_to(self, run: Interruptible | None) -> None:
        """Send signals to `run` from now on; None: no run is in progress."""
        self._run = run
        if run is not None and self.number is not None:
            self._interrupt_run(self.number)

    def wait(self, seconds: float | None) -> bool:
        """Wait for a signal at most `seconds` (None: without a limit) and return whether one has come."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._arrived:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._wake_reader], [], [], left)[0]:
                return False
            # the Python handler was due before the write, so it runs before the check
            os.read(self._wake_reader, _READ_BYTES)
        return self._arrived.popleft() != _WAKE

    def wake(self) -> None:
        """End the current `wait`, or the next one, as if its time were over; from any thread."""
        self._arrived.append(_WAKE)
        with suppress(OSError):  # full: the reader wakes anyway; closed: no thread waits any more
            os.write(self._wake_writer, b"\0")

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = self._read_clock()
        if self._last is not None and self._last[0] == number and now < self._last[1] + _ONE_SIGNAL_SECONDS:
            return
        self._last = number, now
        self.number = self.number or number
        self._arrived.append(number)
        self._interrupt_run(number)

    def _interrupt_run(self, number: int) -> None:
        if self._run is not None:
            self._during_run += 1
            name = name_signal(number)
            self._run.interrupt(f"interrupted by {name}", now=self._during_run > 1)
