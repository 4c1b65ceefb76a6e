"""What holds in ten thousand generated histories, each a pool's or a lane's life of readings and decisions."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paropt_exporter.autoscaling.policy.budget import Budget, Claim
from paropt_exporter.autoscaling.policy.fixed_workload import Load
from paropt_exporter.autoscaling.policy.lane_size import (
    RunSituation,
    RunState,
    counted,
    decide_run,
    memory_bound,
    outlook,
)
from paropt_exporter.autoscaling.policy.memory import Memory, PoolMemory, pool_memory_size
from paropt_exporter.autoscaling.policy.pool_size import STABLE_SECONDS, StreamSituation, StreamState, decide_stream
from paropt_exporter.autoscaling.policy.prometheus_size import (
    PoolSeen,
    Seen,
    TargetSituation,
    TargetState,
    decide_target,
)
from paropt_exporter.autoscaling.policy.query_validity import Reading, doubtful
from paropt_exporter.autoscaling.policy.queueing import Stream, stream_size
from paropt_exporter.autoscaling.policy.scaling_effectiveness import Sample
from paropt_exporter.autoscaling.policy.size_bounds import (
    PATIENT_INTERVALS,
    BandSituation,
    BandState,
    BandStep,
    Signal,
    decide_band,
)
from paropt_exporter.families import DECISION_REASONS, DOUBTS

HISTORIES = 2500  # of each of the four kinds
STEPS = 25


def streams(seed: int) -> Iterator[tuple[StreamSituation, int, str, str]]:
    """A pool's history: situations with the size, action and reason that were chosen."""
    draw = random.Random(seed)
    size, state, now = draw.randint(1, 20), StreamState(), 0.0
    floor = draw.randint(1, 5)
    ceiling = floor + draw.randint(0, 60)
    for _ in range(STEPS):
        now += draw.choice((1.0, 1.0, 1.0, 5.0, 30.0))
        load = Stream(
            arrivals=draw.choice((0.0, draw.uniform(0, 5), draw.uniform(0, 200))),
            service_seconds=draw.choice((0.0, 0.05, draw.uniform(0, 3))),
            queued=draw.choice((0, 0, draw.randint(0, 500))),
            spread=draw.uniform(0, 0.5),
        )
        pool_memory = draw.choice((None, _pool_memory(draw)))
        seen = StreamSituation(
            now=now,
            size=size,
            floor=floor,
            ceiling=ceiling,
            stream=load,
            cores=draw.uniform(0.5, 8),
            share=draw.choice((None, 0.0, draw.random())),
            cpu=draw.uniform(0, 8),
            memory=pool_memory,
            pool="own",
            budget=draw.choice((None, _budget(draw, floor, ceiling))),
            sample=Sample(count=draw.randint(0, 100), mean=draw.uniform(0, 3), variance=draw.uniform(0, 3)),
            state=state,
        )
        choice = decide_stream(seen)
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
        Claim(pool=pool, wanted=draw.randint(floor, ceiling), floor=floor, share=draw.random(), memory_bytes=size)
        for pool, size in (("own", draw.choice((0, 1 << 28))), ("other", draw.randint(0, 1 << 28)))
    ]
    return Budget(claims=tuple(claims), cores=draw.choice((None, 4.0)), memory_bytes=draw.choice((None, 1 << 30)))


def test_a_pool_stays_within_its_bounds_and_tells_the_truth_about_each_move() -> None:
    for seed in range(HISTORIES):
        for seen, size, action, reason in streams(seed):
            assert seen.floor <= size <= seen.ceiling or size == seen.size
            assert action == ("hold" if size == seen.size else "up" if size > seen.size else "down")
            assert reason in DECISION_REASONS[action], (action, reason)


def test_a_pool_goes_down_only_if_nothing_needed_its_size_for_the_stable_time() -> None:
    for seed in range(HISTORIES):
        needed: list[tuple[float, int]] = []
        for seen, size, action, reason in streams(seed):
            needed.append((seen.now, min(stream_size(seen.stream), seen.ceiling)))
            unbounded = seen.share is None or seen.share < 0.1
            if action == "down" and reason == "demand" and unbounded:
                assert needed[-1][1] < seen.size
            assert size >= 1
        assert len(needed) == STEPS
    assert STABLE_SECONDS > 0


def readings(draw: random.Random) -> Reading:
    if draw.random() < 0.4:
        return doubtful(draw.choice(DOUBTS), "drawn")
    return Reading(value=draw.choice((0.0, draw.uniform(-5, 100), draw.uniform(0, 1e6))))


def bands(seed: int) -> Iterator[tuple[BandSituation, BandStep]]:
    draw = random.Random(seed)
    minimum = draw.randint(1, 5)
    maximum = minimum + draw.randint(0, 60)
    uses = [draw.choice(("load", "limit")) for _ in range(draw.randint(0, 3))]
    step = BandStep(floor=minimum, ceiling=maximum, action="hold", reason="bounds", signal="", state=BandState())
    now = 0.0
    for _ in range(STEPS):
        now += 15.0
        signals = tuple(
            Signal(name=str(place), use=use, target=draw.uniform(0.1, 50), reading=readings(draw))
            for place, use in enumerate(uses)
        )
        seen = BandSituation(
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
        step = decide_band(seen)
        yield seen, step


def test_a_band_lies_within_the_config_and_doubt_alone_moves_none() -> None:
    for seed in range(HISTORIES):
        quiet = 0
        for seen, step in bands(seed):
            assert seen.minimum <= step.floor <= step.ceiling <= seen.maximum
            assert step.reason in DECISION_REASONS[step.action], (step.action, step.reason)
            all_doubtful = bool(seen.signals) and not any(signal.reading.believed for signal in seen.signals)
            quiet = quiet + 1 if all_doubtful else 0
            if all_doubtful and quiet <= PATIENT_INTERVALS and seen.state.words:
                assert (step.floor, step.ceiling) == (seen.floor, seen.ceiling)


def targets(seed: int) -> Iterator[tuple[TargetSituation, int, str, str]]:
    draw = random.Random(seed)
    state, size, now = TargetState(), draw.randint(1, 20), 0.0
    floor = draw.randint(1, 4)
    ceiling = floor + draw.randint(0, 40)
    for _ in range(STEPS):
        now += 15.0
        reading = readings(draw) if draw.random() < 0.5 else Reading()
        seen = Seen(
            sampled=now,
            scrape_seconds=15.0,
            size=draw.choice((size, size, draw.randint(0, 40))),
            depth=draw.choice((0.0, draw.uniform(0, 100))),
            busy=draw.uniform(0, 40),
            cpu=draw.uniform(0, 8),
            delay=draw.uniform(0, 4),
        )
        pool = PoolSeen(pool="commands", target=size, reading=reading, seen=seen if reading.believed else None)
        situation = TargetSituation(
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
        step = decide_target(situation)
        yield situation, step.size, step.action, step.reason
        size, state = step.size, step.state


def test_a_target_never_moves_on_doubtful_data_but_up_to_rescue() -> None:
    for seed in range(HISTORIES):
        for seen, size, action, reason in targets(seed):
            assert size <= max(seen.ceiling, seen.size)
            assert size >= 1
            assert reason in DECISION_REASONS[action], (action, reason)
            if not seen.pools[0].reading.believed:
                assert size == seen.size or (reason == "rescue" and seen.size < size <= seen.ceiling)


def runs(seed: int) -> Iterator[tuple[RunSituation, int, str, str]]:
    draw = random.Random(seed)
    floor = draw.randint(1, 3)
    ceiling = floor + draw.randint(0, 40)
    size, state, now, left = draw.randint(floor, ceiling), RunState(), 0.0, draw.randint(0, 60)
    for _ in range(STEPS):
        now += draw.choice((0.03, 1.0, 12.0))
        left = max(0, left - draw.randint(0, 4))
        shares = (None, 0.0, 0.5, 1.0, draw.random())
        loads = [
            Load(pool="commands", stage="a", share=draw.choice(shares), peak_bytes=draw.choice((0, 1 << 26, 1 << 29)))
            for _ in range(left)
        ]
        running, waiting = loads[:size], loads[size:]
        seen = RunSituation(
            now=now,
            size=size,
            floor=floor,
            ceiling=ceiling,
            cores=draw.uniform(0.5, 8),
            running=counted(running),
            waiting=counted(waiting),
            state=state,
            memory=draw.choice(
                (None, Memory(available_bytes=draw.randint(1, 4 << 30), held_bytes=draw.randint(0, 1 << 30)))
            ),
        )
        step = decide_run(seen)
        yield seen, step.size, step.action, step.reason
        size, state = step.size, step.state


def test_a_run_grows_to_no_more_than_its_unfinished_tasks() -> None:
    for seed in range(HISTORIES):
        for seen, size, action, reason in runs(seed):
            unfinished = sum(loads.count for loads in (*seen.running, *seen.waiting))
            assert seen.floor <= size <= seen.ceiling
            assert size <= max(seen.size, seen.floor, unfinished)
            assert reason in DECISION_REASONS[action], (action, reason)


def test_no_run_is_larger_than_memory_holds_where_that_is_known() -> None:
    for seed in range(HISTORIES):
        for seen, size, _, _ in runs(seed):
            bound = memory_bound(seen, outlook(seen))
            assert bound is None or 1 <= size <= max(bound, seen.floor)


def test_no_pool_grows_beyond_what_memory_holds_where_that_is_known() -> None:
    for seed in range(HISTORIES):
        for seen, size, _, _ in streams(seed):
            most = None if seen.memory is None else pool_memory_size(seen.size, seen.memory)
            assert most is None or 1 <= size <= max(most, seen.floor)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4 << 30))
def test_more_memory_never_means_a_smaller_run(seed: int, more: int) -> None:
    for seen, size, _, _ in runs(seed):
        if seen.memory is not None:
            richer = replace(seen.memory, available_bytes=seen.memory.available_bytes + more)
            assert decide_run(replace(seen, memory=richer)).size >= size


@pytest.mark.parametrize("more", [1, 7, 50])
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000))
def test_more_demand_never_means_fewer_workers_than_memory_holds(more: int, seed: int) -> None:
    for seen, size, _, _ in runs(seed):
        extra = Load(pool="commands", stage="a", share=0.0)
        waiting = tuple(replace(loads) for loads in seen.waiting) + counted([extra] * more)
        more_waiting = replace(seen, waiting=waiting)
        bound = memory_bound(more_waiting, outlook(more_waiting))
        assert decide_run(more_waiting).size >= (size if bound is None else min(size, max(bound, seen.floor)))


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 300), st.floats(0.001, 10), st.integers(0, 1000), st.integers(0, 1000))
def test_a_longer_queue_never_wants_fewer_workers(arrivals: float, seconds: float, queued: int, more: int) -> None:
    before = Stream(arrivals=arrivals, service_seconds=seconds, queued=queued)
    assert stream_size(replace(before, queued=queued + more)) >= stream_size(before)
