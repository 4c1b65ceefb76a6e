"""Let commands wait for what the system is short of while others of ours hold it: descriptors, processes."""

from __future__ import annotations

import errno
import threading

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_ASK_AGAIN_SECONDS = 5.0
_ASK_AGAIN_ALONE_SECONDS = 1.0  # others than commands may free some, too: clients of the endpoint
_ATTEMPTS_ALONE = 5  # without a command that runs, and so could free any


class Shortage:
    """Counts the commands that run, and lets others wait for the end of one.

    Guarantee: each command that ends, or that got what it waited for, lets one that waits try again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards: _running
        self._running = 0

    def begin(self) -> None:
        """Note that a command has what it needs."""
        with self._changed:
            self._running += 1
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify()

    def wake(self) -> None:
        """Let all that wait go on: one of them was stopped."""
        with self._changed:
            self._changed.notify_all()

    def wait(self, error: OSError, attempt: int) -> None:
        """Wait until it is worth another try after `error`; raise it if none is.

        `attempt` counts the tries. A command that runs frees something at its end; without one only others could.
        """
        with self._changed:
            if error.errno not in SHORTAGES or (not self._running and attempt >= _ATTEMPTS_ALONE):
                raise error
            self._changed.wait(_ASK_AGAIN_SECONDS if self._running else _ASK_AGAIN_ALONE_SECONDS)


def explain(error: OSError) -> str:
    """Say what is missing and what to do about it."""
    if error.errno == errno.EAGAIN:
        return "the system allows no more processes: use fewer workers or raise the limit (ulimit -u)"
    if error.errno in SHORTAGES:
        return "there are no file descriptors left: use fewer workers or raise the limit (ulimit -n)"
    return f"{error.strerror or error}: see what the system lacks"
