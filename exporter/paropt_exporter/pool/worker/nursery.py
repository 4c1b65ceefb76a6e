"""The small process that worker processes are forked from: one thread, no user code, and it leaves no orphans.

    owner ── spawn (with the worker's ends), end, bye ──> nursery ── fork ──> workers, each in a session of its own
      ^                                                    │   ^                 │
      └────────────── a worker's exit status <─────────────┘   └── what it had <─┘
                                                                   to import
Guarantees:
  * A fork never finds another thread holding a lock: there is none.
  * When nothing else is asked for it imports what a worker had to, of the standard library: the next ones have it.
  * When the owner goes without a word, every worker and all their descendants are killed.
  * What a worker leaves behind in its process group when it dies is ended too: TERM, then KILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import marshal
import os
import select
import signal
import socket
import struct
import sys
import time

from paropt_exporter.pool.worker import imports, loop

CONTROL = 3  # where the owner puts the control socket
STATUS = struct.Struct("<i")  # as subprocess has it: exit code, or minus the signal's number; or NOT_FORKED + errno
NOT_FORKED = 1 << 16
SPAWN, END, BYE = "spawn", "end", "bye"
MESSAGE_BYTES = 1 << 12
FILES = 8  # that come with a spawn: socket, claims, quiet pipe, arena, status pipe, stdout, stderr, resource tracker

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LEFTOVERS_GRACE_SECONDS = 2.0  # of a crashed worker's children; orphans must be gone 5 s after the owner
_PAGE_BYTES, _LARGEST_SMALL_BYTES = 1 << 14, 512  # of CPython's allocator of small objects: pools, size classes
_libc = ctypes.CDLL(None, use_errno=True)


def main(owner: int) -> None:
    """Fork workers until the owner says goodbye or is gone."""
    os.closerange(CONTROL + 1, 1 << 16)
    nursery = _Nursery(owner)
    try:
        nursery.serve()
        nursery.close()
        return
    except _BornError as born:
        files = born.files
    # Not in the handler: whatever a task raises would have the unwinding as its context, and show it.
    _move_in(files)
    loop.main()


class _BornError(BaseException):
    """Unwinds a new worker's stack out of the nursery's loop. `files`: what came with its spawn."""

    def __init__(self, files: list[int]) -> None:
        super().__init__()
        self.files = files


class _Nursery:
    def __init__(self, owner: int) -> None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._control = socket.socket(fileno=CONTROL)
        self._statuses: dict[int, int] = {}  # worker's pid: its status pipe
        self._deadlines: dict[int, float] = {}  # process group: when it is killed
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        with contextlib.suppress(OSError):
            self._poll.register(os.pidfd_open(owner), select.POLLIN)  # a fork of the owner may keep the socket open
        self._wakeup, writing = os.pipe()
        for descriptor in (self._wakeup, writing):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing)
        self._poll.register(self._wakeup, select.POLLIN)
        self._imports = imports.Imports()
        self._poll.register(self._imports, select.POLLIN)
        self._settle()

    def serve(self) -> None:
        while True:
            events = {descriptor for descriptor, _ in self._poll.poll(self._patience_milliseconds())}
            self._kill_overdue()
            if self._wakeup in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 1024)
                self._reap()
            if self._control.fileno() in events:
                if not self._obey():
                    return
            elif events - {self._wakeup, self._imports.fileno()}:
                self._kill_everything()  # the owner's pidfd
                return
            elif self._imports.fileno() in events:
                self._imports.hear()
            elif not events and self._imports.wanted and self._imports.take():
                self._settle()

    def close(self) -> None:
        self._control.close()

    def _settle(self) -> None:
        """Make the heap what workers should start from."""
        gc.collect()
        self._ballast = _fill_holes()
        gc.freeze()  # so that a worker's collections don't copy pages that they share

    def _obey(self) -> bool:
        try:
            message, files, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, FILES)
        except OSError:
            message, files = b"", []
        if not message:
            self._kill_everything()
            return False
        order = marshal.loads(message)
        if order[0] == SPAWN and len(files) == FILES:
            self._spawn(files)
        elif order[0] == SPAWN:  # descriptors are used up: the pipe's end tells the owner
            for descriptor in files:
                os.close(descriptor)
        elif order[0] == END:
            self._end(order[1], order[2])
        return bool(order[0] != BYE)

    def _spawn(self, files: list[int]) -> None:
        status = files[4]
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -1
            with contextlib.suppress(OSError):
                os.write(status, STATUS.pack(NOT_FORKED + (error.errno or 0)))
        if pid == 0:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            self._control.detach()  # its number is the worker's socket's from now on
            raise _BornError([*files, self._imports.writing])
        for descriptor in files:
            if descriptor != status or pid < 0:
                os.close(descriptor)
        if pid > 0:
            self._statuses[pid] = status

    def _end(self, group: int, grace_seconds: float) -> None:
        """TERM now, KILL after the grace. A second, shorter one brings the end forward."""
        if group in self._statuses:
            _signal_group(group, signal.SIGTERM if grace_seconds > 0 else signal.SIGKILL)
            deadline = time.monotonic() + grace_seconds
            self._deadlines[group] = min(deadline, self._deadlines.get(group, deadline))

    def _reap(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            pid = found.si_pid
            asked = found.si_code == os.CLD_EXITED and found.si_status == 0
            if pid not in self._deadlines and not asked:
                self._end(pid, _LEFTOVERS_GRACE_SECONDS)  # before it is reaped, while its number is its own
            _, status = os.waitpid(pid, 0)
            if pid in self._deadlines and not _group_lives(pid):
                del self._deadlines[pid]
            self._tell(pid, os.waitstatus_to_exitcode(status))

    def _tell(self, pid: int, code: int) -> None:
        status = self._statuses.pop(pid, None)
        if status is not None:
            with contextlib.suppress(OSError):
                os.write(status, STATUS.pack(code))
            os.close(status)

    def _patience_milliseconds(self) -> float | None:
        if self._imports.wanted:
            return 0.0
        if not self._deadlines:
            return None
        return max(0.0, min(self._deadlines.values()) - time.monotonic()) * 1000 + 1

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for group in [group for group, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[group]
            _signal_group(group, signal.SIGKILL)

    def _kill_everything(self) -> None:
        for group in self._statuses:
            _signal_group(group, signal.SIGKILL)
        # What has left its group is still our descendant, since we are a subreaper. Killing may uncover more.
        while children := _descendants(os.getpid()):
            for pid in children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)


def _fill_holes() -> list[list[object]]:
    """Return what fills the gaps that start-up left in the heap, so that workers' objects get pages of their own.

    A page with its last gap taken and given back again moves between the allocator's lists each time: a loop of plain
    Python is 3 % slower. And what lands in a page that workers share has it copied.
    """
    filling: list[list[object]] = [
        [object() for _ in range(_PAGE_BYTES // 16)],
        [float(number) for number in range(_PAGE_BYTES // 32)],
    ]
    sizes = range(48, _LARGEST_SMALL_BYTES + 1, 16)
    filling.extend([bytes(size - sys.getsizeof(b"")) for _ in range(_PAGE_BYTES // size)] for size in sizes)
    return filling


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _descendants(root: int) -> list[int]:
    parents = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 -- Path is not worth its import here
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as stat:  # noqa: PTH123 -- as above
                parents[int(name)] = int(stat.read().rpartition(b")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {root})


def _move_in(files: list[int]) -> None:
    """Become a worker: a session of its own, its ends where it expects them, nothing else of the nursery's."""
    os.setsid()
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    high = [_above(descriptor) for descriptor in files]
    places = (loop.SOCKET, loop.CLAIMS, loop.QUIET, loop.ARENA, None, 1, 2, loop.TRACKER, loop.IMPORTS)
    for descriptor, place in zip(high, places, strict=True):
        if place is not None:
            os.dup2(descriptor, place, inheritable=place < CONTROL)
    os.closerange(loop.IMPORTS + 1, 1 << 16)
    sys.stdout.flush()


def _above(descriptor: int) -> int:
    """Return a copy that no place of a worker's can collide with."""
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)
