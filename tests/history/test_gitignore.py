"""Git ignores the history without any configuration by the user."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from paropt_exporter.config.lanes import find_changed_paths
from paropt_exporter.history import History
from support.event_samples import StillClock


def list_changes_after_opening(repository: Path, history: str) -> frozenset[str]:
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    with closing(History(repository / history, project="shop", clock=StillClock())):
        return find_changed_paths(repository)


def test_git_sees_no_change_for_a_history_in_our_folder(tmp_path: Path) -> None:
    assert list_changes_after_opening(tmp_path, ".paropt/history.db") == set()


def test_a_users_folder_gets_no_gitignore(tmp_path: Path) -> None:
    assert "build/history.db" in list_changes_after_opening(tmp_path, "build/history.db")
    assert not (tmp_path / "build/.gitignore").exists()


def test_an_existing_gitignore_is_kept(tmp_path: Path) -> None:
    ignore = tmp_path / ".paropt/.gitignore"
    ignore.parent.mkdir()
    ignore.write_text("history.db\n")
    list_changes_after_opening(tmp_path, ".paropt/history.db")
    assert ignore.read_text() == "history.db\n"
