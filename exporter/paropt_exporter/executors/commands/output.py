"""Read a command's output and keep its end, in bounded memory and safe to show."""

from __future__ import annotations

import errno
import io
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from paropt_exporter.lazy_patterns import compile_later

TEXT_CHARACTERS = 64 * 1024  # about 800 lines: more than a person scrolls through, and small enough for every record
RAW_BYTES = 4 * TEXT_CHARACTERS  # cleaning removes colours and progress bars: keep enough to fill the text

SMALL_READ_BYTES, LARGE_READ_BYTES = 1 << 10, 1 << 14
FIRST_READ_PAUSE_SECONDS, MAX_READ_PAUSE_SECONDS = 0.001, 0.05
_READ_BYTES = 1 << 16  # the size of a pipe
_MAX_LAST_READS = 64  # after a command's end: more than any pipe holds, and a bound for a writer that can't be killed

_READER_SECONDS = 2.0  # how long to wait for the reader of a full pipe in the place of a file

_CUT = "[about "

_ESCAPE = compile_later(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor; also cut off before its last byte
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS: titles, links
    r"|\x1b[ -/]*[0-~]?"  # two bytes, or a lone ESC
)
# All control characters but tab, newline and return, and the marks that change the direction of text.
_CONTROL = compile_later("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PLAIN = bytes(range(0x20, 0x7F)) + b"\t\n"  # which none of the patterns matches


class OutputFile:
    """A file for the whole output of several attempts. The first attempt truncates it, all attempts append to it.

    `piece_bytes`: output up to this length stays in one piece, longer output is split between lines; 0: write each
    chunk as it arrives, so that users can follow the file of a single attempt.
    """

    def __init__(self, path: Path, *, piece_bytes: int = 0) -> None:
        self.path = path
        self.piece_bytes = piece_bytes
        self._lock = threading.Lock()  # guards: _emptied, until the first open has emptied the file
        self._emptied = False

    def open(self) -> io.RawIOBase:
        """Open the file for appending, and create its folders. Raises OSError, also for a pipe without a reader."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self.path, flags if self._emptied else flags | os.O_TRUNC, 0o666)
            self._emptied = True
        return os.fdopen(descriptor, "ab", buffering=0)


def _append(file: io.RawIOBase, content: bytes) -> None:
    """Write to an open output file. Raises OSError, also if the reader of a pipe in its place stalls."""
    rest = memoryview(content)
    while rest:  # an unbuffered file may write only a part
        written = file.write(rest)
        if written is None and not _wait_for_room(file):
            raise BlockingIOError(errno.EAGAIN, "its reader does not read")
        rest = rest[written or 0 :]


def _wait_for_room(pipe: io.RawIOBase) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return bool(poll.poll(_READER_SECONDS * 1000))


class OutputSink(Protocol):
    """Takes the output of one attempt chunk by chunk; never raises."""

    def write(self, chunk: bytes) -> None: ...

    def close(self, tail_of: Callable[[], bytes]) -> None:
        """End the output; `tail_of` returns its kept end."""


class Capture:
    """The tail of one task's output, and optionally all of it in a file and for a sink.

        write(chunk) --> [ oldest ... newest ] --> text(): decoded, cleaned, cut
                    \\-> file, sink: byte for byte

    Guarantees: it holds at most RAW_BYTES and one chunk in memory, and as much again for the file; the cost of a write
    depends only on its chunk; `write` never raises: after the first error of the file, which `file_error` keeps, it
    stops writing to the file. Only one thread may use it at a time.
    """

    def __init__(self, output_file: OutputFile | None = None, sink: OutputSink | None = None) -> None:
        self._sink = sink
        self.path = output_file.path if output_file is not None else None
        self.file_error = ""
        self.held_bytes = 0
        self._chunks: deque[bytes] = deque()
        self._dropped_bytes = 0
        self._pending = bytearray()  # not yet in the file
        self._piece_bytes = output_file.piece_bytes if output_file is not None else 0
        self._file = self._open_file(output_file)

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Add a chunk of output."""
        if self._file is not None:
            self._pending += chunk
            self._write_pieces()
        if self._sink is not None:
            self._sink.write(chunk)
        kept = chunk[-RAW_BYTES:]
        self._dropped_bytes += len(chunk) - len(kept)
        self._chunks.append(kept)
        self.held_bytes += len(kept)
        while self.held_bytes - len(self._chunks[0]) >= RAW_BYTES:
            gone = len(self._chunks.popleft())
            self.held_bytes -= gone
            self._dropped_bytes += gone

    def text(self) -> str:
        """Return the end of the output, at most TEXT_CHARACTERS, after a line about the missing part if it was cut."""
        raw = self._join_chunks()
        whole = clean_output(raw)
        kept = whole[-TEXT_CHARACTERS:]
        missing = self._dropped_bytes + len(whole) - len(kept)
        if not missing:
            return kept
        return f"{_CUT}{missing} bytes before this are left out]\n{_drop_cut_line(kept)}"

    def close(self) -> None:
        """Write the rest to the file and close it, and close the sink."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.close(self._join_chunks)
        if self._file is not None and self._pending:
            self._write_file(len(self._pending))
        self._close_file()

    def _join_chunks(self) -> bytes:
        return b"".join(self._chunks)

    def _open_file(self, output_file: OutputFile | None) -> io.RawIOBase | None:
        if output_file is None:
            return None
        try:
            return output_file.open()
        except OSError as error:
            self._give_up(error)
            return None

    def _write_pieces(self) -> None:
        """Write pending output that is longer than a piece, up to the end of its last line."""
        if len(self._pending) > self._piece_bytes:
            lines = self._pending.rfind(b"\n") + 1 if self._piece_bytes else 0
            self._write_file(lines or len(self._pending))

    def _write_file(self, count: int) -> None:
        """Write the first `count` pending bytes. With O_APPEND each write lands after those of other attempts."""
        piece = bytes(self._pending[:count])
        del self._pending[:count]
        try:
            if self._file is not None:
                _append(self._file, piece)
        except OSError as error:
            self._give_up(error)
            self._pending.clear()
            self._close_file()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if not self.file_error:
            self.file_error = f"cannot write the output to {self.path}: {error.strerror or error}"


class OutputReader:
    """Reads a command's output from its pipe, with pauses while the output comes in small pieces.

        read() --less than SMALL_READ_BYTES--> paused, twice as long each time --resume_if_due()--> read()
             `--LARGE_READ_BYTES or more--> read again at once

    A test runner that writes a dot for each test would wake this process for each one, which costs more than some
    tests. A large read ends the pauses, so that a command with much output hardly waits for this process.
    """

    def __init__(
        self, descriptor: int, capture: Capture, poll: select.poll, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._descriptor, self._capture, self._poll, self._now = descriptor, capture, poll, now
        self._pause_seconds = 0.0
        self._resumes_seconds = math.inf
        poll.register(descriptor, select.POLLIN)

    def get_pause_left_seconds(self) -> float:
        """Return the time until `resume_if_due` does something, inf if nothing is paused."""
        return max(0.0, self._resumes_seconds - self._now())

    def resume_if_due(self) -> None:
        if self._now() >= self._resumes_seconds:
            self._poll.modify(self._descriptor, select.POLLIN)
            self._resumes_seconds = math.inf

    def read(self) -> None:
        """Read once; call it when `poll` reports the output."""
        read_bytes = _read_once(self._descriptor, self._capture)
        self._pause_seconds = get_read_pause_seconds(self._pause_seconds, read_bytes)
        self._resumes_seconds = math.inf
        if not read_bytes:
            self._poll.unregister(self._descriptor)  # the command has closed its output and continues
        elif self._pause_seconds:
            self._poll.modify(self._descriptor, 0)  # the poll still reports the end
            self._resumes_seconds = self._now() + self._pause_seconds


def get_read_pause_seconds(last_seconds: float, read_bytes: int) -> float:
    """Return the pause after a read of `read_bytes`, if the pause before it was `last_seconds`."""
    if read_bytes >= LARGE_READ_BYTES:
        return 0.0
    if read_bytes >= SMALL_READ_BYTES:
        return last_seconds
    return min(max(2 * last_seconds, FIRST_READ_PAUSE_SECONDS), MAX_READ_PAUSE_SECONDS)


def _read_once(output: int, capture: Capture) -> int:
    chunk = os.read(output, _READ_BYTES)
    if chunk:
        capture.write(chunk)
    return len(chunk)


def drain_output(output: int, capture: Capture) -> None:
    """Read the rest of the pipe without waiting for its end: a process that can't be killed may keep it open."""
    os.set_blocking(output, False)
    try:
        for _ in range(_MAX_LAST_READS):
            if not _read_once(output, capture):
                return
    except BlockingIOError:
        return


def is_cut(text: str) -> bool:
    """Return whether the text of a `Capture` is only the end of the output."""
    return text.startswith(_CUT)


def clean_output(raw: bytes) -> str:
    """Return `raw` as text without terminal escapes and control characters, each line as it was last shown."""
    if not raw.translate(None, _PLAIN):
        return raw.decode("ascii")  # as most output is, for which the patterns need not be compiled
    text = raw.decode("utf-8", "replace")
    text = _CONTROL.sub("", _ESCAPE.sub("", text)).replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(_keep_last_text(line) for line in text.split("\n"))


def _keep_last_text(line: str) -> str:
    """Return the last text of a line: a progress bar returns to the start of the line and overwrites it."""
    kept = line.rstrip("\r")
    return kept[kept.rfind("\r") + 1 :]


def _drop_cut_line(text: str) -> str:
    """Drop the first line, which may be incomplete, unless it is the only one."""
    _, newline, rest = text.partition("\n")
    return rest if newline and rest else text
