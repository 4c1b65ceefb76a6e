"""The owner's side of the fork server: starts it when the first worker is wanted, and asks it for workers."""

from __future__ import annotations

import contextlib
import marshal
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from paropt_exporter import descriptors

_BOOT = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from paropt_exporter.executors.worker.forkserver import main; main({owner})"
)
_RESET_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)


class ForkServers:
    """Keeps one fork server alive for this process, and starts another if it died.

    `warm`: whether a worker of the one that is there has begun: further ones take milliseconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: the making of a fork server
        self._control: socket.socket | None = None
        self._pid = 0
        self.warm = False

    @property
    def pid(self) -> int:
        """The fork server's process id; 0 while none runs."""
        return self._pid

    def spawn(self, files: tuple[int, ...]) -> None:
        """Have a worker forked that gets `files` (see fork server.FILES). OSError if the system won't."""
        from paropt_exporter.executors.worker import (
            forkserver,  # all that workers need is loaded with the first of them
        )

        for attempt in (1, 2):
            try:
                with self._lock:
                    control = self._control or self._start()
                socket.send_fds(control, [marshal.dumps((forkserver.SPAWN,))], files)
                self.resume()
                return
            except (BrokenPipeError, ConnectionResetError):
                self._bury()
                if attempt == 2:
                    raise

    def end(self, pid: int, grace_seconds: float) -> None:
        """Have a worker and its process group ended: TERM, and KILL after the grace. Does not block."""
        control = self._control
        if control is not None:
            from paropt_exporter.executors.worker import forkserver  # as in `spawn`

            with contextlib.suppress(OSError):
                control.send(marshal.dumps((forkserver.END, pid, grace_seconds)))
        self.resume()

    def resume(self) -> None:
        """Let the fork server go on if a task has stopped it; nothing happens if it runs."""
        with self._lock:
            if self._pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        """Let the fork server go. For after the last pool's end."""
        control = self._control
        if control is not None:
            from paropt_exporter.executors.worker import forkserver  # as in `spawn`

            with contextlib.suppress(OSError):
                control.send(marshal.dumps((forkserver.BYE,)))
            self.resume()
            self._bury()

    def reset_after_fork(self) -> None:
        """In a forked child: the fork server is the parent's."""
        self._lock = threading.Lock()
        control, self._control, self._pid = self._control, None, 0
        self.warm = False
        if control is not None:
            control.close()

    def _start(self) -> socket.socket:
        from paropt_exporter.executors.worker import forkserver  # as in `spawn`

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            root = str(Path(__file__).parents[3])
            self._pid = os.posix_spawn(
                sys.executable,
                # -P: the folder that we are in is no place to import from, and may be gone.
                [sys.executable, "-P", *_flags(), "-c", _BOOT.format(root=root, owner=os.getpid())],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), forkserver.CONTROL),  # first: its number may be 0
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    # A stream that is closed would leave its number to something else, and Python without a stream.
                    *((os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2) if not is_stream(n)),
                ],
                setsid=True,  # Ctrl-C at the terminal is for the owner to hear
                setsigmask=(),
                setsigdef=_RESET_SIGNALS,
            )
            descriptors.restore_limit(self._pid)  # its first fork is asked for after this
        except BaseException:  # nothing may leave what was opened behind; raised again
            ours.close()
            raise
        finally:
            theirs.close()
        self._control = ours
        return ours

    def _bury(self) -> None:
        with self._lock:
            control, self._control = self._control, None
            pid, self._pid = self._pid, 0
            self.warm = False
        if control is not None:
            control.close()
        if pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def is_stream(descriptor: int) -> bool:
    """Whether it is there for other programs, and not something of this one's that took a closed stream's number."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


def _flags() -> list[str]:
    """Return the interpreter's flags that must hold in workers too."""
    flags = sys.flags
    found = [f"-W{option}" for option in sys.warnoptions]
    found += ["-" + letter * count for letter, count in (("O", flags.optimize), ("b", flags.bytes_warning)) if count]
    found += [f"-{letter}" for letter, on in (("B", flags.dont_write_bytecode), ("E", flags.ignore_environment)) if on]
    return found + (["-X", "dev"] if flags.dev_mode else [])
