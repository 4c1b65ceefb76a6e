"""The attempts of a cluster's tasks: their needs, how they run, and how a reply settles their futures."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.errors import TaskStopped, WorkerDied
from paropt_exporter.events import Result, RunningTask
from paropt_exporter.executors.base import RemoteTaskOptions
from paropt_exporter.executors.cluster.messages import RemoteMeasurement, RemoteTask, RunningUsage, TaskReply
from paropt_exporter.executors.commands.command_pool import CommandOutcome
from paropt_exporter.executors.future import TaskFuture

if TYPE_CHECKING:
    from paropt_exporter.executors.cluster.workers import RemoteWorker

log = logging.getLogger(__name__)

_COUNTERS = {Result.SUCCESS: "succeeded", Result.FAILURE: "failed", Result.CANCELLATION: "cancelled"}


class WorkItem(Struct, eq=False):
    """One attempt of a task, from its submission until its future settles.

    `group`: tasks of one group have similar durations.
    """

    future: TaskFuture[Any]
    task: RemoteTask
    group: str
    options: RemoteTaskOptions
    queued_seconds: float = 0.0
    sent_seconds: float = 0.0
    lacks_output_file: bool = False  # it could not be written here
    worker: RemoteWorker | None = None
    usage: tuple[float, RunningUsage] | None = None  # when it was received, on our clock

    @property
    def used_bytes(self) -> int:
        return self.usage[1].memory_bytes if self.usage is not None else 0


def build_running_task(item: WorkItem, worker: RemoteWorker) -> RunningTask:
    """Build the view of a running task, on our clock."""
    if item.usage is None:
        return RunningTask(
            label=item.task.label,
            worker=worker.label,
            started_seconds=item.sent_seconds,
            cpu_seconds=0.0,
            memory_bytes=0,
            sampled_seconds=0.0,
        )
    received, usage = item.usage
    return RunningTask(
        label=item.task.label,
        worker=worker.label,
        started_seconds=max(item.sent_seconds, received - usage.elapsed_seconds),
        cpu_seconds=usage.cpu_seconds,
        memory_bytes=usage.memory_bytes,
        run_delay_seconds=usage.run_delay_seconds,
        core_time=usage.core_time,
        sampled_seconds=0.0 if usage.age_seconds is None else received - usage.age_seconds,
    )


def build_last_measurement(item: WorkItem, now: float) -> RemoteMeasurement | None:
    """Build the measurement of a task without a reply, from the last sample of it; None without one."""
    if item.usage is None:
        return None
    usage = item.usage[1]
    return RemoteMeasurement(
        worker=item.worker.label if item.worker else "",
        duration_seconds=now - item.sent_seconds,
        cpu_seconds=usage.cpu_seconds,
        run_delay_seconds=usage.run_delay_seconds,
        memory_peak_bytes=usage.memory_bytes,
    )


def settle(item: WorkItem, reply: TaskReply, received_seconds: float) -> None:
    """Settle the future of an item with a reply, unless it was settled before."""
    future, measured, value = item.future, reply.measurement, reply.value
    if measured is not None:
        started = received_seconds - measured.duration_seconds
        started = max(item.sent_seconds, started) if item.sent_seconds else received_seconds
        future._usage = (
            measured.worker, measured.pid, started, started + measured.duration_seconds, measured.cpu_seconds,
            measured.run_delay_seconds, measured.memory_peak_bytes,
        )  # fmt: skip
        if isinstance(value, CommandOutcome) and future.measurement is not None:
            path = _find_output_path(item, value)
            value = replace(value, measurement=future.measurement, output_path=path)
    if reply.error is not None:
        future.settle_exception(reply.error)
    else:
        future.settle_result(value)


def _find_output_path(item: WorkItem, outcome: CommandOutcome) -> str | None:
    """Return the file with the whole output here; None if there is none, or if the worker's disk was full."""
    if not item.options.keeps_output:
        return None
    if outcome.output_path is None:
        log.warning(
            "the disk of a worker's host took only a part of the output of a task",
            extra={"task": item.task.label, "worker": outcome.measurement.worker},
        )
        return None
    file = item.options.output_file
    return None if file is None or item.lacks_output_file else str(file.path)


def classify_reply(reply: TaskReply) -> str:
    """Return the counter of a pool that counts a reply."""
    value, error = reply.value, reply.error
    if isinstance(error, TaskStopped):
        return "cancelled"
    if isinstance(error, WorkerDied):
        return "errors"
    if error is not None:
        return "failed"
    if not isinstance(value, CommandOutcome):
        return "succeeded"
    return _COUNTERS.get(value.result, "errors")
