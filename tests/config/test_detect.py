"""Which stages a project gets when it has no config."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.config.detect import DetectedStages, describe_projects, detect_stages


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
    return {stage.name: _drop_arguments(stage.run) or stage.steps for stage in detected.stages}


def _drop_arguments(command: object) -> object:
    """Return a command without its last word if that is `{args}`, about which one test is."""
    return command[:-1] if isinstance(command, tuple) and command[-1] == "{args}" else command


def test_pytest_takes_arguments(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "pytest")
    _write(project, ruff_dot_toml="", tests__test_one_dot_py="", tests__e2e__test_two_dot_py="")
    assert [stage.run for stage in detect_stages(project).stages] == [
        ("ruff", "check", "."),
        ("pytest", "-q", "tests", "--ignore=tests/e2e", "{args}"),
        ("pytest", "-q", "tests/e2e", "{args}"),
    ]


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


@pytest.mark.parametrize("own", ["", "[testenv]\ncommands = pytest tests\n"], ids=["usual", "own command"])
@pytest.mark.parametrize(
    ("option", "action", "added"),
    [
        ("--integration", "store_true", True),
        ("--run-e2e", "store_true", True),
        ("--integration-host", "store", False),
        ("--slow", "store_true", False),
    ],
)
def test_integration_tests_get_the_option_that_they_need(
    project: Path, own: str, option: str, action: str, *, added: bool
) -> None:
    """Without it pytest deselected all of poetry-core's, and the stage failed with exit code 5."""
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py="", tests__integration__test_b_dot_py="", tox_dot_ini=own)
    conftest = (
        f'def pytest_addoption(parser):\n    parser.addoption(\n        "{option}",\n        action="{action}")\n'
    )
    _write(project, tests__conftest_dot_py=conftest)
    command = _commands(detect_stages(project))["integration_tests"]
    assert command == ("pytest", "-q", "tests/integration", *([option] if added else []))


def test_installed_tool_that_the_project_does_not_use_is_left_out(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "mypy", "bandit", "pytest")
    _write(project, app_dot_py="")
    detected = detect_stages(project)
    assert detected.stages == ()
    assert detected.notes == (
        "quality_gates left out: the project uses neither ruff nor flake8",
        "type_checking left out: the project uses neither mypy nor pyright",
        "unit_tests left out: the project has no tests/test_*.py",
        "integration_tests left out: the project has no tests/integration or tests/e2e",
        "security_scan left out: the project does not use bandit",
    )


def test_notes_name_npm_and_make_only_in_projects_that_use_them(project: Path) -> None:
    """In a project of Python, each of five notes named an npm script and a make target."""
    _write(project, Makefile="build:\n\ttrue\n", package_dot_json="{}", app_dot_py="")
    assert detect_stages(project).notes[-2:] == (
        "integration_tests left out: the project has no tests/integration, tests/e2e, `npm run test:integration` or "
        "`make test-integration`",
        "security_scan left out: the project does not use bandit, and has no `npm run audit` or `make security`",
    )


def test_mypy_learns_where_the_namespace_packages_of_src_begin(project: Path) -> None:
    """It failed for pdm-backend, since it found src/pdm/backend/wheel.py twice: here and as it was installed."""
    _install(project.parent / "bin", "mypy")
    _write(project, mypy_dot_ini="[mypy]\n", src__pdm__backend__wheel_dot_py="")
    (project / "src/pdm/backend/__init__.py").touch()
    (stage,) = detect_stages(project).stages
    assert (stage.run, stage.env) == (("mypy", "--explicit-package-bases", "src"), {"MYPYPATH": "src"})
    _write(project, mypy_dot_ini="[mypy]\nmypy_path = src\n")
    assert _commands(detect_stages(project))["type_checking"] == ("mypy", "src")
    (project / "src/pdm/__init__.py").touch()
    _write(project, mypy_dot_ini="[mypy]\n")
    assert _commands(detect_stages(project))["type_checking"] == ("mypy", "src")


def test_notes_on_other_languages_do_not_name_pythons_tools(project: Path) -> None:
    """A project in C or JavaScript was said to use neither ruff nor flake8."""
    (*kinds, last) = ("quality_gates", "type_checking", "unit_tests", "integration_tests", "security_scan")
    assert detect_stages(project).notes == (
        f"{', '.join(kinds)}, {last} left out: the project has no known tool for it",
    )
    _write(project, Makefile="build:\n\ttrue\n", main_dot_c="")
    assert detect_stages(project).notes == (
        "quality_gates left out: the project has no `make lint`",
        "type_checking left out: the project has no `make typecheck`",
        "unit_tests left out: the project has no `make test`",
        "integration_tests left out: the project has no `make test-integration`",
        "security_scan left out: the project has no `make security`",
    )


def test_target_whose_program_is_not_installed_is_noted_once(project: Path) -> None:
    _install(project.parent / "bin", "make", "go")
    _write(project, Makefile="lint:\n\tgolangci-lint run -v\n", go_dot_mod="")
    notes = [note for note in detect_stages(project).notes if note.startswith("quality_gates")]
    assert notes == ["quality_gates: `make lint` needs golangci-lint, which is not installed"]


def test_activation_of_a_virtual_environment_is_no_check(project: Path) -> None:
    _install(project.parent / "bin", "make", "ruff")
    _write(project, Makefile="lint:\n\t. venv/bin/activate; \\\n\truff check .\n")
    assert not any("also runs" in note for note in detect_stages(project).notes)


def test_used_tool_that_is_not_installed_is_named_with_the_reason(project: Path) -> None:
    _write(project, _dot_flake8="[flake8]\n")
    assert detect_stages(project).notes[0] == (
        "quality_gates left out: the project uses flake8, but it is neither in its virtual environment nor on PATH: "
        "install it"
    )


def test_second_tool_replaces_a_missing_first_and_the_note_stays(project: Path) -> None:
    _install(project.parent / "bin", "pyright")
    _write(project, mypy_dot_ini="[mypy]\n", pyrightconfig_dot_json="{}")
    detected = detect_stages(project)
    assert _commands(detected) == {"type_checking": ("pyright",)}
    assert any("the project uses mypy" in note for note in detected.notes)


def test_program_outside_of_the_virtual_environment_that_imports_packages_is_noted(project: Path) -> None:
    """A mypy or pytest of pipx found none of the project's packages, and the stage failed for each of them."""
    _install(project.parent / "bin", "mypy", "pytest")
    _install(project / ".venv/bin", "python")
    _write(project, mypy_dot_ini="[mypy]\n", tests__test_one_dot_py="", _dot_venv__pyvenv_dot_cfg="")
    note = "is not in the virtual environment, so it does not find the packages there: install it there"
    notes = detect_stages(project).notes
    assert f"type_checking: mypy {note}" in notes and f"unit_tests: pytest {note}" in notes
    _install(project / ".venv/bin", "mypy", "pytest")
    assert not any(note in each for each in detect_stages(project).notes)


@pytest.mark.parametrize("folder", [".venv", "venv"])
def test_tools_of_the_projects_virtual_environment_are_named_without_a_path(project: Path, folder: str) -> None:
    _install(project / folder / "bin", "ruff")
    _write(project, ruff_dot_toml="")
    assert _commands(detect_stages(project))["quality_gates"] == ("ruff", "check", ".")


@pytest.mark.parametrize(
    ("name", "text", "manager"),
    [
        ("pyproject.toml", "[tool.poetry]\nname = 'x'\n[tool.ruff]", "poetry"),
        ("pyproject.toml", "[tool.hatch.envs.lint]\ndependencies = ['ruff']", "hatch"),
        ("Pipfile", "[dev-packages]\nruff = '*'", "pipenv"),
    ],
)
def test_tools_may_be_in_an_environment_that_another_program_keeps(
    project: Path, name: str, text: str, manager: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a project of Poetry, init said to install the tools that `poetry install` had installed."""
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    (project / name).write_text(text)
    note = f"if {manager} has the tools in an environment of its own: `{manager} run paropt-exporter init --force`"
    assert note in detect_stages(project).notes
    monkeypatch.setenv("VIRTUAL_ENV", str(project.parent / "active"))
    assert note not in detect_stages(project).notes


def test_tools_of_a_workspaces_virtual_environment_are_found_in_its_packages(project: Path) -> None:
    """uv has one .venv for all packages of a workspace, at its root."""
    _install(project / ".venv/bin", "ruff")
    _write(project, packages__a__ruff_dot_toml="")
    assert _commands(detect_stages(project / "packages/a"))["quality_gates"] == ("ruff", "check", ".")


def test_active_virtual_environment_needs_no_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(project / ".venv/bin", "ruff")
    monkeypatch.setenv("PATH", str(project / ".venv/bin"))
    _write(project, ruff_dot_toml="")
    assert _commands(detect_stages(project))["quality_gates"] == ("ruff", "check", ".")


@pytest.mark.parametrize("recipe", ["mypy --version", "sh -c 'cd typing && mypy --config-file a && mypy --strict .'"])
def test_calls_that_print_or_are_in_quotes_are_not_the_projects(project: Path, recipe: str) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, mypy_dot_ini="[mypy]\n", Makefile=f"types-of-tests:\n\t{recipe}\n", a_dot_py="")
    assert _commands(detect_stages(project)) == {"type_checking": ("mypy", ".")}


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


@pytest.mark.parametrize(
    ("lint", "check", "also"),
    [
        ("eslint .", "prettier --check .", True),
        ("eslint . && npm run format:check", "prettier --check .", False),
        ("prettier --check . && eslint .", "prettier --check .", False),
        ("npx eslint .", "npx prettier --check .", True),
        ("npx prettier . --check && npx eslint .", "npx prettier --check .", False),
        ("biome lint .", "biome format .", True),
        ("eslint .", "onchange . -- prettier --check . --watch", False),
    ],
)
def test_npm_script_that_checks_the_format_runs_after_the_linter(
    project: Path, lint: str, check: str, *, also: bool
) -> None:
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json=f'{{"scripts": {{"lint": "{lint}", "format:check": "{check}"}}}}')
    steps = (("npm", "run", "lint"), ("npm", "run", "format:check"))
    assert _commands(detect_stages(project)) == {"quality_gates": steps if also else steps[0]}


@pytest.mark.parametrize(
    ("lock", "manager", "runner"),
    [
        ("bun.lock", "", "bun"), ("yarn.lock", "pnpm@9.0.0", "pnpm"), ("", "pnpm@9.0.0", "pnpm"), ("", "yarn", "yarn"),
        ("yarn.lock", "npm@11.0.0", "npm"), ("yarn.lock", "", "yarn"), ("", "other@1", "npm"),
    ],
)  # fmt: skip
def test_scripts_are_called_by_the_projects_package_manager(
    project: Path, lock: str, manager: str, runner: str
) -> None:
    """Turborepo's and Bun's templates got `npm run`; that of Turborepo calls its types check-types."""
    _install(project.parent / "bin", "npm", "pnpm", "yarn", "bun")
    _write(project, package_dot_json=f'{{"scripts": {{"check-types": "tsc"}}, "packageManager": "{manager}"}}')
    if lock:
        (project / lock).touch()
    assert _commands(detect_stages(project)) == {"type_checking": (runner, "run", "check-types")}


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
    _write(project, Makefile="format-check:\n\tprettier --check .\n")
    detected = detect_stages(project)
    assert detected.stages == ()
    assert "quality_gates left out: `make format-check` needs prettier, which is not installed" in detected.notes


@pytest.mark.parametrize(("recipe", "target"), [("check: all\n\tctest", "check"), ("check test:\n\tctest", "test")])
def test_make_check_runs_the_tests_of_a_project_without_make_test(project: Path, recipe: str, target: str) -> None:
    _install(project.parent / "bin", "make", "ctest")
    _write(project, Makefile=recipe)
    assert _commands(detect_stages(project)) == {"unit_tests": ("make", target)}


def test_next_make_target_replaces_one_whose_program_is_missing(project: Path) -> None:
    _install(project.parent / "bin", "make", "checker")
    _write(project, Makefile="lint:\n\t@black .\nstyle:\n\t@checker .\n")
    assert _commands(detect_stages(project)) == {"quality_gates": ("make", "style")}


@pytest.mark.parametrize(
    ("sign", "programs", "lint", "test"),
    [
        ("go.mod", ("go",), ("go", "vet", "./..."), ("go", "test", "./...")),
        ("Cargo.toml", ("cargo", "cargo-clippy"), ("cargo", "clippy", "--all-targets"), ("cargo", "test")),
    ],
)
def test_project_of_another_language_gets_the_tools_that_come_with_it(
    project: Path, sign: str, programs: tuple[str, ...], lint: tuple[str, ...], test: tuple[str, ...]
) -> None:
    (project / sign).touch()
    missing = detect_stages(project)
    assert missing.lacks_programs
    assert f"unit_tests left out: the project has {sign}, but {programs[0]} is not on PATH" in " ".join(missing.notes)
    _install(project.parent / "bin", *programs)
    assert _commands(detect_stages(project)) == {"quality_gates": lint, "unit_tests": test}


def test_make_target_comes_before_the_tool_of_a_language(project: Path) -> None:
    _install(project.parent / "bin", "make", "go", "prepare")
    _write(project, go_dot_mod="module a\n", Makefile="test:\n\tprepare\n\tgo test ./...\n")
    commands = _commands(detect_stages(project))
    assert commands == {"quality_gates": ("go", "vet", "./..."), "unit_tests": ("make", "test")}


@pytest.mark.parametrize("name", ["pytest.ini", "tox.ini", "setup.cfg", "pyproject.toml"])
def test_pytest_finds_the_folders_that_its_configuration_names(project: Path, name: str) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, checks__check_one_dot_py="")
    section = {"setup.cfg": "tool:pytest", "pyproject.toml": "tool.pytest.ini_options"}.get(name, "pytest")
    value = "['checks']" if name == "pyproject.toml" else "checks"
    (project / name).write_text(f"[{section}]\ntestpaths = {value}\n")
    assert _commands(detect_stages(project)) == {"unit_tests": ("pytest", "-q")}


@pytest.mark.parametrize(
    ("value", "found"),
    [(".", True), ("ch*", True), ("none", False), ("..", False), ("/", False), ("**ecks", True), ("**/c**s", True)],
)
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


def test_tests_in_several_packages_run_from_the_folder_above_all_of_them(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, net__tests__test_a_dot_py="", net__sub__deep__tests__test_b_dot_py="")
    _write(project, net__vendor__tests__test_of_others_dot_py="")
    (project / "net" / "__init__.py").touch()
    assert _commands(detect_stages(project)) == {"unit_tests": ("pytest", "-q", "net")}


def test_tests_in_the_sources_beside_the_folder_of_the_tests_are_named(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py="", src__net__tests__test_b_dot_py="", src__web__tests__test_c_dot_py="")
    detected = detect_stages(project)
    assert _commands(detected) == {"unit_tests": ("pytest", "-q", "tests")}
    told = "no stage runs the tests in src/net/tests, src/web/tests: add them to the stage's command"
    assert f"unit_tests: {told} if they belong to it" in detected.notes
    _write(project, tox_dot_ini="[testenv]\ncommands = pytest tests\n")
    assert not any("no stage runs" in note for note in detect_stages(project).notes)


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"net__one_test_dot_py": "", "docs__two_test_dot_py": ""}, ("pytest", "-q", "net")),
        ({"checks__test_a_dot_py": "", "net__test_b_dot_py": "", "_venv__test_c_dot_py": ""}, ("pytest", "-q", ".")),
        ({"shop__tests_dot_py": "", "pytest_dot_ini": "[pytest]\npython_files = tests.py test_*.py"},
         ("pytest", "-q", "shop")),
        ({"checks__a_test_dot_py": "", "pytest_dot_toml": "[pytest]\ntestpaths = ['checks']"}, ("pytest", "-q")),
    ],
)  # fmt: skip
def test_tests_beside_the_modules_are_found(project: Path, files: dict[str, str], command: tuple[str, ...]) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, conftest_dot_py="", **files)
    assert _commands(detect_stages(project)) == {"unit_tests": command}


@pytest.mark.parametrize("line", ["jest --watch", "vitest watch", "react-scripts test"])
def test_script_that_watches_files_is_left_out(project: Path, line: str) -> None:
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json=f'{{"scripts": {{"test": "{line}"}}}}')
    detected = detect_stages(project)
    assert _commands(detected) == {}
    told = "package.json has the script 'test', but it watches files, and would not end"
    assert f"unit_tests left out: {told}" in detected.notes
    _write(project, package_dot_json=f'{{"scripts": {{"test": "{line}", "test:ci": "{line} --watch=false"}}}}')
    assert _commands(detect_stages(project)) == {"unit_tests": ("npm", "run", "test:ci")}


def test_script_that_says_that_it_runs_in_ci_watches_no_files(project: Path) -> None:
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json='{"scripts": {"test": "cross-env CI=true react-scripts test"}}')
    assert _commands(detect_stages(project)) == {"unit_tests": ("npm", "run", "test")}


@pytest.mark.parametrize(("runner", "watches"), [("karma", True), ("vitest", False)])
def test_angulars_tests_watch_files_if_karma_runs_them(project: Path, runner: str, *, watches: bool) -> None:
    _install(project.parent / "bin", "npm")
    (project / "node_modules").mkdir()
    _write(project, package_dot_json=f'{{"scripts": {{"test": "ng test"}}, "devDependencies": {{"{runner}": "*"}}}}')
    detected = detect_stages(project)
    assert _commands(detected) == ({} if watches else {"unit_tests": ("npm", "run", "test")})
    assert not detected.lacks_programs


@pytest.mark.parametrize(
    ("scripts", "stage", "chosen"),
    [
        ({"test": "npm run test-unit && npm run test-build", "test-unit": "vitest run"}, "unit_tests", "test-unit"),
        ({"test": "npm run unit-test", "unit-test": "mocha"}, "unit_tests", "unit-test"),
        ({"test-e2e": "playwright test"}, "integration_tests", "test-e2e"),
        ({"check_types": "tsc"}, "type_checking", "check_types"),
        ({"check": "svelte-kit sync && svelte-check"}, "type_checking", "check"),
        ({"check": "tsc --noEmit && biome check"}, "type_checking", "check"),
        ({"check": "biome check ."}, "quality_gates", "check"),
    ],
)
def test_script_is_found_by_its_words_or_by_the_program_of_check(
    project: Path, scripts: dict[str, str], stage: str, chosen: str
) -> None:
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json=json.dumps({"scripts": scripts}))
    assert _commands(detect_stages(project)) == {stage: ("npm", "run", chosen)}


def test_script_check_of_an_unknown_program_is_no_stage(project: Path) -> None:
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json='{"scripts": {"check": "node scripts/check.js"}}')
    assert _commands(detect_stages(project)) == {}


@pytest.mark.parametrize(
    ("scripts", "told"),
    [
        ({"lint": 'eslint "src/**/*.ts" --fix'}, '--fix): {}, such as `npx eslint "src/**/*.ts"`'),
        ({"lint": "vue-tsc && eslint --fix"}, "--fix): {}"),
        ({"lint": "run-s lint:*", "lint:a": "oxlint", "lint:b": "eslint --fix ."}, "--fix): {}"),
        ({"lint": "yarn lint:css", "lint:css": "prettier --write ."}, "--write): {}"),
        ({"lint": "biome check --apply-unsafe ."}, "--apply-unsafe): {}, such as `npx biome check .`"),
    ],
)  # fmt: skip
def test_linter_that_changes_files_is_no_stage(project: Path, scripts: dict[str, str], told: str) -> None:
    """As in NestJS' and Vue's templates. Tests would read the files meanwhile, and in CI each fault would pass."""
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json=json.dumps({"scripts": scripts}))
    detected = detect_stages(project)
    assert (_commands(detected), detected.lacks_programs) == ({}, False)
    told = told.format("write a stage that only checks")
    assert f"quality_gates left out: package.json has the script 'lint', but it changes files ({told}" in detected.notes
    _write(project, package_dot_json=json.dumps({"scripts": scripts | {"lint": "eslint . --fix-dry-run"}}))
    assert _commands(detect_stages(project)) == {"quality_gates": ("npm", "run", "lint")}


@pytest.mark.parametrize(
    ("other", "folder"), [("integration", ("tests/unit",)), ("e2e", ("tests/unit",)), ("functional", ("tests",))]
)
def test_tests_beside_the_unit_tests_are_not_left_out(project: Path, other: str, folder: tuple[str, ...]) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__unit__test_a_dot_py="", **{f"tests__{other}__test_b_dot_py": ""})
    assert _commands(detect_stages(project))["unit_tests"] == ("pytest", "-q", *folder)


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


@pytest.mark.parametrize(
    ("hook", "stage", "command"),
    [
        ("{id: bandit}", "security_scan", ("bandit", "-q", "-f", "custom", "-r", "src")),
        ("{id: bandit, args: [-c, pyproject.toml]}", "security_scan", ("bandit", "-c", "pyproject.toml", "-r", "src")),
        ("{id: bandit, args: [-r, src]}", "security_scan", ("bandit", "-r", "src")),
        ("{id: bandit, args: [-ll], files: ^src/}", "security_scan", ("bandit", "-r", "-ll", "src")),
        ("{id: mypy, args: [--config-file, my.ini]}", "type_checking", ("mypy", "--config-file", "my.ini", "src")),
        ("{id: mypy, args: [-p, pkg]}", "type_checking", ("mypy", "-p", "pkg")),
        (
            "{id: mypy, pass_filenames: false, files: '^x|y$', exclude: z, args: [--config-file=a.ini, src]}",
            "type_checking",
            ("mypy", "--config-file=a.ini", "src"),
        ),
        ("{id: black, pass_filenames: false, args: [.]}", "quality_gates", ("black", "--check", ".")),
        ("{id: ruff-format, args: [--check]}", "quality_gates", ("ruff", "format", "--check", ".")),
    ],
)
def test_hooks_of_pre_commit_get_the_files_that_it_would_give_them(
    project: Path, hook: str, stage: str, command: tuple[str, ...]
) -> None:
    _install(project.parent / "bin", "bandit", "black", "mypy", "ruff")
    _write(project, src__a_dot_py="", pyproject_dot_toml="", my_dot_ini="")
    (project / ".pre-commit-config.yaml").write_text(f"repos: [{{repo: a, hooks: [{hook}]}}]\n")
    (found,) = (each for each in detect_stages(project).stages if each.name == stage)
    assert command in (found.run, *(found.steps or ()))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "tox.ini",
            "[testenv]\ncommands_pre =\n    latest: pip install y\n    - {envpython} build.py\n    pip --version\n"
            "    coverage erase\n    pip install x\ncommands = pytest tests\n",
        ),
        (
            "tox.toml",
            "[env_run_base]\ncommands_pre = [['python', 'build.py'], ['pip', '--version'], ['pip', 'install', 'x']]\n"
            "commands = [['pytest', 'tests']]\n",
        ),
        (
            "Makefile",
            "test: python-build install lint | x\n\tpytest tests\npython-build:\n\tpython build.py\n"
            "install:\n\tpip install x\nlint:\n\truff check\n",
        ),
        ("justfile", "test *args: python-build\n    pytest tests {{args}}\npython-build:\n    python build.py\n"),
    ],
)
def test_note_on_the_preparation_of_the_tests(project: Path, name: str, text: str) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py="")
    (project / name).write_text(text)
    detected = detect_stages(project)
    assert _commands(detected) == {"unit_tests": ("pytest", "-q", "tests")}
    runner = {"Makefile": "make", "justfile": "just"}.get(name)
    before = f"{runner} python-build" if runner else "python build.py; pip install x"
    told = f"runs `{before}` before the tests: "
    assert f"unit_tests: {name} {told}add it to the stage's steps if they need it" in detected.notes


def test_pytest_of_another_environment_does_not_count_for_python_m_pytest(project: Path) -> None:
    _install(project.parent / "bin", "python", "pytest")
    _write(project, tests__test_a_dot_py="", tox_dot_ini="[testenv]\ncommands = python -m pytest tests\n")
    assert _commands(detect_stages(project)) == {"unit_tests": ("python", "-m", "pytest", "-q", "tests")}
    _install(project / ".venv/bin", "python")
    (project / ".venv/pyvenv.cfg").touch()
    detected = detect_stages(project)
    assert _commands(detected) == {}
    told = "the project runs `python -m pytest`, but pytest is not in its virtual environment: install it"
    assert f"unit_tests left out: {told}" in detected.notes
    (project / ".venv/pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    assert "unit_tests" in _commands(detect_stages(project))
    (project / ".venv/pyvenv.cfg").write_text("include-system-site-packages = false\n")
    _install(project / ".venv/bin", "pytest")
    assert "unit_tests" in _commands(detect_stages(project))


@pytest.mark.parametrize(
    "setting",
    ["[tool.ruff]\nfix = true\n", "[tool.ruff]\nline-length = 9\nfix-only = true\n", "[tool]\nruff.fix = true\n"],
)
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


@pytest.mark.parametrize(
    ("name", "line", "runner"),
    [
        ("Makefile", "include ./mk/*.mk  # all", "make"),
        ("Makefile", "-include $(MISSING) no.mk mk/checks.mk", "make"),
        ("justfile", "import 'mk/checks.mk'", "just"),
    ],
)
def test_targets_of_included_files_count(project: Path, name: str, line: str, runner: str) -> None:
    _install(project.parent / "bin", runner, "bandit", "checker")
    _write(project, mk__checks_dot_mk="security:\n\tchecker src\nlint:\n\tbandit -r src\n", src__a_dot_py="")
    (project / name).write_text(f"{line}\ntest:\n\tchecker\n")
    assert _commands(detect_stages(project)) == {
        "quality_gates": (runner, "lint"),
        "unit_tests": (runner, "test"),
        "security_scan": ("bandit", "-r", "src"),
    }


def test_included_file_that_may_have_secrets_is_not_read(project: Path) -> None:
    """Makefiles include `.env` for its variables, whose values would be in the stages' commands."""
    _install(project.parent / "bin", "bandit")
    (project / ".env").write_text("TOKEN := secret\nARGS := -c secret\n")
    _write(project, Makefile="-include .env ../up.mk /etc/a.mk\nscan:\n\tbandit -r src $(ARGS)\n", src__a_dot_py="")
    assert _commands(detect_stages(project)) == {"security_scan": ("bandit", "-r", "src")}


@pytest.mark.parametrize(
    ("manifest", "more"),
    [
        ('[package]\nname = "a"\n[workspace]\nmembers = ["b"]\n', ("--workspace",)),
        ('[package]\nname = "a"\n[workspace]\ndefault-members = ["b"]\n', ()),
        ('[workspace]\nmembers = ["b"]\n', ()),
        ('[package]\nname = "a"\n', ()),
        ("[package", ()),
    ],
)
def test_all_packages_of_a_cargo_workspace_are_checked(project: Path, manifest: str, more: tuple[str, ...]) -> None:
    """By default cargo takes only the package at the top, if there is one."""
    _install(project.parent / "bin", "cargo", "cargo-clippy")
    (project / "Cargo.toml").write_text(manifest)
    assert _commands(detect_stages(project)) == {
        "quality_gates": ("cargo", "clippy", "--all-targets", *more),
        "unit_tests": ("cargo", "test", *more),
    }


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


def _unit_tests(project: Path) -> object:
    return _drop_arguments(next(stage for stage in detect_stages(project).stages if stage.name == "unit_tests").run)


def _write_suite_under_xdist(project: Path, size: int = 200_000) -> None:
    """Write the tests of a project whose own command runs them in processes of pytest-xdist."""
    _install(project / ".venv/bin", "pytest")
    _write(project, tests__test_a_dot_py="#" * size)
    _write(project, tox_dot_ini="[testenv]\ncommands =\n    tests: pytest --dist=loadfile {posargs:-n auto}\n")
    (project / ".venv/lib/python3.11/site-packages/xdist").mkdir(parents=True)


def test_large_suite_runs_in_the_processes_of_its_own_command(project: Path) -> None:
    _write_suite_under_xdist(project)
    assert _unit_tests(project) == ("pytest", "-q", "-n", "auto", "--dist", "loadfile")


def test_suite_runs_in_one_process_without_xdist(project: Path) -> None:
    _write_suite_under_xdist(project)
    (project / ".venv/lib/python3.11/site-packages/xdist").rmdir()
    assert _unit_tests(project) == ("pytest", "-q")


def test_small_suite_runs_in_one_process(project: Path) -> None:
    _write_suite_under_xdist(project, size=100)
    assert _unit_tests(project) == ("pytest", "-q")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", "[tool.pytest.ini_options]\naddopts = ['-q', '-n', 'auto']\n"),
        ("pytest.ini", "[pytest]\naddopts =\n    --strict-markers\n    -n auto\n"),
        ("setup.cfg", "[tool:pytest]\naddopts = -n auto\n"),
    ],
)
def test_processes_in_the_configuration_are_not_repeated(project: Path, name: str, text: str) -> None:
    _write_suite_under_xdist(project)
    (project / name).write_text(text)
    assert _unit_tests(project) == ("pytest", "-q")


def test_other_options_in_the_configuration_leave_the_processes(project: Path) -> None:
    """The project's own command has them too."""
    _write_suite_under_xdist(project)
    _write(project, pyproject_dot_toml="[tool.pytest.ini_options]\naddopts = '--cov=pkg -x'\n")
    assert _unit_tests(project) == ("pytest", "-q", "-n", "auto", "--dist", "loadfile")


def test_own_selection_of_tests_runs_in_the_processes_of_its_command(project: Path) -> None:
    _write_suite_under_xdist(project)
    _write(project, tox_dot_ini="[testenv]\ncommands = pytest -n 4 -m 'not conda' tests\n")
    assert _unit_tests(project) == ("pytest", "-q", "-n", "4", "-m", "not conda", "tests")


@pytest.mark.parametrize("text", ["[tool.pytest", "tool = 1", "[tool]\npytest = 'x'"])
def test_unreadable_configuration_counts_as_none(project: Path, text: str) -> None:
    _write_suite_under_xdist(project)
    _write(project, pyproject_dot_toml=text)
    assert _unit_tests(project) == ("pytest", "-q", "-n", "auto", "--dist", "loadfile")


def test_long_file_of_empty_lines_costs_no_time(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, mypy_dot_ini="\n" * 100_000, pyproject_dot_toml="[tool.mypy]\n" + "\n" * 100_000, a_dot_py="")
    began = time.process_time()
    detect_stages(project)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("long", [" or ".join(["test_a"] * 50), "a/" + "b" * 300])
def test_word_that_is_too_long_for_a_file_is_none(project: Path, long: str) -> None:
    _install(project.parent / "bin", "pytest", "mypy")
    commands = f"pytest -k '{long}'\n    mypy '{long}'"
    _write(project, tests__test_a_dot_py="", tox_dot_ini=f"[testenv]\ncommands =\n    {commands}\n")
    assert "unit_tests" in _commands(detect_stages(project))


def _repeat_variables() -> str:
    lines = [f"V{number} = " + f"$(V{number + 1})" * 1000 for number in range(4)]
    return "\n".join([*lines, "V4 = x", "test:", "\tpytest $(V0)"])


def _repeat(text: str, count: int) -> str:
    return "".join(text.format(number) for number in range(count))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Makefile", "a" * 100_000),
        ("Makefile", f"{'a' * 100_000}:\n\tpytest\n"),
        ("Makefile", _repeat_variables()),
        ("scripts/test", f"pytest{' ' * 200_000}x"),
        (".coveragerc", "\n" * 200_000),
        ("noxfile.py", "def test(session):\n" + "    session.run('pytest', 'tests', x)\n" * 5000),
        ("noxfile.py", _repeat("a{} = ''\n", 30_000) + _repeat("def f{}(session): session.run('x')\n", 10_000)),
        ("package.json", json.dumps({"scripts": {"test": f"jest {'--watch ' * 100_000}--watch=false"}})),
        ("setup.cfg", f"[testenv]\ncommands = {{tty:{'a' * 100_000}\n"),
        ("setup.cfg", f"[testenv]\ncommands = {'{[' * 100_000}\n"),
        ("setup.cfg", "[DEFAULT]\n" + _repeat("a{}=\n", 5000) + "[testenv]\n" + _repeat("[{}]\n", 5000)),
        ("setup.cfg", "[testenv]\n" + _repeat("a{}=\n", 30_000) + _repeat("[{}]\n", 30_000)),
    ],
    ids=[
        "long line",
        "long name",
        "nested variables",
        "spaces",
        "empty lines",
        "many calls",
        "many functions",
        "watches",
        "tty",
        "section",
        "defaults",
        "sections",
    ],
)
def test_unusual_file_costs_no_time(project: Path, name: str, text: str) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py="", tox_dot_ini="[testenv]\ncommands = pytest tests\n")
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text(text)
    began = time.process_time()
    detect_stages(project)
    assert time.process_time() - began < 5


def test_line_that_continues_a_key_without_a_value_is_a_syntax_error(project: Path) -> None:
    """It ended init, and each run without a paropt.yml, with a traceback: configparser has an AttributeError for it."""
    _install(project.parent / "bin", "pytest")
    _write(
        project, tests__test_a_dot_py="", pytest_dot_ini="[pytest]\naddopts\n  -q\n", tox_dot_ini="[testenv]\na\n b\n"
    )
    detected = detect_stages(project)
    assert [stage.name for stage in detected.stages] == ["unit_tests"]
    assert any(note.startswith("tox.ini can't be parsed") for note in detected.notes)


def test_long_option_before_a_word_takes_no_time(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    option = f"--{'file-' * 15_000}!"
    _write(project, tests__test_a_dot_py="", noxfile_dot_py=f"session.run('pytest', '{option}', 'tests')\n")
    began = time.process_time()
    assert _unit_tests(project) == ("pytest", "-q", option, "tests")
    assert time.process_time() - began < 5


def test_pattern_among_links_that_lead_to_each_other_takes_no_time(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, pytest_dot_ini=f"[pytest]\ntestpaths = {'*/' * 12}a*")
    for name in "abcdefghij":
        (project / name).symlink_to(".")
    assert [stage.name for stage in detect_stages(project).stages] == ["unit_tests"]


def test_test_files_may_be_named_with_two_stars(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, pytest_dot_ini="[pytest]\npython_files = check_**.py", tests__check_a_dot_py="")
    assert [stage.name for stage in detect_stages(project).stages] == ["unit_tests"]


def test_link_to_a_file_of_the_kernel_that_waits_is_not_read(project: Path) -> None:
    (project / "Makefile").symlink_to("/proc/kmsg")  # a regular file of no size
    assert detect_stages(project).stages == ()


def test_make_test_wins_over_a_pytest_that_no_file_mentions(project: Path) -> None:
    _install(project.parent / "bin", "pytest", "make", "python")
    _write(project, tests__test_a_dot_py="", Makefile="test:\n\tpython -m django test tests\n")
    assert _unit_tests(project) == ("make", "test")
    _write(project, Makefile="test:\n\t./check tests\n")
    assert _unit_tests(project) == ("make", "test")
    _write(project, requirements_dot_txt="pytest\n")
    assert _unit_tests(project) == ("pytest", "-q", "tests")


def test_missing_tools_of_a_stage_share_a_note(project: Path) -> None:
    _write(project, src__a_dot_py="", Makefile="types:\n\tmypy src\n\tpyright src\n\tty check src\n")
    (note,) = [note for note in detect_stages(project).notes if "the project uses mypy" in note]
    assert note == (
        "type_checking left out: the project uses mypy, pyright and ty, but they are neither in its virtual "
        "environment nor on PATH: install them"
    )


def test_recipes_of_just_are_stages_if_they_need_no_argument(project: Path) -> None:
    _install(project.parent / "bin", "just", "sh")
    recipes = "default: lint\n\n@lint *FLAGS: # shell\n    sh -n run.sh\n\ntest name:\n    sh run.sh {{name}}\n"
    _write(project, justfile=recipes, package_dot_json="{}")
    assert _commands(detect_stages(project)) == {"quality_gates": ("just", "lint")}
    _write(project, justfile=recipes.replace("test name", "test name='all'"))
    assert _unit_tests(project) == ("just", "test")


def test_other_checks_of_the_make_target_are_named(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "mypy", "make", "python")
    other = "\t@echo lint\n\ttouch .stamp\n\tpip install ruff\n"
    recipe = f"{other}\truff check .\n\tmypy src\n\tpython manage.py check\n"
    _write(project, src__a_dot_py="", Makefile=f"lint:\n{recipe}")
    (note,) = [note for note in detect_stages(project).notes if "make lint" in note]
    assert note == "quality_gates: `make lint` also runs `python manage.py check`: add that to the stage's steps"
    _write(project, Makefile="lint:\n\tpython manage.py check\n")
    assert not any("also runs" in note for note in detect_stages(project).notes)
    _write(project, Makefile="lint:\n\truff check .\n\ttox -q -e lint\n\tnox -s lint\n")
    assert not any("also runs" in note for note in detect_stages(project).notes)


@pytest.mark.parametrize(
    ("name", "text", "caller"),
    [
        (
            "tox.ini",
            "[testenv:lint]\ncommands =\n    ruff check .\n    slotscheck -m a\n    python b.py -c\n",
            "tox -e",
        ),
        (
            "noxfile.py",
            "def lint(session):\n    session.install('ruff')\n    session.run('ruff', 'check', '.')\n"
            "    session.run('slotscheck', '-m', 'a')\n    session.run('python', 'b.py', '-c')\n",
            "nox -s",
        ),
    ],
)
def test_other_checks_of_a_linting_environment_are_named(project: Path, name: str, text: str, caller: str) -> None:
    """sqlalchemy's has ten; none was in the stages or notes, as those of a make target are."""
    _install(project.parent / "bin", "ruff")
    (project / name).write_text(text)
    detected = detect_stages(project)
    assert _commands(detected) == {"quality_gates": ("ruff", "check", ".")}
    told = (
        f"quality_gates: `{caller} lint` also runs `slotscheck -m a`, `python b.py -c`: add them to the stage's steps"
    )
    assert told in detected.notes


def test_packages_of_a_workspace_use_its_package_manager(project: Path) -> None:
    """They have neither a lock file nor the key; npm would not find what yarn or pnpm had installed."""
    _install(project.parent / "bin", "npm", "pnpm")
    (project / ".git").mkdir()
    _write(project, pnpm_lock_dot_yaml="", a__package_dot_json='{"scripts": {"test": "vitest run"}}')
    (project / "pnpm_lock.yaml").rename(project / "pnpm-lock.yaml")
    assert _unit_tests(project / "a") == ("pnpm", "run", "test")
    (project / "a/package-lock.json").touch()
    assert _unit_tests(project / "a") == ("npm", "run", "test")


def test_npm_script_of_packages_that_are_not_installed_is_left_out(project: Path) -> None:
    _install(project.parent / "bin", "npm")
    _write(project, package_dot_json='{"scripts": {"test": "vitest"}, "devDependencies": {"vitest": "*"}}')
    detected = detect_stages(project)
    assert detected.stages == ()
    told = "unit_tests left out: package.json has the script 'test', but no node_modules: npm install"
    assert told in detected.notes
    (project / "node_modules").mkdir()
    assert _unit_tests(project) == ("npm", "run", "test")


def test_root_of_several_projects_names_them_instead_of_missing_tools(project: Path) -> None:
    _write(project, packages__a__pyproject_dot_toml="", web__package_dot_json="{}", packages__b__README="")
    detected = detect_stages(project)
    assert (detected.stages, detected.notes) == ((), ())
    assert detected.projects == (Path("packages/a"), Path("web"))


def test_project_below_that_has_a_config_is_to_be_run_not_initialized(project: Path) -> None:
    _write(project, a__paropt_dot_yml="stages: []", b__pyproject_dot_toml="")
    assert describe_projects(project, detect_stages(project).projects) == [
        "a is a project of its own: run `paropt-exporter` there",
        "b is a project of its own: `paropt-exporter init` adds its stages to a config here",
    ]


def test_line_break_in_a_name_makes_no_line_of_its_own(project: Path) -> None:
    _write(project, **{"a\nb__package_dot_json": ""})
    notes = describe_projects(project, detect_stages(project).projects)
    assert len(notes) == 1
    assert "\n" not in "".join(notes)


def test_tools_of_the_root_win_over_projects_below_it(project: Path) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, pyproject_dot_toml="[tool.ruff]", packages__a__pyproject_dot_toml="")
    detected = detect_stages(project)
    assert [stage.name for stage in detected.stages] == ["quality_gates"]
    assert detected.projects == ()


def test_tests_of_projects_below_are_not_those_of_the_root(project: Path) -> None:
    """One command at the root would run those of the first project only, in the wrong folder."""
    _install(project.parent / "bin", "pytest", "npm")
    _write(project, package_dot_json='{"scripts": {"lint": "eslint ."}}', web__package_dot_json="{}")
    for name in ("api", "lib"):
        _write(project / name, pyproject_dot_toml="", src__pkg__a_dot_py="", tests__test_a_dot_py="")
    detected = detect_stages(project)
    assert _commands(detected) == {"quality_gates": ("npm", "run", "lint")}
    assert detected.projects == (Path("api"), Path("lib"))


@pytest.mark.parametrize("file", [".github/workflows/ci.yml", "Makefile"])
def test_commands_at_the_top_belong_to_the_project_in_whose_folder_they_run(project: Path, file: str) -> None:
    """Otherwise the tests ran twice, and the linters not as in CI."""
    _install(project.parent / "bin", "pytest", "mypy")
    lines = ("cd api && mypy --strict app", "cd api/app && pytest -W error ../tests", "cd ../other && pytest")
    steps = [{"run": line} for line in lines]
    workflow = json.dumps({"on": "push", "jobs": {"test": {"steps": steps}}})
    (project / file).parent.mkdir(parents=True, exist_ok=True)
    (project / file).write_text("test:\n\t" + "\n\t".join(lines) if file == "Makefile" else workflow)
    (project / ".git").mkdir()
    _write(project / "api", pyproject_dot_toml="", tests__test_a_dot_py="", app__a_dot_py="")
    assert _commands(detect_stages(project)) == {}
    below = detect_stages(project / "api")
    assert _commands(below) == {
        "type_checking": ("mypy", "--strict", "app"),
        "unit_tests": ("pytest", "-q", "-W", "error", "../tests"),
    }
    assert [stage.cwd for stage in below.stages] == [None, "app"]


def test_command_in_a_checkout_of_another_repository_runs_other_tests(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    steps = [{"run": "pytest -W error", "working-directory": "dependent"}]
    jobs = {"test": {"steps": steps}, "linux": {"steps": [{"run": "pytest -W ignore"}]}}
    (project / ".github/workflows").mkdir(parents=True)
    (project / ".github/workflows/ci.yml").write_text(json.dumps({"on": "push", "jobs": jobs}))
    _write(project, tests__test_a_dot_py="")
    assert _unit_tests(project) == ("pytest", "-q", "-W", "ignore")


def test_root_of_a_workspace_checks_the_sources_of_its_packages(project: Path) -> None:
    """`mypy .` fails there: both packages have a module conftest."""
    _install(project.parent / "bin", "mypy", "pytest")
    _write(project, mypy_dot_ini="[mypy]\n", packages__web__package_dot_json="{}")
    for name, source in (("a", "src/a"), ("b", "b")):
        folder = project / "packages" / name
        _write(folder, pyproject_dot_toml="", tests__conftest_dot_py="", tests__test_a_dot_py="")
        (folder / source).mkdir(parents=True)
        (folder / source / "__init__.py").touch()
    assert _commands(detect_stages(project)) == {"type_checking": ("mypy", "packages/a/src", "packages/b/b")}
    (project / "conftest.py").touch()
    assert _commands(detect_stages(project))["type_checking"] == ("mypy", ".")


def test_pytest_without_a_path_runs_the_tests_of_projects_below_too(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tox_dot_ini="[testenv]\ncommands = pytest\n", tests__test_a_dot_py="")
    _write(project, api__pyproject_dot_toml="", api__tests__test_b_dot_py="")
    assert detect_stages(project).projects == ()
    _write(project, tox_dot_ini="[testenv]\ncommands = pytest tests\n")
    assert detect_stages(project).projects == (Path("api"),)


def test_tests_of_projects_below_may_be_those_of_a_target(project: Path) -> None:
    """`make test` at the root usually runs all tests, so a second stage would run them twice."""
    _install(project.parent / "bin", "make")
    _write(project, Makefile="test:\n\tcd api && pytest\n", api__setup_dot_py="", api__tests__test_a_dot_py="")
    detected = detect_stages(project)
    assert _commands(detected) == {"unit_tests": ("make", "test")}
    assert detected.projects == ()
    assert "unit_tests: add stages for the tests in api, unless `make test` runs them" in detected.notes


def test_frontend_with_tests_is_named(project: Path) -> None:
    _install(project.parent / "bin", "pytest", "npm")
    scripts = '{"scripts": {"test": "node --test"}}'
    _write(project, pyproject_dot_toml="[tool.pytest]\ntestpaths = ['tests']", tests__test_a_dot_py="")
    _write(project, web__package_dot_json=scripts, site__package_dot_json="{}")
    assert detect_stages(project).projects == (Path("web"),)
    _write(project, package_dot_json=scripts)
    assert detect_stages(project).projects == ()


def test_package_with_a_setup_file_is_no_project_of_its_own(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, setup_dot_py="", pkg__setup_dot_py="", pkg__tests__test_a_dot_py="")
    (project / "pkg" / "__init__.py").touch()
    assert _commands(detect_stages(project)) == {"unit_tests": ("pytest", "-q", "pkg/tests")}


def _quality_gates(project: Path) -> object:
    return _commands(detect_stages(project)).get("quality_gates")


def test_all_linters_that_the_project_calls_are_steps(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "flake8", "black", "isort", "pylint")
    _write(
        project,
        tox_dot_ini="[testenv:lint]\ncommands =\n    black --check src\n    black src\n    isort --check-only src\n"
        "    flake8\n    pylint src\n",
    )
    assert _commands(detect_stages(project)) == {
        "quality_gates": (("flake8",), ("black", "--check", "src"), ("isort", "--check-only", "src")),
        "quality_gates_pylint": ("pylint", "src"),
    }


def test_note_on_a_hook_whose_program_no_stage_knows(project: Path) -> None:
    hooks = "{id: a, entry: python tools/a.py --fast}, {id: b, entry: pytest}, {id: c, entry: black --check .}"
    local = hooks.replace("}", ", language: system, pass_filenames: false}")
    (project / ".pre-commit-config.yaml").write_text(f"repos: [{{repo: local, hooks: [{local}]}}]")
    about_hooks = [note for note in detect_stages(project).notes if note.startswith(".pre-commit-config.yaml")]
    assert about_hooks == [".pre-commit-config.yaml: no stage runs `python tools/a.py --fast`"]


def test_no_note_on_a_make_target_hook_whose_tools_a_stage_runs(project: Path) -> None:
    _install(project.parent / "bin", "ruff")
    local = ", ".join(
        f"{{id: {name}, entry: make {name}, language: system, pass_filenames: false}}" for name in ("style", "rust")
    )
    (project / ".pre-commit-config.yaml").write_text(f"repos: [{{repo: local, hooks: [{local}]}}]")
    _write(project, Makefile="style:\n\truff check .\nrust:\n\t$(MAKE) -C core lint\n")
    about_hooks = [note for note in detect_stages(project).notes if note.startswith(".pre-commit-config.yaml")]
    assert about_hooks == [".pre-commit-config.yaml: no stage runs `make rust`"]


def test_no_note_on_a_hook_that_a_stage_runs(project: Path) -> None:
    _install(project.parent / "bin", "make", "sh")
    (project / "Makefile").write_text("lint:\n\tsh -n x.sh\n")
    hook = "{id: lint, entry: make lint, language: system, pass_filenames: false}"
    (project / ".pre-commit-config.yaml").write_text(f"repos: [{{repo: local, hooks: [{hook}]}}]")
    detected = detect_stages(project)
    assert [stage.run for stage in detected.stages] == [("make", "lint")]
    assert not any(note.startswith(".pre-commit-config.yaml") for note in detected.notes)


def test_formatter_among_the_hooks_is_checked_too(project: Path) -> None:
    _install(project.parent / "bin", "ruff", "black")
    hooks = "repos: [{hooks: [{id: ruff-check, args: [--fix]}, {id: ruff-format}]}]"
    _write(project, pyproject_dot_toml="[tool.ruff]\nfix = true\n[tool.black]\n")
    (project / ".pre-commit-config.yaml").write_text(hooks)
    assert _quality_gates(project) == (("ruff", "check", "--no-fix", "."), ("ruff", "format", "--check", "."))


@pytest.mark.parametrize("given", ["--output-format github", "--output-format=github"])
def test_format_for_a_ci_server_is_left_out(project: Path, given: str) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, tox_dot_ini=f"[testenv:lint]\ncommands =\n    ruff check src {given} --select F\n")
    assert _quality_gates(project) == ("ruff", "check", "src", "--select", "F")


def test_mypy_installs_nothing(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(
        project,
        hatch_dot_toml="[envs.types.scripts]\ncheck = 'mypy --install-types --non-interactive {args:src/a tests}'\n",
        src__a__one_dot_py="",
    )
    assert _commands(detect_stages(project)) == {"type_checking": ("mypy", "src/a", "tests")}


def test_linter_without_a_program_is_named_and_the_others_run(project: Path) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, Makefile="lint:\n\truff check\n\tblack --check .\n")
    detected = detect_stages(project)
    assert _commands(detected) == {"quality_gates": ("ruff", "check", ".")}
    assert any(note.startswith("quality_gates: the project uses black, but it is neither ") for note in detected.notes)


def test_shell_runs_commands_with_patterns_of_files(project: Path) -> None:
    """Without a shell, flake8 looks for a file with the name `*.py`."""
    _install(project.parent / "bin", "flake8", "isort", "pytest")
    _write(
        project,
        Makefile="lint:\n\tflake8 pkg *.py --exclude '*.pyi'\n\tisort --check-only docs/*.py pkg\n"
        "test:\n\tpytest pkg/test_*.py\n",
        tests__integration__test_c_dot_py="",
        setup_dot_py="",
        pkg__test_b_dot_py="",
        pkg__stub_dot_pyi="",
        docs__conf_dot_py="",
    )
    detected = detect_stages(project)
    assert _commands(detected) == {
        "quality_gates": ("flake8 pkg *.py --exclude '*.pyi'", "isort --check-only docs/*.py pkg"),
        "unit_tests": "pytest -q pkg/test_*.py",
    }
    assert all(stage.shell for stage in detected.stages)


@pytest.mark.parametrize("name", ["a;touch ran;", "$(touch ran)", "a b", "-x", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_pattern_with_other_characters_gets_no_shell(project: Path, name: str) -> None:
    _install(project.parent / "bin", "flake8")
    _write(project, Makefile=f"lint:\n\tflake8 pkg '{name}*.py'\n", pkg__a_dot_py="")
    (project / f"{name}1.py").touch()
    assert not any(stage.shell for stage in detect_stages(project).stages)


def test_pattern_without_files_needs_no_shell(project: Path) -> None:
    _install(project.parent / "bin", "flake8")
    _write(project, Makefile="lint:\n\tflake8 pkg *.py\n", pkg__a_dot_py="")
    (stage,) = detect_stages(project).stages
    assert (stage.run, stage.shell) == (("flake8", "pkg", "*.py"), False)


def test_sources_are_packages_and_stubs_without_examples(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, mypy_dot_ini="[mypy]\n")
    for name in ("pkg-stubs/__init__.pyi", "examples/__init__.py"):
        (project / name).parent.mkdir()
        (project / name).touch()
    assert _commands(detect_stages(project)) == {"type_checking": ("mypy", "pkg-stubs")}


def test_sources_of_another_language_in_src_are_not_checked_as_python(project: Path) -> None:
    _install(project.parent / "bin", "mypy", "bandit")
    _write(project, pyproject_dot_toml="[tool.mypy]\n[tool.bandit]\n", src__lib_dot_rs="")
    package = project / "python" / "shop" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.touch()
    commands = _commands(detect_stages(project))
    assert commands["type_checking"] == ("mypy", "python")
    assert commands["security_scan"] == ("bandit", "-q", "-f", "custom", "-r", "python")


def test_calls_of_a_tool_come_from_one_file(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, tox_dot_ini="[testenv:t]\ncommands = mypy a b\n", Makefile="types:\n\tmypy --strict a\n")
    assert _commands(detect_stages(project)) == {"type_checking": ("mypy", "a", "b")}


def test_options_of_mypy_are_kept_without_files(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, tox_dot_ini="[testenv:t]\ncommands = mypy --strict {posargs}\n", src__a_dot_py="")
    assert _commands(detect_stages(project)) == {"type_checking": ("mypy", "--strict", "src")}


def test_calls_of_mypy_beside_the_configured_files_are_kept(project: Path) -> None:
    _install(project.parent / "bin", "mypy")
    _write(
        project,
        pyproject_dot_toml="[tool.mypy]\nfiles = ['src']\n[tool.tox.env.typing]\ncommands = [\n"
        "  ['mypy', '--python-version', '3.13'], ['mypy', '--allow-untyped-defs', 'examples']]\n",
    )
    assert _commands(detect_stages(project)) == {
        "type_checking": (("mypy", "--python-version", "3.13"), ("mypy", "--allow-untyped-defs", "examples"))
    }


@pytest.mark.parametrize(
    ("recipes", "command"),
    [
        ("types:\n\tmypy -p pkg\nreport:\n\tmypy -p pkg --html-report out\n", ("mypy", "-p", "pkg")),
        ("types:\n\tmypy --strict --junit-xml=a.xml --cobertura-xml-report out pkg\n", ("mypy", "--strict", "pkg")),
    ],
)
def test_reports_of_mypy_are_left_out(project: Path, recipes: str, command: tuple[str, ...]) -> None:
    _install(project.parent / "bin", "mypy")
    _write(project, Makefile=recipes, pkg__a_dot_py="")
    assert _commands(detect_stages(project)) == {"type_checking": command}


def test_two_type_checkers_that_the_project_calls_are_steps(project: Path) -> None:
    _install(project.parent / "bin", "mypy", "pyright", "ty")
    _write(
        project,
        pyproject_dot_toml="[tool.mypy]\nfiles = ['src']\n"
        "[tool.tox.env.typing]\ncommands = [['mypy'], ['pyright'], ['ty', 'check', 'src']]\n",
    )
    detected = detect_stages(project)
    assert _commands(detected) == {
        "type_checking": ("mypy",), "type_checking_pyright": ("pyright",), "type_checking_ty": ("ty", "check", "src")
    }  # fmt: skip
    assert [stage.number for stage in detected.stages] == [3, 13, 23]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("pytest", ("pytest", "-q")),
        ("pytest -vv -ra --tb=short --durations 5 --cov pkg --cov-report term --junitxml=a.xml", ("pytest", "-q")),
        ("pytest --cov -v tests/test_a.py", ("pytest", "-q", "tests/test_a.py")),
        ("pytest -o console_output_style=progress -o xfail_strict=1", ("pytest", "-q", "-o", "xfail_strict=1")),
        ("pytest -m 'not slow' -W error tests", ("pytest", "-q", "-m", "not slow", "-W", "error", "tests")),
        ("pytest --doctest-modules pkg tests", ("pytest", "-q", "--doctest-modules", "pkg", "tests")),
        ("pytest --run-optional none -x tests", ("pytest", "-q", "--run-optional", "none", "tests")),
        ("pytest no/such/folder", ("pytest", "-q", "tests")),
        ("pytest --cov=pkg --cov-fail-under=90", ("pytest", "-q", "--cov=pkg", "--cov-fail-under=90")),
        ("python -m unittest -v", ("python", "-m", "unittest", "-v")),
        ("coverage run -m pytest tests", ("python", "-m", "pytest", "-q", "tests")),
        ("python -W error -m pytest", ("python", "-W", "error", "-m", "pytest", "-q")),
    ],
)
def test_tests_run_as_the_project_runs_them(project: Path, line: str, command: tuple[str, ...]) -> None:
    _install(project.parent / "bin", "pytest", "python")
    _write(project, tox_dot_ini=f"[testenv]\ncommands = {line}\n", tests__test_a_dot_py="")
    assert _unit_tests(project) == command


def test_coverage_is_measured_if_the_tests_have_a_limit_for_it(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py="", tox_dot_ini="[testenv]\ncommands = pytest --cov\n")
    _write(project, pyproject_dot_toml="[tool.coverage.report]\nfail_under = 90\n")
    assert _unit_tests(project) == ("pytest", "-q", "--cov")


def test_tests_get_the_variables_and_the_folder_of_the_project(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(project, tests__test_a_dot_py="")
    (project / "tox.ini").write_text(
        "[testenv]\nchangedir = tests\nsetenv =\n    DEBUG = 1\n    COVERAGE_FILE = x\n    PATH = /opt/ci\n"
        "commands = pytest\n"
    )
    (stage,) = detect_stages(project).stages
    assert (_drop_arguments(stage.run), dict(stage.env), stage.cwd) == (("pytest", "-q"), {"DEBUG": "1"}, "tests")


def test_tests_that_also_run_with_coverage_run_once(project: Path) -> None:
    _install(project.parent / "bin", "pytest")
    _write(
        project,
        tox_dot_ini="[testenv]\ncommands =\n    pytest tests []\n    pytest tests --cov pkg --cov-append []\n",
        tests__test_a_dot_py="",
    )
    assert _unit_tests(project) == ("pytest", "-q", "tests")


def test_module_of_the_tests_that_the_project_runs_is_the_runner(project: Path) -> None:
    _install(project.parent / "bin", "python", "pytest")
    _write(
        project,
        tox_dot_ini="[testenv]\nchangedir = {toxworkdir}\ncommands = python -bb -m web.test {posargs:}\n",
        web__test__http_test_dot_py="",
    )
    assert _unit_tests(project) == ("python", "-bb", "-m", "web.test")


def test_scenarios_that_the_project_runs_after_its_tests_are_steps(project: Path) -> None:
    """Only pytest ran, and no note said so."""
    _install(project.parent / "bin", "pytest", "behave", "robot")
    lines = ("pytest tests --junitxml=tests.xml", "behave --format=progress {posargs:features}", "robot atest/robot")
    _write(project, tests__test_a_dot_py="", tox_dot_ini="[testenv]\ncommands =\n    " + "\n    ".join(lines) + "\n")
    _write(project, atest__robot__a_dot_robot="")
    (stage,) = detect_stages(project).stages
    assert stage.steps == (("pytest", "tests"), ("behave", "--format=progress", "features"), ("robot", "atest/robot"))


def test_unittest_runs_tests_of_a_project_without_pytest(project: Path) -> None:
    _install(project.parent / "bin", "python")
    _write(project, tests__test_a_dot_py="import unittest\n")
    assert _unit_tests(project) == ("python", "-m", "unittest", "discover", "-s", "tests")
    (project / "tests/__init__.py").touch()
    assert _unit_tests(project) == ("python", "-m", "unittest", "discover", "-s", "tests", "-t", ".")


def test_unittest_does_not_run_tests_of_a_project_that_uses_pytest(project: Path) -> None:
    _install(project.parent / "bin", "python")
    _write(project, tests__test_a_dot_py="import unittest\n", requirements_dot_txt="pytest\n")
    detected = detect_stages(project)
    assert detected.stages == ()
    assert any(
        note.startswith("unit_tests left out: the project uses pytest, but it is neither in its")
        for note in detected.notes
    )


def test_python3_replaces_a_missing_python(project: Path) -> None:
    _install(project.parent / "bin", "python3")
    _write(project, tox_dot_ini="[testenv]\ncommands = python -m unittest\n")
    assert _unit_tests(project) == ("python3", "-m", "unittest")


def test_pipe_among_the_tests_is_not_read(project: Path) -> None:
    _install(project.parent / "bin", "python")
    _write(project, tests__test_a_dot_py="import unittest\n")
    os.mkfifo(project / "tests/test_b.py")
    assert _unit_tests(project) == ("python", "-m", "unittest", "discover", "-s", "tests")


def test_django_project_runs_its_own_tests(project: Path) -> None:
    _install(project.parent / "bin", "python", "pytest")
    _write(project, manage_dot_py="", app__tests__test_a_dot_py="")
    assert _unit_tests(project) == ("python", "manage.py", "test")
    _write(project, requirements_dot_txt="pytest-django\npytest\n")
    assert _unit_tests(project) != ("python", "manage.py", "test")


@pytest.mark.parametrize(
    ("line", "unit", "integration"),
    [
        ("pytest", ("pytest", "-q", "--ignore=tests/e2e"), ("pytest", "-q", "tests/e2e")),
        ("pytest -W error tests", ("pytest", "-q", "-W", "error", "tests", "--ignore=tests/e2e"),
         ("pytest", "-q", "-W", "error", "tests/e2e")),
        ("pytest -m 'not e2e' tests", ("pytest", "-q", "-m", "not e2e", "tests"), None),
        ("pytest tests/unit", ("pytest", "-q", "tests/unit"), None),
        ("pytest tests/unit\n[testenv:e2e]\ncommands = pytest -v tests/e2e", ("pytest", "-q", "tests/unit"),
         ("pytest", "-q", "tests/e2e")),
        ("\n    pytest -W error tests\n    pytest --e2e tests/e2e/",
         ("pytest", "-q", "-W", "error", "tests", "--ignore=tests/e2e"), ("pytest", "-q", "--e2e", "tests/e2e/")),
    ],
)  # fmt: skip
def test_integration_tests_run_only_if_the_project_runs_them(
    project: Path, line: str, unit: tuple[str, ...], integration: tuple[str, ...] | None
) -> None:
    _install(project.parent / "bin", "pytest")
    _write(
        project,
        tox_dot_ini=f"[testenv]\ncommands = {line}\n",
        tests__unit__test_a_dot_py="",
        tests__e2e__test_b_dot_py="",
    )
    detected = detect_stages(project)
    found = _commands(detected)
    assert (found["unit_tests"], found.get("integration_tests")) == (unit, integration)
    told = "integration_tests left out: no command of the project runs tests/e2e alone"
    assert (told in detected.notes) is (integration is None)


def test_tool_that_only_the_end_of_a_line_or_a_plugin_names_does_not_count(project: Path) -> None:
    _install(project.parent / "bin", "bandit", "mypy")
    _write(
        project,
        pyproject_dot_toml="[tool.ruff.lint]\nselect = ['S']  # bandit\n[a]\nb = ['pytest-mypy']\n",
        a_dot_py="",
    )
    assert detect_stages(project).stages == ()


def test_flake8_leaves_out_the_virtual_environment_inside_the_project(project: Path) -> None:
    _install(project / ".venv/bin", "flake8")
    _write(project, _dot_flake8="[flake8]\n")
    assert _quality_gates(project) == ("flake8", "--extend-exclude=.venv")
    _write(project, tox_dot_ini="[testenv:lint]\ncommands = flake8 src\n", src__a_dot_py="")
    assert _quality_gates(project) == ("flake8", "src")


@pytest.mark.parametrize(
    ("files", "option"),
    [
        ({"_dot_flake8": "[flake8]\nextend-exclude =\n    docs,  # sphinx\n    migrations\n"}, "docs,migrations,.venv"),
        ({"pyproject_dot_toml": "[tool.flake8]\nextend-exclude = ['docs', 'b']\n"}, "docs,b,.venv"),
        ({"tox_dot_ini": "[testenv:lint]\ncommands = flake8 --extend-exclude docs .\n"}, "docs,.venv"),
        ({"tox_dot_ini": "[testenv:lint]\ncommands = flake8 --extend-exclude=docs .\n"}, "docs,.venv"),
    ],
)
def test_other_exclusions_of_flake8_stay(project: Path, files: dict[str, str], option: str) -> None:
    _install(project / ".venv/bin", "flake8")
    _write(project, setup_dot_cfg="[metadata]\nname = a\n", requirements_dot_txt="flake8", **files)
    found = _quality_gates(project)
    assert isinstance(found, tuple)
    assert f"--extend-exclude={option}" in found


@pytest.mark.parametrize(
    ("settings", "call", "added"),
    [
        ("[tool.isort]\nskip = ['.tox']\nextend_skip = ['a', 'b']\n", "isort --check-only .", ("a", "b", ".venv")),
        ("[tool.isort]\nskip = ['.tox']\nextend_skip = ['a']\n", "isort --check-only --extend-skip c .", (".venv",)),
        ("", "isort --check-only --skip migrations .", (".venv",)),
        ("[tool.isort]\nskip = ['.tox', '.venv']\n", "isort --check-only .", ()),
        ("[tool.isort]\nextend_skip = ['a']\n", "isort --check-only .", ()),
        ("[tool.isort]\nskip = ['.tox']\n", "isort --check-only src", ()),
        ("[tool.black]\nexclude = 'migrations'\n", "black --check .", ("/.venv/",)),
        ("", "black --check --exclude=migrations .", ("/.venv/",)),
        ('[tool.black]\nexclude = """\n(\n  [.]venv  # packages\n)/"""\n', "black --check .", ()),
        ("[tool.black]\nexclude = '('\n", "black --check .", ("/.venv/",)),
        ("[tool.black]\nexclude = 'a'\nforce-exclude = 'a'\n", "black --check .", ()),
        ("[tool.black]\nextend-exclude = 'a'\n", "black --check .", ()),
    ],
)
def test_isort_and_black_leave_out_the_virtual_environment_if_the_usual_exclusions_are_replaced(
    project: Path, settings: str, call: str, added: tuple[str, ...]
) -> None:
    """isort checked the packages of djangorestframework's environment, which took minutes, and failed."""
    _install(project / ".venv/bin", "isort", "black")
    tox = f"[testenv:lint]\ncommands = {call}\n"
    _write(project, pyproject_dot_toml=settings, tox_dot_ini=tox, src__a_dot_py="")
    option = "--extend-skip" if call.startswith("isort") else "--force-exclude"
    assert _quality_gates(project) == (*call.split(), *(f"{option}={each}" for each in added))


def test_ruff_leaves_out_the_virtual_environment_if_its_configuration_does_not(project: Path) -> None:
    _install(project / ".venv/bin", "ruff")
    _write(project, pyproject_dot_toml="[tool.ruff]\nexclude = ['docs']\n")
    assert _quality_gates(project) == ("ruff", "check", ".", "--extend-exclude=.venv")
    _write(project, tox_dot_ini="[testenv:lint]\ncommands = ruff check src\n", src__a_dot_py="")
    assert _quality_gates(project) == ("ruff", "check", "src")


def test_linter_that_the_project_calls_to_fix_files_checks_the_same_ones(project: Path) -> None:
    _install(project.parent / "bin", "ruff")
    _write(project, tox_dot_ini="[testenv:lint]\ncommands = ruff check --fix --unsafe-fixes src tests\n")
    assert _quality_gates(project) == ("ruff", "check", "src", "tests")


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("bandit -r .", ("bandit", "-r", ".", "--exclude=./.tox,./.eggs,./.venv")),
        ("bandit -r . -x ./tests -ll", ("bandit", "-r", ".", "-ll", "--exclude=./tests,./.venv")),
        ("bandit --exclude=tests -r .", ("bandit", "-r", ".", "--exclude=tests,./.venv")),
        ("bandit -r src", ("bandit", "-r", "src")),
    ],
)
def test_bandit_does_not_scan_the_virtual_environment(project: Path, line: str, command: tuple[str, ...]) -> None:
    _install(project / ".venv/bin", "bandit")
    _write(project, src__one_dot_py="", tests__two_dot_py="", tox_dot_ini=f"[testenv:security]\ncommands = {line}\n")
    assert _commands(detect_stages(project)) == {"security_scan": command}


def test_tasks_of_a_taskfile_are_stages_if_they_need_no_variable_or_answer(project: Path) -> None:
    _install(project.parent / "bin", "task", "sh")
    text = """
version: "3"
tasks:
  default: {deps: [lint]}
  lint: sh -n run.sh
  test: {cmds: [{cmd: sh run.sh}, {task: lint}], desc: the tests}
  typecheck: {cmds: ["nowhere {{.CLI_ARGS}}"]}
  audit: {cmds: ["sh audit.sh {{.TARGET}}"], requires: {vars: [TARGET]}}
"""
    _write(project, Taskfile_dot_yml=text, package_dot_json="{}")
    detected = detect_stages(project)
    assert _commands(detected) == {"quality_gates": ("task", "lint"), "unit_tests": ("task", "test")}
    assert "type_checking left out: `task typecheck` needs nowhere, which is not installed" in detected.notes
    (project.parent / "bin/task").unlink()
    assert "unit_tests left out: `task test` needs task, which is not installed" in detect_stages(project).notes
    _write(project, Taskfile_dot_yml="tasks: [")
    assert _commands(detect_stages(project)) == {}


def test_functions_that_poe_runs_cost_a_note(project: Path) -> None:
    _write(
        project,
        pyproject_dot_toml="[tool.poe.tasks]\nlint = 'ruff check'\nstyle = {script = 'scripts.run:style'}\n"
        "[tool.poe.tasks.types]\nscript = 'scripts.run:types'\n",
    )
    assert (
        "pyproject.toml: no stage runs poe's functions (style, types): write stages with `run: poe NAME` for checks"
        in detect_stages(project).notes
    )


def test_tasks_of_invoke_cost_a_note(project: Path) -> None:
    _write(project, tasks_dot_py="from invoke import task\n")
    assert any(note.startswith("tasks.py: no stage runs invoke's tasks: ") for note in detect_stages(project).notes)
    _write(project, tasks_dot_py="from celery import task\n")
    assert not any("invoke" in note for note in detect_stages(project).notes)


def test_tool_that_is_called_and_not_installed_has_one_note(project: Path) -> None:
    """sphinx's pyright had two: that it should be installed, and that it should be added."""
    _install(project.parent / "bin", "mypy")
    tox = "[testenv:types]\ncommands =\n    mypy\n    pyright\n"
    _write(project, src__a_dot_py="", pyproject_dot_toml="[tool.mypy]\n[tool.pyright]\n", tox_dot_ini=tox)
    notes = [note for note in detect_stages(project).notes if "pyright" in note]
    assert notes == [
        "type_checking: the project uses pyright, but it is neither in its virtual environment nor on PATH: install it"
    ]


def test_note_on_a_tool_with_settings_that_no_stage_runs(project: Path) -> None:
    _install(project.parent / "bin", "mypy", "pyright")
    _write(project, src__a_dot_py="", pyproject_dot_toml="[tool.mypy]\nstrict = true\n[tool.pyright]\n")
    detected = detect_stages(project)
    assert _commands(detected) == {"type_checking": ("mypy", "src")}
    assert (
        "type_checking: no stage runs pyright, for which the project has settings: add it to paropt.yml if it counts"
        in detected.notes
    )
