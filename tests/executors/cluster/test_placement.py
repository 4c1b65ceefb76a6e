"""A task goes to a worker with free slots, whose host has the memory."""

from __future__ import annotations

from paropt_exporter.executors.cluster.placement import choose_batch_size, choose_worker
from paropt_exporter.executors.cluster.workers import (
    find_version_fault,
    format_differences,
    list_differences,
    read_versions,
)
from support.cluster_workers import add_item, build_worker

GIB = 1 << 30


def test_worker_with_the_most_free_slots_is_chosen() -> None:
    workers = [build_worker("a", threads=4, taken=3), build_worker("b", threads=4, taken=1), build_worker("c")]
    chosen = choose_worker(workers, slots=1)
    assert chosen is not None
    assert chosen.name == "b"


def test_full_and_draining_workers_get_nothing() -> None:
    draining = build_worker("b")
    draining.draining = True
    assert choose_worker([build_worker("a", taken=1), draining], slots=1) is None


def test_batch_ahead_goes_to_a_busy_worker() -> None:
    busy = build_worker("a", taken=1)
    assert choose_worker([busy], slots=1, batches_ahead=1) is busy


def test_wide_task_takes_all_slots_of_a_narrow_worker() -> None:
    workers = [build_worker("a", threads=2, taken=1), build_worker("b", threads=2)]
    chosen = choose_worker(workers, slots=8)
    assert chosen is not None
    assert chosen.name == "b"


def test_free_memory_counts_for_each_host_and_is_never_summed() -> None:
    one, two = (build_worker(name, host=name, threads=4, memory_bytes=3 * GIB) for name in "ab")
    add_item(one, memory_bytes=0)
    add_item(two, memory_bytes=0)
    assert choose_worker([one, two], slots=1, memory_bytes=3 * GIB) is not None
    assert choose_worker([one, two], slots=1, memory_bytes=4 * GIB) is None


def test_promised_memory_is_taken_until_it_is_used() -> None:
    unused, used = (build_worker(name, threads=4, memory_bytes=4 * GIB) for name in "ab")
    add_item(unused, memory_bytes=3 * GIB)
    add_item(used, memory_bytes=3 * GIB, used_bytes=2 * GIB)
    assert choose_worker([unused], slots=1, memory_bytes=2 * GIB) is None
    assert choose_worker([used], slots=1, memory_bytes=2 * GIB) is used


def test_task_that_fits_nowhere_runs_alone_on_a_host() -> None:
    worker = build_worker("a", threads=4, memory_bytes=GIB)
    assert choose_worker([worker], slots=1, memory_bytes=8 * GIB) is worker
    add_item(worker, memory_bytes=0)
    assert choose_worker([worker], slots=1, memory_bytes=8 * GIB) is None


def test_workers_of_one_host_share_its_memory() -> None:
    one, two = (build_worker(name, host="h", memory_bytes=4 * GIB) for name in "ab")
    add_item(one, memory_bytes=3 * GIB)
    assert choose_worker([two], slots=1, memory_bytes=2 * GIB) is two
    assert choose_worker([one, two], slots=1, memory_bytes=2 * GIB) is None


def test_batch_is_about_50_ms_of_work_and_a_fair_part_of_the_queue() -> None:
    assert choose_batch_size(None, queued=1000, slots=2) == 1
    assert choose_batch_size(0.005, queued=1000, slots=2) == 10
    assert choose_batch_size(0.005, queued=6, slots=2) == 3
    assert choose_batch_size(1.0, queued=1000, slots=2) == 1
    assert choose_batch_size(0.0, queued=10_000, slots=2) == 1000


def test_other_version_of_this_package_is_a_fault() -> None:
    ours = {"paropt-exporter": "2.0", "python": "3.11"}
    fault = find_version_fault(ours, {"paropt-exporter": "1.0", "python": "3.11", "git": "yes"}, needs_git=True)
    assert fault == "it has paropt-exporter 1.0, this is 2.0: pip install 'paropt-exporter[dask]==2.0'"


def test_missing_git_is_a_fault_where_files_travel() -> None:
    theirs = {**read_versions(), "git": ""}
    assert "no git" in find_version_fault(read_versions(), theirs, needs_git=True)
    assert find_version_fault(read_versions(), theirs, needs_git=False) == ""


def test_table_names_the_workers_that_differ_once() -> None:
    differs = list_differences({"python": "3.11"}, {"python": "3.12"}, ["ruff"])
    assert format_differences([("h/b", differs), ("h/a", differs), ("h/c", ())]) == [
        "workers that differ: h/a, h/b: python 3.12 instead of 3.11, no ruff"
    ]
