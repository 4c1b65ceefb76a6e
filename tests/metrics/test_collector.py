"""PoolCollector exports a program's pools on its own prometheus_client registry."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from paropt_exporter import AdaptivePool, AdaptiveWorkerPool, PoolCollector, ProcessPool, StageCollector, ThreadPool
from support.pool_tasks import eventually
from support.processes import read_printed


def test_a_pool_is_read_at_each_scrape() -> None:
    registry = CollectorRegistry()
    with ThreadPool(2, name="orders") as pool:
        registry.register(PoolCollector(pool, project="shop"))
        place = {"project": "shop", "pool": "orders"}
        assert registry.get_sample_value("paropt_pool_tasks_submitted_total", place) == 0
        assert list(pool.map(abs, [-1, 2, -3])) == [1, 2, 3]
        assert registry.get_sample_value("paropt_pool_tasks_submitted_total", place) == 3
        assert registry.get_sample_value("paropt_pool_size_target", place) == 2
        failing = pool.submit(int, "no number")
        with pytest.raises(ValueError, match="no number"):
            failing.result()
        finished = registry.get_sample_value("paropt_pool_tasks_finished_total", {**place, "result": "failure"})
        assert finished == 1


def test_the_pools_of_an_adaptive_pool_are_exported() -> None:
    registry = CollectorRegistry()
    with AdaptiveWorkerPool() as pool:
        registry.register(PoolCollector(pool, project="shop"))
        assert pool.submit(abs, -1).result() == 1
        names = {sample.labels["pool"] for family in registry.collect() for sample in family.samples}
        assert "threads" in names


def test_adaptive_pools_with_names_have_series_of_their_own() -> None:
    registry = CollectorRegistry()
    with AdaptivePool(name="orders") as orders, AdaptivePool("process", 1, name="images") as images:
        registry.register(PoolCollector(orders, images, project="shop"))
        assert (orders.submit(abs, -1).result(), images.submit(abs, -2).result()) == (1, 2)
        for pool in ("orders-threads", "images-processes"):
            labels = {"project": "shop", "pool": pool}
            assert registry.get_sample_value("paropt_pool_tasks_submitted_total", labels) == 1


@pytest.mark.parametrize("strategy", ["adaptive", "hybrid", "thread_pool"])
def test_all_waiting_tasks_of_a_worker_pool_are_queued(strategy: str) -> None:
    """Most wait before its pools. The page of a pool with a thousand waiting tasks said that none waits."""
    registry, gate, tasks = CollectorRegistry(), Event(), 80  # more than an adaptive pool has threads
    place = {"project": "shop", "pool": "threads"}
    with AdaptiveWorkerPool(strategy, 2) as pool:
        registry.register(PoolCollector(pool, project="shop"))
        futures = [pool.submit(gate.wait) for _ in range(tasks)]

        def count_queued() -> float:
            return registry.get_sample_value("paropt_pool_queue_depth", place) or 0.0

        try:
            assert eventually(lambda: sum(future.running() for future in futures) + count_queued() == tasks)
            assert count_queued() > 0
            assert (registry.get_sample_value("paropt_pool_oldest_task_age_seconds", place) or 0.0) > 0
        finally:
            gate.set()


def test_labels_that_are_no_strings_are_refused() -> None:
    """Each scrape of the whole registry failed with: 'NoneType' object has no attribute 'isascii'."""
    with ThreadPool(1) as pool, pytest.raises(TypeError, match="project is None: expected a string"):
        PoolCollector(pool, project=os.environ.get("NO_SUCH_PROJECT"))  # type: ignore[arg-type]
    with AdaptiveWorkerPool() as stages, pytest.raises(TypeError, match="lane is 2: expected a string"):
        StageCollector(stages, project="shop", lane=2)  # type: ignore[arg-type]
    for make in (ThreadPool, ProcessPool):
        with pytest.raises(TypeError, match="the name of a pool is 3: expected a string"):
            make(1, name=3)  # type: ignore[arg-type]


def test_executor_without_statistics_is_refused() -> None:
    """Each scrape of the whole registry failed."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError, match="has no statistics"):
        PoolCollector(pool, project="shop")  # type: ignore[arg-type]


def test_pools_with_one_name_count_as_one() -> None:
    """Two pools without a name have the same one, and so have the threads of an AdaptiveWorkerPool."""
    registry = CollectorRegistry()
    with ThreadPool(1) as one, ThreadPool(3) as other, AdaptiveWorkerPool("thread_pool", 2) as pool:
        registry.register(PoolCollector(one, other, pool, project="shop"))
        assert [each.submit(abs, -1).result() for each in (one, one, other, pool)] == [1] * 4
        place = {"project": "shop", "pool": "threads"}
        assert registry.get_sample_value("paropt_pool_size_target", place) == 6
        assert registry.get_sample_value("paropt_pool_tasks_submitted_total", place) == 4
        epochs = [statistics.epoch_timestamp_seconds for statistics in (other.statistics(), *pool.statistics())]
        assert registry.get_sample_value("paropt_pool_epoch_timestamp_seconds", place) == max(epochs)


def test_names_that_are_no_valid_unicode_leave_the_rest_of_the_page() -> None:
    registry = CollectorRegistry()
    with ThreadPool(1, name="\udcff.csv") as pool:
        registry.register(PoolCollector(pool, project="shop\udcff"))
        page = generate_latest(registry).decode()
    assert r'paropt_pool_size{pool="\\udcff.csv",project="shop\\udcff"} 1.0' in page


MULTI_PROCESS_PROGRAM = """
from paropt_exporter import PoolCollector, ProcessPool
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess

def count_jobs(number):
    Counter("jobs", "Jobs done.").inc(number)

registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
with ProcessPool(1) as pool:
    registry.register(PoolCollector(pool, project="shop"))
    pool.submit(count_jobs, 2).result()
    count_jobs(1)
    page = generate_latest(registry).decode()
print(*(line for line in page.splitlines() if line.startswith(("jobs_total", "paropt_pool_size{"))), sep="\\n")
"""


def test_multi_process_mode_of_the_client_works_beside_a_collector(tmp_path: Path) -> None:
    """Importing the collector removed the variable: values of other processes were lost, or `Counter` failed."""
    printed = read_printed(MULTI_PROCESS_PROGRAM, env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    assert printed.splitlines() == [
        "jobs_total 3.0",
        'paropt_pool_size{pool="processes",project="shop"} 1.0',
    ]
