"""How long ended runs would have taken with other numbers of workers, by hand-reckoned examples and bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanes import stage
from paropt_exporter.history import TaskSummary
from paropt_exporter.history.what_if import Piece, makespan_seconds, most_at_once, pieces_of
from paropt_exporter.plan import PlannedStage
from paropt_exporter.records import Result


def took(
    pieces: list[Piece], workers: int, *stages: PlannedStage, cores: float = 2.0, memory_bytes: int = 1 << 30
) -> float:
    planned = stages or tuple(stage(name) for name in sorted({piece.stage for piece in pieces}))
    return makespan_seconds(pieces, planned, workers=workers, cores=cores, memory_bytes=memory_bytes)


def tasks(count: int, seconds: float = 2.0, share: float = 0.0, name: str = "a", **fields: bool) -> list[Piece]:
    return [Piece(stage=name, seconds=seconds, share=share, **fields) for _ in range(count)]


def attempt(
    number: int, begin: float, seconds: float, *, cpu: float = 0.0, delay: float = 0.0, gil_bound: bool = False
) -> TaskSummary:
    return TaskSummary(
        stage="a",
        task=number,
        result=Result.SUCCESS,
        started_timestamp_seconds=begin,
        duration_seconds=seconds,
        cpu_seconds=cpu,
        run_delay_seconds=delay,
        gil_bound=gil_bound,
    )


def test_tasks_that_wait_run_as_many_at_once_as_there_are_workers() -> None:
    assert [took(tasks(5), workers) for workers in (1, 2, 4, 5, 64)] == [10.0, 6.0, 4.0, 2.0, 2.0]


def test_tasks_that_compute_gain_nothing_beyond_the_cores() -> None:
    assert [took(tasks(4, share=1.0), workers) for workers in (1, 2, 4)] == pytest.approx([8.0, 4.0, 4.0])


def test_tasks_that_compute_half_of_their_time_fill_the_cores_at_twice_as_many() -> None:
    assert [took(tasks(4, share=0.5), workers) for workers in (1, 2, 4)] == pytest.approx([8.0, 4.0, 2.0])
    assert took(tasks(8, share=0.5), 8) == pytest.approx(3.0)  # 4 cores wanted of 2: half waits 1 s, half computes 2 s


def test_one_task_on_many_cores_is_slowed_by_the_cores_that_are_missing() -> None:
    assert took(tasks(1, share=4.0), 1) == pytest.approx(4.0)


def test_what_computes_under_one_interpreter_lock_gains_nothing_at_all() -> None:
    assert took(tasks(4, share=1.0, gil_bound=True), 4, cores=8.0) == pytest.approx(8.0)


def test_stages_wait_for_what_they_need() -> None:
    pieces = [*tasks(1, name="a"), *tasks(1, 3.0, name="b"), *tasks(1, 4.0, name="c")]
    assert took(pieces, 8, stage("b", needs=("a",)), stage("a"), stage("c", needs=("skipped",))) == 5.0


def test_locks_and_exclusive_stages_keep_apart() -> None:
    pieces = [*tasks(2, name="a"), *tasks(1, name="b")]
    assert took(pieces, 8, stage("a", locks=frozenset({"db"})), stage("b", locks=frozenset({"db"}))) == 4.0
    assert took(pieces, 8, stage("a"), stage("b", exclusive=True)) == 4.0


def test_slots_and_memory_bound_what_runs_at_once() -> None:
    assert took(tasks(4), 4, stage("a", slots=2)) == 4.0
    assert took(tasks(4), 1, stage("a", slots=2)) == 8.0
    assert took(tasks(4), 4, stage("a", memory_bytes=400), memory_bytes=1000) == 4.0


def test_tasks_that_took_no_time_and_none_at_all_take_none() -> None:
    assert took(tasks(3, 0.0), 1) == 0.0
    assert took([], 1, stage("a")) == 0.0


@given(
    seconds=st.lists(st.floats(0.01, 100.0), min_size=1, max_size=40),
    workers=st.integers(1, 10),
)
def test_no_schedule_is_shorter_than_the_work_allows_nor_longer_than_grahams_bound(
    seconds: list[float], workers: int
) -> None:
    pieces = [Piece(stage="a", seconds=each, share=0.0) for each in seconds]
    found = took(pieces, workers)
    assert found >= max(max(seconds), sum(seconds) / workers) * (1 - 1e-6)
    assert found <= (sum(seconds) / workers + max(seconds)) * (1 + 1e-6)


def test_delay_that_the_runs_own_tasks_caused_is_taken_out() -> None:
    crowded = [attempt(number, 0.0, 4.0, cpu=2.0, delay=2.0) for number in range(4)]
    assert pieces_of(crowded, 2.0) == [Piece(stage="a", seconds=2.0, share=1.0)] * 4


def test_delay_that_others_on_the_machine_caused_stays() -> None:
    (piece,) = pieces_of([attempt(0, 0.0, 4.0, cpu=2.0, delay=2.0)], 2.0)
    assert (piece.seconds, piece.share) == (4.0, 0.5)


def test_only_the_time_that_tasks_share_counts_as_crowded() -> None:
    before = attempt(0, 0.0, 2.0, cpu=1.0, delay=1.0)
    crowded = [attempt(number, 10.0, 4.0, cpu=2.0, delay=2.0) for number in range(1, 5)]
    assert [piece.seconds for piece in pieces_of([before, *crowded], 2.0)] == [2.0, 2.0, 2.0, 2.0, 2.0]


def test_attempts_of_one_task_are_one_piece() -> None:
    (piece,) = pieces_of([attempt(0, 0.0, 1.0, cpu=0.5), attempt(0, 5.0, 3.0, cpu=0.5)], 2.0)
    assert (piece.seconds, piece.share) == (4.0, 0.25)


def test_a_task_bound_by_the_interpreter_lock_is_as_long_as_it_computed() -> None:
    (piece,) = pieces_of([attempt(0, 0.0, 8.0, cpu=2.0, gil_bound=True)], 2.0)
    assert piece == Piece(stage="a", seconds=2.0, share=1.0, gil_bound=True)


def test_intervals_that_touch_do_not_overlap() -> None:
    assert most_at_once([(0.0, 1.0), (1.0, 2.0), (1.5, 3.0)]) == 2
    assert most_at_once([]) == 0
