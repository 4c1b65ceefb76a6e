"""Find and end child processes, of calls and of exporters that were killed: SIGTERM first, SIGKILL after a grace."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from paropt_exporter.executors import procfs
from paropt_exporter.executors.supervisor.parent_process import RUN_MARK
from paropt_exporter.executors.supervisor.process_tree import list_living

LINGER_SECONDS = 0.2  # as for commands: left processes may exit by themselves, like a `tee` that still writes
LEFT_GRACE_SECONDS = 2.0  # as for commands: from SIGTERM to SIGKILL for left processes
_MAX_KILL_SECONDS = 5.0  # after SIGKILL: a process in uninterruptible sleep must not block a worker
_MAX_NAMES = 10  # in one line
_POLL_SECONDS = 0.1  # between two scans of /proc for new processes


class Termination:
    """Ends a set of processes and all their descendants.

        alive --term_at--> SIGTERM to each process found --kill_at--> SIGKILL to each process found --> none left

    Each scan starts from the processes that `roots` returns, and from known descendants, also if their parent has
    ended. It identifies a process by pid and start time, so that it signals no other process that gets the same pid.
    """

    def __init__(self, roots: Callable[[], Iterable[int]]) -> None:
        self.term_at = self.kill_at = math.inf
        self._roots = roots
        self._known: dict[int, str] = {}  # pid: start time
        self._terminated: set[int] = set()

    def start_linger(self, now: float) -> None:
        """Give the processes the short grace of left processes."""
        if math.isinf(self.kill_at):
            self.term_at, self.kill_at = now + LINGER_SECONDS, now + LINGER_SECONDS + LEFT_GRACE_SECONDS

    def stop(self, grace_seconds: float, now: float) -> None:
        """Send SIGTERM from now on, SIGKILL after the grace; a second call can only shorten the grace."""
        self.term_at = min(self.term_at, now)
        self.kill_at = min(self.kill_at, now + grace_seconds)

    def advance(self, now: float) -> list[int]:
        """Scan for processes, send the signals that are due, and return the live processes."""
        self._discover()
        alive = list(self._known)
        for pid in alive:
            if now >= self.kill_at:
                _send(pid, signal.SIGKILL)
            elif now >= self.term_at and pid not in self._terminated:
                self._terminated.add(pid)
                _send(pid, signal.SIGTERM)
                _send(pid, signal.SIGCONT)  # a stopped process reacts to no other signal but SIGKILL
        return alive

    def wait(self) -> None:
        """Return when all have exited, or some time after SIGKILL at the latest."""
        while (alive := self.advance(now := monotonic())) and now < self.kill_at + _MAX_KILL_SECONDS:
            wait_for_exit(alive, min(_POLL_SECONDS, *(at - now for at in (self.term_at, self.kill_at) if at > now)))

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
    """Return the program and the pid of each process, for messages."""
    return tuple(f"{procfs.read_command_name(pid)} (pid {pid})" for pid in pids)


def format_names(names: Sequence[str]) -> str:
    """Return the first names in a line, and the number of the others."""
    shown, more = ", ".join(names[:_MAX_NAMES]), len(names) - _MAX_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


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
            with contextlib.suppress(
                OSError
            ):  # it has exited, or no descriptor is left: then the call waits the whole time
                handle = os.pidfd_open(pid)
                stack.callback(os.close, handle)
                poll.register(handle, select.POLLIN)
        poll.poll(max(0.0, seconds) * 1000)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has exited, or is a set-user-id program
        os.kill(pid, number)


@contextmanager
def set_run_mark(root: Path, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Set this process's mark for all its children: process id, start time, and a hash of the project's folder."""
    before = environment.get(RUN_MARK)
    environment[RUN_MARK] = f"{os.getpid()}-{procfs.read_start_time(os.getpid())}-{_hash_project(root)}"
    try:
        yield
    finally:
        if before is None:
            environment.pop(RUN_MARK, None)
        else:
            environment[RUN_MARK] = before


def end_orphans(root: Path) -> tuple[str, ...]:
    """End the processes of this project's exporters that have exited, and return the names of the ended processes.

    Only processes of this user and of this pid namespace: in another namespace the same pids mean other processes. It
    spares the ancestors of this process. It ignores marks that this process itself was started with: if a user saves
    the environment of a run, its mark proves nothing any more.
    """
    return end_leftovers(Termination(lambda: _find_orphans(_hash_project(root))))


def _find_orphans(project: str) -> list[int]:
    inherited = set(_read_marks("self"))
    pids = (pid for pid in procfs.list_pids() if pid.isdigit())
    found = [
        pid for pid in pids for mark in _read_marks(pid) if _is_of_dead_owner(mark, project) and mark not in inherited
    ]
    if not found:
        return []  # as almost always: no reason to look at each process a second time
    space, processes = _read_pid_namespace("self"), {pid: fields[1] for pid, fields in list_living()}
    ancestors = _find_ancestors(str(os.getpid()), processes)
    return [
        int(pid) for pid in found if pid in processes and pid not in ancestors and _read_pid_namespace(pid) == space
    ]


def _read_marks(pid: str) -> list[str]:
    return procfs.read_variables(pid, RUN_MARK)


def _find_ancestors(pid: str, parents: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    while pid in parents and pid not in found:
        found.add(pid)
        pid = parents[pid]
    return found


def _is_of_dead_owner(entry: str, project: str) -> bool:
    try:
        owner, start, marked_project = entry.partition("=")[2].split("-")
        return marked_project == project and procfs.read_start_time(int(owner)) != start
    except ValueError:
        return False  # not a mark of this program


def _read_pid_namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 -- the target is no path
    except OSError:
        return ""


def _hash_project(root: Path) -> str:
    return os.fsencode(root.resolve()).hex()  # hashlib takes 3 ms to load
