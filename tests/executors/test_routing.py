"""Router chooses threads or processes by measurements."""

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
def test_unknown_function_follows_the_strategy(strategy: Strategy, place: str) -> None:
    assert Router(strategy).choose("f") == place


@pytest.mark.parametrize("strategy", [Strategy.HYBRID, Strategy.ADAPTIVE])
def test_cpu_bound_function_moves_and_waiting_function_stays(strategy: Strategy) -> None:
    router = Router(strategy)
    router.learn("burns", measured(cpu=0.95), concurrent=1)
    router.learn("waits", measured(cpu=0.01), concurrent=8)
    assert (router.choose("burns"), router.choose("waits")) == ("processes", "threads")
    assert (router.is_gil_bound("burns"), router.is_gil_bound("waits")) == (True, False)


@pytest.mark.parametrize(("concurrent", "share"), [(2, 0.51), (4, 0.27), (8, 0.15)])
def test_burners_that_share_the_interpreter_lock_are_recognized(concurrent: int, share: float) -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("burns", measured(cpu=share), concurrent=concurrent)
    assert router.choose("burns") == "processes"


def test_wait_for_a_core_counts_as_demand() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("burns", measured(cpu=0.4, delay=0.58), concurrent=1)
    assert router.choose("burns") == "processes"


def test_function_that_waits_in_processes_returns_to_threads() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("changes", measured(cpu=1.0), concurrent=1)
    for _ in range(5):
        router.learn("changes", measured(cpu=0.0, pid=1), concurrent=1)
    assert router.choose("changes") == "threads"


def test_short_tasks_stay_in_threads() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.learn("short", measured(cpu=0.0005, wall=0.0005), concurrent=1)
    assert router.choose("short") == "threads"


def test_pinned_function_stays_with_its_reason() -> None:
    router = Router(Strategy.ADAPTIVE)
    router.pin_to_threads("f", "it is marked thread_only")
    router.learn("f", measured(cpu=1.0), concurrent=1)
    assert (router.choose("f"), router.get_pin_reason("f")) == ("threads", "it is marked thread_only")


def seen_to_wait(router: Router) -> None:
    for _ in range(5):
        router.learn("f", measured(cpu=0.02), concurrent=1)


def test_waiting_functions_under_a_full_lock_need_a_trial() -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.learn("f", measured(cpu=0.02), concurrent=60)
    assert (router.choose("f"), router.needs_trial("f")) == ("threads", True)


@pytest.mark.parametrize(("cpu", "place"), [(0.02, "threads"), (1.0, "processes")])
def test_trial_in_a_process_decides(cpu: float, place: str) -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.learn("f", measured(cpu=0.02), concurrent=60)
    for _ in range(2):
        router.learn("f", measured(cpu=cpu, pid=1), concurrent=1)
    assert (router.choose("f"), router.needs_trial("f")) == (place, False)


def test_pinned_function_needs_no_trial() -> None:
    router = Router(Strategy.ADAPTIVE)
    seen_to_wait(router)
    router.pin_to_threads("f", "it is marked thread_only")
    router.learn("f", measured(cpu=0.02), concurrent=60)
    assert not router.needs_trial("f")
