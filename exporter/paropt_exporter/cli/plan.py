"""`plan`: show a lane's stages in order, with their pools and expected durations."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from msgspec import to_builtins
from msgspec.structs import replace

from paropt_exporter.cli.formatting import (
    format_cut_table,
    format_line,
    format_seconds,
    wrap_for_terminal,
)
from paropt_exporter.cli.streams import find_columns_of_terminal
from paropt_exporter.config.credentials import HIDDEN
from paropt_exporter.config.needs import find_reachable
from paropt_exporter.config.placeholders import SHELL
from paropt_exporter.errors import format_count, join_names
from paropt_exporter.events import CacheReason, SlaLimit, format_lane
from paropt_exporter.plan import Call, start_up

if TYPE_CHECKING:
    from paropt_exporter.cache.preview import Preview
    from paropt_exporter.plan import Bounds, Plan, PlannedStage, PlannedTask, Work

_HEADERS = ("order", "number", "stage", "tasks", "pool", "expected", "limit", "needs", "work")
_MOST_MISSES = 20  # lines of one stage
_MOST_STAGES = 6  # in a line about a shard or the estimate
_NOTHING = "nothing to run in this shard"
_NO_MEMORY_BOUND = 1 << 62
_MOST_PARTS = 4  # of a task in estimates: with one, a stage of many short tasks would hold its slots until its end
_MOST_STAGES_IN_PARTS = 250  # four parts of 1,000 stages take 1.2 s instead of 0.3 s
# Left out in this order until the table fits the terminal.
_DISPENSABLE = ("pool", "order", "number", "needs", "work", "limit", "tasks")
_CLOSING_INDENT = 11  # of continuation lines below the table


def run(plan: Plan, *, output: str, stdout: TextIO, previews: Sequence[Preview] | None = None) -> int:
    """Print a plan as "text" or "json". Returns 0, or 2 if a stage can't run.

    `previews`: whether the cache would skip each task of the cached stages, and why not; None: not requested.
    """
    if output == "json":
        shown = to_json(plan) if previews is None else {**to_json(plan), "cache": to_builtins(list(previews))}
        json.dump(shown, stdout, indent=2)
        stdout.write("\n")
    else:
        columns = find_columns_of_terminal(stdout)
        stdout.write(to_text(plan, columns=columns, hits=_find_hits(previews)))
        for line in _format_previews(plan, previews) if previews is not None else ():
            stdout.writelines(f"{part}\n" for part in wrap_for_terminal(line, columns, _CLOSING_INDENT))
    return 2 if any(stage.fault for stage in plan.stages) else 0


def to_text(plan: Plan, *, columns: int | None = None, hits: frozenset[str] = frozenset()) -> str:
    """Return the plan as a table with lines below it.

    `columns`: the width of the terminal, which the table does not exceed. `hits`: the stages that the cache would skip,
    which take no time.
    """
    stages = (replace(stage, expected_seconds=0.0) if stage.name in hits else stage for stage in plan.stages)
    plan = replace(plan, stages=tuple(stages))
    rows = [
        _build_row(place, stage, cached=stage.name in hits) for place, stage in enumerate(_list_runnable(plan), start=1)
    ]
    table = (
        format_cut_table(_HEADERS, rows, columns, dispensable=_DISPENSABLE)
        if rows or plan.shard is None
        else [_NOTHING]
    )
    closing = [
        part
        for line in _iter_closing_lines(plan)
        for part in wrap_for_terminal(format_line(line), columns, _CLOSING_INDENT)
    ]
    return "\n".join([*wrap_for_terminal(_format_heading(plan), columns, 2), "", *table, "", *closing]) + "\n"


def to_json(plan: Plan) -> dict[str, object]:
    """Return a plan as plain values, with None for unknown ones."""
    return {
        "project": plan.project,
        "lane": plan.lane,
        **_split_to_json(plan),
        "strategy": plan.strategy.value,
        "workers": {"min": plan.workers.minimum, "max": plan.workers.maximum, "start": plan.workers.start},
        "fail_fast": plan.fail_fast,
        "total": _limit_to_json(plan.total),
        "root": str(plan.root),
        "estimated_seconds": estimate_seconds(plan),
        "sequential_seconds": _sum_expected_seconds(plan),
        "unknown_durations": [stage.name for stage in _list_runnable(plan) if stage.expected_seconds is None],
        "notes": [*plan.notes],
        "stages": [_stage_to_json(place, stage) for place, stage in enumerate(plan.stages, start=1)],
    }


def _format_previews(plan: Plan, previews: Sequence[Preview]) -> Iterator[str]:
    """Yield a line for each cached stage that would be skipped, and for each of its tasks that would run."""
    if not previews and plan.stages:
        yield "no stage is cached: give one `inputs`, or `cache: true`"
    hits, stages = _find_hits(previews), {stage.name: stage for stage in plan.stages}
    for stage in plan.stages:
        of_stage = [each for each in previews if each.stage == stage.name]
        missed = [each for each in of_stage if each.reason is not CacheReason.UNCHANGED]
        if of_stage and not missed:
            saved = format_seconds(sum(each.seconds for each in of_stage))
            needed = sorted(find_reachable(stage.needs, lambda name: stages[name].needs) - hits)
            writers = [name for name in needed if stages[name].outputs]
            unless = f", unless {' or '.join(writers)} changes its outputs" if writers else ""
            yield f"cached     {stage.name}: saves {saved}{unless}"
        for each in missed[:_MOST_MISSES]:
            item = f" {format_line(each.item)}" if each.item is not None and len(of_stage) > 1 else ""
            yield f"runs       {stage.name}{item}: {format_line(each.note)}"
        if len(missed) > _MOST_MISSES:
            yield f"runs       {stage.name}: {len(missed) - _MOST_MISSES} more of {len(of_stage)}"


def estimate_seconds(plan: Plan) -> float | None:
    """Estimate the lane's duration; None if no stage's duration is known.

    Each stage has as many tasks as usually run at once, of its expected duration, in parts between which other stages
    may start tasks. Order, needs, slots, cores, locks and exclusiveness apply as in a run; memory does not. Stages of
    unknown duration count as 0.
    """
    return _estimate_makespan(plan, plan.stages)


def _estimate_makespan(plan: Plan, stages: Sequence[PlannedStage]) -> float | None:
    """Estimate how long stages take in the plan's lane; None if no stage's duration is known."""
    from paropt_exporter.engine.interfaces import Admission
    from paropt_exporter.engine.what_if import RecordedTask, Workload, compute_makespan
    from paropt_exporter.plan.stage_load import count_usable_workers, sum_up_stage

    if not any(_is_runnable(stage) and stage.expected_seconds is not None for stage in stages):
        return None
    workers = count_usable_workers(plan)
    loads = {stage.name: sum_up_stage(stage, _get_expected_seconds(stage)) for stage in stages}
    at_once = {name: round(load.at_once) for name, load in loads.items()}
    most = _MOST_PARTS if len(stages) <= _MOST_STAGES_IN_PARTS else 1
    parts = {each.name: min(most, math.ceil(max(1, len(each.tasks)) / at_once[each.name])) for each in stages}
    tasks = (
        RecordedTask(stage=name, seconds=load.seconds / parts[name])
        for name, load in loads.items()
        if load.seconds
        for _ in range(at_once[name] * parts[name])
    )
    admission = None
    if plan.cores is not None:  # a stage that wants more than all cores took its time on those that there are
        demands = {name: min(load.cores, plan.cores) / at_once[name] for name, load in loads.items()}
        admission = Admission(cores=plan.cores, floor=plan.workers.minimum, stages=demands)
    return compute_makespan(
        Workload(tasks=tuple(tasks)),
        [replace(stage, slots=min(workers, stage.slots)) for stage in stages],
        workers=workers,
        cores=1.0,
        memory_bytes=_NO_MEMORY_BOUND,
        admission=admission,
        limits=at_once,
    )


def _sum_expected_seconds(plan: Plan) -> float:
    """Return how long all tasks would take one after another."""
    from paropt_exporter.plan.stage_load import sum_up_stage

    loads = (sum_up_stage(stage, _get_expected_seconds(stage)) for stage in _list_runnable(plan))
    return sum(load.seconds * load.at_once for load in loads)


def _get_expected_seconds(stage: PlannedStage) -> float:
    return 0.0 if stage.skip or stage.fault else stage.expected_seconds or 0.0


def _list_runnable(plan: Plan) -> list[PlannedStage]:
    return [stage for stage in plan.stages if _is_runnable(stage)]


def _is_runnable(stage: PlannedStage) -> bool:
    return not stage.skip and not stage.fault


def _format_heading(plan: Plan) -> str:
    limits = f", total {_format_limit(plan.total)}" if plan.total else ""
    ending = "the first failure ends it" if plan.fail_fast else "keeps going after a failure"
    lane = format_lane(plan.lane, plan.shard)
    return f"lane {lane} of {plan.project}: {plan.strategy.value}, {_format_workers(plan.workers)}{limits}, {ending}"


def _format_workers(workers: Bounds) -> str:
    if workers.fixed:
        return format_count(workers.minimum, "worker")
    return f"{workers.minimum} to {workers.maximum} workers, {workers.start} at the start"


def _find_hits(previews: Sequence[Preview] | None) -> frozenset[str]:
    if not previews:
        return frozenset()
    from paropt_exporter.cache.preview import find_hits  # here: few plans ask the cache

    return find_hits(previews)


def _build_row(place: int, stage: PlannedStage, *, cached: bool) -> tuple[str, ...]:
    return (
        str(place),
        str(stage.number),
        stage.name,
        str(len(stage.tasks)),
        stage.pool,
        "cached" if cached else _expected_text(stage),
        _format_limit(stage.sla) if stage.sla else "-",
        ", ".join(stage.needs) or "-",
        _format_work(stage),
    )


def _expected_text(stage: PlannedStage) -> str:
    if stage.expected_seconds is not None:
        return format_seconds(stage.expected_seconds)
    return "never succeeded" if stage.never_succeeded else "unknown"


def _iter_closing_lines(plan: Plan) -> Iterator[str]:
    """Yield the lines below the table: the estimate, skipped stages and stages that can't run."""
    estimate = estimate_seconds(plan)
    if plan.shard is not None and not plan.stages:
        yield "estimated  0.0 s"
    elif estimate is None:
        failed = any(stage.never_succeeded for stage in _list_runnable(plan))
        yield f"estimated  unknown: no stage has {'succeeded' if failed else 'run'} yet"
    else:
        sequential = _sum_expected_seconds(plan)
        without = "".join(_iter_omissions(plan))
        yield f"estimated  {format_seconds(estimate)} (one after another {format_seconds(sequential)}){without}"
    yield from _iter_shard_lines(plan)
    for stage in plan.stages:
        if stage.skip:
            yield f"skipped    {stage.name}: {stage.skip}"
        if stage.fault:
            yield f"can't run  {stage.name}: {stage.fault}"
    for note in plan.notes:
        yield f"note       {note}"
    for stage in _list_runnable(plan):
        if advice := _advise_on_start_up(stage):
            yield f"note       {advice}"


def _iter_shard_lines(plan: Plan) -> Iterator[str]:
    """Yield a line for each shard of the lane, with its predicted duration and work; then the notes on the split."""
    if plan.split is None:
        return
    yield f"split      {plan.split.digest}, by durations from the history; all shards must show this one"
    names = {stage.name for stages in plan.split.shards for stage in stages}
    for index, stages in enumerate(plan.split.shards, start=1):
        seconds = _estimate_makespan(plan, _order(stages))
        work = format_seconds(plan.split.loads_seconds[index - 1])
        predicted = "unknown duration" if seconds is None else f"{format_seconds(seconds)}, work of {work}"
        mark = ">" if plan.shard is not None and index == plan.shard.index else " "
        shown = ", ".join(_format_part(stage) for stage in stages[:_MOST_STAGES]) or "nothing"
        more = f" and {len(stages) - _MOST_STAGES} more of {len(names)} stages" if len(stages) > _MOST_STAGES else ""
        yield f"  {mark} {index}/{len(plan.split.shards)}  {predicted}: {shown}{more}"
    for note in plan.split.notes:
        yield f"note       {note}"


def _order(stages: Sequence[PlannedStage]) -> Sequence[PlannedStage]:
    from paropt_exporter.plan import order_stages

    return order_stages([*stages])


def _format_part(stage: PlannedStage) -> str:
    from paropt_exporter.plan.sharding import list_items

    items = len(list_items(stage))
    return f"{stage.name} ({format_count(items, 'item')})" if items else stage.name


def _split_to_json(plan: Plan) -> dict[str, object]:
    if plan.split is None:
        return {}
    from paropt_exporter.plan.sharding import list_items

    return {
        "shard": str(plan.shard),
        "split": plan.split.digest,
        "shards": [
            {
                "shard": f"{index}/{len(plan.split.shards)}",
                "predicted_seconds": _estimate_makespan(plan, _order(stages)),
                "work_seconds": plan.split.loads_seconds[index - 1],
                "stages": [{"name": stage.name, "items": [*list_items(stage)]} for stage in stages],
            }
            for index, stages in enumerate(plan.split.shards, start=1)
        ],
        "split_notes": [*plan.split.notes],
    }


def _iter_omissions(plan: Plan) -> Iterator[str]:
    """Yield clauses that name the stages that the estimate leaves out, with the reasons."""
    unknown = [stage for stage in _list_runnable(plan) if stage.expected_seconds is None]
    for why, failed in (("not run yet", False), ("never succeeded", True)):
        names = [stage.name for stage in unknown if stage.never_succeeded is failed]
        if names:
            yield f", without {join_names(names, _MOST_STAGES)}: {why}"


def _advise_on_start_up(stage: PlannedStage) -> str:
    program = start_up.find_repeated_program(stage)
    if program is None or stage.expected_task_seconds is None or stage.fastest_task_seconds is None:
        return ""
    part = start_up.estimate_start_up_ratio(
        fastest_seconds=stage.fastest_task_seconds, mean_seconds=stage.expected_task_seconds, tasks=len(stage.tasks)
    )
    return start_up.format_advice(stage.name, program, part) if part else ""


def _format_work(stage: PlannedStage) -> str:
    """Return the first task's work on one line."""
    if not stage.tasks:
        return "-"
    shown = format_line(" && ".join(_format_steps(stage.tasks[0].work)))
    more = f"  (+{len(stage.tasks) - 1})" if len(stage.tasks) > 1 else ""
    return shown + more


def _format_steps(work: Work) -> list[str]:
    if isinstance(work, Call):
        return [f"{work.target}({', '.join(map(repr, work.arguments))})"]
    return [words[2] if words[:2] == SHELL else shlex.join(words) for words in work.steps]


def _format_limit(limit: SlaLimit) -> str:
    return format_seconds(limit.max_seconds) + (" critical" if limit.critical else "")


def _limit_to_json(limit: SlaLimit | None) -> dict[str, object] | None:
    if limit is None:
        return None
    return {"max_seconds": limit.max_seconds, "warn_seconds": limit.warn_seconds, "critical": limit.critical}


def _stage_to_json(place: int, stage: PlannedStage) -> dict[str, object]:
    return {
        "order": place,
        "number": stage.number,
        "name": stage.name,
        "pool": stage.pool,
        "needs": [*stage.needs],
        "skip": stage.skip or None,
        "fault": stage.fault or None,
        "expected_seconds": stage.expected_seconds,
        "never_succeeded": stage.never_succeeded,
        "remaining_seconds": stage.remaining_seconds,
        "sla": _limit_to_json(stage.sla),
        "timeout_seconds": stage.timeout_seconds,
        "retries": stage.retries,
        "backoff_seconds": stage.backoff_seconds,
        "env": dict.fromkeys(stage.env, HIDDEN),  # values may be secrets, and the log of a CI job may be public
        "cwd": str(stage.cwd),
        "output_file": str(stage.output_file) if stage.output_file else None,
        "locks": sorted(stage.locks),
        "exclusive": stage.exclusive,
        "memory_bytes": stage.memory_bytes,
        "slots": stage.slots,
        "tasks": [_task_to_json(task) for task in stage.tasks],
    }


def _task_to_json(task: PlannedTask) -> dict[str, object]:
    batch = {"items": [*task.items]} if task.items else {}
    return {"index": task.index, "item": task.item, **batch, **_work_to_json(task.work)}


def _work_to_json(work: Work) -> dict[str, object]:
    if isinstance(work, Call):
        return {"call": work.target, "arguments": [*work.arguments]}
    return {"steps": [[*words] for words in work.steps]}
