"""The size that a pool wants, by numbers."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.pool_size import (
    PoolObservation,
    PoolSizingState,
    Trial,
    compute_wanted_size,
)
from paropt_exporter.autoscaling.policy.queueing import Traffic, compute_cpu_size, compute_traffic_size
from paropt_exporter.autoscaling.policy.scaling_effectiveness import Sample

CORES = 4.0
TRAFFIC = Traffic(arrivals=1000.0, service_seconds=0.1, queued=0, spread=0.0)


def observe(cpu_demand: float | None, cpu: float) -> PoolObservation:
    return PoolObservation(
        now=0.0,
        size=5,
        floor=1,
        ceiling=1000,
        traffic=TRAFFIC,
        cores=CORES,
        cpu_demand=cpu_demand,
        cpu=cpu,
        sample=Sample(count=0, mean=0.0, variance=0.0),
        state=PoolSizingState(),
    )


@pytest.mark.parametrize(("cpu", "hold_reason"), [(3.59, ""), (3.6, "saturated")])
def test_computing_pool_is_bound_by_the_cores_and_holds_while_they_are_busy(cpu: float, hold_reason: str) -> None:
    wanted = compute_wanted_size(observe(1.0, cpu))
    assert (wanted.size, wanted.reason) == (compute_cpu_size(CORES, 1.0), "cpu_limit")
    assert wanted.keep == wanted.size
    assert wanted.hold_reason == hold_reason


@pytest.mark.parametrize("cpu_demand", [0.09, None])
def test_pool_whose_tasks_wait_is_bound_by_its_traffic_only(cpu_demand: float | None) -> None:
    wanted = compute_wanted_size(observe(cpu_demand, CORES))
    assert (wanted.size, wanted.reason, wanted.hold_reason) == (compute_traffic_size(TRAFFIC), "demand", "")


@pytest.mark.parametrize(
    ("size", "now", "count", "hold_reason"),
    [(6, 0.14, 29, "settling"), (6, 0.16, 29, ""), (5, 0.14, 29, ""), (6, 0.14, 30, "")],
    ids=["doubled", "ended", "not doubled", "measured"],
)
def test_doubled_pool_holds_until_tasks_that_ran_at_its_size_have_ended(
    size: int, now: float, count: int, hold_reason: str
) -> None:
    before = Sample(count=30, mean=0.1, variance=0.0)
    state = PoolSizingState(trial=Trial(old_size=3, before=before, moved_at=0.0))
    observation = replace(observe(0.09, 0.0), size=size, now=now, sample=replace(before, count=count), state=state)
    assert compute_wanted_size(observation).hold_reason == hold_reason
