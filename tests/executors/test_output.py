"""The end of a command's output is kept in bounded memory and safe to show."""

from __future__ import annotations

import itertools
import math
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.executors.commands import output
from paropt_exporter.executors.commands.output import (
    LARGE_READ_BYTES,
    MAX_READ_PAUSE_SECONDS,
    RAW_BYTES,
    TEXT_CHARACTERS,
    Capture,
    OutputFile,
    OutputReader,
    clean_output,
    drain_output,
    get_read_pause_seconds,
)
from paropt_exporter.testing import FakeClock


def captured(*chunks: bytes) -> str:
    capture = Capture()
    for chunk in chunks:
        capture.write(chunk)
    return capture.text()


def test_short_output_is_kept_unchanged() -> None:
    assert captured(b"one\n", b"tw", b"o\n") == "one\ntwo\n"


def test_no_output_is_an_empty_text() -> None:
    assert captured() == ""


def test_long_output_keeps_its_end_from_the_start_of_a_line() -> None:
    lines = [b"line %d\n" % number for number in range(100_000)]
    first, _, rest = captured(*lines).partition("\n")
    assert first.startswith("[about ")
    assert rest.startswith("line ")
    assert rest.endswith("line 99999\n")
    assert TEXT_CHARACTERS - 20 <= len(rest) <= TEXT_CHARACTERS


def test_missing_bytes_are_counted() -> None:
    text = captured(*[b"x" * 999 + b"\n"] * 1000)
    kept = text.partition("\n")[2]
    assert text.startswith(f"[about {1_000_000 - TEXT_CHARACTERS} bytes before this are left out]\n")
    assert len(kept) <= TEXT_CHARACTERS


def test_line_of_100_megabytes_stays_bounded() -> None:
    capture = Capture()
    for _ in range(1600):
        capture.write(b"x" * 65536)
        assert capture.held_bytes <= RAW_BYTES + 65536
    assert len(capture.text()) < TEXT_CHARACTERS + 100


def test_large_chunk_is_cut() -> None:
    capture = Capture()
    capture.write(b"y" * (10 * RAW_BYTES))
    assert capture.held_bytes <= RAW_BYTES
    assert capture.text().endswith("y" * TEXT_CHARACTERS)


def test_many_tiny_chunks_stay_bounded() -> None:
    capture = Capture()
    for _ in range(RAW_BYTES * 2):
        capture.write(b"z")
    assert capture.held_bytes <= RAW_BYTES


def test_characters_split_between_chunks_stay_whole() -> None:
    euro = "€".encode()
    assert captured(euro[:1], euro[1:2], euro[2:]) == "€"


def test_non_utf8_bytes_are_replaced() -> None:
    assert clean_output(b"caf\xe9 \xff\xfe ok") == "caf\ufffd \ufffd\ufffd ok"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b[38;5;196mdeep\x1b[m", "deep"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1bPdevice\x1b\\text", "text"),
        (b"\x1b(Btext\x1bM", "text"),
        (b"cut off \x1b[3", "cut off "),
        (b"cut off \x1b", "cut off "),
        (b"cut off \x1b]0;never ended", "cut off "),
        ("\u009b31mC1\u009d0;title\u009c".encode(), "C1"),
        (b"bell\x07 null\x00 back\x08 delete\x7f", "bell null back delete"),
        (b"an unended title \x1b]0;ends with\nits line", "an unended title \nits line"),
        ("abc\u202eevil\u2066".encode(), "abcevil"),
        (b"tab\tstays", "tab\tstays"),
    ],
)
def test_terminal_escapes_are_removed(raw: bytes, shown: str) -> None:
    assert clean_output(raw) == shown


def test_progress_bar_keeps_its_last_state() -> None:
    assert clean_output(b"start\n  0 %\r 50 %\r100 %\ndone\n") == "start\n100 %\ndone\n"


def test_progress_bar_that_ends_with_a_return_is_kept() -> None:
    assert clean_output(b" 50 %\r100 %\r\n") == "100 %\n"
    assert clean_output(b"100 %\r\x1b[K\rnext") == "next"


def test_windows_line_ends_become_plain_ones() -> None:
    assert clean_output(b"one\r\ntwo\r\n") == "one\ntwo\n"


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_no_chunking_lets_a_control_character_through(raw: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(raw), *(cut for cut in cuts if cut <= len(raw))})
    text = captured(*(raw[start:end] for start, end in itertools.pairwise(places)))
    assert all(character in "\t\n" or character.isprintable() or ord(character) >= 0xA0 for character in text)
    assert text == clean_output(raw)


def test_hostile_escapes_are_cleaned_in_linear_time() -> None:
    began = time.thread_time()
    for pattern in (b"\x1b[", b"\x1b]", b"\x1b", b"\r", b"\x1b[0;", b"\x9b"):
        clean_output(pattern * (RAW_BYTES // len(pattern)))
    assert time.thread_time() - began < 10  # a quadratic expression would take minutes


def test_output_file_has_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "log.txt"
    raw = bytes(range(256)) * 5000
    with Capture(OutputFile(path)) as capture:
        for start in range(0, len(raw), 65536):
            capture.write(raw[start : start + 65536])
    assert path.read_bytes() == raw
    assert capture.file_error == ""


def test_output_file_exists_from_the_start_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("older")
    with Capture(OutputFile(path)):
        assert path.read_text() == ""


def test_error_of_an_output_file_is_noted_and_output_kept(tmp_path: Path) -> None:
    with Capture(OutputFile(tmp_path)) as capture:
        capture.write(b"text")
    assert capture.text() == "text"
    assert capture.file_error == f"cannot write the output to {tmp_path}: Is a directory"


def test_full_disk_is_noted_once_and_output_kept() -> None:
    """The sink was closed at the error: `log` showed no output of a stage with a `file`."""
    sink = Chunks()
    with Capture(OutputFile(Path("/dev/full")), sink) as capture:
        capture.write(b"one ")
        capture.write(b"two")
    assert capture.text() == "one two"
    assert sink.chunks == [b"one ", b"two"]
    assert capture.file_error == "cannot write the output to /dev/full: No space left on device"


def test_pipe_without_a_reader_in_the_files_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with Capture(OutputFile(tmp_path / "pipe")) as capture:
        capture.write(b"kept")
    assert capture.file_error == f"cannot write the output to {tmp_path}/pipe: No such device or address"
    assert capture.text() == "kept"


def test_full_pipe_in_the_files_place_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_READER_SECONDS", 0.0)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Capture(OutputFile(tmp_path / "pipe")) as capture:
            capture.write(bytes(1 << 20))
        assert capture.file_error == f"cannot write the output to {tmp_path}/pipe: its reader does not read"
        assert os.read(reader, 1 << 20)
    finally:
        os.close(reader)


def test_attempts_that_share_a_file_keep_their_output_in_one_piece(tmp_path: Path) -> None:
    shared = OutputFile(tmp_path / "log.txt", piece_bytes=RAW_BYTES)
    shared.path.write_bytes(b"of an earlier run\n")
    with Capture(shared) as first, Capture(shared) as second:
        for number in range(12):
            first.write(b"first %d\n" % number)
            second.write(b"second %d\n" % number)
    lines = shared.path.read_text().splitlines()
    assert lines == [*(f"second {n}" for n in range(12)), *(f"first {n}" for n in range(12))]


def test_long_output_in_a_shared_file_is_split_between_lines(tmp_path: Path) -> None:
    shared = OutputFile(tmp_path / "log.txt", piece_bytes=100)
    with Capture(shared) as first, Capture(shared) as second:
        for number in range(200):
            first.write(b"1 %d" % number)
            second.write(b"2 %d\n" % number)
            first.write(b"\n")
    lines = shared.path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{who} {n}" for who in (1, 2) for n in range(200))


def test_file_of_a_single_attempt_can_be_followed(tmp_path: Path) -> None:
    with Capture(OutputFile(tmp_path / "log.txt")) as capture:
        capture.write(b"no line yet")
        assert (tmp_path / "log.txt").read_bytes() == b"no line yet"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    for end in (read_end, write_end):
        with suppress(OSError):
            os.close(end)


def test_small_pieces_of_output_are_read_with_growing_pauses(pipe: tuple[int, int]) -> None:
    clock, sink, poll = FakeClock(), Chunks(), select.poll()
    reader = OutputReader(pipe[0], Capture(sink=sink), poll, now=clock.monotonic)
    for _ in range(10_000):  # a dot each millisecond, for 10 s
        os.write(pipe[1], b".")
        clock.advance(0.001)
        reader.resume_if_due()
        if poll.poll(0):
            reader.read()
    reader_wakes = len(sink.chunks)
    drain_output(pipe[0], Capture(sink=sink))
    assert b"".join(sink.chunks) == b"." * 10_000
    assert reader_wakes <= 10 / MAX_READ_PAUSE_SECONDS + 10


def test_large_output_is_read_without_pauses(pipe: tuple[int, int]) -> None:
    clock, sink, poll = FakeClock(), Chunks(), select.poll()
    reader = OutputReader(pipe[0], Capture(sink=sink), poll, now=clock.monotonic)
    for _ in range(100):
        os.write(pipe[1], b"x" * LARGE_READ_BYTES)
        assert poll.poll(0) and reader.get_pause_left_seconds() == math.inf
        reader.read()
    assert sum(map(len, sink.chunks)) == 100 * LARGE_READ_BYTES


def test_fast_output_in_pieces_is_not_paused() -> None:
    pause, pauses = MAX_READ_PAUSE_SECONDS, 0.0
    for read_bytes in (LARGE_READ_BYTES, 3000) * 50:  # pieces of 3 KB, faster than they are read
        pause = get_read_pause_seconds(pause, read_bytes)
        pauses += pause
    assert pauses == 0


def test_end_of_output_is_seen_during_a_pause(pipe: tuple[int, int]) -> None:
    clock, sink, poll = FakeClock(), Chunks(), select.poll()
    reader = OutputReader(pipe[0], Capture(sink=sink), poll, now=clock.monotonic)
    os.write(pipe[1], b"last")
    reader.read()
    os.write(pipe[1], b" words")
    assert not poll.poll(0)  # paused
    os.close(pipe[1])
    while poll.poll(0):
        reader.read()
    assert sink.chunks == [b"last", b" words"]
    assert reader.get_pause_left_seconds() == math.inf


class Chunks:
    """A sink that keeps each chunk."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def close(self, tail_of: Callable[[], bytes]) -> None:
        pass


def test_plain_output_is_cleaned_like_all_other() -> None:
    """Output with nothing but printable ASCII skips the patterns."""
    for byte in range(128):
        raw = bytes([byte]) + b"A"
        assert clean_output(raw) + "é" == clean_output(raw + "é".encode())
