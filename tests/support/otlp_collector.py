"""A stand-in for an OpenTelemetry collector: takes OTLP over HTTP and decodes it with their protobufs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.http_servers import QuietHandler, run_http_server


class Collector:
    """The spans and metrics so far. `status`, `body`: its answer to each request; `location`: where a redirect leads.

    `answer`: an answer in place of these, which gets the request. `visits`: the paths and headers of all requests.
    """

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.location = ""
        self.answer: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.visits: list[tuple[str, dict[str, str]]] = []
        self.spans: list[Span] = []
        self.metrics: dict[str, Metric] = {}
        self.resource: dict[str, Any] = {}
        self.address = ""

    def span(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def take(self, path: str, body: bytes) -> None:
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resource = attributes(resource.resource.attributes)
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for sent in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics.update((metric.name, metric) for scope in sent.scope_metrics for metric in scope.metrics)


def attributes(pairs: Any) -> dict[str, Any]:
    """The attributes of a span or a data point as plain values."""
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return getattr(pair.value, kind) if kind else None


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on loopback."""
    collector = Collector()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            collector.visits.append((self.path, dict(self.headers)))
            self._answer()

        def do_POST(self) -> None:
            collector.visits.append((self.path, dict(self.headers)))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.answer is not None:
                with suppress(OSError):  # the client has cut the connection
                    collector.answer(self)
                self.close_connection = True
                return
            if collector.status == 200:
                collector.take(self.path, body)
            self._answer()

        def _answer(self) -> None:
            headers = {"location": collector.location} if collector.location else {}
            self.reply(collector.body, status=collector.status, **headers)

    with run_http_server(Handler) as port:
        collector.address = f"http://127.0.0.1:{port}"
        yield collector
