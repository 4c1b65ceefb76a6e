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
WEB_CONFIG, SCRAPE_CONFIG, _ = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


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
        "TLS handshakes in a row before requests are served": f"{server.HANDSHAKES_PER_TURN}",
        "lifetime of a connection, from accept to close": f"{server.CONNECTION_SECONDS:g} s",
        "time for a client to close after its answer was sent": f"{connection.DRAIN_SECONDS:g} s",
        "time without progress after which a connection may be closed for another": f"{eviction.GRACE_SECONDS:g} s",
        "wait of a scrape for slow readers of other pages": f"{server.SLOW_READER_SECONDS:g} s",
        "stalled readers of one client with which its scrapes share pages": f"{eviction.STALLED_READERS}",
        "age of a shared page": f"{eviction.SHARED_SECONDS:g} s",
        "size of a request's head": kilobytes(http.HEAD_BYTES),
        "size of its first line": kilobytes(http.LINE_BYTES),
        "number of its headers": f"{http.HEADERS}",
        "size of all pages that clients are still reading": megabytes(server.UNREAD_BYTES),
        "bytes of an answer that the kernel holds unsent, per connection": kilobytes(connection.UNSENT_BYTES),
        "correct passwords remembered": f"{passwords.MOST_REMEMBERED}",
        "size of the web config": f"{LARGEST_FILE_BYTES // 10**6} MB",
        "time for answers that are being sent when the exporter ends": f"{server.CLOSE_SECONDS:g} s",
    }
    assert {bound: rows[bound].startswith(value) for bound, value in bounds.items()} == dict.fromkeys(bounds, True)
    assert f"({descriptors.MAX_DESCRIPTORS:,} at most)" in PAGE
