"""Which config file is read."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from paropt_exporter.config import discover, read_config
from paropt_exporter.errors import UsageError


def test_flag_wins_over_the_environment_and_that_over_the_folder(tmp_path: Path) -> None:
    for name in ("paropt.yml", "flag.yml", "variable.yml"):
        (tmp_path / name).touch()
    variable = {"PAROPT_CONFIG_FILE": str(tmp_path / "variable.yml")}
    assert discover(str(tmp_path / "flag.yml"), variable, folder=tmp_path) == tmp_path / "flag.yml"
    assert discover(None, variable, folder=tmp_path) == tmp_path / "variable.yml"
    assert discover(None, {}, folder=tmp_path) == tmp_path / "paropt.yml"


def test_no_file_is_allowed_and_the_other_spelling_is_found(tmp_path: Path) -> None:
    assert discover(None, {"PAROPT_CONFIG_FILE": ""}, folder=tmp_path) is None
    (tmp_path / "paropt.yaml").touch()
    assert discover(None, {}, folder=tmp_path) == tmp_path / "paropt.yaml"


def test_two_files_are_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "paropt.yaml").touch()
    (tmp_path / "paropt.yml").touch()
    with pytest.raises(UsageError, match="remove one"):
        discover(None, {}, folder=tmp_path)


@pytest.mark.parametrize("named", ["missing.yml", "", "a\0b"])
def test_named_file_must_exist(tmp_path: Path, named: str) -> None:
    with pytest.raises(UsageError, match=r"--config.file: there is no file"):
        discover(named, {}, folder=tmp_path)


def test_nearest_file_above_is_found(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (tmp_path / "paropt.yml").touch()
    assert discover(None, {}, folder=deep) == deep / "../../../paropt.yml"
    (tmp_path / "a" / "paropt.yaml").touch()
    assert discover(None, {}, folder=deep) == deep / "../../paropt.yaml"


@pytest.mark.parametrize("mark", [".git", ".hg"])
def test_search_ends_at_the_root_of_a_repository(tmp_path: Path, mark: str) -> None:
    inner = tmp_path / "repository" / "src"
    inner.mkdir(parents=True)
    (tmp_path / "paropt.yml").touch()
    (tmp_path / "repository" / mark).touch()  # a file, as git has it in worktrees and submodules
    assert discover(None, {}, folder=inner) is None
    (tmp_path / "repository" / "paropt.yml").touch()
    assert discover(None, {}, folder=inner) == inner / "../paropt.yml"


def test_search_does_not_enter_the_home_folder(tmp_path: Path) -> None:
    inner = tmp_path / "notes"
    inner.mkdir()
    (tmp_path / "paropt.yml").touch()
    assert discover(None, {"HOME": str(tmp_path)}, folder=inner) is None
    assert discover(None, {"HOME": str(tmp_path)}, folder=tmp_path) == tmp_path / "paropt.yml"


@pytest.mark.parametrize("written", ["{home}/", "{home}/../link"])
def test_home_folder_is_known_by_any_of_its_paths(tmp_path: Path, written: str) -> None:
    home, inner = tmp_path / "home", tmp_path / "home/notes"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    (home / "paropt.yml").touch()
    assert discover(None, {"HOME": written.format(home=home)}, folder=inner) is None


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"HOME": "."}], ids=str)
def test_home_folder_is_that_of_the_user_without_a_usable_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    """As in some containers and services: a config in the home folder applied to every folder below."""
    inner = tmp_path / "notes"
    inner.mkdir()
    (tmp_path / "paropt.yml").touch()
    monkeypatch.setattr("pwd.getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    assert discover(None, environ, folder=inner) is None


def test_search_does_not_enter_a_world_writable_folder(tmp_path: Path) -> None:
    inner = tmp_path / "open" / "mine"
    inner.mkdir(parents=True)
    (tmp_path / "open").chmod(0o1777)
    (tmp_path / "open" / "paropt.yml").touch()
    assert discover(None, {}, folder=inner) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_search_does_not_enter_the_folder_of_another_user(tmp_path: Path) -> None:
    inner = tmp_path / "theirs" / "mine"
    inner.mkdir(parents=True)
    (tmp_path / "theirs" / "paropt.yml").touch()
    os.chown(tmp_path / "theirs", 65534, 65534)
    assert discover(None, {}, folder=inner) is None
    os.chown(inner, 65534, 65534)  # as of a project in a container
    assert discover(None, {}, folder=inner) == inner / "../paropt.yml"


def test_two_files_above_are_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "paropt.yaml").touch()
    (tmp_path / "paropt.yml").touch()
    with pytest.raises(UsageError, match=r"there are paropt\.yml and paropt\.yaml"):
        discover(None, {}, folder=tmp_path / "inner")


@pytest.mark.parametrize("name", [".paropt.yml", "paropt.toml"])
def test_note_on_a_config_of_another_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("stages: []\n")
    assert read_config(None, root=tmp_path).notes[0] == f"{name} is not read: a config is called paropt.yml"
