"""TLS on a non-blocking socket, with the settings of `tls_server_config`."""

from __future__ import annotations

import os
import selectors
import socket
import ssl
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from paropt_exporter import files
from paropt_exporter.errors import UsageError, shorten
from paropt_exporter.exposition.web_config import CURVES, SUITES, TlsServer

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_RECORD_BYTES = 16 * 1024  # the most data in a record
_REQUEST_BYTES = 64 * 1024  # encrypted bytes of a request: the longest head has 16 kB, in a few records

_LONGEST_PATH = 300  # characters of a path in a message


class TlsBlocked(BlockingIOError):
    """TLS waits for its socket to be ready for `events`: to send, TLS may have to receive first, and vice versa."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self.events = events


class ClientRefused(OSError):
    """The client's certificate is valid, but has none of the allowed names."""


class TlsSocket:
    """The server's side of TLS on a non-blocking socket; raises BlockingIOError instead of blocking.

    OpenSSL does not read the socket itself: it would keep reading while a client sends records without data, such as
    key updates, and other clients would wait.
    """

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, allowed_names: tuple[str, ...]) -> None:
        self._socket = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._allowed_names = frozenset(allowed_names)
        self._unread_bytes = _REQUEST_BYTES
        self._unsent = b""  # encrypted bytes
        self._sending_bytes = 0  # how much of the content is in `_unsent`, before encryption
        self._is_shut_down = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> None:
        """Continue the handshake. Raises BlockingIOError until it is complete, OSError or EOFError if it fails.

        Data that arrived with the end of the handshake is no longer in the socket: `recv` returns it at once.
        """
        try:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._receive(_RECORD_BYTES)
                self._tls.do_handshake()
        except ssl.SSLWantReadError:
            raise TlsBlocked(selectors.EVENT_READ) from None
        finally:
            self._send_unsent()  # such as an alert
        if self._allowed_names and not self._allowed_names & self._read_peer_names():
            raise ClientRefused("the client's certificate has none of the allowed names")

    def recv(self, size: int) -> bytes:
        """Return all data that has arrived, of at most `size` encrypted bytes. Raises OSError if a request has more."""
        if self._is_shut_down:
            return self._socket.recv(size)
        received = self._decrypt(size)
        if not received:
            self._unread_bytes -= self._receive(size)
            if self._unread_bytes < 0:
                raise OSError("the request has too many bytes")
            received = self._decrypt(size)
        if not received:
            raise TlsBlocked(selectors.EVENT_READ)
        return received

    def send(self, content: memoryview) -> int:
        """Send a part of the content. After BlockingIOError it expects the same content again."""
        if not self._sending_bytes:
            self._sending_bytes = self._tls.write(content[:_RECORD_BYTES])
        self._send_unsent()
        sent, self._sending_bytes = self._sending_bytes, 0
        return sent

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self._socket.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        with suppress(OSError):
            self._tls.unwrap()  # writes close_notify, without waiting for the client's
        with suppress(OSError):
            self._send_unsent()
        self._is_shut_down = True
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def _receive(self, size: int) -> int:
        chunk = self._socket.recv(size)
        if not chunk:
            raise EOFError
        return self._incoming.write(chunk)

    def _decrypt(self, size: int) -> bytes:
        parts = []
        with suppress(ssl.SSLWantReadError):
            while part := self._tls.read(size):
                parts.append(part)
            if not parts:  # the client has ended TLS
                raise EOFError
        return b"".join(parts)

    def _send_unsent(self) -> None:
        self._unsent += self._outgoing.read()
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            raise TlsBlocked(selectors.EVENT_WRITE) from None

    def _read_peer_names(self) -> frozenset[str]:
        alternatives: Any = (self._tls.getpeercert() or {}).get("subjectAltName", ())
        return frozenset(_format_name(kind, str(name)) for kind, name in alternatives)


def _format_name(kind: str, name: str) -> str:
    """Return a name of a certificate as Go writes it: OpenSSL writes 2001:DB8:0:0:0:0:0:A for 2001:db8::a."""
    if kind == "IP Address":
        with suppress(ValueError):  # OpenSSL writes an address of another length as "<invalid>"
            return str(ip_address(name))
    return name


def build_context(settings: TlsServer, folder: Path) -> ssl.SSLContext:
    """Build the TLS context of new connections; raises UsageError, one line, for unusable settings or files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[settings.min_version], _VERSIONS[settings.max_version]
    context.verify_mode = _VERIFY[settings.client_auth_type]
    context.set_alpn_protocols(["http/1.1"])
    # Few clients resume sessions here, and each ticket costs time. Without any, the kernel's delayed acknowledgement
    # delays the request of a client with Nagle's algorithm by 40 ms.
    context.num_tickets = 1
    if not settings.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        _set_cipher_suites(context, settings.cipher_suites)
    except (ssl.SSLError, ValueError) as error:  # the system's policy can forbid valid names
        raise UsageError(f"TLS: cipher_suites: {ssl.OPENSSL_VERSION} refuses them: {error}") from None
    for curve in settings.curve_preferences:
        try:
            context.set_ecdh_curve(CURVES[curve])
        except (ssl.SSLError, ValueError) as error:  # Python 3.11.2 can't use X25519
            raise UsageError(f"TLS: curve_preferences: this Python can't use {curve}: {error}") from None
    _load_certificates(context, settings, folder)
    return context


def _set_cipher_suites(context: ssl.SSLContext, wanted: tuple[str, ...]) -> None:
    older = [SUITES[suite] for suite in wanted if suite in SUITES]
    if older:
        context.set_ciphers(":".join(older))
    elif wanted:
        context.minimum_version = ssl.TLSVersion.TLSv1_3


def _load_certificates(context: ssl.SSLContext, settings: TlsServer, folder: Path) -> None:
    certificate, key = folder / str(settings.cert_file), folder / str(settings.key_file)
    try:
        files.check_regular(certificate)  # OpenSSL would wait forever for the writer of a named pipe
        files.check_regular(key)
        context.load_cert_chain(certificate, key, password=_refuse_encrypted_key)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        # Not Path.is_file, which raises for a name that is too long:
        place = next((path for path in (certificate, key) if not os.path.isfile(path)), f"{certificate}, {key}")  # noqa: PTH113
        raise UsageError(f"TLS: {shorten(str(place), _LONGEST_PATH)}: {_describe_error(error)}") from None
    if settings.client_auth_type == "NoClientCert":
        return  # with the system's authorities, OpenSSL would search their folder in each handshake
    if settings.client_ca_file is None:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    authorities = folder / settings.client_ca_file
    try:
        files.check_regular(authorities)
        context.load_verify_locations(authorities)
    except OSError as error:
        raise UsageError(f"TLS: {shorten(str(authorities), _LONGEST_PATH)}: {_describe_error(error)}") from None


def _refuse_encrypted_key() -> str:
    raise ValueError("the key is encrypted, and no password can be entered here: decrypt it")


def _describe_error(error: OSError | ValueError) -> str:
    match error:
        case ssl.SSLError(reason="KEY_VALUES_MISMATCH"):
            return "the key does not belong to the certificate"
        case ssl.SSLError():
            return f"expected PEM with a certificate and its key ({error.reason or 'found neither'})"
        case OSError():
            return f"cannot read it: {error.strerror}"
    return str(error)
