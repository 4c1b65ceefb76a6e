"""Clients come in, and a process that has no descriptor left for them asks again later."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from paropt_exporter.exposition.acceptor import Acceptor
from support.event_samples import StillClock


class Scarce:
    """A listening socket that has no descriptor for its next client, as often as said."""

    def __init__(self, times: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.times = times

    def fileno(self) -> int:
        return self.listener.fileno()

    def accept(self) -> tuple[socket.socket, object]:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self.listener.accept()

    def close(self) -> None:
        self.listener.close()


class Tried:
    """An entrance under test, with what it has taken in."""

    def __init__(self, stack: ExitStack, *, scarce: int = 0) -> None:
        self.clock = StillClock()
        self.selector = stack.enter_context(selectors.DefaultSelector())
        self.taken: list[socket.socket] = []
        self.listener = Scarce(scarce)
        self.entrance = Acceptor([self.listener], self.selector, self.take, self.clock)  # type: ignore[list-item]
        stack.callback(self.entrance.close)
        self.client = stack.enter_context(socket.create_connection(self.listener.listener.getsockname()))
        stack.callback(lambda: [each.close() for each in self.taken])

    def take(self, accepted: socket.socket, peer: object) -> None:
        self.taken.append(accepted)

    def turn(self) -> None:
        """What the serving thread does once."""
        for key, _ in self.selector.select(0):
            key.data()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def test_a_client_is_taken_in(stack: ExitStack) -> None:
    tried = Tried(stack)
    tried.turn()
    assert [each.getpeername() for each in tried.taken] == [tried.client.getsockname()]


def test_without_a_descriptor_it_rests_and_then_takes_the_client_that_waited(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    tried = Tried(stack, scarce=1)
    tried.turn()
    assert "no descriptor left" in caplog.text
    assert not tried.selector.get_map(), "a waiting client would wake the thread again and again"
    tried.clock.advance(0.9)
    tried.entrance.reopen(tried.clock.monotonic())
    tried.turn()
    assert tried.taken == []
    tried.clock.advance(0.1)
    tried.entrance.reopen(tried.clock.monotonic())
    tried.turn()
    assert len(tried.taken) == 1


def test_once_shut_it_opens_no_more(stack: ExitStack) -> None:
    tried = Tried(stack, scarce=1)
    tried.turn()
    tried.entrance.shut()
    tried.clock.advance(10.0)
    tried.entrance.reopen(tried.clock.monotonic())
    tried.turn()
    assert tried.taken == []
