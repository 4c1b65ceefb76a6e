"""The command in sub-folders of a project, and where a repository has several."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import projects
from support.in_process import call_command
from support.real_servers import run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a project at its root and one in `inner`, each with sub-folders."""
    (tmp_path / ".git").mkdir()
    for folder in ("src/deep", "inner/src"):
        (tmp_path / folder).mkdir(parents=True)
    outer = """
        name: where, run: "touch ran"
        name: each, run: "test -e {item}", items: {glob: src/*.txt}
        name: called, call: "work:touch", items: {list: [called]}
    """
    (tmp_path / "src" / "one.txt").touch()
    projects.write(tmp_path, outer, work="def touch(name):\n    open(name, 'w').close()\n")
    projects.write(tmp_path / "inner", 'name: inner, run: "touch ran"')
    return tmp_path


def test_lane_runs_from_a_sub_folder_as_from_the_folder_of_its_config(repository: Path) -> None:
    ended = run(repository / "src" / "deep", projects.ANY_PORT, "--once")
    assert ended.returncode == 0, ended.stderr
    assert "config ../../paropt.yml" in ended.stderr
    assert (repository / "ran").exists() and (repository / "called").exists()
    assert (repository / ".paropt").exists()
    assert not [*(repository / "src").rglob(".paropt")]


def test_nearest_project_wins(repository: Path) -> None:
    ended = run(repository / "inner" / "src", projects.ANY_PORT, "--once")
    assert ended.returncode == 0, ended.stderr
    assert (repository / "inner" / "ran").exists()
    assert not (repository / "ran").exists()


def test_paths_of_flags_are_those_of_the_sub_folder(repository: Path) -> None:
    ended = run(repository / "src", projects.ANY_PORT, "--once", "--only", "where", "--textfile", "deep")
    assert ended.returncode == 0, ended.stderr
    assert [path.suffix for path in (repository / "src" / "deep").iterdir()] == [".prom"]


def test_paths_of_variables_are_those_of_the_sub_folder(repository: Path) -> None:
    """The lane kept its results in the folder of its config, where `plan --why` and `cache` did not look."""
    projects.write(repository, 'name: cached, run: "true", inputs: ["src/*"]')
    ended = run(repository / "src", projects.ANY_PORT, "--once", PAROPT_CACHE_DIR="../.results")
    assert ended.returncode == 0, ended.stderr
    assert (repository / ".results").is_dir() and not (repository.parent / ".results").exists()
    planned = call_command(repository / "src", "plan", "--why", PAROPT_CACHE_DIR="../.results")
    assert "cached" in planned.stdout and "no result" not in planned.stdout


def test_every_command_says_which_config_it_found_above(repository: Path) -> None:
    assert run(repository, projects.ANY_PORT, "--once").returncode == 0
    for command in ("check", "plan", "--list", "history", "--dry-run"):
        ended = call_command(repository / "src", command)
        assert (ended.returncode, ended.stderr.splitlines()[0]) == (0, "config ../paropt.yml"), command
        assert "config" not in call_command(repository, command).stderr, command


def test_fault_names_the_file_as_it_is_reached_from_here(repository: Path) -> None:
    (repository / "paropt.yml").write_text("stages: 5\n")
    ended = call_command(repository / "src", "check")
    assert (ended.returncode, "../paropt.yml:1:9: stages" in ended.stderr) == (2, True)


def test_lane_is_steered_from_a_sub_folder(repository: Path) -> None:
    with projects.served(repository):
        paused = run(repository / "src", "pause")
        assert (paused.returncode, paused.stderr.splitlines()[0]) == (0, "config ../paropt.yml")
