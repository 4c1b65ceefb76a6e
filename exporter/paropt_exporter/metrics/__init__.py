"""Turn events and pool statistics into the families of the catalogue, as a page for Prometheus."""

from __future__ import annotations

from paropt_exporter.metrics.labels import LaneLabels, StageLabels
from paropt_exporter.metrics.metrics import Metrics

__all__ = ["LaneLabels", "Metrics", "StageLabels"]
