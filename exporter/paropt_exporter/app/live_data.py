"""The values that the page and `serve` read at any moment, also while a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from paropt_exporter.aggregation import HistogramTotal
from paropt_exporter.app.config_file import ConfigFile
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.engine.observers import Observers
from paropt_exporter.engine.run import Run
from paropt_exporter.engine.workers import PoolWorkers
from paropt_exporter.errors import HistoryError
from paropt_exporter.exposition.deliveries import Sinks
from paropt_exporter.exposition.protection import ProtectionSource
from paropt_exporter.history import History
from paropt_exporter.metrics import Metrics, Snapshot

HISTORY = "history"  # the observer that must not drop records


class LiveData:
    """The current run, and counts of the other parts of an exporter. From any thread.

    `observers` is set once they are made, since the metrics among them read from here.
    """

    observers: Observers

    def __init__(
        self,
        *,
        workers: PoolWorkers,
        control_state: ControlState,
        history: History,
        sinks: Sinks,
        protection: ProtectionSource,
        file: ConfigFile,
    ) -> None:
        self.run: Run | None = None  # replaced as a whole, by the thread that runs the lane
        self._workers = workers
        self._control_state = control_state
        self._history = history
        self._sinks = sinks
        self._protection = protection
        self._file = file

    def read_snapshot(self) -> Snapshot:
        run = self.run
        return Snapshot(
            pools=self._workers.statistics(),
            live=run.snapshot_stages() if run is not None else (),
            backlogs=run.measure_backlog() if run is not None else {},
            control=self._control_state.snapshot(),
            dropped=self.count_dropped(),
            deliveries=self._sinks.count_deliveries(),
            failing_deliveries=self._sinks.find_failing(),
            web_config_reloads=self._protection.count_reloads(),
            web_config_successful=self._protection.was_reload_successful(),
            config_reloads=self._file.reloads(),
            last_reload=self._file.last_reload,
        )

    def get_run_size(self) -> int | None:
        run = self.run
        return None if run is None else run.size

    def count_dropped(self) -> Mapping[str, int]:
        """Return how many events each observer has lost, and records the history."""
        dropped = self.observers.dropped()
        return {**dropped, HISTORY: dropped[HISTORY] + self._history.dropped}

    def save_shown_cpu(self, cpu_totals: Mapping[str, float]) -> None:
        """Store the CPU time of running tasks that a page has shown, so that no later page shows less."""
        run = self.run
        if run is not None:
            self._history.store_shown_cpu(run.run_id, cpu_totals)

    def collect_series(self, metrics: Metrics) -> Mapping[tuple[str, tuple[str, ...]], float | HistogramTotal]:
        """Return the series of this process for `serve`, which reads totals in the history.

        The CPU time of running tasks is stored there, if the history can be read.
        """
        run = self.run
        if run is not None:
            with suppress(HistoryError):
                self._store_running_cpu(run)
        return metrics.collect_live()

    def _store_running_cpu(self, run: Run) -> None:
        """Store the CPU totals with running tasks.

        The totals are read first: a task that ends in between is missing from them instead of counted twice.
        """
        totals = self._history.load_stage_cpu_totals()
        live = run.snapshot_stages()
        shown = {stage.stage: totals.get((stage.lane, stage.stage), 0.0) + stage.cpu_seconds for stage in live}
        self._history.store_shown_cpu(run.run_id, shown)
