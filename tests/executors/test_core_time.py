"""The core time of processes that are new, or that vanish between two samples."""

from __future__ import annotations

import os

import pytest

from paropt_exporter.executors import procfs
from paropt_exporter.executors.core_time import ThreadTime, read_age
from paropt_exporter.executors.supervisor.process_tree import Process, Tree


def new_thread(*, run: float, wait: float, switches: int, age: float, runnable: bool = True) -> ThreadTime:
    return ThreadTime((run, wait), runnable=runnable, now=10.0, switches=lambda: switches, age=age)


def test_new_process_that_never_slept_has_waited_since_its_start() -> None:
    thread = new_thread(run=0.001, wait=0.0, switches=0, age=0.3)
    assert thread.wanted == pytest.approx(0.3)


def test_first_wait_of_a_process_counts_once() -> None:
    thread = new_thread(run=0.001, wait=0.0, switches=0, age=0.3)
    thread.sample((0.011, 0.389), runnable=False, now=10.1, switches=lambda: 0)
    assert thread.wanted == pytest.approx(0.4)


def test_wait_that_goes_on_shows_in_frequent_samples() -> None:
    """Each was too short after the one before: a child process that waited for a core seemed to sleep."""
    thread = new_thread(run=0.001, wait=0.002, switches=1, age=0.003)
    for step in range(1, 21):
        thread.sample((0.001, 0.002), runnable=True, now=10.0 + 0.0025 * step, switches=lambda: 1)
    assert thread.wanted == pytest.approx(0.053, abs=0.003)


@pytest.mark.parametrize(("switches", "runnable"), [(1, True), (0, False)])
def test_new_process_that_may_have_slept_has_only_its_own_waits(switches: int, runnable: bool) -> None:
    thread = new_thread(run=0.001, wait=0.002, switches=switches, age=0.3, runnable=runnable)
    assert thread.wanted == pytest.approx(0.003)


def test_age_of_this_process_is_between_0_and_that_of_init() -> None:
    ages = [read_age(fields[19]) for pid in (str(os.getpid()), "1") if (fields := procfs.read_stat(pid))]
    assert 0 < ages[0] <= ages[-1]


@pytest.mark.parametrize(("state", "crowding", "waited"), [("R", 4.0, 0.0375), ("R", 1.0, 0.0), ("S", 4.0, 0.0)])
def test_runnable_process_that_vanishes_has_waited_half_way(state: str, crowding: float, waited: float) -> None:
    tree = Tree(2, "mark", 10.0)
    tree.members["2"] = Process("2", [state, *["0"] * 30])
    tree.refresh(set(), 10.1, crowding)
    assert tree.get_wait_seconds() == pytest.approx(waited)
