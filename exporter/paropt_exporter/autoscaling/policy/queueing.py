"""Compute how many workers serve tasks that may arrive at any time, from queueing theory.

Sources: A. K. Erlang's delay formula (C), in the recursion through his loss formula (B) that is exact for any size;
the mean wait of M/M/N is W = C(N, a) S / (N - a), with the offered load a = arrivals per second x service seconds.
"""

from __future__ import annotations

import math
from functools import lru_cache

from msgspec import Struct

from paropt_exporter.cpu_demand import count_task_cores

WAIT_RATIO = 0.25  # the mean wait over the service time: a load of 5 Erlang gets 7 workers
DRAIN_SECONDS = 2.0  # within which all queued tasks start, so that no task waits for 3 s after a step of the load
# For longer tasks, times a task's duration: chance arrivals don't make a queue that long. In simulated hours, 1.5 left
# up to a third more tasks late on a saw-tooth than a policy that knows the future, and 1.0 cost 1.17 times its
# worker-hours on bursts.
DRAIN_SERVICES = 1.25
LATE_RATIO = 0.5  # of that time: under a rising load, a deadband let queues of half that length stand for minutes
_LOAD_STEP = 1e-3  # loads closer than this share one cached result
_LARGEST_LOAD = 10_000.0


class Traffic(Struct, frozen=True, kw_only=True):
    """A pool's traffic: arrivals per second, service seconds of one task, and queued tasks.

    `spread`: the standard deviation of the estimated load, over the load.
    """

    arrivals: float
    service_seconds: float
    queued: int = 0
    spread: float = 0.0

    @property
    def load(self) -> float:
        """The offered load in Erlang: the mean number of busy workers."""
        return self.arrivals * self.service_seconds


def compute_traffic_size(traffic: Traffic) -> int:
    """Return N* = max(N(a), ceil(queued S / drain)): enough for the load, and for queued tasks to start in time.

    Adding the two would be too much: tasks are served in order, so the workers for the load also serve the queue.
    """
    return max(
        compute_workers(traffic.load), math.ceil(traffic.queued * traffic.service_seconds / get_drain_seconds(traffic))
    )


def is_late(traffic: Traffic, size: int) -> bool:
    """Return whether `size` workers need more than half of the drain time to start the queued tasks."""
    return traffic.queued * traffic.service_seconds > LATE_RATIO * size * get_drain_seconds(traffic)


def get_drain_seconds(traffic: Traffic) -> float:
    """Return the time in seconds within which all queued tasks should start."""
    return max(DRAIN_SECONDS, DRAIN_SERVICES * traffic.service_seconds)


def compute_size_to_keep(traffic: Traffic) -> int:
    """Return the workers that the load may need, given the error of its estimate.

    A size grows to the need of the mean, and shrinks to that of the mean plus a standard deviation, so that it does not
    follow the estimate's noise.
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
        blocked = load * blocked / (workers + load * blocked)  # Erlang B of one more worker
        if workers > load and _compute_erlang_wait_ratio(blocked, load, workers) <= WAIT_RATIO:
            return workers


def compute_wait_ratio(load: float, workers: int) -> float:
    """Return the mean wait over the service time; infinite if the workers can't keep up."""
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
    """Return N_cpu = max(1, floor(C / c + 0.1)); None for work that does not compute, which has no such bound.

    `cpu_demand` is the demand of one worker in cores, c = cpu / (wall - run delay); C = `count_task_cores(cores)`.
    """
    return max(1, math.floor(count_task_cores(cores) / cpu_demand + 0.1)) if cpu_demand > 0 else None
