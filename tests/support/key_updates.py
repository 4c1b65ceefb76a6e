"""A TLS 1.3 client that updates its key: Python's ssl has no function for that, but the OpenSSL that it uses does."""

from __future__ import annotations

import _ssl
import ctypes
import socket

_PIECE_BYTES = 65536


class KeyUpdatingClient:
    """A client after its handshake on a connected socket, which stays the caller's. It does not check certificates."""

    def __init__(self, connected: socket.socket) -> None:
        self._openssl = ctypes.CDLL(getattr(_ssl, "__file__", None))
        for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new", "BIO_s_mem", "BIO_new"):
            getattr(self._openssl, name).restype = ctypes.c_void_p
        self._context = self._make("SSL_CTX_new", self._make("TLS_client_method"))
        self._client = self._make("SSL_new", self._context)
        self._incoming, self._outgoing = (self._make("BIO_new", self._make("BIO_s_mem")) for _ in range(2))
        self._openssl.SSL_set_bio(self._client, self._incoming, self._outgoing)  # frees them with the client
        self._openssl.SSL_set_connect_state(self._client)
        while self._openssl.SSL_do_handshake(self._client) != 1:
            connected.sendall(self._take_outgoing())
            received = connected.recv(_PIECE_BYTES)
            self._openssl.BIO_write(self._incoming, received, len(received))
        connected.sendall(self._take_outgoing())

    def close(self) -> None:
        self._openssl.SSL_free(self._client)
        self._openssl.SSL_CTX_free(self._context)

    def make_updates(self, count: int) -> bytes:
        """Return so many records, each of which only says that the next one has a new key."""
        for _ in range(count):
            assert self._openssl.SSL_key_update(self._client, 0) == 1
            assert self._openssl.SSL_do_handshake(self._client) == 1
        return self._take_outgoing()

    def _make(self, function: str, *arguments: ctypes.c_void_p) -> ctypes.c_void_p:
        return ctypes.c_void_p(getattr(self._openssl, function)(*arguments))

    def _take_outgoing(self) -> bytes:
        piece, parts = ctypes.create_string_buffer(_PIECE_BYTES), []
        while (size := self._openssl.BIO_read(self._outgoing, piece, _PIECE_BYTES)) > 0:
            parts.append(piece.raw[:size])
        return b"".join(parts)
