"""Which stages a project gets when it has no config."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.config.detect import DetectedStages, detect_stages


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project on a machine whose PATH has only the programs that a test installs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "project"


def _install(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)


def _write(project: Path, **files: str) -> None:
    for name, content in files.items():
        path = project / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def _commands(detected: DetectedStages) -> dict[str, object]:
    return {stage.name: stage.run or stage.steps for stage in detected.stages}


def test_python_project_gets_five_stages_for_its_own_tools(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "mypy", "pytest", "bandit", "flake8", "pyright")
    _write(
        project,
        pyproject_dot_toml="[tool.ruff]\n[tool.mypy]\nstrict = true\n[dependency-groups]\ndev = ['bandit>=1']\n",
        src__pkg__one_dot_py="",
        tests__test_one_dot_py="",
        tests__integration__test_two_dot_py="",
    )
    detected = detect_stages(project)
    assert _commands(detected) == {
        "quality_gates": ("ruff", "check", "."),
        "type_checking": ("mypy", "src"),
        "unit_tests": ("pytest", "-q", "tests", "--ignore=tests/integration"),
        "integration_tests": ("pytest", "-q", "tests/integration"),
        "security_scan": ("bandit", "-q", "-f", "custom", "-r", "src"),
    }
    assert [stage.number for stage in detected.stages] == [2, 3, 4, 5, 6]
    assert detected.notes == ()


def test_installed_tool_that_the_project_does_not_use_is_left_out(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "mypy", "bandit", "pytest")
    detected = detect_stages(project)
    assert detected.stages == ()
    assert detected.notes[0] == (
        "quality_gates left out: the project shows none of ruff, flake8, npm script lint, make target lint"
    )
    assert len(detected.notes) == 5


def test_used_tool_that_is_not_installed_is_named_with_the_reason(project: Path) -> None:
    _write(project, _dot_flake8="[flake8]\n")
    assert detect_stages(project).notes[0] == (
        "quality_gates left out: the project uses flake8, but it is neither in its virtual environment nor on PATH: "
        "install it"
    )


def test_second_tool_stands_in_for_the_first_and_the_note_stays(project: Path) -> None:
    _install(project.parent / "bin", "pyright")
    _write(project, mypy_dot_ini="[mypy]\n", pyrightconfig_dot_json="{}")
    detected = detect_stages(project)
    assert _commands(detected) == {"type_checking": ("pyright",)}
    assert any("the project uses mypy" in note for note in detected.notes)


@pytest.mark.parametrize("folder", [".venv", "venv"])
def test_tools_of_the_projects_virtual_environment_are_named_without_a_path(project: Path, folder: str) -> None:
    _install(project / folder / "bin", "ruff")
    _write(project, ruff_dot_toml="")
    assert _commands(detect_stages(project))["quality_gates"] == ("ruff", "check", ".")


def test_active_virtual_environment_needs_no_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(project / ".venv/bin", "ruff")
    monkeypatch.setenv("PATH", str(project / ".venv/bin"))
    _write(project, ruff_dot_toml="")
    assert _commands(detect_stages(project))["quality_gates"] == ("ruff", "check", ".")


def test_mypy_is_called_bare_where_its_configuration_says_what_to_check(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, pyproject_dot_toml="[tool.mypy]\nfiles = ['a']\n[tool.other]\n")
    assert _commands(detect_stages(project)) == {"type_checking": ("mypy",)}


def test_npm_scripts_count_and_the_placeholder_of_npm_init_does_not(project: Path) -> None:
    _install(project.parent / "bin", "npm", "pnpm")
    scripts = (
        '{"scripts": {"lint": "eslint .", "typecheck": "tsc", "test": "echo \\"Error: no test specified\\" && exit 1"}}'
    )
    _write(project, package_dot_json=scripts)
    assert _commands(detect_stages(project)) == {
        "quality_gates": ("npm", "run", "lint"),
        "type_checking": ("npm", "run", "typecheck"),
    }
    (project / "pnpm-lock.yaml").touch()
    assert _commands(detect_stages(project))["quality_gates"] == ("pnpm", "run", "lint")


def test_python_and_npm_side_by_side_are_two_stages(project: Path) -> None:
    _install(project.parent / "bin", "npm", "ruff")
    _write(project, package_dot_json='{"scripts": {"lint": "eslint ."}}', ruff_dot_toml="")
    detected = detect_stages(project)
    assert _commands(detected) == {"quality_gates": ("ruff", "check", "."), "quality_gates_npm": ("npm", "run", "lint")}
    assert [stage.number for stage in detected.stages] == [2, 12]


def test_npm_script_that_runs_pytest_again_is_left_out(project: Path) -> None:
    _install(project.parent / "bin", "npm", "pytest")
    _write(project, package_dot_json='{"scripts": {"test": "python -m pytest tests"}}', tests__test_a_dot_py="")
    assert _commands(detect_stages(project)) == {"unit_tests": ("pytest", "-q", "tests")}


def test_make_target_whose_program_is_missing_is_left_out_with_a_note(project: Path) -> None:
    _install(project.parent / "bin", "make")
    _write(project, Makefile="format-check:\n\tblack --check .\n")
    detected = detect_stages(project)
    assert detected.stages == ()
    assert "quality_gates left out: `make format-check` needs black, which is not installed" in detected.notes


def test_next_make_target_stands_in_for_one_whose_program_is_missing(project: Path) -> None:
    _install(project.parent / "bin", "make", "checker")
    _write(project, Makefile="lint:\n\t@black .\nstyle:\n\t@checker .\n")
    assert _commands(detect_stages(project)) == {"quality_gates": ("make", "style")}


@pytest.mark.parametrize("name", ["pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml"])
def test_pytest_finds_the_folders_that_its_configuration_names(project: Path, name: str) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, checks__check_one_dot_py="")
    section = {"setup.cfg": "tool:pytest", "pyproject.toml": "tool.pytest.ini_options"}.get(name, "pytest")
    value = "['checks']" if name == "pyproject.toml" else "checks"
    (project / name).write_text(f"[{section}]\ntestpaths = {value}\n")
    assert _commands(detect_stages(project)) == {"unit_tests": ("pytest", "-q")}


@pytest.mark.parametrize(("value", "found"), [(".", True), ("ch*", True), ("none", False), ("..", False), ("/", False)])
def test_folders_of_tests_may_be_patterns_inside_the_project(project: Path, value: str, found: bool) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, checks__check_one_dot_py="", pytest_dot_ini=f"[pytest]\ntestpaths = {value}\n")
    assert _commands(detect_stages(project)) == ({"unit_tests": ("pytest", "-q")} if found else {})


@pytest.mark.parametrize("folder", ["pkg/tests", "src/pkg/tests"])
def test_tests_inside_the_package_are_found(project: Path, folder: str) -> None:
    _install(project.parent / "bin", "pytest")
    package = project / folder.removesuffix("/tests")
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (project / folder).mkdir()
    (project / folder / "test_one.py").touch()
    assert _commands(detect_stages(project)) == {"unit_tests": ("pytest", "-q", folder)}


def test_tools_get_the_arguments_with_which_the_project_calls_them(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "mypy", "pyright")
    _write(project, src__one_dot_py="", more__two_dot_py="")
    _write(
        project,
        tox_dot_ini="[testenv:lint]\ncommands =\n    ruff check --fix src\n    ruff check src more\n"
        "    ruff format src\n    ruff format --check src\n"
        "[testenv:types]\ncommands =\n    x: mypy --strict src {posargs:-v}\n    mypy more\n",
    )
    assert _commands(detect_stages(project)) == {
        "quality_gates": (("ruff", "check", "src", "more"), ("ruff", "format", "--check", "src")),
        "type_checking": (("mypy", "--strict", "src"), ("mypy", "more")),
    }


@pytest.mark.parametrize("setting", ["[tool.ruff]\nfix = true\n", "[tool.ruff]\nline-length = 9\nfix-only = true\n"])
def test_a_linter_that_is_configured_to_change_files_only_checks(project: Path, setting: str) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, pyproject_dot_toml=setting)
    assert _commands(detect_stages(project)) == {"quality_gates": ("ruff", "check", "--no-fix", ".")}


def test_tool_that_only_a_comment_names_does_not_count(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, setup_dot_cfg="[metadata]\n# mypy is not used\n")
    assert detect_stages(project).stages == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [("pyproject.toml", "[tool"), ("tox.ini", "commands"), ("noxfile.py", "def"), ("package.json", "{")],
)
def test_a_file_that_cannot_be_parsed_costs_a_note(project: Path, name: str, content: str) -> None:
    (project / name).write_text(content)
    assert detect_stages(project).notes[0].startswith(f"{name} can't be parsed, and is not used: ")


def test_make_targets_count_unless_the_makefile_runs_this_very_command(project: Path) -> None:
    _install(project.parent / "bin", "make")
    _write(project, Makefile="lint test: dep\n\techo\nVARIABLE := x\n.PHONY: lint\n")
    assert _commands(detect_stages(project)) == {"quality_gates": ("make", "lint"), "unit_tests": ("make", "test")}
    _write(project, Makefile="test:\n\tparopt-exporter --lane standard\n")
    assert detect_stages(project).stages == ()


@pytest.mark.parametrize("content", ["{", "[]", '{"scripts": 5}', '{"scripts": {"lint": 5}}', "[" * 100_000])
def test_broken_package_file_is_no_reason_to_fail(project: Path, content: str) -> None:
    _write(project, package_dot_json=content)
    assert detect_stages(project).stages == ()


def test_missing_folder_has_no_tools(project: Path) -> None:
    assert detect_stages(project / "missing").stages == ()


def test_without_a_file_the_config_has_the_detected_stages_and_notes(project: Path) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, ruff_dot_toml="")
    read = config.read_config(None, root=project)
    assert [stage.name for stage in read.stages] == ["quality_gates"]
    assert len(read.notes) == 4
    assert read.path is None


def test_file_without_stages_keeps_its_lanes_and_gets_the_detected_stages(project: Path) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, ruff_dot_toml="", paropt_dot_yml="lanes: {quick: {workers: 2}}\n")
    read = config.read_config(project / "paropt.yml", root=project)
    assert "quick" in read.lanes
    assert [stage.name for stage in read.stages] == ["quality_gates"]


def _unit_tests(project: Path) -> tuple[object, str | None]:
    stage = next(stage for stage in detect_stages(project).stages if stage.name == "unit_tests")
    return stage.run, stage.items.glob if stage.items is not None else None


_LONG = "#" * 200_000


def _write_large_suite(project: Path) -> None:
    """Write two test files of a project that runs them with pytest-xdist."""
    _write(project, tests__test_a_dot_py=_LONG, tests__test_b_dot_py="", requirements_dot_txt="pytest-xdist\n")


def test_large_suite_that_runs_under_xdist_becomes_batches(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write_large_suite(project)
    _write(project, tests__helpers_dot_py="")
    assert _unit_tests(project) == (("pytest", "-q", "{items}"), "tests/test_*.py")
    _write(project, tests__sub__test_c_dot_py="")
    assert _unit_tests(project) == (("pytest", "-q", "{items}"), "tests/**/test_*.py")


def test_large_suite_of_a_project_without_a_file_stays_in_one_pytest(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write_large_suite(project)
    (stage,) = (each for each in config.read_config(None, root=project).stages if each.name == "unit_tests")
    assert (stage.run, stage.items) == (("pytest", "-q", "tests"), None)


def test_suite_that_never_ran_in_parts_stays_in_one_pytest(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py=_LONG, tests__test_b_dot_py="")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


def test_small_suite_stays_in_one_pytest(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py="", tests__test_b_dot_py="", requirements_dot_txt="pytest-xdist\n")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


@pytest.mark.parametrize(
    "options",
    [
        "addopts = '-n auto'", "addopts = ['--cov=pkg', '-q']", "addopts = '-x'", "addopts = '--doctest-modules'",
        "addopts = '--junitxml=report.xml'", "python_files = 'check_*.py'",
    ],
)  # fmt: skip
def test_tests_that_are_configured_to_run_as_a_whole_stay_in_one_pytest(project: Path, options: str) -> None:
    _install(project.parent / "bin", "pytest")
    _write_large_suite(project)
    _write(project, pyproject_dot_toml=f"[tool.pytest.ini_options]\n{options}\n")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


@pytest.mark.parametrize("name", ["pytest.ini", "tox.ini", "setup.cfg"])
def test_options_in_other_files_count_too(project: Path, name: str) -> None:
    _install(project.parent / "bin", "pytest")
    _write_large_suite(project)
    section = "tool:pytest" if name == "setup.cfg" else "pytest"
    (project / name).write_text(f"[{section}]\naddopts =\n    --strict-markers\n    --cov\n")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


def test_folders_that_pytest_does_not_enter_have_no_items(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write_large_suite(project)
    _write(project, tests__typing__test_c_dot_py="")
    _write(project, pyproject_dot_toml="[tool.pytest.ini_options]\nnorecursedirs = 'docs tests/typing'\n")
    assert _unit_tests(project) == (("pytest", "-q", "{items}"), "tests/test_*.py")
    _write(project, tests__build__test_c_dot_py="", tests__more__test_d_dot_py="")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


def test_files_that_a_conftest_would_not_collect_are_no_items(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write_large_suite(project)
    _write(project, tests__conftest_dot_py="collect_ignore = ['test_b.py']\n")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


def test_suite_that_needs_one_pytest_runs_in_the_processes_of_its_own_command(project: Path) -> None:
    _install(project / ".venv/bin", "pytest")
    _write_large_suite(project)
    _write(project, tests__conftest_dot_py="collect_ignore = ['test_b.py']\n")
    _write(project, tox_dot_ini="[testenv]\ncommands =\n    tests: pytest {posargs:-n auto}\n")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)  # without pytest-xdist
    (project / ".venv/lib/python3.11/site-packages/xdist").mkdir(parents=True)
    assert _unit_tests(project) == (("pytest", "-q", "-n", "auto", "tests"), None)
    _write(project, pyproject_dot_toml="[tool.pytest.ini_options]\naddopts = '-n auto'\n")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


@pytest.mark.parametrize("text", ["[tool.pytest", "tool = 1", "[tool]\npytest = 'x'"])
def test_unreadable_configuration_counts_as_none(project: Path, text: str) -> None:
    _install(project.parent / "bin", "pytest")
    _write_large_suite(project)
    _write(project, pyproject_dot_toml=text)
    assert _unit_tests(project) == (("pytest", "-q", "{items}"), "tests/test_*.py")


def test_long_file_of_empty_lines_costs_no_time(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, mypy_dot_ini="\n" * 500_000, pyproject_dot_toml="[tool.mypy]\n" + "\n" * 500_000, a_dot_py="")
    began = time.process_time()
    detect_stages(project)
    assert time.process_time() - began < 5


def test_make_test_wins_over_a_pytest_that_no_file_of_the_project_speaks_of(project: Path) -> None:
    _install(project.parent / "bin", "pytest", "make", "python")
    _write(project, tests__test_a_dot_py="", Makefile="test:\n\tpython -m django test tests\n")
    assert _unit_tests(project) == (("make", "test"), None)
    _write(project, requirements_dot_txt="pytest\n")
    assert _unit_tests(project) == (("pytest", "-q", "tests"), None)


def test_npm_script_of_packages_that_are_not_installed_is_left_out(project: Path) -> None:
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json='{"scripts": {"test": "vitest"}, "devDependencies": {"vitest": "*"}}')
    detected = detect_stages(project)
    assert detected.stages == ()
    told = "unit_tests left out: package.json has the script 'test', but no node_modules: npm install"
    assert told in detected.notes
    (project / "node_modules").mkdir()
    assert _unit_tests(project) == (("npm", "run", "test"), None)


def test_root_of_several_projects_names_them_instead_of_missing_tools(project: Path) -> None:
    _write(project, packages__a__pyproject_dot_toml="", web__package_dot_json="{}", packages__b__README="")
    detected = detect_stages(project)
    assert detected.stages == ()
    assert detected.notes == (
        "packages/a is a project of its own: run `paropt-exporter init` there",
        "web is a project of its own: run `paropt-exporter init` there",
    )


def test_tools_of_the_root_win_over_projects_below_it(project: Path) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, pyproject_dot_toml="[tool.ruff]", packages__a__pyproject_dot_toml="")
    detected = detect_stages(project)
    assert [stage.name for stage in detected.stages] == ["quality_gates"]
    assert not any("project of its own" in note for note in detected.notes)
