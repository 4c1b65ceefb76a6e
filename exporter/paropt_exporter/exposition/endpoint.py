"""Listen from the start, but load the HTTP server only when the first client connects.

The server takes 15 ms to load and needs three threads, and a lane that takes a second often ends before any scrape.
Until the first client connects, one thread waits; the kernel's queue holds clients meanwhile.
"""

from __future__ import annotations

import logging
import os
import select
from threading import Thread
from typing import TYPE_CHECKING

from paropt_exporter.exposition.listeners import format_address
from paropt_exporter.exposition.urls import check_telemetry_path, format_url

if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence

    from paropt_exporter.exposition.protection import ProtectionSource
    from paropt_exporter.exposition.renderer import PageSource
    from paropt_exporter.exposition.server import Server

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0  # between attempts to start the server, for which the system may lack a thread or a descriptor
_CLOSE_SECONDS = 2.0  # to finish loading the server, if a client has just connected


class NoEndpoint:
    """Stands for the endpoint in a process whose page another process serves, at `url`, or that has none ("")."""

    def __init__(self, url: str) -> None:
        self.url = url

    def close(self) -> None:
        """Do nothing."""


class Endpoint:
    """Listening sockets, and from the first client on a `Server` that serves them.

    waiting --a client connects--> serving --close--> closed
       `----------close----------------------------------^
    """

    def __init__(
        self,
        listeners: Sequence[_socket.socket],
        page_source: PageSource,
        protection_source: ProtectionSource,
        *,
        telemetry_path: str,
        max_requests: int,
        on_fetched: Callable[[float], None] = lambda _: None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """Start to wait for clients; `on_fetched` as in `Server`. Raises UsageError for a malformed path."""
        check_telemetry_path(telemetry_path)
        self._listeners, self._page_source, self._protection_source = listeners, page_source, protection_source
        self._telemetry_path, self._max_requests, self._on_fetched = telemetry_path, max_requests, on_fetched
        self._retry_seconds = retry_seconds
        secure = protection_source.get_protection().secure is not None
        self.url = format_url(format_address(listeners[0]), telemetry_path, secure=secure)
        self._server: Server | None = None
        self._closed = os.eventfd(0, os.EFD_CLOEXEC)  # readable once the endpoint is closing
        self._thread = Thread(target=self._wait_for_client, name="paropt-web-wait", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving. Responses that are being sent get two seconds."""
        os.eventfd_write(self._closed, 1)
        self._thread.join(_CLOSE_SECONDS)
        if self._server is not None:
            self._server.close()
            return
        for listener in self._listeners:
            listener.close()

    def _wait_for_client(self) -> None:
        poll = select.poll()
        for descriptor in (self._closed, *(listener.fileno() for listener in self._listeners)):
            poll.register(descriptor, select.POLLIN)
        closing = select.poll()
        closing.register(self._closed, select.POLLIN)
        failed = False
        while not any(descriptor == self._closed for descriptor, _ in poll.poll()):
            try:
                self._server = self._start_server()
            except Exception:  # the boundary of a thread: the lane runs on without a page
                if not failed:  # logged once, not at every attempt
                    log.exception("the endpoint could not start: it is tried again")
                failed = True
            else:
                return
            if closing.poll(self._retry_seconds * 1000):
                return

    def _start_server(self) -> Server:
        from paropt_exporter.exposition.server import Server

        return Server(
            self._listeners,
            self._page_source,
            self._protection_source,
            telemetry_path=self._telemetry_path,
            max_requests=self._max_requests,
            on_fetched=self._on_fetched,
        )
