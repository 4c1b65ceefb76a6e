"""Serve the metrics page over HTTP from two threads of its own, whatever its clients do."""

from __future__ import annotations

import logging
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
from paropt_exporter.exposition import address, eviction, http
from paropt_exporter.exposition.acceptor import Acceptor
from paropt_exporter.exposition.connection import Connection, Phase, PlainText
from paropt_exporter.exposition.http import Answer, BadRequest, Request
from paropt_exporter.exposition.passwords import Passwords, credentials
from paropt_exporter.exposition.protection import Open, Protected
from paropt_exporter.exposition.render import Delivered, PageSource, Renderer
from paropt_exporter.exposition.routes import Routes, Scrape

log = logging.getLogger(__name__)

CONNECTION_SECONDS = 30.0  # from accept to close; Prometheus' own default time-out is 10 s
MAX_CONNECTIONS = 256
CONNECTIONS_PART = 4  # a quarter of the descriptors that this process may have at most: the work needs the rest
# Of pages that clients still read: some five at 1,000 stages. A page that alone is larger is allowed twice, so that one
# can be read while the next is made.
UNREAD_BYTES = 64 * 1024 * 1024
PATIENCE_SECONDS = 1.0  # a scrape waits so long for pages that are being read slowly, then they are given up
CLOSE_SECONDS = 2.0  # an answer on its way gets this long when the server closes
_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # nosec B104 # where a person opens what listens everywhere
_BUSY = Answer.text(HTTPStatus.SERVICE_UNAVAILABLE, "too many scrapes at once", ("Retry-After", "1"))
_CHALLENGE = 'Basic realm="paropt-exporter", charset="UTF-8"'
_UNAUTHORIZED = Answer.text(HTTPStatus.UNAUTHORIZED, "Unauthorized", ("WWW-Authenticate", _CHALLENGE))
_NO_TLS = Answer.text(HTTPStatus.BAD_REQUEST, "this is HTTPS; plain HTTP is not spoken here")


def serve(
    addresses: Sequence[str],
    page: PageSource,
    *,
    telemetry_path: str = "/metrics",
    max_requests: int = sys.maxsize,
    max_connections: int | None = None,
    unread_bytes: int = UNREAD_BYTES,
    connection_seconds: float = CONNECTION_SECONDS,
    ready: Callable[[], bool] = lambda: True,
    say: Callable[[str], None] = lambda _: None,
    protected: Protected | None = None,
    listeners: Sequence[socket.socket] | None = None,
    clock: Clock | None = None,
) -> Server:
    """Listen and serve until `close()`.

    No `addresses`: 127.0.0.1:10178, or the next free port of ten, and `say` is told so. `listeners`: sockets that
    already listen, in place of any address. `max_connections` is by default 256, or a quarter of the limit on
    descriptors where that is less. Raises UsageError, one line, if an address is malformed or can't be had.
    """
    site = Routes(telemetry_path=telemetry_path, ready=ready)
    return Server(
        listeners or address.listen(addresses, say=say),
        page,
        site,
        protected or Open(),
        max_requests=max_requests,
        max_connections=max_connections or min(MAX_CONNECTIONS, max(1, descriptors.get_limit() // CONNECTIONS_PART)),
        unread_bytes=unread_bytes,
        connection_seconds=connection_seconds,
        clock=clock or SystemClock(),
    )


class Server:
    """The endpoint.

        listener -> accept -> (GREETING: TLS) -> READING -> (COMPARING: Passwords) -> Site
          Site --small page, 4xx, 503--> WRITING -> DRAINING -> closed
             `--scrape--> WAITING: Renderer --^

    Guarantees:
    * One thread does all reading and writing, and never blocks on a client; a second one renders, a third one compares
      passwords that were not right before. Handshakes and passwords of some hold up no scrape of others.
    * Without the password every path answers 401 and nothing more; a connection keeps the protection that it was
      accepted under.
    * A connection lives for `connection_seconds` at most, however it spends them. Beyond `max_connections` an idle one
      is closed for the new one (see `eviction`); while there is none, new clients wait in the kernel's queue.
    * Scrapes that wait together share one page, and no copy of it is made for a connection. Unread pages take
      `unread_bytes` at most, or twice the size of one page where that is more. Beyond it the next page waits, until
      one has not been read for a moment, whose readers are closed; for `PATIENCE_SECONDS`, then the longest idle goes.
    * At most `max_requests` scrapes wait for their page; the next ones get 503 at once.
    * No client can cause a 500, a traceback, or an answer that is not its own.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        page: PageSource,
        site: Routes,
        protected: Protected,
        *,
        max_requests: int,
        max_connections: int,
        unread_bytes: int,
        connection_seconds: float,
        clock: Clock,
    ) -> None:
        self.addresses = tuple(address.text(listener) for listener in listeners)
        self._site, self._protected, self._clock = site, protected, clock
        self._scheme = "https" if protected.current().secure else "http"
        self._max_requests, self._max_connections = max_requests, max_connections
        self._unread_bytes, self._connection_seconds = unread_bytes, connection_seconds
        # Of the serving thread alone; oldest connection first:
        self._connections: dict[Connection, None] = {}
        self._waiting = 0  # scrapes that wait for their page: wanted, and being rendered
        self._wanted: list[tuple[Scrape, Connection]] = []
        self._wanted_since_seconds = 0.0
        self._rendering = 0
        self._round_bytes = 0  # of the pages that were rendered last
        self._turn_seconds = clock.monotonic()
        self._selector = selectors.DefaultSelector()
        # Appended to by the other threads, which then write to _waker; deque needs no lock for that.
        self._posted: deque[Callable[[], None]] = deque()
        self._closing = False
        self._wakeup, self._waker = socket.socketpair()
        for end in (self._wakeup, self._waker):
            end.setblocking(False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._take_posted)
        self._entrance = Acceptor(listeners, self._selector, self._take, clock, has_room=self._has_room)
        self._passwords = Passwords()
        self._renderer = Renderer(page, self._deliver)
        self._thread = Thread(target=self._run, name="paropt-web", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the first address serves metrics, as a person can open it."""
        if self.addresses[0].startswith("unix:"):
            return self.addresses[0]
        host, _, port = self.addresses[0].rpartition(":")
        return f"{self._scheme}://{_LOCAL.get(host, host)}:{port}{self._site.telemetry_path}"

    def close(self) -> None:
        """Stop serving; answers on their way get two seconds. Blocks that long at most, and may be called again."""
        self._closing = True
        self._wake()
        self._passwords.close(timeout_seconds=CLOSE_SECONDS)
        self._renderer.close(timeout_seconds=CLOSE_SECONDS)
        self._thread.join(2 * CLOSE_SECONDS)

    def _deliver(self, delivered: Delivered) -> None:
        """Take pages from the renderer's thread over to ours."""
        self._post(partial(self._take_pages, delivered))

    def _post(self, act: Callable[[], None]) -> None:
        """Have the serving thread do something soon; from any thread."""
        self._posted.append(act)
        self._wake()

    def _wake(self) -> None:
        with suppress(OSError):  # full: the thread is awake already; closed: it has ended
            self._waker.send(b"\0")

    def _run(self) -> None:
        closing_at_seconds = None
        while closing_at_seconds is None or (self._answering() and self._clock.monotonic() < closing_at_seconds):
            ready = self._selector.select(self._timeout_seconds(closing_at_seconds))
            self._turn_seconds = self._clock.monotonic()
            # Connections first: one that can go on is not idle, whatever it looks like to a newcomer or a new page.
            for key, _ in sorted(ready, key=self._rank):
                key.data()
            now_seconds = self._clock.monotonic()
            self._expire(now_seconds)
            self._want_pages(now_seconds)
            if self._closing and closing_at_seconds is None:
                closing_at_seconds = now_seconds + CLOSE_SECONDS
                self._entrance.shut()
        self._end()

    def _rank(self, ready: tuple[selectors.SelectorKey, int]) -> int:
        source = ready[0].fileobj
        return 0 if isinstance(source, Connection) else 1 if source is self._wakeup else 2

    def _answering(self) -> bool:
        answering = (Phase.COMPARING, Phase.WAITING, Phase.WRITING)
        return any(connection.phase in answering for connection in self._connections)

    def _timeout_seconds(self, closing_at_seconds: float | None) -> float | None:
        moments = [connection.deadline_seconds for connection in self._connections]
        room_seconds = eviction.next_seconds(self._connections) if self._entrance.full else None
        page_seconds = None
        if self._wanted and not self._rendering:
            idle_page_seconds = eviction.next_idle_page_seconds(self._connections)
            page_seconds = min(idle_page_seconds, self._wanted_since_seconds + PATIENCE_SECONDS)
        others = (closing_at_seconds, self._entrance.opens_at_seconds, room_seconds, page_seconds)
        moments += [moment for moment in others if moment is not None]
        return max(0.0, min(moments) - self._clock.monotonic()) if moments else None

    def _expire(self, now_seconds: float) -> None:
        for connection in [each for each in self._connections if each.deadline_seconds <= now_seconds]:
            self._drop(connection)
        self._entrance.reopen(now_seconds)

    def _end(self) -> None:
        for connection in tuple(self._connections):
            self._drop(connection)
        self._entrance.close()
        self._selector.close()
        self._wakeup.close()
        self._waker.close()

    def _has_room(self) -> bool:
        if len(self._connections) < self._max_connections:
            return True
        next_seconds = eviction.next_seconds(self._connections)
        return next_seconds is not None and next_seconds <= self._turn_seconds

    def _take(self, accepted: socket.socket, peer: object) -> None:
        now_seconds = self._clock.monotonic()
        if len(self._connections) >= self._max_connections:
            victim = eviction.one_too_many(self._connections, now_seconds=self._turn_seconds)
            assert victim is not None  # the entrance has asked whether there is room
            self._drop(victim)
        connection = Connection(
            accepted,
            client=eviction.client_of(peer),
            now_seconds=now_seconds,
            deadline_seconds=now_seconds + self._connection_seconds,
            protection=self._protected.current(),
        )
        self._connections[connection] = None
        self._watch(connection)
        self._serve(connection)

    def _serve(self, connection: Connection) -> None:
        """Do what a connection is ready for."""
        self._safely(connection, partial(self._step, connection))

    def _safely(self, connection: Connection, act: Callable[[], None]) -> None:
        """Do something for a connection; its faults end it and nothing else."""
        try:
            act()
            self._rewatch(connection)
        except PlainText:
            self._reply(connection, _NO_TLS)
        except (OSError, EOFError):
            self._drop(connection)
        except Exception:  # the boundary of one connection: the others must not end with it
            log.exception("a connection failed")
            self._drop(connection)

    def _step(self, connection: Connection) -> None:
        match connection.phase:
            case Phase.GREETING:
                connection.greet(now_seconds=self._clock.monotonic())
            case Phase.READING:
                self._read(connection)
            case Phase.WRITING:
                connection.send(now_seconds=self._clock.monotonic())
            case Phase.DRAINING:
                connection.drain()
            case Phase.COMPARING | Phase.WAITING:
                return

    def _read(self, connection: Connection) -> None:
        received = connection.receive()
        if received is None:
            return
        try:
            request = http.read(received)
        except BadRequest as error:
            self._reply(connection, Answer.text(error.status, str(error)))
            return
        if request is None:
            return
        connection.head_only = request.head_only
        users = connection.protection.users
        claimed = credentials(request.headers.get("authorization", "")) if users else None
        if not users or (claimed is not None and self._passwords.recognises(users, claimed)):
            self._answer(connection, request)
        elif claimed is None:
            self._reply(connection, _UNAUTHORIZED)
        else:
            self._park(connection, Phase.COMPARING)
            tell = partial(self._compared, connection, request)
            self._passwords.check(users, claimed, tell, client=connection.client, token=connection)

    def _compared(self, connection: Connection, request: Request, right: bool) -> None:
        """Take a verdict from the passwords' thread over to ours."""
        self._post(partial(self._judge, connection, request, right))

    def _judge(self, connection: Connection, request: Request, right: bool) -> None:
        if connection not in self._connections:
            return
        if right:
            self._safely(connection, partial(self._answer, connection, request))
        else:
            self._reply(connection, _UNAUTHORIZED)

    def _answer(self, connection: Connection, request: Request) -> None:
        answer = self._site.answer(request)
        if isinstance(answer, Answer):
            self._reply(connection, answer)
        elif self._waiting >= self._max_requests:
            self._reply(connection, _BUSY)
        else:
            self._waiting += 1
            self._park(connection, Phase.WAITING)
            if not self._wanted:
                self._wanted_since_seconds = self._clock.monotonic()
            self._wanted.append((answer, connection))

    def _park(self, connection: Connection, phase: Literal[Phase.COMPARING, Phase.WAITING]) -> None:
        """Let a connection wait for another thread, unwatched."""
        if not connection.parked:
            self._selector.unregister(connection)
        connection.wait(phase)

    def _take_posted(self) -> None:
        with suppress(BlockingIOError):
            self._wakeup.recv(4096)
        while self._posted:
            self._posted.popleft()()

    def _take_pages(self, delivered: Delivered) -> None:
        self._waiting -= len(delivered)
        self._rendering -= len(delivered)
        self._round_bytes = sum({id(answer.body): len(answer.body) for _, answer in delivered}.values())
        for connection, answer in delivered:
            if connection in self._connections:
                self._reply(connection, answer)

    def _want_pages(self, now_seconds: float) -> None:
        """Have the wanted pages rendered, all at once, as soon as there is room for them beside those being read."""
        if not self._wanted or self._rendering:
            return
        urgent = now_seconds >= self._wanted_since_seconds + PATIENCE_SECONDS
        given_up = eviction.unread_too_long(
            self._connections,
            allowed_bytes=self._allowed_bytes,
            idle_since_seconds=now_seconds if urgent else now_seconds - eviction.GRACE_SECONDS,
        )
        for connection in given_up:
            self._drop(connection)
        if eviction.unread_bytes(self._connections) <= self._allowed_bytes:
            wanted, self._wanted = self._wanted, []
            self._rendering = len(wanted)
            for scrape, connection in wanted:
                self._renderer.want(scrape, connection)

    @property
    def _allowed_bytes(self) -> int:
        """How many bytes the pages that are being read may have for the next ones to be made."""
        return max(self._unread_bytes - self._round_bytes, self._round_bytes)

    def _reply(self, connection: Connection, answer: Answer) -> None:
        """Begin to answer; what happens in sending ends this connection only."""
        parked = connection.parked
        head = http.head(answer, now_seconds=self._clock.wall(), headers=connection.protection.headers)
        connection.reply(head, b"" if connection.head_only else answer.body)
        if parked:
            self._watch(connection)
        self._serve(connection)

    def _watch(self, connection: Connection) -> None:
        self._selector.register(connection, connection.events, partial(self._serve, connection))

    def _rewatch(self, connection: Connection) -> None:
        """Watch for what the connection waits for now."""
        if not connection.parked and connection in self._connections:
            key = self._selector.get_key(connection)
            if key.events != connection.events:
                self._selector.modify(connection, connection.events, key.data)

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection, self) is None:
            if not connection.parked:
                self._selector.unregister(connection)
            elif connection.phase is Phase.COMPARING:
                self._passwords.cancel(client=connection.client, token=connection)
            connection.close()
