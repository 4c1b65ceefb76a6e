"""The endpoint loads its server when the first client connects."""

from __future__ import annotations

import http.client
import threading
from contextlib import closing

import pytest

from paropt_exporter.exposition.endpoint import Endpoint
from paropt_exporter.exposition.listeners import open_listeners
from paropt_exporter.exposition.protection import NoProtection

GUARD_SECONDS = 30.0  # guards against a hang; no test expects it


class Source:
    def render_parts(self, *, openmetrics: bool) -> list[list[bytes]]:
        return [[b"# a page\n"]]


def test_server_that_lacks_a_thread_starts_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, lacking = threading.Thread.start, [True, True]

    def start_or_fail(thread: threading.Thread) -> None:
        if thread.name == "paropt-web" and lacking:
            lacking.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_fail)
    (listener,) = open_listeners(["127.0.0.1:0"], on_fallback=print)
    endpoint = Endpoint(
        [listener], Source(), NoProtection(), telemetry_path="/metrics", max_requests=9, retry_seconds=0.0
    )
    with closing(endpoint):
        host, port = listener.getsockname()
        client = http.client.HTTPConnection(host, port, timeout=GUARD_SECONDS)
        with closing(client):
            client.request("GET", "/metrics")
            assert client.getresponse().read() == b"# a page\n"
        assert [record.message for record in caplog.records] == ["the endpoint could not start: it is tried again"]
        assert sum(thread.name == "paropt-web-render" for thread in threading.enumerate()) == 1
