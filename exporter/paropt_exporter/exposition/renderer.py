"""Render pages in a thread, one page for all scrapes that wait for the same format."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from itertools import chain
from threading import Condition, Thread
from typing import Protocol

from paropt_exporter.exposition.compression import PageCompressor, Parts
from paropt_exporter.exposition.connection import Connection
from paropt_exporter.exposition.http import Response
from paropt_exporter.exposition.routes import Scrape
from paropt_exporter.metrics.formats import Format

log = logging.getLogger(__name__)

RenderedPages = tuple[tuple[Connection, Response], ...]


class PageSource(Protocol):
    """An object that renders the metrics page."""

    def render_parts(self, *, openmetrics: bool) -> Parts:
        """Return the page as OpenMetrics or as text. The bytes of each are the same for all versions and escapings.

        Each part has the lines of a family, which may be none. A family has the same position on every page, and
        unchanged lines should be the same objects (see `PageCompressor`).
        """
        ...


class Renderer:
    """A thread that renders pages.

        request_pages(scrapes) -> _requests --all of one format--> render once -> on_rendered(responses)

    Guarantees:
    * Each request gets one response, by `on_rendered` in the renderer's thread, rendered after the request.
    * However many scrapes arrive together, one page is rendered at a time, and a scrape waits for at most two others:
      there are two formats.
    * Responses that are rendered together share at most two bodies, one of them compressed.
    """

    def __init__(self, source: PageSource, on_rendered: Callable[[RenderedPages], None]) -> None:
        self._source = source
        self._on_rendered = on_rendered
        self._compressor = PageCompressor()
        self._wake = Condition()  # guards: _requests, _closed
        # By whether the format is OpenMetrics; the format that was requested first comes first.
        self._requests: dict[bool, list[tuple[Connection, Scrape]]] = {}
        self._closed = False
        self._thread = Thread(target=self._run, name="paropt-web-render", daemon=True)
        self._thread.start()

    def request_pages(self, scrapes: Mapping[Connection, Scrape]) -> None:
        """Request pages together: `on_rendered` receives them with the connections, once for each format."""
        with self._wake:
            for connection, scrape in scrapes.items():
                self._requests.setdefault(scrape.choice.format is Format.OPENMETRICS, []).append((connection, scrape))
            self._wake.notify()

    def close(self, *, timeout_seconds: float) -> None:
        """Stop the thread after the page that it is rendering now."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._requests or self._closed)
                if self._closed and not self._requests:
                    return
                openmetrics = next(iter(self._requests))
                requests = self._requests.pop(openmetrics)
            self._on_rendered(self._render(requests, openmetrics=openmetrics))

    def _render(self, requests: Iterable[tuple[Connection, Scrape]], *, openmetrics: bool) -> RenderedPages:
        try:
            parts = self._source.render_parts(openmetrics=openmetrics)
            codings = {scrape.gzip for _, scrape in requests}
            body = b"".join(chain.from_iterable(parts)) if False in codings else b""
            compressed = self._compressor.compress(parts) if True in codings else b""
        except Exception:  # the boundary of the page source: its error fails these scrapes, never the thread
            log.exception("the metrics page could not be rendered")
            failed = Response.from_text(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics page could not be rendered; see the log"
            )
            return tuple((connection, failed) for connection, _ in requests)
        return tuple((connection, _build_response(scrape, body, compressed)) for connection, scrape in requests)


def _build_response(scrape: Scrape, body: bytes, compressed: bytes) -> Response:
    vary = ("Vary", "Accept, Accept-Encoding")
    if scrape.gzip:
        headers = (("Content-Encoding", "gzip"), vary)
        return Response(body=compressed, content_type=scrape.choice.content_type, headers=headers)
    return Response(body=body, content_type=scrape.choice.content_type, headers=(vary,))
