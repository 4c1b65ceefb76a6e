"""Whoever holds most places, or reads least, makes room for the others."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from paropt_exporter.exposition import eviction
from paropt_exporter.exposition.connection import Connection, Phase
from paropt_exporter.exposition.protection import Protection

NOW = 10.0
PAGE = b"x" * 1_000_000  # more than a socket takes


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    with ExitStack() as stack:

        def connected(client: str = "a", *, now: float = 0.0) -> Connection:
            near, far = socket.socketpair()
            stack.callback(far.close)
            made = Connection(near, client=client, now_seconds=now, deadline_seconds=30.0, protection=Protection())
            stack.callback(made.close)
            return made

        yield connected


def test_the_client_with_most_connections_gives_one_up(connect: Callable[..., Connection]) -> None:
    scraper = connect("scraper", now=0.0)
    flood = [connect("flood", now=moment) for moment in (1.0, 2.0)]
    assert eviction.one_too_many([scraper, *flood], now_seconds=NOW) is flood[0]


def test_a_flood_that_is_too_young_does_not_put_another_client_at_risk(connect: Callable[..., Connection]) -> None:
    scraper, flood = connect("scraper", now=0.0), [connect("flood", now=NOW) for _ in range(2)]
    assert eviction.one_too_many([scraper, *flood], now_seconds=NOW) is None
    flood[0].wait(Phase.COMPARING)
    flood[1].wait(Phase.COMPARING)
    assert eviction.one_too_many([scraper, *flood], now_seconds=NOW + 1) is flood[0]


def test_of_one_client_the_connection_without_progress_for_longest_goes(connect: Callable[..., Connection]) -> None:
    stalled, fresh = connect(now=1.0), connect(now=2.0)
    assert eviction.one_too_many([fresh, stalled], now_seconds=NOW) is stalled


def test_an_answer_that_is_being_read_is_progress(connect: Callable[..., Connection]) -> None:
    reader, idle = connect(now=1.0), connect(now=2.0)
    reader.reply(b"head", PAGE)
    reader.send(now_seconds=3.0)
    assert eviction.one_too_many([reader, idle], now_seconds=NOW) is idle


def test_a_connection_that_has_just_made_progress_is_not_given_up(connect: Callable[..., Connection]) -> None:
    young = connect(now=NOW - 0.1)
    assert eviction.one_too_many([young], now_seconds=NOW) is None
    assert eviction.next_seconds([young]) == pytest.approx(NOW + 0.15)


def test_a_connection_that_waits_for_its_page_is_never_given_up(connect: Callable[..., Connection]) -> None:
    waiting = connect()
    waiting.wait(Phase.WAITING)
    assert eviction.one_too_many([waiting], now_seconds=NOW) is None
    assert eviction.next_seconds([waiting]) is None


def test_one_whose_password_is_compared_goes_only_if_there_is_no_other(connect: Callable[..., Connection]) -> None:
    comparing, idle = connect(now=0.0), connect(now=1.0)
    comparing.wait(Phase.COMPARING)
    assert eviction.one_too_many([comparing, idle], now_seconds=NOW) is idle
    assert eviction.one_too_many([comparing], now_seconds=NOW) is comparing


def test_a_page_goes_when_all_its_readers_have_stalled_for_longest(connect: Callable[..., Connection]) -> None:
    shared, own = PAGE + b"1", PAGE + b"2"
    early, late, other = connect(), connect(), connect()
    for connection, body, moment in ((early, shared, 1.0), (late, shared, 3.0), (other, own, 2.0)):
        connection.reply(b"head", body)
        connection.send(now_seconds=moment)
    everyone = (early, late, other)
    assert eviction.unread_bytes(everyone) == 2 * len(own)
    assert eviction.next_idle_page_seconds(everyone) == pytest.approx(2.25)

    def given_up(allowed_bytes: int, idle_since_seconds: float = NOW) -> tuple[Connection, ...]:
        return eviction.unread_too_long(everyone, allowed_bytes=allowed_bytes, idle_since_seconds=idle_since_seconds)

    assert given_up(2 * len(own)) == ()
    assert given_up(len(own)) == (other,)
    assert given_up(len(own), idle_since_seconds=1.9) == ()
    assert given_up(0, idle_since_seconds=2.5) == (other,)
    assert set(given_up(0)) == set(everyone)


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (("10.0.0.1", 4711), "10.0.0.1"),
        (("::ffff:10.0.0.1", 4711, 0, 0), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
        ("", ""),
    ],
)
def test_a_client_is_a_host_or_a_network_of_ipv6(peer: object, client: str) -> None:
    assert eviction.client_of(peer) == client
