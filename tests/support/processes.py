"""Look at processes of this machine: which live, which run in a folder, their descriptors; and fork one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_asleep(pid: int) -> bool:
    """Whether the process waits for an event, and runs nothing meanwhile."""
    return psutil.Process(pid).status() == psutil.STATUS_SLEEPING


def run_python(code: str, *arguments: str, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, and return its result. `check`: raise if its exit code is not 0."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=check, **options)


def read_printed(code: str, *arguments: str, **options: Any) -> str:
    """Run code in a new interpreter and return its output; fail if there is any on stderr."""
    ended = run_python(code, *arguments, **options)
    assert ended.stderr == ""
    return ended.stdout


def run_in_forked_child(work: Callable[[], object]) -> int:
    """Run a function in a forked copy of this process, for a minute at most, and return the exit code."""
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def children(parent: int) -> list[int]:
    """Return the processes that a process started and that live."""
    try:
        return [child.pid for child in psutil.Process(parent).children() if is_alive(child.pid)]
    except psutil.NoSuchProcess:
        return []


def parent(pid: int) -> int:
    return psutil.Process(pid).ppid()


def command_line(pid: int) -> str:
    """Return the words that a process was started with, or nothing if it has ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def in_folder(folder: Path) -> list[int]:
    """Return the live processes whose working directory is the folder or below it, wherever their parents are."""
    found = []
    for process in psutil.process_iter():
        try:
            cwd = Path(process.cwd())
        except psutil.Error:
            continue  # it ended meanwhile, or is a zombie
        if folder in (cwd, *cwd.parents) and is_alive(process.pid):
            found.append(process.pid)
    return found


def open_descriptors(pid: int) -> int:
    return psutil.Process(pid).num_fds()


def switches(pid: int) -> int:
    """Return how often a process has given up a core: once it sleeps for good, this stays."""
    return sum(psutil.Process(pid).num_ctx_switches())
