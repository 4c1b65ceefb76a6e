"""Render pages in a thread of their own, one for all scrapes that wait for the same."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from threading import Condition, Thread
from typing import Protocol

from paropt_exporter.exposition.connection import Connection
from paropt_exporter.exposition.http import Answer
from paropt_exporter.exposition.routes import Scrape
from paropt_exporter.metrics.formats import Format

log = logging.getLogger(__name__)

# Metrics text shrinks to a 20th at any level; the lowest takes a third of the default's time.
_GZIP_LEVEL = 1

Delivered = tuple[tuple[Connection, Answer], ...]


class PageSource(Protocol):
    """The source of the metrics page."""

    def page(self, *, openmetrics: bool) -> bytes:
        """Return the page as OpenMetrics or as text; all versions and escapings of either are the same bytes."""
        ...


class Renderer:
    """One thread that renders.

        want(scrape, connection) -> _wanted --all that wait at once--> render once a kind -> deliver(answers)

    Guarantees:
    * Every wanted page is delivered once, in the renderer's thread, rendered after it was asked for.
    * However many scrapes come at once, the work competes with one rendering at a time, and a scrape waits for two
      others at most: there are two kinds of page, whatever the requests say.
    * Answers that are delivered together share at most two bodies, one of them packed.
    """

    def __init__(self, source: PageSource, deliver: Callable[[Delivered], None]) -> None:
        self._source = source
        self._deliver = deliver
        self._wake = Condition()  # guards: _wanted, _closed
        self._wanted: dict[
            bool, list[tuple[Connection, Scrape]]
        ] = {}  # by whether it is OpenMetrics, oldest kind first
        self._closed = False
        self._thread = Thread(target=self._run, name="paropt-web-render", daemon=True)
        self._thread.start()

    def want(self, scrape: Scrape, connection: Connection) -> None:
        """Ask for a page; `deliver` gets it with the connection."""
        with self._wake:
            self._wanted.setdefault(scrape.choice.format is Format.OPENMETRICS, []).append((connection, scrape))
            self._wake.notify()

    def close(self, *, timeout_seconds: float) -> None:
        """End the thread after what it is rendering now."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._wanted or self._closed)
                if self._closed and not self._wanted:
                    return
                openmetrics = next(iter(self._wanted))
                wanted = self._wanted.pop(openmetrics)
            self._deliver(self._answers(wanted, openmetrics=openmetrics))

    def _answers(self, wanted: Iterable[tuple[Connection, Scrape]], *, openmetrics: bool) -> Delivered:
        try:
            body = self._source.page(openmetrics=openmetrics)
        except Exception:  # the boundary of the page source: its fault costs these scrapes, never the thread
            log.exception("the metrics page could not be rendered")
            failed = Answer.text(
                HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics page could not be rendered; see the log"
            )
            return tuple((connection, failed) for connection, _ in wanted)
        asks_packed = any(scrape.gzip for _, scrape in wanted)
        packed = gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0) if asks_packed else b""
        return tuple((connection, _answer(scrape, body, packed)) for connection, scrape in wanted)


def _answer(scrape: Scrape, body: bytes, packed: bytes) -> Answer:
    vary = ("Vary", "Accept-Encoding")
    if scrape.gzip:
        headers = (("Content-Encoding", "gzip"), vary)
        return Answer(body=packed, content_type=scrape.choice.content_type, headers=headers)
    return Answer(body=body, content_type=scrape.choice.content_type, headers=(vary,))
