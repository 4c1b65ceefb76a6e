"""The number of workers follows the target: up at once, down after a while, and never by ending a busy worker."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from paropt_exporter.executors.cluster.placement import ClusterSize
from support.cluster_workers import build_worker


@dataclass
class RecordedCluster:
    """Notes the orders that it gets."""

    can_scale_down: bool = True
    orders: list[object] = field(default_factory=list)

    def scale(self, workers: int) -> None:
        self.orders.append(workers)

    def scale_down(self, names: list[str | int]) -> None:
        self.orders.append(sorted(names))


def test_target_in_slots_becomes_workers_by_their_threads() -> None:
    cluster = RecordedCluster()
    size = ClusterSize(cluster, idle_seconds=10.0)
    size.adjust(5, [], 0.0)
    size.adjust(9, [build_worker("a", threads=4)], 1.0)
    assert cluster.orders == [5]  # 9 slots are 3 workers of 4 threads: as many were asked for before
    size.adjust(24, [build_worker("a", threads=4)], 2.0)
    assert cluster.orders == [5, 6]


def test_surplus_is_kept_for_a_while() -> None:
    cluster = RecordedCluster()
    size = ClusterSize(cluster, idle_seconds=10.0)
    workers = [build_worker(name) for name in "abc"]
    size.adjust(3, workers, 0.0)
    size.adjust(1, workers, 1.0)
    assert size.get_next_check() == 11.0
    size.adjust(1, workers, 10.9)
    assert cluster.orders == [3]
    assert [worker.name for worker in size.adjust(1, workers, 11.0)] == ["a", "b"]
    assert cluster.orders == [3, ["a", "b"]]


def test_target_that_grows_again_in_time_costs_nothing() -> None:
    cluster = RecordedCluster()
    size = ClusterSize(cluster, idle_seconds=10.0)
    workers = [build_worker(name) for name in "abc"]
    size.adjust(3, workers, 0.0)
    size.adjust(1, workers, 1.0)
    size.adjust(3, workers, 5.0)
    assert size.adjust(1, workers, 12.0) == ()
    assert cluster.orders == [3]


def test_busy_worker_drains_before_it_is_ended() -> None:
    cluster = RecordedCluster()
    size = ClusterSize(cluster, idle_seconds=0.0)
    busy, busier = build_worker("busy", taken=1), build_worker("busier", taken=2)
    size.adjust(2, [busy, busier], 0.0)
    assert size.adjust(1, [busy, busier], 1.0) == ()
    assert (busy.takes_tasks, busier.takes_tasks) == (False, True)
    busy.taken_slots = 0
    assert size.adjust(1, [busy, busier], 2.0) == (busy,)
    assert cluster.orders == [2, ["busy"]]


def test_draining_worker_takes_tasks_again_if_the_target_grows() -> None:
    size = ClusterSize(RecordedCluster(), idle_seconds=0.0)
    workers = [build_worker("a", taken=1), build_worker("b", taken=1)]
    size.adjust(2, workers, 0.0)
    size.adjust(1, workers, 1.0)
    assert sorted(worker.takes_tasks for worker in workers) == [False, True]
    size.adjust(2, workers, 2.0)
    assert all(worker.takes_tasks for worker in workers)


@pytest.mark.parametrize("target", [3, 2])
def test_cluster_is_asked_again_for_workers_that_have_ended(target: int) -> None:
    cluster = RecordedCluster()
    size = ClusterSize(cluster, idle_seconds=10.0)
    workers = [build_worker(name) for name in "abc"]
    size.adjust(3, workers, 0.0)
    size.adjust(3, workers[:1], 20.0)
    assert size.get_next_check() == 30.0
    size.adjust(target, workers[:1], 30.0)
    size.adjust(target, workers[:1], 59.0)  # they may be on their way
    assert cluster.orders == [3, target]
    size.adjust(target, workers[:target], 90.0)
    assert cluster.orders == [3, target]
    assert size.get_next_check() is None


def test_last_worker_is_never_ended() -> None:
    cluster = RecordedCluster()
    size = ClusterSize(cluster, idle_seconds=0.0)
    size.adjust(4, [], 0.0)
    assert size.adjust(1, [build_worker("only")], 1.0) == ()
    assert cluster.orders == [4]


def test_cluster_without_names_shrinks_only_while_all_are_idle() -> None:
    cluster = RecordedCluster(can_scale_down=False)
    size = ClusterSize(cluster, idle_seconds=0.0)
    workers = [build_worker("a", taken=1), build_worker("b")]
    size.adjust(2, workers, 0.0)
    size.adjust(1, workers, 1.0)
    assert cluster.orders == [2]
    workers[0].taken_slots = 0
    size.adjust(1, workers, 2.0)
    assert cluster.orders == [2, 1]
