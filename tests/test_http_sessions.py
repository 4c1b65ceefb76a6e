"""What a hostile server can make a session of `requests` do."""

from __future__ import annotations

import socket
import tracemalloc
from contextlib import closing

import requests

from paropt_exporter.http_sessions import Sockets, mount_sockets
from support.fake_prometheus import fake_prometheus, http

HANG_SECONDS = 30.0


def test_body_of_a_redirect_is_not_read() -> None:
    with fake_prometheus(http(302, b" " * 50_000_000, "Location: /elsewhere")) as server, requests.Session() as session:
        mount_sockets(session, Sockets())
        tracemalloc.start(1)
        try:
            with session.get(server.url, stream=True, allow_redirects=False, timeout=HANG_SECONDS) as response:
                assert response.status_code == 302
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()


def test_connection_that_is_made_after_the_limit_is_cut() -> None:
    sockets = Sockets()
    (first, first_peer), (second, second_peer) = socket.socketpair(), socket.socketpair()
    with closing(first), closing(first_peer), closing(second), closing(second_peer):
        for peer in (first_peer, second_peer):
            peer.settimeout(HANG_SECONDS)
        with sockets.limit(0.0):
            sockets.use(first)
            assert first_peer.recv(1) == b""  # the limit has expired
            sockets.use(second)
            assert second_peer.recv(1) == b""


def test_limit_ends_with_its_block() -> None:
    sockets = Sockets()
    (first, first_peer), (second, second_peer) = socket.socketpair(), socket.socketpair()
    with closing(first), closing(first_peer), closing(second), closing(second_peer):
        first_peer.settimeout(HANG_SECONDS)
        with sockets.limit(0.0):
            sockets.use(first)
            assert first_peer.recv(1) == b""
        sockets.use(second)
        second.sendall(b"a")
        assert second_peer.recv(1) == b"a"
