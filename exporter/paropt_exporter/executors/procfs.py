"""Reads CPU time, run-queue delay and memory of threads and processes from /proc; 0 where there is none."""

from __future__ import annotations

import contextlib
import os
import time

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def read_thread_cpu_seconds(thread: int) -> float:
    """Return the CPU time of a thread of this process that is alive (`Thread.ident`), read from outside."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


def read_run_delay_seconds(path: str) -> float:
    """Return how long the task behind a `schedstat` file was ready to run but had no core."""
    try:
        return int(_read(path).split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def list_thread_children(thread: int) -> tuple[int, ...]:
    """Return the child processes that a thread of this process started, by its native id, zombies too.

    Empty if the thread has ended: another one has inherited its children. A child that starts or ends meanwhile may be
    missing, or hide another one: look twice where it matters.
    """
    try:
        return tuple(map(int, _read_all(f"/proc/self/task/{thread}/children").split()))
    except OSError:
        return ()


def list_children(process: int | str) -> set[int]:
    """Return the child processes of a process ("self": this one), of all its threads, zombies too."""
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{process}/task"):  # noqa: PTH208 -- Path is not worth its import in a worker
            with contextlib.suppress(OSError):
                found.update(map(int, _read_all(f"/proc/{process}/task/{thread}/children").split()))
    except OSError:
        pass  # it has ended
    return found


def read_start_time(process: int) -> str:
    """Return when a process began, in the kernel's ticks; "" if it has ended or is a zombie."""
    try:
        fields = _read(f"/proc/{process}/stat").rpartition(b")")[2].split()
        return "" if fields[0] in b"ZX" else fields[19].decode()
    except (OSError, IndexError):
        return ""


def read_command_name(process: int) -> str:
    """Return the name of a process's program, at most 15 characters; "?" if it has ended."""
    try:
        return _read(f"/proc/{process}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def read_memory_peak_bytes(process: int | str = "self") -> int:
    """Return the highest memory use of a process since it began, or since its high-water mark was reset."""
    try:
        for line in _read(f"/proc/{process}/status").splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0


def read_memory_and_peak_bytes(process: int | str) -> tuple[int, int]:
    """Return what a process has in memory now and its highest use, by one read; zeros where there is none."""
    found = {b"VmRSS:": 0, b"VmHWM:": 0}
    try:
        for line in _read(f"/proc/{process}/status").splitlines():
            name, _, value = line.partition(b"\t")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return found[b"VmRSS:"], found[b"VmHWM:"]


def read_memory_bytes(process: int | str = "self") -> int:
    """Return what a process has in memory now."""
    try:
        return int(_read(f"/proc/{process}/statm").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def measure_trees(roots: set[int]) -> dict[int, tuple[float, int]]:
    """Return CPU seconds and memory bytes of each root's process tree, by one walk over /proc.

    CPU counts descendants that were waited for (they are in their parent's figures) and those that live on.
    """
    found = _processes()
    owner: dict[int, int] = {}
    totals = dict.fromkeys(roots, (0.0, 0))
    for pid, (_, cpu_seconds) in found.items():
        root = _root_of(pid, found, roots, owner)
        if root:
            cpu, memory = totals[root]
            totals[root] = (cpu + cpu_seconds, memory + read_memory_bytes(pid))
    return totals


def measure_descendants_cpu(root: int) -> float:
    """Return the CPU time of a process's descendants that nobody has waited for yet, zombies too."""
    found = _processes()
    owner: dict[int, int] = {}
    return sum(cpu for pid, (_, cpu) in found.items() if pid != root and _root_of(pid, found, {root}, owner) == root)


def _root_of(pid: int, found: dict[int, tuple[int, float]], roots: set[int], owner: dict[int, int]) -> int:
    path = []
    root = pid
    while root not in roots and root not in owner and root in found:
        path.append(root)
        root = found[root][0]
    root = root if root in roots else owner.get(root, 0)
    owner.update(dict.fromkeys(path, root))
    return root


def _processes() -> dict[int, tuple[int, float]]:
    """Return parent and CPU seconds (children that were waited for included) of every process."""
    found: dict[int, tuple[int, float]] = {}
    try:
        names = os.listdir("/proc")  # noqa: PTH208 -- hundreds of Path objects a walk would be most of its cost
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            try:
                fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
                found[int(name)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS_PER_SECOND)
            except (OSError, IndexError, ValueError):
                continue  # it ended while we looked
    return found


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 8192)
    finally:
        os.close(descriptor)


def _read_all(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 8192):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
