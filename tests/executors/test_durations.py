"""The mean durations of functions, by which a ProcessPool sends tasks in batches."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence

import pytest

from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.processes.batches import BATCH_SECONDS, Durations, WorkItem, take_batch
from paropt_exporter.executors.worker.payload import Packer


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_equal_pickles_have_one_duration(size: int) -> None:
    durations = Durations()
    durations.learn(bytes(size), "task", 3.0, 3)
    assert durations.get_expected(bytes(size), "task") == pytest.approx(1.0, abs=0.01)


def test_large_pickles_are_not_kept_alive() -> None:
    durations, function = Durations(), bytes(1 << 20)
    before = sys.getrefcount(function)
    durations.learn(function, "task", 1.0, 1)
    assert sys.getrefcount(function) == before


def make_closure(number: int) -> Callable[[], int]:
    return lambda: number


class Box:
    def __init__(self, number: int) -> None:
        self.number = number

    def read(self) -> int:
        return self.number


@pytest.mark.parametrize("make", [make_closure, lambda number: Box(number).read])
def test_closures_and_methods_with_different_values_have_one_duration(make: Callable[[int], Callable[[], int]]) -> None:
    durations, packer = Durations(), Packer()
    first, second = packer.pack_function(make(1)), packer.pack_function(make(2))
    assert first != second
    durations.learn(first, get_label(make(1)), 1e-6, 1)
    assert durations.get_expected(second, get_label(make(2))) < BATCH_SECONDS
    assert durations.get_expected(second, "another") > BATCH_SECONDS


def test_closure_with_large_values_travels_alone() -> None:
    durations = Durations()
    values = bytes(100_000)
    packed = Packer().pack_function(lambda: values)
    durations.learn(packed, "task", 1e-6, 1)
    assert durations.get_expected(packed, "task") > BATCH_SECONDS


def take_sizes(values: Sequence[object], *, busy: bool) -> list[int]:
    """Take two batches of a short function's tasks with these arguments, and return their lengths."""
    packer, durations = Packer(), Durations()
    durations.learn(packer.pack_function(len), "len", 1e-6, 1)
    queue = deque(WorkItem(TaskFuture(), packer.pack(len, (value,), {}), False, 0.0) for value in values)
    counts = []
    for _ in range(2):
        items: list[WorkItem] = []
        take_batch(items, deque(), queue, durations, 1.0, share=len(values), most=len(values), busy=busy)
        counts.append(len(items))
    return counts


@pytest.mark.parametrize(
    ("size", "busy", "counts"),
    [
        (2_000, True, [20, 0]),
        (20_000, True, [3, 3]),  # as fits into one receive
        (100_000, True, [1, 1]),
        (200_000, True, [0, 0]),  # it would wait, and could not use the shared memory
        (200_000, False, [1, 1]),
    ],
)
def test_batches_by_size_of_arguments(size: int, *, busy: bool, counts: list[int]) -> None:
    assert take_sizes([bytes(size)] * 20, busy=busy) == counts


def test_arguments_that_are_large_in_memory_and_short_in_a_pickle_travel_together() -> None:
    assert take_sizes([[None] * 10_000] * 6, busy=False) == [6, 0]
