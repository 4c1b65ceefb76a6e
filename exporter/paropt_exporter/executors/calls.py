"""Runs a `module:function` of a plan in a worker, and keeps what it printed."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from paropt_exporter.errors import CallFailed, CallNotFound, ParoptError, describe, get_traceback, to_one_line
from paropt_exporter.executors import child_processes

KEPT_CHARACTERS = 1 << 16  # of what a call prints, the last: as much as of a command's output
_TRACEBACK_FRAMES = 20  # of the innermost: enough to see the user's own code under a deep framework


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOutcome:
    """A call that returned. `output` is the end of what it printed, `left` names the processes that it left running."""

    output: str
    left: tuple[str, ...] = ()


def run_call_in_process(root: str, target: str, arguments: tuple[str, ...]) -> CallOutcome:
    """Run a call as the one task of a worker process: all its children are the call's, and end with it."""
    ending = child_processes.Ending(child_processes.of_this_process)
    return run_call(root, target, arguments, end_left=lambda: child_processes.end_left(ending))


def run_call(
    root: str, target: str, arguments: tuple[str, ...], *, end_left: Callable[[], tuple[str, ...]] = tuple
) -> CallOutcome:
    """Call `target` (`module:function`, dots after the colon reach into classes), `root` first on the import path.

    `end_left` ends the processes that the call left and returns their names. Raises CallNotFound if there is no such
    function, and CallFailed for anything that the function or its module raises: with a message, the end of its output
    and of a traceback that begins with the user's own code, and the names.
    """
    tail = _Tail()
    with _captured(tail):
        failed = _failure_of(root, target, arguments, tail)
        left = end_left()
    if isinstance(failed, CallFailed):
        failed.left = left
    if failed is not None:
        raise failed  # outside the handler: the exception, which holds the user's frames, can go
    return CallOutcome(output=tail.text(), left=left)


def _failure_of(root: str, target: str, arguments: tuple[str, ...], tail: _Tail) -> ParoptError | None:
    try:
        find(root, target)(*arguments)
    except BaseException as error:  # noqa: BLE001 -- the user's function may raise anything
        if type(error) is CallNotFound:
            return CallNotFound(to_one_line(str(error)))
        printed, trace = tail.text(), _users_traceback(error)
        return CallFailed(to_one_line(describe(error)), f"{printed}\n{trace}" if printed else trace)
    return None


def _users_traceback(error: BaseException) -> str:
    """Return the end of the traceback, from the user's own code on. Never raises, whatever the class does."""
    import traceback  # here: workers that run no call of a plan do without

    try:
        trace = get_traceback(error)
        while trace is not None and _is_way_in(trace.tb_frame.f_globals.get("__name__", "")):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace, limit=-_TRACEBACK_FRAMES)
        return "".join(lines)[-KEPT_CHARACTERS:]
    except BaseException:  # noqa: BLE001 -- formatting reads the exception's attributes, which are the user's
        return describe(error)[-KEPT_CHARACTERS:] + "\n"


def _is_way_in(module: str) -> bool:
    """Say whether a frame of this module only leads to the user's code: this one's, and the import system's."""
    return module == __name__ or module.partition(".")[0] == "importlib"


def find(root: str, target: str) -> Callable[..., Any]:
    """Return the function that `target` names. CallNotFound says what was found and what may have been meant."""
    if sys.path[:1] != [root]:
        sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    name, colon, path = target.partition(":")
    if not colon or not name or not path:
        raise CallNotFound(f"call {target!r}: expected module:function, for example mypkg.checks:integration")
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the module is there, and imports one that is not
        raise CallNotFound(
            f"call {target!r}: there is no module {error.name!r} in {root} or on the import path: correct the name"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise CallNotFound(f"call {target!r}: {_named(found)} has no {part!r}{_meant(part, found)}")
        found = getattr(found, part)
    if not callable(found):
        raise CallNotFound(f"call {target!r}: it is of type {type(found).__name__}: name a function")
    return found  # type: ignore[no-any-return]  # callable, as just seen


def _named(found: Any) -> str:
    return f"{'module' if isinstance(found, type(sys)) else 'class'} {getattr(found, '__name__', found)!r}"


def _meant(part: str, found: Any) -> str:
    names = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
    close = difflib.get_close_matches(part, names, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    functions = sorted(name for name in names if callable(getattr(found, name, None)))
    return f": it has {', '.join(functions[:10])}" if functions else ""


class _Tail(io.TextIOBase):
    """Keeps the end of what is written to it. Several threads may write."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()  # guards: the parts and their length
        self._parts: list[str] = []
        self._length = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            self._parts.append(text[-KEPT_CHARACTERS:])
            self._length += len(self._parts[-1])
            if self._length > 2 * KEPT_CHARACTERS:
                self._parts = ["".join(self._parts)[-KEPT_CHARACTERS:]]
                self._length = KEPT_CHARACTERS
        return len(text)

    def text(self) -> str:
        with self._lock:
            return "".join(self._parts)[-KEPT_CHARACTERS:]


class _Switch(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr: a captured thread writes to its tail, every other to the real stream."""

    def __init__(self, real: TextIO, tails: dict[int, _Tail]) -> None:
        super().__init__()
        self.real = real
        self._tails = tails

    def _target(self) -> TextIO | _Tail:
        return self._tails.get(threading.get_ident(), self.real)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return self._target().write(text)

    def flush(self) -> None:
        self._target().flush()

    def fileno(self) -> int:
        return self.real.fileno()

    def isatty(self) -> bool:
        return False if threading.get_ident() in self._tails else self.real.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _Capture:
    """Puts the switches in place while any thread is captured, and takes them away after the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: the tails and the switches
        self._tails: dict[int, _Tail] = {}
        self._switches: tuple[_Switch, _Switch] | None = None

    def begin(self, tail: _Tail) -> _Tail | None:
        with self._lock:
            if self._switches is None:
                self._switches = _Switch(sys.stdout, self._tails), _Switch(sys.stderr, self._tails)
                sys.stdout, sys.stderr = self._switches
            elif sys.stdout is None or sys.stderr is None:  # a call that runs took them away: this one prints
                out, err = self._switches
                sys.stdout, sys.stderr = sys.stdout or out, sys.stderr or err
            before = self._tails.get(threading.get_ident())
            self._tails[threading.get_ident()] = tail
            return before

    def end(self, before: _Tail | None) -> None:
        with self._lock:
            if before is not None:
                self._tails[threading.get_ident()] = before
                return
            del self._tails[threading.get_ident()]
            if not self._tails and self._switches is not None:
                # Somebody may have put a stream of their own in front meanwhile: theirs stays.
                out, err = self._switches
                sys.stdout = out.real if sys.stdout in (out, None) else sys.stdout
                sys.stderr = err.real if sys.stderr in (err, None) else sys.stderr
                self._switches = None


_capture = _Capture()  # sys.stdout belongs to the process, and so does what stands in for it


@contextlib.contextmanager
def _captured(tail: _Tail) -> Iterator[None]:
    before = _capture.begin(tail)
    try:
        yield
    finally:
        _capture.end(before)
