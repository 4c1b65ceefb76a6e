"""Share a lane's slots with the jobs of its commands: a server of GNU make's jobserver protocol (4.4, fifo style).

A client (make, ninja, cargo) owns one job from its start. For each further job it takes a byte from a pipe, and it puts
the byte back when that job has ended.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import struct
import subprocess
import termios
from collections.abc import Mapping
from contextlib import suppress

from paropt_exporter.errors import UsageError

VARIABLE = "MAKEFLAGS"
_TOKEN = b"+"  # as make writes it; clients take any byte
_OLDEST_MAKE = (4, 4)  # older versions fail at the flag
_OTHER_SERVER = re.compile(r"(?:^|\s+)(?:--jobserver-(?:auth|fds)=\S+|-j\s*\d*(?=\s|$))")
# the end of MAKEFLAGS: variable definitions, as in `make CC=clang`
_DEFINITIONS = re.compile(r"(?:^|\s)--\s.*", re.DOTALL)
_MAKE_TIMEOUT_SECONDS = 10.0


class Jobserver:
    """The tokens of one exporter.

        offer(n) -> the pipe --take--> client        tokens in the pipe + tokens that clients hold = those offered
                        ^----put back---'

    Guarantees: there are no more tokens than were last offered, except those that clients held when the offer fell;
    they are removed when clients return them. The next `reset` replaces the tokens of a killed client. No method
    blocks. `offer` and `reset` are for one thread at a time.

    The pipe has no name in any folder: clients open it as /proc/PID/fd/N, which works like a fifo, needs the same user
    and a view of our process, and disappears with us.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._out = 0

    def build_environment(self, environ: Mapping[str, str], slots: int) -> dict[str, str]:
        """Return the environment that makes a command a client. The user's flags stay; another server's are removed."""
        given = environ.get(VARIABLE, "")
        found = _DEFINITIONS.search(given)
        flags, definitions = (given[: found.start()], found[0].strip()) if found else (given, "")
        ours = f"-j{slots} --jobserver-auth=fifo:/proc/{os.getpid()}/fd/{self._reader}"
        return {VARIABLE: " ".join(filter(None, (_OTHER_SERVER.sub("", flags).strip(), ours, definitions)))}

    def offer(self, count: int) -> None:
        """Set the number of tokens to `count`."""
        surplus = max(0, self._count_tokens() - self._out)  # added by a client that had taken none
        self._out += surplus
        if self._out > count:
            self._out -= self._remove_tokens(self._out - count)
        elif self._out < count:
            self._out += os.write(self._writer, _TOKEN * (count - self._out))

    def reset(self) -> None:
        """Remove all tokens; call it only while no client runs."""
        self._remove_tokens(self._count_tokens())
        self._out = 0

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def _count_tokens(self) -> int:
        waiting = fcntl.ioctl(self._reader, termios.FIONREAD, b"\0" * 4)
        return int(struct.unpack("i", waiting)[0])

    def _remove_tokens(self, count: int) -> int:
        with suppress(BlockingIOError):  # clients hold all of them
            return len(os.read(self._reader, count)) if count else 0
        return 0


def require_make(environ: Mapping[str, str]) -> None:
    """Raise UsageError if the make on PATH is too old for a jobserver with a fifo."""
    program = shutil.which("make", path=environ.get("PATH"))
    version = _read_make_version(program) if program else None
    if version is not None and version < _OLDEST_MAKE:
        found = ".".join(map(str, version))
        raise UsageError(
            f"feedback.jobserver: {program} is GNU make {found}, which fails at a jobserver of fifo style: "
            "put make 4.4 or later first on PATH, or turn it off"
        )


def _read_make_version(program: str) -> tuple[int, int] | None:
    try:
        completed = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_MAKE_TIMEOUT_SECONDS, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"GNU Make (\d+)\.(\d+)", completed.stdout)
    return (int(match[1]), int(match[2])) if match else None
