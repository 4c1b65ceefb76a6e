"""Memory shared by a pool and one worker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from paropt_exporter.executors import lifetime
from paropt_exporter.executors.processes.transport import WorkerConnection
from paropt_exporter.executors.worker import wire
from paropt_exporter.executors.worker.pickle_buffers import PickleBuffers
from paropt_exporter.executors.worker.shared_memory import SharedMemory


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = os.memfd_create("test")
    yield made
    os.close(made)


def test_one_side_reads_the_bodies_of_the_other(descriptor: int) -> None:
    ours, theirs = SharedMemory(descriptor), SharedMemory(descriptor)
    for body in (b"x" * 100_000, b"y" * 3_000_000, b"z"):
        assert ours.write([body[:9], body[9:]])
        assert bytes(theirs.get_view(len(body))) == body
        theirs.release()
        assert theirs.write([body[::-1]])
        assert bytes(ours.get_view(len(body))) == body[::-1]
        ours.release()


def test_memory_of_a_large_body_is_freed_and_of_a_small_one_kept(descriptor: int) -> None:
    ours, theirs = SharedMemory(descriptor), SharedMemory(descriptor)
    for size, kept in ((1 << 20, 1 << 20), (50 << 20, 0), (1 << 20, 1 << 20)):
        assert ours.write([bytes(size)])
        view = theirs.get_view(size)
        theirs.release()
        view.release()
        assert os.fstat(descriptor).st_size == kept


def test_write_returns_false_without_memory(descriptor: int) -> None:
    read_only = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    assert not SharedMemory(read_only).write([b"x"])
    os.close(read_only)


class _Parts(list[bytes | memoryview]):
    """Parts of a body that call a function while they are written, after the first one."""

    def __init__(self, parts: list[bytes], then: Callable[[], object]) -> None:
        super().__init__(parts)
        self._then = then
        self._looks = 0

    def __iter__(self) -> Iterator[bytes | memoryview]:
        self._looks += 1
        for number, part in enumerate(super().__iter__()):
            if self._looks == 2 and number == 1:  # the first look is at their lengths
                self._then()
            yield part


def test_write_to_a_dying_worker_reaches_no_other_file(tmp_path: Path) -> None:
    connection = WorkerConnection(lifetime.FORK_SERVERS)
    opened: list[BinaryIO] = []

    def die() -> None:
        connection.close()
        opened.extend((tmp_path / str(number)).open("wb") for number in range(20))  # the closed numbers are theirs

    body = PickleBuffers(bytes(100_000))
    body.parts = _Parts([b"first", b"second"], die)
    connection.send_task(0, (b"function", body), profiled=False, shares_memory=True)
    for file in opened:
        file.close()
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0] * 20


def test_arguments_of_a_held_task_leave_the_memory_to_the_running_one() -> None:
    connection = WorkerConnection(lifetime.FORK_SERVERS)
    running, held = PickleBuffers(b"r" * 100_000), PickleBuffers(b"h" * 100_000)
    connection.send_task(0, (b"function", running), profiled=False, shares_memory=True)
    connection.send_task(1, (b"function", held), profiled=False, shares_memory=False)
    assert connection.view_body(wire.SIZE.pack(len(running))) == running.join()
    connection.close()
