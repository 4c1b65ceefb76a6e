"""`profile`: run a stage at several sizes, show the curve, and write the recommendation into paropt.yml on request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter import plan as plans
from paropt_exporter.autoscaling import stage_profiler
from paropt_exporter.autoscaling.stage_profiler import Point, Recommendation
from paropt_exporter.cli.config_edit import edit_config, write_config
from paropt_exporter.cli.formatting import wrap_for_terminal
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.config.editing import format_flow
from paropt_exporter.errors import EXIT_SIGNAL_BASE, UsageError, format_count
from paropt_exporter.events import RunRecord, Strategy
from paropt_exporter.signals import Signals

if TYPE_CHECKING:
    from paropt_exporter.clock import Clock
    from paropt_exporter.config import Config, Lane, Stage
    from paropt_exporter.plan import Plan

_HEADERS = ("strategy", "workers", "seconds", "spread", "speed-up", "cores", "memory/task")
_BAR_CHARACTERS = 30
_INDENT = 13  # of the recommendation's continuation lines
_WHERE_CALLS_RUN = (Strategy.THREAD, Strategy.PROCESS)
_ONE_SIZE = "a stage of one task says nothing about its lane: split its work (items)"


class ProfileRequest(Struct, frozen=True, kw_only=True):
    """The stage to measure. Without sizes or strategies, sensible ones for the stage are chosen."""

    stage: str
    lane: str
    runs: int
    sizes: tuple[int, ...] = ()
    strategies: tuple[Strategy, ...] = ()


def run(
    config: Config, wanted: ProfileRequest, *, write: bool, output: str, clock: Clock, stdout: TextIO, stderr: TextIO
) -> int:
    """Measure, print the curve and the recommended settings as "text" or "json", and return the exit code.

    `write` also sets them in the config's file. Raises UsageError before any run, ProfilingFailed if the stage fails.
    """
    lane, stage = _find_stage(config, wanted)
    candidates = _plan_candidates(config, wanted, lane, stage)
    sizes = wanted.sizes or stage_profiler.choose_sizes(candidates[0])
    if write:
        if _has_one_task(candidates[0]):
            raise UsageError(f"--write: {_ONE_SIZE}")
        likely = {"strategy": "thread", "workers": {"min": 1, "max": 1, "start": 1}}
        # raises before anything runs
        edit_config(config, {"lanes": {wanted.lane: likely}}, by_hand=_by_hand(wanted.lane))
    stderr.write(f"profiling {stage.name} of lane {wanted.lane}, alone and without its needs\n")
    with Signals() as signals:
        try:
            points = stage_profiler.measure(
                candidates,
                sizes,
                runs=wanted.runs,
                execute=lambda plan: _execute_run(plan, signals, clock),
                tell=lambda line: _print_progress(line, stderr),
            )
        except _Interrupted:
            stderr.write("interrupted: no recommendation\n")
            return EXIT_SIGNAL_BASE + (signals.number or 0)
    advice = None if _has_one_task(candidates[0]) else _build_advice(points, lane, candidates)
    if output == "json":
        stdout.write(json.dumps(_to_json(wanted, points, advice), indent=2) + "\n")
    else:
        columns = find_columns_of_terminal(stdout)
        stdout.write("\n".join(_format_text(wanted, points, advice, columns)) + "\n")
    if write and advice is not None:
        write_config(config, {"lanes": {wanted.lane: advice.settings}}, by_hand=_by_hand(wanted.lane))
        stderr.write(f"{config.path}: lane {wanted.lane} has these settings now\n")
    return 0


class _Advice(Struct, frozen=True, kw_only=True):
    found: Recommendation
    settings: Mapping[str, Any]  # the lane's keys to set


class _Interrupted(Exception):
    """A signal ended a run."""


def _execute_run(plan: Plan, signals: Signals, clock: Clock) -> RunRecord:
    record = stage_profiler.execute_alone(plan, clock=clock, during=signals.send_to)
    if signals.interrupted_run:
        raise _Interrupted
    return record


def _find_stage(config: Config, wanted: ProfileRequest) -> tuple[Lane, Stage]:
    plans.require_lane(config, wanted.lane)
    lane = config.lanes[wanted.lane]
    stages = [stage for stage in config.stages if lane.includes(stage)]
    for stage in stages:
        if stage.name == wanted.stage:
            return lane, stage
    there = ", ".join(stage.name for stage in stages) or "none"
    raise UsageError(f"no stage {wanted.stage!r} in lane {wanted.lane}: choose from {there}")


def _plan_candidates(config: Config, wanted: ProfileRequest, lane: Lane, stage: Stage) -> list[Plan]:
    """Return the stage's plan for each strategy. Commands need only one, since they run alike with all of them."""
    strategies = wanted.strategies
    if not strategies and lane.strategy is Strategy.SEQUENTIAL:
        raise UsageError(
            f"lane {wanted.lane} is sequential, so it has only one size: name another strategy with --strategy"
        )
    if not strategies and lane.strategy is Strategy.DASK:
        raise UsageError(
            f"lane {wanted.lane} runs on a Dask cluster, and profile measures this machine: "
            "name another strategy with --strategy"
        )
    if not strategies:
        strategies = (lane.strategy,) if stage.call is None else (lane.strategy, *_WHERE_CALLS_RUN)
    found = []
    for strategy in dict.fromkeys(strategies):
        plan = plans.build_plan(_keep_stage(config, stage), wanted.lane, plans.PlanOptions(strategy=strategy))
        planned = plan.stages[0]
        if planned.skip or planned.fault:
            raise UsageError(f"stage {stage.name} can't be profiled: {planned.skip or planned.fault}")
        found.append(stage_profiler.remove_limits(plan))
    return found


def _has_one_task(plan: Plan) -> bool:
    """Return whether the stage is one task with any number of workers. Items in one batch count as several tasks."""
    (stage,) = plan.stages
    return len(stage.tasks) == 1 and len(stage.tasks[0].items) < 2


def _keep_stage(config: Config, stage: Stage) -> Config:
    return replace(config, stages=(stage,), notes=())


def _print_progress(line: str, stderr: TextIO) -> None:
    stderr.write(f"  {line}\n")
    stderr.flush()


def _build_advice(points: Sequence[Point], lane: Lane, candidates: Sequence[Plan]) -> _Advice:
    bounds = {plan.strategy: plan.workers for plan in candidates}
    found = stage_profiler.recommend(points, strategy=lane.strategy, bounds=bounds)
    return _Advice(found=found, settings=_build_settings(found, lane))


def _build_settings(found: Recommendation, lane: Lane) -> dict[str, Any]:
    """Return the lane's keys to change."""
    bounds, strategy = found.workers, found.point.strategy
    workers = {"min": bounds.minimum, "max": bounds.maximum, "start": bounds.start}
    changed = {} if strategy is lane.strategy else {"strategy": strategy.value}
    return {**changed, "workers": bounds.start if bounds.fixed else workers}


def _format_text(
    wanted: ProfileRequest, points: Sequence[Point], advice: _Advice | None, columns: int | None
) -> Iterator[str]:
    yield f"{wanted.stage} of lane {wanted.lane}, the median of {format_count(wanted.runs, 'run')} each"
    yield ""
    yield from _iter_table(points, columns)
    yield ""
    if advice is None:
        yield from wrap_for_terminal(f"recommended  nothing: {_ONE_SIZE}", columns, _INDENT)
        return
    yield from wrap_for_terminal(f"recommended  {_format_reason(advice.found)}", columns, _INDENT)
    yield f"{'':{_INDENT}}lanes: {format_flow({wanted.lane: dict(advice.settings)})}"


def _iter_table(points: Sequence[Point], columns: int | None) -> Iterator[str]:
    """Yield a row for each point, with a bar if the terminal has room for one."""
    measured = [*stage_profiler.iter_speed_ups(points)]
    rows = [_HEADERS, *(_build_row(point, times) for point, times in measured)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    slowest = max(point.seconds for point in points)
    room = _BAR_CHARACTERS if columns is None else min(_BAR_CHARACTERS, columns - sum(widths) - 2 * len(widths))
    lengths = [max(1, round(room * point.seconds / slowest)) if slowest > 0 < room else 0 for point, _ in measured]
    for row, length in zip(rows, [0, *lengths], strict=True):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join([*cells, "#" * length]).rstrip()


def _build_row(point: Point, times: float) -> tuple[str, ...]:
    return (
        point.strategy.value,
        str(point.workers),
        f"{point.seconds:.2f}",
        f"{point.spread_seconds:.2f}",
        f"{times:.1f}x",
        f"{point.cores:.1f}",
        f"{point.memory_peak_bytes / 1e6:.0f} MB",
    )


def _format_reason(found: Recommendation) -> str:
    point, fastest = found.point, found.fastest
    chosen = f"{point.strategy.value}, {point.workers} at the start: {point.seconds:.2f} s"
    if point is fastest:
        return f"{chosen}, the fastest"
    return f"{chosen}; the fastest, {fastest.strategy.value} with {fastest.workers}, takes {fastest.seconds:.2f} s"


def _to_json(wanted: ProfileRequest, points: Sequence[Point], advice: _Advice | None) -> dict[str, object]:
    return {
        "lane": wanted.lane,
        "stage": wanted.stage,
        "points": [
            {
                "strategy": point.strategy.value,
                "workers": point.workers,
                "seconds": point.seconds,
                "run_seconds": [one.seconds for one in point.runs],
                "speed_up": times,
                "cores": point.cores,
                "memory_peak_bytes": point.memory_peak_bytes,
            }
            for point, times in stage_profiler.iter_speed_ups(points)
        ],
        "recommended": advice and {"strategy": advice.found.point.strategy.value, **advice.settings},
    }


def _by_hand(lane: str) -> str:
    return f"set workers and strategy of {lane} by hand"
