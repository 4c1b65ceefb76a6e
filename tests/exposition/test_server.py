"""The endpoint serves scrapers, whatever other clients do."""

from __future__ import annotations

import gzip
import http.client
import queue
import socket
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse

import pytest

from paropt_exporter.exposition.listeners import open_listeners
from paropt_exporter.exposition.protection import NoProtection
from paropt_exporter.exposition.server import Server
from support.event_samples import StillClock
from support.real_servers import ended

GUARD_SECONDS = 30.0  # guards against a hang; no test expects it
PAGE = b"# a page\n" * 1000
MEGABYTE = 1_000_000


class Source:
    """A page source whose rendering can be blocked."""

    def __init__(self, body: bytes = PAGE) -> None:
        self.body = body
        self.go = threading.Event()
        self.go.set()
        self.rendering = threading.Semaphore(0)
        self.rendered = 0

    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        self.rendering.release()
        assert self.go.wait(GUARD_SECONDS)
        self.rendered += 1
        return [[self.body]]


class Broken:
    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        raise RuntimeError("no page today")


@pytest.fixture
def server_factory() -> Iterator[Callable[..., Server]]:
    with ExitStack() as exit_stack:

        def start(source: object | None = None, **arguments: object) -> Server:
            listeners = open_listeners(["127.0.0.1:0"], on_fallback=print)
            server = Server(listeners, source or Source(), NoProtection(), **arguments)  # type: ignore[arg-type]  # each test's own
            exit_stack.enter_context(closing(server))
            return server

        yield start


def place(server: Server) -> tuple[str, int]:
    host, _, port = server.addresses[0].rpartition(":")
    return host, int(port)


def ask(server: Server, path: str = "/metrics", method: str = "GET", **headers: str) -> tuple[HTTPResponse, bytes]:
    with closing(http.client.HTTPConnection(*place(server), timeout=GUARD_SECONDS)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(place(server), timeout=GUARD_SECONDS)


def read_to_end(client: socket.socket) -> bytes:
    received = bytearray()
    while chunk := client.recv(65536):
        received += chunk
    return bytes(received)


def wake_server(server: Server) -> None:
    """Make the server accept waiting clients and check its deadlines, which it does between two responses."""
    for _ in range(2):
        assert ask(server, "/-/healthy")[0].status == 200


def test_metrics_are_served_with_their_type_and_length(server_factory: Callable[..., Server]) -> None:
    response, body = ask(server_factory())
    assert (response.status, body) == (200, PAGE)
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(PAGE))


def test_a_page_is_compressed_for_clients_that_accept_gzip(server_factory: Callable[..., Server]) -> None:
    response, body = ask(server_factory(), **{"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == PAGE


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_caches_learn_which_headers_choose_the_page(server_factory: Callable[..., Server], encoding: str) -> None:
    """A proxy that caches pages must not give OpenMetrics to a client that asked for text."""
    response, _ = ask(server_factory(), **{"Accept-Encoding": encoding})
    assert response.headers["Vary"] == "Accept, Accept-Encoding"


def test_head_gets_no_body(server_factory: Callable[..., Server]) -> None:
    with connect(server_factory()) as client:  # `http.client` would ignore a body
        client.sendall(b"HEAD /metrics HTTP/1.1\r\n\r\n")
        head, _, body = read_to_end(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"\r\nContent-Length: %d\r\n" % len(PAGE) in head
    assert body == b""


def test_only_a_page_that_was_sent_whole_counts_as_fetched(server_factory: Callable[..., Server]) -> None:
    """A run that waits for the scrape of its final values must not end by a request for the head, or half a page."""
    fetched: queue.SimpleQueue[float] = queue.SimpleQueue()
    server = server_factory(Source(b"x" * 20 * MEGABYTE), on_fetched=fetched.put)
    ask(server, "/-/healthy")
    ask(server, method="HEAD")
    with connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert client.recv(1000)
    wake_server(server)
    assert fetched.empty()
    ask(server)
    assert fetched.get(timeout=GUARD_SECONDS)


def test_the_landing_page_links_to_the_metrics(server_factory: Callable[..., Server]) -> None:
    response, body = ask(server_factory(telemetry_path="/m"), "/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'<a href="./m">' in body


@pytest.mark.parametrize("path", ["/x", "//metrics", "/metrics/", "/../metrics", "/%6detrics", "/-/", "/METRICS"])
def test_other_paths_are_not_found(server_factory: Callable[..., Server], path: str) -> None:
    response, body = ask(server_factory(), path)
    assert response.status == 404
    assert PAGE not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
def test_other_methods_get_a_405_with_the_allowed_ones(server_factory: Callable[..., Server], method: str) -> None:
    response, _ = ask(server_factory(), method=method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_an_endpoint_is_healthy_and_ready_while_it_serves(server_factory: Callable[..., Server]) -> None:
    server = server_factory()
    assert (ask(server, "/-/healthy")[0].status, ask(server, "/-/ready")[0].status) == (200, 200)


def test_a_rendering_error_fails_only_its_scrape(
    server_factory: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = server_factory(Broken())
    assert ask(server)[0].status == 500
    assert ask(server, "/-/healthy")[0].status == 200
    assert "could not be rendered" in caplog.text


def test_a_page_that_can_not_be_compressed_fails_only_its_scrape(
    server_factory: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise MemoryError

    server = server_factory()
    with monkeypatch.context() as patched:
        patched.setattr(zlib, "compressobj", fail)
        assert ask(server, **{"Accept-Encoding": "gzip"})[0].status == 500
    assert ask(server)[0].status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(10_000)) + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/7.7\r\n\r\n",
        b"\r\n" * 5_000_000,
    ],
    ids=["10 MB line", "10,000 headers", "HTTP/2", "TLS", "NUL", "version", "empty lines"],
)
def test_an_invalid_request_gets_its_4xx_while_the_client_still_sends(
    server_factory: Callable[..., Server], sent: bytes
) -> None:
    server = server_factory()
    with connect(server) as client:
        client.sendall(sent)
        answer = read_to_end(client)
    assert answer.startswith(b"HTTP/1.1 4")
    assert ask(server)[0].status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /metrics HTTP/1.1\r\nAccept: ;;q=x,\xff\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n" * 3,
        b"GET http://elsewhere/metrics HTTP/1.1\r\n\r\n",
        b"\r\nGET /metrics HTTP/1.0\n\n",
    ],
    ids=["accept", "body", "pipelined", "absolute", "bare newlines"],
)
def test_odd_but_valid_requests_get_one_response(server_factory: Callable[..., Server], sent: bytes) -> None:
    with connect(server_factory()) as client:
        client.sendall(sent)
        answer = read_to_end(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n" + PAGE)
    assert answer.count(b"HTTP/1.1") == 1


def test_more_idle_connections_than_allowed_leave_room_for_a_scrape(server_factory: Callable[..., Server]) -> None:
    server = server_factory(max_connections=64)
    with ExitStack() as exit_stack:
        for _ in range(300):
            exit_stack.enter_context(connect(server))
        assert ask(server)[0].status == 200


def test_a_client_that_sends_half_a_request_slowly_is_closed_at_its_deadline(
    server_factory: Callable[..., Server],
) -> None:
    clock = StillClock()
    server = server_factory(clock=clock)
    with connect(server) as client:
        wake_server(server)  # its deadline counts from here
        for byte in b"GET /metrics HTT":
            client.sendall(bytes((byte,)))
            clock.advance(2.0)  # always busy, until its 30 s are over
        wake_server(server)
        assert ended(client)


def test_a_client_that_never_reads_is_closed_and_delays_no_other(server_factory: Callable[..., Server]) -> None:
    clock, size = StillClock(), 50_000_000
    server = server_factory(Source(b"x" * size), clock=clock)
    with connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        assert ask(server, "/-/healthy")[0].status == 200
        clock.advance(31.0)
        wake_server(server)
        with pytest.raises(ConnectionResetError):
            read_to_end(client)


def open_unread(
    server: Server, *, receive_bytes: int = 65536, accept: str = "*/*", source: str = "127.0.0.1"
) -> socket.socket:
    """Request the page on a connection and never read the response."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(GUARD_SECONDS)
    client.bind((source, 0))
    client.connect(place(server))
    client.sendall(f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
    return client


class FreshPages(Source):
    """A source of large pages, a new object for each rendering, as of the real one."""

    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        [[body]] = super().render_parts(openmetrics=openmetrics)
        return [[bytes(len(body))]]


@contextmanager
def trace_peak_bytes() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the peak of Python's memory within the block, in bytes."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_scrapes_that_wait_together_share_one_body(server_factory: Callable[..., Server]) -> None:
    source = FreshPages(b"x" * 8 * MEGABYTE)
    source.go.clear()
    server = server_factory(source)
    with ExitStack() as exit_stack, trace_peak_bytes() as peak_bytes:
        exit_stack.enter_context(open_unread(server))
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        clients = [exit_stack.enter_context(open_unread(server)) for _ in range(20)]
        wake_server(server)
        source.go.set()
        assert all(client.recv(1) == b"H" for client in clients)
        assert peak_bytes() < 3 * 8 * MEGABYTE
    assert source.rendered == 2


def test_clients_that_never_read_hold_a_bounded_number_of_pages(server_factory: Callable[..., Server]) -> None:
    server = server_factory(FreshPages(b"x" * 8 * MEGABYTE), unread_bytes=20 * MEGABYTE)
    with ExitStack() as exit_stack, trace_peak_bytes() as peak_bytes:
        for _ in range(8):
            assert exit_stack.enter_context(open_unread(server)).recv(1) == b"H"
        assert peak_bytes() < 30 * MEGABYTE
        assert ask(server)[0].status == 200


def test_a_page_waits_until_the_reader_of_another_stalls(server_factory: Callable[..., Server]) -> None:
    clock, size = StillClock(), 8 * MEGABYTE
    source = FreshPages(b"x" * size)
    server = server_factory(source, unread_bytes=2 * size, clock=clock)
    with ExitStack() as exit_stack:
        for _ in range(2):
            assert exit_stack.enter_context(open_unread(server)).recv(1) == b"H"
        last = exit_stack.enter_context(open_unread(server))
        wake_server(server)
        assert source.rendered == 2
        clock.advance(0.3)
        wake_server(server)
        assert last.recv(1) == b"H"
        assert source.rendered == 3


def test_client_with_stalled_readers_gets_one_rendering_a_second(server_factory: Callable[..., Server]) -> None:
    clock, source = StillClock(), FreshPages(b"x" * MEGABYTE)
    server = server_factory(source, clock=clock)
    with ExitStack() as exit_stack:

        def ask_without_reading(address: str = "127.0.0.1") -> int:
            """Return how many pages have been rendered when the answer begins."""
            assert exit_stack.enter_context(open_unread(server, source=address)).recv(1) == b"H"
            return source.rendered

        assert [ask_without_reading() for _ in range(4)] == [1, 2, 3, 4]
        clock.advance(0.3)
        assert [ask_without_reading() for _ in range(4)] == [4, 4, 4, 4]
        assert ask_without_reading("127.0.0.2") == 5
        assert gzip.decompress(ask(server, **{"Accept-Encoding": "gzip"})[1]) == bytes(MEGABYTE)
        assert source.rendered == 6
        clock.advance(0.8)
        assert [ask_without_reading() for _ in range(4)] == [7, 7, 7, 7]


def test_a_reading_client_keeps_its_page_when_others_stall(server_factory: Callable[..., Server]) -> None:
    clock, size = StillClock(), 8 * MEGABYTE
    server = server_factory(FreshPages(b"x" * size), unread_bytes=3 * size, clock=clock)
    with ExitStack() as exit_stack:
        reader = exit_stack.enter_context(open_unread(server, receive_bytes=16384))
        received = len(reader.recv(1))
        for _ in range(6):
            clock.advance(1.0)
            while received % MEGABYTE or not received:
                received += len(reader.recv(MEGABYTE - received % MEGABYTE))
            received += len(reader.recv(1))
            assert exit_stack.enter_context(open_unread(server)).recv(1) == b"H"
        assert received + len(read_to_end(reader)) > size


def test_a_page_larger_than_the_bound_is_served(server_factory: Callable[..., Server]) -> None:
    server = server_factory(FreshPages(b"x" * MEGABYTE), unread_bytes=1)
    with open_unread(server):
        assert len(ask(server)[1]) == MEGABYTE


def test_accept_headers_that_choose_one_format_share_one_rendering(server_factory: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = server_factory(source)
    with ExitStack() as exit_stack:
        exit_stack.enter_context(open_unread(server))
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        accepts = [f"text/plain;version={v};q=0.{n}" for n in range(1, 20) for v in ("0.0.4", "1.0.0;escaping=dots")]
        clients = [exit_stack.enter_context(open_unread(server, accept=accept)) for accept in accepts]
        wake_server(server)
        source.go.set()
        answers = [read_to_end(client) for client in clients]
    assert all(answer.endswith(PAGE) for answer in answers)
    assert b"version=1.0.0; charset=utf-8; escaping=dots" in answers[1]
    assert source.rendered == 2


def test_scrapes_of_both_formats_that_wait_together_are_answered(server_factory: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = server_factory(source)
    with ExitStack() as exit_stack:
        exit_stack.enter_context(open_unread(server))
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        accepts = ["text/plain", "application/openmetrics-text;version=1.0.0"] * 2
        clients = [exit_stack.enter_context(open_unread(server, accept=accept)) for accept in accepts]
        wake_server(server)
        source.go.set()
        assert all(read_to_end(client).endswith(PAGE) for client in clients)
    assert source.rendered == 3


def test_clients_queue_while_all_connections_wait_for_pages(server_factory: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = server_factory(source, max_connections=4)
    with ExitStack() as exit_stack:
        clients = [exit_stack.enter_context(open_unread(server)) for _ in range(12)]
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        source.go.set()
        assert all(read_to_end(client).endswith(PAGE) for client in clients)


def test_more_scrapes_than_allowed_get_503_at_once(server_factory: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = server_factory(source, max_requests=1)
    with connect(server) as first:
        first.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        assert ask(server)[0].status == 503
        assert ask(server, "/-/healthy")[0].status == 200
        source.go.set()
        assert read_to_end(first).endswith(PAGE)
    assert ask(server)[0].status == 200


def test_scrapes_that_wait_together_share_one_rendering(server_factory: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = server_factory(source)
    with ExitStack() as exit_stack:
        clients = [exit_stack.enter_context(connect(server)) for _ in range(6)]
        assert ask(server, "/-/healthy")[0].status == 200  # earlier clients have been accepted
        clients[0].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        for client in clients[1:]:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        # The loop handles input and new clients in order: after this response the scrapes before it are waiting.
        assert ask(server, "/-/healthy")[0].status == 200
        source.go.set()
        assert all(read_to_end(client).endswith(PAGE) for client in clients)
    assert source.rendered == 2


def test_close_frees_the_port_and_ends_the_threads(server_factory: Callable[..., Server]) -> None:
    before = set(threading.enumerate())
    server = server_factory()
    server.close()
    assert set(threading.enumerate()) <= before
    for listener in open_listeners(server.addresses, on_fallback=print):
        listener.close()
