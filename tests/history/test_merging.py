"""Histories and reports of shards are merged into one history."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter import families
from paropt_exporter.errors import HistoryError
from paropt_exporter.events import Decision, Event, ItemRecord, Result, Scope, Shard
from paropt_exporter.history import History, merging, retention
from paropt_exporter.history.merging import Merged, ShardRun, Source, read_source
from support.event_samples import START, StillClock, run_ended, run_started, stage_ended, stage_started, task


def _open(path: Path, *, at: float = 0.0, instance: str = "") -> History:
    clock = StillClock()
    clock.advance(at)
    return History(path, project="shop", clock=clock, instance=instance)


def _keep(path: Path, *events: Event, at: float = 0.0, instance: str = "") -> Path:
    with closing(_open(path, at=at, instance=instance)) as history:
        for event in events:
            history.observe(event)
        assert history.broken is None
    return path


def _build_run(
    run_id: str, items: dict[str, float], *, shard: Shard | None = None, at: float = START, bad: Sequence[str] = ()
) -> tuple[Event, ...]:
    """A run of the stage `unit` with a task for each item, and of the whole stage `lint`."""
    tasks = [
        replace(
            task("unit", run_id, number=number, seconds=seconds),
            item=item,
            result=Result.FAILURE if item in bad else Result.SUCCESS,
        )
        for number, (item, seconds) in enumerate(items.items())
    ]
    scope = Scope.ALL if shard is None else Scope.ITEMS
    unit = replace(
        stage_ended("unit", run_id, at=at, result=Result.FAILURE if bad else Result.SUCCESS),
        scope=scope, tasks=len(tasks), tasks_failed=len(bad),
    )  # fmt: skip
    return (
        replace(run_started(run_id, stages=("unit",), at=at), shard=shard),
        replace(stage_started("unit", run_id, at=at, tasks=len(tasks)), scope=scope),
        *tasks,
        unit,
        replace(run_ended(run_id, at=at, stages=(unit,), result=unit.result), shard=shard),
    )


def _decide(run_id: str, *, at: float) -> Decision:
    return Decision(
        pool="commands", action="up", reason="demand", old_size=1, new_size=2, at_timestamp_seconds=START + at,
        run_id=run_id,
    )  # fmt: skip


def _merge(target: Path, *paths: Path) -> Merged:
    with closing(_open(target, at=1000.0)) as history:
        return history.merge([read_source(path, "shop") for path in paths])


def _load_items(path: Path) -> dict[str, float]:
    with closing(_open(path)) as history:
        return dict(history.load_earlier_runs("standard").items["unit"].seconds)


def _dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def _shards(tmp_path: Path) -> list[Path]:
    base = {"a": 4.0, "b": 4.0, "c": 4.0}
    paths = []
    for index, (item, seconds) in enumerate({"a": 2.0, "b": 6.0, "c": 8.0}.items(), 1):
        path = _keep(tmp_path / f"{index}.db", *_build_run("base", base))
        shard = Shard(index=index, count=3, split="abc")
        paths.append(_keep(path, *_build_run(f"r{index}", {item: seconds}, shard=shard, at=START + index), at=index))
    return paths


def test_measurements_of_shards_count_from_a_merge_on(tmp_path: Path) -> None:
    paths = _shards(tmp_path)
    assert _load_items(paths[0]) == {"a": 4.0, "b": 4.0, "c": 4.0}
    merged = _merge(tmp_path / "all.db", *paths)
    assert merged == Merged(runs=4, items=3)
    assert _load_items(tmp_path / "all.db") == {"a": 3.0, "b": 5.0, "c": 6.0}


def test_tests_of_one_file_are_merged_from_all_shards(tmp_path: Path) -> None:
    base = {"f::a": 4.0, "f::b": 4.0, "f::c": 4.0}
    paths = []
    for index, item in enumerate(base, 1):
        path = _keep(tmp_path / f"{index}.db", *_build_run("base", base))
        shard = Shard(index=index, count=3, split="abc")
        paths.append(_keep(path, *_build_run(f"r{index}", {item: 2.0 * index}, shard=shard), at=index))
    _merge(tmp_path / "all.db", *paths)
    assert _load_items(tmp_path / "all.db") == {"f::a": 3.0, "f::b": 4.0, "f::c": 5.0}


def test_a_merge_without_files_counts_what_shards_measured_here(tmp_path: Path) -> None:
    path = _shards(tmp_path)[0]
    _merge(path)
    assert _load_items(path) == {"a": 3.0, "b": 4.0, "c": 4.0}


def test_merging_again_changes_nothing(tmp_path: Path) -> None:
    paths, target = _shards(tmp_path), tmp_path / "all.db"
    _merge(target, *paths)
    before = _dump(target)
    assert _merge(target, *paths, paths[0]) == Merged(runs=0, items=3)
    assert _dump(target) == before


def test_the_order_of_the_files_does_not_matter(tmp_path: Path) -> None:
    paths = _shards(tmp_path)
    dumps = set()
    for number, order in enumerate(itertools.permutations(paths)):
        _merge(tmp_path / f"all{number}.db", *order)
        dumps.add("\n".join(_dump(tmp_path / f"all{number}.db")))
    assert len(dumps) == 1


def test_runs_are_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    """A younger run of the folder stays its last one: `--failed` repeats what failed in that."""
    paths, target = _shards(tmp_path), tmp_path / "all.db"
    for number, at in enumerate((-9, 99), 1):
        _keep(target, *_build_run(f"own-{number}", {"a": 1.0}, at=START + at))
    _merge(target, *reversed(paths))
    merged = _dump(target)
    with closing(_open(target)) as history:
        assert [run.run_id for run in history.load_runs()] == ["own-1", "base", "r1", "r2", "r3", "own-2"]
    _merge(target, *paths)
    assert _dump(target) == merged


def test_runs_come_after_own_ones_that_began_while_the_clock_was_ahead(tmp_path: Path) -> None:
    target = tmp_path / "all.db"
    for run_id, at in (("ahead", 9_999), ("set", -1)):
        _keep(target, *_build_run(run_id, {"a": 1.0}, at=START + at))
    _merge(target, *_shards(tmp_path))
    with closing(_open(target)) as history:
        assert [run.run_id for run in history.load_runs()] == ["ahead", "set", "base", "r1", "r2", "r3"]


def test_decisions_are_in_the_order_of_their_runs(tmp_path: Path) -> None:
    """Those of a run are not mixed with those of another shard, and `explain` shows a younger own one."""
    paths = []
    for index, ats in ((1, (1, 3)), (2, (2, 4))):
        decisions = [_decide(f"r{index}", at=at) for at in ats]
        paths.append(_keep(tmp_path / f"{index}.db", *_build_run(f"r{index}", {}, at=START + index), *decisions))
    target = _keep(tmp_path / "all.db", _decide("own-1", at=0), _decide("own-2", at=9))
    _merge(target, *reversed(paths))
    with closing(_open(target)) as history:
        found = [(each.run_id, each.at_timestamp_seconds - START) for each in history.load_decisions()]
    assert found == [("own-1", 0), ("r1", 1), ("r1", 3), ("r2", 2), ("r2", 4), ("own-2", 9)]


def test_no_total_falls_below_one_of_a_shard(tmp_path: Path) -> None:
    paths, target = _shards(tmp_path), tmp_path / "all.db"
    _keep(paths[1], *_build_run("again", {"b": 6.0}, at=START + 50), at=50)
    _merge(target, *paths)
    with closing(_open(target)) as history:
        assert history.load_totals().counters[families.RUNS.name, ("standard", "success")] == 3


def test_instances_of_shards_add_up_to_what_ran(tmp_path: Path) -> None:
    """Each shard of a pipeline continues from the merged history of the one before."""
    merged = _keep(tmp_path / "merged.db", *_build_run("base", {"a": 1.0}))
    for pipeline in range(3):
        paths = []
        for index in (1, 2):
            path = tmp_path / f"{pipeline}-{index}.db"
            shutil.copy(merged, path)
            shard = Shard(index=index, count=2, split="abc")
            run = _build_run(f"r{pipeline}-{index}", {"b": 2.0}, shard=shard, at=START + 10 * pipeline + index)
            paths.append(_keep(path, *run, instance=f"ci-{index}"))
        _merge(merged, *paths)
    counts = [_count_runs(_open(merged, instance=instance)) for instance in ("", "ci-1", "ci-2", "other")]
    assert counts == [1, 3, 3, 0]
    assert _count_runs(History(merged, project="shop", clock=StillClock(), for_reading=True)) == 7


def test_former_instances_of_shards_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each job had a name of its own: each shard and the merged history join the totals of the oldest names."""
    monkeypatch.setattr(retention, "MOST_INSTANCES", 2)
    base = tmp_path / "base.db"
    for name in "abc":
        _keep(base, *_build_run(name, {"x": 1.0}), instance=name)
    shards = [Path(shutil.copy(base, tmp_path / f"{name}.db")) for name in "de"]
    for name, path in zip("de", shards, strict=True):
        _keep(path, *_build_run(name, {"x": 1.0}), instance=name)
    for target in (base, tmp_path / "new.db"):
        for _ in range(2):
            _merge(target, *shards)
            with closing(History(target, project="shop", clock=StillClock(), for_reading=True)) as history:
                assert _count_runs(history) == 5
    again = Path(shutil.copy(base, tmp_path / "again.db"))
    _merge(base, _keep(again, *_build_run("f", {"x": 1.0}), instance="a"))
    assert _count_runs(_open(base, instance="a")) == 1


def _count_runs(history: History) -> float:
    with closing(history):
        return history.load_totals().counters.get((families.RUNS.name, ("standard", "success")), 0.0)


def test_last_values_are_those_of_the_last_run_of_each_stage(tmp_path: Path) -> None:
    """A shard's history also has the values of stages that other shards run, as its cache had them."""
    base = [*_build_run("base", {"a": 1.0}), *_build_other_stage("base-lint", at=START + 1)]
    shard = Shard(index=1, count=2, split="abc")
    one, other = (_keep(tmp_path / f"{name}.db", *base) for name in ("one", "other"))
    _keep(one, *_build_run("unit", {"a": 1.0}, shard=shard, at=START + 10, bad=["a"]))
    _keep(other, *_build_other_stage("lint", at=START + 20))
    failing = {"unit": 1, "lint": 0}
    for number, order in enumerate(((one, other), (other, one))):
        target = _keep(tmp_path / f"all{number}.db", *base)
        _merge(target, *order)
        assert _load_failing(target) == failing

    younger = _keep(tmp_path / "younger.db", *base, *_build_run("fixed", {"a": 1.0}, at=START + 30))
    before = _load_gauge(younger, families.RUN_LAST_COMPLETION.name, "standard")
    _merge(younger, one, other)
    assert _load_failing(younger) == {"unit": 0, "lint": 0}
    assert _load_gauge(younger, families.RUN_LAST_COMPLETION.name, "standard") == before


def test_run_with_arguments_is_no_last_run_of_its_stage(tmp_path: Path) -> None:
    """It sets no last values, so those of its history are older."""
    failed, again = _build_run("failed", {"a": 1.0}, bad=["a"]), _build_run("again", {"a": 1.0}, at=START + 30)
    narrowed = [replace(each, scope=Scope.ARGUMENTS) if hasattr(each, "scope") else each for each in again]
    one = _keep(tmp_path / "one.db", *failed, *narrowed)
    fixed = _keep(tmp_path / "fixed.db", *_build_run("fixed", {"a": 1.0}, at=START + 20))
    _merge(tmp_path / "all.db", one, fixed)
    _merge(one, fixed)
    for path in (tmp_path / "all.db", one):
        assert _load_gauge(path, families.STAGE_FAILING.name, "standard", "unit") == 0.0


def test_a_stage_fails_if_it_has_failed_in_one_shard_of_the_split(tmp_path: Path) -> None:
    base = _build_run("base", {"a": 1.0, "b": 1.0})

    def run_shard(name: str, index: int, *, at: float, bad: Sequence[str] = ()) -> Path:
        shard = Shard(index=index, count=2, split="abc")
        run = _build_run(name, {"a" if index == 1 else "b": 1.0}, shard=shard, at=START + at, bad=bad)
        return _keep(tmp_path / f"{name}.db", *base, *run)

    def is_failing(path: Path) -> bool:
        return _load_gauge(path, families.STAGE_FAILING.name, "standard", "unit") == 1.0

    failed, later = run_shard("failed", 1, at=10, bad=["a"]), run_shard("later", 2, at=20)
    for number, order in enumerate(((failed, later), (later, failed))):
        target = _keep(tmp_path / f"all{number}.db", *base)
        _merge(target, *order)
        assert is_failing(target)
        _merge(target, *order)
        assert is_failing(target)

    _merge(target, run_shard("next-1", 1, at=30), run_shard("next-2", 2, at=40))  # a split may recur
    assert not is_failing(target)
    _merge(failed, later)  # into the history of a shard
    assert is_failing(failed)


def _build_other_stage(run_id: str, *, at: float) -> tuple[Event, ...]:
    lint = stage_ended("lint", run_id, at=at)
    return (
        run_started(run_id, stages=("lint",), at=at),
        stage_started("lint", run_id, at=at),
        lint,
        run_ended(run_id, at=at, stages=(lint,)),
    )


def _load_gauge(path: Path, name: str, *labels: str) -> float:
    with closing(_open(path)) as history:
        return history.load_last_values().gauges[name, labels]


def _load_failing(path: Path) -> dict[str, float]:
    return {stage: _load_gauge(path, families.STAGE_FAILING.name, "standard", stage) for stage in ("unit", "lint")}


def test_failures_of_all_shards_are_found_with_their_shards(tmp_path: Path) -> None:
    paths = []
    for index, item in enumerate("abc", 1):
        shard = Shard(index=index, count=3, split="abc")
        bad = [item] if item != "b" else []
        events = _build_run(f"r{index}", {item: 1.0}, shard=shard, at=START + index, bad=bad)
        paths.append(_keep(tmp_path / f"{index}.db", *events, at=index))
    _merge(tmp_path / "all.db", *paths)
    with closing(_open(tmp_path / "all.db")) as history:
        found = history.find_failures("standard", ["unit"])
    assert found is not None
    assert found.items == {"unit": frozenset("ac")}
    assert {place: str(shard) for place, shard in found.shards.items()} == {("unit", "a"): "1/3", ("unit", "c"): "3/3"}


def test_a_later_run_of_a_shard_overrides_its_failure(tmp_path: Path) -> None:
    path, shard = tmp_path / "all.db", Shard(index=1, count=2, split="abc")
    _keep(path, *_build_run("r1", {"a": 1.0}, shard=shard, bad=["a"]))
    _keep(path, *_build_run("r2", {"b": 1.0}, shard=replace(shard, index=2), bad=["b"]))
    _keep(path, *_build_run("r3", {"a": 1.0}, shard=shard))
    with closing(_open(path)) as history:
        found = history.find_failures("standard", ["unit"])
    assert found is not None
    assert found.items == {"unit": frozenset("b")}


@pytest.mark.parametrize(
    "earlier",
    [None, Shard(index=2, count=3, split="abc"), Shard(index=2, count=2, split="def")],
    ids=["whole", "other number", "other split"],
)
def test_failure_before_the_last_split_does_not_count(tmp_path: Path, earlier: Shard | None) -> None:
    path, last = tmp_path / "all.db", Shard(index=1, count=2, split="abc")
    _keep(path, *_build_run("r1", {"b": 1.0}, shard=earlier, bad=["b"]))
    _keep(path, *_build_run("r2", {"a": 1.0}, shard=last, bad=["a"]))
    with closing(_open(path)) as history:
        found = history.find_failures("standard", ["unit"])
    assert found is not None
    assert found.items == {"unit": frozenset("a")}


def test_flaky_items_are_merged(tmp_path: Path) -> None:
    flaky = replace(stage_ended("unit", "r1"), first_attempts=2, flaky_attempts=1, flaky_items=("b",))
    shard = _keep(tmp_path / "shard.db", run_started("r1"), flaky, run_ended("r1", stages=(flaky,)))
    _merge(tmp_path / "all.db", shard)
    with closing(_open(tmp_path / "all.db")) as history:
        (found,) = history.load_flakiness().values()
    assert found.items == {"b"}


def test_a_file_is_merged_with_its_long_tests(tmp_path: Path) -> None:
    """A test that is no longer long in the newest measurement of its file is gone."""

    def measure(path: Path, run_id: str, at: float, **long: float) -> Path:
        item = ItemRecord(
            item="f", result=Result.SUCCESS, seconds=1.0, long_tests=tuple((f"f::{k}", v) for k, v in long.items())
        )
        started = replace(run_started(run_id, at=START + at), shard=Shard(index=1, count=2, split="x"))
        batch = replace(task("unit", run_id), item="f", items=(item,), start_up_seconds=0.5)
        return _keep(path, started, batch, replace(run_ended(run_id, at=START + at), shard=started.shard), at=at)

    old = measure(tmp_path / "old.db", "r1", 1.0, slow=9.0)
    new = measure(tmp_path / "new.db", "r2", 2.0)
    _merge(tmp_path / "all.db", new, old)
    assert _load_items(tmp_path / "all.db") == {"f": 1.0}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_file_is_merged_with_the_tests_that_other_shards_ran(tmp_path: Path, order: tuple[int, ...]) -> None:
    def measure(path: Path, index: int, cut: frozenset[str], item: ItemRecord, at: float) -> Path:
        shard = None if index == 0 else Shard(index=index, count=2, split="x")
        run_id = f"r{index}"
        started = replace(run_started(run_id, at=START + at), shard=shard)
        batch = replace(task("unit", run_id), item="f", items=(item,), start_up_seconds=0.5, cut_items=cut)
        return _keep(path, started, batch, replace(run_ended(run_id, at=START + at), shard=shard), at=at)

    whole = ItemRecord(item="f", result=Result.SUCCESS, seconds=1.0, long_tests=(("f::x", 4.0), ("f::y", 8.0)))
    rest = ItemRecord(item="f", result=Result.SUCCESS, seconds=3.0, long_tests=(("f::x", 6.0),))
    part = ItemRecord(item="f::y", result=Result.SUCCESS, seconds=4.0)
    paths = [measure(tmp_path / f"{index}.db", 0, frozenset(), whole, 0.0) for index in (1, 2)]
    measure(paths[0], 1, frozenset({"f"}), rest, 1.0 + order[0])
    measure(paths[1], 2, frozenset(), part, 1.0 + order[1])
    _merge(tmp_path / "all.db", *paths)
    assert _load_items(tmp_path / "all.db") == {"f": 2.0, "f::x": 5.0, "f::y": 6.0}


def test_history_to_which_a_run_adds_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tables were read in two states."""
    path = _keep(tmp_path / "source.db", *_build_run("r1", {"a": 1.0}))
    read_tables = merging._read_tables

    def run_meanwhile(connection: sqlite3.Connection, path: Path, project: str) -> Source:
        monkeypatch.undo()
        _keep(path, *_build_run("r2", {"a": 1.0}))
        return read_tables(connection, path, project)

    monkeypatch.setattr(merging, "_read_tables", run_meanwhile)
    assert {run["run_id"] for run in read_source(path, "shop").runs} == {"r1", "r2"}


def test_runs_without_an_end_are_left_out_and_counted(tmp_path: Path) -> None:
    path = _keep(tmp_path / "1.db", *_build_run("r1", {"a": 1.0}), run_started("open"))
    source = read_source(path, "shop")
    assert ([run["run_id"] for run in source.runs], source.unended) == (["r1"], 1)


def test_the_last_run_of_a_file_tells_its_shard(tmp_path: Path) -> None:
    found = read_source(_shards(tmp_path)[1], "shop").find_shard_runs()
    assert found == (ShardRun(lane="standard", index=2, count=3, split="abc"),)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE runs SET duration = 'long'", "contains values that no exporter wrote"),
        ("UPDATE runs SET shard = '9/2'", "contains values that no exporter wrote"),
        ("UPDATE runs SET reason = CAST(x'ff' AS TEXT)", "contains values that no exporter wrote"),
        ("UPDATE tasks SET result = 'fine'", "contains values that no exporter wrote"),
        ("UPDATE items SET seconds = 9e999", "contains values that no exporter wrote"),
        ("UPDATE runs SET planned = '{}'", "contains values that no exporter wrote"),
        ("UPDATE totals SET labels = 'x'", "contains values that no exporter wrote"),
        ("CREATE VIEW v AS SELECT 1", "has views or triggers"),
        ("PRAGMA user_version = 99", "written by a newer paropt-exporter"),
        ("UPDATE runs SET project = 'other'", "it is of project other, not of shop"),
        ("DROP TABLE items", "its tables are not those of this version"),
        ("ALTER TABLE runs DROP COLUMN bottlenecks", "its tables are not those of this version"),
    ],
)
def test_a_changed_history_is_refused(tmp_path: Path, statement: str, said: str) -> None:
    path = _keep(tmp_path / "1.db", *_build_run("r1", {"a": 1.0}))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statement)
    with pytest.raises(HistoryError, match=said):
        read_source(path, "shop")


def test_names_of_columns_in_a_history_are_not_run_as_sql(tmp_path: Path) -> None:
    """They were part of two statements: one read the file, the other wrote the target."""
    path = _keep(tmp_path / "1.db", *_build_run("r1", {"a": 1.0}))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("""ALTER TABLE runs ADD COLUMN "no_such_function()" TEXT""")
    assert _merge(tmp_path / "all.db", path) == Merged(runs=1, items=1)


def test_a_damaged_history_is_refused(tmp_path: Path) -> None:
    path = _keep(tmp_path / "1.db", *_build_run("r1", {f"i{number}": 1.0 for number in range(500)}))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(HistoryError, match=r"damaged|cannot read it"):
        read_source(path, "shop")


REPORT = """<?xml version='1.0' encoding='utf-8'?>
<testsuites><testsuite name="unit" timestamp="2023-11-14T22:15:00" tests="4" failures="1" errors="0" skipped="0">
  <testcase name="a" classname="unit" time="7.000" />
  <testcase name="bad" classname="unit" time="1.000"><failure type="failure" message="x" /></testcase>
  <testcase name="flaky" classname="unit" time="2.000"><flakyFailure type="x"><stackTrace /></flakyFailure></testcase>
  <testcase name="foreign" classname="tests.test_a" time="1.000" />
</testsuite><testsuite name="lint"><testcase name="lint" classname="lint" time="3.000" /></testsuite></testsuites>
"""


def test_a_report_gives_the_durations_of_items_that_succeeded(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(REPORT)
    _merge(tmp_path / "all.db", tmp_path / "junit.xml")
    assert _load_items(tmp_path / "all.db") == {"a": 7.0, "flaky": 2.0}


def test_case_is_read_once_however_deeply_its_suite_is_nested(tmp_path: Path) -> None:
    """A file of 3 MB with nested suites took a minute: each case was read for all suites around it."""
    suite = '<testsuite name="unit" timestamp="2023-11-14T22:15:00">'
    case = '<testcase name="a" classname="unit" time="7.000" />'
    (tmp_path / "junit.xml").write_text(f"<testsuites>{suite * 50}{case}{'</testsuite>' * 50}</testsuites>")
    assert [row["item"] for row in read_source(tmp_path / "junit.xml", "shop").items] == ["a"]


def test_the_newest_of_report_and_history_wins(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(REPORT)
    target = _keep(tmp_path / "all.db", *_build_run("r1", {"a": 1.0, "b": 1.0}))
    _merge(target, tmp_path / "junit.xml")
    assert _load_items(target) == {"a": 7.0, "b": 1.0, "flaky": 2.0}
    _keep(target, *_build_run("r2", {"a": 1.0}), at=5000)
    _merge(target, tmp_path / "junit.xml")
    assert _load_items(target)["a"] == 4.0


def test_document_type_in_another_encoding_is_refused(tmp_path: Path) -> None:
    entities = '<!DOCTYPE x [<!ENTITY a "item">]>'
    text = REPORT.replace("?>", f"?>{entities}").replace('name="a"', 'name="&a;"')
    (tmp_path / "file").write_bytes(text.replace("utf-8", "utf-16").encode("utf-16-le"))
    with pytest.raises(HistoryError, match="not a JUnit report"):
        read_source(tmp_path / "file", "shop")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "neither a history nor a JUnit report"),
        ("stages: []", "neither a history nor a JUnit report"),
        ("<html></html>", "not a JUnit report: it begins with <html>"),
        ("<testsuites>", "not a JUnit report"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><testsuites>&a;</testsuites>', "has a document type"),
        (REPORT.replace("7.000", "soon"), "not a JUnit report"),
        (REPORT.replace("2023-11-14T22:15:00", "yesterday"), "not a JUnit report"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "file").write_text(content)
    with pytest.raises(HistoryError, match=said):
        read_source(tmp_path / "file", "shop")


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(HistoryError, match="cannot read it"):
        read_source(tmp_path / name, "shop")


def test_a_changed_target_is_refused(tmp_path: Path) -> None:
    """It was an internal error."""
    target = _keep(tmp_path / "all.db", *_build_run("r0", {"a": 1.0}))
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("UPDATE items SET seconds = 'long'")
        connection.commit()
    path = _keep(tmp_path / "1.db", *_build_run("r1", {"a": 1.0}))
    with pytest.raises(HistoryError, match="contains values that no exporter wrote"):
        _merge(target, path)


def test_nothing_is_written_where_the_history_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        closing(History(tmp_path / "file" / "history.db", project="shop", clock=StillClock())) as history,
        pytest.raises(HistoryError),
    ):
        history.merge([Source(path=tmp_path)])
