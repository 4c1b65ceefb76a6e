"""Render pages in a thread of their own, one for all scrapes that wait for the same."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from http import HTTPStatus
from threading import Condition, Thread
from typing import Protocol

from paropt_exporter.exposition.http import Answer
from paropt_exporter.exposition.site import Scrape

log = logging.getLogger(__name__)

# Metrics text shrinks to a 20th at any level; the lowest takes a third of the default's time.
_GZIP_LEVEL = 1


class PageSource(Protocol):
    """Whatever has a metrics page."""

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the page in a format that an Accept header asks for, and its Content-Type."""
        ...


class Renderer:
    """One thread that renders.

        want(scrape, token) -> _wanted --all that wait at once--> render once for each kind -> deliver(token, answer)

    Guarantees:
    * Every wanted page is delivered once, in the renderer's thread, rendered after it was asked for.
    * However many scrapes come at once, the work competes with one rendering at a time.
    """

    def __init__(self, source: PageSource, deliver: Callable[[object, Answer], None]) -> None:
        self._source = source
        self._deliver = deliver
        self._wake = Condition()  # guards: _wanted, _closed
        self._wanted: dict[Scrape, list[object]] = {}
        self._closed = False
        self._thread = Thread(target=self._run, name="paropt-web-render", daemon=True)
        self._thread.start()

    def want(self, scrape: Scrape, token: object) -> None:
        """Ask for a page; `deliver` gets it with the token."""
        with self._wake:
            self._wanted.setdefault(scrape, []).append(token)
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
                scrape = next(iter(self._wanted))
                tokens = self._wanted.pop(scrape)
            answer = self._rendered(scrape)
            for token in tokens:
                self._deliver(token, answer)

    def _rendered(self, scrape: Scrape) -> Answer:
        try:
            body, content_type = self._source.render(scrape.accept)
        except Exception:  # the boundary of the page source: its fault costs this scrape, never the thread
            log.exception("the metrics page could not be rendered")
            return Answer.text(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics page could not be rendered; see the log")
        if not scrape.gzip:
            return Answer(body=body, content_type=content_type, headers=(("Vary", "Accept-Encoding"),))
        packed = gzip.compress(body, compresslevel=_GZIP_LEVEL, mtime=0)
        headers = (("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding"))
        return Answer(body=packed, content_type=content_type, headers=headers)
