"""A client's connection: its socket, buffers, phase and deadline."""

from __future__ import annotations

import selectors
import socket
import struct
from contextlib import suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from paropt_exporter.exposition.protection import Protection
    from paropt_exporter.exposition.routes import RenderedPage
    from paropt_exporter.exposition.tls import TlsSocket

_CHUNK_BYTES = 16 * 1024  # received at once; a request's head is no larger
_SMALL_BYTES = 16 * 1024  # a body up to this size is sent together with its head, if possible in one packet
# How much of an unsent response the kernel buffers. Without a bound it takes 2.5 MB for each connection; this is enough
# to keep a fast reader busy.
UNSENT_BYTES = 256 * 1024
DRAIN_SECONDS = 2.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_HANDSHAKE = b"\x16"  # the first byte of every TLS client


class Phase(Enum):
    """A connection's phases, in order; it never goes back to an earlier one."""

    HANDSHAKE = auto()  # the TLS handshake
    READING_REQUEST = auto()
    CHECKING_PASSWORD = auto()  # by another thread; its socket is not in the selector
    WAITING_FOR_PAGE = auto()  # another thread renders it; its socket is not in the selector
    SENDING = auto()
    DRAINING = auto()  # the response is sent; further input is discarded


class PlainHttpReceived(Exception):
    """The client sent plain HTTP to an HTTPS endpoint."""


class _Channel(Protocol):
    """A non-blocking socket, plain or TLS. Its BlockingIOError may have `events`: the events that TLS waits for."""

    def fileno(self) -> int: ...
    def recv(self, size: int, /) -> bytes: ...
    def send(self, content: memoryview, /) -> int: ...
    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...


class Connection:
    """A non-blocking socket with its buffers. No method blocks.

    `client` identifies the peer (see `eviction.identify_client`). `progress_seconds` is when the connection was
    accepted, ended its handshake or last sent part of its response. `page` is the large body that it is still sending,
    which connections share that send the same one; it is empty for small bodies. `rendered` is the response with that
    body. `events` are the selector events that the connection waits for.

    DRAINING exists because the kernel resets a connection that is closed with unread input, and the client may then
    lose the response: for example the 414 while it is still sending its 10 MB request line.
    """

    __slots__ = (
        "_channel", "_inbox", "_outbox", "_plain", "_tls", "client", "deadline_seconds", "events", "head_only",
        "page", "phase", "progress_seconds", "protection", "rendered",
    )  # fmt: skip

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
        with suppress(OSError):  # a Unix socket has neither option
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # send a head at once, before its page
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        self._plain = accepted
        self._tls: TlsSocket | None = None
        self._channel: _Channel = accepted
        self._inbox = bytearray()
        self._outbox: list[memoryview] = []
        self.page = b""
        self.rendered: RenderedPage | None = None
        self.client = client
        self.progress_seconds = now_seconds
        self.protection = protection
        self.phase = Phase.HANDSHAKE if protection.secure else Phase.READING_REQUEST
        self.events = selectors.EVENT_READ
        self.deadline_seconds = deadline_seconds
        self.head_only = False

    def __repr__(self) -> str:
        return f"<Connection {self.phase.name} {len(self._inbox)} in, {sum(map(len, self._outbox))} out>"

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def has_begun_handshake(self) -> bool:
        return self._tls is not None

    def continue_handshake(self, *, now_seconds: float) -> bool:
        """Continue the TLS handshake; return whether it is complete.

        Raises PlainHttpReceived, OSError or EOFError if it fails.
        """
        try:
            if self._tls is None:
                self._tls = self._channel = self._start_tls()
            self._tls.handshake()
        except BlockingIOError as blocked:
            self._set_events(blocked, selectors.EVENT_READ)
            return False
        self.phase = Phase.READING_REQUEST
        self.events = selectors.EVENT_READ
        self.progress_seconds = now_seconds
        return True

    def receive_request(self) -> bytes | None:
        """Return all bytes received so far, or None if none are new. Raises EOFError if the client has disconnected."""
        try:
            chunk = self._channel.recv(_CHUNK_BYTES)
        except BlockingIOError as blocked:
            self._set_events(blocked, selectors.EVENT_READ)
            return None
        if not chunk:
            raise EOFError
        self.events = selectors.EVENT_READ
        self._inbox += chunk
        return bytes(self._inbox)

    def suspend(self, phase: Literal[Phase.CHECKING_PASSWORD, Phase.WAITING_FOR_PAGE]) -> None:
        """Enter a phase in which another thread works for the connection."""
        self.phase = phase
        self._inbox.clear()

    @property
    def is_suspended(self) -> bool:
        """Whether another thread works for it, so that its socket must not be in the selector."""
        return self.phase in (Phase.CHECKING_PASSWORD, Phase.WAITING_FOR_PAGE)

    def start_response(self, head: bytes, body: bytes) -> None:
        """Start to send a response. Connections that send the same large body share it without copying."""
        self.phase = Phase.SENDING
        self.events = selectors.EVENT_WRITE
        self._inbox.clear()
        if len(body) > _SMALL_BYTES:
            self._outbox, self.page = [memoryview(head), memoryview(body)], body
        else:
            self._outbox = [memoryview(head + body)]

    def send(self, *, now_seconds: float) -> bool:
        """Send as much as the socket accepts, and start to drain once all is sent. Return whether it is."""
        try:
            while self._outbox:
                sent = self._channel.send(self._outbox[0])
                self.progress_seconds = now_seconds
                self._outbox[0] = self._outbox[0][sent:]
                if not self._outbox[0]:
                    del self._outbox[0]
        except BlockingIOError as blocked:
            self._set_events(blocked, selectors.EVENT_WRITE)
            return False
        self.page, self.rendered = b"", None
        self.phase = Phase.DRAINING
        self.events = selectors.EVENT_READ
        self.deadline_seconds = min(self.deadline_seconds, now_seconds + DRAIN_SECONDS)
        with suppress(OSError):  # the client has read everything and closed the connection
            self._channel.shutdown(socket.SHUT_WR)
        return True

    def drain(self) -> None:
        """Discard input. Raises EOFError if the client has disconnected."""
        try:
            if not self._channel.recv(_CHUNK_BYTES):
                raise EOFError
        except BlockingIOError as blocked:
            self._set_events(blocked, selectors.EVENT_READ)

    def close(self) -> None:
        """Close the socket. If a response was sent only in part, reset the connection: the kernel frees its buffer at
        once.
        """
        if self._outbox:
            with suppress(OSError):
                self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._channel.close()
        self._outbox.clear()
        self.page, self.rendered = b"", None

    def _start_tls(self) -> TlsSocket:
        """Wrap the socket in TLS once the client's first byte has arrived: until then a client costs no TLS state."""
        first = self._plain.recv(1, socket.MSG_PEEK)
        if not first:
            raise EOFError
        if first != _HANDSHAKE or self.protection.secure is None:
            raise PlainHttpReceived
        return self.protection.secure(self._plain)

    def _set_events(self, blocked: BlockingIOError, usual: int) -> None:
        self.events = getattr(blocked, "events", usual)
