"""The exporter's side of its one guardian process: start it, lease it, hand commands over, clean up if it dies."""

from __future__ import annotations

import array
import atexit
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from paropt_exporter import descriptors
from paropt_exporter.pool.guardian.process_tree import MARK

log = logging.getLogger(__name__)

_END_SECONDS = 10.0  # the guardian gives up killing after 5 s
_HUNG_UP_SECONDS = 1.0  # a process that dies closes its sockets, then ends
# The packages' own __init__ modules would add to the guardian's memory: stand-ins let it import three modules alone.
_PROGRAM = """
import sys
folder, descriptor = sys.argv[1:]
for name, place in (("paropt_exporter", folder), ("paropt_exporter.pool", folder + "/pool")):
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = [place]
from paropt_exporter.pool.guardian.loop import main
main(int(descriptor))
"""


class SharedGuardian:
    """One guardian process for all command pools of this process.

        none --hand_over--> running --last release, or the interpreter's end--> none
                              |
                              +--it dies--> none (the next hand_over starts another)

    Guarantees: it lives from the first command to the last release; a forked copy of this process can't keep it alive.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: _leases, _process, _control
        self._leases = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._registered = False

    @property
    def pid(self) -> int | None:
        """The guardian's process id, None while none runs."""
        with self._lock:
            return self._process.pid if self._process is not None and self._process.poll() is None else None

    def lease(self) -> None:
        """Keep the guardian, once started, until `release`."""
        with self._lock:
            self._leases += 1

    def release(self) -> None:
        """Give a lease back; the last one ends the guardian."""
        with self._lock:
            self._leases -= 1
            ended = self._taken() if not self._leases else None
        _wait_for(ended)

    def hand_over(self, channel: socket.socket, output: int) -> subprocess.Popen[bytes]:
        """Give the guardian its end of a command's channel and of its output pipe; starts it if none runs.

        Returns its process, for `died_of`. Raises OSError when it can't be started.
        """
        passed = array.array("i", [channel.fileno(), output])
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._taken()
            try:
                return self._send(passed)
            except ConnectionError:  # it died this moment, and gets one successor
                _wait_for(self._taken())
                return self._send(passed)

    def _send(self, passed: array.array[int]) -> subprocess.Popen[bytes]:
        process, control = self._started()
        control.sendmsg([b"c"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        return process

    def _started(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        if self._process is not None and self._control is not None:
            return self._process, self._control
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._forget)
            atexit.register(self._close)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, _package_folder(), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
                descriptors.restore(self._process.pid)  # its first command comes after this
            except OSError:
                ours.close()
                raise
        self._control = ours
        return self._process, ours

    def _taken(self) -> subprocess.Popen[bytes] | None:
        """Close the control socket, which ends the guardian, and return its process; the lock is held."""
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            control.close()
        return process

    def _close(self) -> None:
        with self._lock:
            ended = self._taken()
        _wait_for(ended)

    def _forget(self) -> None:
        """In a forked child: the guardian is the parent's, and must not wait for this copy of the socket to close."""
        self._lock = threading.Lock()
        self._leases = 0
        process = self._taken()
        if process is not None:
            process.returncode = 0  # not our child: nothing to wait for, and no warning that nobody did


def died_of(process: subprocess.Popen[bytes]) -> str:
    """Tell what ended a guardian that hung up on a command."""
    try:
        code = process.wait(_HUNG_UP_SECONDS)
    except subprocess.TimeoutExpired:
        return "it lives, but has no file descriptors left"
    return f"killed by signal {-code}" if code < 0 else f"exit {code}"


def kill_left(session: int, mark: str) -> int:
    """Kill what a command left when its guardian died, and return how many processes that was.

    They are known by their session (0: unknown), or by the mark in their environment.
    """
    import psutil  # here: hardly a guardian dies

    count = 0
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and _is_left(process.pid, process.environ, session, mark):
                process.kill()  # psutil looks whether the number is still this process's own
                count += 1
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or not ours to look at or end
    return count


def _is_left(pid: int, environment: Callable[[], dict[str, str]], session: int, mark: str) -> bool:
    return (session != 0 and os.getsid(pid) == session) or environment().get(MARK) == mark


def _wait_for(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        log.error("the guardian of commands does not end: killed", extra={"pid": process.pid})
        process.kill()
        process.wait()


def _package_folder() -> str:
    return str(Path(__file__).resolve().parents[2])
