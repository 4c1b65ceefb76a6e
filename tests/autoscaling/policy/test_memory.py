"""Tasks and workers that the machine's memory holds, by numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup
from paropt_exporter.autoscaling.policy.lane_size import (
    SHORT_SECONDS,
    LaneObservation,
    LaneSizingState,
    decide_lane_size,
)
from paropt_exporter.autoscaling.policy.memory import (
    Memory,
    PoolMemory,
    compute_memory_size,
    compute_pool_memory_size,
)
from paropt_exporter.host import RESERVE_BYTES, compute_reserve_bytes

MB = 1 << 20


def group(count: int, peak: int, stage: str = "a") -> tuple[LoadGroup, ...]:
    return (LoadGroup(load=Load(pool="commands", stage=stage, cpu_demand=0.0, peak_bytes=peak * MB), count=count),)


def beyond_reserve(room: int, held: int = 0) -> Memory:
    return Memory(available_bytes=RESERVE_BYTES + room * MB, held_bytes=held * MB)


def seen(
    running: tuple[LoadGroup, ...],
    waiting: tuple[LoadGroup, ...],
    memory: Memory,
    *,
    size: int,
    state: LaneSizingState | None = None,
) -> LaneObservation:
    return LaneObservation(
        now=100.0,
        size=size,
        floor=1,
        ceiling=64,
        cores=2.0,
        running=running,
        waiting=waiting,
        memory=memory,
        state=state or LaneSizingState(),
    )


def test_tasks_are_added_while_all_peaks_fit_into_memory() -> None:
    # The tasks will take 2 x 100 - 150 more: 1000 - 50 leaves room for 9 others.
    assert compute_memory_size(group(2, 100), group(50, 100), beyond_reserve(1000, held=150)) == 11


def test_memory_for_wide_tasks_is_counted_in_their_slots() -> None:
    running, waiting = (
        tuple(LoadGroup(load=replace(one.load, slots=3), count=one.count) for one in group(count, 100))
        for count in (2, 50)
    )
    assert compute_memory_size(running, waiting, beyond_reserve(1000, held=150)) == 33


def test_each_stage_counts_with_its_own_peak() -> None:
    waiting = (*group(3, 100), *group(5, 400, "b"))
    assert compute_memory_size((), waiting, beyond_reserve(1000)) == 4


def test_tasks_of_unknown_peak_are_added_while_there_is_room() -> None:
    assert compute_memory_size(group(2, 100), group(50, 0), beyond_reserve(1, held=200)) == 52
    assert compute_memory_size(group(2, 100), group(50, 0), beyond_reserve(0, held=200)) == 2


def test_half_of_the_reserve_is_spent_before_fewer_tasks_run() -> None:
    spared = RESERVE_BYTES // MB // 2
    assert compute_memory_size(group(8, 100), group(9, 100), beyond_reserve(-spared, held=800)) == 8
    assert compute_memory_size(group(8, 100), group(9, 100), beyond_reserve(-spared - 101, held=800)) == 6


def test_one_task_runs_with_any_memory() -> None:
    assert compute_memory_size(group(3, 100), group(9, 100), Memory(available_bytes=1)) == 1
    assert compute_memory_size((), group(9, 100), Memory(available_bytes=1)) == 1


def test_run_grows_to_the_memory_limit_and_names_it() -> None:
    step = decide_lane_size(seen((), group(50, 100), beyond_reserve(1000), size=10))
    assert (step.size, step.action, step.reason) == (10, "hold", "memory_limit")


def test_slots_without_memory_go_at_once() -> None:
    step = decide_lane_size(seen(group(2, 100), group(50, 100), beyond_reserve(300, held=200), size=32))
    assert (step.size, step.action, step.reason) == (5, "down", "memory_limit")


def test_brief_shortage_of_memory_keeps_running_tasks() -> None:
    short = Memory(available_bytes=1, held_bytes=800 * MB)
    first = decide_lane_size(seen(group(8, 100), group(9, 100), short, size=8))
    assert (first.size, first.reason) == (8, "memory_limit")
    since = LaneSizingState(history=first.state.history, short_since=100.0 - SHORT_SECONDS)
    later = decide_lane_size(seen(group(8, 100), group(9, 100), short, size=8, state=since))
    assert (later.size, later.action, later.reason) == (6, "down", "memory_limit")


def test_memory_is_no_reason_without_waiting_tasks() -> None:
    step = decide_lane_size(seen(group(3, 100), (), Memory(available_bytes=1), size=8))
    assert (step.size, step.reason) == (8, "stabilizing")


@pytest.mark.parametrize(
    ("total", "reserve"), [(0, 256), (256, 32), (512, 64), (2048, 256), (1 << 20, 256)], ids=lambda each: f"{each}MiB"
)
def test_reserve_is_an_eighth_of_a_small_machine(total: int, reserve: int) -> None:
    assert compute_reserve_bytes(total * MB) == reserve * MB


def test_pool_gets_the_workers_that_memory_holds() -> None:
    memory = PoolMemory(available_bytes=RESERVE_BYTES + 1000 * MB, growth_bytes=50 * MB, peak_bytes=100 * MB)
    assert compute_pool_memory_size(2, memory) == 11
    short = PoolMemory(available_bytes=RESERVE_BYTES, growth_bytes=50 * MB, peak_bytes=100 * MB)
    assert compute_pool_memory_size(2, short) == 2


_TASKS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 800)), max_size=5)


def _drawn(drawn: list[tuple[int, int]]) -> tuple[LoadGroup, ...]:
    return tuple(entry for count, peak in drawn for entry in group(count, peak))


@given(_TASKS, _TASKS, st.integers(0, 16_000), st.integers(0, 8000), st.integers(0, 16_000))
def test_more_memory_never_holds_fewer_tasks(
    running: list[tuple[int, int]], waiting: list[tuple[int, int]], available: int, held: int, more: int
) -> None:
    def size(megabytes: int) -> int:
        memory = Memory(available_bytes=megabytes * MB, held_bytes=held * MB)
        return compute_memory_size(_drawn(running), _drawn(waiting), memory)

    assert 1 <= size(available) <= size(available + more)


@given(_TASKS, _TASKS, st.integers(0, 16_000), st.integers(0, 8000))
def test_added_tasks_have_room_for_their_peaks(
    running: list[tuple[int, int]], waiting: list[tuple[int, int]], available: int, held: int
) -> None:
    memory = Memory(available_bytes=available * MB, held_bytes=held * MB)
    before, behind = _drawn(running), _drawn(waiting)
    there = sum(entry.count for entry in before)
    added = compute_memory_size(before, behind, memory) - there
    peaks = [entry.load.peak_bytes for entry in behind for _ in range(entry.count)]
    if there and added > 0:
        growth = max(0, sum(entry.count * entry.load.peak_bytes for entry in before) - held * MB)
        assert sum(peaks[:added]) + growth <= available * MB - RESERVE_BYTES
