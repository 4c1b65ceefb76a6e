"""Whole pages of metrics."""

from __future__ import annotations

from itertools import chain

from paropt_exporter.exposition.renderer import PageSource


def render_page(source: PageSource, *, openmetrics: bool = False) -> bytes:
    return b"".join(chain.from_iterable(source.render_parts(openmetrics=openmetrics)))
