"""Single keys from the terminal, for --watch."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

_FOREGROUND_SECONDS = 0.5  # between two looks whether the shell has given the terminal back
_LOCAL_MODES = 3  # their place in what `tcgetattr` returns


class Keys:
    """`with Keys(on_key):` calls `on_key` for each key, and gives the terminal its settings back at the end.

    In the background (Ctrl-Z, `bg`) it neither reads keys, which are the shell's, nor changes the terminal.
    """

    def __init__(self, on_key: Callable[[str], None]) -> None:
        self._on_key = on_key
        self._terminal = sys.stdin.fileno()
        self._settings: list[Any] = []
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._read, name="paropt-keys", daemon=True)

    def __enter__(self) -> Keys:
        self._settings = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._writer, b"\0")
        self._thread.join()
        if has_keys():
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._settings)
        os.close(self._reader)
        os.close(self._writer)

    def _read(self) -> None:
        # A read in the background is an error then: it would stop the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
        while True:
            places = [self._reader]
            if has_keys():
                self._turn_echo_off()
                places.append(self._terminal)
            ready, _, _ = select.select(places, [], [], _FOREGROUND_SECONDS)
            if self._reader in ready:
                return
            if self._terminal not in ready or not has_keys():
                continue
            try:
                pressed = os.read(self._terminal, 64)
            except OSError:  # in the background by now, or the terminal is closed
                continue
            if not pressed:
                return  # the terminal is closed
            for key in pressed.decode(errors="replace"):
                self._on_key(key)

    def _turn_echo_off(self) -> None:
        """Read single keys again after the shell had the terminal."""
        with suppress(termios.error):  # the terminal is closed
            if termios.tcgetattr(self._terminal)[_LOCAL_MODES] & termios.ICANON:
                tty.setcbreak(self._terminal, termios.TCSANOW)  # keeps keys that were pressed meanwhile


def has_keys() -> bool:
    """Return whether keys come from a terminal of which this process is in the foreground."""
    try:
        terminal = sys.stdin.fileno()
        return sys.stderr.isatty() and os.tcgetpgrp(terminal) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
