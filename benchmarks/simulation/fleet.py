"""Simulated hours of many pools under changing loads, compared with a controller that knows each rate."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from paropt_exporter.autoscaling.policy.stabilization import REVERSAL_SECONDS
from simulation.pool import SimulatedPool
from simulation.rules import Clairvoyant, MakeRule, simulate
from simulation.work import Rate, bursts, given, noise, outage, poisson, ramp, saw_tooth, varied

HOUR_SECONDS = 3600.0
MOST = 200
LATE_SECONDS = 3.0  # or a task's own time, if that is longer; tasks that wait longer are late

PATTERNS: dict[str, Callable[[float, float, int], Rate]] = {
    "saw-tooth": lambda low, high, _: saw_tooth(low, high, period=900.0),
    "burst": lambda low, high, _: bursts(low, high, every=1200.0, lasting=300.0),
    "ramp": lambda low, high, _: ramp(low, high, over=3000.0),
    "outage": lambda low, _, __: outage(2.0 * low, begin=1200.0, lasting=300.0),
    "noise": lambda low, _, seed: noise(2.0 * low, seed),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """The cost of an hour of one pool: worker-seconds, started and late tasks, moves and reversals."""

    pattern: str
    worker_seconds: float
    began: int
    late: int
    moves: int
    flaps: int


def hours(number: int, rules: Sequence[MakeRule | None]) -> list[Hour]:
    """Simulate an hour of the pool of that number under each rule, with the same tasks; None: the clairvoyant."""
    pattern = list(PATTERNS)[number % len(PATTERNS)]
    draw = random.Random(number)
    low = draw.uniform(0.3, 1.5)
    rate = PATTERNS[pattern](low, low * draw.uniform(2.0, 6.0), number)
    service_seconds = draw.uniform(0.2, 3.0)
    arrivals = [*poisson(rate, HOUR_SECONDS, seed=number)]
    durations = varied(service_seconds, len(arrivals), seed=number)
    clairvoyant = partial(Clairvoyant, rate=rate, service_seconds=service_seconds)
    return [
        _hour(
            SimulatedPool(iter(arrivals), given(durations), late_seconds=max(LATE_SECONDS, service_seconds)),
            clairvoyant if rule is None else rule,
            pattern=pattern,
        )
        for rule in rules
    ]


def _hour(pool: SimulatedPool, rule: MakeRule, *, pattern: str) -> Hour:
    simulate(pool, rule(pool, MOST), until=HOUR_SECONDS)
    waits = pool.waits
    return Hour(
        pattern=pattern,
        worker_seconds=pool.worker_seconds,
        began=waits.began,
        late=waits.late,
        moves=len(pool.sizes),
        flaps=flaps([(moment, size) for moment, size, _ in pool.sizes]),
    )


def flaps(sizes: list[tuple[float, int]]) -> int:
    """Count the moves that were undone within a minute; `sizes` are moments with the size from then on."""
    count, before, moved_from, moved_at = 0, 1, 1, -REVERSAL_SECONDS
    for moment, size in sizes:
        turned = (before > moved_from) is not (size > before)
        undone = size <= moved_from if before > moved_from else size >= moved_from
        count += turned and undone and moment < moved_at + REVERSAL_SECONDS
        moved_from, before, moved_at = before, size, moment
    return count
