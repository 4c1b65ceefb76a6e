"""Functions that tests of pools run in workers, and a wait with a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from support.command_scripts import BURNER, python

HANG_SECONDS = 30.0  # generous: only a hang takes longer


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait until a condition is true, and return whether it was before the deadline."""
    pause, began = threading.Event(), time.monotonic()
    while not condition():
        if (waited := time.monotonic() - began) > HANG_SECONDS:
            return False
        pause.wait(min(max(0.005, waited / 20), 0.05))
    return True


def double(number: int) -> int:
    return 2 * number


def nothing(*_: object) -> None:
    return None


def set_variable(name: str, value: str) -> None:
    os.environ[name] = value


def raise_it(error: BaseException) -> NoReturn:
    raise error


def spin(seconds: float) -> int:
    """Use CPU for a while; return the process id."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return os.getpid()


def say_and_wait(path: str, text: str = "here") -> None:
    """Write to a FIFO, then wait forever."""
    Path(path).write_text(text)
    signal.pause()


def append(path: str, text: str) -> None:
    with Path(path).open("a") as file:
        file.write(text + "\n")


def append_and_read(path: str, text: str, fifo: str) -> None:
    """Report that the task has started, then wait until the FIFO is opened."""
    append(path, text)
    Path(fifo).read_text()


def start_grandchild(path: str) -> None:
    """Start a process that outlives the task, report its pid, then wait forever."""
    child = subprocess.Popen(["sleep", "600"])
    say_and_wait(path, str(child.pid))


def burn_in_child(seconds: float, *, wait: bool = True) -> float:
    """Use CPU in a child process and return how much; `wait` False: do not reap it, but wait until it has exited."""
    child = subprocess.Popen(python(BURNER, seconds), stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        used = float(child.stdout.read())
    if wait:
        child.wait()
    else:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        child.returncode = 0  # keeps subprocess from reaping it
    return used


SHARED: list[str] = []


def share(value: str) -> None:
    """Put a value where only this process, and processes that are forked from it, see it."""
    SHARED.append(value)


def read_shared() -> list[str]:
    return list(SHARED)


def hold_memory(size_bytes: int) -> int:
    return len(bytearray(b"x") * size_bytes)


class OddError(Exception):
    """Can't be recreated from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class FalsyError(Exception):
    def __bool__(self) -> bool:
        return False


class Unloadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return raise_it, (ValueError("will not be loaded"),)


class Unpicklable:
    def __reduce__(self) -> NoReturn:
        raise TypeError("will not travel")


class Large:
    """Looks like a large argument of a type in C. `pickled` counts how often one was pickled."""

    pickled = 0
    __sizeof__ = staticmethod(partial(int, 1 << 30))  # no function in Python

    def __reduce__(self) -> tuple[Any, ...]:
        Large.pickled += 1
        return str, ("large",)


class LargeAndUnpicklable(Large):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> NoReturn:
        raise self.error


BUFFER = bytearray()  # of one worker


def grow_buffer(size: int) -> bytearray:
    BUFFER.extend(bytes(size))
    return BUFFER


LIBRARY_LOCK = threading.Lock()  # of a module that workers import, as a library's may be


def is_library_locked() -> bool:
    return LIBRARY_LOCK.locked()


def pause_first_worker(fifo: Path) -> None:
    """The first worker tells its process id through the pipe, removes it and waits for its end."""
    if fifo.exists():
        with fifo.open("w") as pipe:
            pipe.write(str(os.getpid()))
            fifo.unlink()
        signal.pause()
