"""Measures a task from inside the worker process that runs it."""

from __future__ import annotations

import os
import resource
from time import process_time

from paropt_exporter.executors import procfs


def run_delay_seconds() -> float:
    return procfs.read_run_delay_seconds("/proc/self/schedstat")


def children_cpu_seconds() -> float:
    """Return the CPU time of this process's children that it has waited for, their descendants included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def orphans_cpu_seconds() -> float:
    """Return the CPU time of descendants that nobody has waited for, alive or not.

    The worker is a subreaper: orphans stay its descendants, and a zombie's figures can be read until it is reaped.
    """
    return procfs.measure_descendants_cpu(os.getpid()) if _has_children() else 0.0


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


class Meter:
    """Measures one task in full; costs some 50 µs, and a walk over /proc where processes were left behind."""

    def __init__(self) -> None:
        _reset_memory_peak()
        self._delay_seconds = run_delay_seconds()
        self.orphans_seconds = orphans_cpu_seconds()
        self._cpu_seconds = self.orphans_seconds + children_cpu_seconds() + process_time()

    def stop(self) -> tuple[float, float, int]:
        """Return CPU and run-queue delay in seconds, and the highest memory use since the start in bytes."""
        cpu = process_time() + children_cpu_seconds()
        self.orphans_seconds = orphans_cpu_seconds()
        used = max(0.0, cpu + self.orphans_seconds - self._cpu_seconds)
        return used, run_delay_seconds() - self._delay_seconds, procfs.read_memory_peak_bytes()


def _reset_memory_peak() -> None:
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # not allowed here: the peak is then the highest since the worker began
    try:
        os.write(descriptor, b"5")  # proc(5): resets VmHWM to what is in memory now
    except OSError:
        pass
    finally:
        os.close(descriptor)
