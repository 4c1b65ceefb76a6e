"""The workers of a ThreadPool: each runs tasks and measures them. WorkerSet decides which start, wake or exit."""

from __future__ import annotations

import _thread
import os
import resource
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, thread_time
from typing import Any, NamedTuple, Protocol

from paropt_exporter.cpu_demand import NO_SWITCHES, CoreTime, Switches
from paropt_exporter.errors import drop_first_frame
from paropt_exporter.events import RunningTask
from paropt_exporter.executors import lifetime, procfs
from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import PoolCounters, PoolSnapshot, WorkerCounters
from paropt_exporter.executors.future import TaskFuture, get_label
from paropt_exporter.executors.thread_group import ThreadGroup

# How a task is measured: if it takes a millisecond; with its wait for a core in samples; in full.
NO_PROFILE, SAMPLES, FULL_PROFILE = range(3)
# future, function, arguments, keywords, how it is measured, when it was submitted
WorkItem = tuple[TaskFuture[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any], int, float]

# Two reads of a thread's CPU clock cost as much as a short task's whole round trip (1.2 µs). Shorter tasks are not
# measured one by one; the pool's totals, which other threads read, miss nothing.
MIN_MEASURED_SECONDS = 0.001
_COMPUTING_CORES = 0.9  # a task that got so much of a core has waited little
_BUSY_DELAY_RATIO = 0.05  # a thread that waited for a core for a smaller part of its time was hardly ever preempted


class SharedWorkItem(Protocol):
    """A queued work item that several workers run at once: a map."""

    queued_seconds: float

    def run_items(self, worker: Worker, now: float) -> float: ...

    def count_pending(self) -> int: ...

    def cancel_pending(self) -> int: ...


class TaskSample(NamedTuple):
    """The times and switches of a running task's thread, from the task's start to the monotonic time `at`."""

    at: float
    time: CoreTime
    switches: Switches


class Worker:
    """One worker thread of a pool. The thread writes, others read. An idle thread waits for the lock `wakeup`."""

    __slots__ = (
        "abandoned", "child_tree", "counters", "cpu_base_seconds", "cpu_read_seconds", "cpu_seconds",
        "delay_baseline", "ident", "name", "native_id", "read_activity", "started_seconds", "switches_baseline", "task",
        "thread_started_seconds", "wakeup",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.wakeup = _thread.allocate_lock()
        self.wakeup.acquire()
        self.counters = WorkerCounters()
        self.task: tuple[Any, ...] | None = None
        self.started_seconds = self.thread_started_seconds = 0.0
        self.ident = self.native_id = 0  # 0 until its thread runs, and the initializer has succeeded
        self.abandoned = False
        # the start of the task sampled last, and the thread's run delay at that sample
        self.delay_baseline = (0.0, 0.0)
        self.switches_baseline = (0.0, NO_SWITCHES)  # likewise
        self.read_activity: Callable[[], int] = int  # see WorkerSet.read_activity
        self.child_tree: tuple[float, TreeTime] | None = None  # the start of the task, and its processes
        self.cpu_base_seconds = self.cpu_seconds = self.cpu_read_seconds = 0.0

    def start(self, now: float) -> None:
        self.ident, self.native_id = _thread.get_ident(), _thread.get_native_id()
        self.thread_started_seconds = self.cpu_read_seconds = now
        self.cpu_base_seconds = self.cpu_seconds = thread_time()

    def wake(self) -> None:
        """Wake the thread if it waits; it then checks the reason itself. From any thread."""
        try:  # noqa: SIM105 -- `suppress` takes a twentieth of the time of a task that is submitted alone
            self.wakeup.release()
        except RuntimeError:  # it was woken already
            pass

    @property
    def schedstat(self) -> str:
        return f"/proc/self/task/{self.native_id}/schedstat"

    def prepare_samples(self) -> None:
        """Let the samples of the running task count from now on, though it is not prepared. From another thread."""
        started = self.started_seconds
        if self.task is not None and self.delay_baseline[0] != started:
            self.delay_baseline = (started, procfs.read_run_delay_seconds(self.schedstat))
            self._sample_switches()

    def sample_task(self, *, exact: bool) -> TaskSample:
        """Sample the running task. Under the pool's lock.

        Unless it must be `exact`, the wait is not read for a task that has hardly waited, and is 0. If the task is not
        prepared for samples, the wait counts from its first sample: reading the run delay at the start of each short
        task would cost more than the task. Switches are read only if the task has waited.
        """
        now, cpu = monotonic(), max(0.0, procfs.read_thread_cpu_seconds(self.native_id) - self.cpu_seconds)
        if not exact and cpu >= _COMPUTING_CORES * (now - self.started_seconds):
            return TaskSample(now, CoreTime(cpu), NO_SWITCHES)
        # The CPU time is read again: opening the file may have taken tens of milliseconds.
        now, run, delay = procfs.sample_schedstat(self.schedstat)
        if self.delay_baseline[0] != self.started_seconds:
            self.delay_baseline = (self.started_seconds, delay)
        time = CoreTime(max(cpu, run - self.cpu_seconds), delay - self.delay_baseline[1])
        waited = not exact and time.wait_seconds >= _BUSY_DELAY_RATIO * (now - self.started_seconds)
        return TaskSample(now, time, self._sample_switches() if waited else NO_SWITCHES)

    def _sample_switches(self) -> Switches:
        read = procfs.read_switches(f"/proc/self/task/{self.native_id}")
        if read is None:
            return NO_SWITCHES
        switches = Switches(*read)
        if self.switches_baseline[0] != self.started_seconds:
            self.switches_baseline = (self.started_seconds, switches)
        return switches.since(self.switches_baseline[1])

    def is_runnable(self) -> bool:
        return procfs.is_runnable(f"/proc/self/task/{self.native_id}")

    def sample_children(self) -> TreeTime | None:
        """Sample the child processes of the running task; None if it has started none. Under the pool's lock."""
        started = self.started_seconds
        tree = self.child_tree[1] if self.child_tree and self.child_tree[0] == started else None
        # The fork server is not a child of the task, though the first thread that needs it starts it.
        children = tuple(pid for pid in procfs.list_thread_children(self.native_id) if pid != lifetime.FORK_SERVERS.pid)
        if tree is None and not children:
            return None
        if tree is None:
            tree = TreeTime()
            self.child_tree = (started, tree)
        tree.sample(children, monotonic())
        return tree

    def get_children_peak_bytes(self) -> int:
        """Return the highest sampled total memory of the running task's child processes."""
        tree = self.child_tree
        return tree[1].memory_peak_bytes if tree is not None and tree[0] == self.started_seconds else 0

    def store_usage(self, future: TaskFuture[Any], started: float, ended: float) -> None:
        """Read the thread's CPU clock at the end of a task of more than MIN_MEASURED_SECONDS."""
        cpu = thread_time()
        # The CPU time includes short tasks before this one, which were not measured: at most a millisecond.
        spent = max(0.0, cpu - self.cpu_seconds - max(0.0, started - self.cpu_read_seconds))
        self.cpu_seconds, self.cpu_read_seconds = cpu, ended
        future._usage = (self.name, os.getpid(), started, ended, min(spent, ended - started), 0.0, 0)

    def skip_idle_time(self, now: float) -> None:
        """Note that the thread was idle: its CPU time until now belongs to no task."""
        if now - self.cpu_read_seconds > MIN_MEASURED_SECONDS:
            self.cpu_seconds, self.cpu_read_seconds = thread_time(), now


class WorkerSet:
    """The workers of one pool, and how many there should be. It decides who is woken, starts or exits.

        add_needed() ──> starting ──note_ready()──> busy <──note_awake()── idle
                                                     │ └────note_idle()─────^ │
                                                     └─(surplus, or closed)───┴──> gone

    A worker starts when a task finds no idle one; at once if there is an initializer (`eager`), which may take long. At
    most one woken or started worker is on its way. Missing workers count as live: the next task starts one. They don't
    while the system refuses threads, nor in a closed pool or with an initializer.

    Callers hold the pool's lock. Nothing here starts a thread, runs code of the user or takes a task from the queue.
    """

    def __init__(
        self,
        prefix: str,
        work_queue: deque[WorkItem | SharedWorkItem],
        threads: ThreadGroup,
        counters: PoolCounters,
        *,
        eager: bool,
    ) -> None:
        self.all: list[Worker] = []
        self.target = 0
        self.closed = False
        self.needs_wake = False  # whether submit() must call the pool's wake()
        self.must_check_exit = False  # whether a worker must check after its task whether to exit
        self.wake_pending = False  # whether a woken or started worker is on its way
        self._may_start = False  # whether a task that finds no idle worker starts another
        self._starting: set[Worker] = set()  # of `all`, those that are not ready
        self._idle: dict[Worker, None] = {}  # a set in the order in which they became idle
        self._abandoned: list[tuple[Worker, str]] = []
        self._created = 0
        self._prefix = prefix
        self._work_queue = work_queue
        self._threads = threads
        self._counters = counters
        self._eager = eager
        self._counted_live, self._counted_seconds = 0, 0.0  # the live workers when `slot_seconds` was last counted

    # How many

    @property
    def live(self) -> int:
        """How many workers a task may find: those that are ready, and those that would start."""
        ready = len(self.all) - len(self._starting)
        return ready if self._eager or self.closed or self._threads.has_shortage else max(ready, self.target)

    @property
    def busy(self) -> int:
        return sum(worker.task is not None for worker in tuple(self.all))

    @property
    def has_threads(self) -> bool:
        """Whether a thread runs or starts that will take queued tasks, perhaps after an abandoned one."""
        return bool(self.all or self._abandoned)

    @property
    def has_ended_tasks(self) -> bool:
        counters = sum_counters(self.all)
        counters.add(self._counters.exited)
        return any(counters.count_by_result().values())

    def list_abandoned(self) -> tuple[str, ...]:
        return tuple(label for _, label in self._abandoned)

    def read_activity(self) -> int:
        """Return a number that changes whenever a task starts or ends beside another one; 0 while several tasks run."""
        if self.busy > 1:
            return 0
        counters = [worker.counters for worker in tuple(self.all)]
        return 1 + sum(worker.succeeded + worker.failed for worker in counters)

    def set_target(self, n: int) -> None:
        self.target = n
        self._wake_surplus()
        self.note_change()

    def close(self) -> None:
        """Note that the pool takes no more tasks."""
        self.closed = self.needs_wake = True
        self.note_change()

    def _wake_surplus(self) -> None:
        """Wake idle workers that are surplus, which exit."""
        self.wake_idle(len(self.all) - self.target)

    def note_change(self) -> None:
        """Count the workers' time until now, and update what their number decides; call it after each change of it."""
        self.count_slots()
        surplus = len(self.all) - self.target
        self.must_check_exit = surplus > 0 or self._threads.has_shortage or bool(self._abandoned)
        self._may_start = surplus < 0 and not (self._eager and self.all)
        self._update_needs_wake()

    def count_slots(self) -> None:
        """Add the time of the live workers until now to the counters."""
        now, since = monotonic(), self._counted_seconds
        self._counted_seconds = now
        self._counters.slot_seconds += self._counted_live * (now - since)
        self._counted_live = self.live

    # Start: the caller must start a thread for a returned worker

    def add_needed(self) -> Worker | None:
        """Add a worker if one is missing and must start now: for a queued task if none is on its way, or eagerly."""
        if len(self.all) >= self.target or (self.closed and not self._work_queue):
            return None
        if not self._eager and (self.wake_pending or not self._work_queue):
            return None
        return self._add()

    def add_first(self) -> Worker | None:
        """Add a worker, even without a task for it; None if there is one."""
        return None if self.all else self._add()

    def _add(self) -> Worker:
        worker = Worker(f"{self._prefix}_{self._created}")
        worker.read_activity = self.read_activity
        self._created += 1
        self.all.append(worker)
        self._starting.add(worker)
        self._threads.announce(worker.name)
        self.wake_pending = not self._eager
        self.note_change()
        return worker

    def note_ready(self, worker: Worker) -> None:
        """Note that a worker's thread runs, and that its initializer has succeeded."""
        worker.start(monotonic())
        self._starting.discard(worker)
        self._wake_surplus()  # a worker may have stayed until this one was ready
        self.note_change()

    def drop_failed(self, worker: Worker) -> None:
        """Drop a worker whose initializer has failed."""
        self.all.remove(worker)
        self._starting.discard(worker)
        self.note_change()

    def drop_unstarted(self) -> bool:
        """Drop the workers that this thread could not start; return whether there are other threads."""
        names = self._threads.withdraw_unstarted({worker.name for worker in self.all})
        self.all = [worker for worker in self.all if worker.name not in names]
        self._starting.intersection_update(self.all)
        if self._eager:  # after an interrupt, too: no task starts the missing ones
            self._threads.note_shortage()
        self.wake_idle()  # idle workers wait with a timeout from now on, and retry
        self.wake_pending = False  # a dropped worker may have been the one on its way
        self.note_change()
        return self.has_threads

    # Idle and awake

    def note_idle(self, worker: Worker) -> None:
        """Note that a worker found the queue empty. It must then read the queue once more: see `stay_awake`."""
        self._idle[worker] = None
        self._update_needs_wake()

    def stay_awake(self, worker: Worker) -> bool:
        """Return whether an idle worker must go on at once: a task came or the pool was closed meanwhile, and no other
        thread has woken it. Then it is no longer idle.
        """
        if not (self._work_queue or self.closed) or worker not in self._idle:
            return False
        del self._idle[worker]
        return True

    def wake_next(self) -> bool:
        """Wake an idle worker; return whether the caller must start one, without the lock."""
        if self._idle and not self.wake_pending:
            self._wake_last_idle()
            self.wake_pending = True
        self._update_needs_wake()
        return self._may_start and not self.wake_pending and (not self.all or self._threads.may_start)

    def _update_needs_wake(self) -> None:
        self.needs_wake = self.closed or (not self.wake_pending and (bool(self._idle) or self._may_start))

    def wake_idle(self, most: int = 1) -> None:
        """Wake the workers that became idle last, at most so many."""
        for _ in range(min(most, len(self._idle))):
            self._wake_last_idle()

    def _wake_last_idle(self) -> None:
        while True:
            try:
                worker = next(reversed(self._idle), None)
                break
            except RuntimeError:  # a garbage collection or a signal handler has changed it meanwhile
                continue
        if worker is not None:
            worker.wake()  # first: after an interrupt here, it must not be asleep and in no list
            self._idle.pop(worker, None)

    def note_awake(self, worker: Worker) -> bool:
        """Note that a worker was woken or started, and wake another if it does not suffice.

        Return whether the caller must start one, without the lock.
        """
        self._idle.pop(worker, None)
        self.wake_pending = False
        self._update_needs_wake()  # before the queue is read
        starts = len(self._work_queue) > 1 and self.wake_next()
        if self.closed:
            self.wake_idle()
        return starts

    # Exit

    def remove_if_surplus(self, worker: Worker) -> bool:
        """Remove a worker, without a task, if it must exit, and return whether it must."""
        if worker.abandoned:
            self._abandoned = [(other, label) for other, label in self._abandoned if other is not worker]
            if worker in self.all:  # an interrupt kept `abandon` from removing it
                self.remove(worker)
            if not self._has_other_ready(worker) and (self._work_queue or not self.closed):
                self._take_back(worker)
            self.note_change()
            return worker.abandoned
        if worker not in self.all:
            return True  # in a process that a task forked, and in which the task has returned
        surplus = len(self.all) > self.target and self._has_other_ready(worker)
        if not surplus and not (self.closed and not self._work_queue):
            return False
        self.remove(worker)
        return True

    def remove(self, worker: Worker) -> None:
        self.all.remove(worker)
        self._counters.exited.add(worker.counters)
        self.note_change()

    def _has_other_ready(self, worker: Worker) -> bool:
        """Return whether the pool surely has another worker: the system may yet refuse one that is starting."""
        return any(other.ident for other in self.all if other is not worker)

    def _take_back(self, worker: Worker) -> None:
        """Make an abandoned thread a worker again, since the system refused its successor, or may yet refuse it."""
        worker.abandoned, worker.counters = False, WorkerCounters()
        worker.start(monotonic())
        self.all.append(worker)
        self._threads.add_current()

    def abandon(self, future: TaskFuture[Any]) -> Worker | None:
        """Abandon the worker that runs this stopped task, and return it; None if there is none."""
        for worker in self.all:
            task = worker.task
            if task is not None and task[0] is future and future.started_seconds is not None:
                self._abandon(worker, task)
                return worker
        return None

    def _abandon(self, worker: Worker, task: tuple[Any, ...]) -> None:
        worker.abandoned = True
        self._abandoned.append((worker, task[0].label or get_label(task[1])))
        worker.counters.busy_seconds += monotonic() - worker.started_seconds
        worker.counters.cancelled += 1
        self.remove(worker)
        self._counters.cpu_seconds += procfs.read_thread_cpu_seconds(worker.native_id) - worker.cpu_base_seconds
        self._counters.run_delay_seconds += procfs.read_run_delay_seconds(worker.schedstat)
        worker.counters = WorkerCounters()  # the thread's further counts are ignored
        self._counters.deaths["stopped"] += 1

    def reset(self) -> None:
        """Forget all workers, in a forked child, which has none of their threads."""
        self.needs_wake = self._may_start = True
        self._created = self._counted_live = 0
        self.wake_pending = False
        self.all, self._starting, self._idle, self._abandoned = [], set(), {}, []


def run_work_item(worker: Worker, item: WorkItem, now: float) -> float:
    """Run a task and settle its future; return when it ended.

    Updates counters and `worker.task` before it settles the future, so that waiting threads find correct numbers.
    """
    future, function, arguments, keywords, profile, _ = item
    worker.task = item
    worker.started_seconds = now
    if not future.start_running(now):
        worker.task = None
        worker.counters.cancelled += 1
        future.notify_cancelled()
        return now
    if profile == FULL_PROFILE:
        ended = _run_profiled(worker, item)
        del item, future, function, arguments, keywords  # see below
        return ended
    if profile == SAMPLES:
        worker.delay_baseline = (now, procfs.read_run_delay_seconds(worker.schedstat))
        worker.switches_baseline = (now, _read_own_switches())
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 -- any exception of a task is that task's outcome
        ended = _finish_task(worker, future, now)
        worker.counters.failed += 1
        future.settle_exception(drop_first_frame(error))
        # The exception's traceback refers to the frames of the task, and they to their callers' frames.
        del item, future, function, arguments, keywords
    else:
        ended = _finish_task(worker, future, now)
        worker.counters.succeeded += 1
        future.settle_result(result)
    return ended


# Reads of workers from other threads, under the pool's lock


def sum_counters(workers: Sequence[Worker]) -> WorkerCounters:
    """Add up the counters of live workers. Call it before `take_snapshot`: a task that ends between is then missed
    once, not counted twice.
    """
    total = WorkerCounters()
    for worker in workers:
        total.add(worker.counters)
    return total


def take_snapshot(workers: WorkerSet, queue: Sequence[WorkItem | SharedWorkItem]) -> tuple[PoolSnapshot, float]:
    """Return a snapshot of the workers and the queue, and the seconds for which busy workers have been busy."""
    now, live = monotonic(), workers.live
    busy = [worker.started_seconds for worker in workers.all if worker.task is not None]
    snapshot = PoolSnapshot(
        target=workers.target,
        live=live,
        busy=len(busy),
        starting=max(0, len(workers.all) - live),
        queued=sum(1 if isinstance(item, tuple) else item.count_pending() for item in queue),
        oldest_queued_age_seconds=max(0.0, now - _get_queued_seconds(queue[0])) if queue else 0.0,
        slot_seconds=0.0,  # they are counted already: see `count_slots`
        cpu_seconds=sum_cpu_seconds(workers.all),
        run_delay_seconds=sum(procfs.read_run_delay_seconds(each.schedstat) for each in workers.all if each.ident),
    )
    return snapshot, sum(max(0.0, now - started) for started in busy)


def sum_cpu_seconds(workers: Sequence[Worker]) -> float:
    """Return the CPU time of the workers. It reads no file, for which it would wait for the GIL three times."""
    ready = [worker for worker in workers if worker.ident]
    return sum(procfs.read_thread_cpu_seconds(worker.native_id) - worker.cpu_base_seconds for worker in ready)


def list_running(workers: Sequence[Worker], memory_bytes: int) -> tuple[RunningTask, ...]:
    """List the running tasks, including their child processes; one entry stands for all items of a map."""
    return tuple(
        _build_running_task(worker, task, worker.sample_task(exact=True), worker.sample_children(), memory_bytes)
        for worker in workers
        if (task := worker.task) is not None
    )


def sample_running(
    workers: Sequence[Worker],
    *,
    children: Callable[[TaskFuture[Any]], bool],
    state: Callable[[TaskFuture[Any]], bool],
) -> tuple[tuple[TaskFuture[Any], RunningTask], ...]:
    """List the running tasks with their futures, with as few reads as show whether a task computes or waits.

    While a thread computes, each read of /proc waits for the GIL three times, for 5 ms each. So run delay and child
    processes are read only for tasks that may have spent more than a tenth of their time on them. `children` and
    `state` return whether to read the child processes of a task, and the state of its thread.
    """
    running = []
    for worker in workers:
        task = worker.task
        if task is not None:
            # First: the sample does not contain a wait for a core that goes on, and contains one that has ended.
            is_runnable = state(task[0]) and worker.is_runnable()
            sample = worker.sample_task(exact=False)
            wanted_seconds = sample.time.run_seconds + sample.time.wait_seconds
            computes = wanted_seconds >= _COMPUTING_CORES * (sample.at - worker.started_seconds)
            tree = worker.sample_children() if not computes and children(task[0]) else None
            running.append((task[0], _build_running_task(worker, task, sample, tree, 0, is_runnable=is_runnable)))
    return tuple(running)


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
        del item, future, function, arguments, keywords  # as in `run_work_item`
    else:
        ended = profiler.finish(future)
        worker.counters.succeeded += 1
        future.settle_result(result)
    return ended


class _Profiler:
    """Measures CPU time, run delay and memory of one task. This costs about 30 µs, mostly for the peak memory."""

    __slots__ = ("_activity", "_children_cpu", "_children_peak", "_delay", "_started", "_worker")

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._activity = worker.read_activity()
        self._children_cpu, self._children_peak = _read_children_usage()
        self._delay = procfs.read_run_delay_seconds(worker.schedstat)
        self._started = worker.started_seconds = worker.cpu_read_seconds = monotonic()
        worker.delay_baseline = (self._started, self._delay)
        worker.switches_baseline = (self._started, _read_own_switches())
        worker.cpu_seconds = thread_time()

    def finish(self, future: TaskFuture[Any]) -> float:
        worker, started = self._worker, self._started
        ended, cpu_now = monotonic(), thread_time()
        if ended - started > MIN_MEASURED_SECONDS:  # a shorter task can't have been preempted twice
            future._switches = _read_own_switches().since(worker.switches_baseline[1])
        cpu = cpu_now - worker.cpu_seconds
        most_delay = max(0.0, ended - started - cpu)
        children_cpu, children_peak = _read_children_usage()
        if self._activity and worker.read_activity() == self._activity:  # no task ran beside this one
            cpu += children_cpu - self._children_cpu
        # On a busy machine the thread may wait for a core again before it reads its run delay.
        delay = min(procfs.read_run_delay_seconds(worker.schedstat) - self._delay, most_delay)
        future.started_seconds = started
        # The kernel keeps only the largest child so far. If that has grown, a child of a running task was larger.
        grown = children_peak if children_peak > self._children_peak else 0
        memory = max(procfs.read_memory_peak_bytes(), worker.get_children_peak_bytes(), grown)
        future._usage = (worker.name, os.getpid(), started, ended, cpu, delay, memory)
        worker.cpu_seconds, worker.cpu_read_seconds = cpu_now, ended
        worker.task = None
        worker.counters.busy_seconds += ended - started
        return ended


def _read_own_switches() -> Switches:
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return Switches(usage.ru_nvcsw, usage.ru_nivcsw)


def _read_children_usage() -> tuple[float, int]:
    """Return the CPU seconds of all reaped child processes, and the memory of the largest one in bytes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def _build_running_task(
    worker: Worker,
    task: tuple[Any, ...],
    sample: TaskSample,
    children: TreeTime | None,
    memory_bytes: int,
    *,
    is_runnable: bool = False,
) -> RunningTask:
    time = sample.time
    below = CoreTime(children.run_seconds, children.wait_seconds) if children is not None else CoreTime()
    return RunningTask(
        label=task[0].label or get_label(task[1]),
        worker=worker.name,
        started_seconds=worker.started_seconds,
        cpu_seconds=time.run_seconds + below.run_seconds,
        memory_bytes=memory_bytes + (children.memory_bytes if children is not None else 0),
        run_delay_seconds=time.wait_seconds,
        switches=sample.switches,
        core_time=time + below,
        thread_run_seconds=time.run_seconds,
        sampled_seconds=sample.at,
        children_sampled_seconds=None if children is None else children.at,
        is_runnable=is_runnable,
    )


def _get_queued_seconds(item: WorkItem | SharedWorkItem) -> float:
    return item[5] if isinstance(item, tuple) else item.queued_seconds
