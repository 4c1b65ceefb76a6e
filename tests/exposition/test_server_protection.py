"""The endpoint with TLS and passwords: it accepts and refuses clients, and neither delays the others."""

from __future__ import annotations

import errno
import http.client
import queue
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from paropt_exporter.exposition import passwords
from paropt_exporter.exposition.listeners import open_listeners
from paropt_exporter.exposition.protection import Protection, ProtectionFile
from paropt_exporter.exposition.server import HANDSHAKES_PER_TURN, Server
from paropt_exporter.exposition.tls import TlsSocket
from support.event_samples import StillClock
from support.key_updates import KeyUpdatingClient
from support.real_servers import ended
from support.secured import PASSWORD, Authority, hashed, web_config

GUARD_SECONDS = 30.0
PAGE = b"# a page\n" * 1000
CLIENTS = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem"
TLS = "cert_file: server.pem, key_file: server.key"


class Page:
    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        return [[PAGE]]


class Endpoint:
    """A server under test and its certificate authority."""

    def __init__(self, folder: Path, server: Server, authority: Authority) -> None:
        self.folder, self.server, self.authority = folder, server, authority
        self.port = int(server.addresses[0].rpartition(":")[2])

    def ask(
        self,
        path: str = "/metrics",
        *,
        context: ssl.SSLContext | None = None,
        login: str | None = None,
        secure: bool = True,
        method: str = "GET",
    ) -> tuple[http.client.HTTPResponse, bytes]:
        context = context or self.authority.client()
        connection = (
            http.client.HTTPSConnection("127.0.0.1", self.port, timeout=GUARD_SECONDS, context=context)
            if secure
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=GUARD_SECONDS)
        )
        headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"} if login is not None else {}
        with closing(connection):
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=GUARD_SECONDS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Endpoint]]:
    with ExitStack() as exit_stack:

        def start_endpoint(text: str = f"tls_server_config: {{{TLS}}}", **arguments: object) -> Endpoint:
            authority = Authority(tmp_path)
            authority.issue("server")
            protected = ProtectionFile(web_config(tmp_path, text))
            listeners = open_listeners(["127.0.0.1:0"], on_fallback=print)
            server = Server(listeners, Page(), protected, **arguments)  # type: ignore[arg-type]
            exit_stack.enter_context(closing(server))
            return Endpoint(tmp_path, server, authority)

        yield start_endpoint


def users_config(**users: str) -> str:
    listed = ", ".join(f"{name}: {hash_}" for name, hash_ in users.items())
    return f"basic_auth_users: {{{listed}}}"


def test_client_that_leaves_during_its_handshake_is_gone_at_once(start: Callable[..., Endpoint]) -> None:
    endpoint = start(clock=StillClock())
    with endpoint.connect() as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00")  # the beginning of a handshake
        client.shutdown(socket.SHUT_WR)
        assert ended(client)


def test_metrics_are_served_over_tls(start: Callable[..., Endpoint]) -> None:
    endpoint = start()
    response, body = endpoint.ask()
    assert (response.status, body) == (200, PAGE)


def test_a_large_page_is_complete_over_tls(start: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"x" * 20_000_000
    monkeypatch.setattr(Page, "render_parts", lambda self, openmetrics: [[large]])
    assert start().ask()[1] == large


def test_plain_http_gets_a_400_that_says_https(start: Callable[..., Endpoint]) -> None:
    response, body = start().ask(secure=False)
    assert response.status == 400
    assert b"HTTPS" in body


def test_stalled_handshakes_delay_no_other_and_end_at_their_deadline(
    start: Callable[..., Endpoint],
) -> None:
    clock = StillClock()
    endpoint = start(clock=clock)
    with ExitStack() as exit_stack:
        silent, half = (exit_stack.enter_context(endpoint.connect()) for _ in range(2))
        half.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        assert endpoint.ask()[0].status == 200
        clock.advance(31.0)
        for _ in range(2):
            assert endpoint.ask("/-/healthy")[0].status == 200
        for client in (silent, half):
            assert ended(client)


def test_client_that_only_updates_its_key_is_closed_and_delays_no_other(start: Callable[..., Endpoint]) -> None:
    """Of a socket, OpenSSL would read such records in one call for as long as there are any."""
    endpoint = start(clock=StillClock())
    with endpoint.connect() as connected, closing(KeyUpdatingClient(connected)) as client:
        with suppress(ConnectionError):  # not all of its bytes are read
            connected.sendall(client.make_updates(5000))  # 135 kB
            while connected.recv(65536):  # a session ticket
                pass
        assert endpoint.ask()[0].status == 200


def test_page_counts_as_fetched_if_its_reader_closes_at_once(
    start: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a client, on the same host, answers TLS' close_notify by a reset."""

    def refuse(self: TlsSocket, how: int) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(TlsSocket, "shutdown", refuse)
    fetched: queue.SimpleQueue[float] = queue.SimpleQueue()
    assert start(on_fetched=fetched.put).ask()[1] == PAGE
    assert fetched.get(timeout=GUARD_SECONDS)


def test_request_in_many_records_is_answered(start: Callable[..., Endpoint]) -> None:
    endpoint = start()
    with endpoint.authority.client().wrap_socket(endpoint.connect(), server_hostname="localhost") as client:
        for byte in b"GET /-/healthy HTTP/1.1\r\nCookie: %s\r\n\r\n" % (b"x" * 2000):
            client.send(bytes([byte]))
        assert client.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")


class HeldHandshakes:
    """A source of protection that counts handshakes and can hold the serving thread at an accept or at a handshake."""

    def __init__(self, source: ProtectionFile) -> None:
        self.begun = 0
        self.held, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.hold_at: list[str] = []  # the places, in order
        self._source = source

    def get_protection(self) -> Protection:
        self._pass("accept")
        protection = self._source.get_protection()
        assert protection.secure is not None
        return replace(protection, secure=partial(self._secure, protection.secure))

    def count_reloads(self) -> Mapping[str, int]:
        return {}

    def was_reload_successful(self) -> bool:
        return True

    def _secure(self, secure: Callable[[socket.socket], TlsSocket], plain: socket.socket) -> TlsSocket:
        self.begun += 1
        self._pass("handshake")
        return secure(plain)

    def _pass(self, place: str) -> None:
        if self.hold_at[:1] == [place]:
            del self.hold_at[0]
            self.held.release()
            assert self.go.acquire(timeout=GUARD_SECONDS)


class CountingClock(StillClock):
    """A clock that notes how many handshakes had begun at each response."""

    def __init__(self) -> None:
        super().__init__()
        self.held: HeldHandshakes | None = None
        self.begun: list[int] = []

    def wall(self) -> float:
        if self.held is not None:
            self.begun.append(self.held.begun)
        return super().wall()


@pytest.mark.parametrize("places", [["accept"], ["accept", "handshake"]], ids=["accepting", "in a handshake"])
def test_clients_that_connect_together_delay_a_handshake_by_one_turn(tmp_path: Path, places: list[str]) -> None:
    """The last step of its handshake arrives while the server accepts the others, or is in the first of theirs."""
    authority, clock = Authority(tmp_path), CountingClock()
    authority.issue("server")
    held = clock.held = HeldHandshakes(ProtectionFile(web_config(tmp_path, f"tls_server_config: {{{TLS}}}")))
    with ExitStack() as exit_stack:
        server = Server(open_listeners(["127.0.0.1:0"], on_fallback=print), Page(), held, clock=clock)
        exit_stack.enter_context(closing(server))
        endpoint = Endpoint(tmp_path, server, authority)
        early = exit_stack.enter_context(endpoint.connect())
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        early.sendall(outgoing.read())
        incoming.write(early.recv(65536))
        tls.do_handshake()
        tls.write(b"GET /-/healthy HTTP/1.1\r\n\r\n")
        begun = held.begun
        held.hold_at += places
        clients = [exit_stack.enter_context(endpoint.connect()) for _ in range(60)]
        for client in clients:
            client.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        for _ in places[1:]:
            assert held.held.acquire(timeout=GUARD_SECONDS)
            held.go.release()
        assert held.held.acquire(timeout=GUARD_SECONDS)
        early.sendall(outgoing.read())
        held.go.release()
        while early.recv(65536):  # to the end of the response
            pass
    [at_response] = clock.begun
    assert at_response - begun <= 2 * HANDSHAKES_PER_TURN


def test_an_invalid_handshake_ends_only_its_connection(start: Callable[..., Endpoint]) -> None:
    endpoint = start()
    for noise in (b"\x16\x03\x01\x00\x05hello", b"\x16" + b"\xff" * 100_000):
        with endpoint.connect() as client:
            try:
                client.sendall(noise)
                while client.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    assert endpoint.ask()[0].status == 200


def test_more_idle_connections_than_allowed_leave_room_for_a_scrape(start: Callable[..., Endpoint]) -> None:
    endpoint = start(max_connections=64)
    with ExitStack() as exit_stack:
        for _ in range(300):
            exit_stack.enter_context(endpoint.connect())
        assert endpoint.ask()[0].status == 200


def test_a_replaced_certificate_is_shown_to_new_connections(start: Callable[..., Endpoint]) -> None:
    endpoint = start()
    assert serial(endpoint) == serial(endpoint)
    before = serial(endpoint)
    endpoint.authority.issue("server")
    assert serial(endpoint) != before


@pytest.mark.parametrize("text", ["", "x: [", f"tls_server_config: {{{TLS}}}"], ids=["none", "invalid", "weaker"])
def test_a_replaced_certificate_is_shown_beside_a_refused_config(start: Callable[..., Endpoint], text: str) -> None:
    endpoint = start(f"tls_server_config: {{{TLS}, min_version: TLS13}}")
    web_config(endpoint.folder, text)
    before = serial(endpoint)
    endpoint.authority.issue("server")
    assert serial(endpoint) != before


def test_an_expired_certificate_is_refused_by_clients_until_it_is_replaced(start: Callable[..., Endpoint]) -> None:
    endpoint = start()
    endpoint.authority.issue("server", until=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        endpoint.ask()
    endpoint.authority.issue("server")
    assert endpoint.ask()[0].status == 200


def test_a_deleted_certificate_stays_in_use(start: Callable[..., Endpoint]) -> None:
    endpoint = start()
    before = serial(endpoint)
    (endpoint.folder / "server.pem").unlink()
    assert serial(endpoint) == before
    assert endpoint.ask()[0].status == 200


def serial(endpoint: Endpoint) -> object:
    with endpoint.authority.client().wrap_socket(endpoint.connect(), server_hostname="localhost") as client:
        certificate = client.getpeercert()
        assert certificate
        return certificate["serialNumber"]


def test_only_the_configured_tls_versions_are_accepted(start: Callable[..., Endpoint]) -> None:
    endpoint = start(f"tls_server_config: {{{TLS}, max_version: TLS12}}")
    context = endpoint.authority.client()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises(ssl.SSLError):
        endpoint.ask(context=context)
    assert endpoint.ask()[0].status == 200


def test_only_the_configured_suites_are_accepted(start: Callable[..., Endpoint]) -> None:
    suites = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]"
    endpoint = start(f"tls_server_config: {{{TLS}, max_version: TLS12, {suites}}}")
    context = endpoint.authority.client()
    context.set_ciphers("ECDHE+AES128")
    with pytest.raises(ssl.SSLError):
        endpoint.ask(context=context)
    assert endpoint.ask()[0].status == 200


def test_a_required_client_certificate_is_verified(start: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = start(f"tls_server_config: {{{TLS}, {CLIENTS}}}")
    with pytest.raises(OSError):  # TLS 1.3 reports it late, by an alert or a reset
        endpoint.ask()
    own = endpoint.authority.issue("prometheus", "prometheus.example")
    assert endpoint.ask(context=endpoint.authority.client(own))[0].status == 200


def test_an_optional_client_certificate_is_verified_if_sent(start: Callable[..., Endpoint], tmp_path: Path) -> None:
    endpoint = start(
        f"tls_server_config: {{{TLS}, {CLIENTS.replace('RequireAndVerifyClientCert', 'VerifyClientCertIfGiven')}}}"
    )
    assert endpoint.ask()[0].status == 200
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    strangers = Authority(elsewhere).issue("prometheus", "prometheus.example")
    with pytest.raises(OSError):
        endpoint.ask(context=endpoint.authority.client(strangers))


@pytest.mark.parametrize("allowed", ["prometheus.example", "2001:db8::a", "192.0.2.1", "ops@example.org"])
def test_only_clients_with_allowed_names_are_accepted(start: Callable[..., Endpoint], allowed: str) -> None:
    endpoint = start(f"tls_server_config: {{{TLS}, {CLIENTS}, client_allowed_sans: ['{allowed}']}}")
    right = endpoint.authority.issue("right", "other.example", allowed)
    wrong = endpoint.authority.issue("wrong", "mallory.example", "2001:db8::b", "192.0.2.2", "mallory@example.org")
    assert endpoint.ask(context=endpoint.authority.client(right))[0].status == 200
    with pytest.raises(OSError):
        endpoint.ask(context=endpoint.authority.client(wrong))


def test_every_path_is_401_without_the_password(start: Callable[..., Endpoint]) -> None:
    endpoint = start(users_config(alice=hashed()))
    paths = ("/metrics", "/", "/-/healthy", "/-/ready", "/nowhere", "//", "/metrics/../")
    for path, method in product(paths, ("GET", "HEAD", "POST")):
        response, body = endpoint.ask(path, secure=False, method=method)
        assert (response.status, body) == (401, b"" if method == "HEAD" else b"Unauthorized\n"), (method, path)
        assert response.headers["WWW-Authenticate"].startswith("Basic ")


def test_the_right_password_gets_the_page_over_tls(start: Callable[..., Endpoint]) -> None:
    endpoint = start(f"tls_server_config: {{{TLS}}}\n{users_config(alice=hashed())}")
    for _ in range(2):
        response, body = endpoint.ask(login=f"alice:{PASSWORD}")
        assert (response.status, body) == (200, PAGE)
    assert endpoint.ask("/nowhere", login=f"alice:{PASSWORD}")[0].status == 404


@pytest.mark.parametrize("login", ["alice:", "alice:wrong", "bob:s3cret", ":", "alice", "alice:" + "x" * 10_000, "ü:ö"])
def test_a_wrong_password_is_401(start: Callable[..., Endpoint], login: str, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = start(users_config(alice=hashed()))
    assert endpoint.ask(login=login, secure=False)[0].status == 401
    assert caplog.text == ""


def test_password_checks_delay_no_remembered_scraper(
    start: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = start(users_config(alice=hashed()), max_requests=2)
    known = f"alice:{PASSWORD}"
    assert endpoint.ask(login=known, secure=False)[0].status == 200
    comparing, go = threading.Semaphore(0), threading.Event()

    def slow(password: bytes, hashed_password: str) -> bool:
        comparing.release()
        return go.wait(GUARD_SECONDS) and False

    monkeypatch.setattr(passwords, "matches_hash", slow)
    with ExitStack() as exit_stack:
        guesses = [exit_stack.enter_context(endpoint.connect()) for _ in range(2)]
        for guess in guesses:
            guess.sendall(b"GET / HTTP/1.1\r\nAuthorization: Basic YTpi\r\n\r\n")
        assert comparing.acquire(timeout=GUARD_SECONDS)
        assert endpoint.ask(login=known, secure=False)[0].status == 200
        go.set()
        for guess in guesses:
            assert guess.recv(12) == b"HTTP/1.1 401"


def test_a_flood_of_guesses_locks_out_no_new_scraper(
    start: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = start(users_config(alice=hashed()), max_requests=2)
    asked, go = threading.Semaphore(0), threading.Event()
    compared: list[bytes] = []
    check = passwords.PasswordChecker.check

    def slow(password: bytes, _: str) -> bool:
        compared.append(password)
        assert go.wait(GUARD_SECONDS)
        return password == PASSWORD.encode()  # sixty hashes may take longer on a busy machine than a connection lasts

    def counted(*arguments: Any, **keywords: Any) -> None:
        check(*arguments, **keywords)
        asked.release()

    monkeypatch.setattr(passwords, "matches_hash", slow)
    monkeypatch.setattr(passwords.PasswordChecker, "check", counted)
    with ExitStack() as exit_stack:
        guesses = [exit_stack.enter_context(endpoint.connect()) for _ in range(60)]
        for number, guess in enumerate(guesses):
            login = b64encode(f"alice:guess {number}".encode()).decode()
            guess.sendall(f"GET / HTTP/1.1\r\nAuthorization: Basic {login}\r\n\r\n".encode())
        assert all(asked.acquire(timeout=GUARD_SECONDS) for _ in guesses)
        scraper = exit_stack.enter_context(endpoint.connect())
        login = b64encode(f"alice:{PASSWORD}".encode()).decode()
        scraper.sendall(f"GET /metrics HTTP/1.1\r\nAuthorization: Basic {login}\r\n\r\n".encode())
        assert asked.acquire(timeout=GUARD_SECONDS)
        assert endpoint.ask(secure=False)[0].status == 401  # meanwhile the others are served
        go.set()
        assert scraper.recv(12) == b"HTTP/1.1 200"
        assert PASSWORD.encode() in compared[:2]  # at most the guess that was being compared came first
        assert all(guess.recv(12) == b"HTTP/1.1 401" for guess in guesses)


def test_configured_headers_are_in_every_response(start: Callable[..., Endpoint]) -> None:
    text = "http_server_config: {headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}}"
    endpoint = start(text)
    for path in ("/metrics", "/nowhere"):
        response, _ = endpoint.ask(path, secure=False)
        assert response.headers.get_all("X-Frame-Options") == ["deny"]
        assert response.headers.get_all("X-Content-Type-Options") == ["nosniff"]


def test_close_ends_the_threads(start: Callable[..., Endpoint]) -> None:
    before = set(threading.enumerate())
    endpoint = start(users_config(alice=hashed()))
    endpoint.ask(login="a:b", secure=False)
    endpoint.server.close()
    assert set(threading.enumerate()) <= before
