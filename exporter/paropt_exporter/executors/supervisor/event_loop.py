"""Start, watch and end commands: the program of the one small process beside an exporter.

    exporter                                      supervisor (subreaper, a session of its own)
    control socket --(channel)------------------> a Channel, for one command after another
    channel        --{"env": ...}---------------> the environment of the next commands
                   --{"program", "argv", ...}---> a Command: posix_spawn, again in a session of its own;
                     with its output pipe         the pipe stays open here until the end
                   --{"stop": grace, "mark"}----> TERM to all its groups, KILL after the grace
                   <--{"failed": errno}---------- or:
                   <--{"usage": ...}------------- its processes are sampled every 20 ms, later every 100 or 250 ms
                   <--{"ended": status, ...}----- when the last of its processes has ended

Guarantees: a command has ended only when all its processes have exited. At the end of the control socket (the exporter
has exited, in any way) the supervisor kills all processes that it started, and on demand all that the exporter started
itself. The end of a channel kills its command. A stop that arrives after the end of its command stops no other one.
While no command and no call runs, the supervisor sleeps. Output never passes through it. It imports only the standard
library and a few small modules, since its own memory is the least that `ru_maxrss` of its children can show. A command
that comes with a second descriptor is traced (`tracing`): each system call that names a file waits for a thread of the
supervisor, which at the end writes the trace there. All else happens in one thread.
"""

from __future__ import annotations

import _socket as socket  # socket and signal would import enum and others, which double the start-up time
import math
import os
import resource
import select
import time
from _ctypes import call_function, dlopen, dlsym

from paropt_exporter.executors import procfs
from paropt_exporter.executors.frames import FrameReader, build_frame, count_unread_bytes
from paropt_exporter.executors.supervisor import BYE, EXIT, MARK, REST, WATCH
from paropt_exporter.executors.supervisor.parent_process import ParentProcess
from paropt_exporter.executors.supervisor.process_tree import (
    MAX_SAMPLE_SECONDS,
    RLIMIT_LOCKS,
    ProcessTable,
    Tree,
    kill_all,
    list_descendants,
)

TYPE_CHECKING = False  # typing's own would cost the supervisor 0.7 MB, and type checkers know the name
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any

    from paropt_exporter.executors.supervisor.tracer_thread import TracerThread
else:
    import _signal as signal

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SAMPLE_SECONDS = 0.02  # the shortest time between two samples
_LATER_SAMPLE_SECONDS = 0.1  # the same, once no command is young
# the same, once no process has started or exited and no memory use has changed for a while
_QUIET_SAMPLE_SECONDS = 0.25
_QUIET_SECONDS = 2.0
_SAMPLING_RATIO = 0.015  # of a core for sampling, at most; reporting costs a little more
_END_SECONDS = 5.0  # at the exporter's exit: how long the supervisor kills processes before it exits
# A young command reports every sample, even without a change, so that the exporter soon knows whether the command
# computes or waits. Later, four reports a second keep 20 commands under 1 % of a core.
_YOUNG_SECONDS = 0.5
_REPORT_SECONDS = 0.25
_LINGER_SECONDS = 0.2  # left processes may exit by themselves, such as a `tee` of the shell that still writes
_MAX_LINGER_SECONDS = 2.0  # the same while one of them is runnable, since this takes longer on a busy machine
_LEFT_GRACE_SECONDS = 2.0  # from SIGTERM to SIGKILL for left processes
_GIVE_UP_SECONDS = 5.0  # after SIGKILL: a process in uninterruptible sleep must not block a pool's thread
_MAX_DESCRIPTORS = 65_536  # as in `paropt_exporter.descriptors`, which the supervisor does not import
_RECEIVE_BYTES = 1 << 16
_PASSED_BYTES = socket.CMSG_SPACE(8)  # two descriptors
# The supervisor ignores all other signals. It outlives a Ctrl-C, and it is the parent of all orphans, as init is: a
# daemon that signals its parent when it is ready may signal the supervisor.
_HANDLED_SIGNALS = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT, signal.SIGCHLD,
    signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS,
}  # fmt: skip
# A command starts with the system's defaults for these.
IGNORED_SIGNALS = tuple(sorted(signal.valid_signals() - _HANDLED_SIGNALS))


class Channel:
    """A connection to one thread of the exporter, which sends one command after another.

        idle --a request, with its output pipe--> busy (`command`) --the command's last frame--> idle

    The exporter sends the next request once it has read the last frame.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.command: Command | None = None
        self.environment: dict[bytes, bytes] = {}
        self.hung_up = False
        self._frames = FrameReader()
        self._passed: list[int] = []  # descriptors for the next command

    def read_frames(self) -> list[dict[str, Any]]:  # Any: frames
        """Return the frames that have arrived; raise ConnectionError at the end of the channel."""
        try:
            chunk, ancillary, _, _ = self.connection.recvmsg(_RECEIVE_BYTES, _PASSED_BYTES, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return []
        self._passed += _list_descriptors(ancillary)
        if not chunk:
            raise ConnectionResetError
        return self._frames.read(chunk)

    def take_descriptors(self) -> list[int]:
        """Return the descriptors that came with the last request: an output pipe, and perhaps a file for the trace.

        They are missing if this process had none left.
        """
        passed, self._passed = self._passed, []
        return passed

    def close(self) -> None:
        self.connection.close()
        for descriptor in self.take_descriptors():
            os.close(descriptor)


class Command:
    """A command, from its start to its last frame.

    Its output pipe stays open here, so that the end of the pipe does not wake the exporter.

        running -> clearing (main process ended, others live) -> ended
           |          |
           +----------+- term_at, kill_at: when the next signal is due

    `status` is the main process's wait status, None while it runs. Guarantee: a frame always fits into the buffer of
    the channel, since a report is sent only when the exporter has read all earlier frames: no send ever blocks.
    """

    def __init__(self, channel: Channel, mark: str, output: int, trace: int = -1) -> None:
        """`trace`: the descriptor of a file for the trace of its accesses; -1: it is not traced."""
        self.channel = channel
        self.mark = mark
        self._tracer: TracerThread | None = None
        self._trace = trace
        self._untraced = ""  # why it is not traced although it should be
        self.tree: Tree | None = None
        self.status: int | None = None
        self.term_at = math.inf
        self.kill_at = math.inf
        self._terminated = False
        self._reported_seconds = -math.inf
        self._began_seconds = math.inf
        self._output = output
        self._left = 0
        self._linger_end = -math.inf

    def start(self, frame: dict[str, Any]) -> Tree | None:  # Any: a frame
        """Start the main process; on failure report it and return None."""
        entered = False
        limit = frame["limit"] if _get_limits().locks_are_free else 0
        try:
            os.chdir(frame["cwd"])  # posix_spawn can't; safe, since other threads use absolute paths
            entered = True
            pid = self._spawn(frame, limit)
        except OSError as error:
            self._send(failed=error.errno, entered=entered)
            return None
        finally:
            os.chdir("/")  # the current folder of a process can't be unmounted
        self._began_seconds = time.monotonic()
        self.tree = Tree(pid, f"{MARK}={self.mark}", self._began_seconds, limit=limit)
        return self.tree

    def _spawn(self, frame: dict[str, Any], limit: int) -> int:  # Any: a frame
        if self._trace < 0:
            return _spawn(frame, self.channel.environment, self._output, limit)
        from paropt_exporter.executors.supervisor.traced_start import start_traced  # here: few commands are traced

        pid, self._tracer, self._untraced = start_traced(
            program=frame["program"],
            argv=frame["argv"],
            env={**self.channel.environment, MARK.encode(): self.mark.encode()},
            cwd=frame["cwd"],
            output=self._output,
            default_signals=IGNORED_SIGNALS,
            limits=_get_limits().build(limit),
        )
        return pid

    def stop(self, grace: float, now: float) -> None:
        """Send SIGTERM now, SIGKILL after the grace; a second call can only shorten the grace."""
        if grace > 0:
            self._terminate()
        self.term_at = math.inf
        self.kill_at = min(self.kill_at, now + grace)

    def advance(self, now: float, *, saw_all: bool) -> bool:
        """Send the signals that are due; return whether the command has ended.

        `saw_all`: no process has started unseen during the sample. An exited member that is not reaped yet may have
        left one too.
        """
        if self.tree is None:
            return False
        alive = self.tree.list_alive()
        if self.status is not None and not alive:
            return saw_all and not self.tree.members
        if self.status is not None and math.isinf(self.kill_at):
            self._left = len(alive)
            self._linger_end = now + _MAX_LINGER_SECONDS
            self._linger(now)
        elif self.term_at <= now < self._linger_end and any(member.state == "R" for member in alive):
            self._linger(now)
        if now >= self.term_at:  # much later if this process was stalled: the grace begins now
            self._terminate()
            self.term_at, self.kill_at = math.inf, now + _LEFT_GRACE_SECONDS
        elif now >= self.kill_at and self.tree.send(signal.SIGKILL):
            return True
        return now >= self.kill_at + _GIVE_UP_SECONDS

    def _terminate(self) -> None:
        """Send SIGTERM, once."""
        if self.tree is not None and not self._terminated:
            self._terminated = True
            self.tree.send(signal.SIGTERM)

    def _linger(self, now: float) -> None:
        self.term_at = now + _LINGER_SECONDS
        self.kill_at = self.term_at + _LEFT_GRACE_SECONDS

    def is_young(self, now: float) -> bool:
        """Return whether it started so recently that the exporter may not yet know its CPU demand."""
        return now < self._began_seconds + _YOUNG_SECONDS

    def is_report_due(self, now: float) -> bool:
        """Return whether to report this sample."""
        return self.is_young(now) or now >= self._reported_seconds + _REPORT_SECONDS

    def send_usage(self, now: float) -> None:
        """Send the usage of the sample at `now`, unless the exporter has not read the last report."""
        if self.tree is not None and not count_unread_bytes(self.channel.connection):
            self._reported_seconds = now
            self._send(usage=_read_usage(self.tree), sampled=_read_core_time(self.tree, now))

    def send_result(self) -> None:
        """Send the last frame."""
        if self.tree is not None:
            times = (self._began_seconds, time.monotonic())
            demand = _read_core_time(self.tree, time.monotonic())
            usage = _read_usage(self.tree)
            self._write_trace()
            self._send(
                ended=self.status,
                left=self._left,
                unended=len(self.tree.list_alive()),
                times=times,
                usage=usage,
                sampled=demand,
                untraced=self._untraced,
            )

    def _write_trace(self) -> None:
        if self._tracer is not None:
            try:
                self._tracer.write(self._trace)
            except OSError as error:
                self._untraced = f"its trace can't be written: {error.strerror}"

    def close(self) -> None:
        """Close the descriptors that the exporter passed."""
        if self._tracer is not None:
            self._tracer.close()
            self._tracer = None
        for descriptor in (self._output, self._trace):
            if descriptor >= 0:
                os.close(descriptor)
        self._output = self._trace = -1

    def _send(self, **frame: object) -> None:
        try:
            self.channel.connection.send(build_frame(frame))
        except OSError:
            return  # the exporter closed its end: the poll reports it too, and ends the command


class SamplingPace:
    """The pause between samples: short while a command is young and its CPU demand unknown.

    Longer once the shape of the processes (`ProcessTable.get_shape`) has stayed the same for a while.
    """

    def __init__(self) -> None:
        self._shape: tuple[tuple[int, int], ...] = ()
        self._quiet_at = 0.0

    def get_pause(self, *, now: float, cost: float, young: bool, shape: tuple[tuple[int, int], ...]) -> float:
        """Return the seconds until the next sample, after one that took `cost` seconds of CPU time."""
        if shape != self._shape:
            self._shape, self._quiet_at = shape, now + _QUIET_SECONDS
        later = _LATER_SAMPLE_SECONDS if now < self._quiet_at else _QUIET_SAMPLE_SECONDS
        return min(MAX_SAMPLE_SECONDS, max(_SAMPLE_SECONDS if young else later, cost / _SAMPLING_RATIO))


class Supervisor:
    """The event loop over the control socket, the channels and exited children."""

    def __init__(self, control: socket.socket, exporter: ParentProcess) -> None:
        self._control = control
        self._exporter = exporter
        self._table = ProcessTable()
        self._table.skip_present(time.monotonic())
        self._channels: dict[int, Channel] = {}  # by descriptor
        self._commands: list[Command] = []  # that have not ended
        self._child_ended, wake = os.pipe()
        for descriptor in (self._child_ended, wake):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        # under a tracer, SIGCHLD would interrupt imports, which then find no modules
        signal.siginterrupt(signal.SIGCHLD, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._child_ended, select.POLLIN)
        if exporter.handle >= 0:
            # a forked child of the exporter may keep the control socket open
            self._poll.register(exporter.handle, select.POLLIN)
        self._open = True
        self._own_peak = 0  # the peak of this process's memory when it was last read, in bytes
        self._sampled = self._next_sample = 0.0
        self._pace = SamplingPace()

    def run(self) -> None:
        """Serve until the other end of the control socket is closed, then kill all processes."""
        while self._open:
            for descriptor, _ in self._poll.poll(self._wait_milliseconds()):
                if descriptor == self._control.fileno():
                    self._accept()
                elif descriptor == self._exporter.handle:
                    self._open = False
                elif descriptor == self._child_ended:
                    os.read(self._child_ended, 4096)
                    self._reap()
                elif descriptor in self._channels:
                    self._read_channel(self._channels[descriptor])
            if self._table.trees:
                self._sample_commands(time.monotonic())
            self._exporter.sample(time.monotonic())
        kill_all(self._exporter.list_leftovers())  # once: while it exits, its threads may start more
        for tree in self._table.trees:
            tree.send(signal.SIGKILL)  # without a /proc, descendants can't be listed
        self._kill_until_gone(list_descendants)
        self._control.close()  # the exporter waits for this
        self._exporter.wait()
        self._kill_until_gone(lambda: list_descendants() + self._exporter.list_leftovers())

    def _wait_milliseconds(self) -> float | None:
        due = min(self._get_due_time() if self._table.trees else math.inf, self._exporter.next_sample)
        return None if math.isinf(due) else max(0.0, due - time.monotonic()) * 1000

    def _get_due_time(self) -> float:
        """Return the time of the next sample, or of the first signal that is due after the last sample."""
        signals = [at for command in self._commands for at in (command.term_at, command.kill_at)]
        return min([self._next_sample, *(at for at in signals if at > self._sampled)])

    def _accept(self) -> None:
        """Receive a message from the control socket."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(1, _PASSED_BYTES, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            data, ancillary = b"", []
        if not data:
            self._open = False
        elif data == WATCH:
            self._exporter.watch()
        elif data == REST:
            self._exporter.stop_watching()
        elif data in (EXIT, BYE):
            self._exporter.note_release(exits=data == EXIT)
            self._open = False
        for descriptor in _list_descriptors(ancillary):  # none if this process has none left: the exporter notices
            channel = self._channels[descriptor] = Channel(socket.socket(fileno=descriptor))
            self._poll.register(descriptor, select.POLLIN)
            self._read_channel(channel)

    def _read_channel(self, channel: Channel) -> None:
        try:
            for frame in channel.read_frames():
                self._handle_frame(channel, frame)
        except ConnectionError:  # the exporter closed its end, so it no longer waits for a command
            self._poll.unregister(channel.connection)
            channel.hung_up = True
            if channel.command is not None:
                self._next_sample = 0.0
                channel.command.stop(0.0, time.monotonic())
            else:
                self._remove_channel(channel)

    def _handle_frame(self, channel: Channel, frame: dict[str, Any]) -> None:  # Any: a frame
        if "env" in frame:
            channel.environment = self._share_environment(frame["env"])
        elif "stop" not in frame:
            self._start_command(channel, frame)
        elif channel.command is not None and channel.command.mark == frame["mark"]:  # it may have ended
            self._table.refresh(time.monotonic())  # new process groups must get the signal too
            self._next_sample = 0.0
            channel.command.stop(frame["stop"], time.monotonic())

    def _share_environment(self, environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Return the equal environment of another channel, if there is one: a copy for each would take much memory."""
        return next(
            (each.environment for each in self._channels.values() if each.environment == environment), environment
        )

    def _start_command(self, channel: Channel, frame: dict[str, Any]) -> None:  # Any: a frame
        passed = channel.take_descriptors()
        if not passed:
            raise ConnectionResetError  # the exporter notices the end of the channel
        command = Command(channel, frame["mark"], *passed)
        if not self._table.trees:
            self._next_sample = time.monotonic() + _SAMPLE_SECONDS
        tree = command.start(frame)
        if tree is None:
            command.close()
            return
        channel.command = command
        self._commands.append(command)
        self._table.add(tree, time.monotonic())

    def _reap(self) -> None:
        """Reap all exited children, main processes and orphans, and count their usage."""
        ended = []
        while (pid := _find_ended_child()) is not None:
            tree = self._table.find_owner(pid, time.monotonic())
            _, status, usage = os.wait4(pid, 0)
            self._table.settle(pid, usage.ru_utime + usage.ru_stime, time.monotonic())
            if tree is None:
                continue
            if not tree.members and tree.root != str(pid):
                self._next_sample = 0.0  # it may have been the last process that the main process left behind
            self._note_peak(tree, usage.ru_maxrss * 1024)
            if tree.root == str(pid):
                ended.append((tree, status))
        for command in tuple(self._commands):
            for tree, status in ended:
                if command.tree is tree:
                    command.status = status
                    self._on_main_exit(command)

    def _note_peak(self, tree: Tree, peak: int) -> None:
        """Note the kernel's figure of an exited process's peak.

        For a process that was too short for a sample, it may be this process's own memory, a few MB: between fork and
        exec a child has its parent's memory.
        """
        if peak <= tree.memory_peak:
            return
        if tree.memory_peak and peak > self._own_peak:
            self._own_peak = procfs.read_memory_peak_bytes()  # it only grows
        if not tree.memory_peak or peak > self._own_peak:
            tree.memory_peak = peak

    def _on_main_exit(self, command: Command) -> None:
        """End a command at once if it has left no processes. Most leave none, and reading all of /proc is expensive."""
        if command.tree is None or self._table.has_left_processes(command.tree):
            self._next_sample = 0.0  # only a sample shows the processes that it has left
        else:
            self._on_command_end(command)

    def _sample_commands(self, now: float) -> None:
        """If a sample is due, take it; then report, and send signals to the current processes."""
        if now < self._get_due_time():
            return
        self._sampled, began = now, time.thread_time()
        if procfs.has_children():
            self._table.refresh(now)
        else:
            self._table.clear(now)
        young = any(command.is_young(now) for command in self._commands)
        cost = time.thread_time() - began
        self._next_sample = now + self._pace.get_pause(now=now, cost=cost, young=young, shape=self._table.get_shape())
        saw_all = not self._table.has_unseen_children()
        if not saw_all:
            self._next_sample = 0.0
        for command in [command for command in self._commands if command.advance(now, saw_all=saw_all)]:
            self._on_command_end(command)
        for command in self._commands:
            if command.is_report_due(now):
                command.send_usage(now)

    def _on_command_end(self, command: Command) -> None:
        if command.tree is not None:
            self._table.remove(command.tree)
        if not self._table.trees and procfs.has_children():
            kill_all(list_descendants())  # the rest belongs to no known command
        self._commands.remove(command)
        command.channel.command = None
        command.send_result()
        command.close()
        if command.channel.hung_up:
            self._remove_channel(command.channel)

    def _remove_channel(self, channel: Channel) -> None:
        del self._channels[channel.connection.fileno()]
        channel.close()

    def _kill_until_gone(self, found: Callable[[], list[int]]) -> None:
        deadline, poll = time.monotonic() + _END_SECONDS, select.poll()
        poll.register(self._child_ended, select.POLLIN)  # the other descriptors are at their end, so always readable
        while (kill_all(found()) or self._exporter.is_exiting) and time.monotonic() < deadline:
            if poll.poll(_SAMPLE_SECONDS * 1000):
                os.read(self._child_ended, 4096)
            self._reap()


def main(descriptor: int, parent: int) -> None:
    """Become the supervisor of the exporter, process `parent`, at the other end of this socket."""
    os.closerange(descriptor + 1, 1 << 16)
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.set_inheritable(descriptor, False)
    # The package ctypes would take half as long to load as all other modules of this process together.
    library = dlopen(None, 0)  # type: ignore[arg-type]  # typeshed wants a name; None is this process
    if call_function(dlsym(library, "prctl"), (_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)):
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")
    Supervisor(socket.socket(fileno=descriptor), ParentProcess(parent)).run()


def _list_descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message."""
    return [number for _, _, content in ancillary for number in memoryview(content[: len(content) // 4 * 4]).cast("i")]


def _find_ended_child() -> int | None:
    """Return an exited child without reaping it: its /proc entry shows its command."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if info is None else info.si_pid


def _read_usage(tree: Tree) -> tuple[int, float, float, int, int]:
    return int(tree.root), tree.get_cpu_seconds(), tree.get_delay_seconds(), tree.memory, tree.memory_peak


def _read_core_time(tree: Tree, now: float) -> tuple[float, float, float]:
    """Return the monotonic time of a sample, and the seconds that the tree ran and waited for a core until then."""
    return now, tree.get_run_seconds(), tree.get_wait_seconds()


class Limits:
    """Limits of commands, each a soft and a hard one. This process raises its own limit on descriptors for its pipes.

    `descriptors`: as this process was started, since a raised one breaks programs that use select().
    """

    def __init__(self) -> None:
        self.descriptors = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._own = (max(soft, min(hard, _MAX_DESCRIPTORS)), hard)
        if resource.RLIM_INFINITY in self.descriptors:
            self._own = self.descriptors
        resource.setrlimit(resource.RLIMIT_NOFILE, self._own)
        self._locks = resource.getrlimit(RLIMIT_LOCKS)
        # whether each command can have a value of its own
        self.locks_are_free = self._locks[1] == resource.RLIM_INFINITY

    def build(self, locks: int) -> dict[int, tuple[int, int]]:
        """Return the limits of a command; `locks`: its RLIMIT_LOCKS, or 0 for that of this process."""
        lock_limits = {RLIMIT_LOCKS: (locks, self._locks[1])} if locks else {}
        return {resource.RLIMIT_NOFILE: self.descriptors, **lock_limits}

    def enter(self, locks: int) -> None:
        """Give this process the limits of a command, which its next child inherits."""
        if self.descriptors != self._own:
            resource.setrlimit(resource.RLIMIT_NOFILE, self.descriptors)
        if locks:
            resource.setrlimit(RLIMIT_LOCKS, (locks, self._locks[1]))

    def leave(self, locks: int) -> None:
        """Undo `enter`."""
        if self.descriptors != self._own:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._own)
        if locks:
            resource.setrlimit(RLIMIT_LOCKS, self._locks)


_limits: list[Limits] = []  # once the first command needs them


def _get_limits() -> Limits:
    if not _limits:
        _limits.append(Limits())
    return _limits[0]


def _spawn(frame: dict[str, Any], environment: dict[bytes, bytes], output: int, limit: int) -> int:  # Any: a frame
    limits = _get_limits()
    limits.enter(limit)
    try:
        return os.posix_spawn(
            frame["program"],
            frame["argv"],
            {**environment, MARK.encode(): frame["mark"].encode()},
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=IGNORED_SIGNALS,
        )
    finally:
        limits.leave(limit)
