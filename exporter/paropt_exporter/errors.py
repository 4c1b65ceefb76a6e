"""Every error that paropt_exporter raises on purpose; each message says what, where and how to mend it."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pickle import PicklingError

TYPE_CHECKING = False  # workers import this module, and typing would be most of what they load
if TYPE_CHECKING:
    from types import TracebackType

LONGEST_MESSAGE_CHARACTERS = 1000  # of a task: ten lines of a terminal; the rest of what happened stands in its output


class ParoptError(Exception):
    """Base of all errors of this package.

    `exit_code` is what the command ends with when nothing catches the error.
    """

    exit_code = 3


class UsageError(ParoptError):
    """The command was called wrongly: an unknown lane, an address that can't be had, flags that exclude each other."""

    exit_code = 2


class NothingFailed(ParoptError):
    """Only what had failed was to run again, and nothing had."""

    exit_code = 0


class ConfigError(ParoptError):
    """The config can't be used. `faults` holds one line for each fault: `file:line:column: path: message`."""

    exit_code = 2

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class HistoryError(ParoptError):
    """The run history can't be read or written."""

    exit_code = 3


class Interrupted(ParoptError):
    """A signal came before a run: there is none."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class DeliveryError(ParoptError):
    """The final values of a run could not be pushed or written for others."""


class WorkerDied(ParoptError, BrokenExecutor):
    """A worker process ended in the middle of a task: only that task fails, the pool goes on.

    `exit_code_or_signal`: as `subprocess` gives it, the exit code, or minus the signal's number.
    """

    def __init__(self, message: str, exit_code_or_signal: int | None = None) -> None:
        super().__init__(message)
        self.exit_code_or_signal = exit_code_or_signal

    def __reduce__(self) -> tuple[type[WorkerDied], tuple[str, int | None]]:
        return type(self), (str(self), self.exit_code_or_signal)


class InitializerFailed(ParoptError, BrokenExecutor):
    """A pool's initializer failed again and again: the pool has no worker and takes no tasks."""


class CallNotFound(ParoptError):
    """A `module:function` could not be found."""

    exit_code = 2


class CallFailed(ParoptError):
    """A plan's `module:function` raised an exception, described here as text.

    The text is made where the function ran. Nothing that the exception's class defines runs after that. `left` names
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
    """A running task was ended from outside: its time limit, a fail-fast lane or the user."""


class UnpicklableError(ParoptError, PicklingError):
    """A task, its result or its exception can't travel to or from a worker process."""


def describe(error: BaseException) -> str:
    """Return the exception's class and text. Never raises, whatever its class defines; the text may be long."""
    name = "an exception"
    try:
        name = type(error).__name__
        text = str(error)
        return f"{name}: {text}" if text else name
    except BaseException:  # noqa: BLE001 -- the user's exception class runs in here
        return f"{name} (its text could not be read)"


def shortened(text: str, longest: int = LONGEST_MESSAGE_CHARACTERS) -> str:
    """Return the text, or its first `longest` characters, of which the last ones say how many are left out."""
    if len(text) <= longest:
        return text
    room = longest - len(f" … {len(text)} more characters")
    return f"{text[:room]} … {len(text) - room} more characters"


def one_line(text: str) -> str:
    """Return the text as a message: in one line, shortened."""
    return " ".join(shortened(text).split())


def trace_of(error: BaseException) -> TracebackType | None:
    """Return an exception's traceback. Runs nothing that its class defines under that name."""
    trace: TracebackType | None = BaseException.__traceback__.__get__(error)  # type: ignore[union-attr]  # a descriptor
    return trace


def without_frame(error: BaseException) -> BaseException:
    """Cut the first frame off an exception's traceback, and return it. Runs nothing that its class defines."""
    trace = trace_of(error)
    return BaseException.with_traceback(error, trace.tb_next if trace is not None else None)
