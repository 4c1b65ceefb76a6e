"""A lane's size by query results alone, where the user asks for that: `source: prometheus`.

N* = min(tasks that wait or run, N_cpu, ceiling), from the queue's depth and the mean busy workers; c from CPU, busy
time and run delay over the window. Doubtful data holds the size, as DS2 holds while metrics settle; after three in a
row the loop is blind: nothing goes down any more, and up only to rescue an SLA that the own counters see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from paropt_exporter.autoscaling.policy.fixed_workload import SATURATED_RATIO
from paropt_exporter.autoscaling.policy.query_validity import SETTLED_SCRAPES, Reading, doubtful
from paropt_exporter.autoscaling.policy.queueing import cpu_size
from paropt_exporter.autoscaling.policy.stabilization import Limits, ScalingHistory, Step, Wanted, step
from paropt_exporter.cpu_demand import CORE_SLACK, WAITING_DEMAND

BLIND_AFTER = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What Prometheus knows of a pool of this process, over one window; `sampled` is its scrape's time, in seconds."""

    sampled: float
    scrape_seconds: float
    size: float
    depth: float
    busy: float
    cpu: float
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """How the size moved, how often readings were doubtful in a row, since when the last resize is in the readings."""

    trail: ScalingHistory = field(default_factory=ScalingHistory)
    doubtful: int = 0
    moved: bool = False
    visible_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSituation:
    """All that a decision about a target depends on. `readings`: one for each pool of the lane, with what was seen.

    `rescue_size`: what would save an SLA by the process's own counters; 0: none is at risk.
    """

    now: float
    stable_seconds: float
    cores: float
    size: int
    floor: int
    ceiling: int
    pools: tuple[PoolSeen, ...]
    state: TargetState
    rescue_size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSeen:
    """A pool's reading as a whole; `seen` only where it is believed. `target`: what the pool was told to have."""

    pool: str
    target: int
    reading: Reading
    seen: Seen | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetStep:
    """A decision about a lane's size by query results."""

    size: int
    action: str
    reason: str
    blind: bool
    state: TargetState


def decide_target(situation: TargetSituation) -> TargetStep:
    """Decide a lane's size from what Prometheus says of its pools, or hold."""
    doubt, state = _doubt(situation)
    if doubt is None:
        return _moved(situation, replace(state, doubtful=0))
    state = replace(state, doubtful=state.doubtful + (doubt != "settling"))
    blind = state.doubtful >= BLIND_AFTER
    if situation.rescue_size > situation.size:
        size = min(situation.rescue_size, situation.ceiling)
        if size > situation.size:
            return TargetStep(size=size, action="up", reason="rescue", blind=blind, state=_moving(state))
    return TargetStep(size=situation.size, action="hold", reason=doubt, blind=blind, state=state)


def wanted_size(pools: tuple[Seen, ...], *, cores: float) -> Wanted:
    """Return N* = min(tasks that wait or run, N_cpu), and whether the cores are busy already."""
    unfinished = math.ceil(sum(seen.depth + seen.busy for seen in pools) - CORE_SLACK)
    busy, cpu, delay = (sum(values) for values in zip(*((p.busy, p.cpu, p.delay) for p in pools), strict=True))
    share = cpu / max(busy - delay, cpu, 1e-9)
    bound = cpu_size(cores, share) if share >= WAITING_DEMAND else None
    saturated = cpu >= SATURATED_RATIO * cores and share >= WAITING_DEMAND
    size, reason = (unfinished, "demand") if bound is None or unfinished <= bound else (bound, "cpu_limit")
    return Wanted(size=max(1, size), reason=reason, against_more="saturated" if saturated else "")


def _doubt(situation: TargetSituation) -> tuple[str | None, TargetState]:
    """Return why nothing may be decided, or None; and the state with what became visible."""
    state = situation.state
    bad = next((pool.reading for pool in situation.pools if not pool.reading.believed), None)
    seen = [(pool.target, pool.seen) for pool in situation.pools if pool.seen is not None]
    if bad is not None or not seen:
        return (bad or doubtful("no_data", "no pool")).doubt, state
    if not state.moved:
        return None, state
    if any(round(one.size) != target for target, one in seen):
        return "settling", replace(state, visible_since=None)
    sampled = min(one.sampled for _, one in seen)
    since = sampled if state.visible_since is None else state.visible_since
    state = replace(state, visible_since=since)
    settled = sampled - since >= SETTLED_SCRAPES * max(one.scrape_seconds for _, one in seen)
    return (None, replace(state, moved=False, visible_since=None)) if settled else ("settling", state)


def _moved(situation: TargetSituation, state: TargetState) -> TargetStep:
    wanted = wanted_size(tuple(p.seen for p in situation.pools if p.seen is not None), cores=situation.cores)
    limits = Limits(floor=situation.floor, ceiling=situation.ceiling, stable_seconds=situation.stable_seconds)
    taken: Step = step(situation.now, situation.size, wanted, limits, state.trail)
    state = replace(state, trail=taken.trail)
    if taken.size != situation.size:
        state = _moving(state)
    return TargetStep(size=taken.size, action=taken.action, reason=taken.reason, blind=False, state=state)


def _moving(state: TargetState) -> TargetState:
    return replace(state, moved=True, visible_since=None)
