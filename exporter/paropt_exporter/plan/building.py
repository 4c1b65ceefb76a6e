"""Build the plan of a lane: choose its stages, build them, add measurements of earlier runs, and order them."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter import host
from paropt_exporter.config.lanes import DOCS, STANDARD
from paropt_exporter.config.needs import find_reachable
from paropt_exporter.config.placeholders import ARGS, ITEM, ITEMS
from paropt_exporter.errors import NothingAffected, UsageError
from paropt_exporter.events import Scope, Shard, Strategy
from paropt_exporter.plan.flakiness import Flakiness, OpenFailures
from paropt_exporter.plan.selection import Selection, has_all, select_stages
from paropt_exporter.plan.stage_builder import StageBuilder, takes_arguments
from paropt_exporter.plan.stage_graph import map_dependents, order_stages
from paropt_exporter.plan.structure import Bounds, KnownItems, Plan, PlannedStage, PlannedTask, Split

if TYPE_CHECKING:
    from paropt_exporter.changes import ChangeFinder
    from paropt_exporter.config import Config, Lane, Stage, Workers
    from paropt_exporter.plan.affected import AffectedStages


class Retry(Struct, frozen=True, kw_only=True):
    """The failures to repeat: stages, with their dependents, and for some of the stages only certain items.

    `pins`: the shards of some items, by stage and item ("" for a whole stage); durations decide the shards of the
    others.
    """

    stages: Collection[str]
    items: Mapping[str, Collection[str]] = field(default_factory=dict)
    pins: Mapping[tuple[str, str], int] = field(default_factory=dict)


class PlanOptions(Struct, frozen=True, kw_only=True):
    """The part of a lane to plan, and settings that override the lane's (None: the lane's own).

    `selection`, `affected_by` (the stages that a change affects) and `retry` each narrow the lane. `arguments` replace
    `{args}` in the commands of the selected stages. `today`: the date that ends quarantines, in ISO 8601; default: the
    clock's.
    """

    selection: Selection = field(default_factory=Selection)
    arguments: tuple[str, ...] = ()
    affected_by: ChangeFinder | None = None
    retry: Retry | None = None
    shard: Shard | None = None
    strategy: Strategy | None = None
    workers: Bounds | None = None
    fail_fast: bool | None = None
    today: str = ""


class EarlierRuns(Struct, frozen=True, kw_only=True):
    """Measurements of a lane's stages in its earlier runs, by stage.

    `seconds`, `task_seconds` and `fastest_task_seconds` are durations of the stage, its mean task and its fastest task;
    stages that are not in `seconds` have durations of their failures in `failure_seconds`. `items` has the measurements
    of items, `cpu_demands` the CPU demand of a stage's tasks in cores; both decide how many batches the items are cut
    into. `never_succeeded` has the stages that ran, without success. `flakiness` and `open_failures` have the stages
    that were flaky, and those that failed in the current state of the files, `tree_state`.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    failure_seconds: Mapping[str, float] = field(default_factory=dict)
    task_seconds: Mapping[str, float] = field(default_factory=dict)
    fastest_task_seconds: Mapping[str, float] = field(default_factory=dict)
    items: Mapping[str, KnownItems] = field(default_factory=dict)
    cpu_demands: Mapping[str, float] = field(default_factory=dict)
    never_succeeded: Collection[str] = ()
    flakiness: Mapping[str, Flakiness] = field(default_factory=dict)
    open_failures: Mapping[str, OpenFailures] = field(default_factory=dict)
    tree_state: str = ""


_WHOLE_LANE = PlanOptions()
_NO_RUNS = EarlierRuns()


def build_plan(
    config: Config, lane: str, options: PlanOptions = _WHOLE_LANE, *, earlier: EarlierRuns = _NO_RUNS
) -> Plan:
    """Build the plan of one lane, or of one shard of it.

    Runs the item commands of the stages (at most a minute each). One that fails sets its stage's `fault`. Raises
    UsageError for an unknown lane or stage, for a lane without stages, for arguments that no stage takes, for several
    workers of a sequential lane, and if the changes are unknown; NothingAffected if no stage is left.
    """
    members, definition, retry = _choose_members(config, lane, options), config.lanes[lane], options.retry
    strategy = options.strategy or definition.strategy
    size = _choose_bounds(definition, strategy, options.workers)
    today = options.today or _find_today(members.stages)
    names = frozenset(stage.name for stage in members.stages)
    builder = StageBuilder(config, definition, strategy, names=names, changes=options.affected_by, today=today)
    whole = [builder.build(stage, members.arguments.get(stage.name, ())) for stage in members.stages]
    chosen = [_choose_items(stage, members.items.get(stage.name, ())) for stage in whole]
    pairs = zip(whole, chosen, strict=True)
    stages = chosen if retry is None else [_keep_items(*pair, retry.items) for pair in pairs]
    is_whole = not (members.partial or options.shard or (retry is not None and retry.items))
    notes = _list_quarantine_notes(config, stages, today, whole=is_whole)
    known = _add_earlier_runs(whole, stages, earlier)
    shard, split, partial = None, None, members.partial
    if options.shard is not None:
        pins = {} if retry is None else retry.pins
        known, split = _keep_shard(known, options.shard, earlier, workers=size.start, pins=pins)
        shard, partial = replace(options.shard, split=split.digest), partial or options.shard.count > 1
    failed_only = retry is not None and (members.leaves_out or any(stage.scope is Scope.ITEMS for stage in stages))
    return Plan(
        project=config.project,
        lane=lane,
        strategy=strategy,
        workers=size,
        stages=_cut_items(order_stages([_fit_slots(stage, size) for stage in known]), size, earlier),
        total=definition.total.to_limit() if definition.total and not (partial or failed_only) else None,
        fail_fast=definition.fail_fast if options.fail_fast is None else options.fail_fast,
        root=config.root,
        notes=(*config.notes, *notes),
        partial=partial,
        failed_only=failed_only,
        shard=shard,
        split=split,
        tree_state=earlier.tree_state,
        default_limits=_list_default_limits(lane, definition, members.stages),
        choice=members.choice,
        cores=_find_cores(config, strategy, size),
    )


class _Members(Struct, frozen=True, kw_only=True):
    """The stages of a plan, and the arguments of those that take some, by name.

    `items`: those to run, names or globs, of the stages that run only some. `partial`: a selection, arguments or the
    change leave out a part of the lane's work. `leaves_out`: the change or the failures leave out selected stages.
    `choice` says which stages the change affects; "" if that was not asked.
    """

    stages: Sequence[Stage]
    arguments: Mapping[str, tuple[str, ...]]
    items: Mapping[str, Sequence[str]]
    partial: bool
    leaves_out: bool
    choice: str


def _choose_members(config: Config, lane: str, options: PlanOptions) -> _Members:
    selected, arguments = choose_stages(config, lane, options.selection, options.arguments)
    affected = None if options.affected_by is None else _choose_affected(config, selected, options.affected_by)
    stages = _narrow_stages(selected, affected, options.retry, lane)
    return _Members(
        stages=stages,
        arguments=arguments,
        items=options.selection.find_items(selected),
        partial=bool(options.selection or arguments or (affected and affected.left_out)),
        leaves_out=len(stages) < len(selected),
        choice="" if affected is None else affected.describe(),
    )


def _choose_bounds(definition: Lane, strategy: Strategy, given: Bounds | None) -> Bounds:
    """Return the bounds of the size: those of --workers, or the lane's."""
    if strategy is not Strategy.SEQUENTIAL:
        return given or _resolve_bounds(definition.workers, strategy)
    if given is not None and given.minimum > 1:
        raise UsageError("--workers: strategy sequential runs one task at a time: leave one of the two out")
    return _resolve_bounds(definition.workers, strategy)


def _find_cores(config: Config, strategy: Strategy, size: Bounds) -> float | None:
    """Return the cores by which the controller sizes the lane on its own; None: it doesn't."""
    feedback = config.feedback
    follows_cores = feedback.mode == "act" and feedback.source != "prometheus" and feedback.objective == "fast"
    return host.count_cpus() if follows_cores and not size.fixed and strategy is not Strategy.DASK else None


def _keep_shard(
    stages: Sequence[PlannedStage],
    shard: Shard,
    earlier: EarlierRuns,
    *,
    workers: int,
    pins: Mapping[tuple[str, str], int],
) -> tuple[list[PlannedStage], Split]:
    """Return the stages of a shard, and the split of all."""
    from paropt_exporter.plan import sharding  # here: most runs have no shards

    split = sharding.split_stages(stages, shard.count, earlier.items, workers=workers, pins=pins)
    return [*split.shards[shard.index - 1]], split


def _add_earlier_runs(
    whole: Sequence[PlannedStage], stages: Sequence[PlannedStage], earlier: EarlierRuns
) -> list[PlannedStage]:
    """Return the stages with the measurements of earlier runs. `whole`: the same stages with all of their items."""
    parts = _predict_parts(whole, stages, earlier)
    seconds = {**earlier.seconds, **{name: seconds for name, (seconds, _) in parts.items()}}
    task_seconds = {**earlier.task_seconds, **{name: seconds for name, (_, seconds) in parts.items()}}
    return [
        replace(
            stage,
            expected_seconds=seconds.get(stage.name),
            failure_seconds=earlier.failure_seconds.get(stage.name),
            expected_task_seconds=task_seconds.get(stage.name),
            expected_cpu_demand=earlier.cpu_demands.get(stage.name),
            fastest_task_seconds=earlier.fastest_task_seconds.get(stage.name),
            never_succeeded=stage.name in earlier.never_succeeded,
            flakiness=earlier.flakiness.get(stage.name),
            open_failures=earlier.open_failures.get(stage.name),
        )
        for stage in stages
    ]


def find_lane(config: Config, selection: Selection) -> str:
    """Return the lane for a selection without one: `standard`, or else the first with `stages` that has all of them."""
    if selection.patterns and not has_all(selection.patterns, _filter_members(config, STANDARD)):
        choosing = (name for name, lane in config.lanes.items() if lane.stages is not None)
        fitting = (name for name in choosing if has_all(selection.patterns, _filter_members(config, name)))
        return next(fitting, STANDARD)
    return STANDARD


def choose_stages(
    config: Config, lane: str, selection: Selection, arguments: tuple[str, ...] = ()
) -> tuple[list[Stage], Mapping[str, tuple[str, ...]]]:
    """Return the selected stages of a lane, and the arguments of those that take arguments. Runs nothing.

    Raises UsageError like `build_plan`.
    """
    require_lane(config, lane)
    members = _list_members(config, lane)
    named = frozenset(stage.name for stage in members)
    if selection or not selection.with_needs:
        lanes_of = _map_stages_to_lanes(config)
        selected = select_stages(members, selection, lane=lane, known=config.stages, lanes_of=lanes_of)
        members, named = [*selected.stages], selected.named
        chosen = selection.find_items(members)
        if without := next((stage.name for stage in members if stage.name in chosen and stage.items is None), None):
            raise UsageError(f"stage {without} has no items: leave out [{chosen[without][0]}]")
    if not arguments:
        return members, {}
    takers = [stage for stage in members if stage.name in named and takes_arguments(stage)]
    if not takers:
        names = ", ".join(stage.name for stage in members if stage.name in named)
        raise UsageError(
            f"-- {shlex.join(arguments)}: no stage of {names} takes arguments: write {ARGS} in its command"
        )
    if any(ITEM in word or ITEMS in word for word in arguments):
        raise UsageError(f"-- {shlex.join(arguments)}: {ITEM} and {ITEMS} have a meaning only in paropt.yml")
    return members, {stage.name: arguments for stage in takers}


def _map_stages_to_lanes(config: Config) -> dict[str, list[str]]:
    """Return the lanes that have each stage: first those that choose it, last `docs`, whose limits are short."""
    found: dict[str, list[str]] = {stage.name: [] for stage in config.stages}
    for name, lane in sorted(config.lanes.items(), key=lambda each: (each[1].stages is None, each[0] == DOCS)):
        for stage in found if lane.stages is None else found.keys() & set(lane.stages):
            found[stage].append(name)
    return found


def _list_default_limits(name: str, lane: Lane, stages: Iterable[Stage]) -> frozenset[str]:
    """Return the stages whose limit comes from a default lane, including "" if the lane's total does."""
    from paropt_exporter.config.defaults import build_default_lanes
    from paropt_exporter.config.values import Sla

    if (default := build_default_lanes().get(name)) is None:
        return frozenset()
    usual = isinstance(lane.sla, Sla) and lane.sla == default.sla
    found = frozenset(stage.name for stage in stages if usual and stage.sla is None)
    return found | {""} if lane.total is not None and lane.total == default.total else found


def parse_bounds(text: str) -> Bounds:
    """Read the value of --workers: auto, a number, or bounds like `1-16`; UsageError for anything else."""
    if text.strip() == "auto":
        from paropt_exporter.config.values import Workers

        return _resolve_bounds(Workers(), Strategy.ADAPTIVE)
    first, dash, last = text.strip().partition("-")
    numbers = [
        int(part) for part in (first, last if dash else first) if part.isascii() and part.isdigit() and len(part) < 5
    ]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] <= 1000:
        raise UsageError(f"--workers: expected auto, a number from 1 to 1000, or bounds like 1-16, found {text!r}")
    return Bounds(
        minimum=numbers[0], maximum=numbers[1], start=min(max(host.count_cpu_workers(), numbers[0]), numbers[1])
    )


def _resolve_bounds(workers: Workers, strategy: Strategy) -> Bounds:
    from paropt_exporter.config.defaults import resolve_workers

    minimum, maximum, start = resolve_workers(workers, strategy, host.count_cpu_workers())
    return Bounds(minimum=minimum, maximum=maximum, start=start)


def _keep_items(whole: PlannedStage, stage: PlannedStage, items: Mapping[str, Collection[str]]) -> PlannedStage:
    """Keep only the given items of a stage, and drop its limit, which is for all items.

    Keeps all items if one of the given ones is gone from the `whole` stage, since it may have been renamed and still
    fail, and if the command line selected none of the given ones.
    """
    if not stage.tasks or stage.name not in items:
        return stage
    there, wanted = _list_items(whole), frozenset(items[stage.name])
    if stage.template is not None:
        # A part of a file was an item only in the last run. Now it belongs to its file.
        wanted = frozenset(item if item in there else item.partition("::")[0] for item in wanted)
    kept = wanted & _list_items(stage)
    if not kept or not wanted <= there:
        return stage
    tasks = _take_tasks(stage, kept)
    if wanted == there or stage.scope is not Scope.ALL:
        return replace(stage, tasks=tasks)
    return replace(stage, tasks=tasks, scope=Scope.ITEMS, sla=None)


def _list_items(stage: PlannedStage) -> frozenset[str | None]:
    return frozenset(item for task in stage.tasks for item in task.items or (task.item,))


def _take_tasks(stage: PlannedStage, wanted: Collection[str]) -> tuple[PlannedTask, ...]:
    """Return the tasks for the wanted items, in the order of the items."""
    if stage.template is None:
        kept = (task for task in stage.tasks if task.item in wanted)
        return tuple(replace(task, index=index) for index, task in enumerate(kept))
    from paropt_exporter.plan import batches

    return (batches.build_task(stage.template, 0, [item for item in stage.tasks[0].items if item in wanted]),)


def _choose_items(stage: PlannedStage, patterns: Sequence[str]) -> PlannedStage:
    """Keep the items that the command line selects by name or glob. Like with arguments, the run completes no stage.

    A pattern without an item is a fault of the stage, since its items may be others in each run.
    """
    if not patterns or not stage.tasks:
        return stage
    there = [item for task in stage.tasks for item in (task.items or (task.item or "",))]
    found = [{each}.intersection(there) or {item for item in there if fnmatchcase(item, each)} for each in patterns]
    part = replace(stage, scope=Scope.ARGUMENTS, sla=None)
    if all(found):
        return replace(part, tasks=_take_tasks(stage, frozenset().union(*found)))
    from paropt_exporter.config.faults import suggest_name

    unknown = patterns[found.index(set())]
    return replace(part, tasks=(), fault=f"there is no item {unknown!r}{suggest_name(unknown, there)}")


def _predict_parts(
    whole: Iterable[PlannedStage], stages: Iterable[PlannedStage], earlier: EarlierRuns
) -> Mapping[str, tuple[float, float | None]]:
    """Return the seconds of the stages with only some items left, and of their mean tasks, as far as known.

    These are the `whole` stage's times in proportion to its items' times; the stage takes at least the time of its
    longest item.
    """
    parts: dict[str, tuple[float, float | None]] = {}
    for before, stage in zip(whole, stages, strict=True):
        if before is stage or stage.name not in earlier.seconds:
            continue
        from paropt_exporter.plan.sharding import list_items  # here: most runs repeat no failures

        known = earlier.items.get(stage.name, KnownItems()).seconds
        mean = sum(known.values()) / len(known) if known else 1.0
        every, kept = ([known.get(item, mean) for item in list_items(each)] for each in (before, stage))
        if not sum(every):
            continue
        longest = max((known.get(item, 0.0) for item in list_items(stage)), default=0.0)
        ratio, task_seconds = sum(kept) / sum(every), earlier.task_seconds.get(stage.name)
        if task_seconds is not None and stage.tasks:
            task_seconds *= ratio * len(before.tasks) / len(stage.tasks)
        parts[stage.name] = max(earlier.seconds[stage.name] * ratio, longest), task_seconds
    return parts


def require_lane(config: Config, lane: str) -> None:
    """Raise UsageError for an unknown lane."""
    if lane not in config.lanes:
        from paropt_exporter.config.faults import suggest_name

        there = ", ".join(config.lanes)
        hint = suggest_name(lane, config.lanes)
        choose = f"{hint} Choose" if "did you mean" in hint else ": choose"
        raise UsageError(f"unknown lane {lane!r}{choose} from {there}")


def describe_missing_stages(config: Config) -> str:
    """Return that a config without stages has none to run, and the remedy."""
    if config.path is None:
        return "no stage to run: write stages into paropt.yml (paropt-exporter init makes one)"
    example = "- {name: lint, run: ruff check .}"
    return f"no stage to run: list some under `stages` in {config.path.name}, each as `{example}`"


def _list_members(config: Config, lane: str) -> list[Stage]:
    members = _filter_members(config, lane)
    if not members:
        message = f"lane {lane} has {describe_missing_stages(config)}"
        raise UsageError("\n".join([message, *(f"  {note}" for note in config.notes)]))
    return members


def _filter_members(config: Config, lane: str) -> list[Stage]:
    listed = config.lanes[lane].stages
    wanted = None if listed is None else frozenset(listed)
    return [stage for stage in config.stages if wanted is None or stage.name in wanted]


def _keep_failed_and_dependents(stages: list[Stage], only: Collection[str]) -> list[Stage]:
    """Keep the named stages and their dependents. Other stages that the dependents need have succeeded before."""
    unknown = [name for name in only if name not in {stage.name for stage in stages}]
    if unknown:
        there = ", ".join(stage.name for stage in stages)
        raise UsageError(f"no stage {unknown[0]!r} in this lane: choose from {there}")
    dependents = map_dependents({stage.name: stage.needs for stage in stages})
    kept = find_reachable(only, dependents.__getitem__)
    return [stage for stage in stages if stage.name in kept]


def _choose_affected(config: Config, stages: Sequence[Stage], find: ChangeFinder) -> AffectedStages:
    """Return the affected stages. Raises UsageError if the changes are unknown, NothingAffected if there are none."""
    from paropt_exporter.plan.affected import find_affected  # here: few runs look for changes

    affected = find_affected(config, stages, find)
    if not affected.reasons:
        raise NothingAffected(affected.describe())
    return affected


def _narrow_stages(stages: list[Stage], affected: AffectedStages | None, retry: Retry | None, lane: str) -> list[Stage]:
    """Keep the affected stages or, of these, the failed ones with their dependents. NothingAffected if none are."""
    only = None if retry is None else retry.stages
    if affected is not None:
        stages = [stage for stage in stages if stage.name in affected.reasons]
        if only is not None:
            only = [stage.name for stage in stages if stage.name in only]
            if not only:
                raise NothingAffected(f"nothing to run: no failed stage of lane {lane} is affected by the change")
    return stages if only is None else _keep_failed_and_dependents(stages, only)


def _find_today(stages: Iterable[Stage]) -> str:
    """Return today's date, or "" if no stage has a quarantine."""
    if not any(stage.quarantine for stage in stages):
        return ""
    from paropt_exporter.plan.quarantine import find_today

    return find_today()


def _list_quarantine_notes(config: Config, stages: Iterable[PlannedStage], today: str, *, whole: bool) -> Sequence[str]:
    """Return a line for each quarantine that has ended and, in a `whole` plan, for each without a matching item."""
    if not today:
        return ()
    from paropt_exporter.plan.quarantine import list_quarantine_faults

    items = {
        stage.name: {item for task in stage.tasks for item in task.items or (task.item or "",)} if whole else set()
        for stage in stages
    }
    return list_quarantine_faults(config, items, today)


def _fit_slots(stage: PlannedStage, size: Bounds) -> PlannedStage:
    """Set a fault if a stage needs more slots than the lane has workers. A lane of one worker runs any stage."""
    if stage.slots <= size.maximum:
        return stage
    if size.maximum == 1:
        return replace(stage, slots=1)
    fault = f"it needs {stage.slots} slots, and the lane has at most {size.maximum} workers: raise its workers"
    return replace(stage, tasks=(), fault=fault)


def _cut_items(stages: tuple[PlannedStage, ...], size: Bounds, earlier: EarlierRuns) -> tuple[PlannedStage, ...]:
    """Cut the items of stages with `{items}` into batches."""
    if not any(stage.template for stage in stages):
        return stages
    from paropt_exporter.plan.batches import cut_stage  # here: most lanes have no such stage

    cores = host.count_cpus()
    return tuple(
        cut_stage(
            stage,
            stages,
            earlier.items.get(stage.name, KnownItems()),
            cores=cores,
            demand=earlier.cpu_demands.get(stage.name, 1.0),
            most_workers=size.maximum,
        )
        for stage in stages
    )
