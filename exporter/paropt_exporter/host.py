"""Read how many cores and how much memory this process may use, within cgroup limits and CPU affinity."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes "no limit" as the highest page-aligned number


def count_cpus(root: Path = Path("/")) -> float:
    """Return how many cores this process may use, a fraction if a cgroup's quota is one; at least 0.01."""
    allowed = float(_count_allowed_cpus())
    quotas = [quota for folder in _iter_cgroups("cpu", root) if (quota := _read_cpu_quota(folder)) is not None]
    return max(0.01, min([allowed, *quotas]))


def count_cpu_workers(root: Path = Path("/")) -> int:
    """Return how many CPU-bound workers the cores allow: the cores rounded up, at least 1."""
    return max(1, math.ceil(count_cpus(root)))


def read_machine_memory_bytes(root: Path = Path("/")) -> tuple[int, int]:
    """Return the machine's total and available memory, without cgroup limits; zeros if unknown."""
    found = {}
    for line in _read(root / "proc/meminfo").splitlines():  # psutil reads the same, and takes 7 ms to load
        name, _, value = line.partition(":")
        if name in ("MemTotal", "MemAvailable"):
            found[name] = int(value.split()[0]) << 10  # in KiB
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)


def read_available_memory_bytes(
    root: Path = Path("/"), machine: Callable[[], tuple[int, int]] = read_machine_memory_bytes
) -> int:
    """Return the memory that the machine and the cgroups still have for this process; 0 if unknown."""
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


def _count_allowed_cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1


def _iter_cgroups(controller: str, root: Path) -> Iterator[Path]:
    """Yield the cgroup folders whose limits apply to this process: its own and each ancestor's, in v2 and v1."""
    mount = root / _CGROUP_ROOT.relative_to("/")
    for line in _read(root / "proc/self/cgroup").splitlines():
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            yield from _iter_ancestors(mount, path)
        elif controller in controllers.split(","):
            yield from _iter_ancestors(mount / controller, path)


def _iter_ancestors(mount: Path, path: str) -> Iterator[Path]:
    folder = mount / path.lstrip("/")
    while True:
        yield folder
        if folder == mount or mount not in folder.parents:
            return
        folder = folder.parent


def _read_cpu_quota(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    if not quota:
        quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):
        return None  # "max", or no such file: no limit here


def _read_memory_left(folder: Path) -> int | None:
    for limit_name, used_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, used = int(_read(folder / limit_name)), int(_read(folder / used_name))
        except ValueError:
            continue
        if limit >= _UNLIMITED_BYTES:
            return None
        # The kernel gives inactive cache back under pressure.
        return limit - max(0, used - _read_field(folder / "memory.stat", cache_name))
    return None


def _read_field(path: Path, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read_memory_limit(folder: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int(_read(folder / name))
        except ValueError:
            continue  # "max", or no such file: no limit here
        return limit if limit < _UNLIMITED_BYTES else None
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
