"""Open streams: how many workers serve tasks that may come at any time, from queueing theory.

Sources: A. K. Erlang's delay formula (C), in the recursion through his loss formula (B) that is exact for any size;
the mean wait of M/M/N is W = C(N, a) S / (N - a), with the offered load a = arrivals per second x service seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

WAIT_RATIO = 0.25  # a task waits a quarter of its own time on average: 5 Erlang get 7 workers
DRAIN_SECONDS = 2.0  # in which all that waits begins: a step of the load is over before anyone has waited 3 s
# Of a task's duration, for longer tasks: a queue that long is no accident of the arrivals. In simulated hours 1.5 left
# up to a third more tasks late on a saw-tooth than a clairvoyant, 1.0 cost 1.17 times its worker-hours on bursts.
DRAIN_SERVICES = 1.25
LATE_RATIO = 0.5  # of that time: with a rising load a deadband let queues stand which were half as long, for minutes
_LOAD_STEP = 1e-3  # loads nearer than this are one: the answer for one is the answer for the other
_LARGEST_LOAD = 10_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What is known of a pool's tasks: arrivals per second, service seconds of one, and tasks that wait.

    `spread`: the standard deviation of the load as it was estimated, as a share of it.
    """

    arrivals: float
    service_seconds: float
    queued: int = 0
    spread: float = 0.0

    @property
    def load(self) -> float:
        """The offered load in Erlang: the mean number of busy workers that it takes."""
        return self.arrivals * self.service_seconds


def compute_traffic_size(traffic: Traffic) -> int:
    """Return N* = max(N(a), ceil(queued S / drain)): enough for the load, and for what waits to begin in time.

    Tasks are served in their order, so those that wait need no workers beside those that serve them; a queue that the
    load's own workers get through in time is nothing to add workers for.
    """
    return max(
        compute_workers(traffic.load), math.ceil(traffic.queued * traffic.service_seconds / _get_drain_seconds(traffic))
    )


def is_late(traffic: Traffic, size: int) -> bool:
    """Whether so many workers take more than half of the time in which what waits should begin."""
    return traffic.queued * traffic.service_seconds > LATE_RATIO * size * _get_drain_seconds(traffic)


def _get_drain_seconds(traffic: Traffic) -> float:
    return max(DRAIN_SECONDS, DRAIN_SERVICES * traffic.service_seconds)


def compute_size_to_keep(traffic: Traffic) -> int:
    """Return the workers that the load may need for all that is known: it is given back only what surely is too much.

    Up to the mean, down to the mean and a deviation: else the size would follow the noise of the estimate.
    """
    return compute_workers(traffic.load * (1.0 + traffic.spread))


def compute_workers(load: float) -> int:
    """Return the smallest N whose mean wait is at most `WAIT_RATIO` of the service time."""
    return _search_workers(round(min(load, _LARGEST_LOAD) / _LOAD_STEP))


@lru_cache(maxsize=100_000)
def _search_workers(steps: int) -> int:
    load = steps * _LOAD_STEP
    if load <= 0:
        return 1
    blocked, workers = 1.0, 0
    while True:
        workers += 1
        blocked = load * blocked / (workers + load * blocked)  # Erlang B of one worker more
        if workers > load and _compute_erlang_wait_ratio(blocked, load, workers) <= WAIT_RATIO:
            return workers


def compute_wait_ratio(load: float, workers: int) -> float:
    """Return the mean wait as a share of the service time; infinite where the workers can't keep up."""
    if workers <= load:
        return math.inf
    blocked = 1.0
    for number in range(1, workers + 1):
        blocked = load * blocked / (number + load * blocked)
    return _compute_erlang_wait_ratio(blocked, load, workers)


def _compute_erlang_wait_ratio(blocked: float, load: float, workers: int) -> float:
    waits = blocked / (1.0 - (load / workers) * (1.0 - blocked))  # Erlang C from B
    return waits / (workers - load)


def compute_cpu_size(cores: float, cpu_demand: float) -> int | None:
    """Return N_cpu = max(1, floor(C / c + 0.1)); None: work that hardly computes is bounded by no core.

    `share` is the part of a core that one worker uses, c = cpu / (wall - run delay).
    """
    return max(1, math.floor(cores / cpu_demand + 0.1)) if cpu_demand > 0 else None
