"""The parent's side of the fork server: starts it with the first worker, and requests workers from it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import marshal
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from paropt_exporter import descriptors
from paropt_exporter.environment import copy_environment
from paropt_exporter.errors import is_from_signal_handler
from paropt_exporter.executors import procfs
from paropt_exporter.executors.frames import count_unread_bytes
from paropt_exporter.executors.worker import ABORT, BYE, CONTROL, END, SPAWN
from paropt_exporter.signal_numbers import signal

if TYPE_CHECKING:
    import socket

log = logging.getLogger(__name__)

_BOOT = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from paropt_exporter.executors.worker.forkserver import main; main({parent})"
)
# The fork server has died (the first two), or another thread has noticed that already and closed the socket.
_GONE = (errno.EPIPE, errno.ECONNRESET, errno.EBADF)
_HELD_SECONDS = 5.0
_RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


class ForkServers:
    """Keeps one fork server for this process, and starts another if it dies.

    `warm`: whether a worker of the present one has started: further ones start within milliseconds.
    """

    def __init__(self) -> None:
        # guards: the start of a fork server, and _is_watched. Reentrant, since a signal handler may end workers at any
        # point.
        self._lock = threading.RLock()
        self._control: socket.socket | None = None
        self._pid = 0
        self._numbers = itertools.count()
        self._is_watched = False
        self.warm = False

    @property
    def pid(self) -> int:
        """The fork server's process id; 0 if none runs."""
        return self._pid

    def spawn(self, files: tuple[int, ...]) -> int:
        """Request a worker with the descriptors `files` (see forkserver.FILES). OSError if there is no fork server.

        Return a number for `abort`.
        """
        import socket  # loaded with the first worker

        number = next(self._numbers)
        for attempt in (1, 2):
            with self._lock:
                control = self._control or self._start()
            try:
                socket.send_fds(control, [marshal.dumps((SPAWN, number))], files)
                self.resume()
                break
            except OSError as error:
                if error.errno not in _GONE or attempt == 2:
                    raise
                self._discard(control)
        return number

    def end(self, pid: int, grace_seconds: float) -> None:
        """End a worker and its process group: TERM now, KILL after the grace. Does not block."""
        self._send((END, pid, grace_seconds))

    def abort(self, number: int, grace_seconds: float) -> None:
        """End a worker that may not have started yet, by the number of its spawn. Does not block."""
        self._send((ABORT, number, grace_seconds))

    def _send(self, order: tuple[str, int, float]) -> None:
        control = self._control
        if control is not None:
            try:
                control.send(marshal.dumps(order))
            except OSError as error:  # it is gone
                if is_from_signal_handler(error):
                    raise
        self.resume()
        self._watch()

    def _watch(self) -> None:
        """Kill a fork server that is still held after _HELD_SECONDS and has not read its orders, and so all workers.

        A task may trace it (ptrace): then SIGCONT does not continue it, and no worker would end in time.
        """
        with self._lock:
            if self._is_watched or not _is_traced(self._pid):
                return
            timer = threading.Timer(_HELD_SECONDS, self._kill_if_held, (self._pid,))
            timer.daemon = True
            with contextlib.suppress(RuntimeError):  # the system has no thread left
                timer.start()
                self._is_watched = True

    def _kill_if_held(self, pid: int) -> None:
        with self._lock:
            self._is_watched = False
            control = self._control
            if self._pid == pid and _is_traced(pid) and control is not None and count_unread_bytes(control):
                log.error("a task or a debugger holds the fork server: killed, with all workers", extra={"pid": pid})
                os.kill(pid, signal.SIGKILL)

    def resume(self) -> None:
        """Continue the fork server if a task has stopped it."""
        with self._lock:
            if self._pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        """End the fork server, after the last pool has ended."""
        control = self._control
        if control is not None:
            with contextlib.suppress(OSError):
                control.send(marshal.dumps((BYE,)))
            self.resume()
            self._discard(control)

    def reset_after_fork(self) -> None:
        """In a forked child: the fork server is the parent's."""
        self._lock = threading.RLock()
        control, self._control, self._pid = self._control, None, 0
        self.warm = self._is_watched = False
        if control is not None:
            control.close()

    def _start(self) -> socket.socket:
        import socket  # here: a lane of commands has no workers

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(True)  # whatever the program's `socket.setdefaulttimeout` is
        os.set_blocking(theirs.fileno(), True)  # gevent's `setblocking` would leave the descriptor as it is
        try:
            root, python = str(Path(__file__).parents[3]), _find_interpreter()
            self._pid = os.posix_spawn(
                python,
                # -P: the current folder is not to be imported from, and may be deleted.
                [python, "-P", *_flags(), "-c", _BOOT.format(root=root, parent=os.getpid())],
                copy_environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), CONTROL),  # first: its number may be 0
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    # If a stream is closed, its number would go to another file, and Python would have no stream.
                    *(
                        (os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0)
                        for n in (1, 2)
                        if not descriptors.is_stream(n)
                    ),
                ],
                setsid=True,  # Ctrl-C at the terminal is for the parent only
                setsigmask=(),
                setsigdef=_RESET_SIGNALS,
            )
            descriptors.restore_limit(self._pid)  # before its first fork
        except BaseException:  # close what was opened; raised again
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        return ours

    def _discard(self, control: socket.socket) -> None:
        """End a fork server, unless another thread has done so: then there may be a successor."""
        with self._lock:
            if self._control is not control:
                return
            self._control = None
            pid, self._pid = self._pid, 0
            self.warm = False
        control.close()
        if pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _is_traced(pid: int) -> bool:
    """Return whether a process is stopped by one that traces it. False for 0."""
    fields = procfs.read_stat(pid) if pid else None
    return fields is not None and fields[0] == "t"


def _find_interpreter() -> str:
    """Return the path of Python, which a program that embeds it sets with `multiprocessing.set_executable`."""
    spawn = sys.modules.get("multiprocessing.spawn")
    return sys.executable if spawn is None else os.fsdecode(spawn.get_executable() or "")


def _flags() -> list[str]:
    """Return the interpreter's flags and -X options, which must hold in workers too."""
    flags = sys.flags
    letters = (
        ("O", flags.optimize), ("b", flags.bytes_warning), ("B", flags.dont_write_bytecode),
        ("E", flags.ignore_environment), ("s", flags.no_user_site), ("S", flags.no_site),
        ("u", getattr(sys.__stdout__, "write_through", False)),
    )  # fmt: skip
    options = {"dev": True} | sys._xoptions if flags.dev_mode else sys._xoptions
    found = [f"-W{option}" for option in sys.warnoptions]
    found += ["-" + letter * count for letter, count in letters if count]
    return found + [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in options.items()]
