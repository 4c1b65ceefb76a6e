"""SIGINT, SIGTERM and SIGHUP: the first ends a run politely, the second at once; between runs it ends the wait."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Protocol

_RINGS = 4096  # bytes: as many wake-ups are one
_WAKE = 0  # no signal has this number
_WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # the last: the terminal was closed


class Held:
    """Stop signals that come while a program is waited for, given back at the end; on any but the main thread, none.

    Guarantee: the program can be ended before the signal has its usual effect, which may be this process's end.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.bell, self._button = os.pipe()  # the bell is readable once a signal has come
        os.set_blocking(self._button, False)
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Held:
        for number in _WATCHED if threading.current_thread() is threading.main_thread() else ():
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN and not isinstance(handler, Reload):
                self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave, it takes back
        os.close(self.bell)
        os.close(self._button)
        if self.number is not None:
            signal.raise_signal(self.number)

    def _take(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        with suppress(BlockingIOError):  # it rings already
            os.write(self._button, b"\0")


class Reload:
    """The handler of a SIGHUP that asks a service to read its config again, and stops nothing."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.asked = False
        self._wake = wake

    def __call__(self, _: int, __: FrameType | None) -> None:
        self.asked = True
        self._wake()

    def take(self) -> bool:
        """Return whether a reload was asked for since the last call."""
        asked, self.asked = self.asked, False
        return asked


def has_terminal() -> bool:
    """Say whether the process has a controlling terminal, whose end sends SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


class Stoppable(Protocol):
    """What a signal may end."""

    def interrupt(self, reason: str, *, now: bool) -> None: ...


class Signals:
    """The process's stop signals; `with Signals() as signals:` on the main thread, the old handlers come back after.

    Guarantees: a signal is never lost: during a run it reaches the run, one that came before reaches the next run, and
    each ends a `wait`. A lock or a queue would not do: a signal that comes between the last look at it and the sleep
    has no handler run until the sleep ends. Python's C handler writes to the pipe, whichever thread it hits.
    """

    def __init__(self, *, reloads: bool = False) -> None:
        """With `reloads` SIGHUP stops nothing: it ends a `wait`, and `take_reload` tells of it."""
        self._arrived: deque[int] = deque()
        self._reload = Reload(self.wake) if reloads else None
        self._bell, self._button = os.pipe()
        self._button_before = -1
        self._running: Stoppable | None = None
        self._during_run = 0
        self._previous: dict[int, object] = {}
        self.number: int | None = None

    @property
    def interrupted_run(self) -> bool:
        """Whether a signal came while something ran."""
        return self._during_run > 0

    def __enter__(self) -> Signals:
        for end in (self._bell, self._button):
            os.set_blocking(end, False)  # a full pipe rings as well
        self._button_before = signal.set_wakeup_fd(self._button, warn_on_full_buffer=False)
        for number in _WATCHED:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: it shall outlive its terminal
            handler = self._reload if number == signal.SIGHUP and self._reload is not None else self._take
            self._previous[number] = signal.signal(number, handler)
        return self

    def take_reload(self) -> bool:
        """Return whether SIGHUP asked for a reload since the last call."""
        return self._reload is not None and self._reload.take()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave, it takes back
        signal.set_wakeup_fd(self._button_before)
        bell, button, self._bell, self._button = self._bell, self._button, -1, -1
        os.close(bell)
        os.close(button)

    def during(self, running: Stoppable | None) -> None:
        """Send signals to `running` from now on; None: nothing runs."""
        self._running = running
        if running is not None and self.number is not None:
            self._pass_on(self.number)

    def wait(self, seconds: float | None) -> bool:
        """Wait for a signal, at most `seconds` (None: for ever); whether one came, also one that came before."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._arrived:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._bell], [], [], left)[0]:
                return False
            os.read(self._bell, _RINGS)  # the handler runs before the next look: it was due before the pipe was written
        return self._arrived.popleft() != _WAKE

    def wake(self) -> None:
        """End the `wait` that goes on, or the next one, as if its time were over; from any thread."""
        self._arrived.append(_WAKE)
        with suppress(OSError):  # full: it rings already; closed: nobody waits any more
            os.write(self._button, b"\0")

    def _take(self, number: int, _: FrameType | None) -> None:
        self.number = self.number or number
        self._arrived.append(number)
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._running is not None:
            self._during_run += 1
            name = signal.Signals(number).name
            self._running.interrupt(f"interrupted by {name}", now=self._during_run > 1)
