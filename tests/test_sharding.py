"""How a lane is split into shards."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from paropt_exporter import plan
from paropt_exporter.errors import UsageError
from paropt_exporter.events import Scope, Shard, SlaLimit
from paropt_exporter.plan import Commands, KnownItems, PlannedStage, PlannedTask, Split, pytest_support
from paropt_exporter.plan.batches import build_task
from paropt_exporter.plan.sharding import list_items, parse_shard, split_stages
from support import configs
from support.processes import run_python

TEMPLATE = Commands(steps=(("x", "{items}"),))


def _stage(
    name: str,
    *items: str,
    needs: tuple[str, ...] = (),
    seconds: float | None = None,
    batched: bool = False,
    number: int = 1,
) -> PlannedStage:
    if not items:
        tasks: tuple[PlannedTask, ...] = (PlannedTask(index=0, item=None, work=TEMPLATE),)
    elif batched:
        tasks = (build_task(TEMPLATE, 0, items),)
    else:
        tasks = tuple(PlannedTask(index=index, item=item, work=TEMPLATE) for index, item in enumerate(items))
    return PlannedStage(
        number=number,
        name=name,
        tasks=tasks,
        needs=needs,
        expected_seconds=seconds,
        template=TEMPLATE if batched and items else None,
        sla=SlaLimit(max_seconds=9.0, warn_seconds=8.0),
    )


def _names(split: Split) -> list[set[str]]:
    return [{stage.name for stage in stages} for stages in split.shards]


def _items(split: Split, name: str) -> list[list[str]]:
    return [[item for stage in stages if stage.name == name for item in list_items(stage)] for stages in split.shards]


@st.composite
def _lanes(draw: st.DrawFn) -> tuple[list[PlannedStage], dict[str, KnownItems]]:
    """Stages with and without items, durations and needs."""
    stages: list[PlannedStage] = []
    known: dict[str, KnownItems] = {}
    for number in range(draw(st.integers(1, 6))):
        name = f"s{number}"
        items = draw(st.lists(st.sampled_from([f"i{n}" for n in range(30)]), max_size=20))
        needs = draw(st.sets(st.sampled_from([stage.name for stage in stages]), max_size=2)) if stages else set()
        seconds = draw(st.none() | st.floats(0.0, 100.0))
        stages.append(
            _stage(name, *items, needs=tuple(needs), seconds=seconds, batched=draw(st.booleans()), number=number)
        )
        measured = draw(st.dictionaries(st.sampled_from(items), st.floats(0.0, 50.0))) if items else {}
        known[name] = KnownItems(seconds=measured, start_up_seconds=draw(st.none() | st.floats(0.0, 2.0)))
    return stages, known


@settings(max_examples=60, deadline=None)
@given(lane=_lanes(), count=st.integers(1, 9))
def test_each_item_is_in_one_shard_and_each_stage_beside_its_needs(
    lane: tuple[list[PlannedStage], dict[str, KnownItems]], count: int
) -> None:
    stages, known = lane
    split = split_stages(stages, count, known)
    for stage in stages:
        placed = Counter(itertools.chain(*_items(split, stage.name)))
        if list_items(stage):
            assert placed == Counter(list_items(stage)), stage.name
        assert any(stage.name in names for names in _names(split))
    for part, names in zip(split.shards, _names(split), strict=True):
        assert all(need in names for stage in part for need in stage.needs)
    # A stage is in several shards only if a split stage needs it.
    for stage in stages:
        shards = [place for place, names in enumerate(_names(split)) if stage.name in names]
        if len(shards) > 1 and not list_items(stage):
            assert any(stage.name in _find_needs(other, stages) for other in stages if list_items(other))


def _find_needs(stage: PlannedStage, stages: list[PlannedStage]) -> set[str]:
    direct = [other for other in stages if other.name in stage.needs]
    return {other.name for other in direct}.union(*(_find_needs(other, stages) for other in direct))


@settings(max_examples=60, deadline=None)
@given(lane=_lanes(), count=st.integers(1, 9), seed=st.integers())
def test_the_split_does_not_depend_on_order(
    lane: tuple[list[PlannedStage], dict[str, KnownItems]], count: int, seed: int
) -> None:
    stages, known = lane
    order = random.Random(seed)
    shuffled = order.sample(stages, len(stages))
    shuffled = [replace(stage, needs=tuple(reversed(stage.needs))) for stage in shuffled]
    backwards = {
        name: replace(known[name], seconds=dict(reversed([*known[name].seconds.items()])))
        for name in reversed([*known])
    }
    first, second = split_stages(stages, count, known), split_stages(shuffled, count, backwards)
    assert first.digest == second.digest
    assert _names(first) == _names(second)
    assert first.loads_seconds == second.loads_seconds


@given(durations=st.lists(st.floats(0.001, 100.0), min_size=2, max_size=200), count=st.integers(1, 12))
def test_loads_are_within_the_bound_of_list_scheduling(durations: list[float], count: int) -> None:
    """Graham, 1966: the longest shard takes at most the even share plus (1 - 1/m) times the longest item."""
    items = [f"i{number}" for number in range(len(durations))]
    known = {"one": KnownItems(seconds=dict(zip(items, durations, strict=True)))}
    loads = split_stages([_stage("one", *items)], count, known).loads_seconds
    assert max(loads) <= sum(durations) / count + (1 - 1 / count) * max(durations) + 1e-3
    assert sum(loads) == pytest.approx(sum(durations), abs=1e-3)


@settings(max_examples=50)
@given(durations=st.lists(st.integers(1, 50), min_size=2, max_size=7), count=st.integers(2, 3))
def test_loads_are_within_the_bound_of_longest_first(durations: list[int], count: int) -> None:
    """Graham, 1969: at most 4/3 - 1/(3m) of the best possible."""
    items = [f"i{number}" for number in range(len(durations))]
    known = {"one": KnownItems(seconds=dict(zip(items, map(float, durations), strict=True)))}
    loads = split_stages([_stage("one", *items)], count, known).loads_seconds
    best = min(
        max(sum(took for took, at in zip(durations, places, strict=True) if at == shard) for shard in range(count))
        for places in itertools.product(range(count), repeat=len(durations))
    )
    assert max(loads) <= (4 / 3 - 1 / (3 * count)) * best + 1e-6


def test_the_split_is_the_same_in_another_process_with_another_hash_seed_and_locale() -> None:
    script = (
        "from paropt_exporter.plan import Commands, KnownItems, PlannedStage, PlannedTask\n"
        "from paropt_exporter.plan.sharding import split_stages\n"
        "work = Commands(steps=(('x', '{items}'),))\n"
        "def stage(name, *items):\n"
        "    tasks = [PlannedTask(index=n, item=item, work=work) for n, item in enumerate(items)]\n"
        "    return PlannedStage(number=1, name=name, tasks=tuple(tasks))\n"
        "items = [f'tést {n}' for n in range(50)]\n"
        "known = {'one': KnownItems(seconds={item: n % 7 / 3 for n, item in enumerate(items[:40])})}\n"
        "print(split_stages([stage('one', *items), stage('two', None), stage('three', None)], 5, known).digest)\n"
    )
    found = set()
    for seed, locale in (("0", "C"), ("1", "C.UTF-8"), ("2", "POSIX")):
        ended = run_python(
            script,
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale},
            cwd=Path(__file__).parents[1],
            check=True,
        )
        found.add(ended.stdout)
    assert len(found) == 1


def test_a_new_item_stays_in_its_shard_whatever_else_changes() -> None:
    def find_shard(known: dict[str, float], *others: str) -> int:
        split = split_stages([_stage("one", "new", *others)], 5, {"one": KnownItems(seconds=known)})
        return next(place for place, items in enumerate(_items(split, "one")) if "new" in items)

    assert len({find_shard({}, "a"), find_shard({"a": 9.0}, "a"), find_shard({"b": 1.0, "c": 2.0}, "a", "b", "c")}) == 1


def test_stages_with_items_in_several_shards_are_marked() -> None:
    """A shard failed if it had none of the tests of `-- -k login`: their scope is that of the whole selection."""
    stage = replace(_stage("tests", *"abcdefghijkl"), scope=Scope.ARGUMENTS)
    split = split_stages([stage, _stage("alone", "a", number=2)], 2, {})
    marked = {(each.name, each.scope, each.is_split) for shard in split.shards for each in shard}
    assert marked == {("tests", Scope.ARGUMENTS, True), ("alone", Scope.ALL, False)}


def test_a_file_counts_with_its_long_tests() -> None:
    known = KnownItems(seconds={"a": 1.0, "a::long": 9.0, "b": 5.0, "c": 5.0})
    split = split_stages([_stage("one", "a", "b", "c", batched=True)], 2, {"one": known})
    assert sorted(map(sorted, _items(split, "one"))) == [["a"], ["b", "c"]]


_TESTS = ("x", "y", "z", "brief")
_SECONDS = {
    "test_a.py": 1.0,
    "test_a.py::test_x": 6.0,
    "test_a.py::test_y": 5.0,
    "test_a.py::TestZ::test_z": 4.0,
    "test_b.py": 2.0,
}
_COMMAND = f"'{sys.executable} -m pytest -q -p no:cacheprovider {{items}}'"


def _write_suite(folder: Path, *, before: str = "") -> None:
    """A file with three long tests and a brief one, each of which appends its name to a file, and a brief file."""
    bodies = {name: f"open('ran', 'a').write('{name}\\n')" for name in (*_TESTS, "b")}
    functions = "".join(f"def test_{name}():\n    {bodies[name]}\n" for name in ("x", "y", "brief"))
    method = f"class TestZ:\n    def test_z(self):\n        {bodies['z']}\n"
    (folder / "test_a.py").write_text(before + functions + method)
    (folder / "test_b.py").write_text(f"def test_b():\n    {bodies['b']}\n")


def _build_shards(
    folder: Path,
    known: dict[str, float],
    *,
    count: int = 4,
    workers: int = 1,
    pins: Mapping[tuple[str, str], int] = MappingProxyType({}),
    quarantine: str = "",
) -> list[PlannedStage]:
    """Return the stage of each shard."""
    read = configs.read(folder, configs.stage(run=_COMMAND, items="{glob: test_*.py}", quarantine=quarantine))
    plans = [
        plan.build_plan(
            read,
            "standard",
            plan.PlanOptions(
                shard=Shard(index=index, count=count),
                workers=plan.Bounds(minimum=workers, maximum=workers, start=workers),
                retry=plan.Retry(stages=["one"], pins=pins) if pins else None,
            ),
            earlier=plan.EarlierRuns(
                items={"one": KnownItems(seconds=known, start_up_seconds=0.1)},
                cpu_demands={"one": 1e-3},  # it waits, so that this machine's cores are no bound
            ),
        )
        for index in range(1, count + 1)
    ]
    assert len({each.shard.split for each in plans if each.shard}) == 1
    return [stage for each in plans for stage in each.stages]


def _run(folder: Path, stages: list[PlannedStage]) -> list[str]:
    """Run the commands of these stages, and return which tests ran."""
    for task in (task for stage in stages for task in stage.tasks):
        assert isinstance(task.work, Commands)
        subprocess.run(task.work.steps[0], cwd=folder, timeout=60, check=True, stdout=subprocess.DEVNULL)
    return sorted((folder / "ran").read_text().split())


@pytest.mark.parametrize(("count", "workers"), [(4, 1), (2, 1), (2, 2)])
def test_each_test_of_a_file_that_is_cut_runs_in_one_shard(tmp_path: Path, count: int, workers: int) -> None:
    """Though the file is newer than its measurement, as in a fresh checkout."""
    _write_suite(tmp_path)
    stages = _build_shards(tmp_path, _SECONDS, count=count, workers=workers)
    with_parts = [
        number for number, stage in enumerate(stages) if any("test_a.py" in item for item in list_items(stage))
    ]
    assert len(with_parts) == count
    assert _run(tmp_path, stages) == sorted([*_TESTS, "b"])


def test_a_file_that_is_cut_is_spread_evenly(tmp_path: Path) -> None:
    known = {"test_a.py": 1.0, "test_b.py": 2.0} | {f"test_a.py::test_{name}": 3.0 for name in "uvwxyz"}
    (tmp_path / "test_a.py").write_text("".join(f"def test_{name}(): pass\n" for name in "uvwxyz"))
    stage = replace(_stage("one", "test_a.py", "test_b.py", batched=True), cwd=tmp_path, junit=True)
    split = split_stages([stage], 3, {"one": KnownItems(seconds=known)})
    assert split.loads_seconds == (8.0, 7.0, 6.0)
    assert [note for note in split.notes if "longer than an even share" in note] == []


def test_tests_of_a_shard_that_has_the_rest_of_their_file_stay_in_it(tmp_path: Path) -> None:
    _write_suite(tmp_path)
    (first, second) = _build_shards(tmp_path, _SECONDS, count=2)
    (task,) = first.tasks
    assert (task.items, task.apart) == (("test_a.py", "test_b.py"), ("test_a.py::TestZ::test_z", "test_a.py::test_y"))
    assert isinstance(task.work, Commands)
    deselected = [word for part in task.apart for word in ("--deselect", part)]
    assert [*task.work.steps[0][-6:]] == ["test_a.py", "test_b.py", *deselected]
    (task,) = second.tasks
    assert (task.items, task.apart) == (("test_a.py::TestZ::test_z", "test_a.py::test_y"), ())


@pytest.mark.parametrize(
    "before",
    [
        "__test__ = False\n",
        "import pytest\npytest.importorskip('nothing')\n",
        "def test_x_too(): pass\n",
        "from test_b import test_b as test_y\n",
    ],
    ids=["not collected", "skipped", "same beginning", "imported"],
)
def test_a_test_that_its_file_may_not_have_stays_in_it(tmp_path: Path, before: str) -> None:
    """pytest runs nothing at all if one of the named tests is missing."""
    _write_suite(tmp_path, before=before)
    parts = {part for stage in _build_shards(tmp_path, _SECONDS) for part in list_items(stage) if "::" in part}
    gone = {"test_a.py::test_x"} if "too" in before else {"test_a.py::test_y"} if "test_y" in before else {*_SECONDS}
    assert not parts & gone


@pytest.mark.parametrize(
    "source",
    [
        "import pytest\n@pytest.fixture\ndef test_x(): pass\n",
        "def test_x(): pass\ntest_x = None\n",
        "class T:\n    def __init__(self, a=1): pass\n    def test_x(self): pass\n",
        "class T:\n    def test_x(self): pass\nT = None\n",
    ],
    ids=["fixture", "rebound", "class with arguments", "rebound class"],
)
def test_a_function_that_pytest_does_not_collect_is_no_part(tmp_path: Path, source: str) -> None:
    (tmp_path / "test_a.py").write_text(source)
    part = "test_a.py::T::test_x" if "class" in source else "test_a.py::test_x"
    known = KnownItems(seconds={"test_a.py": 1.0, part: 6.0})
    assert pytest_support.find_defined_parts(tmp_path, ["test_a.py"], known, least_seconds=0.0) == {}


def test_a_failed_test_is_repeated_in_its_shard_with_its_whole_file(tmp_path: Path) -> None:
    _write_suite(tmp_path)
    stages = _build_shards(tmp_path, _SECONDS, count=2, pins={("one", "test_a.py::test_x"): 2})
    assert [list_items(stage) for stage in stages] == [("test_b.py",), ("test_a.py",)]


def test_a_file_in_quarantine_is_not_cut(tmp_path: Path) -> None:
    _write_suite(tmp_path)
    stages = _build_shards(tmp_path, _SECONDS, count=2, quarantine="[{item: test_a.py, owner: me, until: 2099-01-01}]")
    assert sorted(map(list_items, stages)) == [("test_a.py",), ("test_b.py",)]


def test_a_part_of_a_stage_has_no_limit_and_a_part_of_its_duration() -> None:
    known = {"one": KnownItems(seconds={"a": 1.0, "b": 3.0})}
    split = split_stages([_stage("one", "a", "b", seconds=8.0)], 2, known)
    parts = [stages[0] for stages in split.shards]
    assert [(part.scope, part.sla, part.expected_seconds) for part in parts] == [
        (Scope.ITEMS, None, 6.0),
        (Scope.ITEMS, None, 2.0),
    ]


def test_a_part_takes_at_least_as_long_as_its_longest_item() -> None:
    """Eight items that wait ran at once: two of them take as long."""
    known = {"one": KnownItems(seconds=dict.fromkeys("abcdefgh", 1.0))}
    split = split_stages([_stage("one", *"abcdefgh", seconds=1.0)], 4, known)
    assert [stages[0].expected_seconds for stages in split.shards] == [1.0] * 4


@pytest.mark.parametrize("has_batches", [False, True])
def test_the_tasks_of_the_parts_take_as_long_together_as_those_of_the_whole(has_batches: bool) -> None:
    """By the mean task of the whole stage, `plan --shard` promised 24 s one after another for a work of 18 s."""
    known = {"one": KnownItems(seconds={"a": 9.0} | dict.fromkeys("bcdefghij", 1.0))}
    whole = _stage("one", *"abcdefghij", seconds=9.0, batched=has_batches)
    mean = 9.0 if has_batches else 1.8
    split = split_stages([replace(whole, expected_task_seconds=mean)], 2, known)
    of_parts = [stages[0].expected_task_seconds for stages in split.shards]
    assert of_parts == pytest.approx([4.5, 4.5] if has_batches else [9.0, 1.0])


def test_one_shard_is_the_whole_lane() -> None:
    stages = [_stage("one", "a", "b"), _stage("two")]
    assert split_stages(stages, 1, {}).shards == (tuple(stages),)


def test_stages_with_needs_stay_together() -> None:
    stages = [_stage("a", seconds=5.0), _stage("b", needs=("a",), seconds=5.0), _stage("c", seconds=9.0)]
    assert _names(split_stages(stages, 2, {})) == [{"a", "b"}, {"c"}]


def test_a_stage_that_a_split_one_needs_runs_in_each_of_its_shards() -> None:
    stages = [_stage("build", seconds=1.0), _stage("unit", *"abcdef", needs=("build",)), _stage("docs", seconds=9.0)]
    known = {"unit": KnownItems(seconds=dict.fromkeys("abcdef", 2.0))}
    split = split_stages(stages, 3, known)
    assert _names(split) == [{"docs"}, {"build", "unit"}, {"build", "unit"}]
    assert split.loads_seconds == (9.0, 7.0, 7.0)
    assert split.notes[0] == "build runs in each shard that has items of unit, which needs it"


def test_items_that_another_stage_needs_stay_in_one_shard_with_a_note() -> None:
    stages = [_stage("unit", "a", "b"), _stage("coverage", needs=("unit",))]
    split = split_stages(stages, 2, {})
    assert sorted(map(len, split.shards)) == [0, 2]
    assert split.notes == (
        "the items of unit stay in one shard: coverage needs all of them (--skip or --only changes that)",
    )


def test_stages_that_stay_together_take_longer_than_an_even_share() -> None:
    stages = [_stage("one", seconds=8.0), _stage("two", needs=("one",), seconds=1.0), _stage("three", seconds=1.0)]
    (note,) = [note for note in split_stages(stages, 2, {}).notes if "even share" in note]
    assert note == "one, two take 9.0 s, longer than an even share of 5.0 s: divide them, or use fewer shards"


def test_an_item_longer_than_an_even_share_is_reported() -> None:
    split = split_stages([_stage("one", "a", "b", "c")], 3, {"one": KnownItems(seconds={"a": 9.0, "b": 1.0, "c": 2.0})})
    assert split.notes == ("a of one takes 9.0 s, longer than an even share of 4.0 s: divide it, or use fewer shards",)


def test_a_stage_with_a_fault_is_in_each_shard() -> None:
    faulty = replace(_stage("bad"), tasks=(), fault="its command failed")
    assert all("bad" in names for names in _names(split_stages([faulty, _stage("good", "a", "b")], 3, {})))


def test_pinned_items_are_in_their_shards() -> None:
    known = {"one": KnownItems(seconds={"a": 9.0, "b": 1.0, "c": 1.0})}
    split = split_stages([_stage("one", "a", "b", "c")], 2, known, pins={("one", "a"): 2, ("one", "b"): 2})
    assert _items(split, "one") == [["c"], ["a", "b"]]


def test_many_items_are_split_evenly() -> None:
    items = [f"i{number}" for number in range(20_000)]
    known = KnownItems(seconds={item: number % 97 / 10 for number, item in enumerate(items)})
    split = split_stages([_stage("one", *items, batched=True)], 20, {"one": known})
    assert max(split.loads_seconds) - min(split.loads_seconds) < 0.2  # two of the shortest items


@pytest.mark.parametrize("count", [2, 3, 5, 8, 13])
def test_recorded_suite_is_split_to_within_a_percent_of_the_lower_bound(count: int) -> None:
    """The durations are those of the 265 test files of networkx in one run: no packing ends before the bound."""
    recorded = json.loads(Path(__file__).with_name("recorded_durations.json").read_text())
    known = KnownItems(seconds=recorded, start_up_seconds=0.8)
    loads = split_stages([_stage("one", *recorded, batched=True)], count, {"one": known}).loads_seconds
    even, longest = sum(recorded.values()) / count, max(recorded.values())
    assert max(loads) <= 1.01 * (0.8 + max(even, longest))
    assert longest > even or max(loads) - min(loads) <= 0.01 * max(loads)


@pytest.mark.parametrize("text", ["2/5", " 2/5 ", "1/1", "1000/1000"])
def test_a_shard_is_read(text: str) -> None:
    index, count = text.strip().split("/")
    assert parse_shard(text) == Shard(index=int(index), count=int(count))


@pytest.mark.parametrize(
    "text", ["", "2", "0/5", "6/5", "2/0", "-1/5", "a/b", "2/5/7", "1.5/5", "2/", "/5", "1/1001", "²/5"]
)
def test_a_bad_shard_is_one_clear_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shard(text)
    assert f"found {text!r}" in str(caught.value)
    assert "like 2/5" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_has_one_shard_and_the_whole_split(tmp_path: Path) -> None:
    read = configs.read(
        tmp_path,
        "lanes: {standard: {total: 1m}}\n"
        "stages:\n- {number: 1, name: one, run: 'x {items}', items: {list: [a, b, c, d]}}\n",
    )
    known = {"one": KnownItems(seconds=dict.fromkeys("abcd", 1.0))}
    plans = [
        plan.build_plan(
            read, "standard", plan.PlanOptions(shard=Shard(index=index, count=2)), earlier=plan.EarlierRuns(items=known)
        )
        for index in (1, 2)
    ]
    items = [[item for task in each.stages[0].tasks for item in task.items] for each in plans]
    assert sorted(itertools.chain(*items)) == [*"abcd"]
    assert [len(each) for each in items] == [2, 2]
    assert all(each.partial and each.total is None for each in plans)
    assert len({each.shard.split for each in plans if each.shard}) == 1
