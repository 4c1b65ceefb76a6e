"""Sample from /proc how long the threads of a process ran, and how long they were runnable without a core.

The kernel adds a wait for a core to `schedstat` only when the wait ends. Until then the state of the thread shows it: a
thread is waiting if it is runnable at two samples in a row, did not give up its core in between, and was credited with
less than the time between them. So the CPU demand of a thread that only computes is one core, whether it gets a whole
core or a twelfth of one.

The supervisor of commands imports this module, so it imports almost nothing itself.
"""

from __future__ import annotations

import time

from paropt_exporter.executors import procfs

TYPE_CHECKING = False  # typing's own would cost the supervisor 0.7 MB, and type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NOTICEABLE_SECONDS = 0.005  # the `schedstat` of a running thread lags by up to one tick, which is less than this
_THREADS_FIELD, _START_FIELD, _MEMORY_FIELD = 17, 19, 21  # of /proc/PID/stat, after the command's name


class ThreadTime:
    """The times of one thread, in seconds: `run` and `wait` from `schedstat`; `wanted` is their sum plus the current
    wait.

    `pending` is the part of the current wait that `schedstat` does not contain yet. A thread that is runnable at two
    samples may have slept in between; its count of voluntary switches shows it, and is read only if it matters. `age`:
    the seconds since a process of one thread started; one that never slept has waited whenever it did not run.

    Guarantee: between two samples `wanted` grows by no more than the time between them, whatever the kernel adds late.
    """

    __slots__ = ("_switches", "at", "pending", "run", "runnable", "wait", "wanted")

    def __init__(
        self,
        schedstat: tuple[float, float],
        *,
        runnable: bool,
        now: float,
        switches: Callable[[], int | None],
        age: float | None = None,
    ) -> None:
        self.run, self.wait = schedstat
        self.pending = 0.0
        self.at, self.runnable = now, runnable
        self._switches = switches() if runnable else None
        missing = 0.0 if age is None else age - self.run - self.wait
        if missing > _NOTICEABLE_SECONDS and self._switches == 0:
            self.pending = missing
        self.wanted = self.run + self.wait + self.pending

    def sample(
        self, schedstat: tuple[float, float], *, runnable: bool, now: float, switches: Callable[[], int | None]
    ) -> None:
        """Add a sample: `schedstat` and the state at the monotonic time `now`; `switches` reads the count if needed."""
        run, wait = schedstat
        passed, credited = now - self.at, (run - self.run) + (wait - self.wait)
        pending = 0.0
        missing = passed + self.pending - credited
        if runnable and self.runnable and credited == 0 and missing <= _NOTICEABLE_SECONDS:
            return  # too soon to notice a wait: the next sample shows it
        suspected = runnable and self.runnable and missing > _NOTICEABLE_SECONDS
        # a thread must run before it can fall asleep
        if suspected and (run == self.run or self._stayed_runnable(switches())):
            pending = missing
        self.wanted += min(max(0.0, credited + pending - self.pending), passed)
        self.run, self.wait, self.pending, self.runnable, self.at = run, wait, pending, runnable, now

    def _stayed_runnable(self, switches: int | None) -> bool:
        before, self._switches = self._switches, switches
        return before == switches


class ProcessTime:
    """All threads of one process, from sample to sample. Ended threads count with their last sample."""

    __slots__ = ("_ended_run", "_ended_wait", "_threads", "pid")

    def __init__(self, pid: int | str) -> None:
        self.pid = pid
        self._threads: dict[str, ThreadTime] = {}
        self._ended_run = self._ended_wait = 0.0

    @property
    def run_seconds(self) -> float:
        return self._ended_run + sum(thread.run for thread in self._threads.values())

    @property
    def waited_seconds(self) -> float:
        """The waits that have ended, in seconds."""
        return self._ended_wait + sum(thread.wait for thread in self._threads.values())

    @property
    def wait_seconds(self) -> float:
        """All waits, current ones included, in seconds."""
        return self._ended_wait + sum(max(0.0, thread.wanted - thread.run) for thread in self._threads.values())

    def sample(self, *, threads: int, state: str, now: float, age: float | None = None) -> None:
        """Read all threads; `threads` and `state` come from a fresh read of the process's stat.

        `age`: the seconds since the process started; it counts in the first sample.
        """
        main = str(self.pid)
        if threads <= 1 and (not self._threads or self._threads.keys() == {main}):
            self._sample(main, procfs.locate(main), runnable=state == "R", now=now, age=age)
            return
        present = set(procfs.list_threads(main))
        for gone in self._threads.keys() - present:
            ended = self._threads.pop(gone)
            self._ended_run += ended.run
            self._ended_wait += ended.wait
        for thread in present:
            folder = f"{procfs.locate(main)}/task/{thread}"
            self._sample(thread, folder, runnable=procfs.is_runnable(folder), now=now)

    def _sample(self, thread: str, folder: str, *, runnable: bool, now: float, age: float | None = None) -> None:
        times = procfs.read_schedstat(f"{folder}/schedstat")
        if times is not None:
            known = self._threads.get(thread)

            def switches() -> int | None:
                return procfs.read_voluntary_switches(folder)

            if known is None:
                self._threads[thread] = ThreadTime(times, runnable=runnable, now=now, switches=switches, age=age)
            else:
                known.sample(times, runnable=runnable, now=now, switches=switches)


class TreeTime:
    """The process trees below given roots, found through each thread's list of children.

    Guarantee: the sums only grow, except for corrections of current waits. They miss processes that start and end
    between two samples, and the time of a process between its last sample and its end.
    """

    def __init__(self) -> None:
        self._processes: dict[str, ProcessTime] = {}
        self._ended_run = self._ended_wait = 0.0
        self.at = 0.0  # the monotonic time of the last sample
        self.memory_bytes = 0
        self.memory_peak_bytes = 0

    @property
    def run_seconds(self) -> float:
        return self._ended_run + sum(process.run_seconds for process in self._processes.values())

    @property
    def wait_seconds(self) -> float:
        return self._ended_wait + sum(process.wait_seconds for process in self._processes.values())

    @property
    def empty(self) -> bool:
        """Whether the last sample found no processes."""
        return not self._processes

    def sample(self, roots: Iterable[int], now: float) -> None:
        """Sample the trees of the processes `roots`, including the roots."""
        left, present = [str(pid) for pid in roots], set[str]()
        self.at = now
        self.memory_bytes = 0
        while left:
            pid = left.pop()
            fields = procfs.read_stat(pid)
            if fields is None or procfs.has_ended(fields) or pid in present:
                continue
            present.add(pid)
            self._sample(pid, fields, now)
            left += procfs.list_child_pids(pid, threads=int(fields[_THREADS_FIELD]))
        for pid in self._processes.keys() - present:
            ended = self._processes.pop(pid)
            self._ended_run += ended.run_seconds
            self._ended_wait += ended.wait_seconds
        self.memory_peak_bytes = max(self.memory_peak_bytes, self.memory_bytes)

    def _sample(self, pid: str, fields: list[str], now: float) -> None:
        process = self._processes.get(pid)
        if process is None:
            process = self._processes[pid] = ProcessTime(pid)
        else:  # skip the first sample: between fork and exec a process shows its parent's memory as its own
            self.memory_bytes += int(fields[_MEMORY_FIELD]) * procfs.PAGE_BYTES
        process.sample(
            threads=int(fields[_THREADS_FIELD]), state=fields[0], now=now, age=read_age(fields[_START_FIELD])
        )


def read_age(start_ticks: str) -> float:
    """Return an upper bound of the seconds since a process started: the kernel rounds its start down to a tick."""
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - (int(start_ticks) + 1) / procfs.TICKS_PER_SECOND)
