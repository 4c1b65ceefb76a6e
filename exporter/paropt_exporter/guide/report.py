"""A short text report of a pool's metrics, for a log or a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from paropt_exporter.guide.measures import StageMetrics, WorkerPoolMetrics

_MOST_LISTED = 40  # a screenful; the rest is in `to_dict()`


class ParallelizationDashboard:
    """Writes the report; the dashboards to look at for longer are Grafana's."""

    @staticmethod
    def format_metrics_report(metrics: WorkerPoolMetrics) -> str:
        """Return the report: pool, tasks in order of submission, bottlenecks and recommendations."""
        return "\n".join(_lines(metrics))


def _lines(metrics: WorkerPoolMetrics) -> Iterator[str]:
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
        yield _task_line(task, width)
    if len(metrics.stage_metrics) > _MOST_LISTED:
        yield f"  … and {len(metrics.stage_metrics) - _MOST_LISTED} more"
    yield from (f"  bottleneck: {sentence}" for sentence in metrics.bottlenecks)
    yield from (f"  try: {sentence}" for sentence in metrics.recommendations)


def _task_line(task: StageMetrics, width: int) -> str:
    mark = " " if task.success else "x"
    facts = f"{task.duration_seconds:8.2f} s  {task.cpu_percent:5.0f} % CPU  {task.memory_mb:6.0f} MB  {task.worker_id}"
    why = f"  {' '.join(task.error_message.split())}" if task.error_message else ""
    return f"  {mark} {task.stage_number} {task.stage_name:<{width}} {facts}{why}".rstrip()
