"""`history --what-if`: how long a run that has ended would have taken with another number of workers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from paropt_exporter.cli.wording import counted
from paropt_exporter.engine.what_if import makespan_seconds, most_at_once, workload_of
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Result
from paropt_exporter.history.cells import FALSE_VALUE
from paropt_exporter.plan import PlannedStage, ordered

if TYPE_CHECKING:
    from paropt_exporter.config import Config
    from paropt_exporter.events import TaskTiming
    from paropt_exporter.history import History, RunSummary

_COMPLETE = (Result.SUCCESS, Result.FAILURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the workers would have had."""

    cores: float
    memory_bytes: int


def run(
    history: History,
    config: Config,
    *,
    lane: str | None,
    run_id: str | None,
    workers: Sequence[int],
    machine: Machine,
    output: str,
    stdout: TextIO,
) -> int:
    """Print what each number of workers would have made of a run (the latest one, unless named); returns 0.

    Raises UsageError if there is no such run, or if it was cut short and so says nothing.
    """
    summary = _chosen(history, lane, run_id)
    tasks = history.tasks(summary.run_id)
    if summary.result not in _COMPLETE or not tasks or any(task.result is Result.CANCELLATION for task in tasks):
        raise UsageError(f"run {summary.run_id} was cut short or ran nothing: name another one with --run")
    timings = [task.timing for task in tasks]
    had = most_at_once((task.started_seconds, task.ended_seconds) for task in timings)
    try:
        seconds = _seconds(summary, config, timings, sizes=(had, *workers), machine=machine)
    except FALSE_VALUE as error:
        raise UsageError(
            f"run {summary.run_id}: its records do not fit together ({error!r}): name another one"
        ) from error
    if output == "json":
        stdout.write(json.dumps(_as_json(summary, had, seconds, workers), indent=2) + "\n")
    else:
        stdout.write("\n".join(_as_text(summary, had, seconds, workers, machine)) + "\n")
    return 0


def _seconds(
    summary: RunSummary, config: Config, timings: Sequence[TaskTiming], *, sizes: Sequence[int], machine: Machine
) -> dict[int, float]:
    """Return how long the run's tasks would have taken with each number of workers."""
    workload, stages = workload_of(timings, machine.cores), _stages(summary, config)
    return {
        size: makespan_seconds(workload, stages, workers=size, cores=machine.cores, memory_bytes=machine.memory_bytes)
        for size in sizes
    }


def _chosen(history: History, lane: str | None, run_id: str | None) -> RunSummary:
    if run_id is not None:
        found = history.run(run_id)
        if found is None:
            raise UsageError(f"no single run {run_id!r} in the history: `paropt-exporter history` lists them")
        return found
    ended = [summary for summary in history.runs(lane) if summary.result in _COMPLETE]
    if not ended:
        raise UsageError(f"no run{f' of lane {lane}' if lane else ''} has come to its end yet")
    return ended[-1]


def _stages(summary: RunSummary, config: Config) -> Sequence[PlannedStage]:
    """Return the run's stages as the engine would order them, with what the config says of them now."""
    ran = {stage.stage: stage for stage in summary.stages}
    configured = {stage.name: stage for stage in config.stages}
    planned = []
    for name, stage in ran.items():
        known = configured.get(name)
        planned.append(
            PlannedStage(
                number=stage.number,
                name=name,
                tasks=(),
                pool=stage.pool,
                expected_seconds=stage.duration_seconds,
                needs=tuple(need for need in known.needs if need in ran) if known else (),
                locks=frozenset(known.locks) if known else frozenset(),
                exclusive=known.exclusive if known else False,
                memory_bytes=(known.memory or 0) if known else 0,
                slots=known.slots if known else 1,
            )
        )
    return ordered(planned)


def _as_text(
    summary: RunSummary, had: int, seconds: dict[int, float], workers: Sequence[int], machine: Machine
) -> Iterator[str]:
    yield (
        f"{summary.lane} {summary.run_id} took {summary.duration_seconds:.1f} s with up to {had} at once on "
        f"{machine.cores:g} cores (reckoned the same way: {seconds[had]:.1f} s)"
    )
    for size in workers:
        change = seconds[size] / seconds[had] - 1 if seconds[had] > 0 else 0.0
        yield f"with {counted(size, 'worker')}, {summary.lane} would have taken {seconds[size]:.1f} s ({change:+.0%})"


def _as_json(summary: RunSummary, had: int, seconds: dict[int, float], workers: Sequence[int]) -> dict[str, object]:
    return {
        "run_id": summary.run_id,
        "lane": summary.lane,
        "duration_seconds": summary.duration_seconds,
        "workers": had,
        "reckoned_seconds": seconds[had],
        "what_if": [{"workers": size, "seconds": seconds[size]} for size in workers],
    }
