"""Start, watch and end commands: the program of the one small process beside an exporter.

    exporter                                      supervisor (subreaper, one thread, a session of its own)
    control socket --(channel, output pipe)-----> a Command for each channel
    channel        --{"program", "argv", ...}---> posix_spawn, again in a session of its own
                   --{"stop": grace}------------> TERM to all its groups, KILL after the grace
                   <--{"failed": errno}---------- or:
                   <--{"usage": ...}------------- its processes are sampled every 20 ms, later every 100 or 250 ms
                   <--{"ended": status, ...}----- when the last of its processes has ended

Guarantees: a command has ended only when no process of it lives; at the control socket's end (the exporter ended, in
whatever way) all that was started here is killed, and on demand all that the exporter started itself; a channel's end
kills its command; while no command and no call runs, nothing is done at all. Frames are lines of JSON; output never
passes through here. Only the standard library and three modules beside this one are imported: this process's memory is
the floor of what `ru_maxrss` of its children can tell.
"""

from __future__ import annotations

import array
import ctypes
import math
import os
import select
import signal
import socket
import time

from paropt_exporter.executors.supervisor.command import DEFAULT_SIGNALS, Command
from paropt_exporter.executors.supervisor.parent_process import ParentProcess
from paropt_exporter.executors.supervisor.process_tree import ProcessTable, Tree, list_descendants, read_own_peak_bytes

TYPE_CHECKING = False  # typing's own would cost the supervisor 0.7 MB, and type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Messages on the control socket; all others bring a command. WATCH: kill the exporter's own children too when it is
# gone. REST: none of them runs now. EXIT: it exits now. BYE: it goes on without a supervisor, and so do its children.
WATCH, REST, EXIT, BYE = b"w", b"r", b"e", b"b"
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_SAMPLE_SECONDS = 0.02  # shortest time between two looks at /proc
_LATER_SAMPLE_SECONDS = 0.1  # the same once all commands are known for a while
_QUIET_SAMPLE_SECONDS = 0.25  # the same once no process has come or gone, and no memory has changed, for a while
_QUIET_SECONDS = 2.0
_MAX_SAMPLE_SECONDS = 1.0
_SAMPLING_RATIO = 0.015  # of a core is spent on looking, at most, and a little more on telling about it
_END_SECONDS = 5.0  # at the exporter's end: how long to go on killing before leaving


class SamplingPace:
    """How long to wait between looks: not long while a command is young, and the controller unsure of it.

    Longer once the processes' shape (`ProcessTable.get_shape`) has stayed the same for a while.
    """

    def __init__(self) -> None:
        self._shape: tuple[tuple[int, int], ...] = ()
        self._quiet_at = 0.0

    def get_pause(self, *, now: float, cost: float, young: bool, shape: tuple[tuple[int, int], ...]) -> float:
        """Return the seconds until the next look, after one that took `cost` seconds."""
        if shape != self._shape:
            self._shape, self._quiet_at = shape, now + _QUIET_SECONDS
        later = _LATER_SAMPLE_SECONDS if now < self._quiet_at else _QUIET_SAMPLE_SECONDS
        return min(_MAX_SAMPLE_SECONDS, max(_SAMPLE_SECONDS if young else later, cost / _SAMPLING_RATIO))


class Supervisor:
    """The loop over the control socket, the channels and the ends of children."""

    def __init__(self, control: socket.socket, exporter: ParentProcess) -> None:
        self._control = control
        self._exporter = exporter
        self._table = ProcessTable()
        self._commands: dict[int, Command] = {}  # by the channel's descriptor
        self._child_ended, wake = os.pipe()
        for descriptor in (self._child_ended, wake):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._child_ended, select.POLLIN)
        if exporter.handle >= 0:
            self._poll.register(exporter.handle, select.POLLIN)  # a fork of it may keep the control socket open
        self._open = True
        self._sampled = self._next_sample = 0.0
        self._pace = SamplingPace()

    def run(self) -> None:
        """Serve until the control socket's other end is gone, then kill everything that was started."""
        while self._open:
            for descriptor, _ in self._poll.poll(self._wait_milliseconds()):
                if descriptor == self._control.fileno():
                    self._accept()
                elif descriptor == self._exporter.handle:
                    self._open = False
                elif descriptor == self._child_ended:
                    os.read(self._child_ended, 4096)
                    self._reap()
                elif descriptor in self._commands:
                    self._read_channel(self._commands[descriptor])
            if self._table.trees:
                self._sample_commands(time.monotonic())
            self._exporter.sample(time.monotonic())
        _kill(self._exporter.list_leftovers())  # once: while it exits, its threads may start more
        self._kill_until_gone(list_descendants)
        self._control.close()  # the exporter goes on when it sees that
        self._exporter.wait()
        self._kill_until_gone(lambda: list_descendants() + self._exporter.list_leftovers())

    def _wait_milliseconds(self) -> float | None:
        due = min(self._get_due_time() if self._table.trees else math.inf, self._exporter.next_sample)
        return None if math.isinf(due) else max(0.0, due - time.monotonic()) * 1000

    def _get_due_time(self) -> float:
        """Return when to look next: in time, or when a signal is due that the last look came too early for."""
        signals = [at for command in self._commands.values() for at in (command.term_at, command.kill_at)]
        return min([self._next_sample, *(at for at in signals if at > self._sampled)])

    def _accept(self) -> None:
        """Take a channel and an output pipe from the control socket."""
        try:
            data, ancillary, _, _ = self._control.recvmsg(1, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            data, ancillary = b"", []
        passed = array.array("i")
        for _, _, content in ancillary:
            passed.frombytes(content[: len(content) // passed.itemsize * passed.itemsize])
        if not data:
            self._open = False
        elif data == WATCH:
            self._exporter.watch()
        elif data == REST:
            self._exporter.stop_watching()
        elif data in (EXIT, BYE):
            self._exporter.note_release(exits=data == EXIT)
            self._open = False
        elif len(passed) < 2:  # out of descriptors: the exporter sees its channel closed
            for descriptor in passed:
                os.close(descriptor)
        else:
            self._add_command(socket.socket(fileno=passed[0]), passed[1])

    def _add_command(self, channel: socket.socket, output: int) -> None:
        channel.setblocking(False)
        command = self._commands[channel.fileno()] = Command(channel, output)
        self._poll.register(channel, select.POLLIN)
        self._read_channel(command)  # the request was sent before the channel was

    def _read_channel(self, command: Command) -> None:
        try:
            for frame in command.read_frames():
                self._handle_frame(command, frame)
        except ConnectionError:  # the exporter gave it up: nobody waits for this command any more
            self._poll.unregister(command.channel)
            command.hung_up = True
            self._next_sample = 0.0
            command.stop(0.0, time.monotonic())
            if command.tree is None:
                self._remove_command(command)

    def _handle_frame(self, command: Command, frame: dict[str, Any]) -> None:  # Any: what JSON gives
        if "stop" in frame:
            self._table.refresh(time.monotonic())  # groups made since the last look get the signal too
            self._next_sample = 0.0
            command.stop(frame["stop"], time.monotonic())
            return
        if not self._table.trees:
            self._next_sample = time.monotonic() + _SAMPLE_SECONDS
        tree = command.start(frame)
        if tree is not None:
            self._table.add(tree, time.monotonic())

    def _reap(self) -> None:
        """Wait for all children that have ended, main processes and orphans, and count what they used."""
        while (pid := _find_ended_child()) is not None:
            tree = self._table.find_owner(pid, time.monotonic())
            _, status, usage = os.wait4(pid, 0)
            self._table.settle(pid, usage.ru_utime + usage.ru_stime, time.monotonic())
            if tree is None:
                continue
            peak = usage.ru_maxrss * 1024
            # One that was too short to be looked at gets the kernel's number, at most this process's few MB too high.
            if peak > tree.memory_peak and (not tree.memory_peak or peak > read_own_peak_bytes()):
                tree.memory_peak = peak
            if tree.root == str(pid):
                self._on_main_exit(tree, status)

    def _on_main_exit(self, tree: Tree, status: int) -> None:
        self._next_sample = 0.0  # only a look tells what it left behind
        for command in self._commands.values():
            if command.tree is tree:
                command.status = status

    def _sample_commands(self, now: float) -> None:
        """Look at the processes when it is time; only then tell about them and send signals: to who is there now."""
        if now < self._get_due_time():
            return
        self._sampled = now
        if _has_children():
            self._table.refresh(now)
        else:
            self._table.clear()
        young = any(command.is_young(now) for command in self._commands.values())
        cost = time.monotonic() - now
        self._next_sample = now + self._pace.get_pause(now=now, cost=cost, young=young, shape=self._table.get_shape())
        self._send_usage(now)
        for command in [command for command in self._commands.values() if command.advance(now)]:
            self._on_command_end(command)

    def _send_usage(self, now: float) -> None:
        for command in self._commands.values():
            if command.is_report_due(now):
                command.send_usage(now)

    def _on_command_end(self, command: Command) -> None:
        if command.tree is not None:
            self._table.remove(command.tree)
        if not self._table.trees and _has_children():
            _kill(list_descendants())  # whoever is left could not be told to belong to any command
        command.send_result()
        self._remove_command(command)

    def _remove_command(self, command: Command) -> None:
        del self._commands[command.channel.fileno()]
        if not command.hung_up:
            self._poll.unregister(command.channel)
        command.close()

    def _kill_until_gone(self, found: Callable[[], list[int]]) -> None:
        deadline = time.monotonic() + _END_SECONDS
        while ((left := found()) or self._exporter.is_exiting) and time.monotonic() < deadline:
            _kill(left)
            self._poll.poll(_SAMPLE_SECONDS * 1000)
            self._reap()


def main(descriptor: int, owner: int) -> None:
    """Become the supervisor of the exporter, process `owner`, at the other end of this socket."""
    os.closerange(descriptor + 1, 1 << 16)
    for number in DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")
    os.set_inheritable(descriptor, False)
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    Supervisor(socket.socket(fileno=descriptor), ParentProcess(owner)).run()


def _find_ended_child() -> int | None:
    """Return a child that has ended, without waiting for it yet: its /proc entry tells whose it is."""
    try:
        info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return None if info is None else info.si_pid


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue  # ended meanwhile, or a set-user-id program: not ours to end
