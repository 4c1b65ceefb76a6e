"""Reads the workers of a ProcessPool for statistics, and the CPU, memory and core waits of running tasks from /proc."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.events import PoolStatistics, RunningTask, WorkerMemory
from paropt_exporter.executors import procfs
from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import PoolCounters, PoolSnapshot, WorkerCounters
from paropt_exporter.executors.processes.scheduler import Scheduler, Worker


class UsageSampler:
    """Samples the workers of one pool. The pool's lock is held, except for `read_memory`."""

    def __init__(self) -> None:
        # By worker process: the start of the batch that it was first sampled in, and its run delay then. So a batch
        # that is never sampled costs no read.
        self._first_delays: dict[int, tuple[float, float]] = {}
        self._tree_times: dict[int, TreeTime] = {}  # of the worker's threads and descendants

    def build_statistics(self, scheduler: Scheduler, counters: PoolCounters) -> PoolStatistics:
        """Return the pool's statistics now."""
        workers = scheduler.workers
        # Added up first: a task that ends meanwhile is missed once, and not counted twice.
        totals = WorkerCounters()
        for worker in workers:
            totals.add(worker.counters)
        queue, now = scheduler.queue.copy(), monotonic()
        live = [worker for worker in workers if worker.ready_seconds is not None]
        busy = [worker for worker in live if worker.batches]
        spent = _read_spent(busy)
        snapshot = PoolSnapshot(
            target=scheduler.target,
            live=len(live),
            busy=len(busy),
            starting=len(workers) - len(live),
            queued=len(queue),
            oldest_queued_age_seconds=max(0.0, now - queue[0].queued_seconds) if queue else 0.0,
            slot_seconds=sum(worker.slot_seconds for worker in workers)
            + sum(now - (worker.ready_seconds or now) for worker in live),
            cpu_seconds=sum(worker.cpu_seconds for worker in workers) + sum(cpu for cpu, _ in spent.values()),
            run_delay_seconds=sum(worker.delay_seconds for worker in workers),
            running=sum(len(worker.settling) for worker in live) + sum(len(worker.assigned) for worker in busy),
        )
        busy_seconds = sum(max(0.0, now - worker.batch_seconds) for worker in busy)
        return counters.build_statistics(snapshot, totals, busy_seconds)

    def list_running(self, workers: Sequence[Worker]) -> tuple[RunningTask, ...]:
        """Return the running tasks: of each worker's tasks the first that has not ended."""
        busy = [worker for worker in workers if worker.batches and worker.assigned]
        self._forget_processes({worker.pid for worker in workers})
        spent = _read_spent(busy)
        found = []
        for worker in busy:
            item = next(iter(tuple(worker.assigned.values())), None)
            if item is not None:
                cpu, memory = spent.get(worker.pid, (0.0, 0))
                found.append(
                    RunningTask(
                        label=item.future.label,
                        worker=worker.name,
                        started_seconds=worker.batch_seconds,
                        cpu_seconds=cpu,
                        memory_bytes=memory,
                        run_delay_seconds=self._read_run_delay(worker),
                        core_time=self._sample_core_time(worker.pid),
                    )
                )
        return tuple(found)

    @staticmethod
    def read_memory(pids: Sequence[int]) -> tuple[WorkerMemory, ...]:
        """Return the memory of each worker process; takes some 20 µs for each."""
        found = (procfs.read_memory_and_peak_bytes(pid) for pid in pids)
        return tuple(WorkerMemory(now_bytes=now, peak_bytes=max(now, peak)) for now, peak in found if now)

    def _forget_processes(self, pids: set[int]) -> None:
        for pid in self._tree_times.keys() - pids:
            del self._tree_times[pid]
            self._first_delays.pop(pid, None)

    def _read_run_delay(self, worker: Worker) -> float:
        """Return how long the worker waited for a core since its batch was first sampled."""
        delay = procfs.read_run_delay_seconds(f"/proc/{worker.pid}/schedstat")
        batch_seconds, first = self._first_delays.get(worker.pid, (None, 0.0))
        if batch_seconds != worker.batch_seconds:
            self._first_delays[worker.pid] = (worker.batch_seconds, delay)
            return 0.0
        return max(0.0, delay - first)

    def _sample_core_time(self, pid: int) -> CoreTime:
        """Return how long the worker's threads and descendants ran and waited for a core, since first sampled."""
        tree = self._tree_times.setdefault(pid, TreeTime())
        tree.sample((pid,), monotonic())
        return CoreTime(tree.run_seconds, tree.wait_seconds)


def _read_spent(workers: Sequence[Worker]) -> dict[int, tuple[float, int]]:
    """Return the CPU of the workers' process trees since their last reply, and their memory, by one walk over /proc."""
    pids = {worker.pid: worker.cpu_base_seconds for worker in workers if worker.pid}
    usage = procfs.measure_trees(set(pids)) if pids else {}
    return {pid: (max(0.0, cpu - pids[pid]), memory) for pid, (cpu, memory) in usage.items()}
