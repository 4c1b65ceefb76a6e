"""Build the plan of a lane from the config: tasks from items, limits, pools, and the order of the stages."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from paropt_exporter import host
from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS, SHELL
from paropt_exporter.config.virtual_environment import build_environment, build_stage_environment
from paropt_exporter.cpu_demand import CORE_SLACK
from paropt_exporter.errors import NothingAffected, UsageError
from paropt_exporter.events import Scope, Shard, Strategy
from paropt_exporter.executors.base import COMMANDS, DASK, PROCESSES, THREADS, RemoteTaskOptions
from paropt_exporter.lazy_patterns import compile_later
from paropt_exporter.plan.items import ItemsError, describe_no_items, find_items
from paropt_exporter.plan.selection import Selection, select_stages
from paropt_exporter.plan.structure import (
    Bounds,
    Call,
    Commands,
    KnownItems,
    Plan,
    PlannedStage,
    PlannedTask,
    Work,
    compute_median,
)

if TYPE_CHECKING:
    from paropt_exporter.changes import ChangeFinder
    from paropt_exporter.config import Config, Lane, Stage
    from paropt_exporter.config.values import Items
    from paropt_exporter.plan.affected import AffectedStages
    from paropt_exporter.plan.batches import ConcurrentStages
    from paropt_exporter.plan.flakiness import Flakiness, OpenFailures

NOTHING_TO_RUN = "no stage to run: write stages into paropt.yml (paropt-exporter init makes one)"
UNKNOWN_SECONDS = 1.0  # of a stage if no duration is known; then only the graph decides the order
_PLACEHOLDER = compile_later(re.escape(ITEM) + "|" + re.escape(ARGS))
_WHOLE_LANE = Selection()


def build_plan(
    config: Config,
    lane: str,
    *,
    expected: Mapping[str, float] = MappingProxyType({}),
    expected_tasks: Mapping[str, float] = MappingProxyType({}),
    fastest_tasks: Mapping[str, float] = MappingProxyType({}),
    never_succeeded: Collection[str] = (),
    flakiness: Mapping[str, Flakiness] = MappingProxyType({}),
    open_failures: Mapping[str, OpenFailures] = MappingProxyType({}),
    tree_state: str = "",
    known_items: Mapping[str, KnownItems] = MappingProxyType({}),
    cpu_demands: Mapping[str, float] = MappingProxyType({}),
    selection: Selection = _WHOLE_LANE,
    arguments: tuple[str, ...] = (),
    affected_by: ChangeFinder | None = None,
    only: Collection[str] | None = None,
    only_items: Mapping[str, Collection[str]] = MappingProxyType({}),
    strategy: Strategy | None = None,
    workers: Bounds | None = None,
    fail_fast: bool | None = None,
    shard: Shard | None = None,
    pins: Mapping[tuple[str, str], int] = MappingProxyType({}),
    today: str = "",
) -> Plan:
    """Build the plan of one lane, or of one shard of it.

    `expected`, `expected_tasks` and `fastest_tasks` have the known durations in seconds, by stage, of the stage, its
    mean task and its fastest task. `known_items` has the measurements of items, `cpu_demands` the CPU demand of a
    stage's tasks in cores; both decide how many batches the items are cut into. `never_succeeded` has the stages that
    ran before, without success. `flakiness` and `open_failures` have the stages that were flaky, and those that failed
    in the current state of the files, `tree_state`.

    `selection` narrows the lane, and `affected_by` to the stages that a change affects. `arguments` replace `{args}` in
    the commands of the selected stages. `only` keeps these stages and their dependents, and `only_items` those items of
    a stage, to retry failures. `pins` has the shards of some items, by stage and item ("" for a whole stage); the
    durations decide about the others. `today`: the date that ends quarantines, in ISO 8601; default: the clock's.

    Runs the item commands of the stages (at most a minute each). One that fails sets its stage's `fault`. Raises
    UsageError for an unknown lane or stage, for a lane without stages, for arguments that no stage takes, and if the
    changes are unknown; NothingAffected if no stage is left.
    """
    members, given = choose_stages(config, lane, selection, arguments)
    chosen = config.lanes[lane]
    strategy = strategy or chosen.strategy
    partial = bool(selection) or bool(given)
    affected = None if affected_by is None else _choose_affected(config, members, affected_by)
    if affected is not None:
        partial = partial or bool(affected.left_out)
        members = [stage for stage in members if stage.name in affected.reasons]
        only = None if only is None else _narrow_failed(only, members, lane)
    if only is not None:
        members = _keep_failed_and_dependents(members, only)
    names = {stage.name for stage in members}
    size = _choose_bounds(chosen, strategy, workers)
    today = today or _find_today(members)
    stages = [
        _keep_items(
            _build_stage(config, chosen, stage, strategy, names, given.get(stage.name, ()), affected_by, today),
            only_items,
        )
        for stage in members
    ]
    known = [
        replace(
            stage,
            expected_seconds=expected.get(stage.name),
            expected_task_seconds=expected_tasks.get(stage.name),
            fastest_task_seconds=fastest_tasks.get(stage.name),
            never_succeeded=stage.name in never_succeeded,
            flakiness=flakiness.get(stage.name),
            open_failures=open_failures.get(stage.name),
        )
        for stage in stages
    ]
    notes = _list_quarantine_notes(config, stages, today, whole=not (partial or only_items or shard))
    split = None
    if shard is not None:
        from paropt_exporter.plan import sharding  # here: most runs have no shards

        split = sharding.split_stages(known, shard.count, known_items, workers=size.start, pins=pins)
        known = [*split.shards[shard.index - 1]]
        partial, shard = partial or shard.count > 1, replace(shard, split=split.digest)
    return Plan(
        project=config.project,
        lane=lane,
        strategy=strategy,
        workers=size,
        stages=_cut_stages(order_stages([_fit_slots(stage, size) for stage in known]), size, known_items, cpu_demands),
        total=chosen.total.to_limit() if chosen.total and not partial else None,
        fail_fast=chosen.fail_fast if fail_fast is None else fail_fast,
        root=config.root,
        notes=(*config.notes, *notes),
        partial=partial,
        shard=shard,
        split=split,
        tree_state=tree_state,
        choice="" if affected is None else affected.describe(),
    )


def choose_stages(
    config: Config, lane: str, selection: Selection, arguments: tuple[str, ...] = ()
) -> tuple[list[Stage], Mapping[str, tuple[str, ...]]]:
    """Return the selected stages of a lane, and the arguments of those that take some. Runs nothing.

    Raises UsageError like `build_plan`.
    """
    _require_lane(config, lane)
    members = _list_members(config, lane)
    named = frozenset(stage.name for stage in members)
    if selection or not selection.with_needs:
        selected = select_stages(members, selection, lane=lane, lanes_of=_map_stages_to_lanes(config))
        members, named = [*selected.stages], selected.named
    if not arguments:
        return members, {}
    takers = [stage for stage in members if stage.name in named and takes_arguments(stage)]
    if not takers:
        told = ", ".join(stage.name for stage in members if stage.name in named)
        raise UsageError(f"-- {shlex.join(arguments)}: no stage of {told} takes arguments: write {ARGS} in its command")
    if any(ITEM in word or ITEMS in word for word in arguments):
        raise UsageError(f"-- {shlex.join(arguments)}: {ITEM} and {ITEMS} mean something in paropt.yml only")
    return members, {stage.name: arguments for stage in takers}


def choose_pool(stage: Stage, strategy: Strategy) -> str:
    """Return the pool of a stage. With hybrid and adaptive the engine may send a call's tasks to another pool."""
    if strategy is Strategy.DASK and not stage.local:
        return DASK
    if stage.call is None:
        return COMMANDS
    return PROCESSES if strategy is Strategy.PROCESS else THREADS


def takes_arguments(stage: Stage) -> bool:
    """Return whether a stage's commands contain `{args}`."""
    return any(ARGS in part for command in _list_commands(stage) for part in _list_parts(command))


def _map_stages_to_lanes(config: Config) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {stage.name: [] for stage in config.stages}
    for name, lane in config.lanes.items():
        for stage in found if lane.stages is None else found.keys() & set(lane.stages):
            found[stage].append(name)
    return found


def order_stages(stages: list[PlannedStage]) -> tuple[PlannedStage, ...]:
    """Set `remaining_seconds` and sort by it, the longest first, ties by number: the order of a run."""
    remaining = _compute_remaining(stages)
    filled = [replace(stage, remaining_seconds=remaining[stage.name]) for stage in stages]
    return tuple(sorted(filled, key=lambda stage: (-stage.remaining_seconds, stage.number)))


def parse_bounds(text: str) -> Bounds:
    """Read the value of --workers: auto, a number, or bounds like `1-16`; UsageError for anything else."""
    if text.strip() == "auto":
        return _choose_automatic_bounds()
    first, dash, last = text.strip().partition("-")
    numbers = [
        int(part) for part in (first, last if dash else first) if part.isascii() and part.isdigit() and len(part) < 5
    ]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] <= 1000:
        raise UsageError(f"--workers: expected auto, a number from 1 to 1000, or bounds like 1-16, found {text!r}")
    return Bounds(
        minimum=numbers[0], maximum=numbers[1], start=min(max(host.count_cpu_workers(), numbers[0]), numbers[1])
    )


def _choose_automatic_bounds() -> Bounds:
    from paropt_exporter.config.defaults import resolve_workers
    from paropt_exporter.config.values import Workers

    minimum, maximum, start = resolve_workers(Workers(), Strategy.ADAPTIVE, host.count_cpu_workers())
    return Bounds(minimum=minimum, maximum=maximum, start=start)


def _keep_items(stage: PlannedStage, items: Mapping[str, Collection[str]]) -> PlannedStage:
    """Keep the given items of a stage.

    Keeps all items if one of the given ones is gone: it may have a new name now, under which it fails as before.
    """
    if not stage.tasks or stage.name not in items:
        return stage
    if stage.template is None:
        return _keep_tasks(stage, frozenset(items[stage.name]))
    there = frozenset(stage.tasks[0].items)
    # A part of a file was an item in the last run only. Now it is in its file.
    wanted = {item if item in there else item.partition("::")[0] for item in items[stage.name]}
    if not wanted or not wanted <= there:
        return stage
    from paropt_exporter.plan import batches

    kept = tuple(item for item in stage.tasks[0].items if item in wanted)
    return _mark_partial(
        replace(stage, tasks=(batches.build_task(stage.template, 0, kept),)), Scope.ITEMS, whole=wanted == there
    )


def _keep_tasks(stage: PlannedStage, wanted: frozenset[str]) -> PlannedStage:
    there = frozenset(task.item for task in stage.tasks)
    if not wanted or not wanted <= there:
        return stage
    kept = [task for task in stage.tasks if task.item in wanted]
    tasks = tuple(replace(task, index=index) for index, task in enumerate(kept))
    return _mark_partial(replace(stage, tasks=tasks), Scope.ITEMS, whole=wanted == there)


def _mark_partial(stage: PlannedStage, scope: Scope, *, whole: bool) -> PlannedStage:
    """Mark a stage that does only a part of its work, and drop its limit, which is for all of it."""
    return stage if whole or stage.scope is not Scope.ALL else replace(stage, scope=scope, sla=None)


def _cut_stages(
    stages: tuple[PlannedStage, ...], size: Bounds, known: Mapping[str, KnownItems], shares: Mapping[str, float]
) -> tuple[PlannedStage, ...]:
    """Cut the items of stages with `{items}` into batches."""
    return tuple(
        stage
        if stage.template is None or not stage.tasks
        else replace(stage, tasks=_build_batches(stage, stage.template, stages, size, known, shares))
        for stage in stages
    )


def _build_batches(
    stage: PlannedStage,
    template: Commands,
    stages: Sequence[PlannedStage],
    size: Bounds,
    known: Mapping[str, KnownItems],
    shares: Mapping[str, float],
) -> tuple[PlannedTask, ...]:
    from paropt_exporter.plan import batches  # here: most stages have no items

    workers = max(
        1, min(_count_concurrent_commands(host.count_cpus(), shares.get(stage.name, 1.0)), size.maximum // stage.slots)
    )
    items, told = stage.tasks[0].items, known.get(stage.name, KnownItems())
    parts = _find_unchanged_parts(stage, items, told) if stage.junit else {}
    told = _add_kept_parts(told, items, parts)
    apart = [(item,) for item in items if item in stage.quarantine]  # so that a failure is known to be its own
    usual = [item for item in items if item not in stage.quarantine]
    cut = batches.cut_batches(usual, told, workers=workers, beside=_find_concurrent_stages(stage, stages), parts=parts)
    return batches.build_tasks(stage, template, [*cut, *apart], items)


def _count_concurrent_commands(cores: float, demand: float) -> int:
    """Return how many commands that demand `demand` cores each the cores can serve.

    The number is rounded up for demands above one core: threads of some tests raise the demand on a busy machine.
    """
    if demand > 1.0:
        return math.ceil(cores / demand - CORE_SLACK)
    return int((cores + CORE_SLACK) / max(demand, 1e-3))


def _find_unchanged_parts(stage: PlannedStage, items: Sequence[str], known: KnownItems) -> dict[str, list[str]]:
    """Return the measured long tests of the files that have not changed since, so that no name is out of date.

    Includes only tests that pytest can deselect without another one.
    """
    from paropt_exporter.plan.pytest_support import find_separable_tests

    found: dict[str, list[str]] = {}
    wanted = frozenset(items)
    for name in known.seconds:
        file, separator, _ = name.partition("::")
        if separator and file in wanted and name not in wanted:
            found.setdefault(file, []).append(name)
    unchanged = {file: parts for file, parts in found.items() if not _has_changed(stage.cwd / file, parts, known)}
    each = {file: find_separable_tests(stage.cwd / file, parts) for file, parts in unchanged.items()}
    return {file: parts for file, parts in each.items() if parts}


def _add_kept_parts(known: KnownItems, items: Sequence[str], parts: Mapping[str, Sequence[str]]) -> KnownItems:
    """Add the seconds of the long tests that stay in their files to the seconds of these files."""
    seconds, wanted = dict(known.seconds), frozenset(items)
    for name, took in known.seconds.items():
        file, separator, _ = name.partition("::")
        if separator and file in wanted and file in seconds and name not in wanted and name not in parts.get(file, ()):
            seconds[file] += took
    return replace(known, seconds=seconds)


def _has_changed(file: Path, parts: Sequence[str], known: KnownItems) -> bool:
    try:
        changed = file.stat().st_mtime
    except OSError:
        return True
    return any(known.seen_timestamp_seconds.get(part, 0.0) <= changed for part in parts)


def _find_concurrent_stages(stage: PlannedStage, stages: Sequence[PlannedStage]) -> ConcurrentStages:
    """Return the stages that may run at the same time, which are neither its needs nor its dependents."""
    from paropt_exporter.plan.batches import ConcurrentStages

    needs = {each.name: each.needs for each in stages}
    related = {stage.name, *_find_reachable(stage.name, needs)}
    related |= {name for name in needs if stage.name in _find_reachable(name, needs)}
    before: list[float] = []
    after: list[float] = []
    into = before
    for each in stages:
        if each.name == stage.name:
            into = after
        elif each.name not in related and each.expected_seconds and not each.skip and not each.fault:
            into.append(each.expected_seconds)
    return ConcurrentStages(before=tuple(before), after=tuple(after))


def _find_reachable(name: str, edges: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [*edges[name]]
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += edges.get(other, ())
    return found


def _require_lane(config: Config, lane: str) -> None:
    if lane not in config.lanes:
        from paropt_exporter.config.faults import suggest_name

        there = ", ".join(config.lanes)
        hint = suggest_name(lane, config.lanes)
        choose = f"{hint} Choose" if "did you mean" in hint else ": choose"
        raise UsageError(f"unknown lane {lane!r}{choose} from {there}")


def _list_members(config: Config, lane: str) -> list[Stage]:
    listed = config.lanes[lane].stages
    wanted = None if listed is None else frozenset(listed)
    members = [stage for stage in config.stages if wanted is None or stage.name in wanted]
    if not members:
        raise UsageError("\n".join([f"lane {lane} has {NOTHING_TO_RUN}", *(f"  {note}" for note in config.notes)]))
    return members


def _keep_failed_and_dependents(stages: list[Stage], only: Collection[str]) -> list[Stage]:
    """Keep the named stages and their dependents. Other needs of the dependents have succeeded before."""
    unknown = [name for name in only if name not in {stage.name for stage in stages}]
    if unknown:
        there = ", ".join(stage.name for stage in stages)
        raise UsageError(f"no stage {unknown[0]!r} in this lane: choose from {there}")
    dependents: dict[str, list[str]] = {}
    for stage in stages:
        for need in stage.needs:
            dependents.setdefault(need, []).append(stage.name)
    kept: set[str] = set()
    waiting = [*only]
    while waiting:
        name = waiting.pop()
        if name not in kept:
            kept.add(name)
            waiting += dependents.get(name, ())
    return [stage for stage in stages if stage.name in kept]


def _choose_affected(config: Config, stages: Sequence[Stage], find: ChangeFinder) -> AffectedStages:
    """Return the affected stages. Raises UsageError if the changes are unknown, NothingAffected if there are none."""
    from paropt_exporter.changes import UnknownChange  # here: few runs look for changes
    from paropt_exporter.plan.affected import choose_affected

    try:
        affected = choose_affected(config, stages, find.changes)
    except UnknownChange as error:
        raise UsageError(f"--affected: {error}") from None
    if not affected.reasons:
        raise NothingAffected(affected.describe())
    return affected


def _narrow_failed(only: Collection[str], affected: Sequence[Stage], lane: str) -> Collection[str]:
    """Return the failed stages that are affected. Raises NothingAffected if there are none."""
    narrowed = [stage.name for stage in affected if stage.name in only]
    if not narrowed:
        raise NothingAffected(f"nothing to run: no failed stage of lane {lane} is affected by the change")
    return narrowed


def _build_stage(
    config: Config,
    lane: Lane,
    stage: Stage,
    strategy: Strategy,
    names: set[str],
    arguments: tuple[str, ...],
    find: ChangeFinder | None,
    today: str,
) -> PlannedStage:
    tasks, skip, fault = _build_tasks(config, stage, arguments, find)
    limit = None if arguments else lane.get_limit(stage)
    template, folder = _build_template(stage, arguments), _get_folder(config, stage)
    env = build_stage_environment(config.root, stage.env, os.environ)
    needed_outputs, other_outputs = _find_outputs_of_others(config, stage) if is_cached(stage) else ((), ())
    pool = choose_pool(stage, strategy)
    return PlannedStage(
        number=stage.number,
        name=stage.name,
        tasks=tasks,
        needs=tuple(need for need in stage.needs if need in names),
        pool=pool,
        retries=stage.retries.count,
        flaky_retries=stage.retries.flaky,
        quarantine=_select_quarantined(stage, today),
        backoff_seconds=stage.retries.backoff,
        timeout_seconds=stage.timeout,
        env=MappingProxyType(env),
        cwd=folder,
        output_file=config.root / stage.file if stage.file else None,
        sla=limit.to_limit() if limit else None,
        locks=frozenset(stage.locks),
        exclusive=stage.exclusive,
        memory_bytes=0 if pool == DASK else stage.memory or 0,
        slots=stage.slots,
        skip=skip,
        fault=fault,
        template=template,
        junit=template is not None and _can_request_report(template, folder, config.root, env),
        inputs=None if stage.declared_inputs is None else _join_patterns(stage, stage.declared_inputs),
        traces_inputs=stage.traces_inputs and pool != DASK,
        allows_servers=stage.cache == "always",
        outputs=_join_patterns(stage, stage.outputs),
        cached=is_cached(stage),
        pass_env=stage.pass_env,
        needed_outputs=needed_outputs,
        other_outputs=other_outputs,
        scope=Scope.ARGUMENTS if arguments else Scope.ALL,
        remote=_build_remote_options(config, stage) if pool == DASK else None,
    )


def _find_today(stages: Iterable[Stage]) -> str:
    """Return today's date, or "" if no stage has a quarantine."""
    if not any(stage.quarantine for stage in stages):
        return ""
    from paropt_exporter.plan.quarantine import find_today

    return find_today()


def _select_quarantined(stage: Stage, today: str) -> Mapping[str, str]:
    if not stage.quarantine:
        return MappingProxyType({})
    from paropt_exporter.plan.quarantine import select_quarantined  # here: few stages have one

    return select_quarantined(stage, today)


def _list_quarantine_notes(config: Config, stages: Iterable[PlannedStage], today: str, *, whole: bool) -> Sequence[str]:
    """Return the lines about quarantines that have ended, and in a `whole` plan about those without an item."""
    if not today:
        return ()
    from paropt_exporter.plan.quarantine import list_quarantine_faults

    items = {
        stage.name: {item for task in stage.tasks for item in task.items or (task.item or "",)} if whole else set()
        for stage in stages
    }
    return list_quarantine_faults(config, items, today)


def _build_remote_options(config: Config, stage: Stage) -> RemoteTaskOptions:
    """Return the options of a stage's tasks on other hosts, where only named variables of this process arrive."""
    passed = {name: os.environ[name] for name in config.dask.pass_env if name in os.environ}
    programs = build_environment(config.root, os.environ).get("PATH", "").partition(os.pathsep)[0]
    root = os.path.abspath(config.root)  # noqa: PTH100 -- a link stays as it is named
    return RemoteTaskOptions(
        folder=stage.cwd or "",
        env=MappingProxyType({**passed, **stage.env}),
        slots=stage.slots,
        memory_bytes=stage.memory or 0,
        outputs=_join_patterns(stage, stage.outputs),
        programs=os.path.relpath(programs, root) if programs.startswith(root + os.sep) else programs,
    )


def _can_request_report(template: Commands, folder: Path, root: Path, env: Mapping[str, str]) -> bool:
    from paropt_exporter.plan import pytest_support  # here: most stages have no items

    return pytest_support.can_request_report(template, folder, root, env)


def is_cached(stage: Stage) -> bool:
    """Return whether an unchanged stage is skipped. A call never is, since it sees the state of this process."""
    return stage.call is None and (stage.cache == "always" or (stage.cache == "auto" and stage.inputs is not None))


def _find_outputs_of_others(config: Config, stage: Stage) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a stage's `needed_outputs` and `other_outputs`. What the command line selects changes neither."""
    by_name = {each.name: each for each in config.stages}
    needed = _find_reachable(stage.name, {name: each.needs for name, each in by_name.items()}) & by_name.keys()
    outputs = {name: _list_written(each) for name, each in by_name.items() if name != stage.name}
    return (
        tuple(pattern for name in outputs if name in needed for pattern in outputs[name]),
        tuple(pattern for name in outputs if name not in needed for pattern in outputs[name]),
    )


def _list_written(stage: Stage) -> tuple[str, ...]:
    """Return the patterns of all files that a stage may write, for any item."""
    from paropt_exporter.input_files import escape_pattern  # here, as below: most stages have no patterns

    patterns = [each for pattern in stage.outputs for each in dict.fromkeys(_generalize(pattern))]
    return (*_join_patterns(stage, tuple(patterns)), *([escape_pattern(stage.file)] if stage.file else []))


def _generalize(pattern: str) -> tuple[str, ...]:
    """Return patterns for any item, in whose place there may be a path."""
    return pattern.replace(ITEM, "*"), pattern.replace(ITEM, "**/*")


def _join_patterns(stage: Stage, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return patterns relative to the config's folder instead of the stage's."""
    if not patterns:
        return ()
    from paropt_exporter.input_files import join_pattern

    return tuple(join_pattern(stage.cwd or ".", pattern) for pattern in patterns)


def _fit_slots(stage: PlannedStage, size: Bounds) -> PlannedStage:
    """Set a fault if a stage needs more slots than the lane has workers. A lane of one worker runs any stage."""
    if stage.slots <= size.maximum:
        return stage
    if size.maximum == 1:
        return replace(stage, slots=1)
    fault = f"it needs {stage.slots} slots, and the lane has at most {size.maximum} workers: raise its workers"
    return replace(stage, tasks=(), fault=fault)


def _build_tasks(
    config: Config, stage: Stage, arguments: tuple[str, ...], find: ChangeFinder | None
) -> tuple[tuple[PlannedTask, ...], str, str]:
    """Return a stage's tasks, the reason why it is skipped, and the reason why it can't run ("" for none)."""
    if stage.items is None:
        return (PlannedTask(index=0, item=None, work=_build_work(stage, None, arguments)),), "", ""
    try:
        items = _find_items(config, stage, stage.items, find)
    except ItemsError as error:
        place = config.places.get(stage.name, "")
        return (), "", f"{place}: {error}" if place else str(error)
    if not items and (stage.items.allow_empty or stage.items.changed is not None):
        return (), f"no items: {describe_no_items(stage.items)}", ""
    if not items:
        where = f"{place}: " if (place := config.places.get(stage.name, "")) else ""
        return (), "", f"{where}items: {describe_no_items(stage.items)}: correct them, or write allow_empty: true"
    template = _build_template(stage, arguments)
    if template is not None:  # one batch, until the order of the stages is known
        from paropt_exporter.plan import batches

        return (batches.build_task(template, 0, items),), "", ""
    each = [_build_work(stage, item, arguments) for item in items]
    return tuple(PlannedTask(index=n, item=items[n], work=work) for n, work in enumerate(each)), "", ""


def _find_items(config: Config, stage: Stage, items: Items, find: ChangeFinder | None) -> tuple[str, ...]:
    if items.changed is None:
        env = build_stage_environment(config.root, stage.env, os.environ)
        return find_items(items, cwd=_get_folder(config, stage), env=env)
    from paropt_exporter.changes import ChangeFinder, UnknownChange
    from paropt_exporter.plan.affected import find_changed_items

    finder = find or ChangeFinder(config.root)
    try:
        return find_changed_items(items.changed, finder.changes, root=config.root, cwd=stage.cwd)
    except UnknownChange as error:
        raise ItemsError(f"items: {error}") from None


def _build_template(stage: Stage, arguments: tuple[str, ...]) -> Commands | None:
    """Return the commands with `{items}`, or None if each task has one item or none."""
    commands = _list_commands(stage)
    if stage.items is None or not any(ITEMS in part for command in commands for part in _list_parts(command)):
        return None
    return Commands(steps=tuple(_build_words(command, None, arguments, shell=stage.shell) for command in commands))


def _list_commands(stage: Stage) -> Sequence[str | tuple[str, ...]]:
    return (stage.run,) if stage.run is not None else stage.steps or ()


def _list_parts(command: str | tuple[str, ...]) -> tuple[str, ...]:
    return (command,) if isinstance(command, str) else command


def _build_work(stage: Stage, item: str | None, arguments: tuple[str, ...]) -> Work:
    if stage.call is not None:
        return Call(target=stage.call, arguments=() if item is None else (item,))
    return Commands(
        steps=tuple(_build_words(command, item, arguments, shell=stage.shell) for command in _list_commands(stage))
    )


def _build_words(
    command: str | tuple[str, ...], item: str | None, arguments: tuple[str, ...], *, shell: bool
) -> tuple[str, ...]:
    """Return an argument vector with the item and the arguments in place of `{item}` and `{args}`.

    The line is split first, so that an item stays one word. Both placeholders are replaced at once, so that a value
    with a placeholder in it stays as it is.
    """
    if isinstance(command, str) and shell:
        quoted = {ARGS: shlex.join(arguments)} | ({} if item is None else {ITEM: shlex.quote(item)})
        return (*SHELL, _PLACEHOLDER.sub(lambda found: quoted.get(found[0], found[0]), command))
    words = shlex.split(command) if isinstance(command, str) else command
    filled: list[str] = []
    for word in words:
        if word == ARGS:
            filled += arguments
        else:
            filled.append(word if item is None else word.replace(ITEM, item))
    return tuple(filled)


def _get_folder(config: Config, stage: Stage) -> Path:
    return config.root / stage.cwd if stage.cwd else config.root


def _choose_bounds(lane: Lane, strategy: Strategy, override: Bounds | None) -> Bounds:
    from paropt_exporter.config.defaults import resolve_workers

    if strategy is Strategy.SEQUENTIAL:
        return Bounds(minimum=1, maximum=1, start=1)
    if override is not None:
        return override
    minimum, maximum, start = resolve_workers(lane.workers, strategy, host.count_cpu_workers())
    return Bounds(minimum=minimum, maximum=maximum, start=start)


def _compute_remaining(stages: list[PlannedStage]) -> dict[str, float]:
    """Return the seconds of the longest path from each stage's start to the run's end, by name."""
    known = [stage.expected_seconds for stage in stages if stage.expected_seconds is not None]
    unknown = compute_median(known) if known else UNKNOWN_SECONDS
    own = {stage.name: _estimate_own_seconds(stage, unknown) for stage in stages}
    after: dict[str, float] = dict.fromkeys(own, 0.0)
    remaining: dict[str, float] = {}
    for stage in reversed(_sort_topologically(stages)):
        remaining[stage.name] = own[stage.name] + after[stage.name]
        for need in stage.needs:
            after[need] = max(after[need], remaining[stage.name])
    return remaining


def _estimate_own_seconds(stage: PlannedStage, unknown: float) -> float:
    if stage.skip or stage.fault:
        return 0.0
    return unknown if stage.expected_seconds is None else stage.expected_seconds


def _sort_topologically(stages: Iterable[PlannedStage]) -> list[PlannedStage]:
    by_name = {stage.name: stage for stage in stages}
    open_needs = {name: len(stage.needs) for name, stage in by_name.items()}
    dependents: dict[str, list[str]] = {}
    for stage in by_name.values():
        for need in stage.needs:
            dependents.setdefault(need, []).append(stage.name)
    ready = [name for name, count in open_needs.items() if count == 0]
    for name in ready:  # the list grows during the loop
        for dependent in dependents.get(name, ()):
            open_needs[dependent] -= 1
            if open_needs[dependent] == 0:
                ready.append(dependent)
    return [by_name[name] for name in ready]
