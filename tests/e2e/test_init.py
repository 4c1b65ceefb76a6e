"""The file that `init` writes runs without editing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import projects
from support.real_servers import HANG_SECONDS, MORTAL, environment, installed_command, run

_TOOL = '#!/bin/sh\necho "$0 $*, in $VIRTUAL_ENV" >> {log}\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose tools are in its virtual environment only, which is not active."""
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    folder = tmp_path / "project"
    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("ruff", "pytest"):
        (folder / ".venv/bin" / name).write_text(_TOOL.format(log=tmp_path / "log"))
        (folder / ".venv/bin" / name).chmod(0o755)
    (folder / "tests").mkdir()
    (folder / "tests/test_one.py").touch()
    (folder / "tox.ini").write_text("[testenv:lint]\ncommands = ruff check tests\n[pytest]\ntestpaths = tests\n")
    return folder


def test_lane_of_a_new_config_runs_the_tools_of_the_inactive_environment(project: Path) -> None:
    for arguments in (("init",), ("check",), (projects.ANY_PORT, "--once")):
        ended = run(project, *arguments)
        assert ended.returncode == 0, ended.stderr
    assert ".venv/bin/" not in (project / "paropt.yml").read_text()
    assert sorted((project.parent / "log").read_text().splitlines()) == [
        f"{project}/.venv/bin/pytest -q, in {project}/.venv",
        f"{project}/.venv/bin/ruff check tests, in {project}/.venv",
    ]


def test_items_of_a_stage_with_a_folder_are_files_in_it(project: Path) -> None:
    projects.write(project, 'name: each, run: "test -e {item}", cwd: tests, items: {glob: "*.py"}')
    ended = run(project, projects.ANY_PORT, "--once")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("command", ["init", "plan", "--list", "check"])
def test_folder_of_another_user_in_the_project_stops_no_command(project: Path, command: str) -> None:
    """A container with the project as its volume may leave its data there."""
    (project / "data").mkdir(0o000)
    ended = subprocess.run(
        [*MORTAL, installed_command(), command],
        cwd=project,
        env=environment(VIRTUAL_ENV=str(project / "data/venv")),  # sudo may keep that of its caller
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "unit_tests" in ended.stdout or command == "check"
