"""Read CPU time, run delay and memory of threads and processes from /proc; 0 if they have exited."""

from __future__ import annotations

import contextlib
import os
import time

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def read_thread_cpu_seconds(thread: int) -> float:
    """Return the CPU time of a live thread of this process (`Thread.ident`); from another thread."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


def read_run_delay_seconds(path: str) -> float:
    """Return how long the thread of a `schedstat` file was runnable without a core."""
    try:
        return int(_read(path).split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def list_thread_children(thread: int) -> tuple[int, ...]:
    """Return the child processes that a thread of this process started, by its native id, zombies too.

    Empty if the thread has exited: another thread has inherited its children. A child that starts or exits meanwhile
    may be missing, or hide another one: read twice if it matters.
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
        pass  # it has exited
    return found


def read_start_time(process: int) -> str:
    """Return the start time of a process in kernel ticks; "" if it has exited or is a zombie."""
    try:
        fields = _read(f"/proc/{process}/stat").rpartition(b")")[2].split()
        return "" if fields[0] in b"ZX" else fields[19].decode()
    except (OSError, IndexError):
        return ""


def read_command_name(process: int) -> str:
    """Return the name of a process's program, at most 15 characters; "?" if it has exited."""
    try:
        return _read(f"/proc/{process}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return "?"


def read_memory_peak_bytes(process: int | str = "self") -> int:
    """Return the highest memory use of a process since its start, or since its high-water mark was reset."""
    try:
        for line in _read(f"/proc/{process}/status").splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return 0


def read_memory_and_peak_bytes(process: int | str) -> tuple[int, int]:
    """Return the current and the highest memory use of a process with one read; zeros if it has exited."""
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
    """Return the current memory use of a process."""
    try:
        return int(_read(f"/proc/{process}/statm").split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def measure_trees(roots: set[int]) -> dict[int, tuple[float, int]]:
    """Return CPU seconds and memory bytes of each root's process tree, with one scan of /proc.

    CPU time includes reaped descendants (in the figures of their parents) and live ones.
    """
    found = _read_processes()
    owner: dict[int, int] = {}
    totals = dict.fromkeys(roots, (0.0, 0))
    for pid, (_, cpu_seconds) in found.items():
        root = _find_root(pid, found, roots, owner)
        if root:
            cpu, memory = totals[root]
            totals[root] = (cpu + cpu_seconds, memory + read_memory_bytes(pid))
    return totals


def measure_descendants_cpu(root: int) -> float:
    """Return the CPU time of a process's descendants that are not reaped yet, zombies too."""
    found = _read_processes()
    owner: dict[int, int] = {}
    return sum(cpu for pid, (_, cpu) in found.items() if pid != root and _find_root(pid, found, {root}, owner) == root)


def _find_root(pid: int, found: dict[int, tuple[int, float]], roots: set[int], owner: dict[int, int]) -> int:
    path = []
    root = pid
    while root not in roots and root not in owner and root in found:
        path.append(root)
        root = found[root][0]
    root = root if root in roots else owner.get(root, 0)
    owner.update(dict.fromkeys(path, root))
    return root


def _read_processes() -> dict[int, tuple[int, float]]:
    """Return the parent and the CPU seconds, reaped children included, of every process."""
    found: dict[int, tuple[int, float]] = {}
    try:
        names = os.listdir("/proc")  # noqa: PTH208 -- hundreds of Path objects would be most of the cost
    except OSError:
        return found
    for name in names:
        if name.isdigit():
            try:
                fields = _read(f"/proc/{name}/stat").rpartition(b")")[2].split()
                found[int(name)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS_PER_SECOND)
            except (OSError, IndexError, ValueError):
                continue  # it exited during the scan
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
