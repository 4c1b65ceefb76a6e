"""Read one HTTP/1 request head and write one answer; strict, small, and free of sockets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType

HEAD_BYTES = 16 * 1024  # Prometheus sends 400; browsers with cookies some 4 kB; more is no scraper
LINE_BYTES = 8 * 1024
HEADERS = 100

_END = re.compile(rb"\r?\n\r?\n")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE = re.compile(r"[!-~]+")
_VERSION = re.compile(r"HTTP/1\.[0-9]")
_TEXT = "text/plain; charset=utf-8"


class BadRequest(Exception):
    """What came is no request that can be answered; `status` is the 4xx that says why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request's head. `path` as sent, without query; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def head_only(self) -> bool:
        return self.method == "HEAD"

    @property
    def gzip(self) -> bool:
        """Whether the client takes gzip."""
        for coding in self.headers.get("accept-encoding", "").lower().split(","):
            name, _, weight = coding.replace(" ", "").partition(";")
            if name in ("gzip", "*"):
                return weight.rstrip("0") not in ("q=", "q=0.")
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer. `headers` come on top of those that every answer has."""

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def text(cls, status: HTTPStatus, message: str, *headers: tuple[str, str]) -> Answer:
        """Return a line of plain text."""
        return cls(status=status, body=f"{message}\n".encode(), headers=headers)


def read(received: bytes) -> Request | None:
    """Return the request if its head is whole, None if more must come. Raises BadRequest once it can't become one.

    What follows the head, a body or pipelined requests, is ignored: each connection gets one answer.
    """
    received = received.lstrip(b"\r\n")
    if received and not received[:1].isalpha():  # a TLS handshake would otherwise be waited for to its deadline
        raise BadRequest(HTTPStatus.BAD_REQUEST, "this is not HTTP; TLS is not spoken here")
    end = _END.search(received)
    head = received[: end.start()] if end else received
    if len(head) > LINE_BYTES and b"\n" not in head[:LINE_BYTES]:
        raise BadRequest(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
    if len(head) > HEAD_BYTES:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the headers are too large")
    return _parsed(head.decode("latin-1")) if end else None


def head(answer: Answer, *, now_seconds: float, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return the bytes that come before the answer's body. `headers` are the site's own, on every answer."""
    others = [*answer.headers, *headers]
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        f"Date: {formatdate(now_seconds, usegmt=True)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in dict([("X-Content-Type-Options", "nosniff"), *others]).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _parsed(head: str) -> Request:
    line, *fields = head.replace("\r\n", "\n").split("\n")
    words = line.split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _VISIBLE.fullmatch(words[1]):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the request line is malformed")
    method, target, version = words
    if not _VERSION.fullmatch(version):
        raise BadRequest(HTTPStatus.BAD_REQUEST, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(fields) > HEADERS:
        raise BadRequest(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "there are too many headers")
    return Request(method=method, path=_path(target), headers=MappingProxyType(_headers(fields)))


def _path(target: str) -> str:
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):  # a request to a proxy names the whole URL
        _, slash, path = rest.partition("/")
        target = slash + path or "/"
    if not target.startswith("/") and target != "*":
        raise BadRequest(HTTPStatus.BAD_REQUEST, "the path must start with /")
    return target.partition("?")[0].partition("#")[0]


def _headers(fields: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or "\0" in value or "\r" in value:
            raise BadRequest(HTTPStatus.BAD_REQUEST, "a header is malformed")
        key, value = name.lower(), value.strip()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers
