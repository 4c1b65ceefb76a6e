"""The errors that paropt_exporter raises on purpose. Each message names the fault, its place and the remedy."""

from __future__ import annotations

import errno
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

try:
    from _pickle import PicklingError  # that of `pickle`, which takes 3 ms to load
except ImportError:  # an interpreter without the C module
    from pickle import PicklingError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

# The exit codes of the command. After a signal it is EXIT_SIGNAL_BASE + the signal's number.
EXIT_FAILED = 1  # a stage failed
EXIT_USAGE = 2
EXIT_INTERNAL = 3  # also a history, report or summary that could not be written
EXIT_CRITICAL_SLA = 4
EXIT_PARTIAL = 5  # nothing failed, but --deadline left out or stopped stages
EXIT_SIGNAL_BASE = 128
EXIT_BROKEN_PIPE = 141

# Errors of reading, adding and comparing values of a history that was edited, and of deciding by them.
INVALID_VALUE_ERRORS = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)

NO_PROCESSES = (
    "the system allows no more processes: use fewer workers or raise the limit (ulimit -u, or a cgroup's pids.max)"
)
_NO_DESCRIPTORS = "there are no file descriptors left: use fewer workers or raise the limit (ulimit -n)"
_NO_MEMORY = "there is no memory left: use fewer workers or raise the limit (ulimit -v, or a cgroup's memory.max)"
_NO_THREAD = "the system can't start a thread: raise its limit (ulimit -u, or a cgroup's pids.max)"
_SHORTAGES = {
    errno.EAGAIN: NO_PROCESSES,
    errno.EMFILE: _NO_DESCRIPTORS,
    errno.ENFILE: _NO_DESCRIPTORS,
    errno.ENOMEM: _NO_MEMORY,
}

LONGEST_MESSAGE_CHARACTERS = 1000  # of a task: ten lines of a terminal; its output has the details


class ParoptError(Exception):
    """Base class of all errors of this package. The command exits with `exit_code` if nothing catches the error."""

    exit_code = EXIT_INTERNAL


class UsageError(ParoptError):
    """The command line is wrong: an unknown lane, an address that is not available, flags that exclude each other."""

    exit_code = EXIT_USAGE


class NothingFailed(ParoptError):
    """The user asked to run failed tasks again, and there are none."""

    exit_code = 0


class NothingAffected(ParoptError):
    """The user asked to run affected stages, and there are none."""

    exit_code = 0


class ConfigError(ParoptError):
    """The config can't be used. `faults` holds one line for each fault: `file:line:column: path: message`."""

    exit_code = EXIT_USAGE

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class HistoryError(ParoptError):
    """The run history can't be read or written."""

    exit_code = EXIT_INTERNAL


class Interrupted(ParoptError):
    """A signal came before the run began, so there is no run."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = EXIT_SIGNAL_BASE + number


class DeliveryError(ParoptError):
    """The final values of a run could not be pushed or written."""


class WorkerDied(ParoptError, BrokenExecutor):
    """A worker process exited during a task: only that task fails, the pool continues.

    `exit_code_or_signal`: the exit code, or minus the number of the signal, as in `subprocess`.
    """

    def __init__(self, message: str, exit_code_or_signal: int | None = None) -> None:
        super().__init__(message)
        self.exit_code_or_signal = exit_code_or_signal

    def __reduce__(self) -> tuple[type[WorkerDied], tuple[str, int | None]]:
        return type(self), (str(self), self.exit_code_or_signal)


class InitializerFailed(ParoptError, BrokenExecutor):
    """The initializer of a pool failed repeatedly: the pool has no worker and takes no tasks."""


class CallNotFound(ParoptError):
    """A `module:function` could not be found."""

    exit_code = EXIT_USAGE


class CallFailed(ParoptError):
    """A `module:function` of a plan raised an exception, described here as text.

    The worker that ran the function makes the text, so no code of the exception's class runs elsewhere. `left` names
    the processes that the function left running.
    """

    def __init__(self, message: str, output: str, left: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.output = output
        self.left = left

    def __reduce__(self) -> tuple[type[CallFailed], tuple[str, str, tuple[str, ...]]]:
        return type(self), (self.message, self.output, self.left)


class TaskStopped(ParoptError):
    """A running task was stopped from outside: by its timeout, a fail-fast lane or the user."""


class UnpicklableError(ParoptError, PicklingError):
    """A task, its result or its exception can't be pickled for a worker process.

    `is_result`: the task succeeded. `part`: which part of the task is the reason, such as "global 'lock'", if known.
    """

    is_result = False
    part = ""


def describe(error: BaseException) -> str:
    """Return the exception's class and text. Never raises, whatever its class defines. The text may be long."""
    name = "an exception"
    try:
        name = type(error).__name__
        text = str(error)
        return f"{name}: {text}" if text else name
    except BaseException:  # noqa: BLE001 -- the user's exception class runs in here
        return f"{name} (its text could not be read)"


def explain_shortage(error: BaseException) -> str:
    """Return which resource of the system was used up, by the error of a start, and the remedy; "" if none was."""
    if isinstance(error, OSError):
        return _SHORTAGES.get(error.errno or 0, "")
    if isinstance(error, MemoryError):
        return _NO_MEMORY
    return _NO_THREAD if isinstance(error, RuntimeError) and str(error) == "can't start new thread" else ""


def is_from_signal_handler(error: BaseException) -> bool:
    """Return whether a signal handler has raised an OSError, such as a TimeoutError: the system's have a number."""
    return isinstance(error, OSError) and error.errno is None


def shorten(text: str, longest: int = LONGEST_MESSAGE_CHARACTERS) -> str:
    """Return the text, cut to `longest` characters; a cut text ends with the number of missing characters."""
    if len(text) <= longest:
        return text
    room = longest - len(f" … {len(text)} more characters")
    return f"{text[:room]} … {len(text) - room} more characters"


def join_names(names: Sequence[str], most: int = 10) -> str:
    """Return names for one line: at most so many, and the number of the others."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun, such as 1 stage or 2 stages."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def to_one_line(text: str) -> str:
    """Return the text as a message of one line, cut to the longest length of a message."""
    return " ".join(shorten(text).split())


def get_traceback(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback without running code of its class, which may define `__traceback__`."""
    trace: TracebackType | None = BaseException.__traceback__.__get__(error)  # type: ignore[union-attr]  # a descriptor
    return trace


def renew(error: Exception) -> Exception:
    """Return an equal exception to raise: the traceback of one that is raised again and again never ends."""
    new = type(error)(*error.args)
    new.__cause__ = error.__cause__
    return new


def drop_first_frame(error: BaseException) -> BaseException:
    """Drop the first frame of an exception's traceback, without running code of its class; return the exception."""
    trace = get_traceback(error)
    return BaseException.with_traceback(error, trace.tb_next if trace is not None else None)
