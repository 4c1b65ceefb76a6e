"""Decide a pool's next size from its traffic, the machine's resources and the effect of earlier moves."""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.budget import Budget, compute_allowance
from paropt_exporter.autoscaling.policy.fixed_workload import SATURATED_RATIO
from paropt_exporter.autoscaling.policy.memory import PoolMemory, compute_pool_memory_size
from paropt_exporter.autoscaling.policy.queueing import (
    Traffic,
    compute_cpu_size,
    compute_size_to_keep,
    compute_traffic_size,
    is_late,
)
from paropt_exporter.autoscaling.policy.scaling_effectiveness import (
    COMPLETIONS,
    Block,
    Sample,
    is_ineffective,
    is_refuted,
    is_still_blocked,
    start_block,
)
from paropt_exporter.autoscaling.policy.stabilization import (
    ScalingHistory,
    SizeDecision,
    SizeLimits,
    WantedSize,
    decide_size,
)
from paropt_exporter.cpu_demand import WAITING_DEMAND

STABLE_SECONDS = 10.0
TRIAL_SERVICES = 1.5  # times a task's duration, after which the first tasks at the new size have ended
LARGEST_GROWTH_ON_TRIAL = 2.0  # times the size before; further growth waits for the result of the trial
STABLE_SERVICES = 3.0  # times a task's duration, so that a pool of long tasks does not change each second


class Trial(Struct, frozen=True, kw_only=True):
    """Up-moves on trial: the size before the first one, the service times at that size, and when the last one was."""

    old_size: int
    before: Sample
    moved_at: float


class PoolSizingState(Struct, frozen=True, kw_only=True):
    """How the size moved, an up-move on trial, and the block after one that did not help."""

    history: ScalingHistory = field(default_factory=ScalingHistory)
    trial: Trial | None = None
    block: Block | None = None


class PoolObservation(Struct, frozen=True, kw_only=True):
    """All inputs of a decision about a pool's size.

    `cpu_demand`: of one worker, in cores (None: unknown); `cpu`: cores that the pool keeps busy; `sample`: service
    times since the last move; `memory`: the memory left (None: unknown); `budget`: the claims of all pools of the
    machine, this one's under the name `pool`.
    """

    now: float
    size: int
    floor: int
    ceiling: int
    traffic: Traffic
    cores: float
    cpu_demand: float | None
    cpu: float
    sample: Sample
    state: PoolSizingState
    memory: PoolMemory | None = None
    pool: str = ""
    budget: Budget | None = None


class PoolDecision(Struct, frozen=True, kw_only=True):
    """A decision about a pool's size."""

    size: int
    action: str
    reason: str
    state: PoolSizingState


def decide_pool_size(observation: PoolObservation) -> PoolDecision:
    """Decide a pool's next size."""
    state = observation.state
    if state.trial is not None and _has_not_helped(observation, state.trial):
        return _revert_trial(observation, state.trial)
    decision = decide_size(
        observation.now,
        observation.size,
        compute_wanted_size(observation),
        _build_size_limits(observation),
        state.history,
    )
    return PoolDecision(
        size=decision.size,
        action=decision.action,
        reason=decision.reason,
        state=_compute_next_state(observation, decision),
    )


def compute_machine_bound(observation: PoolObservation) -> tuple[int, str] | None:
    """Return the most workers that cores and memory allow beside the machine's other pools, and the limiting resource.

    None: neither bounds the pool. Workers go as soon as other pools' claims or a lack of memory require it; they come
    only if there is room at this moment.
    """
    bounds = []
    room = None if observation.memory is None else compute_pool_memory_size(observation.size, observation.memory)
    if room is not None:
        bounds.append((room, "memory_limit"))
    if observation.budget is not None:
        allowed = compute_allowance(observation.budget, observation.pool, observation.size)
        short = observation.memory is not None and observation.memory.is_short
        if short or allowed.reason != "demand":
            bounds.append((allowed.size, allowed.reason if allowed.reason != "demand" else "memory_limit"))
    return min(bounds, default=None)


def _build_size_limits(observation: PoolObservation) -> SizeLimits:
    stable_seconds = max(STABLE_SECONDS, STABLE_SERVICES * observation.traffic.service_seconds)
    bound = compute_machine_bound(observation)
    if bound is None or bound[0] >= observation.ceiling:
        return SizeLimits(floor=observation.floor, ceiling=observation.ceiling, stable_seconds=stable_seconds)
    size, reason = bound
    ceiling = max(size, observation.floor)
    return SizeLimits(floor=observation.floor, ceiling=ceiling, stable_seconds=stable_seconds, ceiling_reason=reason)


def compute_wanted_size(observation: PoolObservation) -> WantedSize:
    """Return min(N* for the traffic, N_cpu), and the reason to hold instead of growing, if there is one."""
    traffic, demand = observation.traffic, observation.cpu_demand or 0.0
    size, keep, reason = compute_traffic_size(traffic), compute_size_to_keep(traffic), "demand"
    computes = demand >= WAITING_DEMAND
    bound = compute_cpu_size(observation.cores, demand) if computes else None
    if bound is not None:
        keep = min(keep, bound)
        if size > bound:
            size, reason = bound, "cpu_limit"
    return WantedSize(
        size=size,
        reason=reason,
        keep=keep,
        hold_reason=_find_hold_reason(observation, computes=computes),
        late=is_late(traffic, observation.size),
    )


def _find_hold_reason(observation: PoolObservation, *, computes: bool) -> str:
    if computes and observation.cpu >= SATURATED_RATIO * observation.cores:
        return "saturated"
    if _is_blocked(observation):
        return "ineffective"
    return "settling" if _is_on_trial(observation) else ""


def _is_on_trial(observation: PoolObservation) -> bool:
    """Return whether it is too early to judge a doubled size, since tasks that ran at the new size have not ended."""
    trial = observation.state.trial
    if (
        trial is None
        or observation.sample.count >= COMPLETIONS
        or observation.size < LARGEST_GROWTH_ON_TRIAL * trial.old_size
    ):
        return False
    return observation.now < trial.moved_at + TRIAL_SERVICES * observation.traffic.service_seconds


def _is_blocked(observation: PoolObservation) -> bool:
    block = observation.state.block
    if block is None or observation.size < block.size or _is_refuted(observation):
        return False
    service_seconds = observation.sample.mean if observation.sample.count >= COMPLETIONS else block.service_seconds
    return is_still_blocked(block, observation.now, load=observation.traffic.arrivals, service_seconds=service_seconds)


def _is_refuted(observation: PoolObservation) -> bool:
    block = observation.state.block
    return block is not None and observation.size == block.size and is_refuted(block, observation.sample)


def _has_not_helped(observation: PoolObservation, trial: Trial) -> bool:
    return (
        observation.traffic.queued > 0
        and trial.old_size < observation.size
        and is_ineffective(trial.before, observation.sample, old_size=trial.old_size, new_size=observation.size)
    )


def _revert_trial(observation: PoolObservation, trial: Trial) -> PoolDecision:
    size = max(trial.old_size, observation.floor)
    block = start_block(
        observation.now,
        size,
        load=observation.traffic.arrivals,
        service_seconds=trial.before.mean,
        earlier=observation.state.block,
        larger=observation.sample,
        larger_size=observation.size,
    )
    state = replace(observation.state, trial=None, block=block)
    if size >= observation.size:
        return PoolDecision(size=observation.size, action="hold", reason="ineffective", state=state)
    return PoolDecision(size=size, action="down", reason="ineffective", state=state)


def _compute_next_state(observation: PoolObservation, decision: SizeDecision) -> PoolSizingState:
    block = None if decision.action == "up" and _is_refuted(observation) else observation.state.block
    state = PoolSizingState(history=decision.history, trial=observation.state.trial, block=block)
    if decision.action == "up" and observation.traffic.queued > 0:
        if state.trial is not None and observation.sample.count < COMPLETIONS:
            return replace(state, trial=replace(state.trial, moved_at=observation.now))
        trial = Trial(old_size=observation.size, before=observation.sample, moved_at=observation.now)
        return replace(state, trial=trial)
    return replace(state, trial=None) if decision.action == "down" else state
