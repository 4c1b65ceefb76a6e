"""Compare the URLs of servers: credentials for one URL must never go to another server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from paropt_exporter.lazy_patterns import compile_later

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# Deliberately narrow: parsers of URLs disagree about users, backslashes, escapes and names in other alphabets.
_PLAIN_URL = compile_later(
    r"(?P<scheme>https?|tcp|tls)://(?P<host>[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?(?P<path>(?:/[\w.~!$&'()*+,;=:-]*)*)"
)
_DEFAULT_PORTS: Mapping[str, int] = {"http": 80, "https": 443}


class ServerUrl(Struct, frozen=True, kw_only=True):
    """The parts of a plain URL; `path` as its segments."""

    scheme: str
    host: str
    port: int
    path: tuple[str, ...]

    def contains(self, other: ServerUrl) -> bool:
        """Return whether the other URL is this server's, with this path or one below it."""
        here = (self.scheme, self.host, self.port)
        return here == (other.scheme, other.host, other.port) and other.path[: len(self.path)] == self.path


def names_server(url: str) -> bool:
    """Return whether requests can be sent to a URL: it is of http or https, and its host and port are possible."""
    from urllib.parse import urlsplit  # here: few configs have a URL

    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a malformed IPv6 address or port
        return False


def parse_server_url(url: str) -> ServerUrl | None:
    """Return the parts of a URL, or None if it has a form about which parsers disagree."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    match = _PLAIN_URL.fullmatch(f"{scheme.lower()}{separator}{host.lower()}{slash}{path}") if url.isascii() else None
    if match is None:
        return None
    segments = tuple(match["path"].rstrip("/").split("/")[1:])  # not every server takes `//` for `/`
    if "." in segments or ".." in segments:
        return None
    port = int(match["port"] or _DEFAULT_PORTS.get(match["scheme"], 0))
    return ServerUrl(scheme=match["scheme"], host=match["host"], port=port, path=segments)


def find_longest_prefix(url: str, known: Iterable[str]) -> str | None:
    """Return the known URL that contains this one with the longest path; of several the first."""
    wanted = parse_server_url(url)
    best: tuple[int, str] | None = None
    for candidate in known:
        parts = parse_server_url(candidate)
        if wanted is None or parts is None or not parts.contains(wanted):
            continue
        if best is None or len(parts.path) > best[0]:
            best = len(parts.path), candidate
    return best[1] if best is not None else None
