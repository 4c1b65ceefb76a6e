"""`history`: list past runs, show one, compare two, predict one with other workers, list flaky stages, merge others."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from msgspec import to_builtins

from paropt_exporter.cli import PROGRAM
from paropt_exporter.cli.formatting import (
    format_bytes,
    format_cut_table,
    format_fitting_table,
    format_line,
    format_seconds,
    format_time,
    wrap_for_terminal,
)
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.config.needs import map_needs_among
from paropt_exporter.errors import (
    EXIT_FAILED,
    EXIT_INTERNAL,
    INVALID_VALUE_ERRORS,
    HistoryError,
    UsageError,
    format_count,
    join_names,
)
from paropt_exporter.events import Result
from paropt_exporter.history.recovery import MESSAGE as KILLED
from paropt_exporter.plan import PlannedStage, order_stages
from paropt_exporter.plan.flakiness import FLAKY_RUNS
from paropt_exporter.plan.quarantine import describe_quarantine, find_today, is_over

if TYPE_CHECKING:
    from paropt_exporter.config import Config
    from paropt_exporter.config.values import Quarantine
    from paropt_exporter.events import TaskTiming
    from paropt_exporter.history import History
    from paropt_exporter.history.merging import ShardRun, Source
    from paropt_exporter.history.summaries import RunSummary, StageSummary, Trend
    from paropt_exporter.plan import Flakiness

_RUN_HEADERS = ("run", "started", "lane", "result", "duration", "tasks", "failed", "tasks/s", "busy", "notes")
_STAGE_HEADERS = ("stage", "result", "duration", "CPU", "memory", "tasks", "failed", "attempts", "notes")
_COMPARED_HEADERS = ("stage", "before", "after", "change", "result before", "result after")
_RUNNING, _INTERRUPTED = "running", "interrupted"
_BEFORE_DURATION = {_RUNNING: "for", _INTERRUPTED: "after"}
_GONE = "its exporter is gone; the next start records it"
_KNOWN_RUNS = 5  # in an error message
_MOST_RUNNING = 20  # runs at once, which `latest` passes over
_COMPLETE = (Result.SUCCESS, Result.FAILURE)
_FLAKY_HEADERS = ("lane", "stage", "first attempts", "flaky", "ratio", "95 % interval", "last", "items")
# Left out in this order until the table fits the terminal.
_DISPENSABLE_OF_RUNS = ("busy", "tasks/s", "failed", "tasks", "started", "lane")
_DISPENSABLE_OF_STAGES = ("attempts", "failed", "memory", "CPU", "tasks")
_DISPENSABLE_OF_FLAKY = ("last", "flaky", "first attempts", "95 % interval", "lane")
_DISPENSABLE_OF_COMPARISON = ("result before", "result after", "before")
_SHOWN_ITEMS = 3
_MOST_NAMED = 10


def run(
    history: History,
    *,
    lane: str | None,
    limit: int,
    output: str,
    stdout: TextIO,
    run_id: str | None = None,
    compare: tuple[str, str] | None = None,
) -> int:
    """Print runs as "text" or "json", or the stages of one run, or those of two runs side by side. Returns 0.

    `run_id`, and the two of `compare`, are run ids, unambiguous prefixes, or `latest` and `latest~N`: the Nth ended run
    before it, of `lane` if that is given. Raises UsageError for an unknown run.
    """
    columns = find_columns_of_terminal(stdout)
    if run_id is not None:
        shown = _find_run(history, run_id, lane)
        text = _dump_json([shown]) if output == "json" else _format_run(history, shown, columns)
    elif compare is not None:
        before, after = (_find_run(history, run_id, lane) for run_id in compare)
        text = _dump_json([before, after]) if output == "json" else _format_comparison(history, before, after, columns)
    elif output == "json":
        # A running run has no throughput yet, and would look slow.
        text = _dump_json([each for each in history.load_runs(lane, limit=limit) if each.result is not None])
    else:
        text = _format_runs(history, lane=lane, limit=limit, columns=columns)
    stdout.write(text)
    return 0


def to_json(summary: RunSummary) -> dict[str, object]:
    """Return a run as plain values, with the names of the guide's WorkerPoolMetrics. Utilization is in percent."""
    return {
        "run_id": summary.run_id,
        "lane": summary.lane,
        "strategy": summary.strategy,
        "result": summary.result.value if summary.result else None,
        "reason": summary.reason,
        "timestamp": _format_timestamp(summary.started_timestamp_seconds),
        "total_duration_seconds": summary.duration_seconds,
        "sequential_seconds": summary.sequential_seconds,
        "total_tasks": summary.total_tasks,
        "completed_tasks": summary.completed_tasks,
        "failed_tasks": summary.failed_tasks,
        "throughput_tasks_per_second": summary.throughput_tasks_per_second,
        "worker_utilization": summary.busy_ratio * 100,
        "sla_warned": summary.warned,
        "sla_broken": summary.broken,
        "interrupted": summary.interrupted,
        "partial": summary.partial,
        "shard": summary.shard or None,
        "bottlenecks": [bottleneck.text for bottleneck in summary.bottlenecks],
        "stage_metrics": [_stage_to_json(stage) for stage in summary.stages],
    }


def _stage_to_json(stage: StageSummary) -> dict[str, object]:
    return {
        "stage_name": stage.stage,
        "stage_number": stage.number,
        "pool": stage.pool,
        "result": stage.result.value if stage.result else None,
        "message": stage.message,
        "tasks": stage.tasks,
        "tasks_failed": stage.tasks_failed,
        "attempts": stage.attempts,
        "duration_seconds": stage.duration_seconds,
        "cpu_seconds": stage.cpu_seconds,
        "memory_peak_bytes": stage.memory_peak_bytes,
        "sla_warned": stage.warned,
        "sla_broken": stage.broken,
        "cached": stage.cached,
    }


def _find_run(history: History, run_id: str, lane: str | None) -> RunSummary:
    relative = re.fullmatch(r"latest(?:~([0-9]{1,6}))?", run_id)
    found = _find_latest(history, int(relative[1] or 0), lane) if relative else history.find_run(run_id)
    if found is None:
        known = ", ".join(each.run_id for each in history.load_runs(limit=_KNOWN_RUNS))
        said = f"no run, or more than one, matches {run_id!r}; the latest are {known}"
        raise UsageError(said if known else _describe_empty(history).rstrip())
    return found


def _find_latest(history: History, before: int, lane: str | None) -> RunSummary | None:
    """Return the lane's latest ended run, or the one that ended `before` runs earlier."""
    runs = history.load_runs(lane, limit=before + 1 + _MOST_RUNNING)
    ended = [summary for summary in runs if summary.result is not None]
    return ended[-1 - before] if before < len(ended) else None


def _describe_empty(history: History) -> str:
    """Return a line that names the projects with runs: after a folder was renamed, it counts as another project."""
    projects = history.load_projects()
    if not projects:
        return "no runs yet\n"
    named = ", ".join(projects[:_KNOWN_RUNS])
    return f"no runs of this project yet; the history has runs of {named}: set `project: {projects[0]}` to see them\n"


def _dump_json(summaries: Sequence[RunSummary]) -> str:
    return json.dumps([to_json(summary) for summary in summaries], indent=2) + "\n"


def _format_runs(history: History, *, lane: str | None, limit: int, columns: int | None) -> str:
    summaries = history.load_runs(lane, limit=limit)
    if not summaries:
        return f"no runs of lane {lane} yet\n" if lane and history.load_runs(limit=1) else _describe_empty(history)
    rows = [_build_run_row(history, summary) for summary in summaries]
    lines = format_cut_table(_RUN_HEADERS, rows, columns, dispensable=_DISPENSABLE_OF_RUNS)
    lanes = dict.fromkeys(summary.lane for summary in summaries)
    trends = [
        part
        for name in lanes
        if (trend := history.compute_trend(name, limit=limit))
        for line in _format_trend(name, trend)
        for part in wrap_for_terminal(line, columns, 2)
    ]
    return "\n".join([*lines, *([""] if trends else []), *trends, ""])


def _build_run_row(history: History, summary: RunSummary) -> tuple[str, ...]:
    result = _format_run_result(history, summary)
    ongoing = result == _RUNNING
    gone = summary.result is None and not ongoing
    notes = _GONE if gone else summary.reason or "; ".join(held.text for held in summary.bottlenecks)
    notes = _add_cached(_add_partial(notes, summary), summary)
    return (
        summary.run_id,
        format_time(summary.started_timestamp_seconds),
        summary.lane,
        result,
        # The end of a killed run is unknown, only the time of its last event.
        f"{'> ' if gone or summary.reason == KILLED else ''}{format_seconds(summary.duration_seconds)}",
        str(summary.total_tasks),
        str(summary.failed_tasks),
        # Skipped tasks are no throughput.
        "-" if ongoing or any(map(_is_cached, summary.stages)) else f"{summary.throughput_tasks_per_second:.2f}",
        "-" if ongoing else f"{summary.busy_ratio:.0%}",
        notes,
    )


def _add_partial(notes: str, summary: RunSummary) -> str:
    if not summary.partial:
        return notes
    text = f"only {', '.join(stage.stage for stage in summary.stages)}" if summary.stages else "nothing to run"
    text = f"shard {summary.shard}: {text}" if summary.shard else text
    return f"{text}; {notes}" if notes else text


def _add_cached(notes: str, summary: RunSummary) -> str:
    count = sum(map(_is_cached, summary.stages))
    text = f"{format_count(count, 'stage')} cached" if count else ""
    return "; ".join(part for part in (text, notes) if part)


def _format_trend(lane: str, trend: Trend) -> Iterator[str]:
    yield (
        f"trend of {lane}: {trend.latest:.2f} tasks/s in the latest successful full run, "
        f"{trend.average:.2f} on average over {format_count(trend.earlier_runs, 'earlier one')}"
    )
    if trend.degraded:
        yield (
            f"degraded: {lane} is at {trend.latest / trend.average:.0%} of its average; "
            f"`history --lane {shlex.quote(lane)} --compare latest~1 latest` shows which stage became slower"
        )


def _format_run(history: History, summary: RunSummary, columns: int | None) -> str:
    shown = dict(zip(_RUN_HEADERS, _build_run_row(history, summary), strict=True))
    result = shown["result"]
    head = (
        f"{summary.lane} {summary.run_id}: {result} {_BEFORE_DURATION.get(result, 'in')} {shown['duration']}, "
        f"started {shown['started']}"
    )
    facts = [head, *([shown["notes"]] if shown["notes"] else [])]
    lines = [part for fact in facts for part in wrap_for_terminal(format_line(fact), columns, 2)]
    if not summary.stages:
        return "\n".join([*lines, ""])
    stages = sorted(summary.stages, key=lambda stage: -stage.duration_seconds)
    rows = [_build_stage_row(stage, result) for stage in stages]
    table = format_cut_table(_STAGE_HEADERS, rows, columns, dispensable=_DISPENSABLE_OF_STAGES)
    return "\n".join([*lines, *table, ""])


def _build_stage_row(stage: StageSummary, run_result: str) -> tuple[str, ...]:
    limit = "limit broken" if stage.broken else "near its limit" if stage.warned else ""
    return (
        stage.stage,
        _format_stage_result(stage, run_result),
        _format_duration(stage),
        format_seconds(stage.cpu_seconds) if stage.attempts else "-",
        format_bytes(stage.memory_peak_bytes) if stage.memory_peak_bytes else "-",
        str(stage.tasks),
        str(stage.tasks_failed),
        str(stage.attempts),
        "; ".join(filter(None, (stage.message, limit))),
    )


def _format_comparison(history: History, before: RunSummary, after: RunSummary, columns: int | None) -> str:
    old, new = ({stage.stage: stage for stage in summary.stages} for summary in (before, after))
    results = [_format_run_result(history, summary) for summary in (before, after)]
    rows = [_build_comparison_row(name, old.get(name), new.get(name), results) for name in dict.fromkeys([*old, *new])]
    total = (
        "whole run",
        format_seconds(before.duration_seconds),
        format_seconds(after.duration_seconds),
        _format_change(before, after),
        *results,
    )
    heading = wrap_for_terminal(f"{before.lane} {before.run_id} -> {after.lane} {after.run_id}", columns, 2)
    table = format_fitting_table(_COMPARED_HEADERS, [*rows, total], columns, dispensable=_DISPENSABLE_OF_COMPARISON)
    return "\n".join([*heading, *table, ""])


def _build_comparison_row(
    name: str, before: StageSummary | None, after: StageSummary | None, run_results: Sequence[str]
) -> tuple[str, ...]:
    change = _format_change(before, after) if before and after else ""
    return (
        name,
        _format_duration(before),
        _format_duration(after),
        change,
        *map(_format_stage_result, (before, after), run_results),
    )


def _format_duration(stage: StageSummary | None) -> str:
    if stage is None or stage.result is Result.SKIP or (stage.result is None and not stage.duration_seconds):
        return "-"
    return "cached" if _is_cached(stage) else format_seconds(stage.duration_seconds)


def _is_cached(stage: StageSummary) -> bool:
    """Return whether a whole stage was skipped, not only some of its items."""
    return stage.cached and not stage.attempts


def _format_stage_result(stage: StageSummary | None, run_result: str) -> str:
    """Return a stage's result. A stage that has not ended has that of its run, "running" or "interrupted"."""
    if stage is None:
        return "-"
    return stage.result.value if stage.result else run_result


def _format_run_result(history: History, summary: RunSummary) -> str:
    if summary.result is not None:
        return summary.result.value
    return _RUNNING if history.is_alive(summary.run_id) else _INTERRUPTED


def _format_change(before: RunSummary | StageSummary, after: RunSummary | StageSummary) -> str:
    old, new = before.duration_seconds, after.duration_seconds
    if before.result is None or after.result is None or min(old, new) <= 0:
        return ""
    return f"{new / old - 1:+z.0%}"


def _format_timestamp(timestamp_seconds: float) -> str:
    return datetime.fromtimestamp(timestamp_seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def run_what_if(
    history: History,
    config: Config,
    *,
    lane: str | None,
    run_id: str | None,
    workers: Sequence[int],
    cores: float,
    memory_bytes: int,
    output: str,
    stdout: TextIO,
) -> int:
    """Print a run's predicted duration with each number of workers. Returns 0.

    `run_id` is as for `run`, and None for the latest run. Raises UsageError if there is no such run, or if it was cut
    short or ran no task.
    """
    from paropt_exporter.engine.what_if import count_most_at_once

    summary = _choose_run(history, lane, run_id)
    tasks = history.load_tasks(summary.run_id)
    if summary.result not in _COMPLETE or not tasks or any(task.result is Result.CANCELLATION for task in tasks):
        raise UsageError(f"run {summary.run_id} was cut short or ran nothing: name another one with --run")
    timings = [task.timing for task in tasks]
    had = count_most_at_once((task.started_seconds, task.ended_seconds) for task in timings)
    if not had:
        raise UsageError(f"run {summary.run_id} took every result from the cache: name another one with --run")
    try:
        seconds = _predict_seconds(
            summary, config, timings, sizes=(had, *workers), cores=cores, memory_bytes=memory_bytes
        )
    except INVALID_VALUE_ERRORS as error:
        raise UsageError(
            f"run {summary.run_id}: its records do not fit together ({error!r}): name another one"
        ) from error
    if output == "json":
        stdout.write(json.dumps(_what_if_to_json(summary, had, seconds, workers), indent=2) + "\n")
    else:
        columns = find_columns_of_terminal(stdout)
        lines = _format_what_if(summary, had, seconds, workers, cores)
        stdout.writelines(f"{part}\n" for line in lines for part in wrap_for_terminal(line, columns, 2))
    return 0


def _predict_seconds(
    summary: RunSummary,
    config: Config,
    timings: Sequence[TaskTiming],
    *,
    sizes: Sequence[int],
    cores: float,
    memory_bytes: int,
) -> dict[int, float]:
    """Return the predicted duration with each number of workers."""
    from paropt_exporter.engine.what_if import build_workload, compute_makespan

    workload, stages = build_workload(timings, cores), _plan_stages(summary, config)
    return {
        size: compute_makespan(workload, stages, workers=size, cores=cores, memory_bytes=memory_bytes) for size in sizes
    }


def _choose_run(history: History, lane: str | None, run_id: str | None) -> RunSummary:
    if run_id is not None:
        return _find_run(history, run_id, lane)
    ended = [summary for summary in history.load_runs(lane) if summary.result in _COMPLETE]
    if not ended:
        raise UsageError(f"no recent run{f' of lane {lane}' if lane else ''} came to its end: name one with --run")
    return ended[-1]


def _plan_stages(summary: RunSummary, config: Config) -> Sequence[PlannedStage]:
    """Return the run's stages in the engine's order, with the current config's needs and limits."""
    ran = {stage.stage: stage for stage in summary.stages}
    configured = {stage.name: stage for stage in config.stages}
    needs = map_needs_among(ran, {stage.name: stage.needs for stage in config.stages})
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
                needs=needs[name],
                locks=frozenset(known.locks) if known else frozenset(),
                exclusive=known.exclusive if known else False,
                memory_bytes=(known.memory or 0) if known else 0,
                slots=known.slots if known else 1,
            )
        )
    return order_stages(planned)


def _format_what_if(
    summary: RunSummary, had: int, seconds: dict[int, float], workers: Sequence[int], cores: float
) -> Iterator[str]:
    yield (
        f"{summary.lane} {summary.run_id} took {summary.duration_seconds:.1f} s with up to {had} at once on "
        f"{cores:g} cores (predicted in the same way: {seconds[had]:.1f} s)"
    )
    for size in workers:
        change = seconds[size] / seconds[had] - 1 if seconds[had] > 0 else 0.0
        took = f"{seconds[size]:.1f} s ({change:+z.0%})"
        yield f"with {format_count(size, 'worker')}, {summary.lane} would have taken {took}"


def _what_if_to_json(
    summary: RunSummary, had: int, seconds: dict[int, float], workers: Sequence[int]
) -> dict[str, object]:
    return {
        "run_id": summary.run_id,
        "lane": summary.lane,
        "duration_seconds": summary.duration_seconds,
        "workers": had,
        "predicted_seconds": seconds[had],
        "what_if": [{"workers": size, "seconds": seconds[size]} for size in workers],
    }


def run_flaky(history: History, config: Config, *, lane: str | None, output: str, stdout: TextIO) -> int:
    """Print the stages of a lane, or of all lanes, that failed and passed with the same files, the flakiest first.

    Then print the quarantines. `output`: "text" or "json". Returns 0.
    """
    found = history.load_flakiness(lane)
    ordered = dict(sorted(found.items(), key=lambda each: (-each[1].interval[0], each[0])))
    if output == "json":
        entries = [
            _flaky_to_json(place, flaky, _list_quarantines(config, place[1])) for place, flaky in ordered.items()
        ]
        text = json.dumps(entries, indent=2) + "\n"
    else:
        columns = find_columns_of_terminal(stdout)
        text = _format_flaky_stages(ordered, lane, columns) + _format_quarantines(config, columns)
    stdout.write(text)
    return 0


def _format_flaky_stages(found: Mapping[tuple[str, str], Flakiness], lane: str | None, columns: int | None) -> str:
    where = f" of lane {lane}" if lane else ""
    if not found:
        none = f"no stage{where} has failed and passed with the same files in its last {FLAKY_RUNS} runs"
        return "\n".join([*wrap_for_terminal(none, columns, 2), ""])
    heading = f"{format_count(len(found), 'flaky stage')}{where}, by the last {FLAKY_RUNS} runs of each lane"
    rows = [_build_flaky_row(*each) for each in found.items()]
    table = format_cut_table(_FLAKY_HEADERS, rows, columns, dispensable=_DISPENSABLE_OF_FLAKY)
    return "\n".join([heading, "", *table, ""])


def _list_quarantines(config: Config, stage: str) -> list[Quarantine]:
    return [each for one in config.stages if one.name == stage for each in one.quarantine]


def _format_quarantines(config: Config, columns: int | None) -> str:
    """Return a line for each quarantined item, including those whose quarantine is over."""
    found = [(stage.name, each) for stage in config.stages for each in stage.quarantine]
    if not found:
        return ""
    today = find_today()
    lines = [
        f"  {stage} {format_line(each.item)}: {format_line(describe_quarantine(each))}"
        f"{', which is over' if is_over(each, today) else ''}"
        for stage, each in found
    ]
    return "\n".join(
        ["", "in quarantine", *(part for line in lines for part in wrap_for_terminal(line, columns, 4)), ""]
    )


def _build_flaky_row(place: tuple[str, str], flaky: Flakiness) -> tuple[str, ...]:
    low, high = flaky.interval
    return (
        *place,
        str(flaky.first_attempts),
        str(flaky.flaky_attempts),
        f"{flaky.ratio:.1%}",
        f"{low:.1%} to {high:.1%}",
        _format_date(flaky.last_timestamp_seconds),
        format_line(join_names(sorted(flaky.items), _SHOWN_ITEMS)),
    )


def _format_date(timestamp_seconds: float | None) -> str:
    return "" if timestamp_seconds is None else f"{datetime.fromtimestamp(timestamp_seconds).astimezone():%Y-%m-%d}"


def _flaky_to_json(place: tuple[str, str], flaky: Flakiness, quarantines: Sequence[Quarantine]) -> dict[str, object]:
    low, high = flaky.interval
    return {
        "lane": place[0],
        "stage": place[1],
        "first_attempts": flaky.first_attempts,
        "flaky_attempts": flaky.flaky_attempts,
        "ratio": flaky.ratio,
        "ratio_low": low,
        "ratio_high": high,
        "last_timestamp_seconds": flaky.last_timestamp_seconds,
        "items": sorted(flaky.items),
        "quarantine": [to_builtins(each) for each in quarantines],
    }


def run_merge(history: History, project: str, paths: Sequence[Path], *, stdout: TextIO, stderr: TextIO) -> int:
    """Merge the histories and reports of shards, and check that they were parts of one split.

    Returns 0; 1 if shards don't fit together; or 3 if a file can't be used, which is reported while the others are
    merged.
    """
    from paropt_exporter.history.merging import read_source

    if any(path.absolute() == history.path.absolute() or _is_same_file(path, history.path) for path in paths):
        raise UsageError(f"history merge: {history.path} is the history itself: name the files of the shards")
    sources: list[Source] = []
    code = 0
    for path in paths:
        try:
            sources.append(read_source(path, project))
        except HistoryError as error:
            stderr.write(f"{PROGRAM}: left out: {format_line(str(error))}\n")
            code = error.exit_code
    merged = history.merge(sources)
    stdout.write(
        f"merged {format_count(len(sources), 'file')} into {history.path}: "
        f"{format_count(merged.runs, 'new run')}, durations of {format_count(merged.items, 'item')}\n"
    )
    unended = sum(source.unended for source in sources)
    if unended:
        stderr.write(f"{PROGRAM}: left out {format_count(unended, 'run')} without an end\n")
    for source in sources:
        if source.other_projects and not source.find_shard_runs():
            stderr.write(
                f"{PROGRAM}: left out: {source.path}: its shards are of project {join_names(source.other_projects)}, "
                f"not of {project}: set `project` in paropt.yml, which by default is the folder's name\n"
            )
            code = EXIT_INTERNAL
    faults = [*_iter_shard_faults([run for source in sources for run in source.find_shard_runs()])]
    for fault in faults:
        stderr.write(f"{PROGRAM}: {fault}\n")
    return code or (EXIT_FAILED if faults else 0)


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:
        return False


def _iter_shard_faults(runs: Sequence[ShardRun]) -> Iterator[str]:
    """Yield a line for each lane whose shards, the last one of each file, are not all parts of one split."""
    lanes: dict[str, dict[tuple[str, int], set[int]]] = defaultdict(lambda: defaultdict(set))
    for one in runs:
        lanes[one.lane][one.split, one.count].add(one.index)
    for lane, splits in lanes.items():
        if len(splits) > 1:
            yield (
                f"the shards of lane {format_line(lane)} are of different splits, so items may have run in none or "
                f"twice: give all shards the same history and the same files ({_format_splits(splits)})"
            )
            continue
        (((split, count), indexes),) = splits.items()
        missing = sorted({*range(1, count + 1)} - indexes)
        if missing:
            named = join_names([*map(str, missing)], _MOST_NAMED)
            yield f"lane {format_line(lane)}: no file has shard {named} of {count} of split {format_line(split)}"


def _format_splits(splits: Mapping[tuple[str, int], set[int]]) -> str:
    parts = [
        f"{format_line(split)}: {', '.join(f'{index}/{count}' for index in sorted(indexes)[:_MOST_NAMED])}"
        for (split, count), indexes in splits.items()
    ]
    return "; ".join(parts[:_MOST_NAMED])
