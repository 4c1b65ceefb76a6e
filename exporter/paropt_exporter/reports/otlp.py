"""OpenTelemetry: a trace and metrics of each run, after the semantic conventions for CI/CD, sent by OTLP over HTTP.

OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT and others) set the destination, headers and certificates. A
run joins the trace of TRACEPARENT, if it is set, and each stage's commands get a TRACEPARENT for their own spans. Needs
the extra `otel`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from time import monotonic
from typing import Any
from urllib.parse import unquote

import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.semconv._incubating.attributes import cicd_attributes as cicd
from opentelemetry.semconv._incubating.metrics import cicd_metrics
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from urllib3.exceptions import HTTPError

from paropt_exporter._version import __version__
from paropt_exporter.config.credentials import describe_cause, hide_secrets, list_header_secrets, list_url_secrets
from paropt_exporter.errors import DeliveryError, to_one_line
from paropt_exporter.events import Result
from paropt_exporter.http_sessions import Sockets, mount_sockets
from paropt_exporter.plan import Plan
from paropt_exporter.reports.model import Attempt, FinishedRun, ReportedStage
from paropt_exporter.terminal import to_unicode

TRACEPARENT = "TRACEPARENT"
_NAME = "paropt-exporter"
_SPANS_AT_ONCE = 1000  # in a request: collectors accept a few megabytes
_NANOSECONDS = 1e9
_LARGEST_ANSWER_BYTES = 1 << 16
_TIMEOUT_SECONDS = 10.0  # OpenTelemetry's default
_MOST_CONNECTIONS = 3  # that fail: OpenTelemetry's exporters make the second one at once, and the third after a second
_PROVIDER_VARIABLES = tuple(
    f"OTEL_PYTHON_EXPORTER_OTLP_HTTP_{part}CREDENTIAL_PROVIDER" for part in ("", "TRACES_", "METRICS_")
)
_SAMPLED = 1  # a flag of traceparent


class _Ids(IdGenerator):
    """Generates ids for spans, those that commands received in TRACEPARENT before they ran."""

    def __init__(self) -> None:
        self.trace = 0
        self.span: int | None = None

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        chosen, self.span = self.span, None
        return chosen or _make_id(64)


class OtlpReport:
    """Sends a run that has ended to an OpenTelemetry collector."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._parent = TraceContextTextMapPropagator().extract({"traceparent": environment.get(TRACEPARENT, "")})
        self._ids = _Ids()
        self._stages: Mapping[str, int] = {}
        resource = _make_resource(environment)
        self._reader = InMemoryMetricReader()
        meter = MeterProvider((self._reader,), resource, shutdown_on_exit=False).get_meter(_NAME, __version__)
        self._durations = cicd_metrics.create_cicd_pipeline_run_duration(meter)
        self._errors = cicd_metrics.create_cicd_pipeline_run_errors(meter)
        self._spans = InMemorySpanExporter()
        provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._tracer: Tracer = provider.get_tracer(_NAME, __version__)

    def prepare(self, plan: Plan) -> Plan:
        """Give the commands of each stage the context of its span; a stage's own `env` wins."""
        parent = get_current_span(self._parent).get_span_context()
        self._ids.trace = parent.trace_id if parent.is_valid else _make_id(128)
        flags = parent.trace_flags if parent.is_valid else _SAMPLED
        self._stages = {stage.name: _make_id(64) for stage in plan.stages}
        return replace(
            plan,
            stages=tuple(
                replace(stage, env={TRACEPARENT: self._format_traceparent(stage.name, flags), **stage.env})
                for stage in plan.stages
            ),
        )

    def report(self, run: FinishedRun) -> None:
        """Send a run's spans and the metrics of all runs so far; DeliveryError if the collector does not take them."""
        self._spans.clear()
        self._make_spans(run)
        self._count_run(run)
        with _capture_complaints() as complaints:
            try:
                sent = self._send()
            except requests.RequestException as error:  # newer exporters log it
                complaints.append(" ".join(str(error).split()))
                sent = False
        if not sent:
            complaint = complaints[-1] if complaints else "the collector did not take it"
            raise DeliveryError(to_one_line(hide_secrets(complaint, _list_secrets(self._environment))))

    def _format_traceparent(self, stage: str, flags: int) -> str:
        return f"00-{self._ids.trace:032x}-{self._stages[stage]:016x}-{flags:02x}"

    def _make_spans(self, run: FinishedRun) -> None:
        record = run.record
        attributes = {
            cicd.CICD_PIPELINE_NAME: record.lane,
            cicd.CICD_PIPELINE_RUN_ID: record.run_id,
            cicd.CICD_PIPELINE_ACTION_NAME: "RUN",
            cicd.CICD_PIPELINE_RESULT: record.result.value,
            **({"paropt.shard": str(record.shard)} if record.shard is not None else {}),
            **_make_error_type(record.result),
        }
        root = self._tracer.start_span(
            f"RUN {record.lane}",
            self._parent,
            SpanKind.SERVER,
            attributes,
            start_time=_to_nanoseconds(record.started_timestamp_seconds),
        )
        inside = set_span_in_context(root)
        for stage in run.stages:
            if stage.record.started_timestamp_seconds is not None:
                self._make_stage(stage, run, inside)
        _end_span(root, record.result, record.reason, record.ended_timestamp_seconds)

    def _make_stage(self, stage: ReportedStage, run: FinishedRun, inside: Context) -> None:
        record = stage.record
        began = record.started_timestamp_seconds or run.record.started_timestamp_seconds
        self._ids.span = self._stages.get(record.stage)
        span = self._tracer.start_span(
            record.stage, inside, SpanKind.INTERNAL, _make_task_attributes(record.stage, run, record.result),
            start_time=_to_nanoseconds(began),
        )  # fmt: skip
        for sla in run.slas:
            if sla.stage == record.stage:
                name = "sla broken" if sla.broken else "sla warning"
                span.add_event(
                    name, {"paropt.sla.max_seconds": sla.limit.max_seconds}, _to_nanoseconds(sla.at_timestamp_seconds)
                )
        for task in stage.tasks:
            for attempt in task.attempts:
                self._make_attempt(attempt, run, set_span_in_context(span))
        _end_span(span, record.result, record.message, began + record.duration_seconds)

    def _make_attempt(self, attempt: Attempt, run: FinishedRun, inside: Context) -> None:
        record = attempt.record
        attributes: dict[str, str | int] = {
            **_make_task_attributes(record.stage, run, record.result, f"{record.task}/{record.attempt}"),
            cicd.CICD_WORKER_NAME: record.worker,
            "paropt.attempt": record.attempt,
            **({"paropt.item": to_unicode(record.item)} if record.item is not None else {}),
        }
        span = self._tracer.start_span(
            f"{record.stage} task", inside, SpanKind.INTERNAL, attributes,
            start_time=_to_nanoseconds(record.started_timestamp_seconds),
        )  # fmt: skip
        _end_span(span, record.result, record.message, record.started_timestamp_seconds + record.duration_seconds)

    def _count_run(self, run: FinishedRun) -> None:
        record = run.record
        name = {cicd.CICD_PIPELINE_NAME: record.lane}
        finished = {cicd.CICD_PIPELINE_RUN_STATE: "finalizing", cicd.CICD_PIPELINE_RESULT: record.result.value}
        self._durations.record(record.duration_seconds, {**name, **finished, **_make_error_type(record.result)})
        for stage in run.stages:
            if stage.record.result.bad:
                self._errors.add(1, {**name, **_make_error_type(stage.record.result)})

    def _send(self) -> bool:
        spans = self._spans.get_finished_spans()
        traces = OTLPSpanExporter(session=_make_session(self._environment))
        metrics = OTLPMetricExporter(session=_make_session(self._environment))
        try:
            for at in range(0, len(spans), _SPANS_AT_ONCE):
                if traces.export(spans[at : at + _SPANS_AT_ONCE]) is not SpanExportResult.SUCCESS:
                    return False
            data = self._reader.get_metrics_data()
            return data is None or metrics.export(data) is MetricExportResult.SUCCESS
        finally:
            traces.shutdown()  # type: ignore[no-untyped-call]
            metrics.shutdown()


class _DirectSession(requests.Session):
    """A session that follows no redirect: the headers are for this collector only, and only its answer counts.

    A partial success is an error, too, which OpenTelemetry's exporters ignore. The timeout is for the whole answer, of
    which at most _LARGEST_ANSWER_BYTES are read. A collector that can't be reached is given up after _MOST_CONNECTIONS:
    the exporters would try until the timeout, and delay the exit of every run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed_connections = 0
        self._sockets = Sockets()
        mount_sockets(self, self._sockets)

    def request(self, *arguments: Any, **settings: Any) -> requests.Response:  # the signature of requests
        timeout_seconds = settings.get("timeout") or _TIMEOUT_SECONDS
        deadline = monotonic() + timeout_seconds
        try:
            with self._sockets.limit(timeout_seconds):
                response = super().request(*arguments, **{**settings, "allow_redirects": False, "stream": True})
                with response:
                    content = _read_content(response)
        except requests.RequestException as error:
            if monotonic() >= deadline:
                raise _build_timeout(timeout_seconds) from error
            self._failed_connections += 1
            if self._failed_connections < _MOST_CONNECTIONS:
                raise
            # Of a kind that the exporters don't try again:
            raise requests.RequestException(f"the collector can't be reached: {describe_cause(error)}") from error
        if monotonic() >= deadline:  # an answer without a length ends when its connection does
            raise _build_timeout(timeout_seconds)
        if 300 <= response.status_code < 400:
            place = response.headers.get("Location")
            redirects = f"redirects to {place}: send there if you trust it"
            raise requests.RequestException(
                f"the collector {redirects if place else f'answers {response.status_code}'}"
            )
        if response.ok and (rejected := _find_rejection(content)):
            raise requests.RequestException(f"the collector rejected a part: {rejected}")
        response.raw = BytesIO(content)  # an exporter may ask for it
        return response


def _build_timeout(seconds: float) -> requests.Timeout:
    return requests.Timeout(f"no whole answer of the collector within {seconds:.3g} s")


def _read_content(response: requests.Response) -> bytes:
    """Return the beginning of an answer without decompressing it: a compressed one could expand to any size."""
    content = b""
    try:
        while len(content) < _LARGEST_ANSWER_BYTES and (more := response.raw.read(_LARGEST_ANSWER_BYTES)):
            content += more
    except (OSError, HTTPError) as error:
        raise requests.ConnectionError(error) from None
    return content


def _find_rejection(content: bytes) -> str:
    """Return how much of a request a collector rejected, and why; "" if nothing. Answers on metrics look the same."""
    answer = ExportTraceServiceResponse()
    try:
        answer.ParseFromString(content)
    except DecodeError:  # it answers in another format, and has accepted the request
        return ""
    part = answer.partial_success
    return f"{part.rejected_spans:,} ({part.error_message or 'no reason given'})" if part.rejected_spans else ""


def _make_session(environment: Mapping[str, str]) -> requests.Session | None:
    """Return a session, or None if a credential provider of OpenTelemetry gives one."""
    provided = any(environment.get(name) for name in _PROVIDER_VARIABLES)
    return None if provided else _DirectSession()


class _Complaints(logging.Handler):
    """A log handler that keeps the records of the exporters."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(" ".join(record.getMessage().split()))


@contextmanager
def _capture_complaints() -> Iterator[list[str]]:
    """Collect the records of OpenTelemetry's exporters instead of logging them: the report logs one line of its own."""
    handler, theirs = _Complaints(), logging.getLogger("opentelemetry")
    propagated, theirs.propagate = theirs.propagate, False
    theirs.addHandler(handler)
    try:
        yield handler.messages
    finally:
        theirs.removeHandler(handler)
        theirs.propagate = propagated


def _make_task_attributes(stage: str, run: FinishedRun, result: Result, part: str = "") -> dict[str, str]:
    return {
        cicd.CICD_PIPELINE_TASK_NAME: stage,
        cicd.CICD_PIPELINE_TASK_RUN_ID: "/".join(filter(None, (run.record.run_id, stage, part))),
        cicd.CICD_PIPELINE_TASK_RUN_RESULT: result.value,
        **_make_error_type(result),
    }


def _make_error_type(result: Result) -> dict[str, str]:
    return {ERROR_TYPE: result.value} if result.bad else {}


def _end_span(span: Span, result: Result, message: str, at_timestamp_seconds: float) -> None:
    if result.bad:
        span.set_status(Status(StatusCode.ERROR, to_unicode(message)))
    span.end(_to_nanoseconds(at_timestamp_seconds))


def _list_secrets(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets in OpenTelemetry's variables, to hide in messages of its exporters, which may quote them."""
    for name, text in environment.items():
        if not name.startswith("OTEL_EXPORTER_OTLP"):
            continue
        if name.endswith("_HEADERS"):
            values = [pair.partition("=")[2].strip() for pair in text.split(",")]
            yield from (text, *values)
            for value in map(unquote, values):
                yield from list_header_secrets(value)
        elif name.endswith("_ENDPOINT"):
            yield from list_url_secrets(text)


def _make_resource(environment: Mapping[str, str]) -> Resource:
    """Return the resource of this process; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES override it."""
    pairs = environment.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
    keys = {pair.partition("=")[0].strip() for pair in pairs}
    named = SERVICE_NAME in keys or environment.get("OTEL_SERVICE_NAME")  # an empty variable counts as unset
    return Resource.create({} if named else {SERVICE_NAME: _NAME})


def _make_id(bits: int) -> int:
    return secrets.randbits(bits) or 1  # an id of zero is invalid


def _to_nanoseconds(timestamp_seconds: float) -> int:
    return round(timestamp_seconds * _NANOSECONDS)
