"""One client's connection: what was received, what is still to be sent, and until when it may live."""

from __future__ import annotations

import socket
from contextlib import suppress
from enum import Enum, auto

_CHUNK_BYTES = 64 * 1024
_DRAIN_SECONDS = 2.0


class Phase(Enum):
    """Where a connection is; it only moves downwards."""

    READING = auto()
    WAITING = auto()  # for its page to be rendered; its socket is not watched
    WRITING = auto()
    DRAINING = auto()  # the answer is sent; what the client still sends is thrown away


class Connection:
    """A non-blocking socket with its buffers; every method returns at once.

    DRAINING is there because closing a socket with unread input makes the kernel reset the connection, and the client
    may lose the answer: for example the 414 while it is still sending its 10 MB request line.
    """

    __slots__ = ("_inbox", "_outbox", "_socket", "deadline_seconds", "head_only", "phase")

    def __init__(self, accepted: socket.socket, *, deadline_seconds: float) -> None:
        accepted.setblocking(False)
        self._socket = accepted
        self._inbox = bytearray()
        self._outbox = memoryview(b"")
        self.phase = Phase.READING
        self.deadline_seconds = deadline_seconds
        self.head_only = False

    def __repr__(self) -> str:
        return f"<Connection {self.phase.name} {len(self._inbox)} in, {len(self._outbox)} out>"

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """Return all that was received so far, None if there is nothing new. Raises EOFError at the client's end."""
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return None
        if not chunk:
            raise EOFError
        self._inbox += chunk
        return bytes(self._inbox)

    def wait(self) -> None:
        """Keep the connection while its page is rendered."""
        self.phase = Phase.WAITING
        self._inbox.clear()

    def reply(self, answer: bytes) -> None:
        """Begin to send an answer."""
        self.phase = Phase.WRITING
        self._inbox.clear()
        self._outbox = memoryview(answer)

    def send(self, *, now_seconds: float) -> None:
        """Send what the socket takes; the connection drains once all of it is sent."""
        with suppress(BlockingIOError):
            while self._outbox:
                self._outbox = self._outbox[self._socket.send(self._outbox) :]
        if not self._outbox:
            self._outbox = memoryview(b"")
            self.phase = Phase.DRAINING
            self.deadline_seconds = min(self.deadline_seconds, now_seconds + _DRAIN_SECONDS)
            self._socket.shutdown(socket.SHUT_WR)

    def drain(self) -> None:
        """Throw away what has come. Raises EOFError at the client's end."""
        with suppress(BlockingIOError):
            if not self._socket.recv(_CHUNK_BYTES):
                raise EOFError

    def close(self) -> None:
        """End it at once."""
        self._socket.close()
