"""Simulated hours of pools under five kinds of load, compared with a controller that knows each rate."""

from __future__ import annotations

from functools import partial

from simulation.fleet import hours
from simulation.rules import Ours

POOLS = 10


def test_ten_pools_cost_at_most_15_percent_more_than_a_clairvoyants() -> None:
    both = [hours(number, [partial(Ours, cores=1000.0), None]) for number in range(POOLS)]
    ours, best = zip(*both, strict=True)
    assert sum(one.worker_seconds for one in ours) <= 1.15 * sum(one.worker_seconds for one in best)
    assert sum(one.late for one in ours) <= sum(one.late for one in best)
    assert max(one.flaps for one in ours) <= 7
