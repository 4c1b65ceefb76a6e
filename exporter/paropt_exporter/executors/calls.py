"""Run a `module:function` of a plan in a worker, and keep the end of its output."""

from __future__ import annotations

import codecs
import contextlib
import importlib
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from msgspec import Struct

from paropt_exporter.errors import CallFailed, CallNotFound, ParoptError, describe, get_traceback, to_one_line
from paropt_exporter.executors import child_processes
from paropt_exporter.executors.project_modules import ProjectModules

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FILE_CHARACTERS = 1 << 24  # of the whole output in a file: a call that prints without end must not fill the disk
KEPT_CHARACTERS = 1 << 16  # of the kept end of a call's output, as for a command
# The results of functions whose body has not run.
_UNSTARTED = {
    CoroutineType: "an async function, whose body has not run: call it with asyncio.run in another function",
    AsyncGeneratorType: "an async generator function, whose body has not run: iterate over it in another function",
    GeneratorType: "a generator function, whose body has not run: iterate over it in another function",
}
_TRACEBACK_FRAMES = 20  # the innermost ones: enough to reach the user's own code below a deep framework


_modules = ProjectModules()  # module state, since sys.modules belongs to the process


class CallOutcome(Struct, frozen=True, kw_only=True):
    """A call that returned. `output`: the end of its output; `left`: names of the processes that it left running."""

    output: str
    left: tuple[str, ...] = ()


def run_call_in_process(
    root: str, target: str, arguments: tuple[str, ...], output_path: str | None = None
) -> CallOutcome:
    """Run a call as the only task of a worker process: all children of the process are the call's, and end with it."""
    _modules.forget_changed(root)
    termination = child_processes.Termination(child_processes.list_own_children)
    with _in_folder(root):
        return run_call(
            root,
            target,
            arguments,
            end_leftovers=lambda: child_processes.end_leftovers(termination),
            output_path=output_path,
        )


@contextlib.contextmanager
def _in_folder(folder: str) -> Iterator[None]:
    """Make a folder the current one. A worker of a cluster, and the task before, may have another one."""
    before = ""
    with contextlib.suppress(OSError):  # one of them has been deleted
        before = os.getcwd()  # noqa: PTH109 -- a text
        os.chdir(folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.chdir(before)


def run_call(
    root: str,
    target: str,
    arguments: tuple[str, ...],
    *,
    end_leftovers: Callable[[], tuple[str, ...]] = tuple,
    output_path: str | None = None,
) -> CallOutcome:
    """Call `target` (`module:function`; dots after the colon reach into classes), with `root` first on the import path.

    `end_leftovers` ends the processes that the call left running and returns their names. Raises CallNotFound if the
    function does not exist, and CallFailed if the function or its module raises anything: with a message, the end of
    the output and of a traceback that begins with the user's own code, and the names.

    `output_path`: a file for the whole output and the traceback; it is created only if the output is longer than the
    kept end.
    """
    tail = _OutputTail(output_path)
    try:
        with _capture_output(tail):
            failed = _run_function(root, target, arguments, tail)
            left = end_leftovers()
    finally:
        tail.close_file()
    if isinstance(failed, CallFailed):
        failed.left = left
    if failed is not None:
        raise failed  # outside the handler: the original exception, which holds the user's frames, is freed
    return CallOutcome(output=tail.text(), left=left)


def _run_function(root: str, target: str, arguments: tuple[str, ...], tail: _OutputTail) -> ParoptError | None:
    try:
        function = find_function(root, target)
        returned = function(*arguments)
    except BaseException as error:  # noqa: BLE001 -- user code may raise anything
        if type(error) is CallNotFound:
            return CallNotFound(to_one_line(str(error)))
        printed, trace = tail.text(), _format_user_traceback(error)
        tail.add_to_file(f"\n{trace}")
        message = to_one_line(describe(error))
        if type(error) is ModuleNotFoundError:
            message += f" (calls run in paropt-exporter's own Python, {sys.executable})"
        return CallFailed(message, f"{printed}\n{trace}" if printed else trace)
    unstarted = _UNSTARTED.get(type(returned))
    if unstarted is None or _is_made_by(returned, function):
        return None
    if not isinstance(returned, AsyncGeneratorType):
        returned.close()  # otherwise Python warns that it was never awaited
    return CallFailed(f"call {target!r}: it is {unstarted}", tail.text())


def _is_made_by(returned: object, function: Callable[..., Any]) -> bool:
    """Return whether the function made a generator, such as by an expression, instead of being a generator function."""
    code = getattr(returned, "gi_code", None) or getattr(returned, "ag_code", None)
    return code is not None and code is not getattr(function, "__code__", None)


def _format_user_traceback(error: BaseException) -> str:
    """Return the end of the traceback, from the user's own code on. Never raises, whatever the error's class does."""
    import traceback  # here: workers that run no call of a plan do not need it

    try:
        trace = get_traceback(error)
        while trace is not None and _is_internal(trace.tb_frame.f_globals.get("__name__", "")):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace, limit=-_TRACEBACK_FRAMES)
        return "".join(lines)[-KEPT_CHARACTERS:]
    except BaseException:  # noqa: BLE001 -- formatting reads the exception's attributes, which is user code
        return describe(error)[-KEPT_CHARACTERS:] + "\n"


def _is_internal(module: str) -> bool:
    """Return whether a module's frames only lead to the user's code: this module and the import system."""
    return module == __name__ or module.partition(".")[0] == "importlib"


def find_function(root: str, target: str) -> Callable[..., Any]:
    """Return the function that `target` names. Raises CallNotFound with a suggestion."""
    if sys.path[:1] != [root]:
        sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    name, colon, path = target.partition(":")
    if not colon or not name or not path:
        raise CallNotFound(f"call {target!r}: expected module:function, for example mypkg.checks:integration")
    try:
        found: Any = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the module exists, but imports one that does not
        raise CallNotFound(
            f"call {target!r}: there is no module {error.name!r} in {root}, nor among the packages of "
            f"{sys.executable}: correct the name, or install it there"
        ) from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise CallNotFound(
                f"call {target!r}: {_describe_object(found)} has no {part!r}{_suggest_name(part, found)}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise CallNotFound(f"call {target!r}: it is of type {type(found).__name__}: name a function")
    return found  # type: ignore[no-any-return]  # callable() has just checked it


def _describe_object(found: Any) -> str:
    return f"{'module' if isinstance(found, type(sys)) else 'class'} {getattr(found, '__name__', found)!r}"


def _suggest_name(part: str, found: Any) -> str:
    names = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
    import difflib  # here: for errors only

    close = difflib.get_close_matches(part, names, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    functions = sorted(name for name in names if callable(getattr(found, name, None)))
    return f": it has {', '.join(functions[:10])}" if functions else ""


class _OutputTail(io.TextIOBase):
    """A stream that keeps the end of the text. Several threads may write."""

    def __init__(self, path: str | None) -> None:
        """Keep the end of the text, and write longer text as a whole to a file at `path`, if given."""
        super().__init__()
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # of all that is written as bytes
        self._lock = threading.Lock()  # guards: everything below
        self._parts: list[str] = []
        self._length = 0
        self._written = 0  # characters, to this object
        self._file: BinaryIO | None = None
        self._file_characters = 0

    @property
    def buffer(self) -> _OutputBytes:
        return _OutputBytes(self)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            self._write_to_file(text)
            self._parts.append(text[-KEPT_CHARACTERS:])
            self._length += len(self._parts[-1])
            if self._length > 2 * KEPT_CHARACTERS:
                self._parts = ["".join(self._parts)[-KEPT_CHARACTERS:]]
                self._length = KEPT_CHARACTERS
        return len(text)

    def write_bytes(self, content: bytes) -> None:
        self.write(self._decoder.decode(content))

    def add_to_file(self, text: str) -> None:
        """Add text to the file only, if there is one."""
        with self._lock:
            if self._file is not None:
                self._append(text)

    def close_file(self) -> None:
        """Close the file, if there is one."""
        with self._lock:
            file, self._file, self._path = self._file, None, None
        if file is not None:
            file.close()

    def _write_to_file(self, text: str) -> None:
        """Write to the file, once the text is longer than the kept parts; under the lock."""
        self._written += len(text)
        if self._path is None or self._written <= KEPT_CHARACTERS:
            return
        if self._file is None:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._file = open(os.open(self._path, flags, 0o600), "wb", buffering=0)  # noqa: PTH123, SIM115
            except OSError:  # the whole output is lost, its end is kept
                self._path = None
                return
            self._append("".join(self._parts))
        self._append(text)

    def _append(self, text: str) -> None:
        """Append to the file up to its largest size; under the lock."""
        if self._file is None or self._file_characters >= FILE_CHARACTERS:
            return
        kept = text[: FILE_CHARACTERS - self._file_characters]
        self._file_characters += len(kept)
        try:
            self._file.write(kept.encode("utf-8", "replace"))
        except OSError:  # a full disk costs the rest of the output
            self._file_characters = FILE_CHARACTERS

    def text(self) -> str:
        with self._lock:
            return "".join(self._parts)[-KEPT_CHARACTERS:]


class _OutputBytes(io.BufferedIOBase):
    """The `buffer` of a tail, for calls that write bytes to `sys.stdout.buffer`."""

    def __init__(self, tail: _OutputTail) -> None:
        super().__init__()
        self._tail = tail

    def writable(self) -> bool:
        return True

    def write(self, content: ReadableBuffer) -> int:
        self._tail.write_bytes(whole := bytes(content))
        return len(whole)


class _ThreadStream(io.TextIOBase):
    """Replaces sys.stdout or sys.stderr: captured threads write to their own tail, others to the real stream."""

    def __init__(self, real: TextIO, tails: dict[int, _OutputTail]) -> None:
        super().__init__()
        self.real = real
        self._tails = tails

    def _target(self) -> TextIO | _OutputTail:
        return self._tails.get(threading.get_ident(), self.real)

    @property
    def buffer(self) -> BinaryIO | _OutputBytes:
        return self._target().buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only; TextIOBase has None, which few programs expect
        return getattr(self.real, "encoding", None) or "utf-8"

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


class _StreamCapture:
    """Replaces sys.stdout and sys.stderr while the output of any thread is captured."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: the tails and the streams
        self._tails: dict[int, _OutputTail] = {}
        self._streams: tuple[_ThreadStream, _ThreadStream] | None = None

    def begin(self, tail: _OutputTail) -> _OutputTail | None:
        with self._lock:
            if self._streams is None:
                self._streams = _ThreadStream(sys.stdout, self._tails), _ThreadStream(sys.stderr, self._tails)
                sys.stdout, sys.stderr = self._streams
            elif sys.stdout is None or sys.stderr is None:  # a running call has set them to None: restore them
                out, err = self._streams
                sys.stdout, sys.stderr = sys.stdout or out, sys.stderr or err
            before = self._tails.get(threading.get_ident())
            self._tails[threading.get_ident()] = tail
            return before

    def end(self, before: _OutputTail | None) -> None:
        with self._lock:
            if before is not None:
                self._tails[threading.get_ident()] = before
                return
            del self._tails[threading.get_ident()]
            if not self._tails and self._streams is not None:
                # Keep a stream that other code has put in their place.
                out, err = self._streams
                sys.stdout = out.real if sys.stdout in (out, None) else sys.stdout
                sys.stderr = err.real if sys.stderr in (err, None) else sys.stderr
                self._streams = None

    def restore(self) -> bool:
        with self._lock:
            if self._streams is not None:
                sys.stdout, sys.stderr = self._streams
            return self._streams is not None


_capture = _StreamCapture()  # module state, since sys.stdout belongs to the process


def restore_capture() -> bool:
    """Let abandoned calls print to their own output, whatever the streams are now. Return whether there are any."""
    return _capture.restore()


@contextlib.contextmanager
def _capture_output(tail: _OutputTail) -> Iterator[None]:
    before = _capture.begin(tail)
    try:
        yield
    finally:
        _capture.end(before)
