"""Prepare standard output and error for any locale, for foreign control characters, and for readers that leave."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress

from paropt_exporter.terminal import disarm_commands, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

    from _typeshed import ReadableBuffer

_FALLBACK = "paropt-spelled"
_SPELLED = {"·": "-", "…": "...", "—": "-"}  # replacements of our own characters; others become a question mark
_LAST_STANDARD_DESCRIPTOR = 2


def prepare_streams() -> tuple[TextIO, TextIO]:
    """Make printing succeed for any text and for closed streams. Return both streams."""
    _occupy_standard_descriptors()
    codecs.register_error(_FALLBACK, _replace_unwritable)
    sys.stdout, sys.stderr = _make_visible(_make_usable(sys.stdout)), _make_visible(_make_usable(sys.stderr))
    return sys.stdout, sys.stderr


def discard_output(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, so that the interpreter's last flush of its buffer succeeds."""
    with suppress(OSError, ValueError):  # a closed stream, or one without a descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class VisibleStream:
    """A text stream that escapes control characters (`terminal.visible`), and workflow commands on GitHub's runners.

    Commands print everything through it, so that foreign text can control neither the terminal nor the runner. Only
    rich, whose own escapes must reach the terminal, writes to the stream behind it, which it finds as
    `rich_proxied_file`. `fault` is the error of the last write that failed.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream
        self.fault: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self.rich_proxied_file.write(_disarm(visible(text)))
        except OSError as error:
            self.fault = error
            raise
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def get_raw_stream(stream: TextIO) -> TextIO:
    """Return the stream behind a VisibleStream, for code that writes escapes and escapes foreign text itself."""
    return stream.rich_proxied_file if isinstance(stream, VisibleStream) else stream


def is_write_error(error: BaseException, stream: TextIO) -> bool:
    """Return whether a write to the stream raised this error."""
    return isinstance(stream, VisibleStream) and stream.fault is error


def _disarm(text: str) -> str:
    return disarm_commands(text) if os.environ.get("GITHUB_ACTIONS") == "true" else text


def _make_visible(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, VisibleStream) else VisibleStream(stream)  # type: ignore[return-value]  # it has all of its methods


def is_same_file(first: TextIO, second: TextIO) -> bool:
    """Return whether two streams write to the same terminal, pipe or file."""
    try:
        return os.path.sameopenfile(first.fileno(), second.fileno())
    except (OSError, ValueError):  # a stream without a descriptor, or a closed one
        return False


def find_columns_of_terminal(stream: TextIO) -> int | None:
    """Return $COLUMNS or the width of the terminal; None for another kind of stream, or if it does not report one."""
    try:
        if not stream.isatty():
            return None
        given = os.environ.get("COLUMNS", "")
        return int(given if given.isdecimal() else os.get_terminal_size(stream.fileno()).columns) or None
    except (OSError, ValueError):  # a closed stream
        return None


class LineStream:
    """A stream for lines that goes silent after an error, so that output never fails the work.

    `fault` is the last error's reason; None after a broken pipe, since a reader that left (`| head`) is not an error.
    """

    def __init__(self, stream: TextIO) -> None:
        self.fault: str | None = None
        self._stream = stream
        self._open = True

    @property
    def is_terminal(self) -> bool:
        return self._open and self._stream.isatty()

    @property
    def columns(self) -> int | None:
        """The width of the terminal, as `find_columns_of_terminal` finds it."""
        return find_columns_of_terminal(self._stream) if self._open else None

    def resume(self) -> None:
        """Print again after a fault that may be over by now, such as a full disk."""
        self._open = self._open or self.fault is not None

    def write_line(self, text: str) -> None:
        """Print a line, or nothing after an error."""
        self._print(text, self._stream)

    def colored(self, text: str) -> None:
        """Print a line with its colours. Foreign text in it must be escaped already."""
        self._print(_disarm(text), get_raw_stream(self._stream))

    def write_commands(self, text: str) -> None:
        """Print lines with commands for GitHub's runner. Foreign text in them must be escaped already."""
        self._print(text, get_raw_stream(self._stream))

    def _print(self, text: str, stream: TextIO) -> None:
        if not self._open:
            return
        try:
            print(text, file=stream, flush=True)
        except BrokenPipeError:
            self._give_up()
        except (OSError, ValueError) as error:
            self.fault = str(error)
            self._give_up()

    def _give_up(self) -> None:
        self._open = False
        discard_output(self._stream)


def print_message(text: str) -> None:
    """Print a message to stderr, if that is open. On a terminal, lines break between words."""
    from paropt_exporter.cli.formatting import wrap_for_terminal  # here: few commands fail

    stream = LineStream(sys.stderr)
    columns = stream.columns
    stream.write_line("\n".join(part for line in text.split("\n") for part in wrap_for_terminal(line, columns, 2)))


def _occupy_standard_descriptors() -> None:
    """Open closed standard descriptors. Otherwise a file that is opened next gets one, and children write into it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_DESCRIPTOR:
        pass
    os.close(descriptor)


def _make_usable(stream: TextIO | None) -> TextIO:
    if stream is None:
        # They stay open until the process ends.
        return open(os.devnull, "w", encoding="utf-8", errors=_FALLBACK)  # noqa: PTH123
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = stream.buffer if isinstance(stream.buffer, io.RawIOBase) else getattr(stream.buffer, "raw", None)
    # Only Python's own streams are replaced: our buffer would close a stream that a caller has put in their place.
    if raw is None or stream not in (sys.__stdout__, sys.__stderr__):
        stream.reconfigure(errors=_FALLBACK)
        return stream
    with suppress(OSError):  # a program that calls `main` may have printed before
        stream.flush()
    file = _WaitingFile(raw.fileno(), "w", closefd=False) if isinstance(raw, io.FileIO) else raw
    # With PYTHONUNBUFFERED, text would go directly to write(2), and a signal may lose a part of it.
    by_line = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(io.BufferedWriter(file), stream.encoding, _FALLBACK, line_buffering=by_line)


class _WaitingFile(io.FileIO):
    """A file whose writes wait for the reader, although another program has made it non-blocking.

    A program that shares the pipe or terminal may do that, as asyncio does for a program's own stdout. Writes then
    failed as soon as the reader was slow, and the rest of the output was lost. To make it blocking again could stall
    that program.
    """

    def write(self, data: ReadableBuffer, /) -> int:
        while (count := super().write(data)) is None:
            import select  # here: hardly any stream is full

            full = select.poll()
            full.register(self.fileno(), select.POLLOUT)
            full.poll()
        return count


def _replace_unwritable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unwritable = error.object[error.start : error.end]
    return "".join(_SPELLED.get(character, "?") for character in unwritable), error.end
