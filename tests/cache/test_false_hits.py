"""False hits, and hits that restore nothing, which users of other tools have reported: each must be impossible here.

The numbers are those of issues of turbo, moon, nx, bazel, go-task, vite-task and pytest-testmon.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from msgspec.structs import replace

from paropt_exporter.events import CacheReason
from paropt_exporter.input_files import join_pattern
from paropt_exporter.plan import Commands, PlannedTask
from support.cached_project import CachedProject, Failed, Stopped, print_sources

PRINTED = "src/a.py: one\n"


def build(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    (root / "dist").mkdir(exist_ok=True)
    (root / "dist/out").write_text(print_sources(root, environ, task))
    return "built"


def use(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    return (root / "dist/out").read_text()


@pytest.fixture
def project(tmp_path: Path) -> CachedProject:
    made = CachedProject(
        tmp_path / "project", tmp_path / "store", work={"lint": print_sources, "build": build, "use": use}
    )
    made.write_file("src/a.py", "one")
    return made


def test_second_run_of_unchanged_files_is_a_hit_with_its_output(project: CachedProject) -> None:
    lint = project.build_stage("lint")
    first, second = project.run(lint), project.run(lint)
    assert (first.called, second.called) == (["lint"], [])
    assert second.is_cached("lint") and second.get_output("lint") == "src/a.py: one\n"
    assert second.stages["lint"].saved_seconds > 0


def test_turbo_548_file_that_git_ignores_is_an_input_if_it_is_named(project: CachedProject) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    project.write_file(".gitignore", "*.generated\n")
    project.write_file("src/a.generated", "1")
    lint = project.build_stage("lint")
    project.run(lint)
    project.write_file("src/a.generated", "2")
    assert "src/a.generated: 2\n" in project.run(lint).get_output("lint")


def test_turbo_401_untracked_new_file_is_an_input_without_inputs(project: CachedProject) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    subprocess.run(["git", "add", "."], cwd=project.root, check=True)
    lint = project.build_stage("lint", inputs=None)
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file("src/new.py", "new")
    again = project.run(lint)
    assert again.called == ["lint"]
    assert again.stages["lint"].cache_note == "src/new.py is new"


@pytest.mark.parametrize("module", ["fast.cpython-313-x86_64-linux-gnu.so", "shop_pb2.py", "_version.py"])
def test_rebuilt_module_that_git_ignores_is_an_input_without_inputs(project: CachedProject, module: str) -> None:
    """Tests had passed with the new sources and the old module, so they were a hit after a build that broke them."""
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    project.write_file(".gitignore", "*.so\n*_pb2.py\n_version.py\n")
    project.write_file(f"src/{module}", "old")
    lint = project.build_stage("lint", inputs=None)
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(f"src/{module}", "new")
    again = project.run(lint)
    assert again.called == ["lint"]
    assert again.stages["lint"].cache_note == f"src/{module} changed"


def test_module_that_another_stage_builds_is_no_input_without_inputs(project: CachedProject) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    project.write_file(".gitignore", "*.so\n")
    project.write_file("src/fast.so", "old")
    lint = project.build_stage("lint", inputs=None, other_outputs=("src/*.so",))
    project.run(lint)
    project.write_file("src/fast.so", "new")
    assert project.run(lint).is_cached("lint")


@pytest.mark.parametrize("inputs", [("**",), None])
def test_store_in_the_project_is_no_input(tmp_path: Path, inputs: tuple[str, ...] | None) -> None:
    """GitLab keeps only caches inside of the project."""
    project = CachedProject(tmp_path / "project", tmp_path / "project/.cache", work={"lint": print_sources})
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    project.write_file("src/a.py", "one")
    lint = project.build_stage("lint", inputs=inputs)
    project.run(lint)
    assert project.run(lint).is_cached("lint")


def test_project_that_git_ignores_is_never_a_hit_without_inputs(tmp_path: Path) -> None:
    """As below a home folder whose settings are in git, with a .gitignore of `*`."""
    project = CachedProject(tmp_path / "home/project", tmp_path / "store", work={"lint": print_sources})
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "home", check=True)
    (tmp_path / "home/.gitignore").write_text("*\n")
    project.write_file("src/a.py", "one")
    lint = project.build_stage("lint", inputs=None)
    project.run(lint)
    again = project.run(lint)
    assert again.called == ["lint"]
    assert again.stages["lint"].cache_note == "git ignores all files in this folder: name its `inputs`"


def test_stage_whose_inputs_match_no_file_is_never_a_hit(project: CachedProject) -> None:
    """As in a monorepo, with patterns from its root and a `cwd`: no edit would ever run the tests again."""
    lint = project.build_stage("lint", inputs=("src/src/**",), cwd=project.root / "src")
    project.run(lint)
    again = project.run(lint)
    assert again.called == ["lint"]
    assert again.stages["lint"].cache_note == "its `inputs` match no file: they begin in its folder, src"


def test_turbo_14059_file_outside_the_stages_folder_is_an_input(project: CachedProject) -> None:
    project.write_file("web/x", "x")
    lint = project.build_stage("lint", inputs=("web/**", "src/a.py"), cwd=project.root / "web")
    project.run(lint)
    project.write_file("src/a.py", "two")
    assert project.run(lint).called == ["lint"]


def test_moon_1172_changed_argument_in_the_config_is_a_miss(project: CachedProject) -> None:
    project.run(project.build_stage("lint", words=("test1",)))
    again = project.run(project.build_stage("lint", words=("test2",)))
    assert again.called == ["lint"]
    assert (again.get_reason("lint"), again.stages["lint"].cache_note) == (CacheReason.COMMAND, "its command changed")


def test_moon_1172_failure_is_never_replayed(project: CachedProject) -> None:
    def fail(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        raise Failed("no")

    project.work["lint"] = fail
    lint = project.build_stage("lint")
    project.run(lint)
    again = project.run(lint)
    assert again.called == ["lint"]
    assert (again.get_reason("lint"), again.stages["lint"].cache_note) == (
        CacheReason.FAILED,
        "it failed in its last run",
    )


def test_moon_714_changed_variable_of_the_stage_is_a_miss(project: CachedProject) -> None:
    project.run(project.build_stage("lint", env={"LEVEL": "1"}))
    again = project.run(project.build_stage("lint", env={"LEVEL": "2"}))
    assert again.stages["lint"].cache_note == "env LEVEL changed"


def test_moon_1958_stage_that_writes_its_inputs_is_not_kept(project: CachedProject) -> None:
    def rewrite(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "src/a.py").write_text("formatted")
        return ""

    project.work["lint"] = rewrite
    lint = project.build_stage("lint")
    project.run(lint)
    project.write_file("src/a.py", "one")
    again = project.run(lint)
    assert again.called == ["lint"]
    assert (project.root / "src/a.py").read_text() == "formatted"
    assert again.stages["lint"].cache_note == "src/a.py changed during the run"


def test_nx_27965_output_of_a_needed_stage_is_read_after_it_ran(project: CachedProject) -> None:
    stages = (
        project.build_stage("build", outputs=("dist",)),
        project.build_stage("use", inputs=("README",), needs=("build",), needed_outputs=("dist",), number=2),
    )
    project.run(*stages)
    project.write_file("src/a.py", "two")
    again = project.run(*stages)
    assert again.called == ["build", "use"]
    assert again.get_output("use") == "src/a.py: two\n"


def test_nx_27965_output_of_an_uncached_needed_stage_counts_too(project: CachedProject) -> None:
    stages = (
        project.build_stage("build", outputs=("dist",), cached=False),
        project.build_stage("use", inputs=("README",), needs=("build",), needed_outputs=("dist",), number=2),
    )
    project.run(*stages)
    project.write_file("src/a.py", "two")
    assert project.run(*stages).get_output("use") == "src/a.py: two\n"


def test_stage_whose_output_another_stage_writes_is_not_kept(project: CachedProject) -> None:
    """Its result had the other stage's file, as it was then, and restored it over a newer one."""
    build = project.build_stage("build", outputs=("dist",), shared_output="dist")
    for _ in range(2):
        ran = project.run(build)
        assert not ran.is_cached("build")
        told = "another stage may write dist, too: give each its own outputs"
        assert ran.stages["build"].cache_note == told


def test_rebuilt_but_equal_output_stops_the_chain(project: CachedProject) -> None:
    stages = (
        project.build_stage("build", outputs=("dist",), inputs=("src/**", "notes")),
        project.build_stage("use", inputs=("README",), needs=("build",), needed_outputs=("dist",), number=2),
    )
    project.run(*stages)
    project.write_file("notes", "changed")
    assert project.run(*stages).called == ["build"]


@pytest.mark.parametrize("stage", ["nx #8828", "bazel #3360"])
def test_nx_8828_and_bazel_3360_input_edited_during_the_run_keeps_nothing(project: CachedProject, stage: str) -> None:
    def read_and_get_edited(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        if stage == "bazel #3360":  # edited before the stage reads it, and then put back
            before = (root / "src/a.py").read_text()
            (root / "src/a.py").write_text("other")
            output = print_sources(root, environ, task)
            (root / "src/a.py").write_text(before)
            return output
        output = print_sources(root, environ, task)
        (root / "src/a.py").write_text("two")
        return output

    project.work["lint"] = read_and_get_edited
    lint = project.build_stage("lint")
    first = project.run(lint)
    assert first.said == ["lint: not cached: src/a.py changed during the run"]
    project.work["lint"] = print_sources
    assert project.run(lint).called == ["lint"]
    project.write_file("src/a.py", "one")
    assert project.run(lint).get_output("lint") == "src/a.py: one\n"


@pytest.mark.parametrize("change", ["remove", "edit", "extra", "mode"])
def test_nx_32620_and_36932_hit_restores_missing_and_changed_outputs(project: CachedProject, change: str) -> None:
    build_stage = project.build_stage("build", outputs=("dist",))
    project.run(build_stage)
    out = project.root / "dist/out"
    match change:
        case "remove":
            shutil.rmtree(project.root / "dist")
        case "edit":
            out.write_text("edited")
        case "extra":
            (project.root / "dist/stale").write_text("")
        case _:
            out.chmod(0o755)
    again = project.run(build_stage)
    assert again.is_cached("build")
    assert out.read_text() == "src/a.py: one\n" and [path.name for path in out.parent.iterdir()] == ["out"]
    assert not out.stat().st_mode & 0o100


def test_make_has_nothing_to_do_for_restored_files(project: CachedProject) -> None:
    """They had their times in the order of their names, so `make` linked again, and changed another stage's input."""
    project.write_file("Makefile", "dist/app: dist/main.o\n\tcp $< $@\ndist/main.o: src/a.py\n\tcp $< $@\n")

    def make(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "dist").mkdir(exist_ok=True)
        return subprocess.run(["make"], cwd=root, check=True, capture_output=True, text=True).stdout

    project.work["build"] = make
    stage = project.build_stage("build", outputs=("dist",))
    project.run(stage)
    shutil.rmtree(project.root / "dist")
    assert project.run(stage).is_cached("build")
    subprocess.run(["make", "--question"], cwd=project.root, check=True)


def test_file_system_that_can_not_set_times_restores_outputs(
    project: CachedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one without times of links."""
    build = project.build_stage("build", outputs=("dist",))
    project.run(build)
    shutil.rmtree(project.root / "dist")
    monkeypatch.setattr(os, "utime", Mock(side_effect=OSError(errno.EOPNOTSUPP, "not supported")))
    assert project.run(build).is_cached("build") and (project.root / "dist/out").exists()


def copy_sources(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    """Copy each source that has no copy yet, and leave other copies as they are, as incremental builds do."""
    (root / "dist").mkdir(exist_ok=True)
    for source in (root / "src").iterdir():
        if not (root / "dist" / source.name).exists():
            shutil.copyfile(source, root / "dist" / source.name)
    return "built"


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_output_of_a_deleted_source_counts_only_where_it_is(project: CachedProject) -> None:
    """A new checkout got the page of a deleted source from the cache: a cold run does not write it."""
    project.work["build"] = copy_sources
    project.write_file("src/b.py", "two")
    build = project.build_stage("build", outputs=("dist",))
    project.run(build)
    (project.root / "src/b.py").unlink()
    project.run(build)
    assert project.run(build).is_cached("build") and list_names(project.root / "dist") == ["a.py", "b.py"]
    (project.root / "dist/b.py").unlink()
    ran = project.run(build)
    assert ran.called == ["build"] and ran.get_reason("build") is CacheReason.INPUTS
    assert ran.tasks[0].cache_note == "dist/b.py is gone or changed: the kept run had found it there"
    shutil.rmtree(project.root / "dist")
    assert project.run(build).called == ["build"] and list_names(project.root / "dist") == ["a.py"]
    project.write_file("dist/b.py", "two")
    assert project.run(build).is_cached("build") and list_names(project.root / "dist") == ["a.py"]


def test_output_that_one_of_two_equal_runs_wrote_is_restored(project: CachedProject) -> None:
    project.work["build"] = copy_sources
    build = project.build_stage("build", outputs=("dist",))
    project.run(build)
    project.run(build, no_cache=True)  # it writes nothing
    shutil.rmtree(project.root / "dist")
    assert project.run(build).is_cached("build") and list_names(project.root / "dist") == ["a.py"]


@pytest.mark.parametrize("lost", ["contents", "entries", "everything"])
def test_nx_37110_and_36898_result_without_its_contents_is_a_miss(project: CachedProject, lost: str) -> None:
    build_stage = project.build_stage("build", outputs=("dist",))
    project.run(build_stage)
    shutil.rmtree(project.root / "dist")
    folders = {"contents": "v1/cas", "entries": "v1/ac", "everything": "."}
    shutil.rmtree(project.store.folder / folders[lost])
    again = project.run(build_stage)
    assert again.called == ["build"] and (project.root / "dist/out").exists()
    expected = CacheReason.NEW if lost == "everything" else CacheReason.EVICTED
    assert again.get_reason("build") is expected
    assert project.run(build_stage).is_cached("build")


def test_go_task_1178_and_moon_1925_interrupted_stage_runs_again(project: CachedProject) -> None:
    def stop(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        raise Stopped

    project.work["lint"] = stop
    lint = project.build_stage("lint")
    project.run(lint)
    project.work["lint"] = print_sources
    assert project.run(lint).called == ["lint"]


def test_vite_task_587_and_testmon_178_script_named_by_the_command_is_an_input(project: CachedProject) -> None:
    project.write_file("check.sh", "1")
    lint = project.build_stage("lint", words=("check.sh", "--config=settings.toml"))
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file("check.sh", "2")
    assert project.run(lint).stages["lint"].cache_note == "check.sh changed"
    project.write_file("settings.toml", "2")
    assert project.run(lint).stages["lint"].cache_note == "settings.toml is new"


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("npm", "run", "lint"), "package.json"),
        (("make", "lint"), "Makefile"),
        (("/usr/bin/make", "lint"), "Makefile"),
        (("make", "-C", "web", "lint"), "web/Makefile"),
        (("npm", "--prefix=web", "run", "lint"), "web/package.json"),
        (("sh", "-c", "cd web; make lint"), "web/Makefile"),
        (("sh", "-c", "make -s lint && just test"), "justfile"),
        (("task", "lint"), "taskfile.yml"),
        (("uv", "run", "pytest"), "uv.lock"),
        (("poetry", "run", "pytest"), "poetry.lock"),
        (("yarn", "run", "lint"), ".pnp.cjs"),
        (("cargo", "test"), "Cargo.lock"),
        (("cargo", "clippy"), "clippy.toml"),
        (("node_modules/.bin/eslint", "src"), "eslint.config.mjs"),
        (("npx", "prettier", "--check", "web"), "web/.prettierrc.json"),
        (("npm", "run", "types"), "tsconfig.json"),
        (("sh", "-c", "shellcheck *.sh"), ".shellcheckrc"),
        (("golangci-lint", "run"), ".golangci.yml"),
        (("ruff", "check", "."), ".gitignore"),
        (("npx", "prettier", "--check", "."), ".gitignore"),
    ],
)
def test_changed_recipe_of_the_command_is_a_miss(project: CachedProject, command: tuple[str, ...], file: str) -> None:
    """With `inputs: [src/**]`, `npm run lint` was a hit after its script had become another one."""
    project.write_file(file, "lint: one")
    lint = project.build_stage("lint", command=command)
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(file, "lint: two")
    assert project.run(lint).stages["lint"].cache_note == f"{file} changed"


@pytest.mark.parametrize("file", ["justfile", "web/justfile", "web/app/justfile"])
def test_changed_recipe_above_the_stages_folder_is_a_miss(project: CachedProject, file: str) -> None:
    """Just, task, npm and uv look for their files in the folders above theirs too."""
    project.write_file("web/app/a.py", "one")
    project.write_file(file, "lint: one")
    lint = project.build_stage("lint", command=("just", "lint"), cwd=project.root / "web/app")
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(file, "lint: two")
    assert project.run(lint).stages["lint"].cache_note == f"{file} changed"


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (("python", "../tools/check.py"), "../tools/check.py"),
        (("python", "{tmp_path}/tools/check.py"), "{tmp_path}/tools/check.py"),
        (("check", "--config={tmp_path}/tools/x.toml"), "{tmp_path}/tools/x.toml"),
        (("make", "-C../tools"), "../tools/Makefile"),
        (("make", "-frules.mk"), "rules.mk"),
        (("gcc", "@flags.txt"), "flags.txt"),
        (("lint", "--ignore=one.txt,two.txt"), "two.txt"),
        (("bash", "-ec", "python check.py"), "check.py"),
        (("bash", "-o", "pipefail", "-c", "cat <check.py|wc"), "check.py"),
        (("timeout", "60", "sh", "-c", "make -frules.mk"), "rules.mk"),
        (("python", "-m", "tools.check"), "tools/check.py"),
        (("sh", "-c", "python -W error -m tools"), "tools/__main__.py"),
        (("python", "-m", ""), "values.ini"),
    ],
)
def test_file_that_the_command_names_is_an_input(
    project: CachedProject, tmp_path: Path, command: tuple[str, ...], file: str
) -> None:
    named = file.format(tmp_path=tmp_path)
    project.write_file(named, "one")
    words = [word.format(tmp_path=tmp_path) for word in command]
    lint = project.build_stage("lint", command=words, env={"LINT_SETTINGS": "values.ini"})
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(named, "two")
    assert project.run(lint).stages["lint"].cache_note == f"{named} changed"


def test_relative_file_in_a_command_belongs_to_its_folder_outside_the_project(project: CachedProject) -> None:
    project.write_file("../tools/check.py", "one")
    lint = project.build_stage("lint", words=("check.py",), cwd=project.root.parent / "tools")
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file("../tools/check.py", "two")
    assert project.run(lint).called == ["lint"]


@pytest.mark.parametrize("cwd", ["", "src"])
@pytest.mark.parametrize("inputs", [("{item}",), ("{item}", "!other")])
def test_absolute_item_is_an_input(project: CachedProject, tmp_path: Path, cwd: str, inputs: tuple[str, ...]) -> None:
    (tmp_path / "table.csv").write_text("1")
    inputs = tuple(join_pattern(cwd or ".", pattern) for pattern in inputs)
    lint = project.build_stage("lint", cwd=project.root / cwd, inputs=inputs, command=("lint",))
    task = PlannedTask(index=0, item=f"{tmp_path}/table.csv", work=Commands(steps=(("lint",),)))
    lint = replace(lint, tasks=(task,))
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    (tmp_path / "table.csv").write_text("2")
    assert project.run(lint).called == ["lint"]


@pytest.mark.parametrize(
    ("item", "pattern", "file"), [("!a.csv", "{item}", "!a.csv"), ("x/y.py", "{item}/../z", "x/z")]
)
def test_pattern_with_an_item_means_the_file_that_the_command_finds(
    project: CachedProject, item: str, pattern: str, file: str
) -> None:
    project.write_file(file, "1")
    lint = project.build_stage("lint", inputs=(join_pattern(".", pattern),))
    lint = replace(lint, tasks=(PlannedTask(index=0, item=item, work=Commands(steps=(("lint",),))),))
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(file, "2")
    assert project.run(lint).called == ["lint"]


@pytest.mark.parametrize("item", ["/tmp/a", "../a"])
def test_output_of_an_item_outside_of_the_project_is_not_kept(project: CachedProject, item: str) -> None:
    """Nothing was restored, or each run said that its result was damaged."""
    lint = project.build_stage("lint", items=(item,), outputs=(join_pattern(".", "{item}.out"),))
    assert f"its output {item}.out is outside of the project" in project.run(lint).stages["lint"].cache_note
    assert project.run(lint).called == ["lint"]


def test_output_of_an_absolute_item_in_the_project_asks_for_relative_items(project: CachedProject) -> None:
    item = f"{project.root}/src/a.py"
    lint = project.build_stage("lint", items=(item,), outputs=(join_pattern(".", "{item}.out"),))
    told = f"its output {item}.out is an absolute path: use items relative to the stage's folder"
    assert told in project.run(lint).stages["lint"].cache_note


def test_testmon_228_settings_that_tools_read_unasked_are_inputs(project: CachedProject) -> None:
    lint = project.build_stage("lint")
    project.run(lint)
    for name in ("pyproject.toml", ".python-version", "pytest.toml"):
        project.write_file(name, "[tool.ruff]\n")
        assert project.run(lint).stages["lint"].cache_note == f"{name} is new"


def test_turbo_14095_restored_output_never_leaves_by_a_link(project: CachedProject, tmp_path: Path) -> None:
    build_stage = project.build_stage("build", outputs=("dist",))
    project.run(build_stage)
    shutil.rmtree(project.root / "dist")
    (tmp_path / "outside").mkdir()
    (project.root / "dist").symlink_to(tmp_path / "outside")
    again = project.run(build_stage)
    assert not again.is_cached("build")
    assert "can't be restored" in again.stages["build"].cache_note


@pytest.mark.parametrize(
    "outputs", [("dist",), ("dist/**",), ("dist/current", "dist/1"), ("dist/**/out", "dist/current")]
)
def test_link_to_a_folder_is_restored_with_the_files_behind_it(
    project: CachedProject, outputs: tuple[str, ...]
) -> None:
    """It was a folder afterwards, in which the stage that then ran left its link."""
    project.work["build"] = build_with_link
    build_stage = project.build_stage("build", outputs=outputs)
    project.run(build_stage)
    shutil.rmtree(project.root / "dist")
    for _ in range(2):
        assert project.run(build_stage).is_cached("build")
        assert (project.root / "dist/current").readlink() == Path("1")
        assert (project.root / "dist/current/out").read_text() == "src/a.py: one\n"


@pytest.mark.parametrize("outputs", [("dist/current",), ("dist/current/**", "dist/1"), ("current",), ("current/*",)])
def test_output_behind_a_link_that_could_not_be_restored_is_not_kept(
    project: CachedProject, outputs: tuple[str, ...]
) -> None:
    project.work["build"] = build_with_link
    build_stage = project.build_stage("build", outputs=outputs)
    for _ in range(2):
        again = project.run(build_stage)
        assert not again.is_cached("build")
    link = outputs[0].removesuffix("/*").removesuffix("/**")
    assert f"{link}/out is behind the link {link}, and can't be restored" in again.said[0]


@pytest.mark.parametrize("outputs", [("dist",), ("dist/**",), ("d*/**",)])
@pytest.mark.parametrize(
    "product", ["node_modules/a/index.js", "server/node_modules/a/node_modules/b.js", "env/lib/python3.11/a.py"]
)
def test_packages_among_the_outputs_are_restored(
    project: CachedProject, product: str, outputs: tuple[str, ...]
) -> None:
    """As in the output of Next.js, or in a bundle for AWS Lambda, which could not run without them."""

    def bundle(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        project.write_file(f"dist/{product}", "1")
        return "built"

    project.work["build"] = bundle
    project.write_file("dist/env/pyvenv.cfg", "")
    project.write_file("dist/env/CACHEDIR.TAG", "")
    build_stage = project.build_stage("build", outputs=outputs)
    project.run(build_stage)
    (project.root / "dist" / product).unlink()
    assert project.run(build_stage).is_cached("build")
    assert (project.root / "dist" / product).read_text() == "1"


def test_changed_package_among_the_outputs_of_a_needed_stage_is_a_miss(project: CachedProject) -> None:
    project.write_file("dist/node_modules/a.js", "1")
    use_stage = project.build_stage("lint", needed_outputs=("dist",))
    project.run(use_stage)
    project.write_file("dist/node_modules/a.js", "2")
    assert project.run(use_stage).stages["lint"].cache_note == "dist/node_modules/a.js changed"


@pytest.mark.parametrize("outputs", [("dist",), ("dist/**",)])
def test_output_folder_that_became_a_link_is_built_again(
    project: CachedProject, tmp_path: Path, outputs: tuple[str, ...]
) -> None:
    build_stage = project.build_stage("build", outputs=outputs)
    project.run(build_stage)
    (project.root / "dist").rename(tmp_path / "moved")
    (project.root / "dist").symlink_to(tmp_path / "moved")
    assert project.run(build_stage).called == ["build"]
    assert (project.root / "dist/out").read_text() == PRINTED


def build_with_link(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
    """Build as a release: a folder of its own, and links that lead to the newest one."""
    (root / "dist/1").mkdir(parents=True, exist_ok=True)
    (root / "dist/1/out").write_text(print_sources(root, environ, task))
    for link, target in (("dist/current", "1"), ("current", "dist/1")):
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(target)
    return "built"


def test_result_that_can_not_be_restored_leaves_no_folder_behind(project: CachedProject) -> None:
    """`mkdir dist` of the stage that then ran failed."""
    build_stage = project.build_stage("build", outputs=("dist",))
    project.run(build_stage)
    (content,) = (path for path in (project.store.folder / "v1/cas").glob("*/*") if path.read_text() == PRINTED)
    shutil.rmtree(project.root / "dist")
    content.write_text("damaged")
    project.work["build"] = lambda root, environ, task: str((root / "dist").exists())
    assert project.run(build_stage).get_output("build") == "False"


def test_killed_restore_leaves_nothing_in_later_results(project: CachedProject) -> None:
    build_stage = project.build_stage("build", outputs=("dist",))
    project.run(build_stage)
    (project.root / "dist/out").unlink()
    child = os.fork()
    if child == 0:
        os.rename = lambda *_, **__: os._exit(0)
        project.run(build_stage)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    (left,) = (project.root / "dist").iterdir()
    project.write_file("src/a.py", "two")
    project.run(build_stage)
    assert left.exists()
    assert project.run(build_stage).is_cached("build")
    assert [path.name for path in (project.root / "dist").iterdir()] == ["out"]


def test_link_to_a_changed_file_is_a_miss(project: CachedProject) -> None:
    project.write_file("real", "1")
    (project.root / "src/link").symlink_to("../real")
    lint = project.build_stage("lint")
    project.run(lint)
    project.write_file("real", "2")
    assert "src/link: 2" in project.run(lint).get_output("lint")


def test_upgraded_program_is_a_miss(project: CachedProject) -> None:
    project.write_file("bin/lint", "#!/bin/sh\n# 1\n", mode=0o755)
    lint = project.build_stage("lint")
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file("bin/lint", "#!/bin/sh\n# 2\n", mode=0o755)
    again = project.run(lint)
    assert (again.called, again.stages["lint"].cache_note) == (["lint"], "lint changed")


@pytest.mark.parametrize(
    "command",
    [
        ("timeout", "60", "lint"),
        ("nice", "-n", "5", "timeout", "60", "{root}/bin/lint"),
        ("bash", "-ec", "lint; true"),
        ("bash", "-o", "pipefail", "-c", "lint|cat"),
        ("sh", "-c", "timeout 60 bash -ec 'lint src'"),
        ("sh", "-c", 'echo "$(lint src) > `date`"'),
        ("sh", "-c", "echo `lint src`"),
        ("env", "A=1", "sh", "-c", "lint src"),
    ],
)
def test_upgraded_program_that_another_one_starts_is_a_miss(project: CachedProject, command: tuple[str, ...]) -> None:
    project.write_file("bin/lint", "#!/bin/sh\n# 1\n", mode=0o755)
    lint = project.build_stage("lint", command=[word.format(root=project.root) for word in command])
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file("bin/lint", "#!/bin/sh\n# 2\n", mode=0o755)
    assert project.run(lint).called == ["lint"]


@pytest.mark.parametrize("second", ["{folder}/two/check", "check"])
def test_programs_of_one_name_in_different_folders_count_each(
    project: CachedProject, tmp_path: Path, second: str
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "check").write_text("#!/bin/sh\n# 1\n")
        (tmp_path / name / "check").chmod(0o755)
    project.environ["PATH"] = f"{tmp_path}/two:/bin"
    steps = ((f"{tmp_path}/one/check",), (second.format(folder=tmp_path),))
    lint = project.build_stage("lint")
    lint = replace(lint, tasks=(PlannedTask(index=0, item=None, work=Commands(steps=steps)),))
    for name in ("one", "two"):
        project.run(lint)
        assert project.run(lint).is_cached("lint")
        (tmp_path / name / "check").write_text("#!/bin/sh\n# 2\n")
        assert project.run(lint).get_reason("lint") is CacheReason.TOOLS


def test_upgraded_package_of_the_environment_is_a_miss_that_names_it(project: CachedProject) -> None:
    packages = "venv/lib/python3.11/site-packages"
    project.write_file(f"{packages}/ruff-0.17.5.dist-info/RECORD", "ruff/__init__.py,sha256=a,1\n")
    lint = project.build_stage("lint", env={"VIRTUAL_ENV": str(project.root / "venv")})
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    shutil.rmtree(project.root / packages / "ruff-0.17.5.dist-info")
    project.write_file(f"{packages}/ruff-0.17.6.dist-info/RECORD", "ruff/__init__.py,sha256=b,1\n")
    again = project.run(lint)
    assert (again.called, again.stages["lint"].cache_note) == (["lint"], "ruff 0.17.5 -> 0.17.6")


def install_pyenv(folder: Path, *versions: str) -> Path:
    """Make a root of pyenv as `pyenv install` and `pyenv rehash` leave it; return it. The first version is global."""
    stubs = folder / "pyenv/shims"
    stubs.mkdir(parents=True)
    for version in versions:
        bin_folder = folder / "pyenv/versions" / version / "bin"
        bin_folder.mkdir(parents=True)
        (bin_folder.parent / "lib/python3/site-packages/lint-1.dist-info").mkdir(parents=True)
        (bin_folder.parent / "lib/python3/site-packages/lint-1.dist-info/RECORD").write_text("")
        (bin_folder / "python3").write_text("an interpreter")
        (bin_folder / "lint").write_text(f"#!{bin_folder}/python3\n")
    for path in (*folder.glob("pyenv/versions/*/bin/*"), stubs / "lint"):
        if path.parent == stubs:
            path.write_text('#!/bin/sh\nexec pyenv exec "${0##*/}" "$@"\n')
        path.chmod(0o755)
    (folder / "pyenv/version").write_text(f"{versions[0]}\n")
    return folder / "pyenv"


@pytest.mark.parametrize("change", ["global", "above", "variable", "package", "system"])
def test_other_version_that_a_stub_of_pyenv_starts_is_a_miss(
    project: CachedProject, tmp_path: Path, change: str
) -> None:
    """The stub itself stays the same."""
    pyenv = install_pyenv(tmp_path, "3.11.7", "3.12.1", "3.12.10")
    project.environ["PATH"] = f"{pyenv}/shims:{tmp_path}/system"
    (tmp_path / "system").mkdir()
    (tmp_path / "system/lint").write_text("#!/bin/sh\n")
    (tmp_path / "system/lint").chmod(0o755)
    lint = project.build_stage("lint")
    project.run(lint)
    (pyenv / "versions/3.12.1/lib/python3/site-packages/lint-1.dist-info/RECORD").write_text("other")
    assert project.run(lint).is_cached("lint")  # that version is not in use
    (pyenv / "versions/3.12.10/bin/lint").write_text(f"#!{pyenv}/versions/3.12.10/bin/python3\n# other\n")
    match change:
        case "global":
            (pyenv / "version").write_text("# newer\n3.12\n")
        case "above":
            (tmp_path / ".python-version").write_text("python-3.12")
        case "variable":
            lint = project.build_stage("lint", env={"PYENV_VERSION": "3.12"})
        case "system":
            (pyenv / "version").write_text("system")
        case _:
            (pyenv / "versions/3.11.7/lib/python3/site-packages/lint-1.dist-info/RECORD").write_text("other")
    again = project.run(lint)
    assert again.called == ["lint"] and again.tasks[0].cache_note == "lint changed"


def test_folder_beside_the_programs_of_pyenv_is_no_program(project: CachedProject, tmp_path: Path) -> None:
    """`pyenv rehash` makes a stub for it, too, and `rm -r __pycache__` seemed to name a program."""
    pyenv = install_pyenv(tmp_path, "3.11.7")
    (pyenv / "versions/3.11.7/bin/__pycache__").mkdir()
    (pyenv / "shims/__pycache__").write_text("#!/bin/sh\n")
    (pyenv / "shims/__pycache__").chmod(0o755)
    project.environ["PATH"] = f"{pyenv}/shims"
    lint = project.build_stage("lint", words=("__pycache__",))
    project.run(lint)
    assert project.run(lint).is_cached("lint")


@pytest.mark.parametrize("file", [".package-lock.json", ".pnpm/lock.yaml", ".yarn-integrity", ".yarn-state.yml"])
@pytest.mark.parametrize("folder", ["", "web/"])
def test_upgraded_package_of_node_is_a_miss(project: CachedProject, folder: str, file: str) -> None:
    project.write_file("web/page.js", "")
    project.write_file(f"{folder}node_modules/{file}", "one")
    lint = project.build_stage("lint", cwd=project.root / "web")
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(f"{folder}node_modules/{file}", "two")
    assert project.run(lint).get_reason("lint") is CacheReason.TOOLS


def test_stage_that_installs_packages_of_node_is_a_hit_in_a_new_checkout(project: CachedProject) -> None:
    """Its packages counted as a tool that changed during the run."""

    def install(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        project.write_file("node_modules/.package-lock.json", "{}")
        return "installed"

    project.work["build"] = install
    build_stage = project.build_stage("build", outputs=("node_modules",))
    project.run(build_stage)
    shutil.rmtree(project.root / "node_modules")
    assert project.run(build_stage).is_cached("build")
    assert (project.root / "node_modules/.package-lock.json").read_text() == "{}"


@pytest.mark.parametrize("config", ["tools/pyvenv.cfg", "no_environment"])
@pytest.mark.parametrize("program", ["python", "{root}/tools/bin/python"])
def test_upgraded_package_beside_a_python_of_the_command_is_a_miss(
    project: CachedProject, program: str, config: str
) -> None:
    """As in an image that puts an environment on PATH and sets no VIRTUAL_ENV, or that has no environment."""
    packages = "tools/lib/python3.11/site-packages"
    project.write_file(config, "")
    project.write_file("tools/bin/python", "the interpreter", mode=0o755)
    project.write_file(f"{packages}/ruff-0.17.5.dist-info/RECORD", "ruff/__init__.py,sha256=a,1\n")
    project.environ["PATH"] = f"{project.root}/tools/bin:/bin"
    lint = project.build_stage("lint", command=(program.format(root=project.root), "-m", "ruff"))
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(f"{packages}/ruff-0.17.5.dist-info/RECORD", "ruff/__init__.py,sha256=b,1\n")
    assert project.run(lint).get_reason("lint") is CacheReason.TOOLS
    (project.root / packages / "ruff-0.17.5.dist-info").rename(project.root / packages / "ruff-0.17.6.dist-info")
    assert project.run(lint).stages["lint"].cache_note == "ruff 0.17.5 -> 0.17.6"


def test_upgraded_package_beside_a_script_with_a_long_path_is_a_miss(project: CachedProject) -> None:
    """As pip and uv write scripts if the kernel would cut off the path of Python after `#!`."""
    record = "tools/lib/python3.11/site-packages/ruff-0.17.5.dist-info/RECORD"
    project.write_file("tools/pyvenv.cfg", "")
    project.write_file("tools/bin/python", "the interpreter", mode=0o755)
    project.write_file("tools/bin/ruff", "#!/bin/sh\n'''exec' /long/python \"$0\" \"$@\"\n' '''\n", mode=0o755)
    project.write_file(record, "ruff/__init__.py,sha256=a,1\n")
    lint = project.build_stage("lint", command=(f"{project.root}/tools/bin/ruff", "check"))
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(record, "ruff/__init__.py,sha256=b,1\n")
    assert project.run(lint).get_reason("lint") is CacheReason.TOOLS


@pytest.mark.parametrize("change", ["upgrade", "activate"])
def test_other_packages_of_the_active_conda_environment_are_a_miss(project: CachedProject, change: str) -> None:
    """`make test` names no program of it, but its recipe starts them."""
    for name, version in (("one", "13.2.0-h1"), ("two", "12.1.0-h2")):
        project.write_file(f"conda/envs/{name}/conda-meta/gcc-{version}.json", "{}")
    project.environ["CONDA_PREFIX"] = f"{project.root}/conda/envs/one"
    lint = project.build_stage("lint")
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    if change == "activate":
        project.environ["CONDA_PREFIX"] = f"{project.root}/conda/envs/two"
    else:
        folder = project.root / "conda/envs/one/conda-meta"
        (folder / "gcc-13.2.0-h1.json").rename(folder / "gcc-13.3.0-h1.json")
    assert project.run(lint).stages["lint"].cache_note == "conda environment changed"


def test_upgrade_in_one_of_two_environments_names_all_versions(project: CachedProject) -> None:
    for folder, version in (("venv", "24"), ("tools", "23")):
        project.write_file(f"{folder}/pyvenv.cfg", "")
        project.write_file(f"{folder}/lib/python3.11/site-packages/pip-{version}.dist-info/RECORD", "")
    project.write_file("tools/bin/python", "the interpreter", mode=0o755)
    variables = {"VIRTUAL_ENV": str(project.root / "venv")}
    lint = project.build_stage("lint", command=(f"{project.root}/tools/bin/python", "-m", "check"), env=variables)
    project.run(lint)
    packages = project.root / "tools/lib/python3.11/site-packages"
    (packages / "pip-23.dist-info").rename(packages / "pip-23.1.dist-info")
    assert project.run(lint).stages["lint"].cache_note == "pip 23, 24 -> 23.1, 24"


@pytest.mark.parametrize(
    "packages",
    [
        "base/lib/python3.11/site-packages",
        "base/lib64/python3.11/site-packages",
        "base/lib/python3/dist-packages",
        "home/.local/lib/python3.11/site-packages",
    ],
)
def test_upgraded_package_that_an_environment_includes_is_a_miss(project: CachedProject, packages: str) -> None:
    project.environ["HOME"] = str(project.root / "home")
    project.write_file("venv/pyvenv.cfg", "home = /base\ninclude-system-site-packages = true\n")
    project.write_file("base/bin/python", "the interpreter", mode=0o755)
    (project.root / "venv/bin").mkdir()
    (project.root / "venv/bin/python").symlink_to("../../base/bin/python")
    project.write_file(f"{packages}/yaml-1.egg-info/PKG-INFO", "")
    lint = project.build_stage("lint", command=("venv/bin/python", "-m", "lint"))
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    (project.root / packages / "yaml-1.egg-info").rename(project.root / packages / "yaml-2.egg-info")
    assert project.run(lint).get_reason("lint") is CacheReason.TOOLS


@pytest.mark.parametrize("changed", ["tools/bin/python", "tools/lib/python3.11/site-packages/ruff-1.dist-info/RECORD"])
@pytest.mark.parametrize("first_line", ["env python", "env -S python -u", "env -Spython -u", "env -S A=1 python"])
def test_change_of_the_interpreter_that_env_finds_is_a_miss(
    project: CachedProject, first_line: str, changed: str
) -> None:
    project.write_file("tools/pyvenv.cfg", "")
    project.write_file("tools/bin/python", "the interpreter", mode=0o755)
    project.write_file("tools/lib/python3.11/site-packages/ruff-1.dist-info/RECORD", "ruff/__init__.py,sha256=a,1\n")
    project.write_file("bin/lint", f"#!/usr/bin/{first_line}\nprint()\n", mode=0o755)
    project.environ["PATH"] = f"{project.root}/tools/bin:{project.root}/bin:/bin"
    lint = project.build_stage("lint")
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file(changed, "ruff/__init__.py,sha256=b,1\n", mode=0o755)
    assert project.run(lint).get_reason("lint") is CacheReason.TOOLS
    assert project.run(lint).is_cached("lint")


def test_changed_interpreter_with_a_relative_path_is_a_miss(project: CachedProject) -> None:
    project.write_file("tools/run", "1", mode=0o755)
    project.write_file("bin/lint", "#!tools/run\n", mode=0o755)
    lint = project.build_stage("lint")
    project.run(lint)
    assert project.run(lint).is_cached("lint")
    project.write_file("tools/run", "2", mode=0o755)
    assert project.run(lint).get_reason("lint") is CacheReason.TOOLS


def test_pipe_among_the_inputs_can_not_be_compared(project: CachedProject) -> None:
    os.mkfifo(project.root / "src/pipe")
    lint = project.build_stage("lint", inputs=("src/**", "README"))
    project.work["lint"] = lambda root, environ, task: ""
    for _ in range(2):
        ran = project.run(lint)
        assert ran.called == ["lint"]
        assert ran.stages["lint"].cache_note == "src/pipe is neither a file nor a folder"


def test_file_that_takes_the_output_is_no_input(project: CachedProject) -> None:
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)

    def lint(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "lint.log").write_text("fine")  # as the engine does for `file`
        return "fine"

    project.work["lint"] = lint
    stage = project.build_stage("lint", inputs=None, output_file=project.root / "lint.log")
    assert project.run(stage).said == []
    assert project.run(stage).is_cached("lint")


def test_own_report_in_the_project_is_no_input_of_a_stage_without_inputs(project: CachedProject) -> None:
    """With `--report junit=report.xml`, or output redirected to a file, no run was a hit."""
    subprocess.run(["git", "init", "-q"], cwd=project.root, check=True)
    project.own_files = [project.root / "report.xml"]
    lint = project.build_stage("lint", inputs=None)
    project.run(lint)
    project.write_file("report.xml", "new")
    assert project.run(lint).is_cached("lint")
    project.own_files = []
    assert project.run(lint).stages["lint"].cache_note == "report.xml is new"


def test_hit_touches_no_other_file_than_the_one_that_takes_the_output(project: CachedProject) -> None:
    """`[1]` in the name of `file` is no pattern."""

    def lint(root: Path, environ: Mapping[str, str], task: PlannedTask) -> str:
        (root / "log[1].txt").write_text("fine")
        return "fine"

    project.work["lint"] = lint
    stage = project.build_stage("lint", output_file=project.root / "log[1].txt")
    project.run(stage)
    (project.root / "log[1].txt").unlink()
    project.write_file("log1.txt", "precious")
    assert project.run(stage).is_cached("lint")
    assert (project.root / "log[1].txt").read_text() == "fine"
    assert (project.root / "log1.txt").read_text() == "precious"


def test_new_file_for_the_output_is_a_miss(project: CachedProject) -> None:
    """It was a hit that wrote no file."""
    project.run(project.build_stage("lint"))
    lint = project.build_stage("lint", output_file=project.root / "lint.log")
    again = project.run(lint)
    assert (again.called, again.stages["lint"].cache_note) == (["lint"], "its outputs changed")


def test_stage_whose_output_goes_out_of_the_project_is_not_kept(project: CachedProject) -> None:
    stage = project.build_stage("lint", output_file=project.root / ".." / "lint.log")
    for _ in range(2):
        ran = project.run(stage)
        assert ran.called == ["lint"]
        assert ran.stages["lint"].cache_note.startswith("its output goes to ../lint.log")


def test_output_named_in_a_line_for_a_shell_is_neither_tool_nor_input(project: CachedProject) -> None:
    line = ("-c", "mkdir -p dist; cp src/a.py dist/out; dist/out")
    build_stage = project.build_stage("build", outputs=("dist",))
    task = PlannedTask(index=0, item=None, work=Commands(steps=(("/bin/sh", *line),)))
    build_stage = replace(build_stage, tasks=(task,))
    assert project.run(build_stage).said == []
    assert project.run(build_stage).is_cached("build")
