"""Keep runs, and the totals that metrics resume from, in one SQLite file that several processes may share.

The records of summaries, failures and interrupted runs are loaded when they are first used (PEP 562): a plain run needs
none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from paropt_exporter.history.store import History

if TYPE_CHECKING:
    from paropt_exporter.history.failures import Failures
    from paropt_exporter.history.recovery import InterruptedRun
    from paropt_exporter.history.summaries import RunSummary, StageSummary, TaskSummary, Trend

__all__ = ["Failures", "History", "InterruptedRun", "RunSummary", "StageSummary", "TaskSummary", "Trend"]

_HOMES = {
    "Failures": "failures",
    "InterruptedRun": "recovery",
    "RunSummary": "summaries",
    "StageSummary": "summaries",
    "TaskSummary": "summaries",
    "Trend": "summaries",
}


if not TYPE_CHECKING:  # with this function in sight a type checker would accept any misspelt name as Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
