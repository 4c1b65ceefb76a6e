"""Which virtual environment's programs the stages run."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.config.virtual_environment import build_environment, find_virtual_environment


def _make(folder: Path) -> Path:
    (folder / "bin").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", [".venv", "venv"])
def test_the_projects_environment_comes_first_on_path(tmp_path: Path, name: str) -> None:
    own = _make(tmp_path / name)
    assert build_environment(tmp_path, {"PATH": "/usr/bin"}) == {"PATH": f"{own}/bin:/usr/bin", "VIRTUAL_ENV": f"{own}"}


def test_the_active_environment_wins_over_the_projects(tmp_path: Path) -> None:
    _make(tmp_path / "project/.venv")
    active = _make(tmp_path / "active")
    assert find_virtual_environment(tmp_path / "project", {"VIRTUAL_ENV": str(active)}) == active


def test_an_active_environment_that_is_gone_does_not_count(tmp_path: Path) -> None:
    own = _make(tmp_path / ".venv")
    assert find_virtual_environment(tmp_path, {"VIRTUAL_ENV": str(tmp_path / "gone")}) == own


def test_nothing_changes_if_its_programs_are_first_already(tmp_path: Path) -> None:
    own = _make(tmp_path / ".venv")
    assert build_environment(tmp_path, {"PATH": f"{own}/bin:/usr/bin"}) == {}


def test_nothing_changes_without_an_environment(tmp_path: Path) -> None:
    assert build_environment(tmp_path, {"PATH": "/usr/bin"}) == {}


def test_the_nearest_environment_of_the_repository_is_used(tmp_path: Path) -> None:
    (tmp_path / "repository/.git").mkdir(parents=True)
    (tmp_path / "repository/packages/b").mkdir(parents=True)
    shared, own = _make(tmp_path / "repository/.venv"), _make(tmp_path / "repository/packages/a/.venv")
    assert find_virtual_environment(tmp_path / "repository/packages/a", {}) == own
    assert find_virtual_environment(tmp_path / "repository/packages/b", {}) == shared


def test_an_environment_outside_of_the_repository_is_not_used(tmp_path: Path) -> None:
    _make(tmp_path / ".venv")
    (tmp_path / "repository/.git").mkdir(parents=True)
    assert find_virtual_environment(tmp_path / "repository", {}) is None


def test_the_home_folders_environment_is_not_used_for_projects(tmp_path: Path) -> None:
    _make(tmp_path / ".venv")
    (tmp_path / "project").mkdir()
    assert find_virtual_environment(tmp_path / "project", {"HOME": str(tmp_path)}) is None
