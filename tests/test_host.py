"""Cores and memory within CPU affinity and cgroup limits, in cgroup v1 and v2."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from paropt_exporter import host

GIB = 1 << 30
V1_UNLIMITED = str((1 << 63) - 4096)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a machine without cgroups."""
    return tmp_path


def machine() -> tuple[int, int]:
    """A machine of 8 GiB, 6 of them free."""
    return 8 * GIB, 6 * GIB


@pytest.fixture
def cores() -> Iterator[int]:
    """Return how many cores this process may use; restore its affinity after the test."""
    allowed = os.sched_getaffinity(0)
    yield len(allowed)
    os.sched_setaffinity(0, allowed)


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def v2(root: Path, **files: str) -> Path:
    """A process in the group /a/b of cgroup v2, with the files of that group; `parent_…` for /a."""
    write(root, "proc/self/cgroup", "0::/a/b\n")
    for name, text in files.items():
        folder = "a" if name.startswith("parent_") else "a/b"
        write(root, f"sys/fs/cgroup/{folder}/{name.removeprefix('parent_').replace('__', '.')}", text)
    return root


def v1(root: Path, **files: str) -> Path:
    """A process in the groups /a of the controllers of cgroup v1."""
    write(root, "proc/self/cgroup", "5:memory:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/x\n")
    for name, text in files.items():
        controller = "memory" if name.startswith("memory") else "cpu"
        write(root, f"sys/fs/cgroup/{controller}/a/{name.replace('__', '.')}", text)
    return root


def test_without_limits_the_whole_machine_counts(root: Path, cores: int) -> None:
    assert host.count_cpus(root) == cores
    assert host.read_total_memory_bytes(root, machine) == 8 * GIB
    assert host.read_available_memory_bytes(root, machine) == 6 * GIB


def test_affinity_limits_the_cores(root: Path, cores: int) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    assert host.count_cpus(root) == 1
    assert host.count_cpu_workers(root) == 1


def test_quota_of_half_a_core_is_half_a_core_and_one_worker(root: Path) -> None:
    v2(root, cpu__max="50000 100000\n")
    assert host.count_cpus(root) == 0.5
    assert host.count_cpu_workers(root) == 1


def test_cgroup_v1_quota_is_read_from_two_files(root: Path) -> None:
    v1(root, cpu__cfs_quota_us="25000\n", cpu__cfs_period_us="100000\n")
    assert host.count_cpus(root) == 0.25


def test_quotas_are_read_once_a_second_for_new_pools(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They took most of the time of a pool that started and ended without a task."""
    moments, read = iter((7.1, 7.9, 8.0)), list[str]()
    monkeypatch.setattr(host, "monotonic", lambda: next(moments))
    monkeypatch.setattr(host, "_read_cpu_quota", lambda folder: read.append(folder) or 1.0)  # type: ignore[func-returns-value]
    v2(root)
    assert [host.count_cpu_workers(root) for _ in range(3)] == [1, 1, 1]
    assert len(read) == 2 * len(set(read))


@pytest.mark.parametrize("quota", ["max 100000\n", "", "nonsense\n", "100000 0\n"])
def test_missing_or_invalid_quota_is_no_limit(root: Path, quota: str, cores: int) -> None:
    assert host.count_cpus(v2(root, cpu__max=quota)) == cores


def test_minus_one_is_no_quota_in_cgroup_v1(root: Path, cores: int) -> None:
    assert host.count_cpus(v1(root, cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")) == cores


def test_lowest_limit_of_all_ancestors_counts(root: Path) -> None:
    v2(root, cpu__max="100000 100000\n", parent_cpu__max="10000 100000\n")
    assert host.count_cpus(root) == 0.1


def test_available_memory_counts_cached_files_as_free(root: Path) -> None:
    """A build that reads its files again and again has most of them in `active_file`, up to the group's limit."""
    v2(
        root,
        memory__max=f"{256 << 20}\n",
        memory__current=f"{250 << 20}\n",
        memory__stat=(
            f"anon {60 << 20}\nfile {180 << 20}\nshmem {10 << 20}\nactive_anon {60 << 20}\n"
            f"inactive_file {70 << 20}\nactive_file {100 << 20}\nslab_reclaimable {5 << 20}\nslab_unreclaimable 1\n"
        ),
    )
    assert host.read_total_memory_bytes(root, machine) == 256 << 20
    assert host.read_available_memory_bytes(root, machine) == 181 << 20


@pytest.mark.parametrize("hard", ["max", f"{2 * GIB}"])
def test_limit_from_which_the_kernel_slows_a_group_down_counts(root: Path, hard: str) -> None:
    """systemd's MemoryHigh= is meant to be the main limit, and MemoryMax= the last resort."""
    v2(root, memory__max=f"{hard}\n", memory__high=f"{GIB}\n", memory__current=f"{GIB >> 2}\n", memory__stat="")
    assert host.read_total_memory_bytes(root, machine) == GIB
    assert host.read_available_memory_bytes(root, machine) == GIB - (GIB >> 2)


def test_cgroup_v1_memory_is_read_alike(root: Path) -> None:
    v1(
        root,
        memory__limit_in_bytes=f"{GIB}\n",
        memory__usage_in_bytes=f"{GIB >> 1}\n",
        memory__stat=f"inactive_file 1\ntotal_inactive_file {GIB >> 3}\ntotal_active_file {GIB >> 3}\n",
    )
    assert host.read_total_memory_bytes(root, machine) == GIB
    assert host.read_available_memory_bytes(root, machine) == GIB - (GIB >> 2)


def test_cgroup_without_a_memory_limit_leaves_the_machines(root: Path) -> None:
    v2(root, memory__max="max\n", memory__current="1\n")
    assert host.read_total_memory_bytes(root, machine) == 8 * GIB
    write(root, "proc/self/cgroup", "")
    v1(root, memory__limit_in_bytes=V1_UNLIMITED, memory__usage_in_bytes="1\n")
    assert host.read_total_memory_bytes(root, machine) == 8 * GIB
    assert host.read_available_memory_bytes(root, machine) == 6 * GIB


def test_cgroup_over_its_limit_leaves_zero(root: Path) -> None:
    v2(root, memory__max="1000\n", memory__current="5000\n")
    assert host.read_available_memory_bytes(root, machine) == 0


def test_memory_is_unknown_without_meminfo_and_cgroups(tmp_path: Path) -> None:
    assert host.read_total_memory_bytes(tmp_path, lambda: (0, 0)) == 0
    assert host.read_available_memory_bytes(tmp_path, lambda: (0, 0)) == 0


def test_full_machine_leaves_no_memory(root: Path) -> None:
    v2(root, memory__max=f"{GIB}\n", memory__current="0\n")
    assert host.read_available_memory_bytes(root, lambda: (8 * GIB, 0)) == 0


def test_memory_of_the_machine_is_the_kernels_figure(root: Path) -> None:
    write(root, "proc/meminfo", "MemTotal:  8 kB\nMemFree:  1 kB\nMemAvailable:  6 kB\nSwapTotal:  9 kB\n")
    assert host.read_machine_memory_bytes(root) == (8 << 10, 6 << 10)


def test_machine_without_proc_has_cores_and_unknown_memory(tmp_path: Path, cores: int) -> None:
    assert host.count_cpus(tmp_path) == cores
    assert host.read_machine_memory_bytes(tmp_path) == (0, 0)


def test_memory_of_the_machine_is_that_of_psutil() -> None:
    total, available = host.read_machine_memory_bytes()
    assert total == psutil.virtual_memory().total
    assert 0 < available <= total
