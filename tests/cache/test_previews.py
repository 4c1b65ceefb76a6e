"""`plan --why` and a run decide alike: each change of the files or the store gives the same reason in both."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from paropt_exporter.cache.preview import preview_plan
from paropt_exporter.events import CacheReason
from paropt_exporter.plan import PlannedStage, PlannedTask
from support import lanes
from support.cached_project import CachedProject

Change = Callable[[CachedProject], object]


def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    (root / "dist").mkdir(exist_ok=True)
    if (root / "dist/out").is_dir():
        (root / "dist/out").rmdir()
    (root / "dist/out").write_text((root / "src/a.py").read_text())
    return "built"


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    made = CachedProject(tmp_path / "project", tmp_path / "store", work={"build": build})
    made.write_file("src/a.py", "one")
    return made


def preview(project: CachedProject, stage: PlannedStage) -> tuple[CacheReason, str]:
    plan = lanes.plan(stage, root=project.root, project="demo")
    (found,) = preview_plan(plan, project.store, project.environ)
    return found.reason, "" if found.reason is CacheReason.UNCHANGED else found.note


def lose_contents(project: CachedProject) -> None:
    shutil.rmtree(project.store.folder / "v1/cas")


def lose_contents_and_output(project: CachedProject) -> None:
    lose_contents(project)
    (project.root / "dist/out").unlink()


def lose_content(project: CachedProject, content: bytes) -> None:
    for path in project.store.folder.glob("v1/cas/*/*"):
        if path.read_bytes() == content:
            path.unlink()


def lose_output(project: CachedProject) -> None:
    (project.root / "dist/out").unlink()


def damage_result(project: CachedProject) -> None:
    (path,) = project.store.folder.glob("v1/ac/*/*")
    path.write_bytes(path.read_bytes()[:-1])


def share_store(project: CachedProject) -> None:
    project.store.folder.chmod(0o777)


def put_pipe_among_inputs(project: CachedProject) -> None:
    os.mkfifo(project.root / "src/pipe")


def put_folder_in_place_of_output(project: CachedProject) -> None:
    lose_output(project)
    (project.root / "dist/out").mkdir()


def put_link_in_place_of_folder(project: CachedProject) -> None:
    lose_output(project)
    (project.root / "dist").rename(project.root / "moved")
    (project.root / "dist").symlink_to("moved")


CHANGES: dict[str, Change] = {
    "none": lambda project: None,
    "input": lambda project: project.write_file("src/a.py", "two"),
    "variable": lambda project: project.environ.update(LANG="C"),
    "output": lose_output,
    "folder in place of an output": put_folder_in_place_of_output,
    "link in place of the folder of an output": put_link_in_place_of_folder,
    "output that an earlier run did not write": lambda project: project.write_file("dist/stale", ""),
    "content whose file is in place": lambda project: lose_content(project, b"one"),
    "contents": lose_contents,
    "contents and output": lose_contents_and_output,
    "printed text": lambda project: lose_content(project, b"built"),
    "result": lambda project: shutil.rmtree(project.store.folder / "v1/ac"),
    "damaged result": damage_result,
    "store": lambda project: shutil.rmtree(project.store.folder),
    "store that others may write to": share_store,
    "input without a state": put_pipe_among_inputs,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_preview_and_run_give_the_same_reason(project: CachedProject, change: Change) -> None:
    stage = project.build_stage("build", outputs=("dist",))
    project.run(stage)
    change(project)
    expected = preview(project, stage)
    ran = project.run(stage)
    assert (ran.get_reason("build"), ran.stages["build"].cache_note) == expected


@pytest.mark.parametrize("loss", [lose_output, lambda project: shutil.rmtree(project.root / "dist")])
@pytest.mark.parametrize("inputs", [("README",), ("dist/**",)])
def test_outputs_that_a_run_restores_count_for_the_stage_behind(
    project: CachedProject, loss: Change, inputs: tuple[str, ...]
) -> None:
    """As in a new checkout, where \"dist/out is gone\" was announced, and a deadline left the stage out."""
    project.work["use"] = lambda root, environ, task: (root / "dist/out").read_text()
    stages = (
        project.build_stage("build", outputs=("dist",)),
        project.build_stage("use", inputs=inputs, needs=("build",), needed_outputs=("dist",), number=2),
    )
    project.run(*stages)
    loss(project)
    project.write_file("dist/stale", "")
    plan = lanes.plan(*stages, root=project.root, project="demo")
    assert [each.note for each in preview_plan(plan, project.store, project.environ)] == ["unchanged", "unchanged"]
    assert project.run(*stages).called == []


def test_preview_writes_nothing(project: CachedProject) -> None:
    stage = project.build_stage("build", outputs=("dist",))
    assert preview(project, stage) == (CacheReason.NEW, "no result in the cache yet")
    assert not project.store.folder.exists()
    project.run(stage)
    damage_result(project)
    before = {path: path.stat().st_mtime_ns for path in project.root.parent.rglob("*")}
    preview(project, stage)
    assert {path: path.stat().st_mtime_ns for path in project.root.parent.rglob("*")} == before
