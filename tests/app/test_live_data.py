"""The values that `serve` reads while a run goes on."""

from __future__ import annotations

from typing import cast
from unittest.mock import sentinel

from paropt_exporter import families
from paropt_exporter.app.live_data import LiveData
from paropt_exporter.engine.run import Run
from paropt_exporter.errors import HistoryError
from paropt_exporter.history import History
from paropt_exporter.metrics import LaneLabels, Metrics


class UnreadableHistory:
    def load_stage_cpu_totals(self) -> None:
        raise HistoryError("disk I/O error")


def test_serve_gets_the_series_of_a_run_whose_history_can_not_be_read() -> None:
    """Each second, the log had a traceback, and the page of `serve` no new value."""
    live = LiveData(
        workers=sentinel.workers,
        control_state=sentinel.control_state,
        history=cast("History", UnreadableHistory()),
        sinks=sentinel.sinks,
        protection=sentinel.protection,
        file=sentinel.file,
    )
    live.run = cast("Run", sentinel.run)
    metrics = Metrics(project="shop", lanes=(LaneLabels(lane="standard", stages=()),))
    assert live.collect_series(metrics)[families.RUN_IN_PROGRESS.name, ("standard",)] == 0
