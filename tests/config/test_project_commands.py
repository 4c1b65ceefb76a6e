"""Which commands a project runs on itself, by the files of its own tools."""

from __future__ import annotations

import pytest

from paropt_exporter.config.project_commands import parse_recipes, read_project_commands


def _read(**files: str) -> tuple[tuple[str, ...], ...]:
    found = read_project_commands(lambda name: files.get(name.replace(".", "_"), ""))
    assert found.notes == ()
    return found.commands


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pytest {posargs}", ("pytest",)),
        ("pytest {posargs:-n auto}", ("pytest", "-n", "auto")),
        ("pytest {posargs:-v}", ("pytest",)),
        ("pytest {posargs:tests/unit} -q", ("pytest", "tests/unit", "-q")),
        ("tests,!slow: pytest", ("pytest",)),
        ("mypy {toxinidir}/src", ("mypy", "src")),
        ("{envpython} -m mypy src", ("mypy", "src")),
        ("coverage run -m pytest tests", ("pytest", "tests")),
        ("pytest --basetemp={envtmpdir} tests", ("pytest", "tests")),
        ("uv run ruff check src", ("ruff", "check", "src")),
    ],
)
def test_commands_of_tox_lose_what_only_tox_knows(line: str, words: tuple[str, ...]) -> None:
    assert _read(tox_ini=f"[testenv]\ncommands =\n    {line}\n") == (words,)


@pytest.mark.parametrize("line", ["{env:RUN:pytest}", "mypy {envsitepackagesdir}", "- pytest", "a | b", "pytest 'x"])
def test_commands_that_need_tox_or_a_shell_are_left_out(line: str) -> None:
    assert _read(tox_ini=f"[testenv]\ncommands =\n    {line}\n") == ()


@pytest.mark.parametrize(
    ("line", "processes"),
    [
        ("pytest -n auto tests", "auto"),
        ("pytest -n4", "4"),
        ("coverage run -m pytest --numprocesses=logical", "logical"),
        ("pytest -k 'a -name'", None),
        ("pytest -n 0", None),
        ("ruff -n auto", None),
    ],
)
def test_processes_of_xdist_are_read_from_commands_of_pytest(line: str, processes: str | None) -> None:
    found = read_project_commands(lambda name: f"test:\n\t{line}\n" if name == "Makefile" else "")
    assert found.find_xdist_processes() == processes


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
    assert set(_read(pyproject_toml=text)) == {
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
    assert _read(noxfile_py=text) == (("mypy", "src"),)


@pytest.mark.parametrize("name", ["Makefile", "justfile"])
def test_recipes_of_make_and_just_count(name: str) -> None:
    text = "NAME := value\ntypes: dep # comment\n\t@mypy \\\n\t  src\nlint:\n    ruff check $(FILES)\n"
    assert _read(**{name: text}) == (("mypy", "src"),)


def test_targets_of_one_rule_share_its_recipe() -> None:
    found = parse_recipes("lint test: dep\n\techo a\n\techo b\n.PHONY: lint\nother::\n\techo c\n")
    assert found == {"lint": ["echo a", "echo b"], "test": ["echo a", "echo b"], "other": ["echo c"]}


def test_an_unreadable_file_costs_a_note_and_the_others_count() -> None:
    files = {"tox.ini": "commands", "noxfile.py": "session.run('mypy', 'src')"}
    found = read_project_commands(lambda name: files.get(name, ""))
    assert found.commands == (("mypy", "src"),)
    assert [note.partition(",")[0] for note in found.notes] == ["tox.ini can't be parsed"]
