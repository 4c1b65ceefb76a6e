"""Parse HTTP/1 request heads strictly, and format responses. Nothing here uses a socket."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType

from msgspec import Struct, field

HEAD_BYTES = 16 * 1024  # Prometheus sends 400 bytes, a browser with cookies some 4 kB
LINE_BYTES = 8 * 1024
HEADERS = 100

_END = re.compile(rb"\r?\n\r?\n")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE = re.compile(r"[!-~]+")
_VERSION = re.compile(r"HTTP/1\.[0-9]")
_TEXT = "text/plain; charset=utf-8"


class BadRequest(Exception):
    """The received bytes are not a valid request; `status` is the 4xx status to respond with."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class Request(Struct, frozen=True, kw_only=True):
    """A request's head. `path` is as sent, without its query; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def head_only(self) -> bool:
        return self.method == "HEAD"

    @property
    def gzip(self) -> bool:
        """Whether the client accepts gzip; `*` stands for the codings that it does not name."""
        codings = self.headers.get("accept-encoding", "").lower().replace(" ", "").split(",")
        weights = {name: weight for name, _, weight in (coding.partition(";") for coding in codings)}
        weight = weights.get("gzip", weights.get("*"))
        return weight is not None and weight.rstrip("0") not in ("q=", "q=0.")


class Response(Struct, frozen=True, kw_only=True):
    """A complete response. `headers` are those beside the headers of every response."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_text(cls, status: HTTPStatus, message: str, *headers: tuple[str, str]) -> Response:
        """Build a response of one line of plain text."""
        return cls(status=status, body=f"{message}\n".encode(), headers=headers)


def parse_request(received: bytes) -> Request | None:
    """Return the request if its head is complete, None if more bytes are needed. Raises BadRequest for invalid bytes.

    A body or pipelined requests are ignored: each connection gets one response.
    """
    received, received_bytes = received.lstrip(b"\r\n"), len(received)
    if received and not received[:1].isalpha():  # otherwise a TLS handshake would wait until the deadline
        raise BadRequest(HTTPStatus.BAD_REQUEST, "this is not HTTP; this endpoint does not use TLS")
    end = _END.search(received)
    head = received[: end.start()] if end else received
    if len(head) > LINE_BYTES and b"\n" not in head[:LINE_BYTES]:
        raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
    if len(head) > HEAD_BYTES or (not end and received_bytes > HEAD_BYTES):  # empty lines before it count too
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")
    return _parse_head(head.decode("latin-1")) if end else None


def format_head(response: Response, *, now_seconds: float, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return the bytes before a response's body. `headers` are those of the web config, for every response."""
    others = [*response.headers, *headers]
    lines = [
        f"HTTP/1.1 {response.status.value} {response.status.phrase}",
        f"Content-Type: {response.content_type}",
        f"Content-Length: {len(response.body)}",
        f"Date: {formatdate(now_seconds, usegmt=True)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in dict([("X-Content-Type-Options", "nosniff"), *others]).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _parse_head(head: str) -> Request:
    line, *fields = head.replace("\r\n", "\n").split("\n")
    words = line.split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _VISIBLE.fullmatch(words[1]):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the request line is malformed")
    method, target, version = words
    if not _VERSION.fullmatch(version):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "only HTTP/1.0 and HTTP/1.1 are supported")
    if len(fields) > HEADERS:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many headers")
    return Request(method=method, path=_parse_target(target), headers=MappingProxyType(_parse_headers(fields)))


def _parse_target(target: str) -> str:
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):  # a request through a proxy has the full URL
        _, slash, path = rest.partition("/")
        target = slash + path or "/"
    if not target.startswith("/") and target != "*":
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the path must start with /")
    return target.partition("?")[0].partition("#")[0]


def _parse_headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or "\0" in value or "\r" in value:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "a header is malformed")
        key, value = name.lower(), value.strip()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers
