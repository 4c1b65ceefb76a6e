"""The digest of a work tree's state, on real repositories."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from paropt_exporter.git import find_git_folder, identify_tree_state, is_ignored
from support.environment import removed_while_copied
from support.repositories import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repo")
    made.commit(a="1", b="2")
    return made


def test_state_is_known_while_another_thread_removes_a_variable(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with removed_while_copied(monkeypatch):
        state = identify_tree_state(repository.root)
    assert state == identify_tree_state(repository.root) != ""


def test_equal_files_have_equal_states(repository: Repository) -> None:
    clean = identify_tree_state(repository.root)
    assert clean
    repository.write("a", "changed")
    changed = identify_tree_state(repository.root)
    repository.write("a", "1")
    assert identify_tree_state(repository.root) == clean != changed


@pytest.mark.parametrize("name", ["new", "line\nbreak", "sub/ünï cöde", "a -> b"])
def test_untracked_file_changes_the_state(repository: Repository, name: str) -> None:
    states = {identify_tree_state(repository.root)}
    repository.write(name, "1")
    states.add(identify_tree_state(repository.root))
    repository.write(name, "2")
    states.add(identify_tree_state(repository.root))
    assert len(states) == 3


def test_deleted_file_staged_file_and_mode_change_the_state(repository: Repository) -> None:
    states = {identify_tree_state(repository.root)}
    (repository.root / "a").chmod(0o755)
    states.add(identify_tree_state(repository.root))
    (repository.root / "a").unlink()
    states.add(identify_tree_state(repository.root))
    repository.git("add", "--all")
    assert identify_tree_state(repository.root) in states, "only the files count, not the index"
    assert len(states) == 3


def test_ignored_files_do_not_change_the_state(repository: Repository) -> None:
    repository.commit(**{".gitignore": "*.log\n"})
    before = identify_tree_state(repository.root)
    repository.write("out.log", "1")
    assert identify_tree_state(repository.root) == before


def test_untracked_files_in_the_caches_of_tools_do_not_change_the_state(repository: Repository) -> None:
    """They changed it in each run of a project whose .gitignore does not name them, so that nothing was flaky."""
    clean = identify_tree_state(repository.root)
    repository.write("lib/__pycache__/a.cpython-311.pyc", "1")
    repository.write(".mypy_cache/3.11/cache.db", "1")
    assert identify_tree_state(repository.root) == clean != ""


def test_failing_git_does_not_pass_for_a_folder_that_is_not_ignored(repository: Repository) -> None:
    repository.write("sub/x", "1")
    (repository.root / ".git/index").write_bytes(b"not an index")
    with pytest.raises(subprocess.CalledProcessError):
        is_ignored(repository.root / "sub", repository.root)


def test_state_of_an_ignored_folder_is_unknown(repository: Repository) -> None:
    repository.commit(**{".gitignore": "/work/\n", "sub/x": "1"})
    repository.write("work/x", "1")
    assert identify_tree_state(repository.root / "work") == ""
    assert identify_tree_state(repository.root / "sub") != ""


def test_state_is_that_of_the_whole_repository(repository: Repository) -> None:
    repository.write("sub/x", "1")
    first = identify_tree_state(repository.root / "sub")
    repository.write("a", "2")
    assert identify_tree_state(repository.root / "sub") != first


def test_commit_changes_the_state(repository: Repository) -> None:
    before = identify_tree_state(repository.root)
    repository.commit(a="9")
    assert identify_tree_state(repository.root) != before


def test_state_is_unknown_without_repository_or_commit(tmp_path: Path) -> None:
    assert identify_tree_state(tmp_path) == ""
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    assert identify_tree_state(tmp_path) == ""


def test_state_is_unknown_while_a_submodule_has_changes(repository: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    library.commit(code="1")
    repository.add_submodule(library, "lib")
    assert identify_tree_state(repository.root)
    (repository.root / "lib" / "code").write_text("2")
    assert identify_tree_state(repository.root) == ""


def test_state_is_unknown_while_a_submodule_has_changes_that_its_settings_ignore(
    repository: Repository, tmp_path: Path
) -> None:
    library = Repository(tmp_path / "library")
    library.commit(x="1")
    repository.add_submodule(library, "lib")
    repository.git("config", "--file", ".gitmodules", "submodule.lib.ignore", "all")
    repository.commit()
    repository.write("lib/x", "2")
    assert identify_tree_state(repository.root) == ""


def test_worktree_of_a_commit_has_the_state_of_the_commit(repository: Repository, tmp_path: Path) -> None:
    repository.git("worktree", "add", "--quiet", str(tmp_path / "second"))
    assert identify_tree_state(tmp_path / "second") == identify_tree_state(repository.root)


def test_state_is_unknown_if_a_file_has_changed_since(repository: Repository) -> None:
    since = (repository.root / "a").stat().st_ctime
    assert identify_tree_state(repository.root, unchanged_since_seconds=since) == ""
    later = max(path.stat().st_ctime for path in repository.root.iterdir()) + 0.001
    assert identify_tree_state(repository.root, unchanged_since_seconds=later) == identify_tree_state(repository.root)


def test_edit_that_was_undone_still_hides_the_state(repository: Repository) -> None:
    since = max(path.stat().st_ctime for path in repository.root.iterdir()) + 0.001
    while (repository.root / "a").stat().st_ctime < since:
        repository.write("a", "changed")
        repository.write("a", "1")
    assert identify_tree_state(repository.root, unchanged_since_seconds=since) == ""


def test_git_folder_of_a_linked_work_tree_is_read_without_git(tmp_path: Path) -> None:
    (tmp_path / ".git").write_text("gitdir: ../main/.git/worktrees/x\n")
    assert find_git_folder(tmp_path) == tmp_path / "../main/.git/worktrees/x"


@pytest.mark.parametrize("kind", ["folder", "missing", "pipe", "gitdir: \0\n", "", "x" * 100_000])
def test_other_git_folder_is_the_one_of_this_name(tmp_path: Path, kind: str) -> None:
    """An unpacked archive may have anything in its place."""
    place = tmp_path / ".git"
    match kind:
        case "folder":
            place.mkdir()
        case "pipe":
            os.mkfifo(place)
        case "missing":
            pass
        case content:
            place.write_text(content)
    assert find_git_folder(tmp_path) == place
