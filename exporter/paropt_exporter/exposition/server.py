"""Serve the metrics page over HTTP, from threads that no client can block."""

from __future__ import annotations

import _socket
import logging
import math
import selectors
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from threading import Thread
from typing import Literal

from paropt_exporter import descriptors
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.exposition import eviction, http
from paropt_exporter.exposition.connection import Connection, Phase, PlainHttpReceived
from paropt_exporter.exposition.http import BadRequest, Request, Response
from paropt_exporter.exposition.listeners import Acceptor, format_address
from paropt_exporter.exposition.passwords import PasswordChecker, parse_credentials
from paropt_exporter.exposition.protection import ProtectionSource
from paropt_exporter.exposition.renderer import PageSource, RenderedPages, Renderer
from paropt_exporter.exposition.routes import RenderedPage, Routes, Scrape

log = logging.getLogger(__name__)

CONNECTION_SECONDS = 30.0  # from accept to close; Prometheus' default timeout is 10 s
MAX_CONNECTIONS = 2048
HANDSHAKES_PER_TURN = 16  # about 15 ms, for which a request waits
CONNECTIONS_PART = 4  # at most a quarter of this process's descriptors: the run needs the rest
# Of pages that clients are still reading: about five pages of 1,000 stages. If one page is larger, two are allowed, so
# that the next one can be rendered while clients read it.
UNREAD_BYTES = 64 * 1024 * 1024
SLOW_READER_SECONDS = 1.0  # how long a scrape waits for slow readers of other pages before these are closed
CLOSE_SECONDS = 2.0  # how long a response that is being sent may take when the server closes
_BUSY = Response.from_text(HTTPStatus.SERVICE_UNAVAILABLE, "too many scrapes at once", ("Retry-After", "1"))
_CHALLENGE = 'Basic realm="paropt-exporter", charset="UTF-8"'
_UNAUTHORIZED = Response.from_text(HTTPStatus.UNAUTHORIZED, "Unauthorized", ("WWW-Authenticate", _CHALLENGE))
_NO_TLS = Response.from_text(HTTPStatus.BAD_REQUEST, "this endpoint uses HTTPS, not plain HTTP")


class Server:
    """The endpoint.

        Acceptor -> (HANDSHAKE: TLS) -> READING_REQUEST -> (CHECKING_PASSWORD: PasswordChecker) -> Routes
          Routes --small page, 4xx, 503--> SENDING -> DRAINING -> closed
             `--scrape--> WAITING_FOR_PAGE: Renderer --^

    Guarantees:
    * One thread reads and writes, and never blocks on a client. A second one renders pages, a third one checks
      passwords that are not remembered. Handshakes and password checks don't delay other clients' scrapes.
    * Without the password every path gets a 401. A connection keeps the protection that was in force at its accept.
    * A connection lives for at most CONNECTION_SECONDS. Beyond `max_connections` a new connection replaces an idle
      one (see `eviction`); if none is idle, new clients wait in the kernel's queue.
    * Scrapes that wait together share one page, without copies. Those of a client that leaves pages unread also share
      pages of the last second (see `eviction.find_shared_page`).
    * Unread pages take at most `unread_bytes`, or twice the size of one page where that is more. Beyond that, the next
      page waits until no reader of another page has made progress for GRACE_SECONDS: these readers are closed. After
      SLOW_READER_SECONDS the longest idle ones are closed.
    * At most `max_requests` scrapes wait for their page; further ones get a 503 at once.
    * No client can cause a 500, a traceback, or a response for another client.
    """

    def __init__(
        self,
        listeners: Sequence[_socket.socket],
        page_source: PageSource,
        protection_source: ProtectionSource,
        *,
        telemetry_path: str = "/metrics",
        max_requests: int = sys.maxsize,
        max_connections: int | None = None,
        unread_bytes: int = UNREAD_BYTES,
        clock: Clock | None = None,
        on_fetched: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Serve on listening sockets until `close()`.

        `max_connections` is by default 2048, or a quarter of the limit on descriptors if that is less. `on_fetched` is
        called in the serving thread after a whole page was sent, with the moment at which the renderer was asked for
        it.
        """
        clock = clock or SystemClock()
        self.addresses = tuple(format_address(listener) for listener in listeners)
        self._routes = Routes(telemetry_path=telemetry_path)
        self._protection_source, self._clock = protection_source, clock
        self._max_requests, self._on_fetched = max_requests, on_fetched
        self._max_connections = max_connections or min(
            MAX_CONNECTIONS, max(1, descriptors.get_limit() // CONNECTIONS_PART)
        )
        self._unread_bytes = unread_bytes
        # Only the serving thread uses these; the oldest connection comes first:
        self._connections: dict[Connection, None] = {}
        self._waiting = 0  # scrapes that wait for their page: requested or being rendered
        self._requested: dict[Connection, Scrape] = {}
        self._requested_since_seconds = 0.0
        self._rendering: dict[Connection, Scrape] = {}
        self._rendering_since_seconds = 0.0
        self._last_pages_bytes = 0  # the total size of the pages that were rendered last
        self._selected_at_seconds = clock.monotonic()
        self._next_expiry_seconds = math.inf  # no connection expires earlier
        self._selector = selectors.DefaultSelector()
        # Other threads append and then write to _wake_sender; a deque needs no lock for that.
        self._posted: deque[Callable[[], None]] = deque()
        self._closing = False
        self._wake_receiver, self._wake_sender = socket.socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.setblocking(False)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ, self._run_posted)
        self._acceptor = Acceptor(listeners, self._selector, self._admit, clock, has_room=self._has_room)
        self._passwords = PasswordChecker()
        self._renderer = Renderer(page_source, self._on_rendered)
        self._thread = Thread(target=self._run, name="paropt-web", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no thread left; the listeners stay open for another try
            self._renderer.close(timeout_seconds=CLOSE_SECONDS)
            for resource in (self._selector, self._wake_receiver, self._wake_sender):
                resource.close()
            raise

    def close(self) -> None:
        """Stop serving. Responses that are being sent get CLOSE_SECONDS. Idempotent."""
        self._closing = True
        self._wake_selector()
        self._passwords.close(timeout_seconds=CLOSE_SECONDS)
        self._renderer.close(timeout_seconds=CLOSE_SECONDS)
        self._thread.join(2 * CLOSE_SECONDS)

    def _on_rendered(self, pages: RenderedPages) -> None:
        """Pass pages from the renderer's thread to the serving thread."""
        self._call_soon(partial(self._send_pages, pages))

    def _call_soon(self, act: Callable[[], None]) -> None:
        """Call a function in the serving thread; from any thread."""
        self._posted.append(act)
        self._wake_selector()

    def _wake_selector(self) -> None:
        with suppress(OSError):  # full: the thread is awake already; closed: it has exited
            self._wake_sender.send(b"\0")

    def _run(self) -> None:
        closing_at_seconds = None
        while closing_at_seconds is None or (
            self._has_unfinished_responses() and self._clock.monotonic() < closing_at_seconds
        ):
            ready = self._selector.select(self._timeout_seconds(closing_at_seconds))
            self._selected_at_seconds = self._clock.monotonic()
            for key in self._order_events([key for key, _ in ready]):
                key.data()
            now_seconds = self._clock.monotonic()
            self._close_expired(now_seconds)
            self._request_pages(now_seconds)
            if self._closing and closing_at_seconds is None:
                closing_at_seconds = now_seconds + CLOSE_SECONDS
                self._acceptor.stop()
        self._close_all()

    def _order_events(self, ready: Sequence[selectors.SelectorKey]) -> list[selectors.SelectorKey]:
        """Return the events of this turn, in order.

        Connections come before new clients: one that is ready must not count as idle when another client or page needs
        room. Requests and responses come before handshakes, which take the most CPU time; those beyond
        HANDSHAKES_PER_TURN are ready again in the next turn. The last step of a handshake, which is short, comes before
        the first step of others: many clients that connect at once delay a client by only one step.
        """
        sources = [key.fileobj for key in ready]
        handshakes = [each for each in sources if isinstance(each, Connection) and each.phase is Phase.HANDSHAKE]
        handshakes.sort(key=lambda connection: not connection.has_begun_handshake)
        for connection in handshakes[HANDSHAKES_PER_TURN:]:
            connection.progress_seconds = self._selected_at_seconds  # it was waiting for this server
        postponed = frozenset(handshakes[HANDSHAKES_PER_TURN:])
        return sorted((key for key in ready if key.fileobj not in postponed), key=self._get_priority)

    def _get_priority(self, key: selectors.SelectorKey) -> int:
        source = key.fileobj
        if isinstance(source, Connection):
            return 2 if source.phase is Phase.HANDSHAKE else 0
        return 1 if source is self._wake_receiver else 3

    def _has_unfinished_responses(self) -> bool:
        answering = (Phase.CHECKING_PASSWORD, Phase.WAITING_FOR_PAGE, Phase.SENDING)
        return any(connection.phase in answering for connection in self._connections)

    def _timeout_seconds(self, closing_at_seconds: float | None) -> float | None:
        moments = [self._next_expiry_seconds] if self._connections else []
        room_seconds = eviction.find_next_victim_seconds(self._connections) if self._acceptor.is_full else None
        page_seconds = None
        if self._requested and not self._rendering:
            idle_page_seconds = eviction.find_next_stall_seconds(self._connections)
            page_seconds = min(idle_page_seconds, self._requested_since_seconds + SLOW_READER_SECONDS)
        others = (closing_at_seconds, self._acceptor.resumes_at_seconds, room_seconds, page_seconds)
        moments += [moment for moment in others if moment is not None]
        return max(0.0, min(moments) - self._clock.monotonic()) if moments else None

    def _close_expired(self, now_seconds: float) -> None:
        if now_seconds >= self._next_expiry_seconds:
            for connection in [each for each in self._connections if each.deadline_seconds <= now_seconds]:
                self._close_connection(connection)
            self._next_expiry_seconds = min((each.deadline_seconds for each in self._connections), default=math.inf)
        self._acceptor.resume_if_possible(now_seconds)

    def _close_all(self) -> None:
        for connection in tuple(self._connections):
            self._close_connection(connection)
        self._acceptor.close()
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def _has_room(self) -> bool:
        if len(self._connections) < self._max_connections:
            return True
        next_seconds = eviction.find_next_victim_seconds(self._connections)
        return next_seconds is not None and next_seconds <= self._selected_at_seconds

    def _admit(self, accepted: socket.socket, peer: object) -> None:
        now_seconds = self._clock.monotonic()
        if len(self._connections) >= self._max_connections:
            victim = eviction.choose_victim(self._connections, now_seconds=self._selected_at_seconds)
            assert victim is not None  # the acceptor has called `_has_room`
            self._close_connection(victim)
        connection = Connection(
            accepted,
            client=eviction.identify_client(peer),
            now_seconds=now_seconds,
            deadline_seconds=now_seconds + CONNECTION_SECONDS,
            protection=self._protection_source.get_protection(),
        )
        self._connections[connection] = None
        self._next_expiry_seconds = min(self._next_expiry_seconds, connection.deadline_seconds)
        self._register(connection)
        if connection.phase is not Phase.HANDSHAKE:  # handshakes are counted, in the turns after this one
            self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Run the step that a connection is ready for."""
        self._guard(connection, partial(self._run_phase, connection))

    def _guard(self, connection: Connection, act: Callable[[], None]) -> None:
        """Run a step for a connection; an error closes this connection only."""
        try:
            act()
            self._next_expiry_seconds = min(self._next_expiry_seconds, connection.deadline_seconds)
            self._update_events(connection)
        except PlainHttpReceived:
            self._start_response(connection, _NO_TLS)
        except (OSError, EOFError):
            self._close_connection(connection)
        except Exception:  # the boundary of one connection: an error must not close the others
            log.exception("a connection failed")
            self._close_connection(connection)

    def _run_phase(self, connection: Connection) -> None:
        match connection.phase:
            case Phase.HANDSHAKE:
                if connection.continue_handshake(now_seconds=self._clock.monotonic()):
                    self._read_request(connection)  # it may have arrived with the end of the handshake
            case Phase.READING_REQUEST:
                self._read_request(connection)
            case Phase.SENDING:
                page = None if connection.head_only else connection.rendered
                if connection.send(now_seconds=self._clock.monotonic()) and page is not None:
                    self._on_fetched(page.rendered_seconds)
            case Phase.DRAINING:
                connection.drain()
            case Phase.CHECKING_PASSWORD | Phase.WAITING_FOR_PAGE:
                return

    def _read_request(self, connection: Connection) -> None:
        received = connection.receive_request()
        if received is None:
            return
        try:
            request = http.parse_request(received)
        except BadRequest as error:
            self._start_response(connection, Response.from_text(error.status, str(error)))
            return
        if request is None:
            return
        connection.head_only = request.head_only
        users = connection.protection.users
        claimed = parse_credentials(request.headers.get("authorization", "")) if users else None
        if not users or (claimed is not None and self._passwords.is_remembered(users, claimed)):
            self._route(connection, request)
        elif claimed is None:
            self._start_response(connection, _UNAUTHORIZED)
        else:
            self._suspend(connection, Phase.CHECKING_PASSWORD)
            on_result = partial(self._on_password_checked, connection, request)
            self._passwords.check(users, claimed, on_result, client=connection.client, token=connection)

    def _on_password_checked(self, connection: Connection, request: Request, right: bool) -> None:
        """Pass a result from the password checker's thread to the serving thread."""
        self._call_soon(partial(self._finish_authentication, connection, request, right))

    def _finish_authentication(self, connection: Connection, request: Request, right: bool) -> None:
        if connection not in self._connections:
            return
        if right:
            self._guard(connection, partial(self._route, connection, request))
        else:
            self._start_response(connection, _UNAUTHORIZED)

    def _route(self, connection: Connection, request: Request) -> None:
        response = self._routes.route(request)
        if isinstance(response, Response):
            self._start_response(connection, response)
        elif shared := self._find_shared_page(connection, response):
            self._send_page(connection, shared)
        elif self._waiting >= self._max_requests:
            self._start_response(connection, _BUSY)
        else:
            self._waiting += 1
            self._suspend(connection, Phase.WAITING_FOR_PAGE)
            if not self._requested:
                self._requested_since_seconds = self._clock.monotonic()
            self._requested[connection] = response

    def _suspend(self, connection: Connection, phase: Literal[Phase.CHECKING_PASSWORD, Phase.WAITING_FOR_PAGE]) -> None:
        """Let a connection wait for another thread, outside the selector."""
        if not connection.is_suspended:
            self._selector.unregister(connection)
        connection.suspend(phase)

    def _run_posted(self) -> None:
        with suppress(BlockingIOError):
            self._wake_receiver.recv(4096)
        while self._posted:
            self._posted.popleft()()

    def _send_pages(self, pages: RenderedPages) -> None:
        self._waiting -= len(pages)
        self._last_pages_bytes = sum({id(response.body): len(response.body) for _, response in pages}.values())
        for connection, response in pages:
            page = RenderedPage(
                scrape=self._rendering.pop(connection),
                response=response,
                rendered_seconds=self._rendering_since_seconds,
            )
            if connection in self._connections:
                self._send_page(connection, page)

    def _find_shared_page(self, connection: Connection, scrape: Scrape) -> RenderedPage | None:
        return eviction.find_shared_page(
            self._connections, scrape, client=connection.client, now_seconds=self._clock.monotonic()
        )

    def _send_page(self, connection: Connection, page: RenderedPage) -> None:
        connection.rendered = page
        self._start_response(connection, page.response)

    def _request_pages(self, now_seconds: float) -> None:
        """Request all waiting pages from the renderer once there is room for them beside the unread ones."""
        if not self._requested or self._rendering:
            return
        urgent = now_seconds >= self._requested_since_seconds + SLOW_READER_SECONDS
        given_up = eviction.choose_stalled_readers(
            self._connections,
            allowed_bytes=self._allowed_bytes,
            idle_since_seconds=now_seconds if urgent else now_seconds - eviction.GRACE_SECONDS,
        )
        for connection in given_up:
            self._close_connection(connection)
        if eviction.count_unread_bytes(self._connections) <= self._allowed_bytes:
            self._rendering, self._requested = self._requested, {}
            self._rendering_since_seconds = now_seconds
            self._renderer.request_pages(self._rendering)

    @property
    def _allowed_bytes(self) -> int:
        """Return how many bytes of unread pages leave room for the next pages."""
        return max(self._unread_bytes - self._last_pages_bytes, self._last_pages_bytes)

    def _start_response(self, connection: Connection, response: Response) -> None:
        """Start to send a response; an error closes this connection only."""
        is_suspended = connection.is_suspended
        head = http.format_head(response, now_seconds=self._clock.wall(), headers=connection.protection.headers)
        connection.start_response(head, b"" if connection.head_only else response.body)
        if is_suspended:
            self._register(connection)
        self._advance(connection)

    def _register(self, connection: Connection) -> None:
        self._selector.register(connection, connection.events, partial(self._advance, connection))

    def _update_events(self, connection: Connection) -> None:
        """Register the events that the connection waits for now."""
        if not connection.is_suspended and connection in self._connections:
            key = self._selector.get_key(connection)
            if key.events != connection.events:
                self._selector.modify(connection, connection.events, key.data)

    def _close_connection(self, connection: Connection) -> None:
        if self._connections.pop(connection, self) is None:
            if not connection.is_suspended:
                self._selector.unregister(connection)
            elif connection.phase is Phase.CHECKING_PASSWORD:
                self._passwords.cancel(client=connection.client, token=connection)
            connection.close()
