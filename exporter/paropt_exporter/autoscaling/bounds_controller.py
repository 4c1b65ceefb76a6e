"""The outer loop: each interval, let query results set between which sizes a lane moves, or its very size."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from paropt_exporter.autoscaling.decisions import Observation, PolicyDecision, serialize_decision, serialize_observation
from paropt_exporter.autoscaling.policy.prometheus_size import (
    PoolReading,
    TargetDecision,
    TargetObservation,
    TargetState,
    decide_target_size,
)
from paropt_exporter.autoscaling.policy.size_bounds import (
    BoundsDecision,
    BoundsObservation,
    BoundsState,
    Signal,
    decide_size_bounds,
)
from paropt_exporter.autoscaling.signals.local_counters import CounterHistory, Rates, sample_pool
from paropt_exporter.autoscaling.state import PROMETHEUS, ControlState, SizeBounds
from paropt_exporter.clock import Clock
from paropt_exporter.events import Decision, Event, PoolStatistics

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between looks at our own counters: what lies between two is interpolated


class ReadsSignals(Protocol):
    """Where an interval's readings come from: `signals.gather.Gatherer`, or a fake."""

    def signals(self) -> tuple[Signal, ...]: ...

    def pool(
        self, statistics: PoolStatistics, twin: Callable[[float, float], Rates | None], window_seconds: float
    ) -> PoolReading: ...


class BoundsController:
    """Sets the band of a lane from a thread of its own; `with BoundsController(...)` for as long as the exporter lives.

        readings -> decide_band -> floor, ceiling  --+
        readings -> decide_target -> size (source: prometheus only) --+--> Standing --> inner loop --> pools

    Guarantees: it alone writes the band; it never resizes; a query that hangs or fails delays nothing but its own
    decision; each decision is told for each pool. `size`: the lane's size now, None while it does not run.
    """

    def __init__(
        self,
        control_state: ControlState,
        collector: ReadsSignals,
        *,
        pools: Callable[[], Sequence[PoolStatistics]],
        size: Callable[[], int | None],
        cores: Callable[[], float],
        emit: Callable[[Event], None],
        clock: Clock,
        interval_seconds: float,
        window_seconds: float,
        stable_seconds: float,
    ) -> None:
        self._control_state = control_state
        self._gatherer = collector
        self._pools = pools
        self._size = size
        self._cores = cores
        self._emit = emit
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._window_seconds = window_seconds
        self._stable_seconds = stable_seconds
        self._counters: dict[str, CounterHistory] = {}
        self._band_state = BoundsState()
        self._target_state = TargetState()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="paropt-feedback", daemon=True)

    def __enter__(self) -> BoundsController:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def close(self) -> None:
        """Wait for the thread, whose query must have been cut before."""
        self._thread.join()

    def _loop(self) -> None:
        due = self._clock.monotonic()
        while not self._done.wait(min(LOOK_SECONDS, max(0.0, due - self._clock.monotonic()))):
            try:
                self.look()
                if self._clock.monotonic() >= due:
                    due = max(due + self._interval_seconds, self._clock.monotonic())
                    self.step()
            except Exception:  # the loop's boundary: a fault of one interval must not end the feedback
                log.exception("feedback failed for one interval")

    def look(self) -> None:
        """Take the pools' counters, for the twins of what Prometheus says."""
        now = self._clock.monotonic()
        for pool in self._pools():
            self._counters.setdefault(pool.name, CounterHistory()).look(sample_pool(pool, now))

    def _twin(self, pool: str, begin: float, end: float) -> Rates | None:
        self.look()  # the sample that it is held against may be younger than the last look
        return self._counters[pool].flows(begin, end)

    def step(self) -> None:
        """Ask once and set the band."""
        signals = self._gatherer.signals()
        band = self._band(signals)
        if self._done.is_set():
            return  # the last query was cut by the end, and says nothing
        if self._control_state.source == PROMETHEUS:
            band = self._target(band)
        self._control_state.set_band(band)

    def _band(self, signals: tuple[Signal, ...]) -> SizeBounds:
        bounds, now_band = self._control_state.bounds, self._control_state.band
        observation = BoundsObservation(
            now=self._clock.monotonic(),
            interval_seconds=self._interval_seconds,
            stable_seconds=self._stable_seconds,
            minimum=bounds.minimum,
            maximum=bounds.maximum,
            floor=now_band.floor,
            ceiling=now_band.ceiling,
            size=self._lane_size(),
            signals=signals,
            state=self._band_state,
        )
        choice = decide_size_bounds(observation)
        self._band_state = choice.state
        if signals:
            self._tell(
                observation, choice, old=now_band.floor, new=choice.floor, terms=_band_terms(observation, choice)
            )
        reason = choice.reason if choice.reason in ("load", "limit") else "bounds"
        return SizeBounds(floor=choice.floor, ceiling=choice.ceiling, target=now_band.target, reason=reason)

    def _target(self, band: SizeBounds) -> SizeBounds:
        pools = tuple(
            self._gatherer.pool(pool, partial(self._twin, pool.name), self._window_seconds) for pool in self._pools()
        )
        observation = TargetObservation(
            now=self._clock.monotonic(),
            stable_seconds=self._stable_seconds,
            cores=self._cores(),
            size=self._decided_size(),
            floor=band.floor,
            ceiling=band.ceiling,
            pools=pools,
            state=self._target_state,
            rescue_size=self._control_state.rescue_size,
        )
        choice = decide_target_size(observation)
        self._target_state = choice.state
        self._tell(observation, choice, old=observation.size, new=choice.size, terms=_target_terms(observation))
        return SizeBounds(
            floor=band.floor,
            ceiling=band.ceiling,
            target=choice.size,
            reason=choice.reason,
            no_data=choice.no_data,
            flapping=choice.state.history.flapping(observation.now),
        )

    def _lane_size(self) -> int:
        running = self._size()
        return self._decided_size() if running is None else running

    def _decided_size(self) -> int:
        """Return the size that was decided last, not the lane's: a hold must not undo what is still on its way."""
        target = self._control_state.band.target
        if target is not None:
            return target
        running = self._size()
        return self._control_state.bounds.start if running is None else running

    def _tell(
        self,
        observation: Observation,
        choice: BoundsDecision | TargetDecision,
        *,
        old: int,
        new: int,
        terms: Mapping[str, float],
    ) -> None:
        recorded: PolicyDecision = choice
        for pool in self._control_state.pools:
            self._emit(
                Decision(
                    pool=pool,
                    action=choice.action,
                    reason=choice.reason,
                    old_size=old,
                    new_size=new,
                    at_timestamp_seconds=self._clock.wall(),
                    terms=terms,
                    situation=serialize_observation(observation),
                    choice=serialize_decision(recorded),
                )
            )


def _band_terms(observation: BoundsObservation, choice: BoundsDecision) -> dict[str, float]:
    terms: dict[str, float] = {"floor": choice.floor, "ceiling": choice.ceiling, "lane_size": observation.size}
    for signal in observation.signals:
        terms[f"{signal.use} {signal.name} target"] = signal.target
        if signal.reading.is_valid:
            terms[f"{signal.use} {signal.name}"] = signal.reading.value
    return terms


def _target_terms(observation: TargetObservation) -> dict[str, float]:
    terms: dict[str, float] = {"floor": observation.floor, "ceiling": observation.ceiling, "cores": observation.cores}
    for pool in observation.pools:
        if pool.measurement is not None:
            terms |= {f"{pool.pool} depth": pool.measurement.depth, f"{pool.pool} busy": pool.measurement.busy}
            terms |= {f"{pool.pool} cpu": pool.measurement.cpu, f"{pool.pool} delay": pool.measurement.delay}
    return terms
