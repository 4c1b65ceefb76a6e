"""Render pages in a thread, one page for all scrapes that wait for the same format.

Pages are compressed with gzip; the compressed blocks that have not changed since the last page are kept.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import chain
from threading import Condition, Thread
from typing import Protocol

from msgspec import Struct

from paropt_exporter.exposition.connection import Connection
from paropt_exporter.exposition.http import Response
from paropt_exporter.exposition.routes import Scrape
from paropt_exporter.metrics.formats import Format

log = logging.getLogger(__name__)

# Metrics text shrinks to a twentieth at any level; the lowest level takes a third of the time of the default one.
_LEVEL = 1
# Of the lines in a block. Smaller blocks compress worse (by 2 % at this size), larger ones change more often.
_BLOCK_BYTES = 128 * 1024
_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\x04\xff"  # RFC 1952: deflate, no name, no time, the fastest level, unknown system
_END = b"\x03\0"  # RFC 1951: an empty last block
_ALL_ONES = 2**32 - 1  # CRC-32 inverts its state before and after the bytes

Parts = Sequence[Sequence[bytes]]
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


class _Block(Struct, frozen=True):
    """Some lines, compressed without reference to other blocks, so that blocks can be joined in any order."""

    lines: Sequence[bytes]
    compressed: bytes
    checksum: int
    size_bytes: int


class PageCompressor:
    """Compresses page after page.

        lines of each part -> blocks of 128 kB -> known from the last page, or compressed now -> one gzip member

    Most lines of a page are the same objects as those of the page before, so that a comparison costs next to nothing.
    Not thread-safe.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], _Block] = {}  # by the number of the part and of the block's first line

    def compress(self, parts: Parts) -> bytes:
        """Return a page in gzip's format. `parts` are the lines of each family; a family should keep its position."""
        before, self._blocks = self._blocks, {}
        for number, lines in enumerate(parts):
            # Lines of one family have about the same size. A power of 2 stays the same when they grow slightly.
            count = 1 << (_BLOCK_BYTES // max(1, len(lines[-1]))).bit_length() if lines else 1
            for first in range(0, len(lines), count):
                chosen, block = lines[first : first + count], before.get((number, first))
                if block is None or block.lines != chosen:
                    block = _compress_block(chosen)
                self._blocks[number, first] = block
        return _join_blocks(tuple(self._blocks.values()))


def _compress_block(lines: Sequence[bytes]) -> _Block:
    text, compressor = b"".join(lines), zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    compressed = compressor.compress(text) + compressor.flush(zlib.Z_FULL_FLUSH)
    return _Block(lines, compressed, zlib.crc32(text), len(text))


def _join_blocks(blocks: Sequence[_Block]) -> bytes:
    checksum = size_bytes = 0
    for block in blocks:
        checksum = _combine_checksums(checksum, block)
        size_bytes += block.size_bytes
    end = struct.pack("<II", checksum, size_bytes % 2**32)
    return b"".join([_HEAD, *(block.compressed for block in blocks), _END, end])


def _combine_checksums(checksum: int, block: _Block) -> int:
    """Return the CRC-32 of a text followed by a block. CRC-32 is linear, so as many zeros can stand for the block."""
    return zlib.crc32(bytes(block.size_bytes), checksum ^ _ALL_ONES) ^ _ALL_ONES ^ block.checksum
