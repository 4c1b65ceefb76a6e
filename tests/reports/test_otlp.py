"""The spans and metrics that a collector gets, after OpenTelemetry's conventions for CI/CD."""

from __future__ import annotations

import gzip
import logging
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from requests.adapters import HTTPAdapter

from paropt_exporter.errors import DeliveryError
from paropt_exporter.events import Result, SlaRecord, Strategy
from paropt_exporter.plan import Bounds, Plan, PlannedStage
from paropt_exporter.plan.stage_environment import build_command_environment, select_keyed_variables
from paropt_exporter.reports.otlp import OtlpReport
from support.event_samples import START
from support.finished_runs import LIMIT, attempt, finished, stage
from support.otlp_collector import Collector, attributes, collecting
from support.real_servers import free_port

PAUSE = threading.Event()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
        yield running


def plan(*names: str, **env: str) -> Plan:
    stages = tuple(PlannedStage(number=number, name=name, tasks=(), env=env) for number, name in enumerate(names))
    bounds = Bounds(minimum=1, maximum=2, start=1)
    return Plan(project="shop", lane="standard", strategy=Strategy.ADAPTIVE, workers=bounds, stages=stages)


def test_a_run_is_a_trace_of_stages_and_attempts(collector: Collector) -> None:
    report = OtlpReport({})
    report.prepare(plan("unit"))
    report.report(finished(stage("unit", 1, attempt("unit", item="a", result=Result.FAILURE, message="exit 1"))))
    run, unit, task = (collector.span(name) for name in ("RUN standard", "unit", "unit task"))
    assert {span.trace_id for span in (run, unit, task)} == {run.trace_id}
    assert (run.parent_span_id, unit.parent_span_id, task.parent_span_id) == (b"", run.span_id, unit.span_id)
    assert (run.kind, unit.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_INTERNAL)
    assert attributes(run.attributes) == {
        "cicd.pipeline.name": "standard",
        "cicd.pipeline.run.id": "r1",
        "cicd.pipeline.action.name": "RUN",
        "cicd.pipeline.result": "failure",
        "error.type": "failure",
    }
    assert attributes(task.attributes) == {
        "cicd.pipeline.task.name": "unit",
        "cicd.pipeline.task.run.id": "r1/unit/0/1",
        "cicd.pipeline.task.run.result": "failure",
        "error.type": "failure",
        "cicd.worker.name": "commands-1",
        "paropt.attempt": 1,
        "paropt.item": "a",
    }
    assert (unit.status.code, unit.status.message) == (Status.STATUS_CODE_ERROR, "exit 1")
    assert (task.start_time_unix_nano, task.end_time_unix_nano) == ((START + 1) * 1e9, (START + 3) * 1e9)
    assert collector.resource["service.name"] == "paropt-exporter"


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("OTEL_SERVICE_NAME", "shop", "shop"),
        ("OTEL_SERVICE_NAME", "", "paropt-exporter"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=a, service.name=shop", "shop"),
        ("OTEL_RESOURCE_ATTRIBUTES", "peer.service.name=db", "paropt-exporter"),
    ],
)
def test_service_has_the_name_of_opentelemetrys_variables(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    """An empty one counts as unset."""
    monkeypatch.setenv(variable, value)
    report = OtlpReport({variable: value})
    report.prepare(plan("unit"))
    report.report(finished(stage("unit", 1, attempt("unit"))))
    assert collector.resource["service.name"] == name


def test_a_run_joins_the_trace_that_it_was_started_in(collector: Collector) -> None:
    report = OtlpReport({"TRACEPARENT": PARENT})
    report.prepare(plan("unit"))
    report.report(finished(stage("unit", 1, attempt("unit"))))
    run = collector.span("RUN standard")
    assert (run.trace_id.hex(), run.parent_span_id.hex()) == (PARENT.split("-")[1], PARENT.split("-")[2])


@pytest.mark.parametrize("environment", [{}, {"TRACEPARENT": PARENT}])
def test_commands_get_the_context_of_their_stages_span(collector: Collector, environment: dict[str, str]) -> None:
    report = OtlpReport(environment)
    planned = report.prepare(plan("lint", "unit"))
    given = {each.name: each.env["TRACEPARENT"] for each in planned.stages}
    report.report(finished(stage("lint", 1, attempt("lint")), stage("unit", 2, attempt("unit"))))
    for name, context in given.items():
        span = collector.span(name)
        assert context == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"


def test_the_context_that_a_stage_sets_itself_stays() -> None:
    (planned,) = OtlpReport({}).prepare(plan("unit", TRACEPARENT="mine")).stages
    assert planned.env["TRACEPARENT"] == "mine"


def test_span_of_a_stage_is_not_in_the_key_of_its_result() -> None:
    """Each run has others, so no stage was skipped."""
    (planned,) = OtlpReport({}).prepare(plan("unit", LEVEL="2")).stages
    cached = replace(planned, cached=True)
    assert build_command_environment(cached, {}) == {"TERM": "dumb", **planned.env}
    assert select_keyed_variables(cached, {}) == {"TERM": "dumb", "LEVEL": "2"}


def test_a_trace_that_is_not_sampled_stays_so(collector: Collector) -> None:
    report = OtlpReport({"TRACEPARENT": PARENT[:-1] + "0"})
    (planned,) = report.prepare(plan("unit")).stages
    report.report(finished(stage("unit", 1, attempt("unit"))))
    assert planned.env["TRACEPARENT"].endswith("-00")
    assert collector.spans == []


def test_a_limit_that_was_reached_is_an_event_of_its_stage(collector: Collector) -> None:
    reached = SlaRecord(
        run_id="r1", lane="standard", stage="unit", limit=LIMIT, broken=True, elapsed_seconds=3.0,
        at_timestamp_seconds=START + 4,
    )  # fmt: skip
    report = OtlpReport({})
    report.prepare(plan("unit"))
    report.report(finished(stage("unit", 1, attempt("unit"), sla=LIMIT), slas=(reached,)))
    (event,) = collector.span("unit").events
    assert (event.name, event.time_unix_nano) == ("sla broken", (START + 4) * 1e9)


def test_metrics_go_on_over_the_runs_of_a_process(collector: Collector) -> None:
    report = OtlpReport({})
    for _ in range(2):
        report.prepare(plan("unit"))
        report.report(finished(stage("unit", 1, attempt("unit", result=Result.TIMEOUT, message="timed out"))))
    duration = collector.metrics["cicd.pipeline.run.duration"]
    (point,) = duration.histogram.data_points
    assert (duration.unit, point.count, point.sum) == ("s", 2, 16.0)
    assert attributes(point.attributes) == {
        "cicd.pipeline.name": "standard",
        "cicd.pipeline.run.state": "finalizing",
        "cicd.pipeline.result": "failure",
        "error.type": "failure",
    }
    (errors,) = collector.metrics["cicd.pipeline.run.errors"].sum.data_points
    assert (errors.as_int, attributes(errors.attributes)["error.type"]) == (2, "timeout")


def test_each_run_is_sent_once(collector: Collector) -> None:
    report = OtlpReport({})
    for _ in range(2):
        report.prepare(plan("unit"))
        report.report(finished(stage("unit", 1, attempt("unit"))))
    runs = [span for span in collector.spans if span.name == "RUN standard"]
    assert len(runs) == 2
    assert runs[0].trace_id != runs[1].trace_id


def test_a_collector_that_refuses_is_one_error_and_no_log_line(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    report = OtlpReport({})
    report.prepare(plan("unit"))
    with caplog.at_level(logging.DEBUG, logger="opentelemetry"), pytest.raises(DeliveryError, match="400"):
        report.report(finished(stage("unit", 1, attempt("unit"))))
    assert caplog.records == []


def test_collector_that_refuses_connections_is_given_up_after_the_third(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The exporters themselves try for as long as the timeout allows, which delays the exit."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
    connections: list[object] = []
    send = HTTPAdapter.send

    def count(self: HTTPAdapter, *args: Any, **settings: Any) -> Any:
        connections.append(None)
        return send(self, *args, **settings)

    monkeypatch.setattr(HTTPAdapter, "send", count)
    report = OtlpReport({})
    report.prepare(plan("unit"))
    with pytest.raises(DeliveryError, match="can't be reached: Connection refused"):
        report.report(finished(stage("unit", 1, attempt("unit"))))
    assert len(connections) == 3


def test_a_part_that_the_collector_rejected_is_an_error(collector: Collector) -> None:
    rejected = ExportTracePartialSuccess(rejected_spans=2, error_message="too old")
    collector.body = ExportTraceServiceResponse(partial_success=rejected).SerializeToString()
    report = OtlpReport({})
    report.prepare(plan("unit"))
    with pytest.raises(DeliveryError, match=r"the collector rejected a part: 2 \(too old\)"):
        report.report(finished(stage("unit", 1, attempt("unit"))))
    assert [path for path, _ in collector.visits] == ["/v1/traces"]


@pytest.mark.parametrize("body", [b"{}", b"ok", b"\xff" * 10, ExportTraceServiceResponse().SerializeToString()])
def test_a_collector_may_answer_with_any_body(collector: Collector, body: bytes) -> None:
    collector.body = body
    report = OtlpReport({})
    report.prepare(plan("unit"))
    report.report(finished(stage("unit", 1, attempt("unit"))))
    assert collector.span("RUN standard")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_an_error_and_not_followed(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
    report = OtlpReport({})
    report.prepare(plan("unit"))
    with collecting() as elsewhere:
        collector.status, collector.location = status, f"{elsewhere.address}/login"
        with pytest.raises(DeliveryError, match=f"redirects to {elsewhere.address}/login"):
            report.report(finished(stage("unit", 1, attempt("unit"))))
    assert elsewhere.visits == []


@pytest.mark.parametrize("header", ["authorization=Bearer%20s3cr3t-value", "x-key=Basic bWU6czNjcjN0LXZhbHVl"])
def test_secret_that_a_collector_quotes_without_its_scheme_is_hidden(collector: Collector, header: str) -> None:
    collector.status, collector.location = 307, "/login?token=s3cr3t-value"
    report = OtlpReport({"OTEL_EXPORTER_OTLP_HEADERS": header})
    report.prepare(plan("unit"))
    with pytest.raises(DeliveryError, match=r"redirects to /login\?token=\*\*\*"):
        report.report(finished(stage("unit", 1, attempt("unit"))))


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b" ")
        PAUSE.wait(0.01)


def send_interim_responses(request: BaseHTTPRequestHandler) -> None:
    while True:
        request.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("answer", [drip, send_interim_responses])
def test_a_collector_that_never_ends_its_answer_is_given_up(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, answer: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    collector.answer = answer
    report = OtlpReport({})
    report.prepare(plan("unit"))
    with pytest.raises(DeliveryError):
        report.report(finished(stage("unit", 1, attempt("unit"))))


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}], ids=["plain", "packed"])
def test_of_an_answer_that_is_too_long_the_beginning_is_read(collector: Collector, headers: Mapping[str, str]) -> None:
    whole = bytes(64 << 20)
    content = gzip.compress(whole) if headers else whole

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)

    collector.answer = answer
    report = OtlpReport({})
    report.prepare(plan("unit"))
    run = finished(stage("unit", 1, attempt("unit")))
    tracemalloc.start()
    try:
        report.report(run)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("status", [302, 304])
def test_redirect_to_nowhere_is_no_receipt(collector: Collector, status: int) -> None:
    collector.status = status
    report = OtlpReport({})
    report.prepare(plan("unit"))
    with pytest.raises(DeliveryError, match=f"answers {status}"):
        report.report(finished(stage("unit", 1, attempt("unit"))))


def test_item_whose_name_is_no_utf_8_loses_no_trace(collector: Collector) -> None:
    bad = attempt("unit", item="a\udcff.py", result=Result.FAILURE, message="a\udcff.py: exit 1")
    report = OtlpReport({})
    report.prepare(plan("unit"))
    report.report(finished(stage("unit", 1, bad)))
    span = collector.span("unit task")
    assert attributes(span.attributes)["paropt.item"] == r"a\udcff.py"
    assert span.status.message == r"a\udcff.py: exit 1"


PROGRAM = """
import sys, types
from paropt_exporter.cli.main import main
name = "{name}"
sys.modules[name] = {module}
sys.exit(main(["--once", "--report", "otlp", "--web.listen-address", "127.0.0.1:0"]))
"""


@pytest.mark.parametrize(
    ("name", "module", "fault"),
    [
        ("opentelemetry.context", "None", "missing"),
        ("opentelemetry.trace.propagation.tracecontext", "types.ModuleType(name)", "too old"),
    ],
)
def test_missing_or_old_packages_are_one_clear_error(tmp_path: Path, name: str, module: str, fault: str) -> None:
    (tmp_path / "paropt.yml").write_text('stages: [{number: 1, name: a, run: "true"}]')
    command = [sys.executable, "-c", PROGRAM.format(name=name, module=module)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(
        f"paropt-exporter: --report otlp: the module {name} is {fault}: pip install --upgrade "
    )
    assert ended.stderr.count("\n") == 1
