"""The bounds controller: each interval, set a lane's bounds, or its size, by query results."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct

from paropt_exporter.autoscaling.decisions import serialize_decision, serialize_observation
from paropt_exporter.autoscaling.policy.query_size import (
    PoolReading,
    QuerySizeDecision,
    QuerySizeObservation,
    QuerySizeState,
    decide_query_size,
)
from paropt_exporter.autoscaling.policy.size_bounds import (
    BoundsDecision,
    BoundsObservation,
    BoundsState,
    Signal,
    decide_size_bounds,
)
from paropt_exporter.autoscaling.signals.local_counters import CounterHistory, Rates, sample_counters
from paropt_exporter.autoscaling.state import PROMETHEUS, ControlState, SizeBounds
from paropt_exporter.clock import Clock
from paropt_exporter.events import Decision, Event, PoolStatistics

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 1.0  # between samples of our own counters; values between two samples are interpolated


class SignalSource(Protocol):
    """Where an interval's readings come from: `feedback.SignalCollector`, or a fake."""

    def read_signals(self) -> tuple[Signal, ...]: ...

    def read_pool(
        self, statistics: PoolStatistics, local_rates: Callable[[float, float], Rates | None], window_seconds: float
    ) -> PoolReading: ...


class LaneReadings(Struct, frozen=True, kw_only=True):
    """The lane as the bounds controller sees it; `size` returns None while the lane does not run."""

    pools: Callable[[], Sequence[PoolStatistics]]
    size: Callable[[], int | None]
    cores: Callable[[], float]


class Timing(Struct, frozen=True, kw_only=True):
    """In seconds: the interval of queries, their windows, and how long a lower value must hold before bounds fall."""

    interval_seconds: float
    window_seconds: float
    stable_seconds: float


class BoundsController:
    """Sets the bounds of a lane from a thread of its own, between `start` and `stop`.

        readings -> decide_size_bounds -> floor, ceiling ------------------+
        readings -> decide_query_size -> size (source: prometheus only) ---+--> ControlState --> Controller --> pools

    Guarantees: only the bounds controller writes the bounds, and it never resizes; a slow or failing query delays only
    its own decision; each decision is emitted for each pool.
    """

    def __init__(
        self,
        control_state: ControlState,
        signals: SignalSource,
        *,
        lane: LaneReadings,
        timing: Timing,
        emit: Callable[[Event], None],
        clock: Clock,
    ) -> None:
        self._control_state = control_state
        self._signals = signals
        self._lane = lane
        self._timing = timing
        self._emit = emit
        self._clock = clock
        self._counters: dict[str, CounterHistory] = {}
        self._bounds_state = BoundsState()
        self._query_size_state = QuerySizeState()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run_steps, name="paropt-feedback", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end. Cut its query, then call `join` to wait for it."""
        self._done.set()

    def join(self) -> None:
        self._thread.join()

    def _run_steps(self) -> None:
        due = self._clock.monotonic()
        while not self._done.wait(min(SAMPLE_SECONDS, max(0.0, due - self._clock.monotonic()))):
            try:
                self.sample_pools()
                if self._clock.monotonic() >= due:
                    due = max(due + self._timing.interval_seconds, self._clock.monotonic())
                    self.step()
            except Exception:  # the thread's boundary: an error in one interval must not end the feedback
                log.exception("feedback failed for one interval")

    def sample_pools(self) -> None:
        """Sample the pools' counters, with which readings from Prometheus are compared."""
        now = self._clock.monotonic()
        for pool in self._lane.pools():
            self._counters.setdefault(pool.name, CounterHistory()).add_sample(sample_counters(pool, now))

    def _get_local_rates(self, pool: str, begin: float, end: float) -> Rates | None:
        self.sample_pools()  # Prometheus' sample may be newer than our last one
        return self._counters[pool].compute_rates(begin, end)

    def step(self) -> None:
        """Read the signals once and set the bounds."""
        signals = self._signals.read_signals()
        bounds = self._decide_bounds(signals)
        if self._done.is_set():
            return  # the shutdown has cut the last query, whose failure means nothing
        if self._control_state.source == PROMETHEUS:
            bounds = self._decide_query_size(bounds)
        self._control_state.set_size_bounds(bounds)

    def _decide_bounds(self, signals: tuple[Signal, ...]) -> SizeBounds:
        config_bounds, current = self._control_state.config_bounds, self._control_state.size_bounds
        observation = BoundsObservation(
            now=self._clock.monotonic(),
            interval_seconds=self._timing.interval_seconds,
            stable_seconds=self._timing.stable_seconds,
            minimum=config_bounds.minimum,
            maximum=config_bounds.maximum,
            floor=current.floor,
            ceiling=current.ceiling,
            size=self._get_lane_size(),
            signals=signals,
            state=self._bounds_state,
        )
        decision = decide_size_bounds(observation)
        self._bounds_state = decision.state
        if signals:
            terms = _build_bounds_terms(observation, decision)
            self._emit_decisions(observation, decision, old=current.floor, new=decision.floor, terms=terms)
        reason = decision.reason if decision.reason in ("load", "limit") else "bounds"
        return SizeBounds(floor=decision.floor, ceiling=decision.ceiling, query_size=current.query_size, reason=reason)

    def _decide_query_size(self, bounds: SizeBounds) -> SizeBounds:
        names = self._control_state.pools  # this process may also have pools of an earlier config of the lane
        pools = tuple(
            self._signals.read_pool(pool, partial(self._get_local_rates, pool.name), self._timing.window_seconds)
            for pool in self._lane.pools()
            if pool.name in names
        )
        observation = QuerySizeObservation(
            now=self._clock.monotonic(),
            stable_seconds=self._timing.stable_seconds,
            cores=self._lane.cores(),
            size=self._get_decided_size(),
            floor=bounds.floor,
            ceiling=bounds.ceiling,
            pools=pools,
            state=self._query_size_state,
            rescue_size=self._control_state.rescue_size,
            slots_per_task=self._control_state.slots_per_task,
        )
        decision = decide_query_size(observation)
        self._query_size_state = decision.state
        terms = _build_query_size_terms(observation)
        self._emit_decisions(observation, decision, old=observation.size, new=decision.size, terms=terms)
        return SizeBounds(
            floor=bounds.floor,
            ceiling=bounds.ceiling,
            query_size=decision.size,
            reason=decision.reason,
            no_data=decision.no_data,
            flapping=decision.state.history.is_flapping(observation.now),
        )

    def _get_lane_size(self) -> int:
        running = self._lane.size()
        return self._get_decided_size() if running is None else running

    def _get_decided_size(self) -> int:
        """Return the size decided last. It is not the lane's size, since a hold must not undo a resize in progress."""
        size = self._control_state.size_bounds.query_size
        if size is not None:
            return size
        running = self._lane.size()
        return self._control_state.config_bounds.start if running is None else running

    def _emit_decisions(
        self,
        observation: BoundsObservation | QuerySizeObservation,
        decision: BoundsDecision | QuerySizeDecision,
        *,
        old: int,
        new: int,
        terms: Mapping[str, float],
    ) -> None:
        for pool in self._control_state.pools:
            self._emit(
                Decision(
                    pool=pool,
                    action=decision.action,
                    reason=decision.reason,
                    old_size=old,
                    new_size=new,
                    at_timestamp_seconds=self._clock.wall(),
                    terms=terms,
                    situation=serialize_observation(observation),
                    choice=serialize_decision(decision),
                )
            )


def _build_bounds_terms(observation: BoundsObservation, decision: BoundsDecision) -> dict[str, float]:
    terms: dict[str, float] = {"floor": decision.floor, "ceiling": decision.ceiling, "lane_size": observation.size}
    for signal in observation.signals:
        terms[f"{signal.use} {signal.name} target"] = signal.target
        if signal.reading.is_valid:
            terms[f"{signal.use} {signal.name}"] = signal.reading.value
    return terms


def _build_query_size_terms(observation: QuerySizeObservation) -> dict[str, float]:
    terms: dict[str, float] = {
        "floor": observation.floor,
        "ceiling": observation.ceiling,
        "cores": observation.cores,
    }
    for pool in observation.pools:
        if pool.measurement is not None:
            terms |= {f"{pool.pool} depth": pool.measurement.depth, f"{pool.pool} busy": pool.measurement.busy}
            terms |= {f"{pool.pool} cpu": pool.measurement.cpu, f"{pool.pool} delay": pool.measurement.delay}
    return terms
