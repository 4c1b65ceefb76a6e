"""Invariants over four thousand generated histories of pools and lanes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.budget import Budget, Claim
from paropt_exporter.autoscaling.policy.fixed_workload import Load
from paropt_exporter.autoscaling.policy.lane_size import (
    LaneObservation,
    LaneSizingState,
    assess_lane,
    compute_memory_bound,
    decide_lane_size,
    group_equal_loads,
)
from paropt_exporter.autoscaling.policy.memory import Memory, PoolMemory, compute_pool_memory_size
from paropt_exporter.autoscaling.policy.pool_size import (
    STABLE_SECONDS,
    PoolObservation,
    PoolSizingState,
    decide_pool_size,
)
from paropt_exporter.autoscaling.policy.query_size import (
    PoolMeasurement,
    PoolReading,
    QuerySizeObservation,
    QuerySizeState,
    decide_query_size,
)
from paropt_exporter.autoscaling.policy.query_validity import Reading, reject_reading
from paropt_exporter.autoscaling.policy.queueing import Traffic, compute_traffic_size
from paropt_exporter.autoscaling.policy.scaling_effectiveness import Sample
from paropt_exporter.autoscaling.policy.size_bounds import (
    PATIENT_INTERVALS,
    BoundsDecision,
    BoundsObservation,
    BoundsState,
    Signal,
    decide_size_bounds,
)
from paropt_exporter.families import DECISION_REASONS, REJECTION_REASONS

HISTORIES = 1000  # of each of the four kinds
STEPS = 25


def streams(seed: int) -> Iterator[tuple[PoolObservation, int, str, str]]:
    """Yield a pool's history: observations with the decided size, action and reason."""
    draw = random.Random(seed)
    size, state, now = draw.randint(1, 20), PoolSizingState(), 0.0
    floor = draw.randint(1, 5)
    ceiling = floor + draw.randint(0, 60)
    for _ in range(STEPS):
        now += draw.choice((1.0, 1.0, 1.0, 5.0, 30.0))
        load = Traffic(
            arrivals=draw.choice((0.0, draw.uniform(0, 5), draw.uniform(0, 200))),
            service_seconds=draw.choice((0.0, 0.05, draw.uniform(0, 3))),
            queued=draw.choice((0, 0, draw.randint(0, 500))),
            spread=draw.uniform(0, 0.5),
        )
        pool_memory = draw.choice((None, _pool_memory(draw)))
        seen = PoolObservation(
            now=now,
            size=size,
            floor=floor,
            ceiling=ceiling,
            traffic=load,
            cores=draw.uniform(0.5, 8),
            cpu_demand=draw.choice((None, 0.0, draw.random())),
            cpu=draw.uniform(0, 8),
            memory=pool_memory,
            pool="own",
            budget=draw.choice((None, _budget(draw, floor, ceiling))),
            sample=Sample(count=draw.randint(0, 100), mean=draw.uniform(0, 3), variance=draw.uniform(0, 3)),
            state=state,
        )
        choice = decide_pool_size(seen)
        yield seen, choice.size, choice.action, choice.reason
        size, state = choice.size, choice.state


def _pool_memory(draw: random.Random) -> PoolMemory:
    return PoolMemory(
        available_bytes=draw.randint(1, 4 << 30),
        growth_bytes=draw.randint(0, 1 << 30),
        peak_bytes=draw.choice((0, draw.randint(1, 1 << 30))),
    )


def _budget(draw: random.Random, floor: int, ceiling: int) -> Budget:
    claims = [
        Claim(pool=pool, wanted=draw.randint(floor, ceiling), floor=floor, cpu_demand=draw.random(), memory_bytes=size)
        for pool, size in (("own", draw.choice((0, 1 << 28))), ("other", draw.randint(0, 1 << 28)))
    ]
    return Budget(claims=tuple(claims), cores=draw.choice((None, 4.0)), memory_bytes=draw.choice((None, 1 << 30)))


PoolStep = tuple[PoolObservation, int, str, str]


@pytest.fixture(scope="module")
def pool_histories() -> list[list[PoolStep]]:
    return [list(streams(seed)) for seed in range(HISTORIES)]


def test_pool_stays_within_its_bounds_and_names_each_move(pool_histories: list[list[PoolStep]]) -> None:
    for history in pool_histories:
        for seen, size, action, reason in history:
            assert seen.floor <= size <= seen.ceiling or size == seen.size
            assert action == ("hold" if size == seen.size else "up" if size > seen.size else "down")
            assert reason in DECISION_REASONS[action], (action, reason)


def test_pool_shrinks_only_after_a_stable_time_with_less_need(pool_histories: list[list[PoolStep]]) -> None:
    for history in pool_histories:
        needed: list[tuple[float, int]] = []
        for seen, size, action, reason in history:
            needed.append((seen.now, min(compute_traffic_size(seen.traffic), seen.ceiling)))
            unbounded = seen.cpu_demand is None or seen.cpu_demand < 0.1
            if action == "down" and reason == "demand" and unbounded:
                assert needed[-1][1] < seen.size
            assert size >= 1
        assert len(needed) == STEPS
    assert STABLE_SECONDS > 0


def test_pool_never_grows_beyond_known_memory(pool_histories: list[list[PoolStep]]) -> None:
    for history in pool_histories:
        for seen, size, _, _ in history:
            most = None if seen.memory is None else compute_pool_memory_size(seen.size, seen.memory)
            assert most is None or 1 <= size <= max(most, seen.floor)


def readings(draw: random.Random) -> Reading:
    if draw.random() < 0.4:
        return reject_reading(draw.choice(REJECTION_REASONS), "drawn")
    return Reading(value=draw.choice((0.0, draw.uniform(-5, 100), draw.uniform(0, 1e6))))


def bands(seed: int) -> Iterator[tuple[BoundsObservation, BoundsDecision]]:
    draw = random.Random(seed)
    minimum = draw.randint(1, 5)
    maximum = minimum + draw.randint(0, 60)
    uses = [draw.choice(("load", "limit")) for _ in range(draw.randint(0, 3))]
    step = BoundsDecision(
        floor=minimum, ceiling=maximum, action="hold", reason="bounds", signal="", state=BoundsState()
    )
    now = 0.0
    for _ in range(STEPS):
        now += 15.0
        signals = tuple(
            Signal(name=str(place), use=use, target=draw.uniform(0.1, 50), reading=readings(draw))
            for place, use in enumerate(uses)
        )
        seen = BoundsObservation(
            now=now,
            interval_seconds=15.0,
            stable_seconds=60.0,
            minimum=minimum,
            maximum=maximum,
            floor=step.floor,
            ceiling=step.ceiling,
            size=draw.randint(1, maximum),
            signals=signals,
            state=step.state,
        )
        step = decide_size_bounds(seen)
        yield seen, step


def test_bounds_lie_within_the_config_and_ignore_rejected_readings() -> None:
    for seed in range(HISTORIES):
        quiet = 0
        for seen, step in bands(seed):
            assert seen.minimum <= step.floor <= step.ceiling <= seen.maximum
            assert step.reason in DECISION_REASONS[step.action], (step.action, step.reason)
            all_doubtful = bool(seen.signals) and not any(signal.reading.is_valid for signal in seen.signals)
            quiet = quiet + 1 if all_doubtful else 0
            if all_doubtful and quiet <= PATIENT_INTERVALS and seen.state.last_signals:
                assert (step.floor, step.ceiling) == (seen.floor, seen.ceiling)


def targets(seed: int) -> Iterator[tuple[QuerySizeObservation, int, str, str]]:
    draw = random.Random(seed)
    state, size, now = QuerySizeState(), draw.randint(1, 20), 0.0
    floor = draw.randint(1, 4)
    ceiling = floor + draw.randint(0, 40)
    for _ in range(STEPS):
        now += 15.0
        reading = readings(draw) if draw.random() < 0.5 else Reading()
        seen = PoolMeasurement(
            sampled=now,
            scrape_seconds=15.0,
            size=draw.choice((size, size, draw.randint(0, 40))),
            depth=draw.choice((0.0, draw.uniform(0, 100))),
            busy=draw.uniform(0, 40),
            cpu=draw.uniform(0, 8),
            delay=draw.uniform(0, 4),
        )
        pool = PoolReading(
            pool="commands", target=size, reading=reading, measurement=seen if reading.is_valid else None
        )
        situation = QuerySizeObservation(
            now=now,
            stable_seconds=180.0,
            cores=draw.uniform(0.5, 8),
            size=size,
            floor=floor,
            ceiling=ceiling,
            pools=(pool,),
            state=state,
            rescue_size=draw.choice((0, 0, 0, draw.randint(1, 60))),
        )
        step = decide_query_size(situation)
        yield situation, step.size, step.action, step.reason
        size, state = step.size, step.state


def test_target_moves_on_rejected_readings_only_to_rescue_or_into_its_bounds() -> None:
    for seed in range(HISTORIES):
        for seen, size, action, reason in targets(seed):
            assert size <= max(seen.ceiling, seen.size)
            assert size >= 1
            assert reason in DECISION_REASONS[action], (action, reason)
            if not seen.pools[0].reading.is_valid:
                held = min(max(seen.size, seen.floor), seen.ceiling)
                assert size == held or (reason == "rescue" and held < size <= seen.ceiling)


def runs(seed: int) -> Iterator[tuple[LaneObservation, int, str, str]]:
    draw = random.Random(seed)
    floor = draw.randint(1, 3)
    ceiling = floor + draw.randint(0, 40)
    size, state, now, left = draw.randint(floor, ceiling), LaneSizingState(), 0.0, draw.randint(0, 60)
    for _ in range(STEPS):
        now += draw.choice((0.03, 1.0, 12.0))
        left = max(0, left - draw.randint(0, 4))
        shares = (None, 0.0, 0.5, 1.0, draw.random())
        group = [
            Load(
                pool="commands",
                stage="a",
                cpu_demand=draw.choice(shares),
                peak_bytes=draw.choice((0, 1 << 26, 1 << 29)),
            )
            for _ in range(left)
        ]
        running, waiting = group[:size], group[size:]
        seen = LaneObservation(
            now=now,
            size=size,
            floor=floor,
            ceiling=ceiling,
            cores=draw.uniform(0.5, 8),
            running=group_equal_loads(running),
            waiting=group_equal_loads(waiting),
            state=state,
            memory=draw.choice(
                (None, Memory(available_bytes=draw.randint(1, 4 << 30), held_bytes=draw.randint(0, 1 << 30)))
            ),
        )
        step = decide_lane_size(seen)
        yield seen, step.size, step.action, step.reason
        size, state = step.size, step.state


LaneStep = tuple[LaneObservation, int, str, str]


@pytest.fixture(scope="module")
def lane_histories() -> list[list[LaneStep]]:
    return [list(runs(seed)) for seed in range(HISTORIES)]


def test_run_never_exceeds_its_unfinished_tasks(lane_histories: list[list[LaneStep]]) -> None:
    for history in lane_histories:
        for seen, size, action, reason in history:
            unfinished = sum(group.count for group in (*seen.running, *seen.waiting))
            assert seen.floor <= size <= seen.ceiling
            assert size <= max(seen.size, seen.floor, unfinished)
            assert reason in DECISION_REASONS[action], (action, reason)


def test_run_never_exceeds_known_memory(lane_histories: list[list[LaneStep]]) -> None:
    for history in lane_histories:
        for seen, size, _, _ in history:
            bound = compute_memory_bound(seen, assess_lane(seen))
            assert bound is None or 1 <= size <= max(bound, seen.floor)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4 << 30))
@example(240, 611573662)  # cores allow less than memory does, and more tasks run than either
def test_more_memory_never_means_a_smaller_run(seed: int, more: int) -> None:
    for seen, size, _, _ in runs(seed):
        if seen.memory is not None:
            richer = replace(seen.memory, available_bytes=seen.memory.available_bytes + more)
            assert decide_lane_size(replace(seen, memory=richer)).size >= size


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from((1, 7, 50)))
def test_more_demand_never_means_fewer_workers_than_memory_holds(seed: int, more: int) -> None:
    for seen, size, _, _ in runs(seed):
        extra = Load(pool="commands", stage="a", cpu_demand=0.0)
        waiting = tuple(replace(group) for group in seen.waiting) + group_equal_loads([extra] * more)
        more_waiting = replace(seen, waiting=waiting)
        bound = compute_memory_bound(more_waiting, assess_lane(more_waiting))
        assert decide_lane_size(more_waiting).size >= (size if bound is None else min(size, max(bound, seen.floor)))


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 300), st.floats(0.001, 10), st.integers(0, 1000), st.integers(0, 1000))
def test_longer_queue_never_wants_fewer_workers(arrivals: float, seconds: float, queued: int, more: int) -> None:
    before = Traffic(arrivals=arrivals, service_seconds=seconds, queued=queued)
    assert compute_traffic_size(replace(before, queued=queued + more)) >= compute_traffic_size(before)
