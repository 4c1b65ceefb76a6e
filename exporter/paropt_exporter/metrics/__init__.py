"""Turn events and pool statistics into the metric families, as a page for Prometheus."""

from __future__ import annotations

from paropt_exporter.events import LastReload
from paropt_exporter.metrics.event_state import LaneLabels, StageLabels
from paropt_exporter.metrics.metrics import Metrics
from paropt_exporter.metrics.samples import Snapshot

__all__ = ["LaneLabels", "LastReload", "Metrics", "Snapshot", "StageLabels"]
