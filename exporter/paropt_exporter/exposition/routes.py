"""Decide what each path answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from http import HTTPStatus

from paropt_exporter._version import __version__
from paropt_exporter.errors import UsageError
from paropt_exporter.exposition.http import Answer, Request
from paropt_exporter.metrics.formats import Choice, choose

HEALTHY = "/-/healthy"
READY = "/-/ready"
_READING = ("GET", "HEAD")
_PATH = re.compile(r"/[\w./~-]*", re.ASCII)  # as the config's, `config.fields.UrlPath`: what a scraper can ask for


@dataclass(frozen=True, slots=True)
class Scrape:
    """A request for the metrics page, which is rendered elsewhere, since that takes time."""

    choice: Choice
    gzip: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """The endpoint's paths. `ready` is asked at each request to `/-/ready`."""

    telemetry_path: str
    ready: Callable[[], bool]

    def __post_init__(self) -> None:
        taken = self.telemetry_path in (HEALTHY, READY)
        if taken or not _PATH.fullmatch(self.telemetry_path):
            raise UsageError(
                f"telemetry path {self.telemetry_path!r}: expected one like /metrics, other than {HEALTHY} and {READY}"
            )

    def answer(self, request: Request) -> Answer | Scrape:
        """Return the answer, or that the metrics page is wanted."""
        if request.method not in _READING:
            return Answer.text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", ("Allow", ", ".join(_READING)))
        if request.path == self.telemetry_path:
            return Scrape(choose(request.headers.get("accept", "")), request.gzip)
        if request.path == "/":
            return Answer(body=self._landing(), content_type="text/html; charset=utf-8")
        if request.path == HEALTHY:
            return Answer.text(HTTPStatus.OK, "paropt-exporter is healthy")
        if request.path == READY:
            return self._readiness()
        return Answer.text(HTTPStatus.NOT_FOUND, f"nothing here; metrics are at {self.telemetry_path}")

    def _readiness(self) -> Answer:
        if self.ready():
            return Answer.text(HTTPStatus.OK, "paropt-exporter is ready")
        return Answer.text(HTTPStatus.SERVICE_UNAVAILABLE, "paropt-exporter is not ready yet")

    def _landing(self) -> bytes:
        links = ((self.telemetry_path, "Metrics"), (HEALTHY, "Healthy"), (READY, "Ready"))
        items = "".join(f'<li><a href="{escape(path)}">{name}</a></li>' for path, name in links)
        return (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>paropt-exporter</title></head>'
            f"<body><h1>paropt-exporter</h1><p>Version {escape(__version__)}</p><ul>{items}</ul></body></html>\n"
        ).encode()
