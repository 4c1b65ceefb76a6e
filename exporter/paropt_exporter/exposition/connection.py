"""One client's connection: what was received, what is still to be sent, and until when it may live."""

from __future__ import annotations

import selectors
import socket
import struct
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from paropt_exporter.exposition.protection import Protection
    from paropt_exporter.exposition.tls import TlsSocket

_CHUNK_BYTES = 16 * 1024  # received at once; a request's head has no more
_SMALL_BYTES = 16 * 1024  # a body up to here goes out with its head, in one packet where it fits
# What the kernel holds of an answer that is not on its way yet. Without a bound it takes 2.5 MB of each connection;
# this keeps a fast reader busy.
UNSENT_BYTES = 256 * 1024
DRAIN_SECONDS = 2.0
_NO_LINGER = struct.pack("ii", 1, 0)
_HANDSHAKE = b"\x16"  # the first byte of every TLS client


class Phase(Enum):
    """Where a connection is; it only moves downwards."""

    GREETING = auto()  # the TLS handshake
    READING = auto()
    COMPARING = auto()  # its password is being compared by another thread; its socket is not watched
    WAITING = auto()  # its page is being rendered by another thread; its socket is not watched
    WRITING = auto()
    DRAINING = auto()  # the answer is sent; what the client still sends is thrown away


class PlainText(Exception):
    """The client speaks plain HTTP where TLS is expected."""


class _Channel(Protocol):
    """A non-blocking socket, plain or TLS. Raises BlockingIOError, which may say in `events` what it waits for."""

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, content: memoryview, /) -> int: ...
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Connection:
    """A non-blocking socket with its buffers; every method returns at once.

    `client` is who it belongs to, `progress_seconds` when it was accepted, ended its handshake or last took some of its
    answer, `page` the body that it still has to send, shared with others that send the same; empty for small ones.

    `events` is what a selector has to watch it for. DRAINING is there because closing a socket with unread input makes
    the kernel reset the connection, and the client may lose the answer: for example the 414 while it is still sending
    its 10 MB request line.
    """

    __slots__ = (
        "_channel",
        "_inbox",
        "_outbox",
        "_plain",
        "_tls",
        "client",
        "deadline_seconds",
        "events",
        "head_only",
        "page",
        "phase",
        "progress_seconds",
        "protection",
    )

    def __init__(
        self,
        accepted: socket.socket,
        *,
        client: str,
        now_seconds: float,
        deadline_seconds: float,
        protection: Protection,
    ) -> None:
        accepted.setblocking(False)
        with suppress(OSError):  # a Unix socket has neither
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a head must not wait for its page
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._plain = accepted
        self._tls: TlsSocket | None = None
        self._channel: _Channel = accepted
        self._inbox = bytearray()
        self._outbox: list[memoryview] = []
        self.page = b""
        self.client = client
        self.progress_seconds = now_seconds
        self.protection = protection
        self.phase = Phase.GREETING if protection.secure else Phase.READING
        self.events = selectors.EVENT_READ
        self.deadline_seconds = deadline_seconds
        self.head_only = False

    def __repr__(self) -> str:
        return f"<Connection {self.phase.name} {len(self._inbox)} in, {sum(map(len, self._outbox))} out>"

    def fileno(self) -> int:
        return self._channel.fileno()

    def greet(self, *, now_seconds: float) -> None:
        """Go on with the TLS handshake. Raises PlainText, OSError or EOFError if it fails."""
        try:
            if self._tls is None:
                self._tls = self._channel = self._begun_tls()
            self._tls.handshake()
        except BlockingIOError as blocked:
            self._wait_for(blocked, selectors.EVENT_READ)
        else:
            self.phase = Phase.READING
            self.events = selectors.EVENT_READ
            self.progress_seconds = now_seconds

    def receive(self) -> bytes | None:
        """Return all that was received so far, None if there is nothing new. Raises EOFError at the client's end."""
        try:
            chunk = self._channel.recv(_CHUNK_BYTES)
        except BlockingIOError as blocked:
            self._wait_for(blocked, selectors.EVENT_READ)
            return None
        if not chunk:
            raise EOFError
        self.events = selectors.EVENT_READ
        self._inbox += chunk
        return bytes(self._inbox)

    def wait(self, phase: Literal[Phase.COMPARING, Phase.WAITING]) -> None:
        """Keep the connection while another thread works for it."""
        self.phase = phase
        self._inbox.clear()

    @property
    def parked(self) -> bool:
        """Whether another thread works for it, so that its socket is not to be watched."""
        return self.phase in (Phase.COMPARING, Phase.WAITING)

    def reply(self, head: bytes, body: bytes) -> None:
        """Begin to send an answer. A large body is not copied: connections that send the same share it."""
        self.phase = Phase.WRITING
        self.events = selectors.EVENT_WRITE
        self._inbox.clear()
        if len(body) > _SMALL_BYTES:
            self._outbox, self.page = [memoryview(head), memoryview(body)], body
        else:
            self._outbox = [memoryview(head + body)]

    def send(self, *, now_seconds: float) -> None:
        """Send what the socket takes; the connection drains once all of it is sent."""
        try:
            while self._outbox:
                sent = self._channel.send(self._outbox[0])
                self.progress_seconds = now_seconds
                self._outbox[0] = self._outbox[0][sent:]
                if not self._outbox[0]:
                    del self._outbox[0]
        except BlockingIOError as blocked:
            self._wait_for(blocked, selectors.EVENT_WRITE)
            return
        self.page = b""
        self.phase = Phase.DRAINING
        self.events = selectors.EVENT_READ
        self.deadline_seconds = min(self.deadline_seconds, now_seconds + DRAIN_SECONDS)
        self._channel.shutdown(socket.SHUT_WR)

    def drain(self) -> None:
        """Throw away what has come. Raises EOFError at the client's end."""
        try:
            if not self._channel.recv(_CHUNK_BYTES):
                raise EOFError
        except BlockingIOError as blocked:
            self._wait_for(blocked, selectors.EVENT_READ)

    def close(self) -> None:
        """End it at once. An answer that is not sent whole ends with a reset, so that the kernel keeps none of it."""
        if self._outbox:
            with suppress(OSError):
                self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._channel.close()
        self._outbox.clear()
        self.page = b""

    def _begun_tls(self) -> TlsSocket:
        """Return TLS over the socket once the client has spoken: until then an idle one costs no TLS state."""
        first = self._plain.recv(1, socket.MSG_PEEK)
        if not first:
            raise EOFError
        if first != _HANDSHAKE or self.protection.secure is None:
            raise PlainText
        return self.protection.secure(self._plain)

    def _wait_for(self, blocked: BlockingIOError, usual: int) -> None:
        self.events = getattr(blocked, "events", usual)
