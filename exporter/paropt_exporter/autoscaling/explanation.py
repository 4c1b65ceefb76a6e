"""Say why a pool has its size: a recorded decision as sums that a reader can do again by hand."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter.autoscaling.decisions import Situation, read_choice_size, read_situation
from paropt_exporter.autoscaling.policy import fixed_workload, queueing
from paropt_exporter.autoscaling.policy.budget import divide
from paropt_exporter.autoscaling.policy.fixed_workload import Loads, Sizing, deadline_size
from paropt_exporter.autoscaling.policy.lane_size import Outlook, RunSituation, count_of, outlook, run_sizing
from paropt_exporter.autoscaling.policy.memory import Memory, growth_bytes, pool_memory_size, room_bytes
from paropt_exporter.autoscaling.policy.pool_size import StreamSituation
from paropt_exporter.autoscaling.policy.prometheus_size import TargetSituation
from paropt_exporter.autoscaling.policy.queueing import WAIT_RATIO, cpu_size, wait_ratio, workers_for
from paropt_exporter.autoscaling.policy.scaling_effectiveness import USELESS_RATIO, useless_inflation
from paropt_exporter.autoscaling.policy.size_bounds import LOAD, BandSituation, Signal, load_workers
from paropt_exporter.autoscaling.policy.stabilization import TURNS
from paropt_exporter.autoscaling.policy.stage_concurrency import LIMITED, TRIAL, Level
from paropt_exporter.cpu_demand import CORE_SLACK, UNKNOWN_DEMAND, WAITING_DEMAND
from paropt_exporter.events import Decision


def explained(decision: Decision) -> Iterator[str]:
    """Yield the terms that lead to a decision, line by line. Raises UnknownSituation."""
    if not decision.situation:
        return
    seen = read_situation(decision.situation)
    yield from _terms(seen)
    yield f"policy: {read_choice_size(decision.choice)}"


def headline(decision: Decision) -> str:
    """Return what was decided, in a line."""
    if decision.action == "hold":
        return f"{decision.pool} stays at {decision.new_size}: {decision.reason}"
    return f"{decision.pool} {decision.action} from {decision.old_size} to {decision.new_size}: {decision.reason}"


def _terms(seen: Situation) -> Iterator[str]:
    match seen:
        case RunSituation():
            yield from _of_run(seen)
        case StreamSituation():
            yield from _of_stream(seen)
        case BandSituation():
            yield from _of_band(seen)
        case TargetSituation():
            yield from _of_target(seen)


def _of_run(seen: RunSituation) -> Iterator[str]:
    yield "N* = running tasks, then waiting ones in order, as long as the cores that they want fit"
    for loads in seen.running:
        yield f"  run    {loads.count:>4} x {_demand(loads)} cores  {loads.load.stage}"
    for loads in seen.waiting:
        yield f"  wait   {loads.count:>4} x {_demand(loads)} cores  {loads.load.stage}"
    ahead = outlook(seen)
    yield from _of_stages(seen, ahead)
    sizing = run_sizing(seen, ahead)
    yield (
        f"  cores {seen.cores:g} (+{CORE_SLACK:g} for what a measurement is off);"
        f" tasks that want under {WAITING_DEMAND:g} of a core are counted apart"
    )
    yield f"  N* = {_sum_of(seen, sizing)} ({sizing.reason})"
    if seen.memory is not None:
        yield from _of_memory(seen, ahead, seen.memory)
    if seen.work is not None:
        work = seen.work
        yield (
            f"  deadline: path {work.critical_path_seconds:.1f} s + ({work.seconds:.1f} - "
            f"{work.critical_path_seconds:.1f}) / N <= {fixed_workload.DEADLINE_RATIO:g} x {work.left_seconds:.1f} s: "
            f"N = {deadline_size(work)}"
        )
    yield f"  between floor {seen.floor} and ceiling {seen.ceiling}; the lane had {seen.size}"


def _of_stages(seen: RunSituation, ahead: Outlook) -> Iterator[str]:
    measured = {one.stage: one for one in seen.stages}
    for state in ahead.stages:
        if state.limit is None:
            continue
        one = measured[state.stage]
        lasts = f" for {state.until - seen.now:.0f} s more" if state.phase == LIMITED else ""
        yield f"  limit  {state.limit:>4} at once ({state.phase}{lasts}); {one.running} run  {state.stage}"
        few, many = (one.level, state.reference) if state.phase == TRIAL else (state.reference, state.useless)
        if few is not None and many is not None:
            yield from _of_company(few, many)


def _of_company(few: Level, many: Level) -> Iterator[str]:
    for level in (few, many):
        yield f"    {level.company:.1f} at once took {level.sample.mean:.3g} s each ({level.sample.count} ended)"
    if few.company > 0 and few.sample.mean > 0:
        growth, longer = many.company / few.company, many.sample.mean / few.sample.mean
        yield (
            f"    {longer:.2f} times as long for {growth:.2f} times as many; more are no use from"
            f" 1 + {USELESS_RATIO:g} x ({growth:.2f} - 1) = {useless_inflation(growth):.2f} on"
        )


def _of_memory(seen: RunSituation, ahead: Outlook, memory: Memory) -> Iterator[str]:
    known = [loads for loads in seen.running if loads.load.peak_bytes]
    peaks = " + ".join(f"{loads.count} x {_megabytes(loads.load.peak_bytes)}" for loads in known) or "0"
    grow, room = growth_bytes(seen.running, memory.held_bytes), room_bytes(seen.running, memory)
    yield f"  memory: running tasks may still take {peaks} - {_megabytes(memory.held_bytes)} = {_megabytes(grow)}"
    yield (
        f"    room: {_megabytes(memory.available_bytes)} available - {_megabytes(memory.reserve_bytes)} kept free"
        f" - {_megabytes(grow)} = {_megabytes(room)}"
    )
    for loads in ahead.waiting:
        if loads.load.peak_bytes:
            yield f"    wait   {loads.count:>4} x {_megabytes(loads.load.peak_bytes)}  {loads.load.stage}"
    if ahead.waiting:
        yield f"    N_mem = {ahead.memory_size} of those that run and wait"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _demand(loads: Loads) -> str:
    return f"{UNKNOWN_DEMAND:.2f} (unknown)" if loads.load.share is None else f"{loads.load.share:.2f}"


def _sum_of(seen: RunSituation, sizing: Sizing) -> str:
    fit = count_of(seen.running) - sizing.surplus
    beyond = f" (and {sizing.surplus} that run beyond the cores)" if sizing.surplus else ""
    total = fit + sizing.admitted
    last = f" = {sizing.size}" if total == sizing.size else f" = {total}, but {sizing.size}"
    return f"{fit} that fit{beyond} + {sizing.admitted} that may start{last}"


def _of_stream(seen: StreamSituation) -> Iterator[str]:
    stream = seen.stream
    size = workers_for(stream.load)
    yield f"load a = {stream.arrivals:.3g} tasks/s x {stream.service_seconds:.3g} s = {stream.load:.3g} Erlang"
    yield (
        f"  N(a) = {size}: a task waits {wait_ratio(stream.load, size):.3f} of its own time, at most {WAIT_RATIO:g}"
        f" (with {size - 1}: {wait_ratio(stream.load, size - 1):.3f})"
    )
    drain = max(queueing.DRAIN_SECONDS, queueing.DRAIN_SERVICES * stream.service_seconds)
    waiting = stream.queued * stream.service_seconds / drain
    yield f"  queue: {stream.queued} x {stream.service_seconds:.3g} s / {drain:.3g} s = {waiting:.2f}, rounded up"
    if seen.share is not None and seen.share >= WAITING_DEMAND:
        yield f"  N_cpu = {seen.cores:g} cores / {seen.share:.2f} of a core = {cpu_size(seen.cores, seen.share)}"
    yield from _of_machine(seen)
    yield f"  between floor {seen.floor} and ceiling {seen.ceiling}; the pool had {seen.size}"
    if seen.state.trail.turns:
        yield f"  {len(seen.state.trail.turns)} of {TURNS} changes of direction an hour are spent"


def _of_machine(seen: StreamSituation) -> Iterator[str]:
    memory, budget = seen.memory, seen.budget
    if memory is not None:
        yield (
            f"  memory: {_megabytes(memory.available_bytes)} available - {_megabytes(memory.reserve_bytes)} kept free"
            f" - {_megabytes(memory.growth_bytes)} that workers may still take = {_megabytes(memory.room_bytes)}"
        )
        if memory.peak_bytes:
            most = pool_memory_size(seen.size, memory)
            room, peak = _megabytes(memory.room_bytes), _megabytes(memory.peak_bytes)
            yield f"    N_mem = {seen.size} + {room} / {peak} a worker = {most}"
    if budget is None or (len(budget.claims) < 2 and not any(claim.memory_bytes for claim in budget.claims)):
        return
    sizes = divide(budget.claims, cores=budget.cores, memory_bytes=budget.memory_bytes)
    cores = "any" if budget.cores is None else f"{budget.cores:g}"
    bytes_ = "any" if budget.memory_bytes is None else _megabytes(budget.memory_bytes)
    yield f"  the machine's cores ({cores}) and memory ({bytes_} for workers) go to the pool that has least of them:"
    for claim in budget.claims:
        first = ", first" if claim.urgent else ""
        yield (
            f"    {claim.pool}: {sizes[claim.pool]} of {claim.wanted} wanted, at least {claim.floor};"
            f" {claim.share:.2f} of a core and {_megabytes(claim.memory_bytes)} each, weight {claim.weight:g}{first}"
        )


def _of_band(seen: BandSituation) -> Iterator[str]:
    for signal in seen.signals:
        yield f"  {_of_signal(signal)}"
    yield f"  the config allows {seen.minimum} to {seen.maximum}; the band was {seen.floor} to {seen.ceiling}"


def _of_signal(signal: Signal) -> str:
    reading = signal.reading
    if not reading.believed:
        last = "its last word holds for ten intervals, then the config's"
        return f"{signal.use} {signal.name}: not believed ({reading.doubt}: {reading.detail}); {last}"
    if signal.use == LOAD:
        workers = load_workers(reading.value, signal.target)
        return f"load {signal.name}: ceil({reading.value:g} / {signal.target:g}) = {workers} workers as floor"
    over = "over" if reading.value > signal.target else "within"
    return f"limit {signal.name}: {reading.value:g} is {over} its target {signal.target:g}"


def _of_target(seen: TargetSituation) -> Iterator[str]:
    for pool in seen.pools:
        if pool.seen is None:
            yield f"  {pool.pool}: not believed ({pool.reading.doubt}: {pool.reading.detail})"
            continue
        told = pool.seen
        unfinished = f"{told.depth:g} tasks wait + {told.busy:.2f} run = {told.depth + told.busy:.2f}"
        yield f"  {pool.pool}: {unfinished}, rounded up (from {CORE_SLACK:g} on)"
        if told.cpu > 0:
            alone = max(told.busy - told.delay, told.cpu)
            yield f"  c = {told.cpu:.2f} / ({told.busy:.2f} - {told.delay:.2f}) = {told.cpu / alone:.2f} of a core"
    yield f"  cores {seen.cores:g}; between floor {seen.floor} and ceiling {seen.ceiling}; the lane had {seen.size}"
