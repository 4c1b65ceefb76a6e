"""Protect the endpoint with TLS, passwords and headers; reload them when their files change."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct, field

from paropt_exporter import families
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.errors import ParoptError, UsageError

if TYPE_CHECKING:
    import socket

    from paropt_exporter.exposition.tls import TlsSocket
    from paropt_exporter.exposition.web_config import WebConfig

log = logging.getLogger(__name__)

_Stamp = tuple[object, ...]
_SUCCESS, _FAILURE = families.RELOAD_RESULTS
# Files can become readable without a change of their own, such as once a descriptor or a server is free again.
RETRY_SECONDS = 10.0


class Protection(Struct, frozen=True, kw_only=True):
    """The protection of a connection. `secure` wraps its socket in TLS; None means plain HTTP.

    `users` maps names to bcrypt hashes; if it is empty, every client may read.
    """

    secure: Callable[[socket.socket], TlsSocket] | None = None
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    headers: tuple[tuple[str, str], ...] = ()


class ProtectionSource(Protocol):
    """An object that supplies the protection of new connections."""

    def get_protection(self) -> Protection: ...

    def count_reloads(self) -> Mapping[str, int]:
        """Return how many changed web configs were loaded and how many refused, by result; empty if there is none."""

    def was_reload_successful(self) -> bool | None:
        """Return whether the web config was loaded when it was last read; None without one."""


class NoProtection:
    """Plain HTTP for all clients."""

    def get_protection(self) -> Protection:
        return Protection()

    def count_reloads(self) -> Mapping[str, int]:
        return {}

    def was_reload_successful(self) -> bool | None:
        return None


class ProtectionFile:
    """The protection that a web config file defines.

    Guarantees:
    * The constructor raises ConfigError or UsageError for an invalid file; `get_protection` never raises.
    * A reload never weakens protection: a changed file that is invalid, or that protects less than the config in force
      (see `find_weakened_keys`), is refused, logged once and counted, and the config in force stays. The certificates
      of that config are still reloaded when they change.
    * Files that could not be loaded are tried again when they change, and every RETRY_SECONDS.
    Not thread-safe, except for `count_reloads` and `was_reload_successful`: only the serving thread calls
    `get_protection`.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._retry_seconds = self._held_retry_seconds = math.inf
        self._shown_path, self._path = path, path.absolute()  # a Python call of a stage may change the current folder
        self._files: tuple[Path, ...] = (self._path,)
        self._stamps: _Stamp = ()
        self._reloads = dict.fromkeys(families.RELOAD_RESULTS, 0)
        self._was_successful = True
        self._config, self._protection = self._load()
        self._held_files: tuple[Path, ...] = self._files[1:]  # the certificates of `_config`
        self._held_stamps: _Stamp = self._stamps[1:]
        _preload_modules()
        if not self._protection.secure and not self._protection.users:
            log.warning("the web config has neither TLS nor users: anyone may read", extra={"file": str(path)})

    def get_protection(self) -> Protection:
        """Return the protection of new connections, after reloading the files if their stamps have changed."""
        stamps = _read_stamps(self._files)
        if stamps != self._stamps:
            self._stamps = stamps
            self._reload()
        elif self._clock.monotonic() >= self._retry_seconds:
            self._reload(again=True)
        else:
            self._renew_certificates()
        return self._protection

    def count_reloads(self) -> Mapping[str, int]:
        """Return how many changed files were loaded and how many refused, by result; from any thread."""
        return dict(self._reloads)

    def was_reload_successful(self) -> bool:
        """Return whether the file was loaded when it was last read; from any thread."""
        return self._was_successful

    def _reload(self, *, again: bool = False) -> None:
        """Load the files; `again`: unchanged ones that could not be loaded, which is not reported once more."""
        self._retry_seconds = math.inf
        try:
            config, protection = self._load()
        except Exception as error:  # the boundary of a file that others edit: no content of it may stop the endpoint
            self._retry_seconds = self._clock.monotonic() + RETRY_SECONDS
            if not again:
                self._count(_FAILURE)
                log.error(
                    "the changed web config is invalid: the previous one stays in use",
                    extra={"err": str(error)},
                    exc_info=not isinstance(error, ParoptError),
                )
            self._renew_certificates()
            return
        if lost := find_weakened_keys(self._config, config):
            self._count(_FAILURE)
            log.warning(
                "the changed web config protects less and was refused: the previous one stays in use until a restart",
                extra={"file": str(self._path), "lost": ", ".join(lost)},
            )
            self._renew_certificates()
            return
        self._count(_SUCCESS)
        self._config, self._protection = config, protection
        self._held_files, self._held_stamps = self._files[1:], self._stamps[1:]
        self._held_retry_seconds = math.inf
        log.info("the changed web config is in use", extra={"file": str(self._path)})

    def _count(self, result: str) -> None:
        self._reloads[result] += 1
        self._was_successful = result == _SUCCESS

    def _renew_certificates(self) -> None:
        """Reload changed certificates of the config in force, even while the file has a refused config: they expire."""
        stamps = _read_stamps(self._held_files)
        if stamps != self._held_stamps or self._clock.monotonic() >= self._held_retry_seconds:
            self._held_stamps, self._held_retry_seconds = stamps, math.inf
            try:
                self._protection = _build_protection(self._config, self._path)
            except ParoptError:  # those in use stay
                self._held_retry_seconds = self._clock.monotonic() + RETRY_SECONDS

    def _load(self) -> tuple[WebConfig, Protection]:
        from paropt_exporter.exposition import web_config

        # Stamps are read before contents, so a file that is replaced in between is loaded again next time.
        own_stamp = _read_stamp(self._path)
        config = web_config.load_web_config(self._path, shown_path=self._shown_path)
        tls = config.tls_server_config
        named = (tls.cert_file, tls.key_file, tls.client_ca_file)
        others = tuple(self._path.parent / name for name in named if name is not None)
        self._files, self._stamps = (self._path, *others), (own_stamp, *_read_stamps(others))
        return config, _build_protection(config, self._path)


def _preload_modules() -> None:
    """Import what later reloads and requests need, before a stage's Python call puts the project first on sys.path."""
    import_module("paropt_exporter.exposition.tls")
    with suppress(ModuleNotFoundError):
        import_module("bcrypt")


def find_weakened_keys(old: WebConfig, new: WebConfig) -> tuple[str, ...]:
    """Return the keys of `old` whose protection `new` lacks or lowers.

    Protection is weaker if TLS, all users, a header, the client CA, or the list of client names or of cipher suites is
    gone, if client certificates are checked less strictly, or if the lowest TLS version is lower. Replacing
    certificates, users, names or suites does not weaken it: that changes who may read.
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


def _build_protection(config: WebConfig, path: Path) -> Protection:
    from importlib.util import find_spec

    if config.basic_auth_users and find_spec("bcrypt") is None:
        raise UsageError(f"{path}: basic_auth_users needs bcrypt: pip install bcrypt")
    return Protection(
        secure=_build_tls_wrapper(config, path.parent),
        users=MappingProxyType(dict(config.basic_auth_users)),
        headers=tuple(config.http_server_config.headers.items()),
    )


def _build_tls_wrapper(config: WebConfig, folder: Path) -> Callable[[socket.socket], TlsSocket] | None:
    settings = config.tls_server_config
    if settings.is_empty:
        return None
    from paropt_exporter.exposition import tls

    context = tls.build_context(settings, folder)
    return lambda plain: tls.TlsSocket(plain, context, settings.client_allowed_sans)


def _read_stamps(files: Iterable[Path]) -> _Stamp:
    """Return a value that changes when the files change. It follows links: Kubernetes mounts secrets as links."""
    return tuple(_read_stamp(file) for file in files)


def _read_stamp(file: Path) -> _Stamp:
    try:
        status = file.stat()
    except OSError as error:
        return (error.errno,)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
