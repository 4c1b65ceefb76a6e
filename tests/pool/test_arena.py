"""Memory shared by a pool and one worker."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from paropt_exporter.pool.worker.arena import Arena


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = os.memfd_create("test")
    yield made
    os.close(made)


def test_one_side_reads_what_the_other_put(descriptor: int) -> None:
    ours, theirs = Arena(descriptor), Arena(descriptor)
    for body in (b"x" * 100_000, b"y" * 3_000_000, b"z"):
        assert ours.put([body[:9], body[9:]])
        assert bytes(theirs.view(len(body))) == body
        theirs.done()
        assert theirs.put([body[::-1]])
        assert bytes(ours.view(len(body))) == body[::-1]
        ours.done()


def test_memory_of_a_large_body_is_given_back_when_it_is_read_and_a_small_ones_is_kept(descriptor: int) -> None:
    ours, theirs = Arena(descriptor), Arena(descriptor)
    for size, kept in ((1 << 20, 1 << 20), (50 << 20, 0), (1 << 20, 1 << 20)):
        assert ours.put([bytes(size)])
        view = theirs.view(size)
        theirs.done()
        view.release()
        assert os.fstat(descriptor).st_size == kept


def test_a_body_that_finds_no_room_is_refused_and_said_so(descriptor: int) -> None:
    read_only = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY)
    assert not Arena(read_only).put([b"x"])
    os.close(read_only)
