"""Read single keys from the terminal, in a thread of its own."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Keys:
    """`with Keys(on_key):` calls `on_key` for each key, and gives the terminal its settings back at the end."""

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
        termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._settings)
        os.close(self._reader)
        os.close(self._writer)

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._terminal, self._reader], [], [])
            if self._reader in ready:
                return
            pressed = os.read(self._terminal, 64)
            if not pressed:
                return  # the terminal is closed
            for key in pressed.decode(errors="replace"):
                self._on_key(key)


def has_keys() -> bool:
    """Return whether keys come from a terminal of which this process is in the foreground."""
    try:
        terminal = sys.stdin.fileno()
        return sys.stderr.isatty() and os.tcgetpgrp(terminal) == os.getpgrp()
    except (OSError, ValueError, AttributeError):
        return False
