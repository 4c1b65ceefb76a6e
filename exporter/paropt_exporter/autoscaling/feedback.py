"""The outer loop with its client put together, from the config's `feedback`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from paropt_exporter.autoscaling.bounds_controller import BoundsController
from paropt_exporter.autoscaling.signals import queries
from paropt_exporter.autoscaling.signals.client import Access, Client
from paropt_exporter.autoscaling.signals.collector import SignalCollector, Wish
from paropt_exporter.autoscaling.state import ControlState
from paropt_exporter.clock import Clock
from paropt_exporter.config import model
from paropt_exporter.events import Event, PoolStatistics, QueryCounts

PAST_SECONDS = 2.0  # how long a lane's start may be held up by the question how it went before


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRuns:
    """What Prometheus knows of a lane's runs over seven days: sizes by pool, durations in seconds by stage."""

    sizes: MappingProxyType[str, float]
    durations: MappingProxyType[str, float]


class Feedback:
    """Query results on their way to a lane.

    `past` asks once; `steer` begins the outer loop; `close` ends both, whatever the server does.
    """

    def __init__(
        self, feedback: model.Feedback, prometheus: model.Prometheus, *, project: str, root: Path, clock: Clock
    ) -> None:
        self._feedback = feedback
        self._project = project
        self._root = root
        self._clock = clock
        self._stop = threading.Event()
        self._client = Client(_access(prometheus, root), clock=clock, stop=self._stop)
        self._loop: BoundsController | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def counts(self) -> QueryCounts:
        return self._client.counts()

    def past(self, lane: str) -> PastRuns:
        """Return what the last seven days teach of a lane; empty where nothing is known or answers take too long."""
        found: dict[str, MappingProxyType[str, float]] = {}
        asking = threading.Thread(target=self._ask_past, args=(lane, found), name="paropt-past", daemon=True)
        asking.start()
        asking.join(PAST_SECONDS)
        nothing: MappingProxyType[str, float] = MappingProxyType({})
        return PastRuns(sizes=found.get("pool", nothing), durations=found.get("stage", nothing))

    def _ask_past(self, lane: str, found: dict[str, MappingProxyType[str, float]]) -> None:
        collector = self._gatherer()
        for label, query in (
            ("pool", queries.build_past_size_query(self._project, lane)),
            ("stage", queries.build_past_durations_query(self._project, lane)),
        ):
            found[label] = MappingProxyType(dict(collector.by_label(query, label)))

    def steer(
        self,
        control_state: ControlState,
        *,
        pools: Callable[[], Sequence[PoolStatistics]],
        size: Callable[[], int | None],
        cores: Callable[[], float],
        emit: Callable[[Event], None],
    ) -> None:
        """Begin to ask each interval, and to set the lane's band."""
        interval = self._feedback.interval
        window = self._feedback.window or max(60.0, 4 * interval)
        self._loop = BoundsController(
            control_state,
            self._gatherer(),
            pools=pools,
            size=size,
            cores=cores,
            emit=emit,
            clock=self._clock,
            interval_seconds=interval,
            window_seconds=window,
            stable_seconds=self._feedback.stabilization or max(60.0, 3 * window),
        )
        self._loop.__enter__()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.__exit__()
        self._client.close()
        if self._loop is not None:
            self._loop.close()

    def _gatherer(self) -> SignalCollector:
        feedback = self._feedback
        wishes = [
            Wish(name=name, query=signal.query, use=signal.use, target=signal.target)
            for name, signal in feedback.signals.items()
        ]
        return SignalCollector(
            self._client,
            project=self._project,
            wishes=wishes,
            interval_seconds=feedback.interval,
            clock=self._clock,
        )


def _access(prometheus: model.Prometheus, root: Path) -> Access:
    def file(path: str | None) -> Path | None:
        return None if path is None else root / path

    basic, tls = prometheus.basic_auth, prometheus.tls
    return Access(
        url=prometheus.url,
        timeout_seconds=prometheus.timeout,
        bearer_token_file=file(prometheus.bearer_token_file),
        bearer_token_env=prometheus.bearer_token_env,
        username=basic.username if basic else None,
        password_file=file(basic.password_file) if basic else None,
        password_env=basic.password_env if basic else None,
        ca_file=file(tls.ca_file) if tls else None,
        cert_file=file(tls.cert_file) if tls else None,
        key_file=file(tls.key_file) if tls else None,
        headers=dict(prometheus.headers),
        header_files={name: root / path for name, path in prometheus.header_files.items()},
    )
