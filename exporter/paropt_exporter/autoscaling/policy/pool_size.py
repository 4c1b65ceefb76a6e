"""An executor's next size: what its stream of tasks needs, within what the machine has and what has helped before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from paropt_exporter.autoscaling.policy.budget import Budget, allowance
from paropt_exporter.autoscaling.policy.fixed_workload import SATURATED_RATIO
from paropt_exporter.autoscaling.policy.memory import PoolMemory, pool_memory_size
from paropt_exporter.autoscaling.policy.queueing import Stream, cpu_size, is_late, size_to_keep, stream_size
from paropt_exporter.autoscaling.policy.scaling_effectiveness import (
    COMPLETIONS,
    Block,
    Sample,
    blocked,
    ineffective,
    still_blocked,
)
from paropt_exporter.autoscaling.policy.stabilization import Limits, ScalingHistory, Step, Wanted, step
from paropt_exporter.cpu_demand import WAITING_DEMAND

STABLE_SECONDS = 10.0
TRIAL_SERVICES = 1.5  # of a task's duration: a wave of tasks at the new size has ended by then
LARGEST_GROWTH_ON_TRIAL = 2.0  # times the size before: more waits until that much has been judged
STABLE_SERVICES = 3.0  # of a task's duration: what takes minutes is not followed by the second


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Up-moves whose effect is awaited: the size before the first, the service times there, and when the last was."""

    old_size: int
    before: Sample
    moved_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """How the size moved, an up-move on trial, and what did not help."""

    trail: ScalingHistory = field(default_factory=ScalingHistory)
    trial: Trial | None = None
    block: Block | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSituation:
    """All that a decision about an executor's size depends on.

    `share`: the part of a core that a worker uses (None: not known yet); `cpu`: cores that the pool keeps busy;
    `sample`: service times since the last move; `memory`: what is left of it (None: unknown); `budget`: what all pools
    of the machine claim, this one as `pool`.
    """

    now: float
    size: int
    floor: int
    ceiling: int
    stream: Stream
    cores: float
    share: float | None
    cpu: float
    sample: Sample
    state: StreamState
    memory: PoolMemory | None = None
    pool: str = ""
    budget: Budget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStep:
    """A decision about an executor's size."""

    size: int
    action: str
    reason: str
    state: StreamState


def decide_stream(seen: StreamSituation) -> StreamStep:
    """Decide an executor's next size."""
    state = seen.state
    if _did_not_help(seen) and state.trial is not None:
        return _go_back(seen, state.trial)
    taken = step(seen.now, seen.size, stream_wanted(seen), _limits(seen), state.trail)
    return StreamStep(size=taken.size, action=taken.action, reason=taken.reason, state=_next_state(seen, taken))


def machine_bound(seen: StreamSituation) -> tuple[int, str] | None:
    """Return the most workers that there are cores and memory for beside the machine's other pools, and which it is.

    None: neither is a bound. Workers go as soon as others' claims or a lack of memory say so; they come only where
    there is room for them at this moment.
    """
    bounds = []
    room = None if seen.memory is None else pool_memory_size(seen.size, seen.memory)
    if room is not None:
        bounds.append((room, "memory_limit"))
    if seen.budget is not None:
        allowed, short = allowance(seen.budget, seen.pool, seen.size), seen.memory is not None and seen.memory.short
        if short or allowed.reason != "demand":
            bounds.append((allowed.size, allowed.reason if allowed.reason != "demand" else "memory_limit"))
    return min(bounds, default=None)


def _limits(seen: StreamSituation) -> Limits:
    stable_seconds = max(STABLE_SECONDS, STABLE_SERVICES * seen.stream.service_seconds)
    bound = machine_bound(seen)
    if bound is None or bound[0] >= seen.ceiling:
        return Limits(floor=seen.floor, ceiling=seen.ceiling, stable_seconds=stable_seconds)
    size, reason = bound
    ceiling = max(size, seen.floor)
    return Limits(floor=seen.floor, ceiling=ceiling, stable_seconds=stable_seconds, ceiling_reason=reason)


def stream_wanted(seen: StreamSituation) -> Wanted:
    """Return min(N* of the stream, N_cpu), and what speaks against more workers."""
    wanted, computes = stream_size(seen.stream), seen.share is not None and seen.share >= WAITING_DEMAND
    bound = cpu_size(seen.cores, seen.share) if computes and seen.share is not None else None
    size, reason = (wanted, "demand") if bound is None or wanted <= bound else (bound, "cpu_limit")
    keep = size_to_keep(seen.stream) if bound is None else min(size_to_keep(seen.stream), bound)
    against_more = _against_more(seen, computes=computes)
    return Wanted(size=size, reason=reason, keep=keep, against_more=against_more, late=is_late(seen.stream, seen.size))


def _against_more(seen: StreamSituation, *, computes: bool) -> str:
    if computes and seen.cpu >= SATURATED_RATIO * seen.cores:
        return "saturated"
    if _blocked(seen):
        return "ineffective"
    return "settling" if _on_trial(seen) else ""


def _on_trial(seen: StreamSituation) -> bool:
    """Whether it is too early to tell what doubling the size has done: the tasks of the new size have not ended."""
    trial = seen.state.trial
    if trial is None or seen.sample.count >= COMPLETIONS or seen.size < LARGEST_GROWTH_ON_TRIAL * trial.old_size:
        return False
    return seen.now < trial.moved_at + TRIAL_SERVICES * seen.stream.service_seconds


def _blocked(seen: StreamSituation) -> bool:
    block = seen.state.block
    if block is None or seen.size < block.size:
        return False
    service_seconds = seen.sample.mean if seen.sample.count >= COMPLETIONS else block.service_seconds
    return still_blocked(block, seen.now, load=seen.stream.arrivals, service_seconds=service_seconds)


def _did_not_help(seen: StreamSituation) -> bool:
    trial, saturated = seen.state.trial, seen.stream.queued > 0
    return (
        trial is not None
        and saturated
        and trial.old_size < seen.size
        and ineffective(trial.before, seen.sample, old_size=trial.old_size, new_size=seen.size)
    )


def _go_back(seen: StreamSituation, trial: Trial) -> StreamStep:
    size = max(trial.old_size, seen.floor)
    block = blocked(
        seen.now,
        size,
        load=seen.stream.arrivals,
        service_seconds=trial.before.mean,
        earlier=seen.state.block,
    )
    state = replace(seen.state, trial=None, block=block)
    if size >= seen.size:
        return StreamStep(size=seen.size, action="hold", reason="ineffective", state=state)
    return StreamStep(size=size, action="down", reason="ineffective", state=state)


def _next_state(seen: StreamSituation, taken: Step) -> StreamState:
    state = StreamState(trail=taken.trail, trial=seen.state.trial, block=seen.state.block)
    if taken.action == "up" and seen.stream.queued > 0:
        judged = state.trial is None or seen.sample.count >= COMPLETIONS
        first = Trial(old_size=seen.size, before=seen.sample, moved_at=seen.now)
        return replace(state, trial=first if judged or state.trial is None else replace(state.trial, moved_at=seen.now))
    return replace(state, trial=None) if taken.action == "down" else state
