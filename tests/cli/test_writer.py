"""The background writer: a stalled reader blocks only its thread, and dropped lines are counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from paropt_exporter.cli.writer import MOST_CHARACTERS, BackgroundWriter

HANG_SECONDS = 30.0


class Reader:
    """Takes lines, but for as long as it is held up."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reading = threading.Event()
        self.reading.set()
        self.asked = threading.Event()
        self.idle = threading.Event()
        self.writer = BackgroundWriter("reader", say=self.take, tell_idle=self.idle.set)

    def take(self, line: str) -> None:
        self.asked.set()
        assert self.reading.wait(HANG_SECONDS)
        self.lines.append(line)

    def put(self, line: str, characters: int = 1) -> None:
        self.writer.put(lambda: self.take(line), characters=characters, lines=1)

    def stall(self) -> None:
        """Let the writer wait in the middle of a line."""
        self.reading.clear()
        self.put("stalled")
        assert self.asked.wait(HANG_SECONDS)


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.reading.set()
    assert reader.writer.wait(HANG_SECONDS)


def test_lines_are_written_in_their_order(reader: Reader) -> None:
    for number in range(100):
        reader.put(str(number))
    assert reader.writer.wait(HANG_SECONDS)
    assert reader.lines == [str(number) for number in range(100)]


def test_stalled_reader_blocks_no_writer_and_gets_the_count_of_dropped_lines(reader: Reader) -> None:
    reader.stall()
    for number in range(10):
        reader.put(str(number), characters=MOST_CHARACTERS // 4)
    assert not reader.writer.is_idle
    reader.reading.set()
    assert reader.writer.wait(HANG_SECONDS)
    assert reader.lines == ["stalled", "0", "1", "2", "3", "6 lines not shown: the reader was too slow"]


def test_line_after_dropped_ones_follows_their_count(reader: Reader) -> None:
    reader.stall()
    reader.put("long", characters=MOST_CHARACTERS)
    reader.put("lost")
    reader.writer.put(lambda: reader.put("after"))  # when there is room again
    reader.reading.set()
    assert reader.writer.wait(HANG_SECONDS)
    assert reader.lines == ["stalled", "long", "1 line not shown: the reader was too slow", "after"]


def test_text_larger_than_the_bound_is_written_to_an_empty_queue(reader: Reader) -> None:
    reader.put("huge", characters=2 * MOST_CHARACTERS)
    assert reader.writer.wait(HANG_SECONDS)
    assert reader.lines == ["huge"]


def test_wait_gives_up_on_a_stalled_reader(reader: Reader) -> None:
    reader.stall()
    assert not reader.writer.wait(0.01)


def test_idle_callback_follows_the_last_write(reader: Reader) -> None:
    reader.stall()
    reader.idle.clear()
    reader.reading.set()
    assert reader.idle.wait(HANG_SECONDS)
    assert reader.writer.is_idle


def test_ticks_come_between_writes_until_they_are_turned_off(reader: Reader) -> None:
    ticks = threading.Semaphore(0)
    reader.writer.put(lambda: reader.writer.set_tick(ticks.release, 0.0))
    assert all(ticks.acquire(timeout=HANG_SECONDS) for _ in range(3))
    ended = threading.Event()
    reader.writer.put(lambda: reader.writer.set_tick(None))
    reader.writer.put(ended.set)
    assert ended.wait(HANG_SECONDS)
    assert reader.writer.wait(HANG_SECONDS)


def test_failed_write_affects_no_other_write(reader: Reader) -> None:
    def fail() -> None:
        raise OSError

    reader.writer.put(fail)
    reader.put("next")
    assert reader.writer.wait(HANG_SECONDS)
    assert reader.lines == ["next"]
