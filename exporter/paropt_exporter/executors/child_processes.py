"""Find and end the child processes that a stage's call started: TERM, KILL after a grace."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from time import monotonic

from paropt_exporter.executors import procfs

LINGER_SECONDS = 0.2  # as for commands: what a call leaves may end by itself, a `tee` that still has to write
LEFT_GRACE_SECONDS = 2.0  # as for commands: from TERM to KILL for what was left
_GIVE_UP_SECONDS = 5.0  # after KILL: a process in uninterruptible sleep must not hold a worker forever
_MOST_NAMES = 10  # in one line
_LOOK_SECONDS = 0.1  # between two looks for new processes: /proc tells of none by itself


class Ending:
    """The end of a set of processes and of all their descendants.

        alive --term_at--> TERM to each, as it is found --kill_at--> KILL to each, as it is found --> none left

    `roots` returns the processes to start from, at each look. Descendants stay known when their parent ends. A process
    is known by its number and its start time, so that no other process that gets the number is hit.
    """

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self.term_at = self.kill_at = math.inf
        self._roots = roots
        self._known: dict[int, str] = {}  # pid: start time
        self._asked: set[int] = set()

    def leave(self, now: float) -> None:
        """Give the processes the short grace of those that a call leaves behind."""
        if math.isinf(self.kill_at):
            self.term_at, self.kill_at = now + LINGER_SECONDS, now + LINGER_SECONDS + LEFT_GRACE_SECONDS

    def stop(self, grace_seconds: float, now: float) -> None:
        """TERM from now on, KILL after the grace; a second call can only shorten it."""
        self.term_at = min(self.term_at, now)
        self.kill_at = min(self.kill_at, now + grace_seconds)

    def advance(self, now: float) -> list[int]:
        """Look, send what is due, and return the processes that live."""
        self._discover()
        alive = list(self._known)
        for pid in alive:
            if now >= self.kill_at:
                _send(pid, signal.SIGKILL)
            elif now >= self.term_at and pid not in self._asked:
                self._asked.add(pid)
                _send(pid, signal.SIGTERM)
                _send(pid, signal.SIGCONT)  # a stopped process takes no other signal but KILL
        return alive

    def wait(self) -> None:
        """Return when none lives, or when KILL was of no use."""
        while (alive := self.advance(now := monotonic())) and now < self.kill_at + _GIVE_UP_SECONDS:
            wait_for_an_end(alive, min(_LOOK_SECONDS, *(at - now for at in (self.term_at, self.kill_at) if at > now)))

    def _discover(self) -> None:
        waiting = [*self._known, *self._roots()]
        seen: dict[int, str] = {}
        while waiting:
            pid = waiting.pop()
            start = "" if pid in seen else procfs.read_start_time(pid)
            if start and self._known.get(pid, start) == start:
                seen[pid] = start
                waiting += procfs.list_children(pid)
        self._known = seen


def end_left(ending: Ending) -> tuple[str, ...]:
    """End what a call left behind and return the names of these processes."""
    now = monotonic()
    left = ending.advance(now)
    if not left:
        return ()
    names = tuple(f"{procfs.read_command_name(pid)} (pid {pid})" for pid in left)
    ending.leave(now)
    ending.wait()
    return names


def listed(names: Sequence[str]) -> str:
    """Return the first of the names, and how many more there are."""
    shown, more = ", ".join(names[:_MOST_NAMES]), len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def of_this_process() -> set[int]:
    """Return the children of this process, whichever thread started them."""
    return procfs.list_children("self") - helpers()


def helpers() -> set[int]:
    """Return the child that belongs to no call: multiprocessing's resource tracker, which ends after the last user."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    pid = getattr(getattr(module, "_resource_tracker", None), "_pid", None)
    return set() if pid is None else {pid}


def wait_for_an_end(pids: Iterable[int], seconds: float) -> None:
    """Return when one of the processes ends, at the latest after `seconds`."""
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        for pid in pids:
            with contextlib.suppress(OSError):  # ended meanwhile, or no descriptors left: then it takes the whole time
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                poll.register(handle, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # ended meanwhile, or a set-user-id program
        os.kill(pid, number)
