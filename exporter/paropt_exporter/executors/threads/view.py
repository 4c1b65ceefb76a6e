"""What a ThreadPool looks like from outside; its crew's lock is held meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from paropt_exporter.cpu_demand import CoreTime
from paropt_exporter.events import RunningTask
from paropt_exporter.executors import procfs
from paropt_exporter.executors.core_time import TreeTime
from paropt_exporter.executors.counters import PoolSnapshot, WorkerCounters
from paropt_exporter.executors.future import TaskFuture, label_of
from paropt_exporter.executors.threads.task import Slot, Task

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
        cpu_seconds=sum(procfs.thread_cpu_seconds(slot.ident) - slot.cpu_base_seconds for slot in live),
        run_delay_seconds=sum(procfs.run_delay_seconds(slot.schedstat) for slot in live),
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
        label=task[0].label or label_of(task[1]),
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
