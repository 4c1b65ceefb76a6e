"""The history stays out of version control, also where nobody told git so."""

from __future__ import annotations

import subprocess
from contextlib import closing
from pathlib import Path

from paropt_exporter.config.lanes import find_changed_paths
from paropt_exporter.history import History
from support.event_samples import StillClock


def changed_after_opening(repository: Path, history: str) -> frozenset[str]:
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    with closing(History(repository / history, project="shop", clock=StillClock())):
        return find_changed_paths(repository)


def test_a_history_in_our_own_folder_is_no_change_of_the_project(tmp_path: Path) -> None:
    assert changed_after_opening(tmp_path, ".paropt/history.db") == set()


def test_git_is_told_nothing_about_a_folder_of_the_users(tmp_path: Path) -> None:
    assert "build/history.db" in changed_after_opening(tmp_path, "build/history.db")
    assert not (tmp_path / "build/.gitignore").exists()


def test_what_the_user_wrote_there_stays(tmp_path: Path) -> None:
    ignore = tmp_path / ".paropt/.gitignore"
    ignore.parent.mkdir()
    ignore.write_text("history.db\n")
    changed_after_opening(tmp_path, ".paropt/history.db")
    assert ignore.read_text() == "history.db\n"
