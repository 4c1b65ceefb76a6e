"""Read how many cores and how much memory this process may use, within cgroup limits and CPU affinity."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from time import monotonic

RESERVE_BYTES = 256 << 20  # the most memory that no new worker may take
_RESERVED_PART = 8  # of a small container; with the whole reserve, one of 256 MiB would run one task after another
_CGROUPS = "sys/fs/cgroup"
_READ_BYTES = 1 << 16
_UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as the highest page-aligned number
# In v2 the kernel kills at the first limit and, from the second one on, stops processes for longer and longer.
_MEMORY_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
# Memory in memory.stat that the kernel frees under pressure, as in MemAvailable: cached files, inodes and names. v1
# lacks the last two.
_RECLAIMABLE = ("active_file", "inactive_file", "slab_reclaimable")
_RECLAIMABLE_V1 = ("total_active_file", "total_inactive_file")


def count_cpus(root: Path = Path("/")) -> float:
    """Return how many cores this process may use, a fraction if a cgroup's quota is one; at least 0.01."""
    return max(0.01, min(float(_count_allowed_cpus()), _read_lowest_quota(root)))


def count_cpu_workers(root: Path = Path("/")) -> int:
    """Return how many CPU-bound workers the cores allow: the cores rounded up, at least 1.

    Each new pool asks, and the files of cgroups take 60 µs: they are read once a second.
    """
    return max(1, math.ceil(min(float(_count_allowed_cpus()), _read_lowest_quota_of_second(root, int(monotonic())))))


def read_machine_memory_bytes(root: Path = Path("/")) -> tuple[int, int]:
    """Return the machine's total and available memory, without cgroup limits; zeros if unknown."""
    found = {}  # psutil reads the same, and takes 7 ms to load
    for line in _read(os.path.join(root, "proc/meminfo")).splitlines():  # noqa: PTH118
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(value.split()[0]) << 10  # in KiB
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)


def read_available_memory_bytes(
    root: Path = Path("/"), machine: Callable[[], tuple[int, int]] = read_machine_memory_bytes
) -> int:
    """Return how much memory the machine and the cgroups have left for this process, in bytes; 0 if unknown."""
    free = [free for folder in _iter_cgroups("memory", root) if (free := _read_memory_left(folder)) is not None]
    total, available = machine()
    return max(0, min([*free, *([available] if total else [])], default=0))


def read_total_memory_bytes(
    root: Path = Path("/"), machine: Callable[[], tuple[int, int]] = read_machine_memory_bytes
) -> int:
    """Return the memory of the machine, or the lowest cgroup limit on it; 0 if unknown."""
    limits = [limit for folder in _iter_cgroups("memory", root) if (limit := _read_memory_limit(folder)) is not None]
    total, _ = machine()
    return min([*limits, *([total] if total else [])], default=0)


def compute_reserve_bytes(total_bytes: int) -> int:
    """Return the memory that no new worker may take: for memory that peaks don't show, and for other processes.

    An eighth of the total memory, and at most RESERVE_BYTES, also if the total is unknown (0).
    """
    return min(RESERVE_BYTES, total_bytes // _RESERVED_PART) if total_bytes else RESERVE_BYTES


def _count_allowed_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _read_lowest_quota(root: Path) -> float:
    quotas = [quota for folder in _iter_cgroups("cpu", root) if (quota := _read_cpu_quota(folder)) is not None]
    return min(quotas, default=math.inf)


@lru_cache(maxsize=1)
def _read_lowest_quota_of_second(root: Path, second: int) -> float:
    del second  # it makes the cache forget
    return _read_lowest_quota(root)


def _iter_cgroups(controller: str, root: Path) -> Iterator[str]:
    """Yield the cgroup folders whose limits apply to this process: its own and each ancestor's, in v2 and v1."""
    # As strings: each run reads a dozen of these files, and Path objects would take most of the time.
    mount = os.path.join(root, _CGROUPS)  # noqa: PTH118
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():  # noqa: PTH118
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            yield from _iter_ancestors(mount, path)
        elif controller in controllers.split(","):
            yield from _iter_ancestors(f"{mount}/{controller}", path)


def _iter_ancestors(mount: str, path: str) -> Iterator[str]:
    names = [name for name in path.split("/") if name not in ("", ".")]
    for count in range(len(names), -1, -1):
        yield "/".join((mount, *names[:count]))


def _read_cpu_quota(folder: str) -> float | None:
    quota, _, period = _read(f"{folder}/cpu.max").strip().partition(" ")
    if not quota:
        quota, period = _read(f"{folder}/cpu.cfs_quota_us").strip(), _read(f"{folder}/cpu.cfs_period_us").strip()
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None  # "max", or no such file: no limit here


def _read_memory_left(folder: str) -> int | None:
    limit = _read_memory_limit(folder)
    if limit is None:
        return None
    for used_name, reclaimable in (("memory.current", _RECLAIMABLE), ("memory.usage_in_bytes", _RECLAIMABLE_V1)):
        try:
            used = int(_read(f"{folder}/{used_name}"))
        except ValueError:
            continue
        return limit - max(0, used - _sum_fields(f"{folder}/memory.stat", reclaimable))
    return None


def _sum_fields(path: str, names: tuple[str, ...]) -> int:
    fields = (line.partition(" ") for line in _read(path).splitlines())
    return sum(int(value) for name, _, value in fields if name in names)


def _read_memory_limit(folder: str) -> int | None:
    texts = [_read(f"{folder}/{name}").strip() for name in _MEMORY_LIMITS]
    limit = min(
        (int(text) for text in texts if text.isdecimal()), default=_UNLIMITED_BYTES
    )  # others: "max", or no file
    return limit if limit < _UNLIMITED_BYTES else None


def _read(path: str) -> str:
    """Return the content of one of the kernel's files, or "" if it is missing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _READ_BYTES).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
