"""What protects the endpoint: TLS, passwords and headers, read again whenever their files change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from paropt_exporter.errors import ParoptError, UsageError

if TYPE_CHECKING:
    import socket

    from paropt_exporter.exposition.tls import TlsSocket
    from paropt_exporter.exposition.web_config import WebConfig

log = logging.getLogger(__name__)

_Stamp = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What a new connection is served under. `secure` makes TLS of its socket, None: it is plain HTTP.

    `users` maps names to bcrypt hashes; none: everybody may read.
    """

    secure: Callable[[socket.socket], TlsSocket] | None = None
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    headers: tuple[tuple[str, str], ...] = ()


class Protected(Protocol):
    """Whatever knows the protection of this moment."""

    def current(self) -> Protection: ...


class Open:
    """No file: plain HTTP for everybody."""

    def current(self) -> Protection:
        return Protection()


class ProtectionFile:
    """The web config file at `path`.

    Guarantees: raises ConfigError or UsageError at the start if it can't be honoured as a whole; later `current` never
    raises, and after a change that can't be honoured what held before goes on to hold, said once in the log.
    Not thread-safe: the serving thread alone asks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: tuple[Path, ...] = (path,)
        self._stamps: _Stamp = ()
        self._protection = self._read()

    def current(self) -> Protection:
        """Return the protection of new connections; a look at the files' times, and a reading where they changed."""
        stamps = _stamps(self._files)
        if stamps != self._stamps:
            self._stamps = stamps
            self._read_again()
        return self._protection

    def _read_again(self) -> None:
        try:
            self._protection = self._read()
        except Exception as error:  # the boundary of a file that others change: no content of it may end the endpoint
            log.error(
                "the web config can't be used as it is now, what held before holds",
                extra={"err": str(error)},
                exc_info=not isinstance(error, ParoptError),
            )
        else:
            log.info("the web config was read again", extra={"file": str(self._path)})

    def _read(self) -> Protection:
        from paropt_exporter.exposition import web_config

        # Each file's stamp is taken before its content: what is replaced in between is read again next time.
        own_stamp = _stamp(self._path)
        config = web_config.read(self._path)
        tls = config.tls_server_config
        named = (tls.cert_file, tls.key_file, tls.client_ca_file)
        others = tuple(self._path.parent / name for name in named if name is not None)
        self._files, self._stamps = (self._path, *others), (own_stamp, *_stamps(others))
        return _protection(config, self._path)


def _protection(config: WebConfig, path: Path) -> Protection:
    if config.basic_auth_users and find_spec("bcrypt") is None:
        raise UsageError(f"{path}: basic_auth_users needs bcrypt: pip install 'paropt-exporter[bcrypt]'")
    return Protection(
        secure=_secured(config, path.parent),
        users=MappingProxyType(dict(config.basic_auth_users)),
        headers=tuple(config.http_server_config.headers.items()),
    )


def _secured(config: WebConfig, folder: Path) -> Callable[[socket.socket], TlsSocket] | None:
    settings = config.tls_server_config
    if settings.is_empty:
        return None
    from paropt_exporter.exposition import tls

    context = tls.context(settings, folder)
    return lambda plain: tls.TlsSocket(plain, context, settings.client_allowed_sans)


def _stamps(files: Iterable[Path]) -> _Stamp:
    """Return what changes with the files; a replaced link's target counts, as Kubernetes mounts secrets so."""
    return tuple(_stamp(file) for file in files)


def _stamp(file: Path) -> _Stamp:
    try:
        status = file.stat()
    except OSError as error:
        return (error.errno,)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
