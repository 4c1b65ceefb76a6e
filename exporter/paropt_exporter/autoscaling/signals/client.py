"""Query Prometheus, or a server with its API: one instant query at a time, with a deadline and a limit on the answer.

HTTP API: POST /api/v1/query, as Prometheus documents it; GET if a proxy answers 405. Without `nocache`, VictoriaMetrics
answers instant queries with data from 30 s ago, stamped "now"; without `partial_response`, Thanos may give partial
answers.
"""

from __future__ import annotations

import json
import logging
import math
import random
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.autoscaling.policy.query_validity import QueryResult, SeriesValue
from paropt_exporter.clock import Clock
from paropt_exporter.config.credentials import SecretError, hide_secrets, list_secrets
from paropt_exporter.errors import ParoptError
from paropt_exporter.events import QueryCounts
from paropt_exporter.http_sessions import Sockets, mount_sockets

log = logging.getLogger(__name__)

LARGEST_ANSWER_BYTES = 1 << 20  # thousands of series; queries for sizing have a few
TRIES = 3
_FIRST_PAUSE_SECONDS = 0.2
_REDIRECTS = 3
_RETRIED = (429, 502, 503, 504)
_CHUNK_BYTES = 1 << 16
_MOST_WARNINGS = 10  # of an answer
_MOST_CHARACTERS = 300  # of a text of an answer, in a message
_EXTRA = (("nocache", "1"), ("partial_response", "false"))
# the prefix of a remark on a query; from Prometheus 2.54 on, remarks are under `infos` instead of `warnings`
_INFO = "PromQL info"


class QueryFailed(ParoptError):
    """A query got no answer. `kind` is one of `families.QUERY_ERRORS`; the message never contains a secret."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ClientSettings(Struct, frozen=True, kw_only=True):
    """The server's address and the credentials.

    `read_headers` returns the headers of a query, and may raise SecretError; each query calls it, since secrets rotate.
    `secret_headers`: the names of further headers whose values messages hide, as they do for Authorization.
    """

    url: str
    timeout_seconds: float = 5.0
    read_headers: Callable[[], Mapping[str, str]] = dict
    secret_headers: tuple[str, ...] = ()
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Client:
    """Queries one server.

        query() -> try -> answer | QueryFailed        a watchdog cuts the connection at the deadline

    Guarantees: a query ends within `timeout_seconds` after the name is resolved, even if the server sends a byte a
    second; at most LARGEST_ANSWER_BYTES are read; no request goes to another host than the URL's; no message has a
    secret. Thread-safe: a query waits until that of another thread has ended.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        stop: threading.Event,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._stop = stop
        self._in_query = threading.Lock()  # guards: _method, _secrets, and the connection that the watchdog cuts
        self._method = "POST"
        self._url = settings.url.rstrip("/") + "/api/v1/query"
        self._sockets = Sockets(stop)
        self._secrets: tuple[str, ...] = ()  # of the last request: a server or a library may quote them
        self._session = requests.Session()
        self._session.trust_env = False  # otherwise credentials of a netrc or a proxy would be sent
        mount_sockets(self._session, self._sockets)
        self._lock = threading.Lock()  # guards: _buckets, _seconds, _errors
        self._buckets = [0] * (len(families.BUCKETS_SECONDS) + 1)
        self._seconds = 0.0
        self._errors: dict[str, int] = {}

    def query(self, expression: str) -> QueryResult:
        """Return the server's answer to an expression; blocks up to the timeout once it is sent. Raises QueryFailed."""
        with self._in_query:
            began = self._clock.monotonic()
            try:
                return self._query_with_retries(expression, began + self._settings.timeout_seconds)
            except QueryFailed as failed:
                with self._lock:
                    self._errors[failed.kind] = self._errors.get(failed.kind, 0) + 1
                raise QueryFailed(failed.kind, hide_secrets(str(failed), self._secrets)) from None
            finally:
                self._count_query(self._clock.monotonic() - began)

    def get_counts(self) -> QueryCounts:
        """Return the number of queries, their durations and their errors."""
        with self._lock:
            return QueryCounts(buckets=tuple(self._buckets), seconds=self._seconds, errors=dict(self._errors))

    def close(self) -> None:
        """Close the connection. A query in progress fails, and later ones fail at once."""
        self._sockets.close()
        self._session.close()

    def _count_query(self, seconds: float) -> None:
        with self._lock:
            self._buckets[bisect_left(families.BUCKETS_SECONDS, seconds)] += 1
            self._seconds += seconds

    def _query_with_retries(self, expression: str, deadline: float) -> QueryResult:
        if self._stop.is_set():
            raise QueryFailed("connection", f"{self._server_name}: not asked, since the exporter ends")
        for tried in range(1, TRIES + 1):
            try:
                return self._try_query(expression, deadline)
            except _RetryableFailure as again:
                # Random pauses: many hosts that lost one server must not come back at the same moment.
                pause = _FIRST_PAUSE_SECONDS * 2 ** (tried - 1) * (0.5 + self._jitter())
                last = tried == TRIES or self._clock.monotonic() + pause >= deadline
                if last or self._stop.wait(pause):
                    raise QueryFailed(again.kind, str(again)) from None
        raise AssertionError("unreachable")  # pragma: no cover

    def _try_query(self, expression: str, deadline: float) -> QueryResult:
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise QueryFailed("timeout", self._get_timeout_message())
        try:
            with self._sockets.limit(left):
                body = self._fetch(expression, left)
            if self._clock.monotonic() >= deadline:  # cut off, a body without a length seems to have ended there
                raise TimeoutError
            result = _parse_result(body, self._server_name)
            return replace(result, warnings=tuple(hide_secrets(text, self._secrets) for text in result.warnings))
        except requests.exceptions.SSLError as error:
            raise QueryFailed("tls", f"{self._server_name}: {_find_cause(error)}") from None
        except (requests.exceptions.Timeout, TimeoutError):
            raise QueryFailed("timeout", self._get_timeout_message()) from None
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            if self._clock.monotonic() >= deadline:
                raise QueryFailed("timeout", self._get_timeout_message()) from None
            raise _RetryableFailure("connection", f"{self._server_name}: {_find_cause(error)}") from None

    def _fetch(self, expression: str, left: float) -> bytes:
        form = {"query": expression, "timeout": f"{max(1, round(left * 1000))}ms", **dict(_EXTRA)}
        url = self._url
        for _ in range(_REDIRECTS + 1):
            response = self._send_request(url, form, left)
            with response:
                if response.status_code == 405 and self._method == "POST":
                    self._method = "GET"
                elif 300 <= response.status_code < 400:
                    url = self._resolve_redirect(url, response.headers.get("Location", ""))
                else:
                    body = _read_body(response, self._server_name)
                    return _check_status(response.status_code, body, self._server_name)
        raise QueryFailed("redirect", f"{self._server_name}: redirected more than {_REDIRECTS} times")

    def _send_request(self, url: str, form: dict[str, str], left: float) -> requests.Response:
        settings = self._settings
        posted = self._method == "POST"
        certificate = None
        if settings.cert_file is not None:
            certificate = (str(settings.cert_file), str(settings.key_file or settings.cert_file))
        return self._session.request(
            self._method,
            url,
            data=form if posted else None,
            params=None if posted else form,
            headers=self._read_headers(),
            timeout=left,
            allow_redirects=False,
            stream=True,
            verify=str(settings.ca_file) if settings.ca_file is not None else True,
            cert=certificate,
        )

    def _resolve_redirect(self, url: str, location: str) -> str:
        if not location:
            raise QueryFailed("redirect", f"{self._server_name}: redirected to nowhere")
        target = urljoin(url, location)
        scheme, host, *_ = urlsplit(target)
        if (scheme, host) != urlsplit(url)[:2]:
            where = f"{scheme}://{host.rpartition('@')[2]}"[:200]  # a path or query may contain a secret
            raise QueryFailed("redirect", f"{self._server_name}: redirected to {where}, which is not followed")
        return target.partition("?")[0]

    def _read_headers(self) -> dict[str, str]:
        settings = self._settings
        try:
            headers = {"Accept": "application/json", "Accept-Encoding": "identity", **settings.read_headers()}
        except SecretError as error:
            raise QueryFailed("unauthorized", str(error)) from None
        self._secrets = list_secrets(headers, settings.secret_headers)
        return headers

    @property
    def _server_name(self) -> str:
        """The server's URL for messages, without user, password and query, which may be secret."""
        scheme, _, rest = self._settings.url.partition("://")
        host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
        return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"

    def _get_timeout_message(self) -> str:
        return f"{self._server_name}: no answer within {self._settings.timeout_seconds:g} s"


class _RetryableFailure(ParoptError):
    """A failure that may be temporary."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _read_body(response: requests.Response, where: str) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        body += chunk
        if len(body) > LARGEST_ANSWER_BYTES:
            message = f"{where}: the answer is larger than {LARGEST_ANSWER_BYTES:,} bytes: aggregate it"
            raise QueryFailed("too_large", message)
    return bytes(body)


def _check_status(status: int, body: bytes, where: str) -> bytes:
    if 200 <= status < 300:
        return body
    if status in (401, 403):
        raise QueryFailed("unauthorized", f"{where}: status {status}: check the credentials under feedback.prometheus")
    if status in _RETRIED:
        raise _RetryableFailure("status", f"{where}: status {status}")
    said = _find_error(body)
    if said:
        raise QueryFailed("query", f"{where}: {said}")
    raise QueryFailed("status", f"{where}: status {status}: is this the URL of a Prometheus API?")


def _find_error(body: bytes) -> str:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    said = document.get("error") if isinstance(document, dict) else None
    return " ".join(str(said).split())[:_MOST_CHARACTERS] if said else ""


def _parse_result(body: bytes, where: str) -> QueryResult:
    try:
        document = json.loads(body)
        status = document["status"]
        if status != "success":
            said = _find_error(body) or f"status {str(status)[:_MOST_CHARACTERS]!r}"
            raise QueryFailed("query", f"{where}: {said}")
        return _parse_document(document)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, OverflowError):
        raise QueryFailed("malformed", f"{where}: the answer does not follow Prometheus' API") from None


def _parse_document(document: Mapping[str, Any]) -> QueryResult:
    result, kind = document["data"]["result"], str(document["data"]["resultType"])
    said = [warning for warning in map(str, document.get("warnings") or ()) if not warning.startswith(_INFO)]
    warnings = tuple(warning[:_MOST_CHARACTERS] for warning in said[:_MOST_WARNINGS])
    if document.get("isPartial"):
        warnings = (*warnings, "the answer is partial")
    if kind == "scalar":
        element = SeriesValue(labels=(), value=float(result[1]))
        return QueryResult(
            kind=kind, elements=(element,), evaluated_timestamp_seconds=float(result[0]), warnings=warnings
        )
    if kind in ("matrix", "string"):
        return QueryResult(kind=kind, warnings=warnings)
    if kind != "vector":
        raise ValueError("no such type of a result")
    moments = [float(each["value"][0]) for each in result]
    return QueryResult(
        kind=kind,
        elements=tuple(
            SeriesValue(labels=_parse_labels(each["metric"]), value=float(each["value"][1])) for each in result
        ),
        evaluated_timestamp_seconds=min(moments, default=math.nan),
        warnings=warnings,
    )


def _parse_labels(metric: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    if not all(isinstance(value, str) for value in metric.values()):
        raise TypeError("a label's value is no text")
    return tuple(sorted(metric.items()))


def _find_cause(error: BaseException) -> str:
    """Return the innermost reason of an error in one line, without the texts that requests adds around it."""
    inner = error
    while (deeper := inner.__cause__ or inner.__context__) is not None and deeper is not inner:
        inner = deeper
    reason = getattr(inner, "strerror", None) or getattr(inner, "verify_message", None) or str(inner)
    return " ".join(str(reason or type(inner).__name__).split())[:200]
