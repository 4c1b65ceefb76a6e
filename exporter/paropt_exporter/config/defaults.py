"""The lanes that exist without being written down: the tuning guide's docs, standard and heavy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from paropt_exporter.config.model import Lane, Sla, Workers
from paropt_exporter.events import Strategy


def lanes() -> Mapping[str, Lane]:
    """Return docs, standard and heavy: strategies, workers, stage limits and totals as the guide has them."""
    two, eight = Workers(min=2, max=2, start=2), Workers(min=8, max=8, start=8)
    return MappingProxyType(
        {
            "docs": Lane(strategy=Strategy.THREAD, workers=two, sla=Sla(max=10), total=Sla(max=300), fail_fast=True),
            "standard": Lane(strategy=Strategy.ADAPTIVE, sla=Sla(max=30), total=Sla(max=900)),
            "heavy": Lane(strategy=Strategy.PROCESS, workers=eight, sla=Sla(max=60), total=Sla(max=1200)),
        }
    )
