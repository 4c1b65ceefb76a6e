"""What protects the endpoint: TLS, passwords and headers, read again whenever their files change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from paropt_exporter import families
from paropt_exporter.errors import ParoptError, UsageError

if TYPE_CHECKING:
    import socket

    from paropt_exporter.exposition.tls import TlsSocket
    from paropt_exporter.exposition.web_config import WebConfig

log = logging.getLogger(__name__)

_Stamp = tuple[object, ...]
_SUCCESS, _FAILURE = families.RELOAD_RESULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Protection:
    """What a new connection is served under. `secure` makes TLS of its socket, None: it is plain HTTP.

    `users` maps names to bcrypt hashes; none: everybody may read.
    """

    secure: Callable[[socket.socket], TlsSocket] | None = None
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    headers: tuple[tuple[str, str], ...] = ()


class Protected(Protocol):
    """The source of the protection that new connections get."""

    def current(self) -> Protection: ...

    def reloads(self) -> Mapping[str, int]:
        """Return how often a changed web config was loaded and refused, by result; empty without a web config."""


class Open:
    """No file: plain HTTP for everybody."""

    def current(self) -> Protection:
        return Protection()

    def reloads(self) -> Mapping[str, int]:
        return {}


class ProtectionFile:
    """The web config file at `path`.

    Guarantees:
    * Raises ConfigError or UsageError at the start if the file can't be honoured as a whole; `current` never raises.
    * A reload never weakens: a changed file that can't be used, or that protects less than the config in force
      (`weakened` says what that means), is refused, logged once and counted, and the config in force stays.
    Not thread-safe, except for `reloads`: the serving thread alone calls `current`.
    """

    def __init__(self, path: Path) -> None:
        self._named, self._path = path, path.absolute()  # a call may change the current folder
        self._files: tuple[Path, ...] = (self._path,)
        self._stamps: _Stamp = ()
        self._reloads = dict.fromkeys(families.RELOAD_RESULTS, 0)
        self._config, self._protection = self._read()
        _import_all()
        if not self._protection.secure and not self._protection.users:
            log.warning("the web config has neither TLS nor users: anyone may read", extra={"file": str(path)})

    def current(self) -> Protection:
        """Return the protection of new connections; a look at the files' times, and a reading where they changed."""
        stamps = _stamps(self._files)
        if stamps != self._stamps:
            self._stamps = stamps
            self._read_again()
        return self._protection

    def reloads(self) -> Mapping[str, int]:
        """Return how often a changed file was loaded and refused, by result; from any thread."""
        return dict(self._reloads)

    def _read_again(self) -> None:
        try:
            config, protection = self._read()
        except Exception as error:  # the boundary of a file that others change: no content of it may end the endpoint
            self._reloads[_FAILURE] += 1
            log.error(
                "the changed web config can't be used: the one before stays in force",
                extra={"err": str(error)},
                exc_info=not isinstance(error, ParoptError),
            )
            return
        if lost := weakened(self._config, config):
            self._reloads[_FAILURE] += 1
            log.warning(
                "the changed web config protects less and was refused: the one before stays in force until a restart",
                extra={"file": str(self._path), "lost": ", ".join(lost)},
            )
            return
        self._reloads[_SUCCESS] += 1
        self._config, self._protection = config, protection
        log.info("the changed web config is in force", extra={"file": str(self._path)})

    def _read(self) -> tuple[WebConfig, Protection]:
        from paropt_exporter.exposition import web_config

        # Each file's stamp is taken before its content: what is replaced in between is read again next time.
        own_stamp = _stamp(self._path)
        config = web_config.read(self._path, named=self._named)
        tls = config.tls_server_config
        named = (tls.cert_file, tls.key_file, tls.client_ca_file)
        others = tuple(self._path.parent / name for name in named if name is not None)
        self._files, self._stamps = (self._path, *others), (own_stamp, *_stamps(others))
        return config, _protection(config, self._path)


def _import_all() -> None:
    """Import what a later reload or request needs: a call puts the project's modules before all others."""
    import_module("paropt_exporter.exposition.tls")
    if find_spec("bcrypt") is not None:
        import_module("bcrypt")


def weakened(old: WebConfig, new: WebConfig) -> tuple[str, ...]:
    """Return the keys of `old` whose protection `new` lacks or lowers.

    Each of these weakens: TLS, all users, a header, the authority of clients, the list of clients' names or of cipher
    suites is gone; client certificates are required less strictly; the lowest TLS version is lower. Replacing
    certificates, users, names and suites does not: it says who may read, not whether anyone is kept out.
    """
    before, after = old.tls_server_config, new.tls_server_config
    lost = []
    if old.basic_auth_users and not new.basic_auth_users:
        lost.append("basic_auth_users")
    lost += [f"headers.{name}" for name in old.http_server_config.headers if name not in new.http_server_config.headers]
    if before.is_empty:
        return tuple(lost)
    if after.is_empty:
        return (*lost, "tls_server_config")
    if after.client_auth_level < before.client_auth_level:
        lost.append("client_auth_type")
    if after.lowest_version < before.lowest_version:
        lost.append("min_version")
    lost += [
        key
        for key in ("client_ca_file", "client_allowed_sans", "cipher_suites")
        if getattr(before, key) and not getattr(after, key)
    ]
    return tuple(lost)


def _protection(config: WebConfig, path: Path) -> Protection:
    if config.basic_auth_users and find_spec("bcrypt") is None:
        raise UsageError(f"{path}: basic_auth_users needs bcrypt: pip install bcrypt")
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
