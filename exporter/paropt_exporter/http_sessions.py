"""Sessions of `requests` whose connection another thread can cut.

A socket's timeout is for each read: a server that sends a byte now and then, or one interim response after another,
never exceeds it. The reading thread, and its connection, would stay until the process ends.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection


class Sockets:
    """The connection that a session is using. After `close`, each connection is cut at its first use."""

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()  # guards: _current, _expired
        self._current: Any = None
        self._expired = threading.Event()  # of the present `limit`

    def use(self, sock: Any) -> None:
        with self._lock:
            self._current = sock
            is_late = self._expired.is_set()
        if is_late or self._stop.is_set():
            self.cut()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Cut the connections of the block after so many seconds, including those that are made later in the block."""
        expired = threading.Event()
        with self._lock:
            self._expired = expired

        def expire() -> None:
            with self._lock:
                expired.set()
                is_over = self._expired is not expired
            if not is_over:
                self.cut()

        watchdog = threading.Timer(seconds, expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()
            with self._lock:
                self._expired = threading.Event()

    def cut(self) -> None:
        """Cut the connection in use, from any thread: the thread that uses it gets an error."""
        with self._lock:
            sock = self._current
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself

    def close(self) -> None:
        """Cut the connection in use and all later ones, from any thread."""
        self._stop.set()
        self.cut()


def mount_sockets(session: requests.Session, sockets: Sockets, **settings: Any) -> None:
    """Make the connections of a session register their sockets. `settings`: arguments of HTTPAdapter.

    Cookies are not kept: a service would collect them for months, until servers refuse its requests. Redirects can't be
    followed: to prepare that, and even if it is not to follow them, `requests` reads the body of a redirect, of any
    size.
    """
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.get_redirect_target = _find_no_redirect  # type: ignore[method-assign, assignment]  # its name
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(sockets, **settings))


def _find_no_redirect(_: requests.Response) -> None:
    """Return None, as `requests` does for an answer that is no redirect."""


class _Adapter(HTTPAdapter):
    def __init__(self, sockets: Sockets, **settings: Any) -> None:
        self._pools = {
            "http": _build_pool(HTTPConnectionPool, HTTPConnection, sockets),
            "https": _build_pool(HTTPSConnectionPool, HTTPSConnection, sockets),
        }
        super().__init__(pool_connections=1, pool_maxsize=1, **settings)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if isinstance(manager, ProxyManager):  # the connections of a SOCKS proxy are of another kind
            manager.pool_classes_by_scheme = self._pools
        return manager


def _build_pool(pool: type, connection: type, sockets: Sockets) -> type:
    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        sockets.use(self.sock)
        connection.request(self, *args, **kwargs)  # type: ignore[attr-defined]  # both kinds have it

    watched = type("Watched", (connection,), {"request": request})
    return type("WatchedPool", (pool,), {"ConnectionCls": watched})
