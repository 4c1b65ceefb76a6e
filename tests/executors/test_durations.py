"""The mean durations of functions, by which a ProcessPool sends tasks in batches."""

from __future__ import annotations

import sys

import pytest

from paropt_exporter.executors.processes.batches import Durations


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_equal_pickles_have_one_duration(size: int) -> None:
    durations = Durations()
    durations.learn(bytes(size), 3.0, 3)
    assert durations.get_expected(bytes(size)) == pytest.approx(1.0, abs=0.01)


def test_large_pickles_are_not_kept_alive() -> None:
    durations, function = Durations(), bytes(1 << 20)
    before = sys.getrefcount(function)
    durations.learn(function, 1.0, 1)
    assert sys.getrefcount(function) == before
