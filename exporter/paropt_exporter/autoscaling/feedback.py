"""Build the bounds controller and its Prometheus client from the config's `feedback`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from msgspec import Struct

from paropt_exporter.autoscaling.bounds_controller import BoundsController, LaneReadings, Timing
from paropt_exporter.autoscaling.signals.client import Client, ClientSettings
from paropt_exporter.autoscaling.signals.collector import (
    QuerySpec,
    SignalCollector,
    build_past_durations_query,
    build_past_size_query,
)
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.clock import Clock
from paropt_exporter.config import values
from paropt_exporter.events import Event, QueryCounts

PAST_SECONDS = 2.0  # for which a lane's start may wait for the queries about past runs


class PastRuns(Struct, frozen=True, kw_only=True):
    """Seven days of a lane's runs in Prometheus: sizes by pool, durations in seconds by stage."""

    sizes: MappingProxyType[str, float]
    durations: MappingProxyType[str, float]


class Feedback:
    """Feedback from Prometheus to one lane.

    `fetch_past_runs` queries once; `start_controller` starts the bounds controller; `close` ends both, even if the
    server hangs.
    """

    def __init__(
        self, feedback: values.Feedback, prometheus: values.Prometheus, *, project: str, root: Path, clock: Clock
    ) -> None:
        self._feedback = feedback
        self._project = project
        self._root = root
        self._clock = clock
        self._stop = threading.Event()
        self._client = Client(_build_client_settings(prometheus, root), clock=clock, stop=self._stop)
        self._controller: BoundsController | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def get_counts(self) -> QueryCounts:
        """Return the counts of queries and their errors."""
        return self._client.get_counts()

    def fetch_past_runs(self, lane: str) -> PastRuns:
        """Return sizes and durations of the last seven days: those that arrive within PAST_SECONDS."""
        found: dict[str, MappingProxyType[str, float]] = {}
        thread = threading.Thread(target=self._query_past_runs, args=(lane, found), name="paropt-past", daemon=True)
        thread.start()
        thread.join(PAST_SECONDS)
        nothing: MappingProxyType[str, float] = MappingProxyType({})
        return PastRuns(sizes=found.get("pool", nothing), durations=found.get("stage", nothing))

    def _query_past_runs(self, lane: str, found: dict[str, MappingProxyType[str, float]]) -> None:
        collector = self._build_collector()
        for label, query in (
            ("pool", build_past_size_query(self._project, lane)),
            ("stage", build_past_durations_query(self._project, lane)),
        ):
            found[label] = MappingProxyType(dict(collector.read_by_label(query, label)))

    def start_controller(
        self, control_state: ControlState, *, lane: LaneReadings, emit: Callable[[Event], None]
    ) -> None:
        """Start to query each interval and to set the lane's bounds."""
        interval = self._feedback.interval
        window = self._feedback.window or max(60.0, 4 * interval)
        self._controller = BoundsController(
            control_state,
            self._build_collector(),
            lane=lane,
            timing=Timing(
                interval_seconds=interval,
                window_seconds=window,
                stable_seconds=self._feedback.stabilization or max(60.0, 3 * window),
            ),
            emit=emit,
            clock=self._clock,
        )
        self._controller.__enter__()

    def close(self) -> None:
        """Cut the query in progress and wait for the controller's thread."""
        if self._controller is not None:
            self._controller.__exit__()
        self._client.close()
        if self._controller is not None:
            self._controller.close()

    def _build_collector(self) -> SignalCollector:
        feedback = self._feedback
        specs = [
            QuerySpec(name=name, query=signal.query, use=signal.use, target=signal.target)
            for name, signal in feedback.signals.items()
        ]
        return SignalCollector(
            self._client,
            project=self._project,
            specs=specs,
            interval_seconds=feedback.interval,
            clock=self._clock,
        )


def _build_client_settings(prometheus: values.Prometheus, root: Path) -> ClientSettings:
    def resolve(path: str | None) -> Path | None:
        return None if path is None else root / path

    basic, tls = prometheus.basic_auth, prometheus.tls
    return ClientSettings(
        url=prometheus.url or "",  # never empty: `apply_host_config` reports a missing one
        timeout_seconds=prometheus.timeout,
        bearer_token_file=resolve(prometheus.bearer_token_file),
        bearer_token_env=prometheus.bearer_token_env,
        username=basic.username if basic else None,
        password_file=resolve(basic.password_file) if basic else None,
        password_env=basic.password_env if basic else None,
        ca_file=resolve(tls.ca_file) if tls else None,
        cert_file=resolve(tls.cert_file) if tls else None,
        key_file=resolve(tls.key_file) if tls else None,
        headers=dict(prometheus.headers),
        header_files={name: root / path for name, path in prometheus.header_files.items()},
    )
