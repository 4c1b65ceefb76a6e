"""Sessions of `requests` whose connection another thread can cut.

A socket's timeout is for each read: a server that sends a byte now and then, or one interim response after another,
never exceeds it. The reading thread, and its connection, would stay until the process ends.
"""

from __future__ import annotations

import socket
import threading
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
        self._lock = threading.Lock()  # guards: _current
        self._current: Any = None

    def use(self, sock: Any) -> None:
        with self._lock:
            self._current = sock
        if self._stop.is_set():
            self.cut()

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

    Cookies are not kept: a service would collect them for months, until servers refuse its requests.
    """
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(sockets, **settings))


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
