"""Runs one task in a pool's thread and keeps that thread's numbers."""

from __future__ import annotations

import _thread
import os
import resource
from collections.abc import Callable, Sequence
from time import monotonic, thread_time
from typing import Any, Protocol

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.errors import drop_first_frame
from paropt_exporter.events import RunningTask
from paropt_exporter.executors import lifetime, procfs
from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import PoolSnapshot, WorkerCounters
from paropt_exporter.executors.future import TaskFuture, get_label

# future, function, arguments, keywords, whether to measure in full, when it was submitted
Task = tuple[TaskFuture[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any], bool, float]

# Two reads of a thread's CPU clock cost as much as a short task's whole round trip (1.2 µs). Tasks shorter than this
# are not measured one by one; the pool's totals, read from outside, miss nothing.
SHORTEST_MEASURED_SECONDS = 0.001


class Slot:
    """One worker thread's place in its pool. The thread writes, others read; `parker` is how it waits for work."""

    __slots__ = (
        "abandoned", "child_processes", "companions", "cpu_base_seconds", "cpu_read_seconds", "cpu_seconds",
        "delay_mark", "ident", "last_delay_seconds", "name", "native", "parker", "ready_seconds", "started_seconds",
        "tally", "task",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.parker = _thread.allocate_lock()
        self.parker.acquire()
        self.tally = WorkerCounters()
        self.task: tuple[Any, ...] | None = None
        self.started_seconds = 0.0
        self.ready_seconds: float | None = None
        self.ident = self.native = 0
        self.abandoned = False
        self.delay_mark = (0.0, 0.0)  # when the task began that was looked at last, and its thread's delay at that look
        self.last_delay_seconds: float | None = None  # its thread's delay, where that was read for the last time
        self.companions: Callable[[], int] = int  # how many tasks the pool has begun, and how many run, as one number
        self.child_processes: tuple[float, TreeTime] | None = None  # when the task began that they are of
        self.cpu_base_seconds = self.cpu_seconds = self.cpu_read_seconds = 0.0

    def enter(self, now: float) -> None:
        self.ident, self.native = _thread.get_ident(), _thread.get_native_id()
        self.ready_seconds = self.cpu_read_seconds = now
        self.cpu_base_seconds = self.cpu_seconds = thread_time()

    @property
    def schedstat(self) -> str:
        return f"/proc/self/task/{self.native}/schedstat"

    def cpu_spent_seconds(self) -> float:
        """Return the CPU time of the running task so far, read from another thread."""
        return max(0.0, procfs.read_thread_cpu_seconds(self.ident) - self.cpu_seconds)

    def delayed_seconds(self) -> float:
        """Return how long the running task has waited for a core; under the pool's lock.

        For one that is not measured in full: since the first look at it. Reading the thread's delay at each start would
        cost a short one more than it takes.
        """
        delay = procfs.read_run_delay_seconds(self.schedstat)
        if self.delay_mark[0] != self.started_seconds:
            self.delay_mark = (self.started_seconds, delay)
        return delay - self.delay_mark[1]

    def sample_children(self) -> TreeTime | None:
        """Look at the processes that the running task has started; None: it has started none. Under the pool's lock."""
        began = self.started_seconds
        known = self.child_processes[1] if self.child_processes and self.child_processes[0] == began else None
        # Whichever thread first needs the forkserver starts it: it is no task's child.
        children = tuple(pid for pid in procfs.list_thread_children(self.native) if pid != lifetime.FORK_SERVERS.pid)
        if known is None and not children:
            return None
        if known is None:
            known = TreeTime()
            self.child_processes = (began, known)
        known.sample(children, monotonic())
        return known

    def children_peak_bytes(self) -> int:
        """Return the most memory that the running task's child processes were seen to hold together."""
        found = self.child_processes
        return found[1].memory_peak_bytes if found is not None and found[0] == self.started_seconds else 0

    def measure(self, future: TaskFuture[Any], started: float, ended: float) -> None:
        """Read the thread's CPU clock at the end of a task that was long enough to be worth it."""
        cpu = thread_time()
        # Short tasks before this one have not been read apart: at most a millisecond, taken as all CPU.
        spent = max(0.0, cpu - self.cpu_seconds - max(0.0, started - self.cpu_read_seconds))
        self.cpu_seconds, self.cpu_read_seconds = cpu, ended
        future._usage = (self.name, os.getpid(), started, ended, min(spent, ended - started), 0.0, 0)

    def resume(self, now: float) -> None:
        """Note that the thread has waited: what it spent until now belongs to no task."""
        if now - self.cpu_read_seconds > SHORTEST_MEASURED_SECONDS:
            self.cpu_seconds, self.cpu_read_seconds = thread_time(), now


def run(slot: Slot, task: Task, now: float) -> float:
    """Run a task and settle its future; return when it ended.

    Counted and out of the slot before the future settles: whoever waits for it finds the numbers right.
    """
    future, function, arguments, keywords, profiled, _ = task
    slot.task = task
    slot.started_seconds = now
    if not future.start_running(now):
        slot.task = None
        slot.tally.cancelled += 1
        return now
    if profiled:
        return _run_thoroughly(slot, task, now)
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 -- whatever a task raises is that task's outcome
        ended = _ended(slot, future, now)
        slot.tally.failed += 1
        future.settle_exception(drop_first_frame(error))
    else:
        ended = _ended(slot, future, now)
        slot.tally.succeeded += 1
        future.settle_result(result)
    return ended


def _ended(slot: Slot, future: TaskFuture[Any], started: float) -> float:
    ended = monotonic()
    slot.task = None
    slot.tally.busy_seconds += ended - started
    if ended - slot.cpu_read_seconds > SHORTEST_MEASURED_SECONDS:
        if ended - started > SHORTEST_MEASURED_SECONDS:
            slot.measure(future, started, ended)
        else:
            slot.cpu_seconds, slot.cpu_read_seconds = thread_time(), ended
    return ended


def _run_thoroughly(slot: Slot, task: Task, _: float) -> float:
    future, function, arguments, keywords, _, _ = task
    meter = _Meter(slot)
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 -- whatever a task raises is that task's outcome
        ended = meter.stop(future)
        slot.tally.failed += 1
        future.settle_exception(drop_first_frame(error))
    else:
        ended = meter.stop(future)
        slot.tally.succeeded += 1
        future.settle_result(result)
    return ended


class _Meter:
    """Measures one task of a thread in full; costs some 30 µs, most of it for reading the peak of memory."""

    __slots__ = ("_alone", "_children", "_children_peak", "_delay", "_slot", "_started")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._alone = slot.companions()
        self._children, self._children_peak = _children_usage()
        self._delay = procfs.read_run_delay_seconds(slot.schedstat)
        self._started = slot.started_seconds = slot.cpu_read_seconds = monotonic()
        slot.delay_mark = (self._started, self._delay)
        slot.cpu_seconds = thread_time()

    def stop(self, future: TaskFuture[Any]) -> float:
        slot, started = self._slot, self._started
        ended, now_cpu = monotonic(), thread_time()
        cpu = now_cpu - slot.cpu_seconds
        children, largest = _children_usage()
        if self._alone and slot.companions() == self._alone:
            cpu += children - self._children
        delay = procfs.read_run_delay_seconds(slot.schedstat) - self._delay
        future.started_seconds = started
        # The kernel keeps only the largest of all children so far: where it grew, one of these tasks' has been it.
        grown = largest if largest > self._children_peak else 0
        memory = max(procfs.read_memory_peak_bytes(), slot.children_peak_bytes(), grown)
        future._usage = (slot.name, os.getpid(), started, ended, cpu, delay, memory)
        slot.cpu_seconds, slot.cpu_read_seconds = now_cpu, ended
        slot.task = None
        slot.tally.busy_seconds += ended - started
        return ended


def _children_usage() -> tuple[float, int]:
    """Return the CPU seconds of all child processes that were waited for, and the memory of the largest, in bytes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


_PLAINLY_COMPUTING = 0.9  # of a core
CHILDREN_SECONDS = 0.003  # that a look at all child processes may take; more says that a thread computes meanwhile


class Share(Protocol):
    """Work in the queue that several threads take part in at once: a map."""

    queued_seconds: float

    def work(self, slot: Slot, now: float) -> float: ...

    def waiting(self) -> int: ...

    def cancel(self) -> int: ...


def add_up(slots: Sequence[Slot]) -> WorkerCounters:
    """Return what the slots' tasks came to. For before `look`: a task that ends meanwhile is missed, not doubled."""
    tally = WorkerCounters()
    for slot in slots:
        if slot.ready_seconds is not None:
            tally.add(slot.tally)
    return tally


def look(slots: Sequence[Slot], waiting: Sequence[Task | Share], target: int) -> tuple[PoolSnapshot, float]:
    """Return what the slots do at this moment, and for how many seconds the busy ones have been at it."""
    now = monotonic()
    live = [slot for slot in slots if slot.ready_seconds is not None]
    busy = [slot.started_seconds for slot in live if slot.task is not None]
    moment = PoolSnapshot(
        target=target,
        live=len(live),
        busy=len(busy),
        starting=len(slots) - len(live),
        queued=sum(1 if isinstance(item, tuple) else item.waiting() for item in waiting),
        oldest_queued_age_seconds=max(0.0, now - _queued_seconds(waiting[0])) if waiting else 0.0,
        slot_seconds=sum(now - (slot.ready_seconds or now) for slot in live),
        cpu_seconds=sum(procfs.read_thread_cpu_seconds(slot.ident) - slot.cpu_base_seconds for slot in live),
        run_delay_seconds=sum(procfs.read_run_delay_seconds(slot.schedstat) for slot in live),
    )
    return moment, sum(max(0.0, now - started) for started in busy)


def running(slots: Sequence[Slot], memory_bytes: int) -> tuple[RunningTask, ...]:
    """List the tasks that threads are at, their child processes included; a map's stands for all its items."""
    return tuple(
        _task_of(slot, task, slot.cpu_spent_seconds(), slot.delayed_seconds(), slot.sample_children(), memory_bytes)
        for slot in slots
        if (task := slot.task) is not None
    )


def glance(
    slots: Sequence[Slot], *, children: Callable[[TaskFuture[Any]], bool]
) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
    """List them each with its future, by the fewest reads that tell whether a task computes or waits.

    Beside a thread that computes each read from /proc waits for the interpreter's lock three times, 5 ms each: so the
    delay and the child processes are read only of tasks that may have lost more than a tenth of their time to them.
    """
    found, began = [], monotonic()
    for slot in slots:
        task = slot.task
        if task is not None:
            cpu = slot.cpu_spent_seconds()
            busy = cpu >= _PLAINLY_COMPUTING * (monotonic() - slot.started_seconds)
            delay = 0.0 if busy else slot.delayed_seconds()
            wanted = not busy and monotonic() < began + CHILDREN_SECONDS and children(task[0])
            below = slot.sample_children() if wanted else None
            found.append((task[0], _task_of(slot, task, cpu, delay, below, 0)))
    return tuple(found)


def _task_of(
    slot: Slot, task: tuple[Any, ...], cpu: float, delay: float, children: TreeTime | None, memory_bytes: int
) -> RunningTask:
    below = CoreTime(children.run_seconds, children.wait_seconds) if children is not None else CoreTime()
    return RunningTask(
        label=task[0].label or get_label(task[1]),
        worker=slot.name,
        started_seconds=slot.started_seconds,
        cpu_seconds=cpu + below.run_seconds,
        memory_bytes=memory_bytes + (children.memory_bytes if children is not None else 0),
        run_delay_seconds=delay,
        core_time=CoreTime(cpu, delay) + below,
        thread_run_seconds=cpu,
    )


def _queued_seconds(item: Task | Share) -> float:
    return item[5] if isinstance(item, tuple) else item.queued_seconds
