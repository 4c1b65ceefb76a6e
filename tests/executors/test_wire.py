"""Frames between a pool and its workers."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import pytest

from paropt_exporter.errors import WorkerDied
from paropt_exporter.executors import ProcessPool
from paropt_exporter.executors.worker import loop, wire
from support.pool_tasks import HANG_SECONDS, double


def build_header(length: int) -> bytes:
    return wire.REPLY.pack(length, 1, wire.VALUE, 0.0, 0.0, 0.0, 0.0, 0.0, 0)


def assemble(sent: bytes) -> list[tuple[Any, bytes]]:
    """Return the frames of everything that the other side has sent, received in chunks of 1,000 bytes."""
    assembler, stream, frames = wire.Assembler(wire.REPLY), io.BytesIO(sent), []
    while stream.tell() < len(sent):
        if assembler.wants_body:
            frames += assembler.receive_body(lambda room: stream.readinto(room[:1000])) or []
        else:
            frames += assembler.split(stream.read(1000))
    return [(head[0], bytes(body)) for head, body in frames]


@pytest.mark.parametrize("first_bytes", [1, 1 << 24])
def test_bodies_of_any_size_arrive_whole(first_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_FIRST_BYTES", first_bytes)
    bodies = [b"", b"short", os.urandom(3 * wire.CHUNK_BYTES + 7), b"x" * 999, os.urandom(2 * wire.CHUNK_BYTES)]
    sent = b"".join(build_header(len(body)) + body for body in bodies)
    assert assemble(sent) == [(len(body), body) for body in bodies]


def test_length_that_no_worker_has_sent_costs_no_memory() -> None:
    assembler = wire.Assembler(wire.REPLY)
    assert assembler.split(build_header(1 << 46)) == []
    assert assembler.receive_body(lambda room: len(room)) == []


def test_length_that_no_process_could_send_is_refused() -> None:
    with pytest.raises(ValueError, match="a task has written to the socket"):
        wire.Assembler(wire.REPLY).split(build_header(1 << 62))


def write_and_exit(content: bytes) -> None:
    os.write(loop.SOCKET, content)
    os._exit(1)


def write(descriptor: int, content: bytes) -> None:
    os.write(descriptor, content)


def test_task_that_writes_to_its_workers_socket_fails_alone() -> None:
    with ProcessPool(1) as pool:
        assert isinstance(pool.submit(write_and_exit, build_header(1 << 46)).exception(HANG_SECONDS), WorkerDied)
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8


def test_task_that_writes_text_to_its_workers_socket_fails_at_once() -> None:
    with ProcessPool(1) as pool:
        assert isinstance(pool.submit(write, loop.SOCKET, b"a line of a log\n").exception(HANG_SECONDS), WorkerDied)
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8


@pytest.mark.parametrize("content", [b"8 bytes\n", (2**64 - 2).to_bytes(8, sys.byteorder)], ids=["text", "most"])
def test_task_that_writes_to_its_workers_claims_stops_no_pool(content: bytes) -> None:
    with ProcessPool(1) as pool:
        pool.submit(write, loop.CLAIMS, content).result(HANG_SECONDS)
        ended = pool.submit(os._exit, 1)  # then the pool takes its claims back
        assert isinstance(ended.exception(HANG_SECONDS), WorkerDied)
        assert pool.submit(double, 4).result(HANG_SECONDS) == 8
