"""A function goes where its tasks were measured to belong."""

from __future__ import annotations

import os

import pytest

from paropt_exporter.events import Measurement, Strategy
from paropt_exporter.executors import Router


def measured(*, cpu: float, wall: float = 1.0, delay: float = 0.0, pid: int | None = None) -> Measurement:
    return Measurement(
        worker="w", pid=os.getpid() if pid is None else pid, started_seconds=10.0, ended_seconds=10.0 + wall,
        cpu_seconds=cpu, run_delay_seconds=delay,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("strategy", "place"),
    [
        (Strategy.THREAD, "threads"),
        (Strategy.SEQUENTIAL, "threads"),
        (Strategy.PROCESS, "processes"),
        (Strategy.HYBRID, "threads"),
        (Strategy.ADAPTIVE, "threads"),
    ],
)
def test_an_unknown_function_goes_where_the_strategy_says(strategy: Strategy, place: str) -> None:
    assert Router(strategy).choose("f") == place


@pytest.mark.parametrize("strategy", [Strategy.HYBRID, Strategy.ADAPTIVE])
def test_cpu_bound_work_moves_to_processes_and_waiting_work_stays(strategy: Strategy) -> None:
    router = Router(strategy)
    router.learn("burns", measured(cpu=0.95), concurrent=1)
    router.learn("waits", measured(cpu=0.01), concurrent=8)
    assert (router.choose("burns"), router.choose("waits")) == ("processes", "threads")
    assert (router.is_gil_bound("burns"), router.is_gil_bound("waits")) == (True, False)


@pytest.mark.parametrize(("concurrent", "share"), [(2, 0.51), (4, 0.27), (8, 0.15)])
def test_burners_that_share_the_interpreters_lock_are_recognized(concurrent: int, share: float) -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("burns", measured(cpu=share), concurrent=concurrent)
    assert router.choose("burns") == "processes"


def test_waiting_for_a_core_does_not_count_as_waiting() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("burns", measured(cpu=0.4, delay=0.58), concurrent=1)
    assert router.choose("burns") == "processes"


def test_a_function_seen_to_wait_in_processes_comes_back() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("changes", measured(cpu=1.0), concurrent=1)
    for _ in range(5):
        router.learn("changes", measured(cpu=0.0, pid=1), concurrent=1)
    assert router.choose("changes") == "threads"


def test_tasks_too_short_to_be_worth_the_way_stay() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("short", measured(cpu=0.0005, wall=0.0005), concurrent=1)
    assert router.choose("short") == "threads"


def test_what_must_stay_stays_and_says_why() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.pin_to_threads("f", "it is marked thread_only")
    router.learn("f", measured(cpu=1.0), concurrent=1)
    assert (router.choose("f"), router.get_pin_reason("f")) == ("threads", "it is marked thread_only")


def seen_to_wait(router: Router) -> None:
    for _ in range(5):
        router.learn("f", measured(cpu=0.02), concurrent=1)


def test_many_that_wait_and_fill_the_interpreters_lock_together_are_doubted_not_moved() -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.learn("f", measured(cpu=0.02), concurrent=60)
    assert (router.choose("f"), router.needs_trial("f")) == ("threads", True)


@pytest.mark.parametrize(("cpu", "place"), [(0.02, "threads"), (1.0, "processes")])
def test_a_process_settles_the_doubt(cpu: float, place: str) -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.learn("f", measured(cpu=0.02), concurrent=60)
    for _ in range(2):
        router.learn("f", measured(cpu=cpu, pid=1), concurrent=1)
    assert (router.choose("f"), router.needs_trial("f")) == (place, False)


def test_what_may_not_move_is_not_doubted() -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.pin_to_threads("f", "it is marked thread_only")
    router.learn("f", measured(cpu=0.02), concurrent=60)
    assert not router.needs_trial("f")
