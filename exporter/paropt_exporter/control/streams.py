"""Steer executors: pools to which tasks may come at any time, sized each second by what their stream needs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from paropt_exporter import host
from paropt_exporter.clock import Clock, SystemClock
from paropt_exporter.control.decisions import written_choice, written_situation
from paropt_exporter.control.policy.budget import Claim, divide
from paropt_exporter.control.policy.closed import WAITING_SHARE
from paropt_exporter.control.policy.pool import StreamSituation, StreamState, StreamStep, decide_stream
from paropt_exporter.control.policy.streams import stream_size
from paropt_exporter.control.signals.local import Counters, count_of
from paropt_exporter.records import Decision, PoolStatistics

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
RESERVE_BYTES = 256 << 20  # memory that no new worker may take


def steer(*pools: Steerable, minimum: int = 1, maximum: int = 32) -> StreamLoop:
    """Size pools by their load for as long as the block lasts: `with ThreadPool(1) as pool, steer(pool, maximum=64):`.

    Each keeps between `minimum` and `maximum` workers; those that compute share the machine's cores. Raises ValueError
    for bounds that no size fits.
    """
    if not 1 <= minimum <= maximum:
        raise ValueError(f"minimum {minimum} and maximum {maximum}: expected 1 <= minimum <= maximum")
    return StreamLoop([(pool, minimum, maximum) for pool in pools])


class Steerable(Protocol):
    """What is steered: ThreadPool, ProcessPool."""

    @property
    def target(self) -> int: ...

    def resize(self, size: int, /, *, reason: str) -> None: ...

    def statistics(self) -> PoolStatistics: ...


@dataclass(slots=True, eq=False)
class Steered:
    """One pool with its bounds and what is carried from one second to the next."""

    pool: Steerable
    floor: int
    ceiling: int
    counters: Counters
    state: StreamState


class StreamLoop:
    """Steers executors from one thread; `with StreamLoop(...)`, or `step` on a clock of one's own.

    Guarantees: it alone resizes the pools; a pool's size stays within its bounds; a fault in one second's look is
    logged and does not end the steering.
    """

    def __init__(
        self,
        pools: Sequence[tuple[Steerable, int, int]],
        *,
        clock: Clock | None = None,
        cores: Callable[[], float] = host.cpus,
        memory_available_bytes: Callable[[], int] = host.memory_available_bytes,
        emit: Callable[[Decision], None] = lambda _: None,
        known_service_seconds: float = 0.0,
    ) -> None:
        self._steered = [
            Steered(
                pool=pool,
                floor=floor,
                ceiling=ceiling,
                counters=Counters(known_service_seconds=known_service_seconds),
                state=StreamState(),
            )
            for pool, floor, ceiling in pools
        ]
        self._clock = clock or SystemClock()
        self._cores = cores
        self._memory = memory_available_bytes
        self._emit = emit
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="paropt-steering", daemon=True)

    def __enter__(self) -> StreamLoop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._done.wait(TICK_SECONDS):
            try:
                self.step()
            except (
                Exception
            ):  # the loop's boundary: a pool that is shut down meanwhile must not end the others' steering
                log.exception("steering failed for one look")

    def step(self) -> None:
        """Look at each pool once and move it if there is reason to; all within one budget of cores."""
        now, cores = self._clock.monotonic(), self._cores()
        short = 0 < self._memory() < RESERVE_BYTES
        seen = [self._look(steered, now, cores, memory_is_short=short) for steered in self._steered]
        if len(seen) > 1:
            seen = _within_budget(seen, cores)
        for steered, situation in zip(self._steered, seen, strict=True):
            self._move(steered, situation)

    def _look(self, steered: Steered, now: float, cores: float, *, memory_is_short: bool) -> StreamSituation:
        statistics = steered.pool.statistics()
        steered.counters.look(count_of(statistics, now))
        if statistics.draining:
            steered.counters.moved()  # what ends now was begun among more workers, and is no sample of this size
        return StreamSituation(
            now=now,
            size=statistics.target,
            floor=steered.floor,
            ceiling=steered.ceiling,
            stream=steered.counters.stream(),
            cores=cores,
            share=steered.counters.share(cores),
            cpu=steered.counters.cpu(),
            memory_is_short=memory_is_short,
            sample=steered.counters.sample,
            state=steered.state,
        )

    def _move(self, steered: Steered, seen: StreamSituation) -> None:
        choice = decide_stream(seen)
        steered.state = choice.state
        if choice.size != seen.size:
            steered.pool.resize(choice.size, reason=choice.reason)
            steered.counters.moved()
            self._emit(_decision(steered.pool.statistics().name, seen, choice, self._clock.wall()))


def _within_budget(seen: Sequence[StreamSituation], cores: float) -> list[StreamSituation]:
    """Lower the ceilings of pools that compute to what one machine's cores allow them together."""
    claims = [
        Claim(
            pool=str(place),
            wanted=min(max(stream_size(one.stream), one.floor), one.ceiling),
            floor=one.floor,
            share=one.share or 0.0,
        )
        for place, one in enumerate(seen)
    ]
    sizes = divide(claims, cores=cores, memory_bytes=0)
    return [
        replace(one, ceiling=max(one.floor, sizes[claim.pool])) if sizes[claim.pool] < claim.wanted else one
        for claim, one in zip(claims, seen, strict=True)
    ]


def _decision(pool: str, seen: StreamSituation, choice: StreamStep, at: float) -> Decision:
    terms = {
        "arrivals_per_second": seen.stream.arrivals,
        "service_seconds": seen.stream.service_seconds,
        "load_erlang": seen.stream.load,
        "queued": float(seen.stream.queued),
        "cores": seen.cores,
        "share": seen.share if seen.share is not None else WAITING_SHARE,
        "floor": float(seen.floor),
        "ceiling": float(seen.ceiling),
    }
    return Decision(
        pool=pool,
        action=choice.action,
        reason=choice.reason,
        old_size=seen.size,
        new_size=choice.size,
        at_timestamp_seconds=at,
        terms=terms,
        situation=written_situation(seen),
        choice=written_choice(choice),
    )
