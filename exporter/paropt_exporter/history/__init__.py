"""Keep runs, and the totals that metrics resume from, in one SQLite file that several processes may share."""

from __future__ import annotations

from paropt_exporter.history.queries import Failures, RunSummary, StageSummary, TaskSummary, Trend
from paropt_exporter.history.recovery import InterruptedRun
from paropt_exporter.history.store import History

__all__ = ["Failures", "History", "InterruptedRun", "RunSummary", "StageSummary", "TaskSummary", "Trend"]
