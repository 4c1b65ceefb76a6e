"""Cut a stage's items into batches, one command for each, with few starts, balanced durations and no overlong command.

```
unmeasured:     round 1 |aaaaaa|  |bbbbbb|       3/4 of the items, one batch for each worker
                round 2 |c|  |d|                 the rest, for the workers that finish first
measured:       |aaaa---|                        the number of batches that ends the lane soonest, with all starts;
                |bb-----|                        the longest item first, to the shortest batch (LPT)
one long file:  |a::x---|  |a less a::x, b, c|   its long tests become items if that ends the lane sooner
```
Guarantees: each item is in exactly one batch; a batch keeps the order of the items; the longest batch comes first.
"""

from __future__ import annotations

import heapq
import math
import os
import resource
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.config.needs import find_reachable
from paropt_exporter.config.placeholders import ITEMS, SHELL
from paropt_exporter.cpu_demand import CORE_SLACK, WAITING_DEMAND, count_task_cores
from paropt_exporter.environment import copy_environment
from paropt_exporter.plan.stage_graph import map_dependents
from paropt_exporter.plan.structure import Commands, KnownItems, PlannedStage, PlannedTask

# For commands without a measurement: pytest with its plugins takes 0.3 to 0.5 s to start.
UNKNOWN_START_UP_SECONDS = 0.4
# A second of the lane is worth two of CPU time: another batch must save at least half of the time that its start costs.
_START_UP_WEIGHT = 0.5
_FIRST_ROUND_SHARE = 0.75  # of unmeasured items go into the first round; the smaller second round balances the ends
_WORTH_CUTTING_RATIO = 0.9  # of the cost without a cut: both commands collect the file, which takes unmeasured time
_LEAST_PART_RATIO = 0.1  # of a worker's even share; a shorter test hardly unbalances a batch
_PART = "::"  # pytest's separator between a file and a test in it
_MOST_TRIED = 16  # every number of batches up to this one is tried, then powers of two
_EXACT_ITEMS = 1000  # more items than this are balanced however they are packed
_LONGEST_WORD_BYTES = 128 * 1024 - 1  # MAX_ARG_STRLEN of Linux, without the closing NUL
_POINTER_BYTES = 8
# Of Linux's execve(2): a quarter of the stack, at least 32 pages, at most three quarters of 8 MiB.
_LEAST_ARGUMENT_BYTES = 128 * 1024
_MOST_ARGUMENT_BYTES = 6 * 1024 * 1024
_SPARE_BYTES = 4096  # for variables that the exporter adds, for the program's path and for the kernel

Batches = list[tuple[str, ...]]


class ConcurrentStages(Struct, frozen=True, kw_only=True):
    """The seconds of the stages that may run at the same time, before and after this stage in the plan's order."""

    before: tuple[float, ...] = ()
    after: tuple[float, ...] = ()


def cut_stage(
    stage: PlannedStage,
    stages: Sequence[PlannedStage],
    known: KnownItems,
    *,
    cores: float,
    demand: float,
    most_workers: int,
) -> PlannedStage:
    """Return one of the plan's `stages` with its items in batches; unchanged if it has no `{items}`.

    `demand`: the CPU demand of one of its commands, in cores.
    """
    if stage.template is None or not stage.tasks:
        return stage
    slots = most_workers // stage.slots
    workers = max(1, min(_count_concurrent_commands(count_task_cores(cores), demand), slots))
    items, elsewhere = stage.tasks[0].items, stage.tasks[0].apart
    parts: Mapping[str, Sequence[str]] = {}
    if elsewhere:
        known = replace(known, seconds={item: took for item, took in known.seconds.items() if item not in elsewhere})
    if stage.junit:
        from paropt_exporter.plan import pytest_support  # here: for pytest only

        whole = pytest_support.add_kept_parts(known, items, {}).seconds
        even = sum(whole.get(item, 0.0) for item in items) / workers
        long = [item for item in items if whole.get(item, 0.0) >= even / 2] if workers > 1 else []
        least = _LEAST_PART_RATIO * even
        parts = pytest_support.find_unchanged_parts(stage.cwd, long, known, least_seconds=least)
        known = pytest_support.add_kept_parts(known, items, parts)
    apart = [(item,) for item in items if item in stage.quarantine]  # so that a failure is certain to be the item's own
    usual = [item for item in items if item not in stage.quarantine]
    beside = _find_concurrent_stages(stage, stages, counts_waiting=workers >= slots)
    cut = cut_batches(usual, known, workers=workers, beside=beside, parts=parts)
    return replace(stage, tasks=build_tasks(stage, stage.template, [*cut, *apart], items, elsewhere))


def cut_batches(
    items: Sequence[str],
    known: KnownItems,
    *,
    workers: int,
    beside: ConcurrentStages,
    parts: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Batches:
    """Return the batches for `workers` concurrent commands. An unmeasured item counts as the mean of the others.

    `parts`: the items that may be cut, each with its measured parts. A cut item is in the batch that runs its rest; its
    parts may be in any batch.
    """
    if workers == 1 or not items:
        return [tuple(items)] if items else []
    whole = {item: _sum_seconds(item, known, parts.get(item, ())) for item in items}
    durations = [seconds for seconds in whole.values() if seconds is not None]
    if not durations:
        return _cut_unmeasured(items, workers)
    mean = sum(durations) / len(durations)
    weights = [mean if (seconds := whole[item]) is None else seconds for item in items]
    start_up = UNKNOWN_START_UP_SECONDS if known.start_up_seconds is None else known.start_up_seconds
    best = _find_best_cut(items, weights, start_up, workers, beside)
    long = {
        item
        for item, weight in zip(items, weights, strict=True)
        if item in parts and weight >= sum(weights) / workers / 2
    }
    if long:
        units, loads = _expand_parts(items, weights, known, {item: parts[item] for item in long})
        finer = _find_best_cut(units, loads, start_up, workers, beside)
        if finer.cost < _WORTH_CUTTING_RATIO * best.cost:
            return finer.batches
    return best.batches


def build_arguments(items: Sequence[str], apart: Sequence[str]) -> tuple[str, ...]:
    """Return the words that replace `{items}`. A cut file comes with --deselect for the parts in other batches."""
    files, elsewhere = separate_parts(items, apart)
    return (*files, *(word for part in elsewhere for word in ("--deselect", part)))


def separate_parts(items: Sequence[str], apart: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the items without parts of files that are among them, and those files' parts that are not among them.

    `apart` has the parts that are items of their own.
    """
    here, parts = set(items), set(apart)
    files = [item for item in items if not (item in parts and item.partition(_PART)[0] in here)]
    return files, [part for part in apart if part not in here and part.partition(_PART)[0] in here]


def fill_template(template: Commands, items: Sequence[str]) -> Commands:
    """Replace `{items}` with the items: with separate arguments, or with quoted words in a shell's line."""
    return Commands(steps=tuple(_fill_step(step, items) for step in template.steps))


def build_tasks(
    stage: PlannedStage, template: Commands, batches: Batches, items: Collection[str], elsewhere: Sequence[str]
) -> tuple[PlannedTask, ...]:
    """Return a task for each batch of the stage's `items`. A batch that is too long for a command line is split.

    `elsewhere`: the parts of these items that other shards run.
    """
    fit = _build_size_check(template, stage.env)
    whole = frozenset(items)
    apart = (*elsewhere, *(item for batch in batches for item in batch if item not in whole))
    pieces = [piece for batch in batches for piece in _split_batch(batch, fit)]
    return tuple(build_task(template, index, piece, apart) for index, piece in enumerate(pieces))


def build_task(template: Commands, index: int, items: Sequence[str], apart: Sequence[str] = ()) -> PlannedTask:
    """Return the task that passes these items to one command. Its name is the first item and the number of others."""
    name = items[0] if len(items) == 1 else f"{items[0]} +{len(items) - 1}"
    work = fill_template(template, build_arguments(items, apart))
    return PlannedTask(index=index, item=name, items=tuple(items), work=work, apart=tuple(apart))


def _cut_unmeasured(items: Sequence[str], workers: int) -> Batches:
    first = len(items)
    if len(items) >= 4 * workers:
        first = round(len(items) * _FIRST_ROUND_SHARE)
    rounds = (items[:first], items[first:])
    return [batch for part in rounds for batch in _pack(part, [1.0] * len(part), min(workers, len(part)))]


def _pack(items: Sequence[str], weights: Sequence[float], count: int) -> Batches:
    """Pack by longest processing time first (Graham, 1969: at most 4/3 of the optimum). The longest batch is first."""
    if count < 1:
        return []
    heap = [(0.0, place) for place in range(count)]
    members: list[list[int]] = [[] for _ in range(count)]
    for index in sorted(range(len(items)), key=lambda index: -weights[index]):
        load, place = heap[0]
        heapq.heapreplace(heap, (load + weights[index], place))
        members[place].append(index)
    loads = {place: load for load, place in heap}
    longest_first = sorted(range(count), key=lambda place: -loads[place])
    return [tuple(items[index] for index in sorted(members[place])) for place in longest_first if members[place]]


class _Candidate(Struct, frozen=True):
    batches: Batches
    cost: float


def _find_best_cut(
    items: Sequence[str], weights: Sequence[float], start_up: float, workers: int, beside: ConcurrentStages
) -> _Candidate:
    """Return the batches with the lowest cost: the lane's duration plus the weighted CPU time of the starts."""

    def cost(count: int) -> float:
        batches = [load + start_up for load in _compute_loads(weights, count)]
        makespan = _compute_makespan([*beside.before, *batches, *beside.after], workers)
        return makespan + _START_UP_WEIGHT * start_up * count

    count = min(_list_batch_counts(min(len(weights), 2 * workers)), key=cost)
    return _Candidate(_pack(items, weights, count), cost(count))


def _sum_seconds(item: str, known: KnownItems, parts: Sequence[str]) -> float | None:
    own = known.seconds.get(item)
    return None if own is None else own + sum(known.seconds[part] for part in parts)


def _expand_parts(
    items: Sequence[str], weights: Sequence[float], known: KnownItems, parts: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[float]]:
    """Return the items, each followed by its parts, with the seconds of each."""
    units: list[tuple[str, float]] = []
    for item, weight in zip(items, weights, strict=True):
        inside = [(part, known.seconds[part]) for part in parts.get(item, ())]
        units += [(item, max(0.0, weight - sum(seconds for _, seconds in inside))), *inside]
    return [unit for unit, _ in units], [seconds for _, seconds in units]


def _list_batch_counts(most: int) -> list[int]:
    return [*range(1, min(most, _MOST_TRIED) + 1), *(1 << power for power in range(5, most.bit_length()))]


def _compute_loads(weights: Sequence[float], count: int) -> list[float]:
    if len(weights) > _EXACT_ITEMS:
        even, longest = sum(weights) / count, max(weights)
        return [max(even, longest), *[even] * (count - 1)]
    loads = [0.0] * count
    for weight in sorted(weights, reverse=True):
        heapq.heapreplace(loads, loads[0] + weight)
    return sorted(loads, reverse=True)


def _compute_makespan(jobs: Sequence[float], workers: int) -> float:
    """Return when the last job ends if free workers take the jobs in order (list scheduling)."""
    ends = [0.0] * workers
    for job in jobs:
        heapq.heapreplace(ends, ends[0] + job)
    return max(ends)


def _fill_step(step: tuple[str, ...], items: Sequence[str]) -> tuple[str, ...]:
    if step[:2] == SHELL:
        return (*SHELL, step[2].replace(ITEMS, shlex.join(items)))
    return tuple(word for part in step for word in (items if part == ITEMS else (part,)))


def _split_batch(batch: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> Batches:
    """Halve a batch until each part fits on a command line. A single item that doesn't fit fails when it starts."""
    if len(batch) == 1 or fits(batch):
        return [tuple(batch)]
    middle = len(batch) // 2
    return [*_split_batch(batch[:middle], fits), *_split_batch(batch[middle:], fits)]


def _build_size_check(template: Commands, env: Mapping[str, str]) -> Callable[[Sequence[str]], bool]:
    most = _compute_argument_limit(env)

    def fits(batch: Sequence[str]) -> bool:
        for step in fill_template(template, batch).steps:
            sizes = [len(os.fsencode(word)) for word in step]
            if max(sizes) > _LONGEST_WORD_BYTES or sum(sizes) + len(sizes) * (_POINTER_BYTES + 1) > most:
                return False
        return True

    return fits


def _compute_argument_limit(env: Mapping[str, str]) -> int:
    """Return the limit on a command's arguments in bytes: a quarter of the stack's limit, less the environment."""
    whole = {**copy_environment(), **env}
    used = sum(len(os.fsencode(key)) + len(os.fsencode(value)) + 2 + _POINTER_BYTES for key, value in whole.items())
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    limit = _MOST_ARGUMENT_BYTES if soft == resource.RLIM_INFINITY else max(soft // 4, _LEAST_ARGUMENT_BYTES)
    return min(limit, _MOST_ARGUMENT_BYTES) - used - _SPARE_BYTES


def _count_concurrent_commands(cores: float, demand: float) -> int:
    """Return how many commands with a demand of `demand` cores each the cores can serve.

    The number is rounded up for demands above one core: threads of some tests raise the demand on a busy machine.
    """
    if demand > 1.0:
        return math.ceil(cores / demand - CORE_SLACK)
    return int((cores + CORE_SLACK) / max(demand, 1e-3))


def _find_concurrent_stages(
    stage: PlannedStage, stages: Sequence[PlannedStage], *, counts_waiting: bool
) -> ConcurrentStages:
    """Return the stages that compete for workers at the same time, which are neither its needs nor its dependents.

    `counts_waiting`: also those that hardly use a core; they compete for slots only.
    """
    needs = {each.name: each.needs for each in stages}
    related = find_reachable([stage.name], lambda name: needs.get(name, ()))
    related |= find_reachable([stage.name], map_dependents(needs).__getitem__)
    before: list[float] = []
    after: list[float] = []
    into = before
    for each in stages:
        if each.name == stage.name:
            into = after
        elif each.name in related or each.skip or each.fault:
            continue
        elif each.expected_seconds and (counts_waiting or not _mostly_waits(each)):
            into.append(each.expected_seconds)
    return ConcurrentStages(before=tuple(before), after=tuple(after))


def _mostly_waits(stage: PlannedStage) -> bool:
    return stage.expected_cpu_demand is not None and stage.expected_cpu_demand < WAITING_DEMAND
