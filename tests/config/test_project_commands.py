"""Which commands a project runs on itself, by the files of its own tools."""

from __future__ import annotations

import tracemalloc
from collections.abc import Mapping, Sequence

import pytest

from paropt_exporter.config.command_files import parse_recipes
from paropt_exporter.config.project_commands import ProjectCommands, read_project_commands


def _find(files: Mapping[str, str], workflows: Sequence[str] = ()) -> ProjectCommands:
    return read_project_commands(lambda name: files.get(name, ""), workflows)


def _read(name: str, text: str) -> tuple[tuple[str, ...], ...]:
    found = _find({name: text})
    assert found.notes == ()
    return tuple(each.words for each in found.commands)


def _repeat(line: str, count: int = 1000) -> str:
    return "\n".join(line.format(number) for number in range(count))


def _find_tests(name: str, text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(each.words for each in _find({name: text}).find_tests())


def test_files_at_the_top_are_parsed_once_for_all_projects_below() -> None:
    files = {"tox.ini": "[testenv]\ncommands = pytest tests\n"}
    (first,), (second,) = _find(files).commands, _find(files).commands
    assert first is second


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tox.ini", "[testenv]\ncommands = pytest tests \0\n"),
        ("pyproject.toml", '[tool.pdm.scripts]\ntest = "pytest tests \\u0000"\n'),
    ],
)
def test_command_with_a_nul_character_is_left_out(name: str, text: str) -> None:
    assert _read(name, text) == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pytest {posargs}", ("pytest",)),
        ("pytest tests []", ("pytest", "tests")),
        ("pytest {posargs:-n auto}", ("pytest", "-n", "auto")),
        ("pytest {posargs:-v}", ("pytest",)),
        ("pytest {posargs:tests/unit} -q", ("pytest", "tests/unit", "-q")),
        ("tests,!slow: pytest", ("pytest",)),
        ("mypy {toxinidir}/src", ("mypy", "src")),
        ("{envpython} -m mypy src", ("mypy", "src")),
        ("coverage run -m pytest tests", ("pytest", "tests")),
        ("pytest --basetemp={envtmpdir} tests", ("pytest", "tests")),
        ("pytest {tty:--color=yes} tests", ("pytest", "tests")),
        ("pytest {posargs:--cov pkg {tox_root}{/}tests}", ("pytest", "--cov", "pkg", "tests")),
        ("py.test tests", ("pytest", "tests")),
        ("uv run ruff check src", ("ruff", "check", "src")),
        ("uv run --group test --frozen pytest", ("pytest",)),
        ("uv run -m pytest", ("pytest",)),
        ("uvx --with extra ruff check", ("ruff", "check")),
        ("coverage run --parallel-mode --source pkg -m pytest tests", ("pytest", "tests")),
        ("coverage run --branch tests/run.py -v", ("tests/run.py", "-v")),
        ("coverage run --source=pkg --module pytest -v", ("pytest", "-v")),
        ("python -b -W error -m coverage run -m django test", ("django", "test")),
        ("python -m twisted.trial {env:OPTIONS:-jauto} {posargs:twisted}", ("twisted.trial", "-jauto", "twisted")),
        ("pytest {env:MORE:} tests {env:OPTIONS:-q}", ("pytest", "tests", "-q")),
        (".venv/bin/python -m mypy src", ("mypy", "src")),
        ("venv/bin/mypy src", ("mypy", "src")),
    ],
)
def test_commands_of_tox_are_stripped_of_its_own_syntax(line: str, words: tuple[str, ...]) -> None:
    assert _read("tox.ini", f"[testenv]\ncommands =\n    {line}\n") == (words,)


def test_commands_of_tox_have_the_variables_that_their_environment_sets() -> None:
    """alembic runs its tests so; without a value the command was left out."""
    settings = (
        "    RUN = python -m pytest --rootdir {toxinidir}\n    WORKERS = {env:TOX_WORKERS:-n4}\n    cov: COV = --cov\n"
    )
    command = "{env:RUN} {env:WORKERS:-n2} {env:COV:} tests {posargs}"
    words = ("pytest", "--rootdir", ".", "-n4", "tests")
    assert _read("tox.ini", f"[testenv]\nsetenv =\n{settings}commands = {command}\n") == (words,)
    itself = "[testenv]\nsetenv =\n    RUN = {env:RUN} {env:RUN}\ncommands = {env:RUN} pytest\n"
    assert _read("tox.ini", itself) == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", '[tool.tox.env_run_base]\nset_env = {A = "1", %s = "2"}\ncommands = [["pytest"]]\n'),
        ("noxfile.py", 'session.run("pytest", env={"A": "1", %s: "2"})\n'),
        (".github/workflows/ci.yml", '{"on": push, jobs: {a: {steps: [{run: pytest, env: {A: "1", %s: "2"}}]}}}\n'),
    ],
    ids=["tox", "nox", "workflow"],
)
def test_variable_with_an_invalid_name_is_left_out(name: str, text: str) -> None:
    """`init` writes the names as they are: this one would add a stage to the paropt.yml."""
    evil = r'"A: b}\n  - {number: 9, name: evil, run: touch ran}\n  # {"'
    (command,) = _find({name: text % evil}, [name] if "workflows" in name else []).commands
    assert command.env == (("A", "1"),)


@pytest.mark.parametrize("line", ["{env:RUN:pytest}", "mypy {envsitepackagesdir}", "- pytest", "a | b", "pytest 'x"])
def test_commands_that_need_tox_or_a_shell_are_left_out(line: str) -> None:
    assert _read("tox.ini", f"[testenv]\ncommands =\n    {line}\n") == ()


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("pytest -n auto tests", ("-n", "auto")),
        ("pytest -n4 --dist loadscope", ("-n", "4", "--dist", "loadscope")),
        ("coverage run -m pytest --numprocesses=logical --dist=loadfile", ("-n", "logical", "--dist", "loadfile")),
        ("pytest -k 'a -name'", ()),
        ("pytest -n 0", ()),
        ("ruff -n auto", ()),
    ],
)
def test_options_of_xdist_are_read_from_commands_of_pytest(line: str, options: tuple[str, ...]) -> None:
    found = _find({"Makefile": f"test:\n\t{line}\n"})
    assert found.find_xdist_options() == options


def test_commands_of_pyproject_are_those_of_tox_hatch_pdm_and_poe() -> None:
    text = """
[tool.tox.env_run_base]
commands = [["pytest", "-v", {replace = "posargs", default = []}]]
[tool.tox.env.typing]
commands = [["mypy", "src"]]
[tool.pdm.scripts]
lint = {cmd = "ruff check src"}
[tool.poe.tasks]
style = "flake8 src"
[tool.hatch.envs.default.scripts]
all = ["hatch run black --check .", "pyright src"]
"""
    assert set(_read("pyproject.toml", text)) == {
        ("pytest", "-v"), ("mypy", "src"), ("ruff", "check", "src"), ("flake8", "src"), ("black", "--check", "."),
        ("pyright", "src"),
    }  # fmt: skip


def test_calls_of_a_noxfile_count_if_their_arguments_are_literals() -> None:
    text = """
def lint(session):
    session.run("mypy", "src", *session.posargs)
    session.run("ruff", "check", ROOT)
    session.install("pytest")
"""
    assert _read("noxfile.py", text) == (("mypy", "src"),)


@pytest.mark.parametrize("name", ["Makefile", "justfile"])
def test_recipes_of_make_and_just_count(name: str) -> None:
    text = "NAME := value\ntypes: dep # comment\n\t@mypy \\\n\t  src\nlint:\n    ruff check $(FILES)\n"
    assert _read(name, text) == (("mypy", "src"),)


def test_targets_of_one_rule_share_its_recipe() -> None:
    found = parse_recipes("lint test: dep\n\techo a\n\techo b\n.PHONY: lint\nother::\n\techo c\n")
    assert found == {"lint": ["echo a", "echo b"], "test": ["echo a", "echo b"], "other": ["echo c"]}


def test_an_unreadable_file_costs_a_note_and_the_others_count() -> None:
    files = {"tox.ini": "commands", "noxfile.py": "session.run('mypy', 'src')"}
    found = _find(files)
    assert found.find("mypy") == (("src",),)
    assert [note.partition(",")[0] for note in found.notes] == ["tox.ini can't be parsed"]


@pytest.mark.parametrize(
    ("test", "first", "second"),
    [("session.posargs", "*session.posargs", "'tests'"), ("not session.posargs", "'tests'", "*session.posargs")],
)
def test_calls_of_a_noxfile_that_need_arguments_are_left_out(test: str, first: str, second: str) -> None:
    text = f"if {test}:\n session.run('pytest', {first})\nelse:\n session.run('pytest', {second})\n"
    assert _read("noxfile.py", text) == (("pytest", "tests"),)


def test_processes_of_xdist_on_some_systems_are_read_from_a_noxfile() -> None:
    text = (
        'parallel = [] if WINDOWS else ["--numprocesses=auto"]\nslow = ["-m", "slow"] if SLOW else []\n'
        'session.run("pytest", *parallel, *slow, "tests")\n'
    )
    (found,) = _find({"noxfile.py": text}).commands
    assert found.words == ("pytest", "--numprocesses=auto", "tests")


def test_computed_option_of_a_noxfile_is_left_out() -> None:
    text = (
        'session.run("pytest", "-n", "auto", f"--cov={PACKAGE}", "tests", env={"A": "1"})\nsession.run("mypy", f"{A}")'
    )
    (found,) = _find({"noxfile.py": text}).commands
    assert (found.words, found.env) == (("pytest", "-n", "auto", "tests"), (("A", "1"),))


def test_lists_of_a_noxfile_count_as_the_default_of_its_arguments() -> None:
    text = """
SOURCES = ["src", "tests"]
@nox.session
def lint(session):
    session.run("mypy", *SOURCES)
@nox.session
def tests(session):
    args = session.posargs or ["tests/unit"]
    session.run("pytest", "-m", "not slow", *args, env={"DEBUG": "1"})
"""
    first, second = _find({"noxfile.py": text}).commands
    assert first.words == ("mypy", "src", "tests")
    assert (second.words, second.env) == (("pytest", "-m", "not slow", "tests/unit"), (("DEBUG", "1"),))


def test_session_that_changes_the_folder_runs_commands_of_another_project() -> None:
    text = "def downstream(session):\n    session.chdir('other')\n    session.run('pytest', 'tests')\n"
    assert _read("noxfile.py", text) == ()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("setup.cfg", "[metadata]\nname = a\n[testenv]\ncommands = pytest tests\n"),
        (
            "tox.toml",
            '[env_run_base]\ncommands = [["pytest", {replace = "posargs", default = ["tests"], extend = true}]]\n',
        ),
        ("hatch.toml", '[envs.default.scripts]\ntest = "pytest {args:tests}"\n'),
        ("pixi.toml", '[feature.dev.tasks]\ntest = {cmd = "pytest tests", depends-on = ["build"]}\n'),
        ("pyproject.toml", '[tool.pixi.tasks]\ntest = "pytest tests"\n'),
        ("pyproject.toml", '[tool.taskipy.tasks]\ntest = {cmd = "pytest tests"}\n'),
        ("pyproject.toml", '[tool.pdm.scripts]\ntest.shell = "pytest tests"\n'),
        ("pyproject.toml", '[tool.poe.tasks.test]\nsequence = [{cmd = ["pytest", "tests"]}, "other"]\n'),
        ("Makefile", "PYTHON ?= python3\nDIR = tests\ntest:\n\t$(PYTHON) -m pytest $(PYTEST_ARGS) $(DIR)\n"),
        ("Makefile", "test: build\n\t. venv/bin/activate; pytest $${TEST_ARGS:-tests}\n"),
        ("justfile", "dir := 'tests'\ntest *args:\n    uv run pytest {{args}} {{dir}}\n"),
        (
            "scripts/test",
            'export PREFIX=""\nif [ -d venv ]; then\n    export PREFIX="venv/bin/"\nfi\n${PREFIX}pytest "$@" tests\n',
        ),
        ("scripts/test.sh", "pytest tests ${@}\n"),
        (
            "justfile",
            "lint:\n    ruff check\ntest *args='tests':\n    uv run {{ if a { b } else { c } }} pytest {{args}}\n",
        ),
        ("tox.ini", "[testenv]\nchangedir = .tox\ncommands = pytest {tox_root}/tests\n"),
        (".gitlab-ci.yml", "stages: [test]\ntest:\n  script:\n    - pip install .\n    - pytest tests\n"),
    ],
)
def test_command_for_the_tests_is_found(name: str, text: str) -> None:
    assert _find_tests(name, text) == (("pytest", "tests"),)


def test_variables_of_a_script_count() -> None:
    text = '[tool.pdm.scripts]\ntest = {cmd = "pytest", env = {DEBUG = "1"}}\n'
    (found,) = _find({"pyproject.toml": text}).commands
    assert found.env == (("DEBUG", "1"),)


def test_variables_that_a_script_exports_count_unless_it_only_uses_them_itself() -> None:
    text = (
        'export PREFIX="venv/bin/"\nexport WIDTH="3000"  # wide\nif x; then\n    export MAYBE=1\nfi\n'
        "${PREFIX}pytest tests ${@}\nexport LATER=1\n"
    )
    (found,) = _find({"scripts/test.sh": text}).find_tests()
    assert (found.words, found.env) == (("pytest", "tests"), (("WIDTH", "3000"),))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Makefile", "export PYTHONPATH := src  # ours\nexport PY ?= python3\ntest:\n\t$(PY) -m pytest tests\n"),
        ("Makefile", "DIR = src\nPYTHONPATH = $(DIR)\nexport PYTHONPATH OTHER\ntest:\n\tpython -m pytest tests\n"),
        ("justfile", "export PYTHONPATH := 'src'\ntest:\n    python -m pytest tests\n"),
    ],
)
def test_variables_that_recipes_export_count_unless_they_only_use_them_themselves(name: str, text: str) -> None:
    (found,) = _find({name: text}).find_tests()
    assert (found.words, found.python, found.env) == (
        ("pytest", "tests"), ("python", "-m"), (("PYTHONPATH", "src"),)
    )  # fmt: skip


def test_exported_value_that_make_computes_does_not_count() -> None:
    text = "export A = $(shell pwd)\nexport B\nexport C =\nunexport D\ntest:\n\tpytest\n"
    (found,) = _find({"Makefile": text}).find_tests()
    assert found.env == (("C", ""),)


def test_variable_that_make_exports_under_a_condition_does_not_count() -> None:
    text = "ifdef CI\nifeq (a,b)\nendif\nexport A := 1\nendif\nexport B := 2\nexport C := 3 \\\n  4\ntest:\n\tpytest\n"
    (found,) = _find({"Makefile": text}).find_tests()
    assert found.env == (("B", "2"),)


def test_exported_value_of_a_justfile_counts_if_it_is_a_string() -> None:
    text = (
        "root := 'src'\nexport A := root\nexport B := env('B', 'b')\nexport C := 'a' + 'b'\nexport D := \"d\" # ours\n"
        "export E := if os() == 'linux' { 'e' } else { '' }\ntest:\n    pytest\n"
    )
    (found,) = _find({"justfile": text}).find_tests()
    assert found.env == (("D", "d"),)


def test_workflows_for_pushes_and_pull_requests_count() -> None:
    job = "jobs: {test: {steps: [{run: 'pip install .'}, {run: pytest -m slow}]}}"
    files = {"ci.yml": f"on: [push]\n{job}", "release.yml": "on: release\njobs: {a: {steps: [{run: mypy src}]}}"}
    found = _find(files, ("ci.yml", "release.yml"))
    assert [each.words for each in found.find_tests()] == [("pytest", "-m", "slow")]
    assert found.find("mypy") == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("uv run --python ${{ matrix.python-version }} pytest", ("pytest",)),
        ("mypy --python-version='${{ matrix.python }}' src", ("mypy", "src")),
        ("uvx ruff@0.5 check src", ("ruff", "check", "src")),
        ("pytest ${{ matrix.tests }}", None),
        ("pytest -k ${{ matrix.tests }}", None),
    ],
)
def test_computed_options_of_a_workflow_are_left_out(line: str, words: tuple[str, ...] | None) -> None:
    text = f'on: push\njobs: {{test: {{steps: [{{run: "{line}"}}]}}}}'
    found = _find({"ci.yml": text}, ("ci.yml",)).commands
    assert [each.words for each in found] == ([words] if words else [])


def test_variables_of_a_job_and_its_workflow_count() -> None:
    steps = "[{run: pytest, env: {A: step}}]"
    text = f"on: push\nenv: {{A: workflow, C: workflow}}\njobs: {{test: {{env: {{A: job, B: job}}, steps: {steps}}}}}"
    (found,) = _find({"ci.yml": text}, ("ci.yml",)).find_tests()
    assert dict(found.env) == {"A": "step", "B": "job", "C": "workflow"}


def test_workflow_with_computed_arguments_or_in_another_folder_is_left_out() -> None:
    steps = "[{run: 'pytest ${{ matrix.tests }}'}, {run: pytest, working-directory: docs}, {run: cd docs && pytest}]"
    assert _find({"ci.yml": f"on: push\njobs: {{test: {{steps: {steps}}}}}"}, ("ci.yml",)).find_by_file("pytest") == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".gitlab-ci.yml", "a: {script: pytest}"),
        (".gitlab-ci.yml", 'a: {script: ["pip install .", "mypy app\\npytest"]}'),
        (".gitlab-ci.yml", "a: {script: [!reference [.setup, script], pytest]}"),
        ("ci.yml", 'on: push\njobs: {a: {steps: [{run: "mypy app\\npytest"}]}}'),
    ],
)
def test_each_line_of_a_script_is_a_command(name: str, text: str) -> None:
    assert _find({name: text}, ("ci.yml",)).find("pytest") == ((),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".gitlab-ci.yml", "test: {script: [cd app/, cd .., cd app, pytest]}"),
        (".gitlab-ci.yml", "before_script: [cd app]\ntest: {script: [pytest]}"),
        (".gitlab-ci.yml", "default: {before_script: [cd app]}\ntest: {script: [pytest]}"),
        (".gitlab-ci.yml", ".a: {before_script: [cd app]}\n.b: {extends: .a}\ntest: {extends: .b, script: [pytest]}"),
        (".gitlab-ci.yml", ".a: {script: [cd app, pytest], extends: .a}\ntest: {extends: [.none, .a, 1]}"),
        ("ci.yml", 'on: push\njobs: {test: {steps: [{run: "cd app\\npytest"}]}}'),
        ("ci.yml", "on: push\njobs: {test: {steps: [{run: pytest, working-directory: ./app/}]}}"),
        ("ci.yml", "on: push\njobs: {test: {steps: [{run: cd ../app && pytest, working-directory: lib}]}}"),
        ("ci.yml", "on: push\ndefaults: {run: {working-directory: app}}\njobs: {test: {steps: [{run: pytest}]}}"),
        ("ci.yml", "on: push\njobs: {test: {defaults: {run: {working-directory: app}}, steps: [{run: pytest}]}}"),
        ("scripts/test.sh", 'cd "$(dirname "$0")/.."\ncd app\npytest\n'),
        ("scripts/test.sh", "cd 'app' || exit 1  # of the package\npytest\n"),
        ("scripts/test.sh", "cd lib && npm ci && cd ../app\npytest\n"),
        ("scripts/test.sh", "cd app;\nfor each in a b; do cd $each; make; cd ..; done\npytest\n"),
    ],
)
def test_commands_after_cd_run_in_the_folder(name: str, text: str) -> None:
    (found,) = _find({name: text}, ("ci.yml",)).find_tests()
    assert (found.words, found.folder) == (("pytest",), "app")


@pytest.mark.parametrize("folder", ["/srv/app", "~/app", "../../app"])
def test_commands_after_cd_out_of_the_project_are_not_its_own(folder: str) -> None:
    found = _find({"scripts/test.sh": f"cd {folder}\npytest\n"})
    assert (found.find_tests()[0].folder, found.find_by_file("pytest")) == (folder, [])


def test_hooks_of_pre_commit_become_commands_that_change_nothing() -> None:
    text = """
repos:
  - repo: https://example.org/ruff
    hooks:
      - {id: ruff-check, args: [--fix, --exit-non-zero-on-fix]}
      - id: ruff-format
  - repo: https://example.org/others
    hooks:
      - {id: black, args: [--line-length=100]}
      - {id: mypy, files: "^(src/|testing/)", args: [--strict]}
      - {id: isort, stages: [manual]}
  - repo: local
    hooks:
      - {id: types, entry: uv run pyright src, language: system, pass_filenames: false}
      - {id: tests, entry: pytest, args: [-m, not slow], language: system, pass_filenames: false}
"""
    assert _read(".pre-commit-config.yaml", text) == (
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("black", "--check", "--line-length=100", "."),
        ("mypy", "--strict", "src", "testing"),
        ("pyright", "src"),
        ("pytest", "-m", "not slow"),
    )


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        ("id: mypy, entry: uv run mypy --strict", ("mypy", "--strict")),
        ("id: mypy, entry: mypy, args: [--strict]", ("mypy", "--strict")),
        ("id: ruff, entry: ruff check --fix --select=E", ("ruff", "check", "--select=E", ".")),
        ("id: ruff-format, entry: poetry run ruff format", ("ruff", "format", "--check", ".")),
        ("id: black, entry: black -l 100, files: ^src/", ("black", "-l", "100", "--check", "src")),
        ("id: mypy, entry: ./types.sh", ("mypy",)),
        ("id: ruff, entry: 'ruff \"'", ("ruff", "check", ".")),
        ("id: our-format, entry: uv run ruff format --exit-non-zero-on-format", ("ruff", "format", "--check", ".")),
        ("id: our-linter, entry: uv run ruff check --fix, pass_filenames: false", ("ruff", "check", ".")),
        ("id: our-linter, entry: ruff check src, pass_filenames: false", ("ruff", "check", "src")),
        ("id: our-types, entry: python -m mypy, args: [src], pass_filenames: false", ("mypy", "src")),
    ],
)
def test_local_hook_keeps_the_options_of_its_entry(hook: str, words: tuple[str, ...]) -> None:
    """pre-commit gives such a hook only its own arguments, not those of the published hook with this id."""
    text = f"repos: [{{repo: local, hooks: [{{{hook}, language: system, types: [python]}}]}}]\n"
    assert _read(".pre-commit-config.yaml", text) == (words,)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (
            "id: mypy, exclude: '^(docs|tests)/.*_x', args: [--strict]",
            ("mypy", "--strict", "--exclude=^(docs|tests)/.*_x"),
        ),
        (
            "id: ruff-check, exclude: '^(a|b-c)/'",
            ("ruff", "check", "--extend-exclude=./a", "--extend-exclude=./b-c", "."),
        ),
        ("id: black, exclude: '^a.b/', files: ^src/", ("black", "--check", "--extend-exclude=^/(a\\.b)/", "src")),
        (r"id: flake8, files: '\.pyi?$'", ("flake8",)),
        (r"id: flake8, files: '^(src|tests)/.*\.py$'", ("flake8", "src", "tests")),
    ],
)
def test_hook_leaves_out_the_same_files(hook: str, words: tuple[str, ...]) -> None:
    text = f"repos: [{{repo: a, hooks: [{{{hook}}}]}}]\n"
    assert _read(".pre-commit-config.yaml", text) == (words,)


@pytest.mark.parametrize(
    ("hook", "why"),
    [
        ('{id: flake8, exclude: "^docs/"}', "no command line can name its files (exclude: ^docs/)"),
        (f'{{id: mypy, files: "^({"a" * 9999}"}}', f"no command line can name its files (files: ^({'a' * 57}…)"),
        ('{id: mypy, files: "^(a|b)[.]py$"}', "no command line can name its files (files: ^(a|b)[.]py$)"),
        (f'{{id: black, exclude: "{"a|" * 99}"}}', f"no command line can name its files (exclude: {'a|' * 29}a…)"),
    ],
)
def test_note_on_a_hook_whose_files_no_command_can_name(hook: str, why: str) -> None:
    name = hook.removeprefix("{id: ").partition(",")[0]
    found = _find({".pre-commit-config.yaml": f"repos: [{{repo: a, hooks: [{hook}]}}]\n"})
    assert (found.commands, found.notes) == ((), (f".pre-commit-config.yaml: the hook {name} is not used: {why}",))


def test_files_that_all_hooks_skip_cost_a_note() -> None:
    found = _find({".pre-commit-config.yaml": "exclude: ^docs/\nrepos: [{repo: a, hooks: [{id: black}]}]\n"})
    assert [each.words for each in found.commands] == [("black", "--check", ".")]
    told = ".pre-commit-config.yaml: its hooks skip ^docs/ (exclude); the stages check these files, too"
    assert found.notes == (told,)


def test_hooks_that_never_check_files_are_no_commands() -> None:
    """`pre-commit run --all-files` does not run them either."""
    text = """
default_stages: [commit-msg]
repos:
  - repo: https://example.org/commits
    hooks:
      - {id: conventional-pre-commit, stages: [commit-msg]}
      - {id: gitlint}
      - {id: black, stages: [pre-commit, manual]}
      - {id: issue, entry: python check_issue.py, stages: [commit-msg, manual], pass_filenames: false}
"""
    found = _find({".pre-commit-config.yaml": text})
    assert [each.words for each in found.commands] == [("black", "--check", ".")]
    assert found.notes == ()


def test_hooks_that_become_no_command_are_named_in_one_note() -> None:
    """They were left out silently."""
    hooks = [
        *("{id: trailing-whitespace}", "{id: black}", "{id: codespell}", "{id: x, stages: [manual]}"),
        "{entry: y}",
    ]
    found = _find({".pre-commit-config.yaml": f"repos: [{{repo: a, hooks: [{', '.join(hooks)}]}}]\n"})
    told = "no stage runs its hooks trailing-whitespace, codespell: `pre-commit run --all-files` does"
    assert found.notes == (f".pre-commit-config.yaml: {told}",)
    (note,) = _find({".pre-commit-config.yaml": "repos: [{repo: a, hooks: [{id: x}]}]\n"}).notes
    assert note == ".pre-commit-config.yaml: no stage runs its hook x: `pre-commit run --all-files` does"
    many = ", ".join(f"{{id: hook-{number}}}" for number in range(12))
    (note,) = _find({".pre-commit-config.yaml": f"repos: [{{repo: a, hooks: [{many}]}}]\n"}).notes
    assert "hook-6, hook-7 and 4 more: " in note


def test_tests_are_those_of_the_first_environment_for_them() -> None:
    text = """
[testenv]
commands =
    tests: pytest
    mypy: pytest -k test_mypy
[testenv:py3{12,13}-tests]
commands = pytest --cov
[testenv:bench]
commands = pytest bench
"""
    assert _find_tests("tox.ini", text) == (("pytest",),)
    assert _find_tests("tox.ini", text.partition("[testenv:py")[0].replace("    tests: pytest\n", "")) == ()


def test_hook_that_runs_a_module_of_tests_does_not_run_the_tests() -> None:
    hook = "{id: readme, entry: pytest docs/test_readme.py, pass_filenames: false}"
    files = {".pre-commit-config.yaml": f"repos: [{{repo: local, hooks: [{hook}]}}]"}
    assert _find(files).find_tests() == ()
    files["ci.yml"] = "on: push\njobs: {python: {steps: [{run: pytest}]}}"
    assert [each.words for each in _find(files, ("ci.yml",)).find_tests()] == [("pytest",)]


def test_environment_whose_name_begins_like_a_version_of_python_is_another() -> None:
    text = "[testenv:pytest54]\ncommands = pytest old\n[testenv:pypy3]\ncommands = pytest\n"
    assert _find_tests("tox.ini", text) == (("pytest",),)


def test_tests_after_other_packages_are_installed_are_left_out() -> None:
    text = "[testenv]\ncommands =\n    pip install a\n    pytest tests\n    pip install b\n    pytest other\n"
    assert _find_tests("tox.ini", text) == (("pytest", "tests"),)


def test_variables_and_folder_of_tox_come_from_its_base_environment() -> None:
    base = (
        "[testenv]\nsetenv =\n    PYTHONPATH = {toxinidir}\n    A = {env:A}\n    slow,old: B = b\nchangedir = tests\n"
    )
    text = f"{base}[testenv:unit]\ncommands = pytest\n"
    (found,) = _find({"tox.ini": text}).find_tests()
    assert (found.folder, found.env) == ("tests", (("PYTHONPATH", ".."),))


def test_many_references_of_tox_to_a_long_text_cost_little_memory() -> None:
    text = f"[testenv]\ncommands = pytest {'{[a]x} ' * 10_000}\n[a]\nx = {'y' * 9_000}\n"
    tracemalloc.start(1)
    try:
        _read("tox.ini", text)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_references_of_tox_to_other_sections_are_followed() -> None:
    """Commands with a reference were left out, and a note had the reference itself as the command to add."""
    text = (
        "[base]\nrunner = pytest -W error\nenv =\n    A = 1\n"
        "[testenv]\nsetenv = {[base]env}\ncommands_pre =\n    {[testenv:build]commands}\n"
        "commands =\n    {[base]runner} tests {posargs}\n"
        "[testenv:build]\ncommands = python build.py\n[testenv:lint]\ncommands =\n    {[testenv:types]commands}\n"
        "    ruff check src\n[testenv:types]\ncommands =\n    mypy src\n    mypy tests\n"
        "[testenv:loop]\ncommands = {[testenv:loop]commands} {[nowhere]x}\n"
    )
    found = _find({"tox.ini": text})
    (tests,) = found.find_tests()
    assert (tests.words, tests.env, tests.before) == (
        ("pytest", "-W", "error", "tests"),
        (("A", "1"),),
        "python build.py",
    )
    assert [each.words for each in found.commands if each.group == "lint"] == [
        ("mypy", "src"),
        ("mypy", "tests"),
        ("ruff", "check", "src"),
    ]


def test_paths_in_variables_of_tox_are_relative_to_the_folder_of_the_command() -> None:
    """django-silk has PYTHONPATH={toxinidir}:{toxinidir} and runs pytest in a folder: it became `:`."""
    paths = "{toxinidir}:{toxinidir}/src"
    found = {
        folder: _find(
            {"tox.ini": f"[testenv]\nsetenv = PYTHONPATH={paths}\nchangedir = {folder}\ncommands = pytest\n"}
        ).find_tests()
        for folder in ("{toxinidir}", "{toxinidir}/a/b")
    }
    assert [each.env for commands in found.values() for each in commands] == [
        (("PYTHONPATH", ".:src"),),
        (("PYTHONPATH", "../..:../../src"),),
    ]


def test_variables_in_front_of_a_command_are_set_for_it() -> None:
    (found,) = _find({"Makefile": "test:\n\tTERM=unknown uv run pytest tests\n"}).find_tests()
    assert (found.words, found.env) == (("pytest", "tests"), (("TERM", "unknown"),))
    text = "[testenv]\nsetenv =\n    A = a\n    B = b\ncommands = env -u A C=c pytest\n"
    (found,) = _find({"tox.ini": text}).find_tests()
    assert (found.words, found.env) == (("pytest",), (("B", "b"), ("C", "c")))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("python -m unittest discover", ("python", "-m", "unittest", "discover")),
        ("coverage run -m unittest", ("python", "-m", "unittest")),
        ("./runtests.py", ("python", "./runtests.py")),
        ("coverage run manage.py test app", ("python", "manage.py", "test", "app")),
        ("django-admin test", ("django-admin", "test")),
        ("python -Wd tests/run_tests.py", ("python", "-Wd", "tests/run_tests.py")),
        ("python utest/run.py -v", ("python", "utest/run.py", "-v")),
        ("python tests/runner.py", ("python", "tests/runner.py")),
    ],
)
def test_other_runners_than_pytest_are_started_as_the_project_does(line: str, words: tuple[str, ...]) -> None:
    (found,) = _find({"tox.ini": f"[testenv]\ncommands = {line}\n"}).find_tests()
    assert (*found.python, *found.words) == words


@pytest.mark.parametrize("job", ["test-linux", "tests_python", "test_using_builtin_python", "test-on-ubuntu"])
def test_job_for_one_of_several_systems_runs_the_tests(job: str) -> None:
    """Robot Framework has one for each kind of Python."""
    path = ".github/workflows/ci.yml"
    text = f"on: push\njobs: {{{job}: {{steps: [{{run: pytest -x}}]}}}}\n"
    (found,) = _find({path: text}, [path]).find_tests()
    assert found.words == ("pytest", "-x")


@pytest.mark.parametrize("ending", ["&& false", "; exit 1"])
def test_advice_after_a_failure_is_left_out(ending: str) -> None:
    recipe = f"""lint:\n\tblack --check src || (echo "Run 'make style' to change that" {ending})\n"""
    assert _read("Makefile", recipe) == (("black", "--check", "src"),)


WORDS = ", ".join(["'x'"] * 1000)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Makefile", f"A = {'x ' * 4000}\ntest:\n" + "\t$A\n" * 1000),
        ("Makefile", f"{' '.join(f't{number}' for number in range(1000))}:\n" + "\tpytest\n" * 1000),
        ("tox.ini", f"[testenv]\ncommands_pre = {'x ' * 4000}\n" + _repeat("[testenv:{}]\ncommands = a\n")),
        ("tox.ini", f"[testenv]\nset_env =\n{_repeat('  A{} = 1', 1000)}\n" + _repeat("[testenv:{}]\ncommands = a\n")),
        (
            "tox.toml",
            "[env_run_base.set_env]\n" + _repeat("A{} = ``") + "\n" + _repeat("[env.e{}]\ncommands=[[``]]"),
        ),
        ("noxfile.py", f"A = [{WORDS}]\n" + "session.run(*A)\n" * 1000),
        (".gitlab-ci.yml", f"a: {{script: [&a '{'x ' * 4000}']}}\nb: {{script: [{'*a, ' * 1000}]}}\n"),
    ],
    ids=["variables", "targets", "preparations", "variables of tox.ini", "variables of tox.toml", "lists", "aliases"],
)
def test_file_whose_commands_multiply_is_not_used(name: str, text: str) -> None:
    """Such a file of 1 MB took all memory."""
    found = _find({name: text.replace("``", '""')})
    assert found.commands == ()
    assert found.notes == (
        f"{name} can't be parsed, and is not used: its commands have more than 1,000,000 characters",
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("justfile", f'test a="{"x " * 4000}":\n  ' + "{{a}}" * 1000),
        ("noxfile.py", f"A = [{WORDS}]\nsession.run({'*A,' * 1000})"),
    ],
)
def test_line_that_multiplies_is_left_out(name: str, text: str) -> None:
    assert _read(name, text) == ()
