"""A trace for Perfetto or chrome://tracing: a track for each worker and stage, counters for sizes and queues.

Format: the Trace Event Format, its JSON object form. Times are microseconds since the run began.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import accumulate

from paropt_exporter.events import Result, TaskRecord
from paropt_exporter.reports.model import FinishedRun, ReportedStage

_WORKERS, _STAGES = 1, 2  # the trace's two "processes"
_MICROSECONDS = 1e6
# The names that both viewers have colours for.
_COLOURS = {Result.SUCCESS: "good", Result.CANCELLATION: "grey", Result.SKIP: "grey"}
_BAD_COLOUR = "terrible"

_Event = dict[str, object]


def render(run: FinishedRun) -> bytes:
    """Return the trace of a run."""
    records = [attempt.record for attempt in run.attempts() if not attempt.record.cached]
    events = [*_iter_workers(run, records), *_iter_stages(run), *_iter_sizes(run), *_iter_queues(run, records)]
    return (
        json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": _describe_run(run)}).encode() + b"\n"
    )


def _describe_run(run: FinishedRun) -> dict[str, str]:
    shard = {} if run.record.shard is None else {"shard": str(run.record.shard), "split": run.record.shard.split}
    return {"project": run.project, "lane": run.record.lane, "run_id": run.record.run_id, **shard}


def _iter_workers(run: FinishedRun, records: list[TaskRecord]) -> Iterator[_Event]:
    """Yield a bar for each attempt, in the track of the worker that ran it."""
    yield _make_name("process_name", _WORKERS, 0, "workers")
    workers = {name: number for number, name in enumerate(sorted({_choose_track(record) for record in records}), 1)}
    for name, number in workers.items():
        yield _make_name("thread_name", _WORKERS, number, name)
    for record in records:
        label = record.stage if record.item is None else f"{record.stage} {record.item}"
        yield {
            "name": label,
            "cat": record.stage,
            "ph": "X",
            "pid": _WORKERS,
            "tid": workers[_choose_track(record)],
            "ts": _since_start(run, record.started_seconds),
            "dur": _to_microseconds(record.duration_seconds),
            "cname": _COLOURS.get(record.result, _BAD_COLOUR),
            "args": {
                "attempt": record.attempt,
                "result": record.result.value,
                "message": record.message,
                "queue_wait_seconds": record.queue_wait_seconds,
                "cpu_seconds": record.cpu_seconds,
                "memory_peak_bytes": record.memory_peak_bytes,
            },
        }


def _iter_stages(run: FinishedRun) -> Iterator[_Event]:
    """Yield a bar for each stage that ran, each in a track of its own."""
    yield _make_name("process_name", _STAGES, 0, "stages")
    for number, stage in enumerate(run.stages, 1):
        if stage.tasks:
            yield _make_name("thread_name", _STAGES, number, stage.record.stage)
            yield _make_bar(run, stage, number)


def _make_bar(run: FinishedRun, stage: ReportedStage, number: int) -> _Event:
    record = stage.record
    began = min(attempt.record.started_seconds for task in stage.tasks for attempt in task.attempts)
    return {
        "name": record.stage,
        "ph": "X",
        "pid": _STAGES,
        "tid": number,
        "ts": _since_start(run, began),
        "dur": _to_microseconds(record.duration_seconds),
        "cname": _COLOURS.get(record.result, _BAD_COLOUR),
        "args": {"result": record.result.value, "message": record.message, "tasks": record.tasks},
    }


def _iter_sizes(run: FinishedRun) -> Iterator[_Event]:
    """Yield the size of each pool at its start and at each change."""
    for pool in run.record.pools:
        yield _make_counter(f"size of {pool.name}", 0, pool.start_size)
    for decision in run.decisions:
        if decision.new_size != decision.old_size:
            moment = max(0.0, decision.at_timestamp_seconds - run.started.started_timestamp_seconds)
            yield _make_counter(f"size of {decision.pool}", _to_microseconds(moment), decision.new_size)


def _iter_queues(run: FinishedRun, records: list[TaskRecord]) -> Iterator[_Event]:
    """Yield for each pool how many tasks wait for a worker and how many run, at each change."""
    for pool in sorted({record.pool for record in records}):
        own = [record for record in records if record.pool == pool]
        waits = [(record.started_seconds - record.queue_wait_seconds, record.started_seconds) for record in own]
        runs = [(record.started_seconds, record.ended_seconds) for record in own]
        for name, spans in ((f"{pool} queued", waits), (f"{pool} running", runs)):
            yield _make_counter(name, 0, 0)
            for moment, count in _count_open(spans):
                yield _make_counter(name, _since_start(run, moment), count)


def _count_open(spans: list[tuple[float, float]]) -> Iterator[tuple[float, int]]:
    """Yield each moment at which the number of open spans changes, with the new number."""
    changes: dict[float, int] = {}
    for begin, end in spans:
        changes[begin] = changes.get(begin, 0) + 1
        changes[end] = changes.get(end, 0) - 1
    moments = sorted(moment for moment, change in changes.items() if change)
    yield from zip(moments, accumulate(changes[moment] for moment in moments), strict=True)


def _make_name(kind: str, process: int, track: int, name: str) -> _Event:
    return {"name": kind, "ph": "M", "pid": process, "tid": track, "args": {"name": name}}


def _make_counter(name: str, moment_microseconds: float, value: int) -> _Event:
    return {"name": name, "ph": "C", "pid": _WORKERS, "tid": 0, "ts": moment_microseconds, "args": {"value": value}}


def _choose_track(record: TaskRecord) -> str:
    return record.worker or record.pool


def _since_start(run: FinishedRun, moment_seconds: float) -> float:
    return _to_microseconds(max(0.0, moment_seconds - run.started.started_seconds))


def _to_microseconds(seconds: float) -> float:
    return round(seconds * _MICROSECONDS, 1)
