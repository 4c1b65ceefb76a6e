"""Misses without a reason, which users of turbo have reported: each has one here."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest

from paropt_exporter.cache import misses
from paropt_exporter.cache.keys import parse_listing
from paropt_exporter.cache.misses import Notes
from paropt_exporter.events import CacheReason
from paropt_exporter.plan import PlannedTask
from support.cached_project import CachedProject, Failed, print_sources


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    made = CachedProject(tmp_path / "project", tmp_path / "store", work={"lint": print_sources})
    made.write_file("src/a.py", "one")
    made.write_file("src/b.py", "two")
    return made


def test_turbo_2004_unchanged_stage_stays_a_hit_run_after_run(project: CachedProject) -> None:
    lint = project.build_stage("lint")
    project.run(lint)
    assert all(project.run(lint).is_cached("lint") for _ in range(20))


def test_turbo_2099_order_of_variables_and_files_does_not_count(project: CachedProject, tmp_path: Path) -> None:
    variables = {"A": "1", "B": "2", "LANG": "C"}
    for number, order in enumerate(itertools.permutations(variables)):
        other = CachedProject(
            tmp_path / f"checkout{number}",
            tmp_path / "store",
            work={"lint": print_sources},
            environ={name: variables[name] for name in order},
        )
        for name in ("src/a.py", "src/b.py") if number % 2 else ("src/b.py", "src/a.py"):
            other.write_file(name, "same")
        other.environ["PATH"] = "/bin"
        ran = other.run(other.build_stage("lint", pass_env=("B", "A") if number % 2 else ("A", "B")))
        assert ran.is_cached("lint") is (number > 0)


@pytest.mark.parametrize(
    ("lost", "reason", "note"),
    [
        ("v1/ac", CacheReason.EVICTED, "its result was evicted from the cache"),
        ("v1/cas", CacheReason.EVICTED, "a content of the cache was evicted"),
    ],
)
def test_turbo_3142_miss_under_an_equal_key_names_the_loss(
    project: CachedProject, lost: str, reason: CacheReason, note: str
) -> None:
    lint = project.build_stage("lint")
    project.run(lint)
    shutil.rmtree(project.store.folder / lost)
    again = project.run(lint)
    assert (again.called, again.get_reason("lint"), again.stages["lint"].cache_note) == (["lint"], reason, note)


def test_turbo_3142_failure_under_an_equal_key_says_so(project: CachedProject) -> None:
    def fail(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        raise Failed("no")

    project.work["lint"] = fail
    lint = project.build_stage("lint")
    project.run(lint)
    assert project.run(lint).stages["lint"].cache_note == "it failed in its last run"


def test_turbo_4036_stage_whose_outputs_differ_from_run_to_run_is_named(project: CachedProject) -> None:
    numbers = itertools.count()

    def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "dist").mkdir(exist_ok=True)
        (root / "dist/out").write_text(str(next(numbers)))
        return ""

    project.work["build"] = build
    stage = project.build_stage("build", outputs=("dist",))
    project.run(stage)
    assert project.run(stage, no_cache=True).said == [
        "build: dist/out differs from the kept result, although no known input has changed"
    ]


def test_turbo_4036_stage_that_writes_among_the_sources_is_named_with_the_file(project: CachedProject) -> None:
    def generate(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "src/schema").write_text("generated")
        return ""

    project.work["lint"] = generate
    assert project.run(project.build_stage("lint")).said == ["lint: not cached: src/schema changed during the run"]


def test_turbo_4036_stage_behind_one_that_writes_other_outputs_names_them(project: CachedProject) -> None:
    numbers = itertools.count()

    def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "dist").mkdir(exist_ok=True)
        (root / "dist/out").write_text(str(next(numbers)))
        return ""

    project.work |= {"build": build, "use": lambda root, environ, task: (root / "dist/out").read_text()}
    stages = (
        project.build_stage("build", outputs=("dist",), cached=False),
        project.build_stage("use", inputs=("README",), needs=("build",), needed_outputs=("dist",), number=2),
    )
    project.run(*stages)
    assert project.run(*stages).stages["use"].cache_note == "dist/out changed"


def test_notes_on_an_item_named_reads_and_on_files_read_are_separate(tmp_path: Path) -> None:
    notes = Notes(tmp_path, "demo")
    notes.save_reads("lint", ["a.py"])
    notes.add_key("lint", "reads", "key")
    assert (notes.load("lint", "reads").keys, notes.load_reads("lint")) == (("key",), ("a.py",))


def test_reason_names_the_difference_from_the_nearest_result_not_from_the_last_one(project: CachedProject) -> None:
    """After a return to earlier files, which was a hit, the reason named another file than the edited one."""
    lint = project.build_stage("lint")
    project.run(lint)
    project.write_file("src/a.py", "other")
    project.write_file("src/c.py", "new")
    project.run(lint)
    project.write_file("src/a.py", "one")
    (project.root / "src/c.py").unlink()
    assert project.run(lint).is_cached("lint")
    project.write_file("src/b.py", "edited")
    assert project.run(lint).tasks[0].cache_note == "src/b.py changed"


def test_file_that_became_that_of_one_item_is_unchanged(project: CachedProject) -> None:
    project.run(project.build_stage("lint", inputs=("src/**",), item="src/a.py"))
    project.write_file("src/b.py", "edited")
    ran = project.run(project.build_stage("lint", inputs=("{item}", "src/b.py"), item="src/a.py"))
    assert ran.tasks[0].cache_note == "src/b.py changed"


def test_lists_of_files_that_items_share_are_compared_once(
    project: CachedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For 300 items and 5,000 files, the reasons took 1.5 s of CPU time before the stage started."""
    parse = Mock(wraps=parse_listing)
    monkeypatch.setattr(misses, "parse_listing", parse)
    lint = project.build_stage("lint", items=tuple(f"item{number}" for number in range(20)))
    project.run(lint)
    project.write_file("src/a.py", "edited")
    ran = project.run(lint)
    assert {task.cache_note for task in ran.tasks} == {"src/a.py changed"} and parse.call_count == 2


def test_new_list_of_files_is_parsed_once_for_all_earlier_results(
    project: CachedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    lint = project.build_stage("lint")
    for text in ("one", "two", "three"):
        project.write_file("src/a.py", text)
        project.run(lint)
    parse = Mock(wraps=parse_listing)
    monkeypatch.setattr(misses, "parse_listing", parse)
    project.write_file("src/a.py", "four")
    assert project.run(lint).tasks[0].cache_note == "src/a.py changed" and parse.call_count == 1 + 3
