"""The coordinator's view of the workers: their slots, and the work items that they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paropt_exporter.events import RunningTask
from paropt_exporter.executors.cluster.messages import RemoteTask, RunningUsage, WorkerFacts
from paropt_exporter.executors.future import TaskFuture


@dataclass(slots=True, eq=False)
class WorkItem:
    """One attempt of a task, from its submission until its future settles.

    `group`: tasks of one group have similar durations. `on_reply` gets the files of the reply before the future
    settles.
    """

    future: TaskFuture[Any]
    task: RemoteTask
    group: str
    slots: int = 1
    memory_bytes: int = 0
    queued_seconds: float = 0.0
    sent_seconds: float = 0.0
    on_files: Callable[[Any], None] | None = None
    worker: RemoteWorker | None = None
    usage: tuple[float, RunningUsage] | None = None  # when it was received, on our clock


@dataclass(slots=True, eq=False)
class RemoteWorker:
    """A worker that takes tasks.

    preparing ──facts──> ready ──surplus──> draining ──idle──> scaled down
                           └── lost: its items fail, and nothing that it sends later counts
    """

    address: str
    name: str | int
    facts: WorkerFacts
    lease: Any
    heard_seconds: float
    items: dict[int, WorkItem] = field(default_factory=dict)  # by attempt
    batches: int = 0
    draining: bool = False
    polling: bool = False

    @property
    def busy_slots(self) -> int:
        return sum(item.slots for item in self.items.values())

    @property
    def free_slots(self) -> int:
        return 0 if self.draining or self.batches >= self.facts.threads else self.facts.threads - self.batches

    @property
    def host_key(self) -> str:
        return self.facts.host_key


def build_running_task(item: WorkItem, worker: RemoteWorker, now: float) -> RunningTask:
    """Build the view of a running task, on our clock."""
    label = f"{worker.facts.host}/{worker.name}"
    if item.usage is None:
        return RunningTask(
            label=item.task.label,
            worker=label,
            started_seconds=item.sent_seconds,
            cpu_seconds=0.0,
            memory_bytes=0,
            sampled_seconds=0.0,
        )
    received, usage = item.usage
    return RunningTask(
        label=item.task.label,
        worker=label,
        started_seconds=max(item.sent_seconds, received - usage.elapsed_seconds),
        cpu_seconds=usage.cpu_seconds,
        memory_bytes=usage.memory_bytes,
        run_delay_seconds=usage.run_delay_seconds,
        core_time=usage.core_time,
        sampled_seconds=0.0 if usage.age_seconds is None else received - usage.age_seconds,
    )
