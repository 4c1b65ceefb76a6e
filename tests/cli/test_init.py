"""`init` writes a config that `check` passes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator
from msgspec.structs import replace

from paropt_exporter import config, plan
from paropt_exporter.cli import check, init, listing
from paropt_exporter.config.detect import DetectedStages
from paropt_exporter.config.editing import edit_text
from paropt_exporter.config.lanes import find_changed_paths
from paropt_exporter.config.values import Stage
from support import projects
from support.real_servers import run


def _init(folder: Path, *, name: str = "paropt.yml", force: bool = False) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return init.run(folder / name, force=force, stdout=out, stderr=err), out.getvalue(), err.getvalue()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python project whose virtual environment has ruff and pytest."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    folder = tmp_path / "project"
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("ruff", "pytest"):
        (folder / ".venv/bin" / name).write_text("#!/bin/sh\n")
        (folder / ".venv/bin" / name).chmod(0o755)
    (folder / "ruff.toml").touch()
    (folder / "tests").mkdir()
    (folder / "tests/test_one.py").touch()
    return folder


def test_written_config_loads_and_passes_check(project: Path) -> None:
    code, out, err = _init(project)
    assert (code, err) == (0, "")
    assert out.splitlines()[:3] == [
        f"wrote {project / 'paropt.yml'}: 2 stages (quality_gates, unit_tests)",
        "  to run it: paropt-exporter --once",
        "  to look for faults after a change: paropt-exporter check",
    ]
    read = config.read_config(project / "paropt.yml", root=project)
    detected = config.read_config(None, root=project)
    assert [stage.name for stage in read.stages] == ["quality_gates", "unit_tests"]
    assert read.lanes["heavy"].total == detected.lanes["heavy"].total
    assert check.run(project / "paropt.yml", project, lane=None, stdout=io.StringIO(), stderr=io.StringIO()) == 0


def test_written_commands_with_patterns_run_in_a_shell(project: Path) -> None:
    (project / "Makefile").write_text('lint:\n\truff check *.py "it\'s"\n\truff format --check *.py\n')
    (project / "one.py").touch()
    _init(project)
    read = config.read_config(project / "paropt.yml", root=project)
    assert [(stage.steps, stage.shell) for stage in read.stages if stage.shell] == [
        (("ruff check *.py 'it'\"'\"'s'", "ruff format --check *.py"), True)
    ]
    assert check.run(project / "paropt.yml", project, lane=None, stdout=io.StringIO(), stderr=io.StringIO()) == 0


def test_written_config_follows_its_own_schema(project: Path) -> None:
    _init(project)
    schema = json.loads((project / init.SCHEMA).read_text())
    assert [*Draft202012Validator(schema).iter_errors(yaml.safe_load((project / "paropt.yml").read_text()))] == []


def test_stages_have_no_limit_until_they_were_measured(project: Path) -> None:
    _init(project)
    read = config.read_config(project / "paropt.yml", root=project)
    limits = {name: lane.get_limit(stage) for name, lane in read.lanes.items() for stage in read.stages}
    assert limits == dict.fromkeys(("docs", "standard", "heavy"))


def test_stages_have_no_number_that_a_newcomer_would_have_to_keep_up(project: Path) -> None:
    _init(project)
    written = yaml.safe_load((project / "paropt.yml").read_text())
    assert [[*stage] for stage in written["stages"]] == [["name", "run"]] * 2


def test_docs_lane_runs_the_linters_only(project: Path) -> None:
    _init(project)
    assert config.read_config(project / "paropt.yml", root=project).lanes["docs"].stages == ("quality_gates",)


def test_docs_lane_is_not_written_without_linters(tmp_path: Path) -> None:
    _init(tmp_path)
    assert "\n  docs:" not in (tmp_path / "paropt.yml").read_text()


def test_limits_from_measurements_replace_the_missing_ones(project: Path) -> None:
    _init(project)
    text = (project / "paropt.yml").read_text()
    assert "sla: {unit_tests: 5s}" in edit_text(text, {"lanes": {"standard": {"sla": {"unit_tests": "5s"}}}})


def test_a_foreign_file_that_cannot_be_parsed_costs_a_comment(project: Path) -> None:
    (project / "tox.ini").write_text("commands")
    assert _init(project)[0] == 0
    assert "  # tox.ini can't be parsed, and is not used: " in (project / "paropt.yml").read_text()


def test_config_is_written_under_the_given_name(project: Path) -> None:
    _init(project)
    (project / "paropt.yml").write_text("mine")
    code, out, _ = _init(project, name="ci.yml", force=True)
    assert code == 0
    named = f"--config.file {project / 'ci.yml'}"
    assert f"  to run it: paropt-exporter --once {named}\n" in out
    assert f"paropt-exporter check {named}\n" in out
    assert len(config.read_config(project / "ci.yml", root=project).stages) == 2
    assert (project / "paropt.yml").read_text() == "mine"


def test_path_with_spaces_is_quoted_in_the_commands_to_type(project: Path) -> None:
    _, out, _ = _init(project, name="my config.yml")
    assert f"  to run it: paropt-exporter --once --config.file '{project / 'my config.yml'}'\n" in out


def test_commands_are_those_that_would_run_without_a_file(project: Path) -> None:
    _init(project)
    with_file = plan.build_plan(config.read_config(project / "paropt.yml", root=project), "standard")
    without = plan.build_plan(config.read_config(None, root=project), "standard")
    assert [stage.tasks for stage in with_file.stages] == [stage.tasks for stage in without.stages]


def test_file_refers_to_its_schema_and_lists_missing_stages(project: Path) -> None:
    _init(project)
    text = (project / "paropt.yml").read_text()
    modeline = text.splitlines()[0]
    assert modeline.startswith("# yaml-language-server: $schema=")
    assert (project / modeline.partition("$schema=")[2]).is_file()
    assert "# type_checking left out: " in text


def test_git_is_shown_the_config_alone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _init(project)
    monkeypatch.undo()
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    assert {path for path in find_changed_paths(project) if "paropt" in path} == {"paropt.yml"}


def test_schema_is_private_whatever_the_umask(project: Path) -> None:
    before = os.umask(0)
    try:
        _init(project)
    finally:
        os.umask(before)
    own = [project / ".paropt/paropt.schema.json", project / ".paropt/.gitignore"]
    assert [path.stat().st_mode & 0o777 for path in own] == [0o600, 0o600]
    for path in own:
        path.chmod(0o644)  # as earlier versions left them
    check.run(project / "paropt.yml", project, lane=None, stdout=io.StringIO(), stderr=io.StringIO())
    assert [path.stat().st_mode & 0o777 for path in own] == [0o600, 0o600]


@pytest.mark.parametrize("before", [None, "of an earlier version"])
def test_clone_gets_the_schema_by_check(project: Path, before: str | None) -> None:
    _init(project)
    schema = project / ".paropt/paropt.schema.json"
    written = schema.read_text()
    shutil.rmtree(schema.parent)
    if before is not None:
        schema.parent.mkdir()
        schema.write_text(before)
    check.run(project / "paropt.yml", project, lane=None, stdout=io.StringIO(), stderr=io.StringIO())
    assert schema.read_text() == written
    assert (schema.parent / ".gitignore").is_file()


def test_check_writes_nothing_for_a_config_with_another_schema_or_none(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_text("# yaml-language-server: $schema=other.json\nstages: []\n")
    check.run(tmp_path / "paropt.yml", tmp_path, lane=None, stdout=io.StringIO(), stderr=io.StringIO())
    assert [path.name for path in tmp_path.iterdir()] == ["paropt.yml"]


def test_empty_folder_gets_an_example_that_runs(tmp_path: Path) -> None:
    code, out, _ = _init(tmp_path)
    assert (code, out.splitlines()[0]) == (
        0,
        f"wrote {tmp_path}/paropt.yml: no tool was found: put your own commands in place of the stage hello",
    )
    assert check.run(tmp_path / "paropt.yml", tmp_path, lane=None, stdout=io.StringIO(), stderr=io.StringIO()) == 0


def test_project_whose_tools_are_not_installed_says_so(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"scripts": {"lint": "eslint ."}, "devDependencies": {"eslint": "9"}}')
    code, out, _ = _init(tmp_path)
    said = "the project's tools are not installed here: install them, then run init --force"
    assert (code, out.splitlines()[0]) == (0, f"wrote {tmp_path}/paropt.yml: {said}")


def test_config_above_that_no_longer_applies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paropt.yml").write_text("mine")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "package.json").write_text('{"scripts": {"lint": "eslint ."}, "devDependencies": {"eslint": "9"}}')
    monkeypatch.chdir(inner)
    code, out, _ = _init(Path())
    assert code == 0
    assert "  ../paropt.yml no longer applies in this folder\n" in out


def test_folder_without_tools_below_a_config_gets_none_without_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`init` in src/ wrote a config with the stage hello, and the lane of the project no longer ran there."""
    (tmp_path / "paropt.yml").write_text("mine")
    inner = tmp_path / "src"
    inner.mkdir()
    monkeypatch.chdir(inner)
    code, _, err = _init(Path())
    told = "no tool is used in this folder, and ../paropt.yml applies here: edit that (or write one here, with --force)"
    assert (code, err) == (2, f"{told}\n")
    assert [*inner.iterdir()] == []
    assert _init(Path(), force=True)[0] == 0


def test_existing_config_stays_without_force(tmp_path: Path) -> None:
    (tmp_path / "paropt.yml").write_text("mine")
    code, _, err = _init(tmp_path)
    assert (code, err) == (2, "paropt.yml already exists: --force overwrites it\n")
    assert (tmp_path / "paropt.yml").read_text() == "mine"
    assert _init(tmp_path, force=True)[0] == 0
    assert (tmp_path / "paropt.yml").read_text() != "mine"


@pytest.mark.parametrize("folder", ["/", "{tmp_path}"])
def test_folder_in_place_of_a_config_is_one_line(tmp_path: Path, folder: str) -> None:
    named = Path(folder.format(tmp_path=tmp_path))
    for force in (True, False):
        assert _init(named, name="", force=force) == (2, "", f"{named} is a directory: name the file in it\n")


def test_other_spelling_is_never_shadowed(tmp_path: Path) -> None:
    (tmp_path / "paropt.yaml").touch()
    assert _init(tmp_path, force=True)[0] == 2
    assert not (tmp_path / "paropt.yml").exists()


def test_force_replaces_a_link_and_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("keep")
    (tmp_path / "paropt.yml").symlink_to("other")
    assert _init(tmp_path, force=True)[0] == 0
    assert (tmp_path / "other").read_text() == "keep"


def test_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    code, _, err = _init(tmp_path / "missing")
    assert (code, err) == (2, f"{tmp_path}/missing/paropt.yml can't be written: No such file or directory\n")


@pytest.mark.parametrize(
    "words",
    [
        ("yes",),
        ("a b", "c"),
        ("x", "key: value"),
        ("x", "#y"),
        ("é",),
        ("5",),
        ("a'b", '"'),
        ("npm", "run", "test:e2e"),
        ("a:", "b"),
        ("flake8", "--ignore=E1,E2", "a,b"),
        ("a\x7f", "\x9b31m\u202e", "b\x85c\u2028d", "\U0001f468\u200d\U0001f680", "\t\x1b"),
    ],
)
def test_any_words_of_a_command_read_back(tmp_path: Path, words: tuple[str, ...]) -> None:
    stage = Stage(number=1, name="one", run=words)
    path = tmp_path / "paropt.yml"
    text = init.render_config(DetectedStages(stages=(stage,), notes=()), path.parent)
    assert text.replace("\n", "").isprintable()
    path.write_text(text)
    (read,) = plan.build_plan(config.read_config(path, root=tmp_path), "standard").stages
    assert read.tasks[0].work == plan.Commands(steps=(words,))


def test_script_with_a_colon_in_its_name_is_a_plain_command(tmp_path: Path) -> None:
    stage = Stage(number=5, name="integration_tests", run=("npm", "run", "test:e2e"))
    text = init.render_config(DetectedStages(stages=(stage,), notes=()), tmp_path)
    assert "    run: npm run test:e2e\n" in text


def test_option_with_a_comma_stays_a_plain_command(tmp_path: Path) -> None:
    stage = Stage(number=2, name="quality_gates", run=("flake8", "--ignore=E1,E2", "src"))
    text = init.render_config(DetectedStages(stages=(stage,), notes=()), tmp_path)
    assert "    run: flake8 --ignore=E1,E2 src\n" in text


def test_number_in_a_command_needs_no_list(tmp_path: Path) -> None:
    """A stage with `-n 4` was written as ["pytest", "-n", "4"]."""
    stage = Stage(number=4, name="unit_tests", run=("pytest", "-n", "4", "tests"))
    text = init.render_config(DetectedStages(stages=(stage,), notes=()), tmp_path)
    assert "    run: pytest -n 4 tests\n" in text
    dated = replace(stage, run=("2026-11-30", "10:00:00"))  # YAML would read a date
    assert '    run: ["2026-11-30", "10:00:00"]\n' in init.render_config(
        DetectedStages(stages=(dated,), notes=()), tmp_path
    )


def test_variables_and_folder_of_a_stage_read_back(tmp_path: Path) -> None:
    env = {"PYTHONPATH": ".", "WARNINGS": "error::Warning, b", "DEBUG": "1", "ON": "yes"}
    stage = Stage(number=4, name="unit_tests", run=("pytest", "-q"), env=env, cwd="tests")
    text = init.render_config(DetectedStages(stages=(stage,), notes=()), tmp_path)
    (tmp_path / "paropt.yml").write_text(text)
    (tmp_path / "tests").mkdir()
    (read,) = config.read_config(tmp_path / "paropt.yml", root=tmp_path).stages
    assert (read.env, read.cwd) == (env, "tests")
    assert '    env: {PYTHONPATH: ., WARNINGS: "error::Warning, b"' in text


def test_names_that_are_no_utf_8_are_left_out(project: Path) -> None:
    (project / ".venv/bin/mypy").write_text("#!/bin/sh\n")
    (project / ".venv/bin/mypy").chmod(0o755)
    (project / "mypy.ini").touch()
    for name in (b"bad\xff", b"good"):
        (project / os.fsdecode(name)).mkdir()
        (project / os.fsdecode(name) / "__init__.py").touch()
    (project / ".github/workflows").mkdir(parents=True)
    (project / ".github/workflows" / os.fsdecode(b"\xff.yml")).write_text("{")
    assert _init(project)[0] == 0
    _, checked, *_ = config.read_config(project / "paropt.yml", root=project).stages
    assert checked.run == "mypy good"


def test_root_of_several_projects_gets_no_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    for name in ("packages/a", "packages/b\nc"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "pyproject.toml").touch()
    code, out, err = _init(tmp_path)
    assert (code, out) == (2, "")
    told = "no tool is used here, but there are projects below: run init in packages/a, packages/b c (or here, --force)"
    assert err.splitlines() == [told]
    assert not (tmp_path / "paropt.yml").exists()
    assert _init(tmp_path, force=True)[0] == 0


def test_root_whose_tools_are_not_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh clone of a workspace, init said that no tool is used there, and sent its user to the packages."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    (tmp_path / "packages/a").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "packages/a"):
        (folder / "package.json").write_text('{"scripts": {"lint": "eslint ."}}')
    code, out, err = _init(tmp_path)
    assert (code, err) == (0, "")
    assert "the project's tools are not installed here: install them, then run init --force\n" in out
    assert "to run it" not in out and "commit it" not in out  # the next step is to install them
    assert "quality_gates left out: package.json has the script 'lint', but npm is not on PATH" in out
    assert "packages/a: quality_gates left out: package.json has the script 'lint', but npm is not on PATH" in out


def test_one_config_runs_the_projects_below(project: Path) -> None:
    """init sent its user to each folder, so no command ran the checks of a backend and a frontend at once."""
    project.rename(project.with_name("backend"))
    root = project.parent
    (root / "apps/backend").mkdir(parents=True)
    (root / "apps/backend/pyproject.toml").write_text("[tool.ruff]")
    (root / "backend/pyproject.toml").touch()
    shutil.copytree(root / "backend/.venv", root / "apps/.venv")
    code, out, err = _init(root)
    assert (code, err) == (0, "")
    names = ["quality_gates_apps_backend", "quality_gates_backend", "unit_tests_backend"]
    assert out.splitlines()[0] == f"wrote {root / 'paropt.yml'}: 3 stages ({', '.join(names)})"
    read = config.read_config(root / "paropt.yml", root=root)
    assert [(stage.name, stage.run, stage.cwd) for stage in read.stages] == [
        ("quality_gates_apps_backend", "ruff check .", "apps/backend"),
        ("quality_gates_backend", "ruff check .", "backend"),
        ("unit_tests_backend", "pytest -q tests {args}", "backend"),
    ]
    assert read.lanes["docs"].stages == ("quality_gates_apps_backend", "quality_gates_backend")
    assert "integration_tests" not in out  # a line for each stage that a project does not need would be too much
    assert check.run(root / "paropt.yml", root, lane=None, stdout=io.StringIO(), stderr=io.StringIO()) == 0


def test_names_of_the_stages_of_projects_below_are_valid_and_unique(project: Path) -> None:
    folders = [f"{'long' * 40}", "a b", "a_b", "ä+"]
    for name in folders:
        shutil.copytree(project, project.parent / name)
    shutil.rmtree(project)
    for name in folders:
        (project.parent / name / "setup.py").touch()
    assert _init(project.parent)[0] == 0
    read = config.read_config(project.parent / "paropt.yml", root=project.parent)
    assert {stage.cwd for stage in read.stages} == {*folders}
    assert {"unit_tests_a_b", "unit_tests_a_b_2", "unit_tests_ä_"} < {stage.name for stage in read.stages}


def test_linters_of_the_root_check_the_projects_below_too(project: Path) -> None:
    for name in ("a", "b"):
        (project / "packages" / name / "tests").mkdir(parents=True)
        (project / "packages" / name / "tests/test_it.py").touch()
        (project / "packages" / name / "pyproject.toml").write_text("[tool.ruff]\n[tool.black]\n")
    (project / "packages/b/paropt.yml").touch()
    _, out, _ = _init(project)
    read = config.read_config(project / "paropt.yml", root=project)
    assert [stage.name for stage in read.stages] == ["quality_gates", "unit_tests", "unit_tests_a"]
    assert "  packages/b is a project of its own: run `paropt-exporter` there\n" in out
    assert "black" not in out


def test_stage_of_a_project_below_is_not_said_to_be_missing(project: Path) -> None:
    (project / "packages/a").mkdir(parents=True)
    (project / "packages/a/pyproject.toml").touch()
    (project / "tests").rename(project / "packages/a/tests")
    _, out, _ = _init(project)
    assert "2 stages (quality_gates, unit_tests_a)" in out
    assert "unit_tests left out" not in out
    assert "  integration_tests left out: " in out


def test_list_names_the_projects_below_that_have_a_config(tmp_path: Path) -> None:
    for name in (".", "packages/a", "packages/b"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "pyproject.toml").touch()
    for name in (".", "packages/b"):
        (tmp_path / name / "paropt.yml").write_text('stages: [{number: 1, name: lint, run: "true"}]\n')
    out = io.StringIO()
    read = config.read_config(tmp_path / "paropt.yml", root=tmp_path)
    listing.run(read, lane=None, output="text", names_only=False, stdout=out)
    assert out.getvalue().splitlines()[-1] == "projects below  packages/b"


@pytest.mark.parametrize("columns", [50, 80])
def test_list_keeps_within_the_terminal(tmp_path: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    command = "pytest -q " + " ".join(f"tests/test_{number}.py" for number in range(20))
    projects.write(tmp_path, f'name: integration_tests, run: "{command}"')
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    read = config.read_config(tmp_path / "paropt.yml", root=tmp_path)
    listing.run(read, lane=None, output="text", names_only=False, stdout=out)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines[1:])) <= columns
    assert lines[-1].endswith("…")


def _take_proposals(path: Path) -> None:
    """Write the proposed keys of a config as if a user had removed the signs before them."""
    path.write_text(re.sub(r"^( *)# (?=(inputs|cache): )", r"\1", path.read_text(), flags=re.MULTILINE))


def _cached_stages(project: Path) -> dict[str, tuple[str, ...] | None]:
    read = config.read_config(project / "paropt.yml", root=project)
    return {stage.name: stage.inputs for stage in read.stages if plan.is_cached(stage)}


@pytest.fixture
def typed_project(project: Path) -> Path:
    """A project that uses mypy too."""
    (project / ".venv/bin/mypy").write_text("#!/bin/sh\n")
    (project / ".venv/bin/mypy").chmod(0o755)
    (project / "mypy.ini").write_text("[mypy]\n")
    (project / "code.py").write_text("value = 1\n")
    return project


def test_proposed_inputs_cache_lint_types_and_tests(typed_project: Path) -> None:
    _init(typed_project)
    assert _cached_stages(typed_project) == {}  # nothing is cached unless the user wants it
    _take_proposals(typed_project / "paropt.yml")
    assert _cached_stages(typed_project) == {
        "quality_gates": ("**/*.py",),
        "type_checking": ("**/*.py",),
        "unit_tests": ("**",),
    }
    out, err = io.StringIO(), io.StringIO()
    assert check.run(typed_project / "paropt.yml", typed_project, lane=None, stdout=out, stderr=err) == 0
    assert err.getvalue() == ""  # each pattern matches something


@pytest.mark.parametrize(
    "stage",
    [
        Stage(number=2, name="quality_gates", run=("npm", "run", "lint")),
        Stage(number=2, name="quality_gates", run=("make", "lint")),
        Stage(number=2, name="quality_gates", steps=(("npm", "run", "lint"), ("npm", "run", "format:check"))),
    ],
    ids=["script", "target", "scripts"],
)
def test_script_or_target_is_proposed_to_depend_on_all_files(tmp_path: Path, stage: Stage) -> None:
    text = init.render_config(DetectedStages(stages=(stage,), notes=()), tmp_path)
    assert '# inputs: ["**"]\n' in text
    assert "*.py" not in text


def test_stubs_are_proposed_inputs_if_there_are_some(typed_project: Path) -> None:
    (typed_project / "code.pyi").touch()
    _init(typed_project)
    _take_proposals(typed_project / "paropt.yml")
    assert _cached_stages(typed_project)["type_checking"] == ("**/*.py", "**/*.pyi")


def test_notebooks_and_settings_of_subfolders_are_proposed_inputs_if_there_are_some(typed_project: Path) -> None:
    """ruff reads both: after a change of tests/ruff.toml the stage was still cached."""
    (typed_project / "tests/ruff.toml").touch()
    (typed_project / "lib/core").mkdir(parents=True)
    (typed_project / "lib/core/pyproject.toml").touch()
    (typed_project / "one.ipynb").touch()
    _init(typed_project)
    _take_proposals(typed_project / "paropt.yml")
    expected = ("**/*.py", "**/*.ipynb", "*/**/pyproject.toml", "*/**/ruff.toml")
    assert _cached_stages(typed_project)["quality_gates"] == expected


def test_proposed_tests_depend_on_files_that_git_does_not_ignore(typed_project: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=typed_project, check=True, env={"PATH": os.defpath})
    _init(typed_project)
    _take_proposals(typed_project / "paropt.yml")
    assert _cached_stages(typed_project)["unit_tests"] is None
    assert "cache: true" in (typed_project / "paropt.yml").read_text()


def test_lane_with_the_proposals_skips_and_runs_what_a_change_concerns(
    typed_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _init(typed_project)
    _take_proposals(typed_project / "paropt.yml")
    monkeypatch.setenv("PATH", os.defpath)
    for _ in range(2):
        ran = run(typed_project, "--once", projects.ANY_PORT)
    assert "3 stages, 3 cached" in ran.stdout
    (typed_project / "data.json").write_text("{}")  # a test may read it, a linter does not
    ran = run(typed_project, "--once", projects.ANY_PORT)
    assert "3 stages, 2 cached" in ran.stdout and "data.json is new" in ran.stdout
    (typed_project / "code.py").write_text("value = 2\n")
    assert run(typed_project, "--once", projects.ANY_PORT).stdout.count("code.py changed") == 3
