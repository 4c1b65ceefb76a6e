"""Choose which connections are closed when there are too many of them, or too many page bytes that nobody reads.

No connection has a claim on its place: an honest scraper is through in a moment, and whoever is not holds it up. So
the victim comes from the client with the most connections, and of those it is the one that has made no progress for the
longest time.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress

from paropt_exporter.exposition.connection import Connection, Phase

_IPV6_PREFIX = 64  # what one client of IPv6 usually has for itself
# After its accept, and after each part of its answer: an honest client's next packet comes within it.
GRACE_SECONDS = 0.25


def client_of(peer: object) -> str:
    """Return who is behind a peer's address as `accept` tells it: an IPv4 host, an IPv6 network of 64 bits, or ""."""
    if not isinstance(peer, tuple):
        return ""  # a Unix socket: all its clients are one
    with suppress(ValueError):
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return str(address.ipv4_mapped)
            return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(peer[0])


def one_too_many(connections: Collection[Connection], *, now_seconds: float) -> Connection | None:
    """Return the connection to close for a new one; None if there is none to close yet.

    Those that wait for their page never go, and those that wait for their password only if their client has no other.
    """
    idlest = min(_candidates(connections), key=_idle_from_seconds, default=None)
    return idlest if idlest is not None and _idle_from_seconds(idlest) <= now_seconds else None


def next_seconds(connections: Collection[Connection]) -> float | None:
    """Return when the next connection may be closed for a new one, if nothing happens until then; None: never."""
    return min(map(_idle_from_seconds, _candidates(connections)), default=None)


def unread_bytes(connections: Iterable[Connection]) -> int:
    """Return the bytes of the pages that are still being read; each is in memory once, however many read it."""
    return sum(len(group[0].page) for group in _readers(connections))


def unread_too_long(
    connections: Iterable[Connection], *, allowed_bytes: int, idle_since_seconds: float
) -> tuple[Connection, ...]:
    """Return the connections to close, so that the pages of the others take `allowed_bytes`, if that can be had.

    A page goes with the last of its readers. So whole pages are given up: those of which no reader has read anything
    since a moment, the longest idle first.
    """
    groups = sorted(_readers(connections), key=_last_read_seconds)
    excess_bytes = sum(len(group[0].page) for group in groups) - allowed_bytes
    given_up: list[Connection] = []
    for group in groups:
        if excess_bytes <= 0 or _last_read_seconds(group) > idle_since_seconds:
            break
        given_up += group
        excess_bytes -= len(group[0].page)
    return tuple(given_up)


def next_idle_page_seconds(connections: Iterable[Connection]) -> float:
    """Return when the first page has not been read for GRACE_SECONDS, if nothing happens until then."""
    return min((_last_read_seconds(group) + GRACE_SECONDS for group in _readers(connections)), default=0.0)


def _candidates(connections: Collection[Connection]) -> list[Connection]:
    """Return the connections of the client with the most; others are safe, however young the flood's own are."""
    held = Counter(connection.client for connection in connections)
    found = [connection for connection in connections if connection.phase is not Phase.WAITING]
    most = max((held[connection.client] for connection in found), default=0)
    found = [connection for connection in found if held[connection.client] == most]
    return [connection for connection in found if connection.phase is not Phase.COMPARING] or found


def _idle_from_seconds(connection: Connection) -> float:
    return connection.progress_seconds + GRACE_SECONDS


def _readers(connections: Iterable[Connection]) -> list[list[Connection]]:
    """Return the connections that still read pages, by page."""
    readers: dict[int, list[Connection]] = {}
    for connection in connections:
        if connection.page:
            readers.setdefault(id(connection.page), []).append(connection)
    return list(readers.values())


def _last_read_seconds(readers: list[Connection]) -> float:
    return max(connection.progress_seconds for connection in readers)
