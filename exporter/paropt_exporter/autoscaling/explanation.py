"""Explain a recorded decision in a sentence, and by sums that a reader can check by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, assert_never

from paropt_exporter.autoscaling.decisions import count_left_out, describe_decision, parse_observation
from paropt_exporter.autoscaling.policy.budget import divide_resources
from paropt_exporter.autoscaling.policy.fixed_workload import LoadGroup, Sizing, compute_deadline_size
from paropt_exporter.autoscaling.policy.lane_size import (
    STABLE_SECONDS,
    LaneAssessment,
    LaneObservation,
    assess_lane,
    compute_lane_sizing,
    count_slots,
    sum_slots,
)
from paropt_exporter.autoscaling.policy.memory import (
    Memory,
    compute_growth_bytes,
    compute_pool_memory_size,
    compute_room_bytes,
)
from paropt_exporter.autoscaling.policy.pool_size import PoolObservation
from paropt_exporter.autoscaling.policy.query_size import QuerySizeObservation
from paropt_exporter.autoscaling.policy.queueing import (
    WAIT_RATIO,
    compute_cpu_size,
    compute_wait_ratio,
    compute_workers,
    get_drain_seconds,
)
from paropt_exporter.autoscaling.policy.scaling_effectiveness import USELESS_RATIO, compute_useless_inflation
from paropt_exporter.autoscaling.policy.size_bounds import LOAD, BoundsObservation, Signal, compute_load_workers
from paropt_exporter.autoscaling.policy.stabilization import MAX_REVERSALS
from paropt_exporter.autoscaling.policy.stage_concurrency import LIMITED, TRIAL, ConcurrencyLevel
from paropt_exporter.cpu_demand import CORE_SLACK, UNKNOWN_DEMAND, WAITING_DEMAND, count_task_cores
from paropt_exporter.engine.remaining_time import DEADLINE_RATIO
from paropt_exporter.errors import INVALID_VALUE_ERRORS, format_count
from paropt_exporter.events import Decision

if TYPE_CHECKING:
    from paropt_exporter.autoscaling.decisions import Observation

_OF_TASKS = frozenset({"plan", "demand", "stabilizing"})  # reasons for which a pool may be smaller than the lane


def iter_explanation(decision: Decision) -> Iterator[str]:
    """Yield the sums that lead to a decision, line by line. Raises UnknownObservation."""
    if not decision.situation:
        return
    observation = parse_observation(decision.situation)
    yield from _iter_terms(observation)
    if left_out := count_left_out(decision.situation):
        yield f"  and {left_out} more, which the history does not have: the sums above lack them"
    decided = describe_decision(decision.choice)
    # Otherwise the policy seems to contradict the pool's new size. A pin or a pause may well contradict it.
    is_part = isinstance(observation, LaneObservation) and decision.reason in _OF_TASKS
    if is_part and json.loads(decision.choice)["size"] > decision.new_size:
        decided += f" of the lane, of which {decision.pool} has tasks for {decision.new_size}"
    yield f"policy: {decided}"


def format_headline(decision: Decision) -> str:
    """Return a decision in one line."""
    if (moved := _read_bounds(decision)) is not None:
        old, new = (f"{floor}-{ceiling}" for floor, ceiling in moved)
        change = f"stay at {new}" if decision.action == "hold" else f"{decision.action} from {old} to {new}"
        return f"{decision.pool} bounds {change}: {decision.reason}"
    if decision.action == "hold":
        return f"{decision.pool} stays at {decision.new_size}: {decision.reason}"
    return f"{decision.pool} {decision.action} from {decision.old_size} to {decision.new_size}: {decision.reason}"


def _iter_terms(observation: Observation) -> Iterator[str]:
    match observation:
        case LaneObservation():
            yield from _explain_lane(observation)
        case PoolObservation():
            yield from _explain_pool(observation)
        case BoundsObservation():
            yield from _explain_bounds(observation)
        case QuerySizeObservation():
            yield from _explain_query_size(observation)
        case _:
            assert_never(observation)


def _explain_lane(observation: LaneObservation) -> Iterator[str]:
    yield "N* = running tasks, then waiting ones in order, as long as the cores that they want fit"
    for group in observation.running:
        yield f"  run    {group.count:>4} x {_format_demand(group)} cores{_format_slots(group)}  {group.load.stage}"
    for group in observation.waiting:
        yield f"  wait   {group.count:>4} x {_format_demand(group)} cores{_format_slots(group)}  {group.load.stage}"
    assessment = assess_lane(observation)
    yield from _explain_limits(observation, assessment)
    sizing = compute_lane_sizing(observation, assessment)
    yield (
        f"  cores {_format_cores(observation.cores)} (+{CORE_SLACK:g} for errors of measurement);"
        f" tasks that want under {WAITING_DEMAND:g} of a core count separately"
    )
    yield f"  N* = {_format_sum(observation, sizing)} ({sizing.reason})"
    if observation.memory is not None:
        yield from _explain_memory(observation, assessment, observation.memory)
    if observation.work is not None:
        work = observation.work
        yield (
            f"  deadline: path {work.critical_path_seconds:.1f} s + ({work.seconds:.1f} - "
            f"{work.critical_path_seconds:.1f}) / N <= {DEADLINE_RATIO:g} x {work.left_seconds:.1f} s: "
            f"N = {compute_deadline_size(work)}"
        )
        if observation.rescue_size:
            yield f"  limits of stages: N = {observation.rescue_size}"
    elif count_slots(sizing) < observation.size:
        yield from _explain_peak(observation, count_slots(sizing))
    yield f"  between floor {observation.floor} and ceiling {observation.ceiling}; the lane had {observation.size}"


def _explain_peak(observation: LaneObservation, wanted: int) -> Iterator[str]:
    recent = [size for moment, size in observation.state.history.peaks if moment > observation.now - STABLE_SECONDS]
    if max(recent, default=0) > wanted:
        yield f"  the size falls only to the highest N* of the last {STABLE_SECONDS:g} s: {max(recent)}"


def _explain_limits(observation: LaneObservation, assessment: LaneAssessment) -> Iterator[str]:
    measured = {one.stage: one for one in observation.stages}
    for state in assessment.stages:
        if state.limit is None:
            continue
        one = measured[state.stage]
        lasts = f" for {state.until - observation.now:.0f} s more" if state.phase == LIMITED else ""
        yield f"  limit  {state.limit:>4} at once ({state.phase}{lasts}); {one.running} run  {state.stage}"
        few, many = (one.level, state.reference) if state.phase == TRIAL else (state.reference, state.useless)
        if few is not None and many is not None:
            yield from _explain_concurrency(few, many)


def _explain_concurrency(few: ConcurrencyLevel, many: ConcurrencyLevel) -> Iterator[str]:
    for level in (few, many):
        yield f"    {level.concurrency:.1f} at once took {level.sample.mean:.3g} s each ({level.sample.count} ended)"
    if few.concurrency > 0 and few.sample.mean > 0:
        growth, longer = many.concurrency / few.concurrency, many.sample.mean / few.sample.mean
        yield (
            f"    {longer:.2f} times as long for {growth:.2f} times as many; more are no use from"
            f" 1 + {USELESS_RATIO:g} x ({growth:.2f} - 1) = {compute_useless_inflation(growth):.2f} on"
        )


def _explain_memory(observation: LaneObservation, assessment: LaneAssessment, memory: Memory) -> Iterator[str]:
    known = [group for group in observation.running if group.load.peak_bytes]
    peaks = " + ".join(f"{group.count} x {_to_mb(group.load.peak_bytes)}" for group in known) or "0"
    grow = compute_growth_bytes(observation.running, memory.held_bytes)
    room = compute_room_bytes(observation.running, memory)
    yield f"  memory: running tasks may still take {peaks} - {_to_mb(memory.held_bytes)} = {_to_mb(grow)}"
    yield (
        f"    room: {_to_mb(memory.available_bytes)} available - {_to_mb(memory.reserve_bytes)} kept free"
        f" - {_to_mb(grow)} = {_to_mb(room)}"
    )
    for group in assessment.waiting:
        if group.load.peak_bytes:
            yield f"    wait   {group.count:>4} x {_to_mb(group.load.peak_bytes)}  {group.load.stage}"
    if assessment.waiting:
        yield f"    N_mem = {assessment.memory_size} of those that run and wait"


def _to_mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _format_cores(cores: float) -> str:
    counted = count_task_cores(cores)
    return f"{cores:g}" if counted == cores else f"{cores:g}, rounded to {counted:g}"


def _format_demand(group: LoadGroup) -> str:
    return f"{UNKNOWN_DEMAND:.2f} (unknown)" if group.load.cpu_demand is None else f"{group.load.cpu_demand:.2f}"


def _format_slots(group: LoadGroup) -> str:
    return f", {group.load.slots} slots each" if group.load.slots > 1 else ""


def _format_sum(observation: LaneObservation, sizing: Sizing) -> str:
    fit = sum_slots(observation.running) - sizing.surplus
    beyond = f" (and {sizing.surplus} that run beyond the cores)" if sizing.surplus else ""
    total = fit + sizing.admitted
    last = f" = {sizing.size}" if total == sizing.size else f" = {total}, but {sizing.size}"
    return f"{fit} that fit{beyond} + {sizing.admitted} that may start{last}"


def _explain_pool(observation: PoolObservation) -> Iterator[str]:
    traffic = observation.traffic
    size = compute_workers(traffic.load)
    yield f"load a = {traffic.arrivals:.3g} tasks/s x {traffic.service_seconds:.3g} s = {traffic.load:.3g} Erlang"
    yield (
        f"  N(a) = {size}: a task waits {compute_wait_ratio(traffic.load, size):.3f} of its own time, at most"
        f" {WAIT_RATIO:g} (with {size - 1}: {compute_wait_ratio(traffic.load, size - 1):.3f})"
    )
    drain = get_drain_seconds(traffic)
    waiting = traffic.queued * traffic.service_seconds / drain
    yield f"  queue: {traffic.queued} x {traffic.service_seconds:.3g} s / {drain:.3g} s = {waiting:.2f}, rounded up"
    if observation.cpu_demand is not None and observation.cpu_demand >= WAITING_DEMAND:
        most = compute_cpu_size(observation.cores, observation.cpu_demand)
        yield f"  N_cpu = {_format_cores(observation.cores)} cores / {observation.cpu_demand:.2f} of a core = {most}"
    yield from _explain_machine(observation)
    yield f"  between floor {observation.floor} and ceiling {observation.ceiling}; the pool had {observation.size}"
    if observation.state.history.reversals:
        yield f"  {len(observation.state.history.reversals)} of {MAX_REVERSALS} reversals an hour are used up"


def _explain_machine(observation: PoolObservation) -> Iterator[str]:
    memory, budget = observation.memory, observation.budget
    if memory is not None:
        yield (
            f"  memory: {_to_mb(memory.available_bytes)} available - {_to_mb(memory.reserve_bytes)} kept free"
            f" - {_to_mb(memory.growth_bytes)} that workers may still take = {_to_mb(memory.room_bytes)}"
        )
        if memory.peak_bytes:
            most = compute_pool_memory_size(observation.size, memory)
            room, peak = _to_mb(memory.room_bytes), _to_mb(memory.peak_bytes)
            yield f"    N_mem = {observation.size} + {room} / {peak} a worker = {most}"
    if budget is None or (len(budget.claims) < 2 and not any(claim.memory_bytes for claim in budget.claims)):
        return
    sizes = divide_resources(budget.claims, cores=budget.cores, memory_bytes=budget.memory_bytes)
    cores = "any" if budget.cores is None else _format_cores(budget.cores)
    bytes_ = "any" if budget.memory_bytes is None else _to_mb(budget.memory_bytes)
    yield f"  the machine's cores ({cores}) and memory ({bytes_} for workers) go to the pool that has least of them:"
    for claim in budget.claims:
        first = ", first" if claim.urgent else ""
        yield (
            f"    {claim.pool}: {sizes[claim.pool]} of {claim.wanted} wanted, at least {claim.floor};"
            f" {claim.cpu_demand:.2f} of a core and {_to_mb(claim.memory_bytes)} each, weight {claim.weight:g}{first}"
        )


def _explain_bounds(observation: BoundsObservation) -> Iterator[str]:
    for signal in observation.signals:
        yield f"  {_explain_signal(signal)}"
    allowed = f"{observation.minimum} to {observation.maximum}"
    yield f"  the config allows {allowed}; the bounds were {observation.floor} to {observation.ceiling}"


def _explain_signal(signal: Signal) -> str:
    reading = signal.reading
    if not reading.is_valid:
        last = "its last value holds for ten intervals, then the config's bounds do"
        return f"{signal.use} {signal.name}: rejected ({reading.rejection_reason}: {reading.detail}); {last}"
    if signal.use == LOAD:
        workers = compute_load_workers(reading.value, signal.target)
        return f"load {signal.name}: ceil({reading.value:g} / {signal.target:g}) = {workers} workers as floor"
    over = "over" if reading.value > signal.target else "within"
    return f"limit {signal.name}: {reading.value:g} is {over} its target {signal.target:g}"


def _explain_query_size(observation: QuerySizeObservation) -> Iterator[str]:
    for pool in observation.pools:
        if pool.measurement is None:
            yield f"  {pool.pool}: rejected ({pool.reading.rejection_reason}: {pool.reading.detail})"
            continue
        measured = pool.measurement
        unfinished = f"{measured.depth:g} tasks wait + {measured.busy:.2f} run = {measured.depth + measured.busy:.2f}"
        yield f"  {pool.pool}: {unfinished}, rounded up (from {CORE_SLACK:g} on)"
        if measured.cpu > 0:
            alone = max(measured.busy - measured.delay, measured.cpu)
            demand = f"{measured.cpu:.2f} / ({measured.busy:.2f} - {measured.delay:.2f}) = {measured.cpu / alone:.2f}"
            yield f"  c = {demand} of a core"
    if observation.slots_per_task != 1:
        yield f"  a task takes {observation.slots_per_task:.3g} of the lane's slots on average"
    bounds = f"floor {observation.floor} and ceiling {observation.ceiling}"
    yield f"  cores {_format_cores(observation.cores)}; between {bounds}; the lane had {observation.size}"


_MORE: Mapping[str, str] = MappingProxyType(
    {
        "demand": "tasks were waiting, and the cores had room for them",
        "deadline": "fewer workers would not have kept the lane's total",
        "rescue": "a stage was about to break its limit",
        "load": "a load signal asked for more",
        "limit": "a limit signal was within its target again",
        "bounds": "its floor was higher",
        "pinned": "somebody pinned it to that size",
    }
)
_FEWER: Mapping[str, str] = MappingProxyType(
    {
        "plan": "fewer tasks are left than there were workers",
        "demand": "the tasks at hand need no more cores",
        "deadline": "fewer workers keep the limits of the lane and its stages as well",
        "load": "a load signal asked for less",
        "limit": "a limit signal was above its target",
        "cpu_limit": "the tasks that run want more cores than there are",
        "memory_limit": "memory had become short",
        "bounds": "its ceiling was lower",
        "ineffective": "more tasks at once seemed to get no more done",
        "pinned": "somebody pinned it to that size",
    }
)
_SAME: Mapping[str, str] = MappingProxyType(
    {
        "plan": "there is a worker for each task that is left",
        "demand": "the tasks at hand need that many",
        "deadline": "that many keep the limits of the lane and its stages",
        "load": "a load signal asks for that many",
        "limit": "a limit signal allows no more",
        "cpu_limit": "the tasks that run take all cores",
        "memory_limit": "there is no memory for another task",
        "bounds": "its bounds allow no other size",
        "deadband": "another size would hardly differ",
        "stabilizing": "a smaller size has been enough only for a short time",
        "ineffective": "more tasks at once seem to get no more done",
        "saturated": "more workers would not help",
        "flap_budget": "it has changed direction too often within an hour",
        "pinned": "somebody pinned it to that size",
        "paused": "somebody paused its sizing",
        "advised": "its mode is advise: sizes are computed, and not set",
        "query_failed": "a query to Prometheus failed",
        "no_data": "Prometheus had no data",
        "several_sources": "the answer to a query had several series instead of one",
        "not_finite": "the answer to a query was infinite, NaN or impossible",
        "not_a_number": "the answer to a query was not a number",
        "partial": "the answer to a query was incomplete",
        "stale": "the answer to a query was too old",
        "future": "the answer to a query was stamped in the future",
        "epoch": "the answer to a query was not about this process alone",
        "settling": "the effect of the last change is not known yet",
        "disagree": "the answer to a query contradicts the pool's own counters",
    }
)
BY_ACTION: Mapping[str, Mapping[str, str]] = MappingProxyType({"up": _MORE, "down": _FEWER, "hold": _SAME})


# The reason `bounds` has two cases: a bound that changed moved the size, or a bound cut a move short.
_CUT_SHORT: Mapping[str, str] = MappingProxyType(
    {
        "up": "tasks were waiting, and its ceiling allows no more",
        "down": "fewer were needed, and its floor allows no less",
    }
)


def format_sentence(decision: Decision) -> str:
    """Return a decision with its reason in one sentence; an unknown reason, of another version, stays as recorded."""
    why = BY_ACTION.get(decision.action, {}).get(decision.reason, decision.reason)
    if (moved := _read_bounds(decision)) is not None:
        return f"{_format_move_of_bounds(decision.pool, *moved)}, because {why}."
    if decision.reason == "bounds" and _is_cut_short(decision):
        why = _CUT_SHORT[decision.action]
    workers = format_count(decision.new_size, "worker")
    if decision.old_size == decision.new_size:
        return f"{decision.pool} stayed at {workers}, because {why}."
    verb = "grew" if decision.new_size > decision.old_size else "shrank"
    return f"{decision.pool} {verb} from {decision.old_size} to {workers}, because {why}."


def _is_cut_short(decision: Decision) -> bool:
    """Return whether the old size was within the bounds, so that they did not cause the move."""
    old, terms = decision.terms.get("lane_size", decision.old_size), decision.terms
    return decision.action in _CUT_SHORT and terms.get("floor", old + 1) <= old <= terms.get("ceiling", old - 1)


def _read_bounds(decision: Decision) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return floor and ceiling before and after a decision about bounds; None: it is about a size."""
    try:
        observation, choice = json.loads(decision.situation or "{}"), json.loads(decision.choice or "{}")
        if observation.get("kind") != "bounds":
            return None
        before = observation["observation"]
        return (before["floor"], before["ceiling"]), (choice["floor"], choice["ceiling"])
    except INVALID_VALUE_ERRORS:
        return None


def _format_move_of_bounds(pool: str, old: tuple[int, int], new: tuple[int, int]) -> str:
    """Return a change of bounds in words: the ceiling's, which is decided first, or else the floor's."""
    for name, before, after in (("ceiling", old[1], new[1]), ("floor", old[0], new[0])):
        if before != after:
            verb = "rose" if after > before else "fell"
            return f"the {name} of {pool} {verb} from {before} to {format_count(after, 'worker')}"
    return f"the bounds of {pool} stayed at {new[0]} to {format_count(new[1], 'worker')}"
