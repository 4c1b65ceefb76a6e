"""Make standard output and error writable in any locale, and bearable when their reader has gone."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress

from paropt_exporter.terminal import visible

TYPE_CHECKING = False  # as in cli.main: typing is slow to load
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

_FALLBACK = "paropt-spelled"
_SPELLED = {"·": "-", "…": "...", "—": "-"}  # what we print ourselves; anything else becomes a question mark
_LAST_STANDARD_DESCRIPTOR = 2


def prepare_streams() -> tuple[TextIO, TextIO]:
    """Let printing never fail for what is printed, nor for a stream that was closed before; return both streams."""
    _occupy_standard_descriptors()
    codecs.register_error(_FALLBACK, _replace_unwritable)
    sys.stdout, sys.stderr = _make_visible(_make_usable(sys.stdout)), _make_visible(_make_usable(sys.stderr))
    return sys.stdout, sys.stderr


def discard_output(stream: TextIO) -> None:
    """Let what is still buffered, and all that follows, go nowhere, so that the interpreter's last flush succeeds."""
    with suppress(OSError, ValueError):  # a stream without a descriptor, or a closed one: nothing to flush
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class VisibleStream:
    """A text stream on which a terminal acts upon nothing that is written: see `terminal.visible`.

    All that a command prints goes through it, so that none has to remember where a text came from. Only rich, whose
    own escapes must reach the terminal, writes past it: to `rich_proxied_file`, which it looks for by itself.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(visible(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def get_raw_stream(stream: TextIO) -> TextIO:
    """Return the stream behind a Visible one, for code that writes escapes and cleans foreign text by itself."""
    return stream.rich_proxied_file if isinstance(stream, VisibleStream) else stream


def _make_visible(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, VisibleStream) else VisibleStream(stream)  # type: ignore[return-value]  # it has all of its methods


def is_same_file(first: TextIO, second: TextIO) -> bool:
    """Whether two streams end in the same terminal, pipe or file."""
    try:
        return os.path.sameopenfile(first.fileno(), second.fileno())
    except (OSError, ValueError):  # a stream without a descriptor, or a closed one
        return False


class LineStream:
    """A stream for lines, given up at its first fault: who watches must not hurt the work.

    `fault` is why it was given up, if that is a fault at all: a reader that left (`| head`) has seen enough.
    """

    def __init__(self, stream: TextIO) -> None:
        self.fault: str | None = None
        self._stream = stream
        self._open = True

    @property
    def is_terminal(self) -> bool:
        return self._open and self._stream.isatty()

    def write_line(self, text: str) -> None:
        """Print a line, or nothing once the stream was given up."""
        self._print(text, self._stream)

    def colored(self, text: str) -> None:
        """Print a line of ours with its colours: all that is not ours in it was made visible before."""
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


def _occupy_standard_descriptors() -> None:
    """Else the first file opened gets the number of a closed standard stream, and children would write into it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STANDARD_DESCRIPTOR:
        pass
    os.close(descriptor)


def _make_usable(stream: TextIO | None) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 -- it lives as long as the process
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    if isinstance(stream.buffer, io.RawIOBase) and stream in (sys.__stdout__, sys.__stderr__):
        # PYTHONUNBUFFERED: text goes straight to write(2), and what a signal leaves unwritten there is lost.
        # Only for Python's own streams: whoever put one in their place would find it closed with our buffer.
        buffered = io.BufferedWriter(stream.buffer)
        return io.TextIOWrapper(buffered, stream.encoding, _FALLBACK, line_buffering=True)
    stream.reconfigure(errors=_FALLBACK)
    return stream


def _replace_unwritable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unwritable = error.object[error.start : error.end]
    return "".join(_SPELLED.get(character, "?") for character in unwritable), error.end
