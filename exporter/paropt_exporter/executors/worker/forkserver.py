"""The fork server: a small process with one thread and without user code, from which worker processes are forked.

    parent ── spawn (with the worker's descriptors), end, bye ──> fork server ── fork ──> workers, in their own sessions
      ^                                                            │      ^                 │
      └───────────────────── a worker's exit status <──────────────┘      └─ its imports <──┘

Guarantees:
  * A fork never copies a lock that another thread holds: there is no other thread.
  * While it is idle, it imports the modules of the standard library that workers had to import, for the next ones.
  * If the parent dies, all workers and their descendants are killed.
  * If a worker crashes or is ended, all processes that it left are ended too, in whichever session: TERM, then KILL.
    Its exit status is sent when all of them have exited. The processes of a worker that exits by itself stay alive.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import io
import marshal
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable

from paropt_exporter.executors import procfs
from paropt_exporter.executors.worker import ABORT, BYE, CONTROL, END, SPAWN, imports, loop, wire

TYPE_CHECKING = False  # workers don't need typing

if TYPE_CHECKING:
    from typing import Any, NoReturn

MESSAGE_BYTES = 1 << 12
# Descriptors of a spawn: socket, claims, results pipe, shared memory, status pipe, stdout, stderr, resource tracker.
FILES = 8

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_KILL_AGAIN_SECONDS = 0.1
_GIVE_UP_SECONDS = 5.0  # a process that is stuck in the kernel must not keep a worker's place forever
_LEFTOVERS_GRACE_SECONDS = 2.0  # of a crashed worker's children; orphans must exit within 5 s of the parent
# CPython's allocator of small objects: the size of its pools, and its largest size class.
_PAGE_BYTES, _LARGEST_SMALL_BYTES = 1 << 14, 512
_libc = ctypes.CDLL(None, use_errno=True)


def main(parent: int) -> None:
    """Fork workers until the parent says goodbye or has exited."""
    os.closerange(CONTROL + 1, 1 << 16)
    forkserver = _ForkServer(parent)
    try:
        forkserver.serve()
        forkserver.close()
        return
    except _ForkedError as forked:
        files = forked.files
    # Outside the handler, or every exception of a task would have _ForkedError as its context.
    _become_worker(files)
    loop.main()
    if not _has_open_files():
        _exit_without_teardown()


class _ForkedError(BaseException):
    """Unwinds a new worker's stack out of the fork server's loop. `files`: the descriptors of its spawn."""

    def __init__(self, files: list[int]) -> None:
        super().__init__()
        self.files = files


class _ExitingWorker:
    """A worker that is ended with all its processes. `code`: its exit status, not sent yet; `orphans`: the others."""

    def __init__(self, kill_at: float) -> None:
        self.kill_at = kill_at
        self.give_up_at: float | None = None
        self.code: int | None = None
        self.orphans: set[int] = set()


class _ForkServer:
    def __init__(self, parent: int) -> None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._control = socket.socket(fileno=CONTROL)
        self._statuses: dict[int, int] = {}  # worker's pid: its status pipe
        self._spawned: dict[int, int] = {}  # worker's pid: the number of its spawn
        self._exiting: dict[int, _ExitingWorker] = {}  # by the pid of a worker that was ended or has crashed
        self._kept: dict[int, int] = {}  # adopted processes that stay alive: the worker that started them
        self._poll = select.poll()
        self._poll.register(self._control, select.POLLIN)
        with contextlib.suppress(OSError):
            self._poll.register(os.pidfd_open(parent), select.POLLIN)  # a fork of the parent may keep the socket open
        self._wakeup, writing = os.pipe()
        for descriptor in (self._wakeup, writing):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writing)
        self._poll.register(self._wakeup, select.POLLIN)
        self._imports = imports.Imports()
        self._poll.register(self._imports, select.POLLIN)
        self._freeze_heap()

    def serve(self) -> None:
        while True:
            events = {descriptor for descriptor, _ in self._poll.poll(self._get_poll_timeout())}
            self._kill_overdue()
            if self._wakeup in events:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wakeup, 1024)
                self._reap()
            if self._control.fileno() in events:
                if not self._handle_message():
                    return
            elif events - {self._wakeup, self._imports.fileno()}:
                self._kill_everything()  # the parent's pidfd
                return
            elif self._imports.fileno() in events:
                self._imports.read_names()
            elif not events and self._imports.pending and self._imports.import_next():
                self._freeze_heap()

    def close(self) -> None:
        self._control.close()

    def _freeze_heap(self) -> None:
        """Prepare the heap for forks."""
        gc.collect()
        self._ballast = _fill_holes()
        gc.freeze()  # so that a worker's garbage collections don't copy shared pages

    def _handle_message(self) -> bool:
        try:
            message, files, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, FILES)
        except OSError:
            message, files = b"", []
        if not message:
            self._kill_everything()
            return False
        order = marshal.loads(message)
        if order[0] == SPAWN and len(files) == FILES:
            self._spawn(order[1], files)
        elif order[0] == SPAWN:  # descriptors are used up: the parent sees the end of the status pipe
            for descriptor in files:
                os.close(descriptor)
        elif order[0] == END:
            self._end(order[1], order[2])
        elif order[0] == ABORT:
            for pid in [pid for pid, number in self._spawned.items() if number == order[1]]:
                self._end(pid, order[2])
        return bool(order[0] != BYE)

    def _spawn(self, number: int, files: list[int]) -> None:
        status = files[4]
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -1
            with contextlib.suppress(OSError):
                os.write(status, wire.STATUS.pack(wire.NOT_FORKED + (error.errno or 0)))
        if pid == 0:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            self._control.detach()  # the worker's socket takes its number
            raise _ForkedError([*files, self._imports.writing])
        for descriptor in files:
            if descriptor != status or pid < 0:
                os.close(descriptor)
        if pid > 0:
            self._statuses[pid], self._spawned[pid] = status, number

    def _end(self, worker: int, grace_seconds: float) -> None:
        """Send TERM now and KILL after the grace. A second call with a shorter grace shortens it."""
        kill_at = time.monotonic() + grace_seconds
        exiting = self._exiting.get(worker)
        left = {pid for pid, owner in self._kept.items() if owner == worker}  # by a worker that exited by itself
        if exiting is None and (worker in self._statuses or left):
            exiting = self._exiting[worker] = _ExitingWorker(kill_at)
        if exiting is not None:
            exiting.kill_at = min(kill_at, exiting.kill_at)
            exiting.orphans |= left
            for pid in left:
                del self._kept[pid]
                _terminate(pid)
            self._signal_worker(worker, signal.SIGTERM if grace_seconds > 0 else signal.SIGKILL)

    def _signal_worker(self, worker: int, number: int) -> None:
        """Send a signal to a worker's group, or to a worker that has just been forked, and has no group yet."""
        try:
            os.killpg(worker, number)
        except ProcessLookupError:
            if worker in self._statuses:
                os.kill(worker, number)
        except OSError:
            pass

    def _reap(self) -> None:
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            if found.si_pid in self._statuses:
                self._reap_worker(found.si_pid, asked=found.si_code == os.CLD_EXITED and found.si_status == 0)
            else:
                self._reap_orphan(found.si_pid)
        for worker in [worker for worker, exiting in self._exiting.items() if self._is_gone(worker, exiting)]:
            self._finish_exit(worker)

    def _reap_worker(self, pid: int, *, asked: bool) -> None:
        ended = pid in self._exiting
        if not ended and not asked:
            self._end(pid, _LEFTOVERS_GRACE_SECONDS)  # before it is reaped: nothing else can have its pid
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._adopt_children(pid)
        if ended:
            self._exiting[pid].code = code
        else:
            self._report_exit(pid, code)

    def _reap_orphan(self, pid: int) -> None:
        os.waitpid(pid, 0)
        worker = self._kept.pop(pid, 0)
        for owner, exiting in self._exiting.items():
            if pid in exiting.orphans:
                exiting.orphans.discard(pid)
                worker = owner
        self._adopt_children(worker)

    def _adopt_children(self, worker: int) -> None:
        """Take over the children of a worker or orphan that has ended. Those of live workers stay with them."""
        exiting = self._exiting.get(worker)
        known = self._statuses.keys() | self._kept.keys()
        known = known.union(*(other.orphans for other in self._exiting.values()))
        for pid in procfs.list_children("self") - known:  # none without /proc: groups are ended all the same
            if exiting is None:
                self._kept[pid] = worker
                continue
            exiting.orphans.add(pid)
            with contextlib.suppress(OSError):
                if os.getpgid(pid) != worker:  # the others got the signal of the group
                    _terminate(pid)

    def _is_gone(self, worker: int, exiting: _ExitingWorker) -> bool:
        reaped = exiting.code is not None or worker not in self._statuses
        return reaped and not exiting.orphans and not _is_group_alive(worker)

    def _finish_exit(self, worker: int) -> None:
        exiting = self._exiting.pop(worker)
        self._kept.update(dict.fromkeys(exiting.orphans, 0))  # could not be killed
        if exiting.code is not None:
            self._report_exit(worker, exiting.code)

    def _report_exit(self, pid: int, code: int) -> None:
        status = self._statuses.pop(pid)
        del self._spawned[pid]
        with contextlib.suppress(OSError):
            os.write(status, wire.STATUS.pack(code))
        os.close(status)

    def _get_poll_timeout(self) -> float | None:
        if self._imports.pending:
            return 0.0
        if not self._exiting:
            return None
        next_kill = min(exiting.kill_at for exiting in self._exiting.values())
        return max(0.0, next_kill - time.monotonic()) * 1000 + 1

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for worker, exiting in [pair for pair in self._exiting.items() if pair[1].kill_at <= now]:
            _signal_group(worker, signal.SIGKILL)
            for orphan in exiting.orphans:
                _kill_processes((orphan, *procfs.list_descendants(orphan)))
            exiting.kill_at = now + _KILL_AGAIN_SECONDS  # killing uncovers more
            exiting.give_up_at = exiting.give_up_at or now + _GIVE_UP_SECONDS
            if self._is_gone(worker, exiting) or (now >= exiting.give_up_at and exiting.code is not None):
                self._finish_exit(worker)

    def _kill_everything(self) -> None:
        for group in self._statuses:
            _signal_group(group, signal.SIGKILL)
        # Processes outside the groups are descendants too, since this is a subreaper. Killing may uncover more.
        while children := procfs.list_descendants(os.getpid()):
            _kill_processes(children)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)


def _fill_holes() -> list[list[object]]:
    """Return objects that fill the gaps of the heap, so that workers' objects get pages of their own.

    A page whose last gap is taken and freed moves between the allocator's lists each time, which makes a loop of plain
    Python 3 % slower. And an object in a page that workers share causes a copy of the page.
    """
    filling: list[list[object]] = [
        [object() for _ in range(_PAGE_BYTES // 16)],
        [float(number) for number in range(_PAGE_BYTES // 32)],
    ]
    sizes = range(48, _LARGEST_SMALL_BYTES + 1, 16)
    filling.extend([bytes(size - sys.getsizeof(b"")) for _ in range(_PAGE_BYTES // size)] for size in sizes)
    return filling


def _terminate(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)


def _kill_processes(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def _is_group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def _become_worker(files: list[int]) -> None:
    """Become a worker: start a session, put the descriptors in their places, and close all others."""
    os.setsid()
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    high = [_duplicate_above(descriptor) for descriptor in files]
    places = (loop.SOCKET, loop.CLAIMS, loop.RESULTS, loop.MEMORY, None, 1, 2, loop.TRACKER, loop.IMPORTS)
    for descriptor, place in zip(high, places, strict=True):
        if place is not None:
            os.dup2(descriptor, place, inheritable=place < CONTROL)
    os.closerange(loop.IMPORTS + 1, 1 << 16)
    sys.stdout.flush()


def _duplicate_above(descriptor: int) -> int:
    """Return a copy of a descriptor, above all places."""
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, loop.IMPORTS + 1)


def _has_open_files() -> bool:
    """Return whether tasks have left files open, which the interpreter's teardown flushes."""
    for value in gc.get_objects():  # without the fork server's, which are frozen
        if issubclass(type(value), io.IOBase):
            try:
                if not value.closed:
                    return True
            except Exception:  # noqa: BLE001 -- code of the user's class
                return True
    return False


def _exit_without_teardown() -> NoReturn:
    """Exit as multiprocessing's children do: after other threads and exit handlers, with nothing left to flush.

    The teardown takes 10 to 20 ms of CPU time, since it copies the pages that workers share.
    """
    threads: Any = sys.modules.get("threading")
    if threads is not None:
        threads._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)
