"""The guide's metrics of a pool and its tasks, as frozen snapshots with a JSON form, and a text report of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from paropt_exporter.clock import SystemClock
from paropt_exporter.guide.strategies import ParallelizationStrategy


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """A finished task of a stage.

    `cpu_percent` is of one core, with child processes. `memory_mb` is the peak of the process that ran the task, in
    10^6 bytes. `parallelized`: another task of the pool ran at the same time. A task that was cancelled before it
    began starts and ends at the cancellation. Tasks submitted while the pool was busy share a `batch`; it is 0 if no
    pool created this.
    """

    stage_number: int
    stage_name: str
    start_time: datetime
    end_time: datetime
    duration_seconds: float
    worker_id: str
    success: bool
    error_message: str | None = None
    cpu_percent: float = 0.0
    memory_mb: float = 0.0
    parallelized: bool = False
    batch: int = field(default=0, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, times in ISO 8601 with their offset."""
        return {each.name: _to_plain(getattr(self, each.name)) for each in fields(self) if each.name != "batch"}


@dataclass(frozen=True, slots=True)
class WorkerPoolMetrics:
    """A snapshot of a pool over its life so far.

    `completed_tasks` succeeded; the tasks that neither completed nor failed are queued or running.
    `total_duration_seconds` is from the first submit to the last end, or to now while tasks are left.
    `worker_utilization` is busy over slot time in percent, without idle times of the pool. `stage_metrics` has the
    finished tasks in order of submission.
    """

    pool_size: int
    strategy: ParallelizationStrategy
    total_tasks: int = 0
    completed_tasks: int = 0
    failed_tasks: int = 0
    total_duration_seconds: float = 0.0
    avg_task_duration_seconds: float = 0.0
    min_task_duration_seconds: float = 0.0
    max_task_duration_seconds: float = 0.0
    worker_utilization: float = 0.0
    throughput_tasks_per_second: float = 0.0
    stage_metrics: list[StageMetrics] = field(default_factory=list)
    bottlenecks: list[str] = field(default_factory=list)
    recommendations: list[str] = field(default_factory=list)
    timestamp: datetime = field(default_factory=lambda: datetime.fromtimestamp(SystemClock().wall(), UTC))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, without infinity, times in ISO 8601 with their offset."""
        return {each.name: _to_plain(getattr(self, each.name)) for each in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageExecution:
    """One execution of a stage: the tasks of one number in one batch.

    `key` identifies the execution in every snapshot.
    """

    number: int
    name: str
    tasks: tuple[StageMetrics, ...]

    @property
    def duration_seconds(self) -> float:
        """The time from the first task's start to the last task's end."""
        first = min(task.start_time for task in self.tasks)
        last = max(task.end_time for task in self.tasks)
        return max((last - first).total_seconds(), *(task.duration_seconds for task in self.tasks))

    @property
    def key(self) -> tuple[object, ...]:
        # No pool created a batch of 0. The start does not identify a pool's batch: its first task may end last.
        return self.number, self.tasks[0].batch or min(task.start_time for task in self.tasks)


def group_executions(tasks: Iterable[StageMetrics]) -> tuple[StageExecution, ...]:
    """Group tasks by the executions of stages, in order of their first tasks."""
    groups: dict[tuple[int, int], list[StageMetrics]] = {}
    for task in tasks:
        groups.setdefault((task.batch, task.stage_number), []).append(task)
    return tuple(
        StageExecution(number=number, name=_join_names(group), tasks=tuple(group))
        for (_, number), group in groups.items()
    )


def _join_names(tasks: Iterable[StageMetrics]) -> str:
    names = list(dict.fromkeys(task.stage_name for task in tasks))
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _to_plain(value: object) -> Any:
    match value:
        case StageMetrics():
            return value.to_dict()
        case datetime():
            return value.isoformat()
        case ParallelizationStrategy():
            return value.value
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [_to_plain(each) for each in value]
    return value


_MOST_LISTED = 40  # a screenful; the rest is in `to_dict()`


class ParallelizationDashboard:
    """Formats a report of a pool. The dashboards for longer spans are Grafana's."""

    @staticmethod
    def format_metrics_report(metrics: WorkerPoolMetrics) -> str:
        """Return the report: pool, tasks in order of submission, bottlenecks and recommendations."""
        return "\n".join(_iter_report_lines(metrics))


def _iter_report_lines(metrics: WorkerPoolMetrics) -> Iterator[str]:
    left = metrics.total_tasks - metrics.completed_tasks - metrics.failed_tasks
    counts = f"{metrics.completed_tasks} succeeded, {metrics.failed_tasks} failed"
    yield (
        f"{metrics.strategy} pool of {metrics.pool_size} · {metrics.total_tasks} tasks in "
        f"{metrics.total_duration_seconds:.2f} s · {counts}{f', {left} not ended' if left else ''}"
    )
    yield (
        f"  workers {metrics.worker_utilization:.0f} % busy · {metrics.throughput_tasks_per_second:.2f} tasks/s"
        f" · a task {metrics.avg_task_duration_seconds:.2f} s on average"
        f" ({metrics.min_task_duration_seconds:.2f} to {metrics.max_task_duration_seconds:.2f} s)"
    )
    width = max((len(task.stage_name) for task in metrics.stage_metrics[:_MOST_LISTED]), default=0)
    for task in metrics.stage_metrics[:_MOST_LISTED]:
        yield _format_task(task, width)
    if len(metrics.stage_metrics) > _MOST_LISTED:
        yield f"  … and {len(metrics.stage_metrics) - _MOST_LISTED} more"
    yield from (f"  bottleneck: {sentence}" for sentence in metrics.bottlenecks)
    yield from (f"  try: {sentence}" for sentence in metrics.recommendations)


def _format_task(task: StageMetrics, width: int) -> str:
    mark = " " if task.success else "x"
    facts = f"{task.duration_seconds:8.2f} s  {task.cpu_percent:5.0f} % CPU  {task.memory_mb:6.0f} MB  {task.worker_id}"
    why = f"  {' '.join(task.error_message.split())}" if task.error_message else ""
    return f"  {mark} {task.stage_number} {task.stage_name:<{width}} {facts}{why}".rstrip()
