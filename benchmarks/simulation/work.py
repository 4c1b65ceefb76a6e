"""Seeded durations and arrivals of simulated tasks, the same in every run of a benchmark."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator

from simulation.pool import Duration

Rate = Callable[[float], float]
"""Arrivals per second at a moment."""


def waiting(seconds: float) -> Duration:
    """Tasks that only sleep."""
    return lambda _: (seconds, 0.0, 0.0)


def varied(mean_seconds: float, count: int, seed: int, *, spread: float = 0.5) -> list[float]:
    """Return so many durations in seconds, log-normal."""
    draw = random.Random(seed).lognormvariate
    middle = math.log(mean_seconds) - spread * spread / 2
    return [draw(middle, spread) for _ in range(count)]


def given(seconds: Iterable[float]) -> Duration:
    """Tasks that sleep, each as long as the next of these."""
    each = iter(seconds)
    return lambda _: (next(each), 0.0, 0.0)


def computing(seconds: float, cpu_demand: float, cores: float) -> Duration:
    """Tasks of `cpu_demand` cores; more of them than there are cores wait for each other."""

    def duration(running: int) -> tuple[float, float, float]:
        slower = max(1.0, running * cpu_demand / cores)
        return seconds * slower, seconds * cpu_demand, seconds * (slower - 1.0)

    return duration


def locked(seconds: float) -> Duration:
    """Tasks that hold one lock all the time: each takes as long as all running ones together."""
    return lambda running: (seconds * running, 0.0, 0.0)


def poisson(rate: Rate, until: float, seed: int) -> Iterator[float]:
    """Yield moments of arrivals at a changing rate, by thinning (Lewis and Shedler, 1979), second by second."""
    draw = random.Random(seed)
    now = 0.0
    while now < until:
        second = math.floor(now) + 1.0
        most = max(rate(now), rate(second - 1e-9), 1e-9)
        now += draw.expovariate(most)
        if now >= second:
            now = second
        elif draw.random() * most <= rate(now):
            yield now


def steady(rate: float, until: float) -> Iterator[float]:
    """Yield moments at equal distances."""
    number = 0
    while number / rate < until:
        yield number / rate
        number += 1


def at_once(tasks: int) -> Iterator[float]:
    """Yield so many arrivals at the start."""
    return iter((0.0,) * tasks)


def constant(rate: float) -> Rate:
    return lambda _: rate


def stepped(before: float, after: float, at: float) -> Rate:
    return lambda now: after if now >= at else before


def saw_tooth(low: float, high: float, period: float) -> Rate:
    return lambda now: low + (high - low) * ((now / period) % 1.0)


def bursts(low: float, high: float, *, every: float, lasting: float) -> Rate:
    return lambda now: high if now % every >= every - lasting else low


def ramp(low: float, high: float, over: float) -> Rate:
    return lambda now: low + (high - low) * min(1.0, now / over)


def outage(rate: float, *, begin: float, lasting: float) -> Rate:
    """No arrivals for a while, and the held-back ones in the time after."""

    def at(now: float) -> float:
        if begin <= now < begin + lasting:
            return 0.0
        return 2.0 * rate if begin + lasting <= now < begin + 2 * lasting else rate

    return at


def noise(mean: float, seed: int, *, change_seconds: float = 60.0) -> Rate:
    """A rate that wanders between half and one and a half of its mean."""
    draw = random.Random(seed)
    levels = [1.0]
    for _ in range(1000):
        levels.append(min(1.5, max(0.5, levels[-1] + draw.gauss(0.0, 0.1))))
    return lambda now: mean * levels[int(now / change_seconds) % len(levels)]
