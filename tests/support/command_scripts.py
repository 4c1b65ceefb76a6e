"""Helpers for tests of commands: scripts that report on themselves, and waits for processes without sleeping."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # worker processes import this module with the functions of tests
    from paropt_exporter.executors.commands.command_pool import CommandOutcome, CommandPool

HANG_SECONDS = 30.0  # a guard against hanging: no wait takes nearly as long

# Uses at least that much CPU time, writes the kernel's figure of it to the named file or to its output, and exits.
# Its start counts too, with the children of a wrapper: pyenv's `python3` is a script.
BURNER = """
import os, resource, sys
def used():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
while used() < float(sys.argv[1]):
    sum(range(1000))
with open(sys.argv[2], "w") if sys.argv[2:] else sys.stdout as report:
    report.write(str(used()))
os._exit(0)
"""


def python(script: str, *arguments: object) -> list[str]:
    """Return a command that runs a Python script."""
    return [sys.executable, "-I", "-S", "-c", script, *map(str, arguments)]


def shell(script: str, *arguments: object) -> list[str]:
    """Return a command that runs a shell script; its arguments are $1 and so on."""
    return ["sh", "-c", script, "sh", *map(str, arguments)]


def run(pool: CommandPool, *steps: list[str], cwd: Path | str = "/") -> CommandOutcome:
    """Run the steps as one task and return the outcome."""
    return pool.submit_commands("task", steps, cwd=cwd).result(HANG_SECONDS)


def make_fifo(folder: Path, name: str = "fifo") -> Path:
    """Return a named pipe: a command that opens it waits for the test, and the test waits for the command."""
    path = folder / name
    os.mkfifo(path)
    return path


def read_fifo(fifo: Path | str, seconds: float = HANG_SECONDS) -> str:
    """Return the text that a command writes into the pipe until it closes it. Fail if that takes too long."""
    deadline, parts = time.monotonic() + seconds, [b""]
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        poll = select.poll()  # without a writer, it waits for the first one
        poll.register(descriptor, select.POLLIN)
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if not (part := os.read(descriptor, 65536)):
                return b"".join(parts).decode()
            parts.append(part)
    finally:
        os.close(descriptor)
    raise AssertionError(f"{fifo}: no command wrote all of its text within {seconds:g} s")


def open_fifo(fifo: Path | str, seconds: float = HANG_SECONDS) -> TextIO:
    """Open the pipe for writing once a command reads it. Fail if that takes too long."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while time.monotonic() < deadline:
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # it has no reader yet
                raise
            pause.wait(0.001)
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "w")
    raise AssertionError(f"{fifo}: no command opened it within {seconds:g} s")


def write_fifo(fifo: Path | str, text: str) -> None:
    with open_fifo(fifo) as file:
        file.write(text)


def told_pids(fifo: Path) -> list[int]:
    """Wait until a command has written its processes' ids into the pipe."""
    return [int(word) for word in read_fifo(fifo).split()]


def wait_until_gone(pids: list[int], seconds: float = HANG_SECONDS) -> list[int]:
    """Return the processes that still exist after `seconds`."""
    deadline = time.monotonic() + seconds
    return [pid for pid in pids if not _gone(pid, deadline)]


def _gone(pid: int, deadline: float) -> bool:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
        return bool(ready)
    finally:
        os.close(handle)
