"""Credentials for one URL go to no other server, whatever tricks another URL plays with parsers."""

from __future__ import annotations

from itertools import product
from urllib.parse import urlsplit

import pytest
from urllib3.util import parse_url

from paropt_exporter.config.server_urls import find_longest_prefix, parse_server_url

KNOWN = "https://metrics.example.org/prometheus"


@pytest.mark.parametrize(
    "url",
    [
        KNOWN,
        f"{KNOWN}/",
        f"{KNOWN}/api/v1/query",
        "https://metrics.example.org:443/prometheus",
        "HTTPS://Metrics.Example.ORG/prometheus",
    ],
)
def test_paths_below_belong_to_the_server(url: str) -> None:
    assert find_longest_prefix(url, [KNOWN]) == KNOWN


@pytest.mark.parametrize(
    "url",
    [
        "http://metrics.example.org/prometheus",  # another scheme
        "https://metrics.example.org:8443/prometheus",
        "https://metrics.example.org",  # above
        "https://metrics.example.org/prometheus-of-a-stranger",
        "https://metrics.example.org//prometheus",
        "https://metrics.example.org/prometheus/../admin",
        "https://metrics.example.org/prometheus/%2e%2e/admin",
        "https://metrics.example.org/Prometheus",
        "https://metrics.example.org.evil.example/prometheus",
        "https://metrics.example.org@evil.example/prometheus",
        "https://metrics.example.org:443@evil.example/prometheus",
        "https://evil.example#@metrics.example.org/prometheus",
        "https://evil.example?@metrics.example.org/prometheus",
        "https://evil.example\\@metrics.example.org/prometheus",
        "https://metrics.example.org\\.evil.example/prometheus",
        "https://metrics.example.org\t/prometheus",
        "https://metrics。example。org/prometheus",
        "https://metrics.example.org./prometheus",
        "https:/metrics.example.org/prometheus",
        "https:metrics.example.org/prometheus",
        "//metrics.example.org/prometheus",
        "https://metrics.example.org:99999999/prometheus",
        "https://metrics.example.org:/prometheus",
        f"{KNOWN}?redirect=https://evil.example",
        "",
    ],
)
def test_other_url_does_not(url: str) -> None:
    assert find_longest_prefix(url, [KNOWN]) is None


def test_longest_path_wins_and_of_equal_ones_the_first() -> None:
    known = ["https://a", "https://a/team", "https://A/team/", "https://a/team/other"]
    assert find_longest_prefix("https://a/team/x", known) == "https://a/team"
    assert find_longest_prefix("https://a/teams", known) == "https://a"


@pytest.mark.parametrize("url", ["http://[::1]:9090/x", "http://10.0.0.1", "tls://sched:8786", "http://a_b/c;d=e"])
def test_usual_urls_have_parts(url: str) -> None:
    assert parse_server_url(url) is not None


_HOST_ENDS = ("", ":443", ":", ".", ".evil.example", "@evil.example", ":443@evil.example", "\\", "/", "?", "#", "\t")
_SEGMENTS = ("", "x", "prometheus", ".", "..", "...", "%2e%2e", "\\..", ";..", "?", "#", "@evil.example", "\t", "é")


def test_url_of_the_server_has_its_host_and_path_for_every_parser() -> None:
    urls = (
        f"https://metrics.example.org{host_end}/prometheus/{'/'.join(segments)}"
        for host_end, *segments in product(_HOST_ENDS, _SEGMENTS, _SEGMENTS)
    )
    known = [url for url in urls if find_longest_prefix(url, [KNOWN]) is not None]
    assert len(known) > len(_SEGMENTS)
    for url in known:
        assert urlsplit(url).hostname == parse_url(url).host == "metrics.example.org"
        assert (parse_url(url).path or "").startswith("/prometheus")
