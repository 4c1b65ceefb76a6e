"""Decide a lane's size by query results alone: `source: prometheus`.

N* = min(slots of waiting and running tasks, slots of N_cpu tasks, ceiling). Queue depth and mean busy workers count
tasks, which the slots per task convert; the CPU demand c in N_cpu comes from CPU time, busy time and run delay over the
window. While readings are rejected the size holds, as in DS2 while metrics settle: it moves only to rescue an SLA by
our own counters, and to stay between floor and ceiling, which other queries set. After three rejections in a row there
is no data.
"""

from __future__ import annotations

import math

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.fixed_workload import SATURATED_RATIO
from paropt_exporter.autoscaling.policy.query_validity import SETTLED_SCRAPES, Reading, reject_reading
from paropt_exporter.autoscaling.policy.queueing import compute_cpu_size
from paropt_exporter.autoscaling.policy.stabilization import (
    ScalingHistory,
    SizeDecision,
    SizeLimits,
    WantedSize,
    decide_size,
)
from paropt_exporter.cpu_demand import CORE_SLACK, WAITING_DEMAND

NO_DATA_AFTER = 3


class PoolMeasurement(Struct, frozen=True, kw_only=True):
    """Prometheus' values for a pool of this process over one window; `sampled` is when it was scraped, in seconds."""

    sampled: float
    scrape_seconds: float
    size: float
    depth: float
    busy: float
    cpu: float
    delay: float


class QuerySizeState(Struct, frozen=True, kw_only=True):
    """How the size moved, the number of rejections in a row, and since when the readings show the last resize."""

    history: ScalingHistory = field(default_factory=ScalingHistory)
    rejected_count: int = 0
    moved: bool = False
    visible_since: float | None = None


class QuerySizeObservation(Struct, frozen=True, kw_only=True):
    """All inputs of a decision about a lane's size by query results. `pools`: one reading for each pool of the lane.

    `rescue_size`: the size that keeps all stages within their SLAs by our own counters; 0: one worker for each does.
    `slots_per_task`: how many slots of the size a task takes, on average; the readings count tasks.
    """

    now: float
    stable_seconds: float
    cores: float
    size: int
    floor: int
    ceiling: int
    pools: tuple[PoolReading, ...]
    state: QuerySizeState
    rescue_size: int = 0
    slots_per_task: float = 1.0


class PoolReading(Struct, frozen=True, kw_only=True):
    """A pool's reading; `measurement` only if it is valid. `target`: the pool's present target."""

    pool: str
    target: int
    reading: Reading
    measurement: PoolMeasurement | None = None


class QuerySizeDecision(Struct, frozen=True, kw_only=True):
    """A decision about a lane's size by query results."""

    size: int
    action: str
    reason: str
    no_data: bool
    state: QuerySizeState


def decide_query_size(observation: QuerySizeObservation) -> QuerySizeDecision:
    """Decide a lane's size from Prometheus' values for its pools, or hold."""
    rejection_reason, state = _find_rejection(observation)
    if rejection_reason is None:
        return _decide_by_queries(observation, replace(state, rejected_count=0))
    state = replace(state, rejected_count=state.rejected_count + (rejection_reason != "settling"))
    size, action, reason = _decide_without_readings(observation, rejection_reason)
    if size != observation.size:
        state = _mark_moved(state)
    no_data = state.rejected_count >= NO_DATA_AFTER
    return QuerySizeDecision(size=size, action=action, reason=reason, no_data=no_data, state=state)


def _decide_without_readings(observation: QuerySizeObservation, rejection_reason: str) -> tuple[int, str, str]:
    """Return the size, the action and its reason while readings of the pools are rejected."""
    held = min(max(observation.size, observation.floor), observation.ceiling)
    size = max(held, min(observation.rescue_size, observation.ceiling))
    if size == observation.size:
        return size, "hold", rejection_reason
    reason = "rescue" if size > held else "bounds"
    return size, "up" if size > observation.size else "down", reason


def compute_size_by_queries(
    pools: tuple[PoolMeasurement, ...], *, cores: float, slots_per_task: float = 1.0
) -> WantedSize:
    """Return N* in slots; if the cores are busy, with the reason `saturated` to hold."""
    tasks = math.ceil(sum(measurement.depth + measurement.busy for measurement in pools) - CORE_SLACK)
    unfinished = _count_slots(tasks, slots_per_task)
    busy, cpu, delay = (sum(values) for values in zip(*((p.busy, p.cpu, p.delay) for p in pools), strict=True))
    cpu_demand = cpu / max(busy - delay, cpu, 1e-9)
    computes = cpu_demand >= WAITING_DEMAND
    cpu_tasks = compute_cpu_size(cores, cpu_demand) if computes else None
    bound = None if cpu_tasks is None else _count_slots(cpu_tasks, slots_per_task)
    saturated = computes and cpu >= SATURATED_RATIO * cores
    size, reason = (unfinished, "demand") if bound is None or unfinished <= bound else (bound, "cpu_limit")
    return WantedSize(size=max(1, size), reason=reason, hold_reason="saturated" if saturated else "")


def _count_slots(tasks: int, slots_per_task: float) -> int:
    """Return the slots for a number of tasks, rounded first: with a mean of 25 / 11, 11 tasks are slightly over 25."""
    return math.ceil(round(tasks * slots_per_task, 6))


def _find_rejection(observation: QuerySizeObservation) -> tuple[str | None, QuerySizeState]:
    """Return why the readings can't be used (None: they can), and the state, which notes when a resize shows."""
    state = observation.state
    bad = next((pool.reading for pool in observation.pools if not pool.reading.is_valid), None)
    measurements = [(pool.target, pool.measurement) for pool in observation.pools if pool.measurement is not None]
    if bad is not None or not measurements:
        return (bad or reject_reading("no_data", "no pool")).rejection_reason, state
    if not state.moved:
        return None, state
    if any(round(one.size) != target for target, one in measurements):
        return "settling", replace(state, visible_since=None)
    sampled = min(one.sampled for _, one in measurements)
    since = sampled if state.visible_since is None else state.visible_since
    state = replace(state, visible_since=since)
    settled = sampled - since >= SETTLED_SCRAPES * max(one.scrape_seconds for _, one in measurements)
    return (None, replace(state, moved=False, visible_since=None)) if settled else ("settling", state)


def _decide_by_queries(observation: QuerySizeObservation, state: QuerySizeState) -> QuerySizeDecision:
    wanted = compute_size_by_queries(
        tuple(p.measurement for p in observation.pools if p.measurement is not None),
        cores=observation.cores,
        slots_per_task=observation.slots_per_task,
    )
    limits = SizeLimits(floor=observation.floor, ceiling=observation.ceiling, stable_seconds=observation.stable_seconds)
    decision: SizeDecision = decide_size(observation.now, observation.size, wanted, limits, state.history)
    state = replace(state, history=decision.history)
    if decision.size != observation.size:
        state = _mark_moved(state)
    return QuerySizeDecision(
        size=decision.size, action=decision.action, reason=decision.reason, no_data=False, state=state
    )


def _mark_moved(state: QuerySizeState) -> QuerySizeState:
    return replace(state, moved=True, visible_since=None)
