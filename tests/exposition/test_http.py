"""Parse requests strictly; format responses."""

from __future__ import annotations

from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt_exporter.exposition import http
from paropt_exporter.exposition.http import BadRequest, Response


def test_a_head_is_parsed_once_it_is_complete() -> None:
    head = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\nAccept: */*\r\n\r\n"
    assert all(http.parse_request(head[:length]) is None for length in range(len(head) - 1))
    request = http.parse_request(head)
    assert request is not None
    assert (request.method, request.path, request.headers["accept"]) == ("GET", "/metrics", "text/plain, */*")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://host:1/metrics", "/metrics"),
        (b"http://host", "/"),
        (b"//metrics", "//metrics"),
        (b"/../etc/passwd", "/../etc/passwd"),
        (b"/metrics#x", "/metrics"),
        (b"*", "*"),
    ],
)
def test_a_path_is_kept_as_sent(target: bytes, path: str) -> None:
    request = http.parse_request(b"GET " + target + b" HTTP/1.0\r\n\r\n")
    assert request is not None
    assert request.path == path


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"\x16\x03\x01\x02\x00", HTTPStatus.BAD_REQUEST),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"G\0T / HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /\0 HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET metrics HTTP/1.1\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/9.9\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\n folded: x\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nA: b\0\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (b"GET /" + b"a" * 9000, HTTPStatus.REQUEST_URI_TOO_LONG),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 20000, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"\r\n" * 10000, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_an_invalid_request_gets_a_4xx_with_the_reason(received: bytes, status: HTTPStatus) -> None:
    with pytest.raises(BadRequest) as caught:
        http.parse_request(received)
    assert caught.value.status is status


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_an_incomplete_one_or_bad(noise: bytes) -> None:
    for received in (noise, b"GET /" + noise + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + noise + b"\r\n\r\n"):
        try:
            request = http.parse_request(received)
        except BadRequest as error:
            assert 400 <= error.status < 500
        else:
            assert request is None or request.path.startswith(("/", "*"))


@pytest.mark.parametrize(
    ("coding", "expected"),
    [
        ("gzip, deflate", True),
        ("GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*", True),
        ("*;q=0, gzip", True),
        ("*, gzip;q=0", False),
        ("br", False),
        ("", False),
    ],
)
def test_gzip_is_used_only_if_accepted(coding: str, expected: bool) -> None:
    request = http.parse_request(f"GET / HTTP/1.1\r\nAccept-Encoding: {coding}\r\n\r\n".encode())
    assert request is not None
    assert request.gzip is expected


def test_a_response_head_has_the_length_of_the_body() -> None:
    head = http.format_head(Response(body=b"page"), now_seconds=0.0)
    assert b"Content-Length: 4\r\n" in head
    assert head.endswith(b"\r\n\r\n")
