"""Samples the workers of a ProcessPool: their numbers, running tasks, CPU, waits for a core, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors import procfs
from paropt_exporter.executors.counters import PoolCounters, PoolSnapshot, WorkerCounters
from paropt_exporter.executors.processes.scheduler import Scheduler
from paropt_exporter.executors.processes.workers import WorkerProcess


class UsageSampler:
    """Samples the workers of one pool, for any thread. It changes nothing in the pool but `UsageSamples`."""

    def __init__(self, scheduler: Scheduler, counters: PoolCounters) -> None:
        self._scheduler, self._counters = scheduler, counters

    def count_ready(self) -> int:
        """Return the number of workers that are ready. Takes no lock."""
        return sum(worker.is_ready for worker in tuple(self._scheduler.workers))

    def count_busy(self) -> int:
        return sum(bool(process.tasks.batches) for process in self._list_processes())

    def build_statistics(self) -> PoolStatistics:
        """Return the pool's statistics now."""
        with self._scheduler.lock:
            return self._build_statistics(self._scheduler)

    def _build_statistics(self, scheduler: Scheduler) -> PoolStatistics:
        workers = scheduler.workers
        # Added up first: a task that ends meanwhile is missed once, and not counted twice.
        totals = WorkerCounters()
        for worker in workers:
            totals.add(worker.counters)
        queue, now = scheduler.queue.copy(), monotonic()
        live = [process for process in scheduler.iter_processes() if process.is_ready]
        busy = [process for process in live if process.tasks.batches]
        spent = _read_spent(busy)
        snapshot = PoolSnapshot(
            target=scheduler.target,
            live=len(live),
            busy=len(busy),
            starting=len(workers) - len(live),
            queued=len(queue),
            oldest_queued_age_seconds=max(0.0, now - queue[0].queued_seconds) if queue else 0.0,
            slot_seconds=sum(worker.slot_seconds for worker in workers)
            + sum(now - process.ready_seconds for process in live),
            cpu_seconds=sum(worker.cpu_seconds for worker in workers) + sum(cpu for cpu, _ in spent.values()),
            run_delay_seconds=sum(worker.delay_seconds for worker in workers) + sum(map(_read_unreported_delay, busy)),
            running=sum(len(process.tasks.settling) for process in live)
            + sum(len(process.tasks.assigned) for process in busy),
        )
        busy_seconds = sum(max(0.0, now - process.tasks.batch_seconds) for process in busy)
        return self._counters.build_statistics(snapshot, totals, busy_seconds)

    def list_running(self) -> tuple[RunningTask, ...]:
        """Return the running tasks: of each process's tasks the first that has not ended."""
        with self._scheduler.lock:
            return self._list_running()

    def _list_running(self) -> tuple[RunningTask, ...]:
        processes = self._scheduler.iter_processes()
        busy = [process for process in processes if process.tasks.batches and process.tasks.assigned]
        spent = _read_spent(busy)
        found = []
        for process in busy:
            item = next(iter(tuple(process.tasks.assigned.values())), None)
            if item is not None:
                cpu, memory = spent.get(process.pid, (0.0, 0))
                found.append(
                    RunningTask(
                        label=item.future.label,
                        worker=process.worker.name,
                        started_seconds=process.tasks.batch_seconds,
                        cpu_seconds=cpu,
                        memory_bytes=memory,
                        run_delay_seconds=_read_run_delay(process),
                        sampled_seconds=(now := monotonic()),
                        core_time=_sample_core_time(process, now),
                    )
                )
        return tuple(found)

    def read_memory(self) -> tuple[WorkerMemory, ...]:
        """Return the memory of each worker process; takes some 20 µs for each, without the lock."""
        pids = [process.pid for process in self._list_processes() if process.is_ready]
        found = (procfs.read_memory_and_peak_bytes(pid) for pid in pids)
        return tuple(WorkerMemory(now_bytes=now, peak_bytes=max(now, peak)) for now, peak in found if now)

    def _list_processes(self) -> list[WorkerProcess]:
        workers = tuple(self._scheduler.workers)  # without the lock, another thread may change the list
        return [process for worker in workers if (process := worker.process) is not None]


def _read_run_delay(process: WorkerProcess) -> float:
    """Return how long a process waited for a core since its batch was first sampled."""
    delay, batch_seconds, samples = _read_delay(process), process.tasks.batch_seconds, process.samples
    if samples.first_delay[0] != batch_seconds:
        samples.first_delay = batch_seconds, delay
    return max(0.0, delay - samples.first_delay[1])


def _read_unreported_delay(process: WorkerProcess) -> float:
    """Return how long a busy process waited for a core in the tasks that it has not reported yet.

    Between two tasks the difference to the reported delay is smallest. It is unknown before the first task ends, so
    that the first one's wait counts from its first sample on.
    """
    samples, beyond = process.samples, _read_delay(process) - process.worker.delay_seconds
    samples.unreported_delay = min(beyond, samples.unreported_delay)
    return beyond - samples.unreported_delay


def _sample_core_time(process: WorkerProcess, now: float) -> CoreTime:
    """Return how long a process's threads and descendants ran and waited for a core, since first sampled."""
    tree = process.samples.tree_time
    tree.sample((process.pid,), now)
    return CoreTime(tree.run_seconds, tree.wait_seconds)


def _read_delay(process: WorkerProcess) -> float:
    return procfs.read_run_delay_seconds(f"{procfs.locate(process.pid)}/schedstat")


def _read_spent(processes: Sequence[WorkerProcess]) -> dict[int, tuple[float, int]]:
    """Return the CPU of the processes' trees since their last reply, and their memory, by one walk over /proc."""
    pids = {process.pid: process.cpu_base_seconds for process in processes}
    usage = procfs.measure_trees(set(pids)) if pids else {}
    return {pid: (max(0.0, cpu - pids[pid]), memory) for pid, (cpu, memory) in usage.items()}
