"""Choose which connections to close when there are too many of them, or too many bytes of unread pages.

A scraper needs its connection only for a moment. So the victim is one of the client with the most connections, the one
that has made no progress for the longest time. A client that leaves pages unread costs at most one rendering a second:
its scrapes share a page.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress

from paropt_exporter.exposition.connection import Connection, Phase
from paropt_exporter.exposition.routes import RenderedPage, Scrape

_IPV6_PREFIX = 64  # the network that one IPv6 client usually has
# A scraper's next packet arrives within this time after the accept and after each part of its response.
GRACE_SECONDS = 0.25
STALLED_READERS = 4  # more than a scraper, a browser and manual requests on one host leave by chance
SHARED_SECONDS = 1.0  # the shortest interval of scrapes in use


def identify_client(peer: object) -> str:
    """Return the client of a peer address from `accept`: an IPv4 address, an IPv6 /64 network, or "" for others."""
    if not isinstance(peer, tuple):
        return ""  # a Unix socket: all its clients count as one
    with suppress(ValueError):
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(peer[0])


def choose_victim(connections: Collection[Connection], *, now_seconds: float) -> Connection | None:
    """Return the connection to close for a new one; None if none may be closed yet.

    Connections that wait for a page are never closed; those that wait for a password check only if their client has no
    other ones.
    """
    idlest = min(_find_candidates(connections), key=_compute_grace_end_seconds, default=None)
    return idlest if idlest is not None and _compute_grace_end_seconds(idlest) <= now_seconds else None


def find_next_victim_seconds(connections: Collection[Connection]) -> float | None:
    """Return when a connection may next be closed for a new one, if none makes progress; None: never."""
    return min(map(_compute_grace_end_seconds, _find_candidates(connections)), default=None)


def count_unread_bytes(connections: Iterable[Connection]) -> int:
    """Return the size of all pages that are being sent. A page is in memory once, however many connections send it."""
    return sum(len(group[0].page) for group in _group_by_page(connections))


def choose_stalled_readers(
    connections: Iterable[Connection], *, allowed_bytes: int, idle_since_seconds: float
) -> tuple[Connection, ...]:
    """Return connections to close, so that the pages of the others take at most `allowed_bytes`, if possible.

    A page is freed when its last reader is closed, so all readers of a page are closed together. The candidates are
    pages from which no reader has read since `idle_since_seconds`; the longest idle ones come first.
    """
    groups = sorted(_group_by_page(connections), key=_find_last_read_seconds)
    excess_bytes = sum(len(group[0].page) for group in groups) - allowed_bytes
    stalled: list[Connection] = []
    for group in groups:
        if excess_bytes <= 0 or _find_last_read_seconds(group) > idle_since_seconds:
            break
        stalled += group
        excess_bytes -= len(group[0].page)
    return tuple(stalled)


def find_next_stall_seconds(connections: Iterable[Connection]) -> float:
    """Return when a page will next have been unread for GRACE_SECONDS, if no reader makes progress."""
    return min((_find_last_read_seconds(group) + GRACE_SECONDS for group in _group_by_page(connections)), default=0.0)


def find_shared_page(
    connections: Iterable[Connection], scrape: Scrape, *, client: str, now_seconds: float
) -> RenderedPage | None:
    """Return an existing page with which to answer a client's scrape; None if a fresh one must be rendered.

    While STALLED_READERS of the client's connections have not read from their pages for GRACE_SECONDS, this is the
    newest page in the same format that the client is being sent and that is no older than SHARED_SECONDS.
    """
    readers = [each for each in connections if each.page and each.client == client]
    if sum(_compute_grace_end_seconds(each) <= now_seconds for each in readers) < STALLED_READERS:
        return None
    sent = (each.rendered for each in readers)
    same = [page for page in sent if page is not None and page.scrape == scrape]
    newest = max(same, key=lambda page: page.rendered_seconds, default=None)
    return newest if newest is not None and newest.rendered_seconds > now_seconds - SHARED_SECONDS else None


def _find_candidates(connections: Collection[Connection]) -> list[Connection]:
    """Return the connections of the client that has the most. No other client's are closed, however idle they are."""
    counts = Counter(connection.client for connection in connections)
    candidates = [connection for connection in connections if connection.phase is not Phase.WAITING_FOR_PAGE]
    most = max((counts[connection.client] for connection in candidates), default=0)
    candidates = [connection for connection in candidates if counts[connection.client] == most]
    return [connection for connection in candidates if connection.phase is not Phase.CHECKING_PASSWORD] or candidates


def _compute_grace_end_seconds(connection: Connection) -> float:
    return connection.progress_seconds + GRACE_SECONDS


def _group_by_page(connections: Iterable[Connection]) -> list[list[Connection]]:
    """Return the connections that are sending pages, grouped by page."""
    readers: dict[int, list[Connection]] = {}
    for connection in connections:
        if connection.page:
            readers.setdefault(id(connection.page), []).append(connection)
    return list(readers.values())


def _find_last_read_seconds(readers: list[Connection]) -> float:
    return max(connection.progress_seconds for connection in readers)
