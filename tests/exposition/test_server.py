"""What the endpoint does for scrapers, and what clients of all kinds can't do to it."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse

import pytest

from paropt_exporter.errors import UsageError
from paropt_exporter.exposition import address
from paropt_exporter.exposition.server import Server, serve
from support.event_samples import StillClock
from support.real_servers import ended

GUARD_SECONDS = 30.0  # a hang guard, no expectation
PAGE = b"# a page\n" * 1000
MEGABYTE = 1_000_000


class Source:
    """A page that can be held back."""

    def __init__(self, body: bytes = PAGE) -> None:
        self.body = body
        self.go = threading.Event()
        self.go.set()
        self.rendering = threading.Semaphore(0)
        self.rendered = 0

    def page(self, *, openmetrics: bool) -> bytes:
        self.rendering.release()
        assert self.go.wait(GUARD_SECONDS)
        self.rendered += 1
        return self.body


class Broken:
    def page(self, *, openmetrics: bool) -> bytes:
        raise RuntimeError("no page today")


@pytest.fixture
def serving() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:

        def start(source: object | None = None, **arguments: object) -> Server:
            server = serve(["127.0.0.1:0"], source or Source(), **arguments)  # type: ignore[arg-type]  # each test's own
            stack.enter_context(closing(server))
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


def everything(client: socket.socket) -> bytes:
    received = bytearray()
    while chunk := client.recv(65536):
        received += chunk
    return bytes(received)


def wake(server: Server) -> None:
    """Have the server accept who waits and look at its deadlines, which it does between two answers."""
    for _ in range(2):
        assert ask(server, "/-/healthy")[0].status == 200


def test_metrics_are_served_with_their_type_and_length(serving: Callable[..., Server]) -> None:
    response, body = ask(serving())
    assert (response.status, body) == (200, PAGE)
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(PAGE))


def test_a_page_is_packed_for_whoever_takes_gzip(serving: Callable[..., Server]) -> None:
    response, body = ask(serving(), **{"Accept-Encoding": "gzip"})
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == PAGE


def test_head_has_the_head_alone(serving: Callable[..., Server]) -> None:
    response, body = ask(serving(), method="HEAD")
    assert (response.status, response.headers["Content-Length"], body) == (200, str(len(PAGE)), b"")


def test_the_landing_page_links_to_the_metrics(serving: Callable[..., Server]) -> None:
    response, body = ask(serving(telemetry_path="/m"), "/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'<a href="/m">' in body


@pytest.mark.parametrize("path", ["/x", "//metrics", "/metrics/", "/../metrics", "/%6detrics", "/-/", "/METRICS"])
def test_other_paths_are_not_found(serving: Callable[..., Server], path: str) -> None:
    response, body = ask(serving(), path)
    assert response.status == 404
    assert PAGE not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get", "BREW"])
def test_other_methods_are_told_which_there_are(serving: Callable[..., Server], method: str) -> None:
    response, _ = ask(serving(), method=method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_ready_is_503_until_the_exporter_is(serving: Callable[..., Server]) -> None:
    ready = threading.Event()
    server = serving(ready=ready.is_set)
    assert (ask(server, "/-/healthy")[0].status, ask(server, "/-/ready")[0].status) == (200, 503)
    ready.set()
    assert ask(server, "/-/ready")[0].status == 200


def test_a_page_that_can_not_be_rendered_is_an_error_of_that_scrape_alone(
    serving: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = serving(Broken())
    assert ask(server)[0].status == 500
    assert ask(server, "/-/healthy")[0].status == 200
    assert "could not be rendered" in caplog.text


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"a" * 10_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(10_000)) + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET /\0 HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/7.7\r\n\r\n",
    ],
    ids=["10 MB line", "10,000 headers", "HTTP/2", "TLS", "NUL", "version"],
)
def test_what_is_no_request_is_told_so_even_while_it_is_still_sending(
    serving: Callable[..., Server], sent: bytes
) -> None:
    server = serving()
    with connect(server) as client:
        client.sendall(sent)
        answer = everything(client)
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
def test_what_is_harmless_is_answered_once(serving: Callable[..., Server], sent: bytes) -> None:
    with connect(serving()) as client:
        client.sendall(sent)
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n" + PAGE)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_thousand_idle_connections_leave_room_for_a_scrape(serving: Callable[..., Server]) -> None:
    server = serving(max_connections=64)
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connect(server))
        assert ask(server)[0].status == 200


def test_a_client_that_drips_half_a_request_is_dropped_at_its_deadline(serving: Callable[..., Server]) -> None:
    clock = StillClock()
    server = serving(clock=clock)
    with connect(server) as client:
        wake(server)  # its time runs from here
        for byte in b"GET /metrics HTT":
            client.sendall(bytes((byte,)))
            clock.advance(2.0)  # always busy, and over its 30 s in the end
        wake(server)
        assert ended(client)


def test_a_client_that_never_reads_is_dropped_and_holds_up_nobody(serving: Callable[..., Server]) -> None:
    clock, size = StillClock(), 50_000_000
    server = serving(Source(b"x" * size), clock=clock)
    with connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert client.recv(1) == b"H"
        assert ask(server, "/-/healthy")[0].status == 200
        clock.advance(31.0)
        wake(server)
        with pytest.raises(ConnectionResetError):
            everything(client)


def unread(server: Server, *, receive_bytes: int = 65536, accept: str = "*/*") -> socket.socket:
    """Ask for the page on a connection whose answer nobody reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(GUARD_SECONDS)
    client.connect(place(server))
    client.sendall(f"GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n".encode())
    return client


class Fresh(Source):
    """A large page that is made anew for each rendering, as the real one is."""

    def page(self, *, openmetrics: bool) -> bytes:
        return bytes(len(super().page(openmetrics=openmetrics)))


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Return what tells the largest number of bytes that Python held within the block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_scrapes_that_wait_together_share_one_body(serving: Callable[..., Server]) -> None:
    source = Fresh(b"x" * 8 * MEGABYTE)
    source.go.clear()
    server = serving(source)
    with ExitStack() as stack, traced() as peak_bytes:
        stack.enter_context(unread(server))
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        clients = [stack.enter_context(unread(server)) for _ in range(20)]
        wake(server)
        source.go.set()
        assert all(client.recv(1) == b"H" for client in clients)
        assert peak_bytes() < 3 * 8 * MEGABYTE
    assert source.rendered == 2


def test_clients_that_never_read_hold_a_bounded_number_of_pages(serving: Callable[..., Server]) -> None:
    server = serving(Fresh(b"x" * 8 * MEGABYTE), unread_bytes=20 * MEGABYTE)
    with ExitStack() as stack, traced() as peak_bytes:
        for _ in range(8):
            assert stack.enter_context(unread(server)).recv(1) == b"H"
        assert peak_bytes() < 30 * MEGABYTE
        assert ask(server)[0].status == 200


def test_a_page_waits_until_one_that_is_being_read_is_idle(serving: Callable[..., Server]) -> None:
    clock, size = StillClock(), 8 * MEGABYTE
    source = Fresh(b"x" * size)
    server = serving(source, unread_bytes=2 * size, clock=clock)
    with ExitStack() as stack:
        for _ in range(2):
            assert stack.enter_context(unread(server)).recv(1) == b"H"
        last = stack.enter_context(unread(server))
        wake(server)
        assert source.rendered == 2
        clock.advance(0.3)
        wake(server)
        assert last.recv(1) == b"H"
        assert source.rendered == 3


def test_a_client_that_reads_keeps_its_page_beside_those_that_do_not(serving: Callable[..., Server]) -> None:
    clock, size = StillClock(), 8 * MEGABYTE
    server = serving(Fresh(b"x" * size), unread_bytes=3 * size, clock=clock)
    with ExitStack() as stack:
        reader = stack.enter_context(unread(server, receive_bytes=16384))
        received = len(reader.recv(1))
        for _ in range(6):
            clock.advance(1.0)
            while received % MEGABYTE or not received:
                received += len(reader.recv(MEGABYTE - received % MEGABYTE))
            received += len(reader.recv(1))
            assert stack.enter_context(unread(server)).recv(1) == b"H"
        assert received + len(everything(reader)) > size


def test_a_page_larger_than_the_bound_is_served(serving: Callable[..., Server]) -> None:
    server = serving(Fresh(b"x" * MEGABYTE), unread_bytes=1)
    with unread(server):
        assert len(ask(server)[1]) == MEGABYTE


def test_accept_headers_that_choose_one_format_share_one_rendering(serving: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = serving(source)
    with ExitStack() as stack:
        stack.enter_context(unread(server))
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        accepts = [f"text/plain;version={v};q=0.{n}" for n in range(1, 20) for v in ("0.0.4", "1.0.0;escaping=dots")]
        clients = [stack.enter_context(unread(server, accept=accept)) for accept in accepts]
        wake(server)
        source.go.set()
        answers = [everything(client) for client in clients]
    assert all(answer.endswith(PAGE) for answer in answers)
    assert b"version=1.0.0; charset=utf-8; escaping=dots" in answers[1]
    assert source.rendered == 2


def test_clients_that_come_while_all_places_wait_for_pages_are_served_in_turn(serving: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = serving(source, max_connections=4)
    with ExitStack() as stack:
        clients = [stack.enter_context(unread(server)) for _ in range(12)]
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        source.go.set()
        assert all(everything(client).endswith(PAGE) for client in clients)


def test_more_scrapes_than_allowed_get_503_at_once(serving: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = serving(source, max_requests=1)
    with connect(server) as first:
        first.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        assert ask(server)[0].status == 503
        assert ask(server, "/-/healthy")[0].status == 200
        source.go.set()
        assert everything(first).endswith(PAGE)
    assert ask(server)[0].status == 200


def test_scrapes_that_wait_together_share_one_rendering(serving: Callable[..., Server]) -> None:
    source = Source()
    source.go.clear()
    server = serving(source)
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(6)]
        assert ask(server, "/-/healthy")[0].status == 200  # those who came before have been let in
        clients[0].sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert source.rendering.acquire(timeout=GUARD_SECONDS)
        for client in clients[1:]:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        # The loop takes input and newcomers in order, so once this is answered the scrapes before it are waiting.
        assert ask(server, "/-/healthy")[0].status == 200
        source.go.set()
        assert all(everything(client).endswith(PAGE) for client in clients)
    assert source.rendered == 2


def test_closing_frees_the_port_and_ends_the_threads(serving: Callable[..., Server]) -> None:
    before = set(threading.enumerate())
    server = serving()
    server.close()
    assert set(threading.enumerate()) <= before
    with closing(serve(list(server.addresses), Source())) as again:
        assert again.addresses == server.addresses


def test_an_explicit_address_that_is_taken_is_one_clear_line(serving: Callable[..., Server]) -> None:
    taken = serving().addresses[0]
    with pytest.raises(UsageError, match="can't be had: Address already in use") as caught:
        serve([taken], Source())
    assert "\n" not in str(caught.value)


def test_the_default_port_taken_is_the_next_free_one_and_said() -> None:
    said: list[str] = []
    with closing(serve([], Source(), say=said.append)), closing(serve([], Source(), say=said.append)) as second:
        host, port = place(second)
        assert host == "127.0.0.1"
        assert address.DEFAULT_PORT < port < address.DEFAULT_PORT + address.DEFAULT_TRIES
        assert any(str(port) in line for line in said)


def test_every_address_given_is_served() -> None:
    with closing(serve(["127.0.0.1:0", "localhost:0"], Source())) as server:
        assert len(server.addresses) == 2
        assert server.url == f"http://{server.addresses[0]}/metrics"


@pytest.mark.parametrize(
    ("given", "expected"),
    [("localhost:1", ("localhost", 1)), (":0", ("", 0)), ("[::]:10178", ("::", 10178)), ("[::1]:5", ("::1", 5))],
)
def test_addresses_are_written_as_exporter_toolkit_writes_them(given: str, expected: tuple[str, int]) -> None:
    assert address.parse(given) == expected


@pytest.mark.parametrize("given", ["10178", "localhost", "::1:5", "a:b", "a:-1", "a:65536", "a:", "", "a:٣"])
def test_a_malformed_address_is_a_usage_error(given: str) -> None:
    with pytest.raises(UsageError, match="address"):
        address.parse(given)


def test_a_name_that_does_not_resolve_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="can't be had"):
        serve(["no-such-host.invalid:0"], Source())


@pytest.mark.parametrize("path", ["metrics", "/-/ready", "/a\nb", "/a b", "/a?b", "/a#b", ""])
def test_an_unusable_telemetry_path_is_a_usage_error(path: str) -> None:
    with pytest.raises(UsageError, match="telemetry path"):
        serve(["127.0.0.1:0"], Source(), telemetry_path=path)
