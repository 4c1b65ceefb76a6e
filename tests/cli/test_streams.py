"""Streams that can't encode a text, or have no reader."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import struct
import sys
import termios

import pytest

from paropt_exporter.cli.streams import LineStream, VisibleStream, find_columns_of_terminal, prepare_streams


class Broken(io.StringIO):
    """A stream whose every write fails."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.tries = 0

    def write(self, _: str) -> int:
        self.tries += 1
        raise self.error


def test_characters_outside_the_encoding_are_spelled_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    prepare_streams()
    print("5 stages · café … \udcff")
    assert raw.getvalue() == b"5 stages - caf? ... ?\n"


def test_name_that_is_not_utf_8_prints_as_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
    prepare_streams()
    print("caf\udce9 · é")
    assert raw.getvalue() == "caf? · é\n".encode()


def test_closed_streams_accept_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    prepare_streams()
    assert sys.stdout.write("unheard") > 0
    assert sys.stderr.write("unheard, and no UTF-8: \udcff") > 0
    sys.stdout.close()
    sys.stderr.close()


class Narrow(io.RawIOBase):
    """Takes four bytes a write, as a full pipe does when a signal comes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # any buffer, of which bytes() takes the start
        self.taken += bytes(data[:4])
        return min(4, len(data))


def test_unbuffered_stream_loses_nothing_after_short_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = Narrow()
    unbuffered = io.TextIOWrapper(raw, encoding="utf-8", write_through=True)  # type: ignore[type-var]  # as Python does
    monkeypatch.setattr(sys, "stdout", unbuffered)
    monkeypatch.setattr(sys, "__stdout__", unbuffered)
    prepare_streams()
    print("a line that is longer than four bytes")
    assert raw.taken == b"a line that is longer than four bytes\n"


def test_line_stream_stops_at_its_first_fault_and_keeps_the_cause() -> None:
    stream = Broken(OSError(28, "No space left on device"))
    sink = LineStream(stream)
    sink.write_line("one")
    sink.write_line("two")
    assert sink.fault == "[Errno 28] No space left on device"
    assert stream.tries == 1


def test_reader_that_leaves_is_no_fault() -> None:
    stream = Broken(BrokenPipeError())
    sink = LineStream(stream)
    sink.write_line("one")
    sink.write_line("two")
    assert sink.fault is None
    assert stream.tries == 1


def test_closed_line_stream_is_a_fault_and_no_terminal() -> None:
    stream = io.StringIO()
    stream.close()
    sink = LineStream(stream)
    sink.write_line("one")
    assert sink.fault is not None
    assert not sink.is_terminal


def test_width_is_that_of_the_streams_own_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of `check` on stderr were wrapped at 80 columns if stdout was a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)
    controller, terminal = pty.openpty()
    try:
        with open(terminal, "w", encoding="utf-8", closefd=False) as stream:
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 91, 0, 0))
            assert find_columns_of_terminal(stream) == LineStream(stream).columns == 91
            monkeypatch.setenv("COLUMNS", "60")
            assert find_columns_of_terminal(stream) == 60
            monkeypatch.delenv("COLUMNS")
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 0, 0, 0, 0))
            assert find_columns_of_terminal(stream) is None
    finally:
        os.close(terminal)
        os.close(controller)
    assert LineStream(io.StringIO()).columns is None


@pytest.mark.parametrize("runner", ["", "true"], ids=["terminal", "GitHub"])
def test_json_stays_json_whatever_its_texts_are(monkeypatch: pytest.MonkeyPatch, runner: str) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", runner)
    item = "".join(map(chr, range(0x2100))) + "##[error]\n::warning::x\udcff"
    for text in (json.dumps({"item": item}, indent=2), json.dumps({"item": item}, ensure_ascii=False)):
        printed = io.StringIO()
        VisibleStream(printed).write(text)
        assert json.loads(printed.getvalue()) == {"item": item}
        assert "##[" not in printed.getvalue() or not runner
