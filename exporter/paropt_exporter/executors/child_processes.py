"""Find and end the child processes of calls: SIGTERM first, SIGKILL after a grace."""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
import threading
from collections.abc import Callable, Container, Iterable
from time import monotonic

from paropt_exporter.executors import procfs
from paropt_exporter.signal_numbers import signal

LINGER_SECONDS = 0.2  # as for commands: left processes may exit by themselves, such as a `tee` that still writes
LEFT_GRACE_SECONDS = 2.0  # as for commands: from SIGTERM to SIGKILL for left processes
MAX_KILL_SECONDS = 5.0  # after SIGKILL: a process in uninterruptible sleep must not block a worker
_POLL_SECONDS = 0.1  # between two scans of /proc for new processes, and the delay of a signal


class Termination:
    """Ends a set of processes and all their descendants.

        alive --term_at--> SIGTERM to each process found --kill_at--> SIGKILL to each process found --> none left

    Each scan starts from the processes that `roots` returns, and from known descendants, even if their parent has
    ended. It identifies a process by pid and start time, and so never signals another process that gets the same pid.
    Processes that `list_exempt` returns are spared with their descendants, even if an earlier scan has found them: the
    pid of a helper is known only after its start. Any thread may call its methods.
    """

    def __init__(self, roots: Callable[[], Iterable[int]], list_exempt: Callable[[], Container[int]] = tuple) -> None:
        self.term_at = self.kill_at = math.inf
        self._lock = threading.Lock()  # guards: the times above, and everything below
        self._lingers = False
        self._roots, self._list_exempt = roots, list_exempt
        self._known: dict[int, str] = {}  # pid: start time
        self._terminated: set[int] = set()

    def start_linger(self, now: float) -> None:
        """Give the processes the short grace of left processes."""
        with self._lock:
            if math.isinf(self.kill_at):
                self._lingers = True
                self.term_at, self.kill_at = now + LINGER_SECONDS, now + LINGER_SECONDS + LEFT_GRACE_SECONDS

    def stop(self, grace_seconds: float, now: float) -> None:
        """Send SIGTERM from now on, SIGKILL after the grace; a second call can only shorten the grace."""
        with self._lock:
            self._lingers = False
            self.term_at = min(self.term_at, now)
            self.kill_at = min(self.kill_at, now + grace_seconds)

    def advance(self, now: float) -> list[int]:
        """Scan for processes, send the signals that are due, and return the live processes."""
        with self._lock:
            self._discover()
            if self._lingers and now >= self.term_at:  # much later if this process was stalled: the grace begins now
                self._lingers = False
                self.kill_at = now + LEFT_GRACE_SECONDS
            alive = list(self._known)
            for pid in alive:
                self._send_due(pid, now)
            return alive

    def _send_due(self, pid: int, now: float) -> None:
        if now >= self.kill_at:
            _send(pid, signal.SIGKILL)
        elif now >= self.term_at and pid not in self._terminated:
            self._terminated.add(pid)
            _send(pid, signal.SIGTERM)
            _send(pid, signal.SIGCONT)  # a stopped process reacts to no other signal but SIGKILL

    def wait(self) -> None:
        """Return when all have exited, or at the latest a few seconds after SIGKILL."""
        while (alive := self.advance(now := monotonic())) and now < self.kill_at + MAX_KILL_SECONDS:
            wait_for_exit(alive, _POLL_SECONDS)

    def _discover(self) -> None:
        waiting = [*self._known, *self._roots()]
        exempt, seen = self._list_exempt(), dict[int, str]()
        while waiting:
            pid = waiting.pop()
            start = "" if pid in seen or pid in exempt else procfs.read_start_time(pid)
            if start and self._known.get(pid, start) == start:
                seen[pid] = start
                waiting += procfs.list_children(pid)
        self._known = seen


def end_leftovers(termination: Termination) -> tuple[str, ...]:
    """End the processes that a call left running and return their names."""
    now = monotonic()
    left = termination.advance(now)
    if not left:
        return ()
    names = name_processes(left)
    termination.start_linger(now)
    termination.wait()
    return names


def name_processes(pids: Iterable[int]) -> tuple[str, ...]:
    """Return each process's program and pid, for messages."""
    return tuple(f"{procfs.read_command_name(pid)} (pid {pid})" for pid in pids)


def list_own_children() -> set[int]:
    """Return the children of this process, started by any thread."""
    return procfs.list_children("self") - list_helpers()


def list_helpers() -> set[int]:
    """Return multiprocessing's resource tracker, a child that belongs to no call and ends after its last user."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    pid = getattr(getattr(module, "_resource_tracker", None), "_pid", None)
    return set() if pid is None else {pid}


def wait_for_exit(pids: Iterable[int], seconds: float) -> None:
    """Wait until one of the processes exits, at most `seconds`."""
    poll = select.poll()
    with contextlib.ExitStack() as stack:
        for pid in pids:
            # An error means that the process has exited or, if all fail, that no descriptors are left: then wait the
            # whole time.
            with contextlib.suppress(OSError):
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                poll.register(handle, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has exited, or is a set-user-id program
        os.kill(pid, number)
