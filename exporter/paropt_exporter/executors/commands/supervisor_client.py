"""The exporter's side of its one supervisor process: start it, lease it, hand commands over, clean up if it dies."""

from __future__ import annotations

import array
import atexit
import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from paropt_exporter import descriptors
from paropt_exporter.executors.processes.forkservers import is_stream
from paropt_exporter.executors.supervisor.process_tree import MARK

log = logging.getLogger(__name__)

_MAX_END_SECONDS = 10.0  # the supervisor gives up killing after 5 s
_MAX_EXIT_SECONDS = 1.0  # a process that dies closes its sockets, then ends
# The packages' own __init__ modules would add to the supervisor's memory: stand-ins let it import three modules alone.
_CONTROL = 3  # the supervisor's descriptor
COMMAND, WATCH, REST, EXIT, BYE = b"c", b"w", b"r", b"e", b"b"  # on the control socket, see `supervisor.event_loop`
_PROGRAM = """
import sys
folder, descriptor, owner = sys.argv[1:]
for name, place in (("paropt_exporter", folder), ("paropt_exporter.executors", folder + "/executors")):
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = [place]
from paropt_exporter.executors.supervisor.event_loop import main
main(int(descriptor), int(owner))
"""


class SupervisorProcess:
    """The supervisor's process; any thread may ask after it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.handle = os.pidfd_open(pid)  # readable once it has ended
        closing = weakref.finalize(self, os.close, self.handle)
        closing.atexit = (
            False  # it would come before `SharedSupervisor._close_at_exit`, and the number be another file's by then
        )
        self._lock = threading.Lock()  # guards: _code
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code as `subprocess` has it; None while it lives."""
        with self._lock:
            if self._code is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # SIGCHLD is ignored here, or this is a forked copy: nobody knows
                    pid, status = self.pid, 0
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
            return self._code

    def wait(self, timeout_seconds: float) -> int:
        """Return its exit code; TimeoutError if it goes on."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        poll.poll(timeout_seconds * 1000)
        code = self.poll()
        if code is None:
            raise TimeoutError
        return code

    def resume(self) -> None:
        """Let it go on if something has stopped it; nothing happens if it runs."""
        self.send(signal.SIGCONT)

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.handle, number)


class SharedSupervisor:
    """One supervisor process for all command pools of this process.

        none --hand_over, watch--> running --last release, or the interpreter's end--> none
                                     |
                                     +--it dies--> none (the next hand_over or watch starts another)

    Guarantees: it lives from the first command to the last release; a forked copy of this process can't keep it alive.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: everything below
        self._leases = 0
        self._process: SupervisorProcess | None = None
        self._control: socket.socket | None = None
        self._watches = False
        self._registered = False

    @property
    def pid(self) -> int | None:
        """The supervisor's process id, None while none runs."""
        with self._lock:
            return self._process.pid if self._process is not None and self._process.poll() is None else None

    def lease(self) -> None:
        """Keep the supervisor, once started, until `release`."""
        with self._lock:
            self._leases += 1

    def release(self) -> None:
        """Give a lease back; the last one ends the supervisor."""
        with self._lock:
            self._leases -= 1
            ended = self._detach(BYE) if not self._leases else None
            self._watches = self._watches and bool(self._leases)
        _end_process(ended)

    def kill(self) -> None:
        """End the supervisor by force, if one runs. Take no lock: its holder may wait for the supervisor."""
        process = self._process
        if process is not None:
            process.send(signal.SIGKILL)

    def hand_over(self, channel: socket.socket, output: int) -> SupervisorProcess:
        """Give the supervisor its end of a command's channel and of its output pipe; starts it if none runs.

        Returns its process, for `describe_death`. Raises OSError when it can't be started.
        """
        passed = array.array("i", [channel.fileno(), output])
        return self._send(COMMAND, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])

    def watch(self) -> None:
        """Have the supervisor kill all of this process's children when this process is gone, until the last release.

        It looks for them every 0.1 s until `stop_watching`. Raises OSError when it can't be started.
        """
        with self._lock:
            self._watches = True
        self._send(WATCH, [])

    def stop_watching(self) -> None:
        """Let the supervisor look for no more children: none is to be started before the next `watch`."""
        with self._lock:
            if self._control is not None:
                with contextlib.suppress(OSError):
                    self._control.sendall(REST)

    def _send(self, kind: bytes, passed: list[tuple[int, int, array.array[int]]]) -> SupervisorProcess:
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._detach()
            try:
                process, control = self._get_or_start()
                control.sendmsg([kind], passed)
            except ConnectionError:  # it died this moment, and gets one successor
                _end_process(self._detach())
                process, control = self._get_or_start()
                control.sendmsg([kind], passed)
            return process

    def _get_or_start(self) -> tuple[SupervisorProcess, socket.socket]:
        if self._process is not None and self._control is not None:
            return self._process, self._control
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._reset_after_fork)
            atexit.register(self._close_at_exit)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _spawn(theirs)
                descriptors.restore_limit(self._process.pid)  # its first command comes after this
                if self._watches:
                    ours.sendall(WATCH)
            except OSError:
                ours.close()
                raise
        self._control = ours
        return self._process, ours

    def _detach(self, last: bytes = b"") -> SupervisorProcess | None:
        """Close the control socket, which ends the supervisor, and return its process; the lock is held."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            if last:
                with contextlib.suppress(OSError):
                    control.sendall(last)
            control.close()
        return process

    def _close_at_exit(self) -> None:
        """At the interpreter's exit: the supervisor kills what is left, and once more when this process is gone."""
        with self._lock:
            control, self._control = self._control, None
            process, self._process = self._process, None
        if control is None or process is None:
            return
        process.resume()
        with control, contextlib.suppress(OSError):
            control.sendall(EXIT)
            control.settimeout(_MAX_END_SECONDS)
            control.recv(1)

    def _reset_after_fork(self) -> None:
        """In a forked child: the supervisor is the parent's, and must not wait for this copy of the socket to close."""
        self._lock = threading.Lock()
        self._leases, self._watches = 0, False
        self._detach()


# The one piece of module state: a process has one supervisor, whichever of its pools needs it.
SUPERVISOR = SharedSupervisor()


def _spawn(control: socket.socket) -> SupervisorProcess:
    """Start the process. Not by subprocess: that waits for the end of a pipe, which a fork in another thread, whose
    child goes on without an exec, keeps open.
    """
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", _PROGRAM, _package_folder(), str(_CONTROL), str(os.getpid())],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, control.fileno(), _CONTROL),  # first: its number may be 0
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            *([] if is_stream(2) else [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGCHLD,),
    )
    try:
        return SupervisorProcess(pid)
    except OSError:  # no descriptors left
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def describe_death(process: SupervisorProcess) -> str:
    """Tell what ended a supervisor that hung up on a command."""
    try:
        code = process.wait(_MAX_EXIT_SECONDS)
    except TimeoutError:
        return "it lives, but has no file descriptors left"
    return f"killed by signal {-code}" if code < 0 else f"exit {code}"


def kill_leftovers(session: int, mark: str) -> int:
    """Kill what a command left when its supervisor died, and return how many processes that was.

    They are known by their session (0: unknown), or by the mark in their environment.
    """
    import psutil  # here: hardly a supervisor dies

    count = 0
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and _is_leftover(process.pid, process.environ, session, mark):
                process.kill()  # psutil looks whether the number is still this process's own
                count += 1
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or not ours to look at or end
    return count


def _is_leftover(pid: int, environment: Callable[[], dict[str, str]], session: int, mark: str) -> bool:
    return (session != 0 and os.getsid(pid) == session) or environment().get(MARK) == mark


def _end_process(process: SupervisorProcess | None) -> None:
    if process is None:
        return
    process.resume()
    try:
        process.wait(_MAX_END_SECONDS)
    except TimeoutError:
        log.error("the supervisor of commands does not end: killed", extra={"pid": process.pid})
        process.send(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            process.wait(_MAX_END_SECONDS)


def _package_folder() -> str:
    return str(Path(__file__).resolve().parents[2])
