"""Compute the guide's metrics of a pool from its tasks, with bottlenecks and recommendations."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import fmean

from paropt_exporter.cpu_demand import WAITING_DEMAND, CoreTime, cpu_demand
from paropt_exporter.engine import report
from paropt_exporter.events import Bottleneck, Measurement, Result, StageRecord
from paropt_exporter.executors.adaptive.scheduler import ThreadFallback
from paropt_exporter.guide.pool_metrics import StageExecution, StageMetrics, WorkerPoolMetrics, group_executions
from paropt_exporter.guide.strategies import ParallelizationStrategy

_NOTICEABLE_SECONDS = 0.1  # shorter tasks are dominated by their start


@dataclass(slots=True)
class CoreUse:
    """The CPU demand of a stage's tasks times their duration, in core seconds, and their duration."""

    wanted_seconds: float = 0.0
    wall_seconds: float = 0.0

    def add(self, measured: Measurement) -> None:
        wall = measured.ended_seconds - measured.started_seconds
        if measured.pid:  # 0 if it never ran, or its worker died
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
    found = report.find_bottlenecks(records, busy_ratio=busy_ratio, queued=queued)
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
        tasks = f"{each.tasks} task{'' if each.tasks == 1 else 's'}"
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
