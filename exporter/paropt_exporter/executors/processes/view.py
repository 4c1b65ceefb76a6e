"""What a ProcessPool looks like from outside; its crew's lock is held meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.events import RunningTask, WorkerMemory
from paropt_exporter.executors import procfs
from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import PoolSnapshot, WorkerCounters
from paropt_exporter.executors.processes.slot import ProcessSlot, ProcessTask


def add_up(slots: Sequence[ProcessSlot]) -> WorkerCounters:
    """Return what the slots' tasks came to. For before `look`: a task that ends meanwhile is missed, not doubled."""
    tally = WorkerCounters()
    for slot in slots:
        tally.add(slot.tally)
    return tally


def look(slots: Sequence[ProcessSlot], waiting: Sequence[ProcessTask], target: int) -> tuple[PoolSnapshot, float]:
    """Return what the slots do at this moment, and for how many seconds the busy ones have been at it."""
    now = monotonic()
    live = [slot for slot in slots if slot.ready_seconds is not None]
    busy = [slot for slot in live if slot.orders]
    spent = _spent(busy)
    moment = PoolSnapshot(
        target=target,
        live=len(live),
        busy=len(busy),
        starting=len(slots) - len(live),
        queued=len(waiting),
        oldest_queued_age_seconds=max(0.0, now - waiting[0].queued_seconds) if waiting else 0.0,
        slot_seconds=sum(slot.slot_seconds for slot in slots) + sum(now - (slot.ready_seconds or now) for slot in live),
        cpu_seconds=sum(slot.cpu_seconds for slot in slots) + sum(cpu for cpu, _ in spent.values()),
        run_delay_seconds=sum(slot.delay_seconds for slot in slots),
        running=sum(len(slot.settling) for slot in live) + sum(len(slot.open) for slot in busy),
    )
    return moment, sum(max(0.0, now - slot.ordered_seconds) for slot in busy)


def running(slots: Sequence[ProcessSlot]) -> tuple[RunningTask, ...]:
    """List the tasks that workers are at: of all that one holds, the first that has not ended."""
    busy = [slot for slot in slots if slot.orders and slot.open]
    spent = _spent(busy)
    found = []
    for slot in busy:
        task = next(iter(tuple(slot.open.values())), None)
        if task is not None:
            cpu, memory = spent.get(slot.pid, (0.0, 0))
            found.append(
                RunningTask(
                    label=task.future.label,
                    worker=slot.name,
                    started_seconds=slot.ordered_seconds,
                    cpu_seconds=cpu,
                    memory_bytes=memory,
                    run_delay_seconds=_delay_since_first_look(slot),
                    core_time=_core_time(slot),
                )
            )
    return tuple(found)


def memory(pids: Sequence[int]) -> tuple[WorkerMemory, ...]:
    """Return what each worker process has in memory; some 20 µs for each."""
    found = (procfs.read_memory_and_peak_bytes(pid) for pid in pids)
    return tuple(WorkerMemory(now_bytes=now, peak_bytes=max(now, peak)) for now, peak in found if now)


def _delay_since_first_look(slot: ProcessSlot) -> float:
    """Return how long the worker had no core since its batch was first looked at: no order pays for the mark."""
    delay = procfs.read_run_delay_seconds(f"/proc/{slot.pid}/schedstat")
    if slot.delay_mark[0] != slot.ordered_seconds:
        slot.delay_mark = (slot.ordered_seconds, delay)
    return max(0.0, delay - slot.delay_mark[1])


def _core_time(slot: ProcessSlot) -> CoreTime:
    """Return how long the threads of the worker and its descendants ran and waited for a core, since first sampled."""
    if slot.sampled is None or slot.sampled[0] != slot.pid:
        slot.sampled = (slot.pid, TreeTime())
    tree = slot.sampled[1]
    tree.sample((slot.pid,), monotonic())
    return CoreTime(tree.run_seconds, tree.wait_seconds)


def _spent(slots: Sequence[ProcessSlot]) -> dict[int, tuple[float, int]]:
    """Return what busy workers' trees have used since their last word, and their memory, by one walk over /proc."""
    pids = {slot.pid: slot.cpu_base_seconds for slot in slots if slot.pid}
    usage = procfs.measure_trees(set(pids)) if pids else {}
    return {pid: (max(0.0, cpu - pids[pid]), memory) for pid, (cpu, memory) in usage.items()}
