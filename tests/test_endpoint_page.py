"""What docs/endpoint.md shows is taken by the exporter and by promtool."""

from __future__ import annotations

import re
from pathlib import Path

from paropt_exporter import descriptors
from paropt_exporter.config.units import LARGEST_FILE_BYTES
from paropt_exporter.exposition import connection, eviction, http, listeners, passwords, server, web_config
from support.deployed import refusal
from support.real_servers import program
from support.secured import Authority

PAGE = (Path(__file__).parent.parent / "docs/endpoint.md").read_text()
WEB_CONFIG, SCRAPE_CONFIG = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_web_config_is_taken_by_both(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    path = tmp_path / "web.yml"
    path.write_text(WEB_CONFIG)
    assert refusal(program("promtool"), "check", "web-config", path) == ""
    assert set(web_config.load_web_config(path).basic_auth_users) == {"prometheus"}


def test_the_scrape_config_is_taken_by_prometheus(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "password").touch()
    path = tmp_path / "prometheus.yml"
    path.write_text(SCRAPE_CONFIG)
    assert refusal(program("promtool"), "check", "config", path) == ""


def kilobytes(count: int) -> str:
    return f"{count // 1024} kB"


def megabytes(count: int) -> str:
    return f"{count // 1024**2} MB"


def test_the_bounds_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert server.CONNECTIONS_PART == 4
    bounds = {
        "connections at once": f"{server.MAX_CONNECTIONS}, or a quarter of the descriptors",
        "clients that wait in the kernel's queue": f"{listeners.BACKLOG:,}",
        "TLS handshakes before requests are looked at again": f"{server.HANDSHAKES_PER_TURN}",
        "a connection's life, from accept to close": f"{server.CONNECTION_SECONDS:g} s",
        "after its answer is sent, for its end": f"{connection.DRAIN_SECONDS:g} s",
        "without progress, before it may be closed for another": f"{eviction.GRACE_SECONDS:g} s",
        "a scrape waits for pages that others still read": f"{server.SLOW_READER_SECONDS:g} s",
        "readers of one client that stall, from which on its scrapes share pages": f"{eviction.STALLED_READERS}",
        "the age of a page that they share": f"{eviction.SHARED_SECONDS:g} s",
        "a request's head": kilobytes(http.HEAD_BYTES),
        "its first line": kilobytes(http.LINE_BYTES),
        "its headers": f"{http.HEADERS}",
        "bytes of pages that clients still read": megabytes(server.UNREAD_BYTES),
        "bytes of an answer that the kernel holds unsent, a connection": kilobytes(connection.UNSENT_BYTES),
        "right passwords remembered": f"{passwords.MOST_REMEMBERED}",
        "the web config's size": f"{LARGEST_FILE_BYTES // 10**6} MB",
        "answers on their way at the exporter's end": f"{server.CLOSE_SECONDS:g} s",
    }
    assert {bound: rows[bound].startswith(value) for bound, value in bounds.items()} == dict.fromkeys(bounds, True)
    assert f"({descriptors.MAX_DESCRIPTORS:,} at most)" in PAGE
