"""TLS on a non-blocking socket, with the settings of `tls_server_config`."""

from __future__ import annotations

import selectors
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from paropt_exporter import files
from paropt_exporter.errors import UsageError
from paropt_exporter.exposition.web_config import CURVES, SUITES, TlsServer

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_SLICE_BYTES = 64 * 1024  # encrypted at once: the selector thread gets to its other clients in between


class Blocked(BlockingIOError):
    """The TLS layer waits for its socket; `events` says for what, which need not be what the caller is doing."""

    def __init__(self, events: int) -> None:
        super().__init__()
        self.events = events


class ClientRefused(OSError):
    """The client's certificate is valid, but names nobody who may come in."""


class TlsSocket:
    """A socket of which one end speaks TLS; as non-blocking as a plain one, but raises Blocked."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, allowed_names: tuple[str, ...]) -> None:
        self._socket = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._allowed_names = frozenset(allowed_names)

    def fileno(self) -> int:
        return self._socket.fileno()

    def handshake(self) -> None:
        """Go on with the handshake; raises Blocked until it is done, OSError if it can't be."""
        try:
            self._socket.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise _blocked(error) from None
        if self._allowed_names and not self._allowed_names & self._names():
            raise ClientRefused("the client's certificate has none of the allowed names")

    def recv(self, size: int) -> bytes:
        try:
            return self._socket.recv(size)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise _blocked(error) from None

    def send(self, content: memoryview) -> int:
        # After Blocked OpenSSL wants the same bytes again: a slice of what is left begins and ends where it did.
        try:
            return self._socket.send(content[:_SLICE_BYTES])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise _blocked(error) from None

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self._socket.setsockopt(level, option, value)

    def shutdown(self, how: int) -> None:
        with suppress(OSError):  # says goodbye; the client's own is not waited for
            self._socket.unwrap()
        self._socket.shutdown(how)

    def close(self) -> None:
        self._socket.close()

    def _names(self) -> frozenset[str]:
        alternatives: Any = (self._socket.getpeercert() or {}).get("subjectAltName", ())
        return frozenset(str(name) for _, name in alternatives)


def context(settings: TlsServer, folder: Path) -> ssl.SSLContext:
    """Return what new connections speak TLS with; raises UsageError, one line, for files that can't be used."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version, made.maximum_version = _VERSIONS[settings.min_version], _VERSIONS[settings.max_version]
    made.verify_mode = _VERIFY[settings.client_auth_type]
    made.set_alpn_protocols(["http/1.1"])
    if not settings.prefer_server_cipher_suites:
        made.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    try:
        _choose_suites(made, settings.cipher_suites)
        for curve in settings.curve_preferences:
            made.set_ecdh_curve(CURVES[curve])
    except (ssl.SSLError, ValueError) as error:  # a policy of the system can rule out what is valid
        raise UsageError(
            f"TLS: cipher_suites or curve_preferences: {ssl.OPENSSL_VERSION} refuses them: {error}"
        ) from None
    _load(made, settings, folder)
    return made


def _choose_suites(made: ssl.SSLContext, wanted: tuple[str, ...]) -> None:
    older = [SUITES[suite] for suite in wanted if suite in SUITES]
    if older:
        made.set_ciphers(":".join(older))
    elif wanted:
        made.minimum_version = ssl.TLSVersion.TLSv1_3


def _load(made: ssl.SSLContext, settings: TlsServer, folder: Path) -> None:
    certificate, key = folder / str(settings.cert_file), folder / str(settings.key_file)
    try:
        files.check_regular(certificate)  # OpenSSL would wait for the writer of a pipe
        files.check_regular(key)
        made.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        place = next((path for path in (certificate, key) if not path.is_file()), f"{certificate}, {key}")
        raise UsageError(f"TLS: {place}: {_why(error)}") from None
    if settings.client_ca_file is None:
        made.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    authorities = folder / settings.client_ca_file
    try:
        files.check_regular(authorities)
        made.load_verify_locations(authorities)
    except OSError as error:
        raise UsageError(f"TLS: {authorities}: {_why(error)}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted, and there is nobody to ask for its password: decrypt it")


def _why(error: OSError | ValueError) -> str:
    match error:
        case ssl.SSLError(reason="KEY_VALUES_MISMATCH"):
            return "the key does not belong to the certificate"
        case ssl.SSLError():
            return f"expected PEM with a certificate and its key ({error.reason or 'nothing of the kind'})"
        case OSError():
            return f"it can't be read: {error.strerror}"
    return str(error)


def _blocked(error: ssl.SSLError) -> Blocked:
    reading = isinstance(error, ssl.SSLWantReadError)
    return Blocked(selectors.EVENT_READ if reading else selectors.EVENT_WRITE)
