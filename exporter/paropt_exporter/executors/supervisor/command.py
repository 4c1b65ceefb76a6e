"""One command in the supervisor: started, reported and stopped through its own channel."""

from __future__ import annotations

import fcntl
import json
import math
import os
import resource
import signal
import socket
import termios
import time
from functools import cache

from paropt_exporter.executors.supervisor.process_tree import MARK, Tree

TYPE_CHECKING = False  # typing's own would cost the supervisor 0.7 MB, and type checkers know the name
if TYPE_CHECKING:
    from typing import Any

# A young command reports every sample, even without a change, so that the exporter soon knows whether the command
# computes or waits. Later, four reports a second keep 20 commands under 1 % of a core.
_YOUNG_SECONDS = 0.5
_REPORT_SECONDS = 0.25
_LINGER_SECONDS = 0.2  # left processes may exit by themselves: a `tee` in the shell that still writes
_LEFT_GRACE_SECONDS = 2.0  # from SIGTERM to SIGKILL for left processes
_GIVE_UP_SECONDS = 5.0  # after SIGKILL: a process in uninterruptible sleep must not block a pool's thread
_MAX_DESCRIPTORS = 65_536  # as in `paropt_exporter.descriptors`, which the supervisor does not import
_RECEIVE_BYTES = 1 << 16
# The supervisor (which outlives a Ctrl-C) or Python ignores these: a command starts with the system's defaults.
DEFAULT_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGTSTP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
)


class Command:
    """The command of one channel.

        reading -> running -> clearing (main process ended, others live) -> ended
                      |          |
                      +----------+- term_at, kill_at: when the next signal is due

    `status` is the main process's wait status, None while it runs. Guarantee: a frame always fits into the buffer of
    the channel, since a report is sent only when the exporter has read all earlier frames: no send ever blocks.
    """

    def __init__(self, channel: socket.socket, output: int) -> None:
        self.channel = channel
        self.tree: Tree | None = None
        self.status: int | None = None
        self.term_at = math.inf
        self.kill_at = math.inf
        self.hung_up = False
        self._reported_seconds = -math.inf
        self._began_seconds = math.inf
        self._output = output
        self._left = 0
        _raise_limits()
        self._unread = b""

    def read_frames(self) -> list[dict[str, Any]]:  # Any: parsed JSON
        """Return the frames that have arrived; raise ConnectionError at the end of the channel."""
        try:
            chunk = self.channel.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        if not chunk:
            raise ConnectionResetError
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def start(self, frame: dict[str, Any]) -> Tree | None:  # Any: parsed JSON
        """Start the main process; on failure report it and return None."""
        entered = False
        try:
            os.chdir(frame["cwd"].encode("latin-1"))  # posix_spawn can't; safe, since this process has one thread
            entered = True
            pid = _spawn(frame, self._output)
        except OSError as error:
            self._send(failed=error.errno, entered=entered)
            return None
        finally:
            os.chdir("/")  # a process's current folder can't be unmounted
            os.close(self._output)
            self._output = -1
        self._began_seconds = time.monotonic()
        self.tree = Tree(pid, f"{MARK}={frame['mark']}", self._began_seconds)
        return self.tree

    def stop(self, grace: float, now: float) -> None:
        """Send SIGTERM now, SIGKILL after the grace; a second call can only shorten the grace."""
        if self.tree is not None and grace > 0 and math.isinf(self.kill_at):
            self.tree.send(signal.SIGTERM)
        self.term_at = math.inf
        self.kill_at = min(self.kill_at, now + grace)

    def advance(self, now: float) -> bool:
        """Send the signals that are due, and return whether the command has ended."""
        if self.tree is None:
            return False
        alive = len(self.tree.list_alive())
        if self.status is not None and not alive:
            return True
        if self.status is not None and math.isinf(self.kill_at):
            self._left = alive
            self.term_at = now + _LINGER_SECONDS
            self.kill_at = self.term_at + _LEFT_GRACE_SECONDS
        if now >= self.kill_at:
            self.tree.send(signal.SIGKILL)
        elif now >= self.term_at:
            self.term_at = math.inf
            self.tree.send(signal.SIGTERM)
        return now >= self.kill_at + _GIVE_UP_SECONDS

    def is_young(self, now: float) -> bool:
        """Return whether it started so recently that the exporter may not know its CPU demand yet."""
        return now < self._began_seconds + _YOUNG_SECONDS

    def is_report_due(self, now: float) -> bool:
        """Return whether to report this sample."""
        return self.is_young(now) or now >= self._reported_seconds + _REPORT_SECONDS

    def send_usage(self, now: float) -> None:
        """Send the usage of the sample at `now`, unless the exporter has not read the last report."""
        if self.tree is not None and not _count_unread_bytes(self.channel):
            self._reported_seconds = now
            self._send(usage=_read_usage(self.tree), sampled=_read_core_time(self.tree, now))

    def send_result(self) -> None:
        """Send the last frame."""
        if self.tree is not None:
            times = (self._began_seconds, time.monotonic())
            demand = _read_core_time(self.tree, time.monotonic())
            self._send(ended=self.status, left=self._left, times=times, usage=_read_usage(self.tree), sampled=demand)

    def close(self) -> None:
        """Close the descriptors that the exporter passed."""
        self.channel.close()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1

    def _send(self, **frame: object) -> None:
        try:
            self.channel.send(json.dumps(frame).encode() + b"\n")
        except OSError:
            return  # the exporter closed its end: the poll reports it too, and ends the command


def _read_usage(tree: Tree) -> tuple[int, float, float, int, int]:
    return int(tree.root), tree.get_cpu_seconds(), tree.get_delay_seconds(), tree.memory, tree.memory_peak


def _read_core_time(tree: Tree, now: float) -> tuple[float, float, float]:
    """Return the monotonic time of a sample, and the seconds that the tree ran and waited for a core until then."""
    return now, tree.get_run_seconds(), tree.get_wait_seconds()


def _count_unread_bytes(channel: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(channel, termios.TIOCOUTQ, b"\0\0\0\0"), "little")


@cache
def _raise_limits() -> tuple[tuple[int, int], tuple[int, int]]:
    """Raise this process's limit on descriptors: each command needs some. Return the commands' limit and its own."""
    of_commands = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    own = (max(soft, min(hard, _MAX_DESCRIPTORS)), hard)
    if resource.RLIM_INFINITY in of_commands:
        own = of_commands
    resource.setrlimit(resource.RLIMIT_NOFILE, own)
    return of_commands, own


def _spawn(frame: dict[str, Any], output: int) -> int:  # Any: parsed JSON
    environment = {key.encode("latin-1"): value.encode("latin-1") for key, value in frame["env"].items()}
    environment[MARK.encode()] = frame["mark"].encode()
    of_commands, own = _raise_limits()
    resource.setrlimit(resource.RLIMIT_NOFILE, of_commands)  # a raised one breaks programs that use select()
    try:
        return os.posix_spawn(
            frame["program"].encode("latin-1"),
            [argument.encode("latin-1") for argument in frame["argv"]],
            environment,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=DEFAULT_SIGNALS,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, own)
