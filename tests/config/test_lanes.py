"""The choice of a lane for a change."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from paropt_exporter.config.lanes import choose_lane, classify_change, find_changed_paths, require_docs_only
from paropt_exporter.errors import UsageError


@pytest.mark.parametrize(
    ("paths", "lane"),
    [
        (["README.md", "docs/a.rst", "notes.txt"], "docs"),
        (["README.MD"], "docs"),
        (["README.md", "a.py"], "standard"),
        ([f"a{n}.py" for n in range(5)], "standard"),
        ([f"a{n}.py" for n in range(6)], "heavy"),
        ([f"tests/test_{n}.py" for n in range(3)], "standard"),
        ([f"tests/test_{n}.py" for n in range(4)], "heavy"),
        ([f"src/a{n}.test.ts" for n in range(4)], "heavy"),
        ([f"src/__tests__/a{n}.js" for n in range(4)], "heavy"),
        ([*(f"a{n}.py" for n in range(5)), *(f"tests/test_{n}.py" for n in range(3))], "standard"),
        ([f"data{n}.csv" for n in range(50)], "standard"),
        (["pyproject.toml"], "heavy"),
        (["requirements-dev.txt"], "heavy"),
        (["requirements/dev.txt"], "heavy"),
        (["sub/package.json"], "heavy"),
        ([".github/workflows/ci.yml"], "heavy"),
        (["CMakeLists.txt"], "heavy"),
        (["Makefile", "README.md"], "heavy"),
        ([], "standard"),
    ],
)
def test_lane_follows_from_the_changed_files(paths: list[str], lane: str) -> None:
    assert classify_change(paths)[0] == lane


def test_reason_names_the_files_that_decided() -> None:
    assert classify_change(["a.py", "b.md"])[1] == "a.py changed"
    assert classify_change(["pyproject.toml", "a.md"])[1] == "pyproject.toml changed: dependencies, build or CI"
    assert classify_change([f"{n}.md" for n in range(5)])[1] == "only documents changed: 0.md, 1.md, 2.md and 2 more"


def test_asking_for_docs_with_code_changed_is_an_error_with_a_remedy() -> None:
    require_docs_only(["a.md"])
    with pytest.raises(UsageError, match=r"a\.py changed: use --lane standard"):
        require_docs_only(["a.md", "a.py"])
    with pytest.raises(UsageError, match=r"requirements\.txt"):
        require_docs_only(["requirements.txt"])


def _git(folder: Path, *arguments: str) -> None:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    environment = {**os.environ, **identity, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, timeout=60)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose default branch has one commit, with a branch `feature` checked out."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "repository"
    folder.mkdir()
    _git(folder, "init", "-q", "-b", "main")
    (folder / "old.py").write_text("1\n")
    _git(folder, "add", ".")
    _git(folder, "commit", "-q", "-m", "one")
    _git(folder, "switch", "-q", "-c", "feature")
    return folder


def test_committed_changed_and_untracked_files_of_a_branch_count(repository: Path) -> None:
    (repository / "committed.md").touch()
    _git(repository, "add", ".")
    _git(repository, "commit", "-q", "-m", "two")
    (repository / "old.py").write_text("2\n")
    (repository / "un\ntracked é.md").touch()
    (repository / ".gitignore").write_text("*.log\n")
    (repository / "ignored.log").touch()
    assert find_changed_paths(repository) == {"committed.md", "old.py", "un\ntracked é.md", ".gitignore"}


def test_branch_that_was_pushed_is_still_compared_with_the_default_branch(repository: Path, tmp_path: Path) -> None:
    _git(tmp_path, "clone", "-q", "--bare", str(repository), "remote.git")
    _git(repository, "remote", "add", "origin", str(tmp_path / "remote.git"))
    (repository / "code.py").touch()
    _git(repository, "add", ".")
    _git(repository, "commit", "-q", "-m", "two")
    _git(repository, "push", "-q", "-u", "origin", "main", "feature")
    assert choose_lane(repository) == ("standard", "code.py changed")


def test_documents_alone_choose_docs(repository: Path) -> None:
    (repository / "a.md").touch()
    assert choose_lane(repository) == ("docs", "only documents changed: a.md")


def test_everything_counts_as_changed_in_a_repository_without_a_commit(tmp_path: Path) -> None:
    _git(tmp_path, "init", "-q")
    (tmp_path / "a.md").touch()
    _git(tmp_path, "add", "a.md")
    (tmp_path / "b.md").touch()
    assert find_changed_paths(tmp_path) == {"a.md", "b.md"}


def test_only_the_projects_own_folder_counts(repository: Path) -> None:
    (repository / "sub").mkdir()
    (repository / "sub/a.md").touch()
    (repository / "b.py").touch()
    assert choose_lane(repository / "sub") == ("docs", "only documents changed: a.md")


def test_without_git_the_lane_is_standard_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    lane, why = choose_lane(tmp_path)
    assert lane == "standard"
    assert "not a git repository" in why
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose_lane(tmp_path) == (
        "standard",
        "the changed files are unknown: git is not installed, or the folder is not there",
    )
