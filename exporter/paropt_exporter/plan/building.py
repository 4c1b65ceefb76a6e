"""Build the plan of one lane from the config: tasks from items, limits, pools, and the order of the stages."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from paropt_exporter import host
from paropt_exporter.errors import UsageError
from paropt_exporter.plan.items import ITEM, NoItems, find_items, no_items
from paropt_exporter.plan.model import (
    COMMANDS,
    PROCESSES,
    THREADS,
    Bounds,
    Call,
    Commands,
    Plan,
    PlannedStage,
    PlannedTask,
    Work,
)
from paropt_exporter.records import Strategy

if TYPE_CHECKING:
    from paropt_exporter.config import Config, Lane, Stage

NOTHING_TO_RUN = "no stage to run: write stages into paropt.yml (paropt-exporter init makes one)"
UNKNOWN_SECONDS = 1.0  # a stage's duration where no stage's is known: all are alike then, and only the graph orders
_SHELL = ("/bin/sh", "-c")


def build(
    config: Config,
    lane: str,
    *,
    expected: Mapping[str, float] = MappingProxyType({}),
    expected_tasks: Mapping[str, float] = MappingProxyType({}),
    only: Collection[str] | None = None,
    strategy: Strategy | None = None,
    workers: Bounds | None = None,
    fail_fast: bool | None = None,
) -> Plan:
    """Plan one lane; `expected` are known durations of stages, in seconds, by name, `expected_tasks` of their tasks.

    `only`: plan just these stages and those that need them (a retry of what failed). Runs the item commands of the
    lane's stages (at most a minute each); one that fails leaves its stage with a `fault`. Raises UsageError for an
    unknown lane or stage, and where there is no stage at all.
    """
    chosen = _lane(config, lane)
    strategy = strategy or chosen.strategy
    members = _members(config, lane)
    if only is not None:
        members = _narrowed(members, only)
    names = {stage.name for stage in members}
    size = _bounds(chosen, strategy, workers)
    stages = [_stage(config, chosen, stage, strategy, names) for stage in members]
    known = [
        replace(stage, expected_seconds=expected.get(stage.name), expected_task_seconds=expected_tasks.get(stage.name))
        for stage in stages
    ]
    return Plan(
        project=config.project,
        lane=lane,
        strategy=strategy,
        workers=size,
        stages=ordered([_fitted(stage, size) for stage in known]),
        total=chosen.total.limit() if chosen.total else None,
        fail_fast=chosen.fail_fast if fail_fast is None else fail_fast,
        root=config.root,
        notes=config.notes,
    )


def ordered(stages: list[PlannedStage]) -> tuple[PlannedStage, ...]:
    """Fill in `remaining_seconds` and order by it, the longest first, ties by number: the order of a run."""
    remaining = _remaining(stages)
    filled = [replace(stage, remaining_seconds=remaining[stage.name]) for stage in stages]
    return tuple(sorted(filled, key=lambda stage: (-stage.remaining_seconds, stage.number)))


def bounds(text: str) -> Bounds:
    """Read the value of --workers: auto, a number, or bounds like `1-16`; UsageError for anything else."""
    if text.strip() == "auto":
        return _automatic()
    first, dash, last = text.strip().partition("-")
    numbers = [
        int(part) for part in (first, last if dash else first) if part.isascii() and part.isdigit() and len(part) < 5
    ]
    if len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] <= 1000:
        raise UsageError(f"--workers: expected auto, a number from 1 to 1000, or bounds like 1-16, found {text!r}")
    return Bounds(minimum=numbers[0], maximum=numbers[1], start=min(max(host.workers(), numbers[0]), numbers[1]))


def _automatic() -> Bounds:
    from paropt_exporter.config.bounds import bounds as configured
    from paropt_exporter.config.model import Workers

    minimum, maximum, start = configured(Workers(), Strategy.ADAPTIVE, host.workers())
    return Bounds(minimum=minimum, maximum=maximum, start=start)


def _lane(config: Config, lane: str) -> Lane:
    from paropt_exporter.config.faults import did_you_mean

    if lane not in config.lanes:
        there = ", ".join(config.lanes)
        hint = did_you_mean(lane, config.lanes)
        suffix = hint if "did you mean" in hint else ""
        raise UsageError(f"unknown lane {lane!r}{suffix}; there are {there}")
    return config.lanes[lane]


def _members(config: Config, lane: str) -> list[Stage]:
    listed = config.lanes[lane].stages
    wanted = None if listed is None else frozenset(listed)
    members = [stage for stage in config.stages if wanted is None or stage.name in wanted]
    if not members:
        raise UsageError("\n".join([f"lane {lane} has {NOTHING_TO_RUN}", *(f"  {note}" for note in config.notes)]))
    return members


def _narrowed(stages: list[Stage], only: Collection[str]) -> list[Stage]:
    """Keep the stages named and all that need them; what those need besides has succeeded before."""
    unknown = [name for name in only if name not in {stage.name for stage in stages}]
    if unknown:
        there = ", ".join(stage.name for stage in stages)
        raise UsageError(f"no stage {unknown[0]!r} in this lane; there are {there}")
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


def _stage(config: Config, lane: Lane, stage: Stage, strategy: Strategy, names: set[str]) -> PlannedStage:
    tasks, skip, fault = _tasks(config, stage)
    limit = stage.sla or lane.sla
    return PlannedStage(
        number=stage.number,
        name=stage.name,
        tasks=tasks,
        needs=tuple(need for need in stage.needs if need in names),
        pool=_pool(stage, strategy),
        retries=stage.retries.count,
        backoff_seconds=stage.retries.backoff,
        timeout_seconds=stage.timeout,
        env=MappingProxyType(dict(stage.env)),
        cwd=_folder(config, stage),
        output_file=config.root / stage.file if stage.file else None,
        sla=limit.limit() if limit else None,
        locks=frozenset(stage.locks),
        exclusive=stage.exclusive,
        memory_bytes=stage.memory or 0,
        slots=stage.slots,
        skip=skip,
        fault=fault,
    )


def _fitted(stage: PlannedStage, size: Bounds) -> PlannedStage:
    """Hold a stage's slots against the lane's size: one worker runs anything alone, else too many are a fault."""
    if stage.slots <= size.maximum:
        return stage
    if size.maximum == 1:
        return replace(stage, slots=1)
    fault = f"it needs {stage.slots} slots, and the lane has at most {size.maximum} workers: raise its workers"
    return replace(stage, tasks=(), fault=fault)


def _tasks(config: Config, stage: Stage) -> tuple[tuple[PlannedTask, ...], str, str]:
    """Return a stage's tasks, why it is skipped, and why it can't run."""
    if stage.items is None:
        return (PlannedTask(index=0, item=None, work=_work(stage, None)),), "", ""
    try:
        items = find_items(stage.items, root=config.root, cwd=_folder(config, stage), env=stage.env)
    except NoItems as error:
        place = config.places.get(stage.name, "")
        return (), "", f"{place}: {error}" if place else str(error)
    if not items and stage.items.allow_empty:
        return (), f"no items: {no_items(stage.items)}", ""
    if not items:
        where = f"{place}: " if (place := config.places.get(stage.name, "")) else ""
        return (), "", f"{where}items: {no_items(stage.items)}: correct them, or write allow_empty: true"
    return tuple(PlannedTask(index=n, item=item, work=_work(stage, item)) for n, item in enumerate(items)), "", ""


def _work(stage: Stage, item: str | None) -> Work:
    if stage.call is not None:
        return Call(target=stage.call, arguments=() if item is None else (item,))
    commands = [stage.run] if stage.run is not None else [*(stage.steps or ())]
    return Commands(steps=tuple(_words(command, item, shell=stage.shell) for command in commands))


def _words(command: str | tuple[str, ...], item: str | None, *, shell: bool) -> tuple[str, ...]:
    """Return an argument vector; an item is put in after splitting, so that it stays one word whatever it holds."""
    if isinstance(command, str) and shell:
        return (*_SHELL, command if item is None else command.replace(ITEM, shlex.quote(item)))
    words = shlex.split(command) if isinstance(command, str) else command
    return tuple(words) if item is None else tuple(word.replace(ITEM, item) for word in words)


def _folder(config: Config, stage: Stage) -> Path:
    return config.root / stage.cwd if stage.cwd else config.root


def _pool(stage: Stage, strategy: Strategy) -> str:
    """Return where a stage starts; with hybrid and adaptive the engine may send a call's tasks elsewhere."""
    if stage.call is None:
        return COMMANDS
    return PROCESSES if strategy is Strategy.PROCESS else THREADS


def _bounds(lane: Lane, strategy: Strategy, override: Bounds | None) -> Bounds:
    from paropt_exporter.config.bounds import bounds as configured

    if strategy is Strategy.SEQUENTIAL:
        return Bounds(minimum=1, maximum=1, start=1)
    if override is not None:
        return override
    minimum, maximum, start = configured(lane.workers, strategy, host.workers())
    return Bounds(minimum=minimum, maximum=maximum, start=start)


def _remaining(stages: list[PlannedStage]) -> dict[str, float]:
    """Return the longest path from each stage's start to the run's end, by name; no recursion: chains are long."""
    from statistics import median

    known = [stage.expected_seconds for stage in stages if stage.expected_seconds is not None]
    unknown = median(known) if known else UNKNOWN_SECONDS
    own = {stage.name: _own_seconds(stage, unknown) for stage in stages}
    after: dict[str, float] = dict.fromkeys(own, 0.0)
    remaining: dict[str, float] = {}
    for stage in reversed(_topological(stages)):
        remaining[stage.name] = own[stage.name] + after[stage.name]
        for need in stage.needs:
            after[need] = max(after[need], remaining[stage.name])
    return remaining


def _own_seconds(stage: PlannedStage, unknown: float) -> float:
    if stage.skip or stage.fault:
        return 0.0
    return unknown if stage.expected_seconds is None else stage.expected_seconds


def _topological(stages: Iterable[PlannedStage]) -> list[PlannedStage]:
    by_name = {stage.name: stage for stage in stages}
    open_needs = {name: len(stage.needs) for name, stage in by_name.items()}
    dependents: dict[str, list[str]] = {}
    for stage in by_name.values():
        for need in stage.needs:
            dependents.setdefault(need, []).append(stage.name)
    ready = [name for name, count in open_needs.items() if count == 0]
    for name in ready:  # grows while it is walked
        for dependent in dependents.get(name, ()):
            open_needs[dependent] -= 1
            if open_needs[dependent] == 0:
                ready.append(dependent)
    return [by_name[name] for name in ready]
