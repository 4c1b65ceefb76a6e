"""The guide's metrics of a pool and its tasks: frozen snapshots, their JSON form, and a text report.

The metrics include bottlenecks and recommendations.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from paropt_exporter.clock import SystemClock
from paropt_exporter.cpu_demand import WAITING_DEMAND, CoreTime, cpu_demand
from paropt_exporter.engine import run_record
from paropt_exporter.errors import format_count
from paropt_exporter.events import Bottleneck, Measurement, Result, StageRecord
from paropt_exporter.executors.adaptive.scheduler import ThreadFallback
from paropt_exporter.guide.strategies import ParallelizationStrategy

_MOST_LISTED = 40  # a screenful; the rest is in `to_dict()`
_NOTICEABLE_SECONDS = 0.1  # in shorter tasks, the start dominates


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


class ParallelizationDashboard:
    """Formats a report of a pool. For longer time spans there are Grafana dashboards."""

    @staticmethod
    def format_metrics_report(metrics: WorkerPoolMetrics) -> str:
        """Return the report: pool, tasks in order of submission, bottlenecks and recommendations."""
        return "\n".join(_iter_report_lines(metrics))


def _iter_report_lines(metrics: WorkerPoolMetrics) -> Iterator[str]:
    left = metrics.total_tasks - metrics.completed_tasks - metrics.failed_tasks
    counts = f"{metrics.completed_tasks} succeeded, {metrics.failed_tasks} failed"
    yield (
        f"{metrics.strategy} pool of {metrics.pool_size} · {format_count(metrics.total_tasks, 'task')} in "
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


@dataclass(slots=True)
class CoreUse:
    """The CPU demand of a stage's tasks times their duration, in core seconds, and their duration."""

    wanted_seconds: float = 0.0
    wall_seconds: float = 0.0

    def add(self, measured: Measurement) -> None:
        wall = measured.ended_seconds - measured.started_seconds
        if measured.pid:  # 0 if the task never ran, or its worker died
            self.wanted_seconds += wall * cpu_demand(CoreTime(measured.cpu_seconds, measured.run_delay_seconds), wall)
            self.wall_seconds += wall

    @property
    def demand(self) -> float:
        return self.wanted_seconds / self.wall_seconds

    @property
    def waits(self) -> bool:
        return self.wall_seconds >= _NOTICEABLE_SECONDS and self.demand < WAITING_DEMAND


def summarize(
    tasks: Sequence[StageMetrics],
    *,
    strategy: ParallelizationStrategy,
    pool_size: int,
    submitted: int,
    wall_seconds: float,
    busy_ratio: float,
    queued: bool,
    gil_bound: Collection[int],
    in_processes: Mapping[int, CoreUse],
    fallbacks: Sequence[ThreadFallback],
    now: datetime,
) -> WorkerPoolMetrics:
    """Return the metrics of the finished `tasks`. `gil_bound` has the stages that hold the interpreter's lock.

    `in_processes` has the core use of the stages that ran in processes, `fallbacks` the functions that can't.
    """
    took = [task.duration_seconds for task in tasks if task.worker_id]
    succeeded = sum(task.success for task in tasks)
    records = _build_stage_records(tasks, gil_bound)
    found = run_record.find_bottlenecks(records, busy_ratio=busy_ratio, queued=queued)
    misplaced = [*_find_waiting_stages(records, strategy, in_processes), *_describe_fallbacks(fallbacks)]
    return WorkerPoolMetrics(
        pool_size=pool_size,
        strategy=strategy,
        total_tasks=submitted,
        completed_tasks=succeeded,
        failed_tasks=len(tasks) - succeeded,
        total_duration_seconds=wall_seconds,
        avg_task_duration_seconds=fmean(took) if took else 0.0,
        min_task_duration_seconds=min(took, default=0.0),
        max_task_duration_seconds=max(took, default=0.0),
        worker_utilization=busy_ratio * 100,
        throughput_tasks_per_second=succeeded / wall_seconds if wall_seconds > 0 else 0.0,
        stage_metrics=_mark_parallel(tasks),
        bottlenecks=[*(each.sentence for each in found), *(fact for fact, _ in misplaced)],
        recommendations=list(
            dict.fromkeys(
                [*(_format_advice(each, strategy, pool_size) for each in found), *(what for _, what in misplaced)]
            )
        ),
        timestamp=now,
    )


def _find_waiting_stages(
    stages: Sequence[StageRecord], strategy: ParallelizationStrategy, in_processes: Mapping[int, CoreUse]
) -> Iterator[tuple[str, str]]:
    """Yield the stages that wait in a fixed number of processes, each with a recommendation."""
    if strategy is not ParallelizationStrategy.PROCESS_POOL:
        return
    for stage in stages:
        use = in_processes.get(stage.number)
        if use is not None and use.waits:
            yield (
                f"{stage.stage} waits: in processes, its tasks want {use.demand:.2f} of a core each",
                f"{stage.stage}: use THREAD_POOL or ADAPTIVE instead of {strategy.name}: waiting in threads costs less",
            )


def _describe_fallbacks(fallbacks: Sequence[ThreadFallback]) -> Iterator[tuple[str, str]]:
    for each in fallbacks:
        tasks = format_count(each.tasks, "task")
        yield (
            f"{each.function} can't be sent to a process: {tasks} ran in threads ({each.reason})",
            f"{each.function}: pass data instead of the bound object, or give that object a __reduce__",
        )


def _mark_parallel(tasks: Sequence[StageMetrics]) -> list[StageMetrics]:
    """Mark the tasks that ran at the same time as another one."""
    marked: set[int] = set()
    longest = -1
    ran = (index for index, task in enumerate(tasks) if task.worker_id)
    for index in sorted(ran, key=lambda index: tasks[index].start_time):
        if longest >= 0 and tasks[index].start_time < tasks[longest].end_time:
            marked |= {index, longest}
        if longest < 0 or tasks[index].end_time > tasks[longest].end_time:
            longest = index
    return [replace(task, parallelized=True) if index in marked else task for index, task in enumerate(tasks)]


def _build_stage_records(tasks: Sequence[StageMetrics], gil_bound: Collection[int]) -> Sequence[StageRecord]:
    """Return each stage's latest execution as a record for the search of bottlenecks."""
    latest = {stage.number: stage for stage in group_executions(task for task in tasks if task.worker_id)}
    return [_build_stage_record(stage, gil_bound=stage.number in gil_bound) for stage in latest.values()]


def _build_stage_record(stage: StageExecution, *, gil_bound: bool) -> StageRecord:
    took = [task.duration_seconds for task in stage.tasks]
    failed = sum(not task.success for task in stage.tasks)
    return StageRecord(
        run_id="",
        lane="",
        stage=stage.name,
        number=stage.number,
        result=Result.FAILURE if failed else Result.SUCCESS,
        message="",
        pool="",
        tasks=len(took),
        tasks_failed=failed,
        duration_seconds=stage.duration_seconds,
        started_timestamp_seconds=stage.tasks[0].start_time.timestamp(),
        cpu_seconds=sum(task.cpu_percent / 100 * task.duration_seconds for task in stage.tasks),
        fastest_task_seconds=min(took),
        slowest_task_seconds=max(took),
        gil_bound=gil_bound,
    )


def _format_advice(found: Bottleneck, strategy: ParallelizationStrategy, size: int) -> str:
    match found.kind:
        case "gil_bound":
            return _advise_processes(found, strategy)
        case "slow":
            return f"{found.stage}: submit it as several tasks, or make it faster: it decides how long the rest waits"
        case "uneven":
            return f"{found.stage or 'stages'}: cut the work into pieces of about the same size"
        case "saturated":
            return _advise_more_workers(strategy, size)
        case _:
            fewer = f"fewer than {size} workers, or " if size > 1 else ""
            return f"{fewer}more tasks that can run at the same time"


def _advise_processes(found: Bottleneck, strategy: ParallelizationStrategy) -> str:
    if strategy in (ParallelizationStrategy.HYBRID, ParallelizationStrategy.ADAPTIVE):
        return f"{found.stage}: let it run in processes: without thread_only, with arguments that can be pickled"
    return f"{found.stage}: use PROCESS_POOL, HYBRID or ADAPTIVE instead of {strategy.name}"


def _advise_more_workers(strategy: ParallelizationStrategy, size: int) -> str:
    match strategy:
        case ParallelizationStrategy.SEQUENTIAL:
            return "use another strategy than SEQUENTIAL, which is for finding faults"
        case ParallelizationStrategy.PROCESS_POOL:
            return f"more than {size} workers if there are cores for them, or less work"
        case _:
            return f"more than {size} workers, or PROCESS_POOL if the work is CPU-bound"
