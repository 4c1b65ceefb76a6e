"""The client of the supervisor process: start it, send commands to it, and clean up if it dies.

Processes of exporters that were killed are found by a mark in their environment.
"""

from __future__ import annotations

import _socket  # its socket has all that is needed here, and `socket` loads `selectors` and takes 2 ms
import atexit
import contextlib
import errno
import logging
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paropt_exporter import descriptors
from paropt_exporter.environment import copy_environment
from paropt_exporter.executors import procfs
from paropt_exporter.executors.frames import FrameReader
from paropt_exporter.executors.supervisor import BYE, CHANNEL, EXIT, MARK, REST, RUN_MARK, WATCH
from paropt_exporter.signal_numbers import signal

log = logging.getLogger(__name__)

_MAX_END_SECONDS = 10.0  # the supervisor gives up killing after 5 s
_MAX_KILL_SECONDS = 5.0  # as long as the supervisor waits for killed processes
_KILL_POLL_SECONDS = 0.1
_EMPTY_SCANS = 3  # in a row: a scan misses a process that starts after the list was made, if its parent exits meanwhile
_MAX_EXIT_SECONDS = 1.0  # a dying process closes its sockets shortly before it ends
_MAX_BLOCKED_SECONDS = 5.0  # a supervisor that has read nothing of a message for so long was stopped by a signal
_RECEIVE_BYTES = 1 << 16
_CONTROL = 3  # the supervisor's descriptor
_MAX_IDLE_CHANNELS = 16  # enough for commands that end at the same time as others start
# Empty stand-ins for the packages, whose __init__ modules would add to the supervisor's memory.
_PROGRAM = """
import os, sys
folder, descriptor, parent = sys.argv[1:]
for name, place in (("paropt_exporter", folder), ("paropt_exporter.executors", folder + "/executors")):
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = [place]
from paropt_exporter.executors.supervisor.event_loop import main
main(int(descriptor), int(parent))
os._exit(0)  # the interpreter's own end takes milliseconds, for which the exporter would wait
"""


class SupervisorProcess:
    """The supervisor's process, for any thread."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.handle = os.pidfd_open(pid)  # readable once it has ended
        closing = weakref.finalize(self, os.close, self.handle)
        # At exit it would run before `SharedSupervisor._close_at_exit`, and another file could get the descriptor.
        closing.atexit = False
        self._lock = threading.Lock()  # guards: _code
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code as in `subprocess`; None while it runs."""
        with self._lock:
            if self._code is None:
                try:
                    pid, status = os.waitpid(self.pid, os.WNOHANG)
                except ChildProcessError:  # SIGCHLD is ignored, or this is a forked copy: the code is unknown
                    pid, status = self.pid, 0
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
            return self._code

    def wait(self, timeout_seconds: float) -> int:
        """Return its exit code; raise TimeoutError if it still runs."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        poll.poll(timeout_seconds * 1000)
        code = self.poll()
        if code is None:
            raise TimeoutError
        return code

    @property
    def is_ending(self) -> bool:
        """Whether it has ended, or has begun to: on a busy machine it may take seconds to become a zombie."""
        fields = procfs.read_stat(self.pid)  # None without a /proc
        return self.poll() is not None or (fields is not None and procfs.is_exiting(fields))

    def resume(self) -> None:
        """Send SIGCONT, in case a signal has stopped it."""
        self.send(signal.SIGCONT)

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.handle, number)


class Channel:
    """A connection to the supervisor, for one command after another.

        idle --request, output pipe--> the command's usage, and its last frame --> idle

    Only one thread at a time may use it. Until the last frame, others may send stops. `supervisor`: the process at its
    other end. Closing the channel kills its command.
    """

    def __init__(self, connection: _socket.socket, supervisor: SupervisorProcess) -> None:
        self.connection = connection
        self.supervisor = supervisor
        self._environment = b""  # the last one sent
        self._frames = FrameReader()

    def send_request(self, environment: bytes, request: bytes, output: int, trace: int | None) -> None:
        """Send a command's frames with the write end of its output pipe; `trace`: a file for its trace.

        Raises ConnectionError if the supervisor has died.
        """
        message = request if environment is self._environment else environment + request
        passed = _pack_descriptors(output) if trace is None else _pack_descriptors(output, trace)
        self._send(message, passed)
        self._environment = environment

    def _send(self, message: bytes, passed: tuple[int, int, bytes]) -> None:
        """Send a message, which may be larger than the socket's buffer. Continue a supervisor that a signal stopped."""
        unsent, ancillary, poll = memoryview(message), [passed], select.poll()
        poll.register(self.connection, select.POLLOUT)
        while unsent:
            try:
                unsent = unsent[self.connection.sendmsg([unsent], ancillary, _socket.MSG_DONTWAIT) :]
                ancillary = []
            except BlockingIOError:
                if not poll.poll(_MAX_BLOCKED_SECONDS * 1000):
                    self.supervisor.resume()

    def receive(self) -> list[dict[str, Any]]:  # Any: frames
        """Wait for a chunk; return the frames that it completes. Raises ConnectionError if the supervisor has died."""
        chunk = self.connection.recv(_RECEIVE_BYTES)
        if not chunk:
            raise ConnectionResetError
        return self._frames.read(chunk)

    def close(self) -> None:
        self.connection.close()


class SharedSupervisor:
    """One supervisor process for all command pools of this process.

        none --start_command, watch, keep_running--> running --last release, or the interpreter's exit--> none
                                         |                '--end_early--> ending --last release--> none
                                         +--it dies--> none (the next start_command or watch starts another)

    Guarantees: it runs from its start to the last release, or to `end_early`; a forked copy of this process can't keep
    it alive.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: everything below
        self._leases = 0
        self._process: SupervisorProcess | None = None
        self._control: _socket.socket | None = None
        self._ending: list[SupervisorProcess | None] = []  # after `end_early`, until the last release
        self._idle: list[Channel] = []  # of the running supervisor
        self._watches = False
        self._registered = False

    @property
    def pid(self) -> int | None:
        """The supervisor's process id; None while none runs."""
        with self._lock:
            return self._process.pid if self._process is not None and self._process.poll() is None else None

    def lease(self) -> None:
        """Keep the supervisor, once started, until `release`."""
        with self._lock:
            self._register_hooks()  # a child that is forked before the first start must not inherit the leases either
            self._leases += 1

    def release(self) -> None:
        """Give back a lease; the last release ends the supervisor and waits for its end."""
        with self._lock:
            self._leases = max(0, self._leases - 1)  # in a forked child, an inherited pool has none
            ended = []
            if not self._leases:
                ended, self._ending = [*self._ending, self._detach(BYE)], []
            self._watches = self._watches and bool(self._leases)
        for process in ended:
            _end_process(process)

    def end_early(self) -> None:
        """Have the supervisor end now if only one lease is left, whose holder starts nothing more. Does not wait."""
        with self._lock:
            if self._leases == 1:
                self._ending.append(self._detach(BYE))

    @contextmanager
    def keep_running(self) -> Iterator[None]:
        """Start the supervisor now if none runs, and keep it during the block: the first command need not wait for it.

        If it can't start, the first command reports why.
        """
        self.lease()
        try:
            with self._lock, contextlib.suppress(OSError):
                self._get_or_start()
            yield
        finally:
            self.release()

    def kill(self) -> None:
        """Kill the supervisor, if one runs. This takes no lock, since the lock's holder may wait for the supervisor."""
        process = self._process
        if process is not None:
            process.send(signal.SIGKILL)

    def start_command(self, environment: bytes, request: bytes, output: int, trace: int | None = None) -> Channel:
        """Send the supervisor a request, with the write end of the command's output pipe.

        `trace`: a file for the command's trace; if given, the command is traced. If no supervisor runs, start one.
        Returns the channel on which the supervisor reports. Return it to `reuse` after the command's last frame, or
        close it. Raises OSError if the supervisor can't start, or has no file descriptors left.
        """
        channel = self._take_channel()
        try:
            try:
                channel.send_request(environment, request, output, trace)
            except ConnectionError:
                channel.close()
                _wait_for_exit(channel.supervisor)
                channel = self._take_channel()  # of a successor, once
                channel.send_request(environment, request, output, trace)
        except OSError:
            channel.close()
            raise
        return channel

    def reuse(self, channel: Channel) -> None:
        """Keep a channel on which no command runs for a later one."""
        with self._lock:
            if channel.supervisor is self._process and len(self._idle) < _MAX_IDLE_CHANNELS:
                self._idle.append(channel)
                return
        channel.close()

    def close_idle_channels(self) -> None:
        """Free the descriptors of channels without a command."""
        with self._lock:
            self._close_idle()

    def watch(self) -> None:
        """Have the supervisor kill all children of this process if this process dies before the last release.

        The supervisor scans for children every 0.1 s until `stop_watching`. Raises OSError if it can't start.
        """
        with self._lock:
            self._watches = True
            self._send(WATCH)

    def stop_watching(self) -> None:
        """Stop the supervisor's scans for children, since this process will start none before the next `watch`."""
        with self._lock:
            if self._control is not None:
                with contextlib.suppress(OSError):
                    self._control.sendall(REST)

    def _take_channel(self) -> Channel:
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._detach()
            if self._idle:
                return self._idle.pop()
            ours, theirs = _socket.socketpair()
            with contextlib.closing(theirs):
                try:
                    descriptors.check_reserve(ours.fileno(), theirs.fileno())
                    process = self._send(CHANNEL, [_pack_descriptors(theirs.fileno())])
                except OSError:
                    ours.close()
                    raise
            return Channel(ours, process)

    def _send(self, kind: bytes, passed: Sequence[tuple[int, int, bytes]] = ()) -> SupervisorProcess:
        """Send a message on the control socket; under the lock."""
        if self._process is not None and self._process.poll() is not None:
            self._detach()
        try:
            process, control = self._get_or_start()
            control.sendmsg([kind], passed)
        except ConnectionError:  # it has just died: start a successor, once
            _end_process(self._detach())
            process, control = self._get_or_start()
            control.sendmsg([kind], passed)
        return process

    def _get_or_start(self) -> tuple[SupervisorProcess, _socket.socket]:
        if self._process is not None and self._control is not None:
            return self._process, self._control
        self._register_hooks()
        ours, theirs = _socket.socketpair()
        with contextlib.closing(theirs):
            try:
                self._process = _spawn(theirs)
                descriptors.restore_limit(self._process.pid)  # before its first command
                if self._watches:
                    ours.sendall(WATCH)
            except OSError:
                ours.close()
                raise
        self._control = ours
        return self._process, ours

    def _register_hooks(self) -> None:
        """Have this object notified of forks and of the interpreter's exit; under the lock."""
        if not self._registered:
            self._registered = True
            os.register_at_fork(after_in_child=self._reset_after_fork)
            atexit.register(self._close_at_exit)

    def _detach(self, last: bytes = b"") -> SupervisorProcess | None:
        """Close the control socket, which ends the supervisor, and return its process; under the lock."""
        self._close_idle()
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            if last:
                with contextlib.suppress(OSError):
                    control.sendall(last)
            control.close()
        return process

    def _close_idle(self) -> None:
        for channel in self._idle:
            channel.close()
        self._idle.clear()

    def _close_at_exit(self) -> None:
        """At the interpreter's exit, let the supervisor kill all processes, and again after this process has exited."""
        with self._lock:
            self._close_idle()
            control, self._control = self._control, None
            process, self._process = self._process, None
        if control is None or process is None:
            return
        process.resume()
        with contextlib.closing(control), contextlib.suppress(OSError):
            control.sendall(EXIT)
            control.settimeout(_MAX_END_SECONDS)
            control.recv(1)

    def _reset_after_fork(self) -> None:
        """In a forked child: close its copy of the socket, since the supervisor belongs to the parent process."""
        self._lock = threading.Lock()
        self._leases, self._watches, self._ending = 0, False, []
        self._detach()


# Module state, since all pools of a process share one supervisor.
SUPERVISOR = SharedSupervisor()


def _spawn(control: _socket.socket) -> SupervisorProcess:
    """Start the process, without subprocess.

    That waits for the end of a pipe, which a child that another thread has forked without an exec keeps open.
    """
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", _PROGRAM, _package_folder(), str(_CONTROL), str(os.getpid())],
        copy_environment(),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, control.fileno(), _CONTROL),  # first: its number may be 0
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            *([] if descriptors.is_stream(2) else [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]),
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


def _pack_descriptors(*descriptors: int) -> tuple[int, int, bytes]:
    """Return the descriptors as ancillary data of a message."""
    packed = b"".join(each.to_bytes(4, sys.byteorder) for each in descriptors)
    return _socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed


def _wait_for_exit(process: SupervisorProcess) -> None:
    """Wait for the exit of a supervisor that has closed a channel before the request came.

    Raises OSError (EMFILE) if it continues: it had no file descriptors left for the channel, and its commands must not
    end with it.
    """
    try:
        process.wait(_MAX_EXIT_SECONDS)
    except TimeoutError:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from None


def describe_death(process: SupervisorProcess) -> str:
    """Return why a supervisor has closed a command's channel."""
    try:
        code = process.wait(_MAX_EXIT_SECONDS)
    except TimeoutError:
        return "it is exiting" if process.is_ending else "it runs, but has no file descriptors left"
    return f"killed by signal {-code}" if code < 0 else f"exit {code}"


def kill_leftovers(session: int, mark: str, limit: int) -> int:
    """Kill the processes of a command whose supervisor died, and return their number.

    It finds them by their session (0: unknown), by the mark in their environment or by their RLIMIT_LOCKS, with their
    descendants. It scans again until none is left, since a process may start another one just before it is killed.
    """
    from paropt_exporter.executors import child_processes  # here: a supervisor hardly ever dies

    killed: set[int] = set()
    deadline, empty = time.monotonic() + _MAX_KILL_SECONDS, 0
    while empty < _EMPTY_SCANS and time.monotonic() < deadline:
        ending = _kill(_find_leftovers(str(session), f"{MARK}={mark}", limit))
        killed |= ending
        empty = 0 if ending else empty + 1
        if ending:
            child_processes.wait_for_exit(ending, _KILL_POLL_SECONDS)
    return len(killed)


def _find_leftovers(session: str, mark: str, limit: int) -> dict[int, int]:
    """Return the processes of a command, each with its process group."""
    from paropt_exporter.executors.supervisor.process_tree import list_living

    living = dict(list_living())
    found = {
        pid
        for pid, fields in living.items()
        if fields[3] == session != "0"
        or procfs.read_lock_limit(pid) == limit
        or mark in procfs.read_variables(pid, MARK)
    }
    family = procfs.add_descendants(found, {pid: fields[1] for pid, fields in living.items()})
    return {int(pid): int(living[pid][2]) for pid in family}


def _kill(groups: Mapping[int, int]) -> set[int]:
    """Send SIGKILL to processes and their groups. Return the processes, without those of other users."""
    ending = set()
    for pid, group in groups.items():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)  # this includes processes newer than the scan
        with contextlib.suppress(PermissionError):
            with contextlib.suppress(ProcessLookupError):  # it may have started another one before it exited
                os.kill(pid, signal.SIGKILL)
            ending.add(pid)
    return ending


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


@contextmanager
def set_run_mark(root: Path, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Set this process's mark for all its children: process id, start time, and the project's folder in hexadecimal."""
    before = environment.get(RUN_MARK)
    environment[RUN_MARK] = f"{os.getpid()}-{procfs.read_start_time(os.getpid())}-{_encode_folder(root)}"
    try:
        yield
    finally:
        if before is None:
            environment.pop(RUN_MARK, None)
        else:
            environment[RUN_MARK] = before


def end_orphans(root: Path) -> tuple[str, ...]:
    """End the processes of this project's exporters that have exited, and return the names of the ended processes.

    It ends only processes of this user and of this pid namespace, since pids mean other processes in another namespace,
    and it spares the ancestors of this process. It ignores the mark with which this process was started: if a user has
    saved the environment of a run, that mark proves nothing.
    """
    project = _encode_folder(root)
    if not _find_orphans(project):
        return ()  # as almost always
    from paropt_exporter.executors import child_processes

    return child_processes.end_leftovers(child_processes.Termination(lambda: _find_orphans(project)))


def _find_orphans(project: str) -> list[int]:
    inherited = set(_read_marks("self"))
    pids = (pid for pid in procfs.list_pids() if pid.isdigit())
    found = [
        pid for pid in pids for mark in _read_marks(pid) if _is_of_dead_owner(mark, project) and mark not in inherited
    ]
    if not found:
        return []  # as almost always: there is no need to read each process a second time
    from paropt_exporter.executors.supervisor.process_tree import list_living

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


def _encode_folder(root: Path) -> str:
    return os.fsencode(root.resolve()).hex()  # not a digest: hashlib takes 3 ms to load
