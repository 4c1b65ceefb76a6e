"""Split a lane into shards for machines that work side by side: `--shard 2/5`.

```
items of a stage   one unit each            } the longest unit first, to the shard that ends earliest with it (LPT);
stages with needs  one unit, kept together  } units without a known duration come first, to a shard chosen by a hash
a long test file   its long tests are units of their own; the shard with the rest of the file deselects the others
a stage without items that a split stage needs runs in each shard that has items of the split one
```
Guarantees: each item is in exactly one shard, and so is each stage, except for those that a split stage needs. The
split depends only on the stages, their items, the contents of long test files and the durations, not on the order in
which they come, the machine, the locale or the process: all sums are of whole microseconds, and ties are decided by
names.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.config.needs import find_reachable
from paropt_exporter.errors import UsageError, join_names
from paropt_exporter.events import Scope, Shard
from paropt_exporter.plan import batches
from paropt_exporter.plan.stage_graph import map_dependents
from paropt_exporter.plan.structure import Commands, KnownItems, PlannedStage, PlannedTask, Split, compute_median
from paropt_exporter.terminal import to_unicode

MOST_SHARDS = 1000
_UNKNOWN_SECONDS = 1.0  # of a stage or an item, if no duration of another one is known
_MICROSECONDS = 1_000_000
_CUT_RATIO = 0.25  # of an even share: a longer file is cut into its tests
_LEAST_PART_RATIO = 0.02  # of an even share: a shorter test stays in its file
_PART = "::"  # pytest's separator between a file and a test in it
_LONG_RATIO = 1.1  # of an even share: a longer unit is reported, since it makes the shards uneven
_MOST_NAMED = 5  # stages or items in a note
_DIGEST_CHARACTERS = 8

Pins = Mapping[tuple[str, str], int]  # (stage, item; "" for all of the stage) -> the shard that must have it


def parse_shard(text: str) -> Shard:
    """Read the value of --shard, such as `2/5`; UsageError for anything else."""
    first, slash, last = text.strip().partition("/")
    numbers = [int(part) for part in (first, last) if part.isascii() and part.isdecimal() and len(part) <= 4]
    if not slash or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] <= MOST_SHARDS:
        raise UsageError(
            f"--shard: expected the number of a shard and of all shards, like 2/5 (1/5 to 5/5), at most {MOST_SHARDS} "
            f"shards, found {text!r}"
        )
    return Shard(index=numbers[0], count=numbers[1])


def split_stages(
    stages: Sequence[PlannedStage],
    count: int,
    known: Mapping[str, KnownItems],
    *,
    workers: int = 1,
    pins: Pins = MappingProxyType({}),
) -> Split:
    """Split the stages of a plan, before their items are cut into batches, into `count` shards.

    Durations come from the stages and from `known`. `pins` overrides the choice for some units. `workers` is used only
    to predict the durations of parts of stages. A stage with a fault is in each shard, since its items are unknown.
    """
    graph = _Graph(stages)
    if count > 1 and not pins:  # not with pins: a failed test runs again with its whole file
        stages = _cut_long_files(stages, graph, count, known)
        graph.items.update({stage.name: list_items(stage) for stage in stages})
    costs = _Costs(stages, known)
    shards = _Shards(count, costs)
    pins = _pin_files(pins)
    units = [*_iter_item_units(graph, costs), *_iter_stage_units(graph, costs)]
    units.sort(key=lambda unit: (-unit.size, unit.name))
    pinned = {unit.name: shard for unit in units if (shard := _find_pin(unit, pins, count)) is not None}
    for unit in units:
        if unit.name in pinned:
            shards.place(unit, pinned[unit.name])
    for unit in units:
        if unit.name not in pinned and not unit.known:
            shards.place(unit, _hash_name(unit.name) % count)
    for unit in units:
        if unit.name not in pinned and unit.known:
            shards.place(unit, shards.choose(unit))
    return Split(
        shards=shards.build_stages(stages, graph, costs, workers),
        loads_seconds=tuple(load / _MICROSECONDS for load in shards.loads),
        digest=shards.compute_digest(),
        notes=(*graph.notes, *_iter_long_units(units, shards.loads)),
    )


class _Unit(Struct, frozen=True):
    """A part of the work that stays in one shard. Times are in microseconds.

    `stages`: the stages that its shard must have. `size` orders the units; `own`: its duration without those of its
    stages. `name`: the stage, the item and its number among equal ones.
    """

    name: tuple[str, str, int]
    stages: tuple[str, ...]
    size: int
    own: int
    known: bool


class _Graph:
    """The needs of the stages: which stages are split, and which stages each unit requires in its shard."""

    def __init__(self, stages: Sequence[PlannedStage]) -> None:
        self.stages = {stage.name: stage for stage in sorted(stages, key=lambda stage: (stage.number, stage.name))}
        self.needs = {
            name: tuple(sorted(need for need in stage.needs if need in self.stages))
            for name, stage in self.stages.items()
        }
        self.needed_by = map_dependents(self.needs)
        self.all_needs = {
            name: frozenset(find_reachable(needs, self.needs.__getitem__)) for name, needs in self.needs.items()
        }
        self.items = {name: list_items(stage) for name, stage in self.stages.items()}
        with_items = [name for name, items in self.items.items() if items]
        self.split = frozenset(
            name for name in with_items if not self.needed_by[name] and not self.all_needs[name] & {*with_items}
        )
        self.repeated = frozenset(need for name in self.split for need in self.all_needs[name])
        self.notes = tuple(self._iter_notes(with_items))

    def find_groups(self) -> list[tuple[str, ...]]:
        """Return the groups of whole stages that needs keep together, each with the repeated stages that it needs."""
        found: list[tuple[str, ...]] = []
        open_names = [name for name in self.stages if name not in self.split]
        seen: set[str] = set()
        for name in open_names:
            if name in seen:
                continue
            connected = self._find_connected(name)
            seen |= connected
            placed = connected - self.repeated
            placed |= {need for member in placed for need in self.all_needs[member]}
            if placed:
                found.append(tuple(member for member in self.stages if member in placed))
        return found

    def _find_connected(self, name: str) -> set[str]:
        def list_neighbours(member: str) -> list[str]:
            return [other for other in (*self.needs[member], *self.needed_by[member]) if other not in self.split]

        return find_reachable([name], list_neighbours)

    def _iter_notes(self, with_items: Sequence[str]) -> Iterable[str]:
        for name in with_items:
            if len(self.items[name]) == 1:
                continue
            if self.needed_by[name]:
                user = join_names(self.needed_by[name], _MOST_NAMED)
                yield f"the items of {name} stay in one shard: {user} needs all of them (--skip or --only changes that)"
            elif name not in self.split:
                names = join_names([need for need in with_items if need in self.all_needs[name]], _MOST_NAMED)
                yield f"the items of {name} stay in one shard: it needs all items of {names}"
        for need in sorted(self.repeated):
            names = join_names(sorted(name for name in self.split if need in self.all_needs[name]), _MOST_NAMED)
            yield f"{need} runs in each shard that has items of {names}, which needs it"


class _Costs:
    """The durations of stages and items, in microseconds. Unknown ones count as the mean or median of known ones."""

    def __init__(self, stages: Sequence[PlannedStage], known: Mapping[str, KnownItems]) -> None:
        self._known = known
        self._items = {stage.name: _sum_parts(known.get(stage.name, KnownItems()), stage) for stage in stages}
        durations = [stage.expected_seconds for stage in stages if stage.expected_seconds is not None]
        self._typical = _to_micros(compute_median(durations) if durations else _UNKNOWN_SECONDS)
        self._unknown = {stage.name: self._estimate_unknown(stage) for stage in stages}
        self.once = {stage.name: self._get_once(stage) for stage in stages}

    def get_item(self, stage: str, item: str) -> int | None:
        return self._items[stage].get(to_unicode(item))

    def get_item_or_mean(self, stage: str, item: str) -> int:
        found = self.get_item(stage, item)
        return self._unknown[stage] if found is None else found

    def get_start_up(self, stage: PlannedStage) -> int:
        known = self._known.get(stage.name)
        return 0 if stage.template is None or known is None else _to_micros(known.start_up_seconds or 0.0)

    def get_stage(self, stage: PlannedStage) -> int | None:
        """Return the duration of a whole stage, or None if it is unknown."""
        if stage.skip or stage.fault:
            return 0
        if stage.expected_seconds is not None:
            return _to_micros(stage.expected_seconds)
        items = list_items(stage)
        found = [micros for item in items if (micros := self.get_item(stage.name, item)) is not None]
        if not found:
            return None
        return self.get_start_up(stage) + sum(self.get_item_or_mean(stage.name, item) for item in items)

    def _get_once(self, stage: PlannedStage) -> int:
        """Return the duration of a whole stage, with an estimate if it is unknown."""
        found = self.get_stage(stage)
        return self._typical if found is None else found

    def _estimate_unknown(self, stage: PlannedStage) -> int:
        items = list_items(stage)
        found = [micros for item in items if (micros := self.get_item(stage.name, item)) is not None]
        if found:
            return sum(found) // len(found)
        if stage.template is None and stage.expected_task_seconds is not None:
            return _to_micros(stage.expected_task_seconds)
        if stage.expected_seconds is not None and items:
            return _to_micros(stage.expected_seconds) // len(items)
        return _to_micros(_UNKNOWN_SECONDS)


class _Shards:
    """The shards while they are filled: the load and the stages of each."""

    def __init__(self, count: int, costs: _Costs) -> None:
        self.loads = [0] * count
        self._stages: list[set[str]] = [set() for _ in range(count)]
        self._places: dict[tuple[str, str, int], int] = {}  # of units, by their names
        self._costs = costs
        self._heap = [(0, place) for place in range(count)]

    def choose(self, unit: _Unit) -> int:
        """Return the shard that ends first with the unit, the first one of several."""
        while self._heap[0][0] != self.loads[self._heap[0][1]]:
            heapq.heappop(self._heap)  # its load has changed since
        least = self._heap[0][1]
        if not self._compute_extra(unit, least):
            return least  # the least loaded shard already has all stages of the unit
        return min(
            range(len(self.loads)), key=lambda place: (self.loads[place] + self._compute_extra(unit, place), place)
        )

    def place(self, unit: _Unit, place: int) -> None:
        self.loads[place] += unit.own + self._compute_extra(unit, place)
        self._stages[place].update(unit.stages)
        self._places[unit.name] = place
        heapq.heappush(self._heap, (self.loads[place], place))

    def compute_digest(self) -> str:
        digest = hashlib.sha256(str(len(self.loads)).encode())
        for name, place in sorted(self._places.items()):
            digest.update(repr((place, name)).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()[:_DIGEST_CHARACTERS]

    def build_stages(
        self, stages: Sequence[PlannedStage], graph: _Graph, costs: _Costs, workers: int
    ) -> tuple[tuple[PlannedStage, ...], ...]:
        """Return the stages of each shard, in order, with their items in it."""
        found: list[list[PlannedStage]] = [[] for _ in self.loads]
        for stage in stages:
            items = self._find_items(stage.name, graph.items[stage.name]) if stage.name in graph.split else None
            total = sum(costs.get_item_or_mean(stage.name, item) for item in graph.items[stage.name])
            for place, there in enumerate(self._stages):
                if stage.name in there and items is not None:
                    found[place].append(_keep_items(stage, items[place], total, costs, workers))
                elif stage.name in there or stage.fault:
                    found[place].append(stage)
        return tuple(map(tuple, found))

    def _find_items(self, stage: str, items: Sequence[str]) -> list[list[int]]:
        """Return the positions of a stage's items, for each shard."""
        seen: Counter[str] = Counter()
        found: list[list[int]] = [[] for _ in self.loads]
        for number, item in enumerate(items):
            found[self._places[stage, item, seen[item]]].append(number)
            seen[item] += 1
        return found

    def _compute_extra(self, unit: _Unit, place: int) -> int:
        there = self._stages[place]
        return sum(self._costs.once[stage] for stage in unit.stages if stage not in there)


def _keep_items(stage: PlannedStage, kept: Sequence[int], total: int, costs: _Costs, workers: int) -> PlannedStage:
    """Return the stage with the items at these positions. `total`: the microseconds of all its items."""
    items = list_items(stage)
    tasks: tuple[PlannedTask, ...]
    if stage.template is not None:
        tasks = (_join_parts(stage.template, [items[number] for number in kept], stage.tasks[0].apart),)
    else:
        tasks = tuple(replace(stage.tasks[number], index=index) for index, number in enumerate(kept))
    if len(kept) == len(items):
        return replace(stage, tasks=tasks)
    scope = Scope.ITEMS if stage.scope is Scope.ALL else stage.scope
    parts = [items[number] for number in kept]
    return replace(
        stage,
        tasks=tasks,
        scope=scope,
        is_split=True,
        sla=None,
        expected_seconds=_predict_seconds(stage, parts, total, costs, workers),
        expected_task_seconds=_predict_task_seconds(stage, parts, total, costs, len(tasks)),
    )


def _cut_long_files(
    stages: Sequence[PlannedStage], graph: _Graph, count: int, known: Mapping[str, KnownItems]
) -> list[PlannedStage]:
    """Return the stages. In those that are split, long tests of long files become separate items."""
    costs = _Costs(stages, known)
    own = {
        name: sum(costs.get_item_or_mean(name, item) for item in graph.items[name]) if name in graph.split else once
        for name, once in costs.once.items()
    }
    share = sum(own.values()) / count
    return [
        _cut_stage(stage, costs, share, known[stage.name]) if _may_cut(stage, graph, known) else stage
        for stage in stages
    ]


def _may_cut(stage: PlannedStage, graph: _Graph, known: Mapping[str, KnownItems]) -> bool:
    return stage.name in graph.split and stage.template is not None and stage.junit and stage.name in known


def _cut_stage(stage: PlannedStage, costs: _Costs, share: float, known: KnownItems) -> PlannedStage:
    """Return a pytest stage with long tests of long files as items. `share`: an even part of the lane, in microseconds.

    A file in quarantine stays whole, so that each failure in it is certain to be its own.
    """
    items = list_items(stage)
    long = [
        item
        for item, times in Counter(items).items()
        if times == 1 and item not in stage.quarantine and (costs.get_item(stage.name, item) or 0) > _CUT_RATIO * share
    ]
    if not long or stage.template is None:
        return stage
    from paropt_exporter.plan import pytest_support  # here: for pytest only

    least_seconds = _LEAST_PART_RATIO * share / _MICROSECONDS
    parts = pytest_support.find_defined_parts(stage.cwd, long, known, least_seconds=least_seconds)
    apart = [part for file in sorted(parts) for part in parts[file] if part not in items]
    return replace(stage, tasks=(batches.build_task(stage.template, 0, [*items, *apart], apart),))


def _join_parts(template: Commands, items: Sequence[str], apart: Sequence[str]) -> PlannedTask:
    """Return the task of a shard. Its files include their own parts among `items`, but not those of other shards."""
    return batches.build_task(template, 0, *batches.separate_parts(items, apart))


def _pin_files(pins: Pins) -> Pins:
    """Return the pins with pins for the files of pinned tests, which were separate items only in an earlier run."""
    files: dict[tuple[str, str], int] = {}
    for (stage, item), shard in pins.items():
        key = stage, item.partition(_PART)[0]
        files[key] = min(shard, files.get(key, shard))
    return {**files, **pins}


def list_items(stage: PlannedStage) -> tuple[str, ...]:
    """Return the items of a stage, whether or not they are cut into batches; empty for a stage without items."""
    if stage.template is not None:
        return tuple(item for task in stage.tasks for item in task.items)
    return tuple(task.item for task in stage.tasks if task.item is not None)


def _iter_item_units(graph: _Graph, costs: _Costs) -> Iterable[_Unit]:
    for name in graph.stages:
        if name not in graph.split:
            continue
        stage = graph.stages[name]
        costs.once[name] = costs.get_start_up(stage)
        brought = (name, *sorted(graph.all_needs[name]))
        seen: Counter[str] = Counter()
        alone = len(graph.items[name]) == 1 and stage.expected_seconds is not None
        for item in graph.items[name]:
            micros = costs.get_item_or_mean(name, item)
            known = alone or costs.get_item(name, item) is not None
            yield _Unit(name=(name, item, seen[item]), stages=brought, size=micros, own=micros, known=known)
            seen[item] += 1


def _iter_stage_units(graph: _Graph, costs: _Costs) -> Iterable[_Unit]:
    for group in graph.find_groups():
        known = any(costs.get_stage(graph.stages[name]) is not None for name in group)
        size = sum(costs.once[name] for name in group)
        yield _Unit(name=(min(group), "", 0), stages=group, size=size, own=0, known=known)


def _find_pin(unit: _Unit, pins: Pins, count: int) -> int | None:
    """Return the index of the shard that must have the unit, or None."""
    stage, item, _ = unit.name
    keys = [(stage, item)] if item else [(name, "") for name in unit.stages]
    found = [pins[key] for key in keys if key in pins]
    return min(found) - 1 if found and min(found) <= count else None


def _hash_name(name: tuple[str, str, int]) -> int:
    text = "\0".join(map(str, name)).encode("utf-8", "backslashreplace")
    return int.from_bytes(hashlib.sha256(text).digest()[:8])


def _iter_long_units(units: Iterable[_Unit], loads: Sequence[int]) -> Iterable[str]:
    share = sum(loads) / len(loads)
    long = [unit for unit in units if unit.known and unit.size > _LONG_RATIO * share > 0]
    for unit in long[:_MOST_NAMED] if len(loads) > 1 else ():
        stage, item, _ = unit.name
        subject = f"{item} of {stage}" if item else join_names(unit.stages, _MOST_NAMED)
        verb, it = ("takes", "it") if item or len(unit.stages) == 1 else ("take", "them")
        yield (
            f"{subject} {verb} {unit.size / _MICROSECONDS:.1f} s, longer than an even share of "
            f"{share / _MICROSECONDS:.1f} s: divide {it}, or use fewer shards"
        )


def _predict_seconds(
    stage: PlannedStage, items: Sequence[str], total: int, costs: _Costs, workers: int
) -> float | None:
    """Predict the seconds of a part of a stage, from those of the whole stage or of its items; None if unknown."""
    own = sum(costs.get_item_or_mean(stage.name, item) for item in items)
    known = [micros for item in items if (micros := costs.get_item(stage.name, item)) is not None]
    if stage.expected_seconds is not None:
        seconds = stage.expected_seconds * own / total if total else stage.expected_seconds
        return max(seconds, max(known, default=0) / _MICROSECONDS)
    if not known:
        return None
    return (costs.get_start_up(stage) + own / max(1, min(workers, len(items)))) / _MICROSECONDS


def _predict_task_seconds(
    stage: PlannedStage, items: Sequence[str], total: int, costs: _Costs, tasks: int
) -> float | None:
    """Predict the seconds of the mean of `tasks` tasks with a part of a stage's items; None if unknown.

    The items of a stage with `{items}` are a single task until they are cut into batches, as many as of the whole.
    """
    if stage.expected_task_seconds is None or not (total and tasks):
        return stage.expected_task_seconds
    own = sum(costs.get_item_or_mean(stage.name, item) for item in items)
    return stage.expected_task_seconds * (own / total) * (len(stage.tasks) / tasks)


def _sum_parts(known: KnownItems, stage: PlannedStage) -> Mapping[str, int]:
    """Return the microseconds of each item, including its long tests that are not items of the stage."""
    found = {item: _to_micros(seconds) for item, seconds in known.seconds.items()}
    apart = {to_unicode(part) for task in stage.tasks for part in task.apart}
    for item, seconds in known.seconds.items():
        file, separator, _ = item.partition(_PART)
        if separator and file in found and item not in apart:
            found[file] += _to_micros(seconds)
    return found


def _to_micros(seconds: float) -> int:
    return max(0, round(seconds * _MICROSECONDS))
