"""The client with the most connections, or the page that is read least, makes room for others."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from paropt_exporter.exposition.connection import (
    Connection,
    Phase,
    choose_stalled_readers,
    choose_victim,
    count_unread_bytes,
    find_next_stall_seconds,
    find_next_victim_seconds,
    identify_client,
)
from paropt_exporter.exposition.protection import Protection

NOW = 10.0
PAGE = b"x" * 1_000_000  # more than a socket takes


@pytest.fixture
def connect() -> Iterator[Callable[..., Connection]]:
    with ExitStack() as exit_stack:

        def make_connection(client: str = "a", *, now: float = 0.0) -> Connection:
            near, far = socket.socketpair()
            exit_stack.callback(far.close)
            made = Connection(near, client=client, now_seconds=now, deadline_seconds=30.0, protection=Protection())
            exit_stack.callback(made.close)
            return made

        yield make_connection


def test_the_victim_is_of_the_client_with_most_connections(connect: Callable[..., Connection]) -> None:
    scraper = connect("scraper", now=0.0)
    flood = [connect("flood", now=moment) for moment in (1.0, 2.0)]
    assert choose_victim([scraper, *flood], now_seconds=NOW) is flood[0]


def test_a_flood_that_is_too_young_does_not_put_another_client_at_risk(connect: Callable[..., Connection]) -> None:
    scraper, flood = connect("scraper", now=0.0), [connect("flood", now=NOW) for _ in range(2)]
    assert choose_victim([scraper, *flood], now_seconds=NOW) is None
    flood[0].suspend(Phase.CHECKING_PASSWORD)
    flood[1].suspend(Phase.CHECKING_PASSWORD)
    assert choose_victim([scraper, *flood], now_seconds=NOW + 1) is flood[0]


def test_the_victim_is_the_clients_longest_idle_connection(connect: Callable[..., Connection]) -> None:
    stalled, fresh = connect(now=1.0), connect(now=2.0)
    assert choose_victim([fresh, stalled], now_seconds=NOW) is stalled


def test_a_response_that_is_being_read_is_progress(connect: Callable[..., Connection]) -> None:
    reader, idle = connect(now=1.0), connect(now=2.0)
    reader.start_response(b"head", PAGE)
    reader.send(now_seconds=3.0)
    assert choose_victim([reader, idle], now_seconds=NOW) is idle


def test_a_connection_with_recent_progress_is_kept(connect: Callable[..., Connection]) -> None:
    young = connect(now=NOW - 0.1)
    assert choose_victim([young], now_seconds=NOW) is None
    assert find_next_victim_seconds([young]) == pytest.approx(NOW + 0.15)


def test_a_connection_that_waits_for_its_page_is_never_closed(connect: Callable[..., Connection]) -> None:
    waiting = connect()
    waiting.suspend(Phase.WAITING_FOR_PAGE)
    assert choose_victim([waiting], now_seconds=NOW) is None
    assert find_next_victim_seconds([waiting]) is None


def test_a_password_check_is_evicted_only_if_there_is_no_other_victim(connect: Callable[..., Connection]) -> None:
    comparing, idle = connect(now=0.0), connect(now=1.0)
    comparing.suspend(Phase.CHECKING_PASSWORD)
    assert choose_victim([comparing, idle], now_seconds=NOW) is idle
    assert choose_victim([comparing], now_seconds=NOW) is comparing


def test_the_page_whose_readers_stalled_longest_goes_first(connect: Callable[..., Connection]) -> None:
    shared, own = PAGE + b"1", PAGE + b"2"
    early, late, other = connect(), connect(), connect()
    for connection, body, moment in ((early, shared, 1.0), (late, shared, 3.0), (other, own, 2.0)):
        connection.start_response(b"head", body)
        connection.send(now_seconds=moment)
    everyone = (early, late, other)
    assert count_unread_bytes(everyone) == 2 * len(own)
    assert find_next_stall_seconds(everyone) == pytest.approx(2.25)

    def choose_stalled(allowed_bytes: int, idle_since_seconds: float = NOW) -> tuple[Connection, ...]:
        return choose_stalled_readers(everyone, allowed_bytes=allowed_bytes, idle_since_seconds=idle_since_seconds)

    assert choose_stalled(2 * len(own)) == ()
    assert choose_stalled(len(own)) == (other,)
    assert choose_stalled(len(own), idle_since_seconds=1.9) == ()
    assert choose_stalled(0, idle_since_seconds=2.5) == (other,)
    assert set(choose_stalled(0)) == set(everyone)


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
    assert identify_client(peer) == client
