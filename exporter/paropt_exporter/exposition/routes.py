"""Route requests by path."""

from __future__ import annotations

from html import escape
from http import HTTPStatus

from msgspec import Struct

from paropt_exporter._version import __version__
from paropt_exporter.exposition.http import Request, Response
from paropt_exporter.exposition.urls import HEALTHY, READY
from paropt_exporter.metrics.formats import ContentChoice, negotiate

_METHODS = ("GET", "HEAD")


class Scrape(Struct, frozen=True):
    """A request for the metrics page. Another thread renders it, since that takes time."""

    choice: ContentChoice
    gzip: bool


class RenderedPage(Struct, frozen=True, kw_only=True):
    """A response to a scrape. `rendered_seconds` is when it was requested from the renderer, on the monotonic clock."""

    scrape: Scrape
    response: Response
    rendered_seconds: float


class Routes(Struct, frozen=True, kw_only=True):
    """The endpoint's paths."""

    telemetry_path: str

    def route(self, request: Request) -> Response | Scrape:
        """Return the response, or a `Scrape` if the request is for the metrics page."""
        if request.method not in _METHODS:
            return Response.from_text(
                HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", ("Allow", ", ".join(_METHODS))
            )
        if request.path == self.telemetry_path:
            return Scrape(negotiate(request.headers.get("accept", "")), request.gzip)
        if request.path == "/":
            return Response(body=self._render_landing_page(), content_type="text/html; charset=utf-8")
        if request.path == HEALTHY:
            return Response.from_text(HTTPStatus.OK, "paropt-exporter is healthy")
        if request.path == READY:
            return Response.from_text(HTTPStatus.OK, "paropt-exporter is ready")
        return Response.from_text(HTTPStatus.NOT_FOUND, f"nothing here; metrics are at {self.telemetry_path}")

    def _render_landing_page(self) -> bytes:
        links = ((self.telemetry_path, "Metrics"), (HEALTHY, "Healthy"), (READY, "Ready"))
        # relative, so that they work behind a reverse proxy with a path prefix
        items = "".join(f'<li><a href=".{escape(path)}">{name}</a></li>' for path, name in links)
        return (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="color-scheme" content="light dark"><title>paropt-exporter</title></head>'
            f"<body><h1>paropt-exporter</h1><p>Version {escape(__version__)}</p><ul>{items}</ul></body></html>\n"
        ).encode()
