"""Cached stages of several tasks: each item has its own result, whatever batch it is in."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from paropt_exporter.cache.misses import Miss
from paropt_exporter.cache.open_cache import CacheSetup, open_cache
from paropt_exporter.cache.result_keeper import ResultKeeper
from paropt_exporter.cache.result_loader import ResultLoader, StageResults
from paropt_exporter.cache.stage_keys import KeptTask, StageReader
from paropt_exporter.clock import SystemClock
from paropt_exporter.engine.interfaces import KeptResult
from paropt_exporter.events import CacheReason, Result, Scope, Strategy, TaskRecord
from paropt_exporter.plan import Commands, PlannedStage, PlannedTask
from paropt_exporter.plan.batches import build_task
from support.cached_project import CachedProject, Failed
from support.pool_tasks import eventually
from support.traced_project import wait_for_next_ticks

TEMPLATE = Commands(steps=(("tests", "{items}"),))


def run_items(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    names = task.items or (task.item or "",)
    contents = {name: (root / name).read_text() for name in names}
    if "bad" in contents.values():
        raise Failed("a test failed")
    return "".join(f"{name}={content}\n" for name, content in contents.items())


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    made = CachedProject(tmp_path / "project", tmp_path / "store", work={"tests": run_items})
    made.write_file("src/a.py", "one")
    for name in "abcd":
        made.write_file(f"t/{name}.py", name)
    return made


def build_batches(project: CachedProject, *batches: tuple[str, ...]) -> PlannedStage:
    tasks = tuple(build_task(TEMPLATE, index, batch) for index, batch in enumerate(batches))
    return PlannedStage(
        number=1,
        name="tests",
        tasks=tasks,
        template=TEMPLATE,
        cached=True,
        cwd=project.root,
        inputs=("{item}", "src/**"),
    )


def list_items(ran: list[TaskRecord]) -> list[str | None]:
    return [task.item for task in ran if not task.cached]


def test_task_of_a_changed_item_runs_alone(project: CachedProject) -> None:
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py", "t/c.py"), inputs=("{item}", "src/**"))
    project.run(stage)
    project.write_file("t/b.py", "new")
    ran = project.run(stage)
    assert list_items(ran.tasks) == ["t/b.py"]
    record = ran.stages["tests"]
    assert (record.tasks_cached, record.tasks, record.scope) == (2, 3, Scope.CACHED)
    assert record.cache_note == "2 of 3 items unchanged; t/b.py changed"
    assert ran.get_output("tests") == "t/a.py=a\nt/c.py=c\nt/b.py=new\n"


CHANGES = pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "r").unlink(), "r"),
        (lambda folder: (folder / "r").write_text("wrong"), "r"),
        (lambda folder: (folder / "new").write_text("wrong"), "new"),
    ],
    ids=["removed", "edited", "added"],
)


@CHANGES
def test_output_that_changed_after_the_end_of_its_task_is_not_kept(
    project: CachedProject, change: Callable[[Path], object], named: str
) -> None:
    """Results of items are kept up to ten seconds later: meanwhile a user may clean their folder."""
    items = ("t/a.py", "t/b.py")
    stage = project.build_stage("tests", items=items, inputs=("{item}",), outputs=("out/{item}/**",))
    said, again = keep_changed(project, stage, lambda: change(project.root / "out/t/a.py"))
    line = f"out/t/a.py/{named} changed during the run"
    assert said == [f"tests: not cached: {line}"]
    first, second = again
    assert (first, isinstance(second, KeptTask)) == (Miss(CacheReason.EDITED, line), True)


@CHANGES
def test_output_that_changed_before_the_result_of_the_only_task_was_kept_is_not_kept(
    project: CachedProject, change: Callable[[Path], object], named: str
) -> None:
    """Meanwhile all inputs of the stage are compared."""
    stage = project.build_stage("build", outputs=("out/**",))
    said, again = keep_changed(project, stage, lambda: change(project.root / "out"))
    line = f"out/{named} changed during the run"
    assert (said, again) == ([f"build: not cached: {line}"], [Miss(CacheReason.EDITED, line)])


def keep_changed(
    project: CachedProject, stage: PlannedStage, change: Callable[[], object]
) -> tuple[list[str], list[KeptTask | Miss]]:
    """Make a change between the ends of a stage's tasks and the keeping. Return the lines, and the stage's results."""
    said: list[str] = []
    setup = CacheSetup(
        root=project.root,
        store=project.store,
        project="demo",
        environ=project.environ,
        clock=SystemClock(),
        say=said.append,
    )
    opened = open_cache(setup)
    loader, keeper = ResultLoader(setup, opened, threading.Event()), ResultKeeper(setup, opened)
    results = loader.find(stage)
    assert isinstance(results, StageResults)
    looked_up = keeper.begin_stage(results.reading, results.outputs)
    for task in stage.tasks:
        path = f"out/{task.item}/r" if task.item else "out/r"
        project.write_file(path, "right")
        keeper.add(looked_up, task, KeptResult(succeeded=True, output="", seconds=1.0))
    wait_for_next_ticks(project.root / path)
    change()
    keeper.end_stage(looked_up)
    again = loader.find(stage)
    assert isinstance(again, StageResults)
    return said, [*again.found.values()]


def test_shared_input_concerns_all_items(project: CachedProject) -> None:
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py"), inputs=("{item}", "src/**"))
    project.run(stage)
    project.write_file("src/a.py", "two")
    ran = project.run(stage)
    assert list_items(ran.tasks) == ["t/a.py", "t/b.py"]
    assert ran.stages["tests"].cache_note == "src/a.py changed"


def test_items_that_all_run_for_several_reasons_are_counted(project: CachedProject) -> None:
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py"), inputs=("{item}", "src/**"))
    project.run(stage)
    project.write_file("t/a.py", "new")
    project.write_file("t/b.py", "new")
    assert project.run(stage).stages["tests"].cache_note == "t/a.py changed (and 1 more)"


def test_batch_keeps_a_result_for_each_item_and_other_batches_find_it(project: CachedProject) -> None:
    project.run(build_batches(project, ("t/a.py", "t/b.py"), ("t/c.py", "t/d.py")))
    project.write_file("t/c.py", "new")
    ran = project.run(build_batches(project, ("t/a.py", "t/c.py", "t/d.py"), ("t/b.py",)))
    (task,) = [task for task in ran.tasks if not task.cached]
    assert (task.item, task.output) == ("t/c.py", "t/c.py=new\n")
    assert ran.stages["tests"].cache_note == "3 of 4 items unchanged; t/c.py changed"
    assert ran.stages["tests"].saved_seconds > 0


def test_output_of_a_skipped_batch_is_shown_once(project: CachedProject) -> None:
    stage = build_batches(project, ("t/a.py", "t/b.py"))
    project.run(stage)
    again = project.run(stage)
    assert again.is_cached("tests") and again.get_output("tests") == "t/a.py=a\nt/b.py=b\n"


def test_batch_whose_output_goes_into_a_file_has_one_result(project: CachedProject) -> None:
    """Its items had results of their own: a hit restored the file of an earlier run, with the old line of t/a.py."""

    def run_batch(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        output = run_items(root, environ, task)
        (root / "tests.log").write_text(output)  # as the engine does for `file`
        return output

    project.work["tests"] = run_batch
    stage = replace(build_batches(project, ("t/a.py", "t/b.py")), output_file=project.root / "tests.log")
    project.run(stage)
    project.write_file("t/a.py", "new")
    assert list_items(project.run(stage).tasks) == ["t/a.py +1"]
    (project.root / "tests.log").unlink()
    assert project.run(stage).is_cached("tests")
    assert (project.root / "tests.log").read_text() == "t/a.py=new\nt/b.py=b\n"


def test_items_of_a_failed_batch_run_again(project: CachedProject) -> None:
    project.write_file("t/b.py", "bad")
    stage = build_batches(project, ("t/a.py", "t/b.py"), ("t/c.py",))
    project.run(stage)
    ran = project.run(stage)
    assert list_items(ran.tasks) == ["t/a.py +1"]
    assert (
        ran.stages["tests"].cache_note
        == "1 of 3 items unchanged; t/a.py: its batch failed in the last run (and 1 more)"
    )


def test_part_of_a_file_depends_on_the_file(project: CachedProject) -> None:
    stage = project.build_stage("tests", items=("t/a.py::test_x",), inputs=("{item}",))
    project.work["tests"] = lambda root, environ, task: (root / "t/a.py").read_text()
    project.run(stage)
    assert project.run(stage).is_cached("tests")
    project.write_file("t/a.py", "new")
    assert project.run(stage).get_output("tests") == "new"


def write_report(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    (root / f"{task.item}.report").write_text((root / str(task.item)).read_text())
    return ""


def test_items_with_outputs_in_common_are_not_cached(project: CachedProject) -> None:
    """The result of one item had the other's output of an earlier run, and restored it."""
    project.work["tests"] = write_report
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py"), inputs=("{item}",), outputs=("t/*.report",))
    project.run(stage)
    project.write_file("t/b.py", "new")
    parts = [replace(stage, tasks=stage.tasks[:1], scope=scope) for scope in (Scope.ITEMS, Scope.ARGUMENTS)]
    for part in (stage, *parts, stage):
        ran = project.run(part)
        assert list_items(ran.tasks) == [task.item for task in part.tasks]
        assert (project.root / "t/b.py.report").read_text() == "new"
        assert ran.stages["tests"].cache_note == "its tasks share the outputs t/*.report: put {item} into them"


def test_item_with_an_output_restores_its_own(project: CachedProject) -> None:
    project.work["tests"] = write_report
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py"), inputs=("{item}",), outputs=("{item}.report",))
    project.run(stage)
    (project.root / "t/a.py.report").unlink()
    (project.root / "t/b.py.report").unlink()
    project.write_file("t/b.py", "new")
    ran = project.run(stage)
    assert list_items(ran.tasks) == ["t/b.py"]
    assert (project.root / "t/a.py.report").read_text() == "a"
    assert (project.root / "t/b.py.report").read_text() == "new"


def test_item_edited_during_the_run_costs_its_own_result_only(project: CachedProject) -> None:
    def run_and_edit(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        output = run_items(root, environ, task)
        if task.item == "t/c.py":
            (root / "t/b.py").write_text("edited")
        return output

    project.work["tests"] = run_and_edit
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py", "t/c.py"), inputs=("{item}", "src/**"))
    assert project.run(stage).said == ["tests: not cached: t/b.py changed during the run"]
    project.work["tests"] = run_items
    assert list_items(project.run(stage).tasks) == ["t/b.py"]


def test_killed_run_keeps_the_items_that_had_ended_before(
    project: CachedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_at_the_last(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        if task.item == "t/c.py":
            assert eventually(lambda: sum(map(project.store.is_result, project.store.list_files())) == 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return run_items(root, environ, task)

    monkeypatch.setattr("paropt_exporter.cache.result_keeper._KEEP_SECONDS", 0.0)
    monkeypatch.setattr("paropt_exporter.cache.result_keeper._KEEP_RATIO", 0.0)
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py", "t/c.py"), inputs=("{item}", "src/**"))
    child = os.fork()
    if not child:
        project.work["tests"] = die_at_the_last
        try:
            project.run(stage, strategy=Strategy.SEQUENTIAL)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert list_items(project.run(stage).tasks) == ["t/c.py"]


def test_fault_while_items_are_kept_hangs_no_run(
    project: CachedProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It ended the thread of the cache, for which the end of the stage waits."""
    monkeypatch.setattr("paropt_exporter.cache.result_keeper._KEEP_SECONDS", 0.0)
    monkeypatch.setattr(StageReader, "find_changes", Mock(side_effect=RuntimeError("a fault")))
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py"), inputs=("{item}", "src/**"))
    ran = project.run(stage)
    assert ran.stages["tests"].result is Result.SUCCESS
    assert "the cache failed: no result is kept" in caplog.text


def test_item_with_an_unusable_output_costs_its_own_result_only(project: CachedProject) -> None:
    def write_report(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / f"{task.item}.report").write_text("x" * (200_000 if task.item == "t/a.py" else 10))
        return ""

    project.work["tests"] = write_report
    stage = project.build_stage("tests", items=("t/a.py", "t/b.py"), inputs=("{item}",), outputs=("{item}.report",))
    project.run(stage, limit_bytes=100_000)
    assert list_items(project.run(stage, limit_bytes=100_000).tasks) == ["t/a.py"]
