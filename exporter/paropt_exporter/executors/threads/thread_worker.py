"""One worker thread of a ThreadPool: run its tasks, measure them, and sample them from other threads."""

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

# future, function, arguments, keywords, whether to profile it, when it was submitted
WorkItem = tuple[TaskFuture[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any], bool, float]

# Two reads of a thread's CPU clock cost as much as a short task's whole round trip (1.2 µs). Shorter tasks are not
# measured one by one; the pool's totals, which other threads read, miss nothing.
MIN_MEASURED_SECONDS = 0.001
CHILD_SAMPLING_SECONDS = 0.003  # for sampling all child processes; a longer time shows that a thread computes meanwhile
_COMPUTING_CORES = 0.9  # a task that got so much of a core has lost little time to waiting


class SharedWorkItem(Protocol):
    """A queued work item that several workers run at once: a map."""

    queued_seconds: float

    def run_items(self, worker: Worker, now: float) -> float: ...

    def count_pending(self) -> int: ...

    def cancel_pending(self) -> int: ...


class Worker:
    """One worker thread of a pool. The thread writes, others read. An idle thread waits for the lock `wakeup`."""

    __slots__ = (
        "abandoned", "child_tree", "counters", "cpu_base_seconds", "cpu_read_seconds", "cpu_seconds",
        "delay_baseline", "ident", "last_delay_seconds", "name", "native_id", "read_activity", "ready_seconds",
        "started_seconds", "task", "wakeup",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.wakeup = _thread.allocate_lock()
        self.wakeup.acquire()
        self.counters = WorkerCounters()
        self.task: tuple[Any, ...] | None = None
        self.started_seconds = 0.0
        self.ready_seconds: float | None = None
        self.ident = self.native_id = 0
        self.abandoned = False
        self.delay_baseline = (0.0, 0.0)  # start of the task sampled last, and the thread's run delay at that sample
        self.last_delay_seconds: float | None = None  # the thread's run delay, once it was read for the last time
        self.read_activity: Callable[[], int] = int  # see ThreadPoolState._read_activity
        self.child_tree: tuple[float, TreeTime] | None = None  # start of the task whose processes these are
        self.cpu_base_seconds = self.cpu_seconds = self.cpu_read_seconds = 0.0

    def start(self, now: float) -> None:
        self.ident, self.native_id = _thread.get_ident(), _thread.get_native_id()
        self.ready_seconds = self.cpu_read_seconds = now
        self.cpu_base_seconds = self.cpu_seconds = thread_time()

    @property
    def schedstat(self) -> str:
        return f"/proc/self/task/{self.native_id}/schedstat"

    def read_task_cpu_seconds(self) -> float:
        """Return the CPU time of the running task so far; from another thread."""
        return max(0.0, procfs.read_thread_cpu_seconds(self.ident) - self.cpu_seconds)

    def read_task_delay_seconds(self) -> float:
        """Return how long the running task has waited for a core; under the pool's lock.

        If the task is not profiled: since its first sample. To read the run delay at the start of each short task
        would cost more than the task.
        """
        delay = procfs.read_run_delay_seconds(self.schedstat)
        if self.delay_baseline[0] != self.started_seconds:
            self.delay_baseline = (self.started_seconds, delay)
        return delay - self.delay_baseline[1]

    def sample_children(self) -> TreeTime | None:
        """Sample the child processes of the running task; None if it has started none. Under the pool's lock."""
        started = self.started_seconds
        tree = self.child_tree[1] if self.child_tree and self.child_tree[0] == started else None
        # The first thread that needs the fork server starts it; it is no task's child.
        children = tuple(pid for pid in procfs.list_thread_children(self.native_id) if pid != lifetime.FORK_SERVERS.pid)
        if tree is None and not children:
            return None
        if tree is None:
            tree = TreeTime()
            self.child_tree = (started, tree)
        tree.sample(children, monotonic())
        return tree

    def get_children_peak_bytes(self) -> int:
        """Return the highest sampled memory of the running task's child processes together."""
        tree = self.child_tree
        return tree[1].memory_peak_bytes if tree is not None and tree[0] == self.started_seconds else 0

    def store_usage(self, future: TaskFuture[Any], started: float, ended: float) -> None:
        """Read the thread's CPU clock at the end of a task of more than MIN_MEASURED_SECONDS."""
        cpu = thread_time()
        # Short tasks before this one were not measured: at most a millisecond, counted as CPU time.
        spent = max(0.0, cpu - self.cpu_seconds - max(0.0, started - self.cpu_read_seconds))
        self.cpu_seconds, self.cpu_read_seconds = cpu, ended
        future._usage = (self.name, os.getpid(), started, ended, min(spent, ended - started), 0.0, 0)

    def skip_idle_time(self, now: float) -> None:
        """Note that the thread was idle: its CPU time until now belongs to no task."""
        if now - self.cpu_read_seconds > MIN_MEASURED_SECONDS:
            self.cpu_seconds, self.cpu_read_seconds = thread_time(), now


def run_work_item(worker: Worker, item: WorkItem, now: float) -> float:
    """Run a task and settle its future; return when it ended.

    Updates counters and `worker.task` before it settles the future, so that waiting threads find the numbers right.
    """
    future, function, arguments, keywords, profiled, _ = item
    worker.task = item
    worker.started_seconds = now
    if not future.start_running(now):
        worker.task = None
        worker.counters.cancelled += 1
        return now
    if profiled:
        return _run_profiled(worker, item)
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 -- any exception of a task is that task's outcome
        ended = _finish_task(worker, future, now)
        worker.counters.failed += 1
        future.settle_exception(drop_first_frame(error))
    else:
        ended = _finish_task(worker, future, now)
        worker.counters.succeeded += 1
        future.settle_result(result)
    return ended


def _finish_task(worker: Worker, future: TaskFuture[Any], started: float) -> float:
    ended = monotonic()
    worker.task = None
    worker.counters.busy_seconds += ended - started
    if ended - worker.cpu_read_seconds > MIN_MEASURED_SECONDS:
        if ended - started > MIN_MEASURED_SECONDS:
            worker.store_usage(future, started, ended)
        else:
            worker.cpu_seconds, worker.cpu_read_seconds = thread_time(), ended
    return ended


def _run_profiled(worker: Worker, item: WorkItem) -> float:
    future, function, arguments, keywords, _, _ = item
    profiler = _Profiler(worker)
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 -- any exception of a task is that task's outcome
        ended = profiler.finish(future)
        worker.counters.failed += 1
        future.settle_exception(drop_first_frame(error))
    else:
        ended = profiler.finish(future)
        worker.counters.succeeded += 1
        future.settle_result(result)
    return ended


class _Profiler:
    """Measures CPU time, run delay and memory of one task; costs some 30 µs, most of it to read the peak memory."""

    __slots__ = ("_activity", "_children_cpu", "_children_peak", "_delay", "_started", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._activity = worker.read_activity()
        self._children_cpu, self._children_peak = _read_children_usage()
        self._delay = procfs.read_run_delay_seconds(worker.schedstat)
        self._started = worker.started_seconds = worker.cpu_read_seconds = monotonic()
        worker.delay_baseline = (self._started, self._delay)
        worker.cpu_seconds = thread_time()

    def finish(self, future: TaskFuture[Any]) -> float:
        worker, started = self._worker, self._started
        ended, cpu_now = monotonic(), thread_time()
        cpu = cpu_now - worker.cpu_seconds
        children_cpu, children_peak = _read_children_usage()
        if self._activity and worker.read_activity() == self._activity:  # no task ran beside this one
            cpu += children_cpu - self._children_cpu
        delay = procfs.read_run_delay_seconds(worker.schedstat) - self._delay
        future.started_seconds = started
        # The kernel keeps only the largest child so far: if it grew, a child of one of the running tasks was larger.
        grown = children_peak if children_peak > self._children_peak else 0
        memory = max(procfs.read_memory_peak_bytes(), worker.get_children_peak_bytes(), grown)
        future._usage = (worker.name, os.getpid(), started, ended, cpu, delay, memory)
        worker.cpu_seconds, worker.cpu_read_seconds = cpu_now, ended
        worker.task = None
        worker.counters.busy_seconds += ended - started
        return ended


def _read_children_usage() -> tuple[float, int]:
    """Return the CPU seconds of all reaped child processes, and the memory of the largest one in bytes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


# The functions below sample workers from other threads; their callers hold the pool's lock.


def sum_counters(workers: Sequence[Worker]) -> WorkerCounters:
    """Add up the counters of live workers. Call it before `take_snapshot`: a task that ends between is then missed
    once, not counted twice.
    """
    total = WorkerCounters()
    for worker in workers:
        if worker.ready_seconds is not None:
            total.add(worker.counters)
    return total


def take_snapshot(
    workers: Sequence[Worker], queue: Sequence[WorkItem | SharedWorkItem], target: int
) -> tuple[PoolSnapshot, float]:
    """Return a snapshot of the workers and the queue, and for how many seconds the busy workers have been busy."""
    now = monotonic()
    live = [worker for worker in workers if worker.ready_seconds is not None]
    busy = [worker.started_seconds for worker in live if worker.task is not None]
    snapshot = PoolSnapshot(
        target=target,
        live=len(live),
        busy=len(busy),
        starting=len(workers) - len(live),
        queued=sum(1 if isinstance(item, tuple) else item.count_pending() for item in queue),
        oldest_queued_age_seconds=max(0.0, now - _get_queued_seconds(queue[0])) if queue else 0.0,
        slot_seconds=sum(now - (worker.ready_seconds or now) for worker in live),
        cpu_seconds=sum(procfs.read_thread_cpu_seconds(worker.ident) - worker.cpu_base_seconds for worker in live),
        run_delay_seconds=sum(procfs.read_run_delay_seconds(worker.schedstat) for worker in live),
    )
    return snapshot, sum(max(0.0, now - started) for started in busy)


def list_running(workers: Sequence[Worker], memory_bytes: int) -> tuple[RunningTask, ...]:
    """List the running tasks, their child processes included; one entry stands for all items of a map."""
    return tuple(
        _build_running_task(
            worker,
            task,
            worker.read_task_cpu_seconds(),
            worker.read_task_delay_seconds(),
            worker.sample_children(),
            memory_bytes,
        )
        for worker in workers
        if (task := worker.task) is not None
    )


def sample_running(
    workers: Sequence[Worker], *, children: Callable[[TaskFuture[Any]], bool]
) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
    """List the running tasks with their futures, by the fewest reads that show whether a task computes or waits.

    While a thread computes, each read of /proc waits for the interpreter's lock three times, 5 ms each. So it reads
    run delay and child processes only of tasks that may have lost more than a tenth of their time to them.
    """
    running, began = [], monotonic()
    for worker in workers:
        task = worker.task
        if task is not None:
            cpu = worker.read_task_cpu_seconds()
            computes = cpu >= _COMPUTING_CORES * (monotonic() - worker.started_seconds)
            delay = 0.0 if computes else worker.read_task_delay_seconds()
            wanted = not computes and monotonic() < began + CHILD_SAMPLING_SECONDS and children(task[0])
            tree = worker.sample_children() if wanted else None
            running.append((task[0], _build_running_task(worker, task, cpu, delay, tree, 0)))
    return tuple(running)


def _build_running_task(
    worker: Worker, task: tuple[Any, ...], cpu: float, delay: float, children: TreeTime | None, memory_bytes: int
) -> RunningTask:
    below = CoreTime(children.run_seconds, children.wait_seconds) if children is not None else CoreTime()
    return RunningTask(
        label=task[0].label or get_label(task[1]),
        worker=worker.name,
        started_seconds=worker.started_seconds,
        cpu_seconds=cpu + below.run_seconds,
        memory_bytes=memory_bytes + (children.memory_bytes if children is not None else 0),
        run_delay_seconds=delay,
        core_time=CoreTime(cpu, delay) + below,
        thread_run_seconds=cpu,
    )


def _get_queued_seconds(item: WorkItem | SharedWorkItem) -> float:
    return item[5] if isinstance(item, tuple) else item.queued_seconds
