"""The files that a branch changes, in real repositories."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from paropt_exporter.changes import Changes, UnknownChange, find_changes
from paropt_exporter.input_files import InputPatterns
from paropt_exporter.plan.affected import find_changed_items
from support.repositories import Repository


@pytest.fixture(autouse=True)
def no_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_BASE_REF", "CI_MERGE_REQUEST_DIFF_BASE_SHA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository whose branch `feature` has left `main`."""
    made = Repository(tmp_path / "repo")
    made.commit(**{"old.py": "1", "gone.py": "1", "kept.py": "1", "lib/a.py": "1", ".gitignore": "*.log\n"})
    made.git("switch", "--quiet", "--create", "feature")
    return made


def changed(repository: Repository, ref: str | None = None, folder: str = "") -> frozenset[str]:
    return find_changes(repository.root / folder, ref).paths


def test_nx_17787_committed_staged_changed_untracked_and_deleted_files_count_at_once(repository: Repository) -> None:
    repository.commit(committed="1")
    repository.write("staged", "1")
    repository.git("add", "staged")
    repository.write("old.py", "2")
    repository.write("untracked", "1")
    repository.write("ignored.log", "1")
    (repository.root / "gone.py").unlink()
    assert changed(repository) == {"committed", "staged", "old.py", "untracked", "gone.py"}


def test_both_names_of_a_renamed_file_count(repository: Repository) -> None:
    repository.git("mv", "old.py", "new.py")
    assert changed(repository) == {"old.py", "new.py"}


@pytest.mark.parametrize("mark", ["--assume-unchanged", "--skip-worktree"])
def test_files_in_which_git_sees_no_change_count_if_they_have_changed(repository: Repository, mark: str) -> None:
    repository.git("update-index", mark, "old.py", "kept.py", "lib/a.py")
    repository.write("old.py", "2")
    (repository.root / "lib/a.py").unlink()
    (repository.root / "lib/a.py").symlink_to("a.py")
    assert changed(repository) == {"old.py", "lib/a.py"}
    assert changed(repository, folder="lib") == {"../old.py", "a.py"}
    (repository.root / "lib/a.py").unlink()
    assert changed(repository) == ({"old.py", "lib/a.py"} if mark == "--assume-unchanged" else {"old.py"})
    repository.write("kept.py", "2")
    assert {"kept.py", "old.py"} <= changed(repository)


@pytest.mark.parametrize("name", ["line\nbreak", "ünï cöde", " space ", '"quoted"', "-dash", "tab\there"])
def test_any_name_is_found_whole(repository: Repository, name: str) -> None:
    repository.write(name, "1")
    repository.git("add", "--all")
    repository.write(f"more/{name}", "1")
    assert changed(repository) == {name, f"more/{name}"}


def test_untracked_files_in_the_caches_of_tools_do_not_count(repository: Repository) -> None:
    """After the first run, --affected named `tests/__pycache__/test_a.cpython-311.pyc` as the changed file."""
    repository.write("lib/__pycache__/a.cpython-311.pyc", "1")
    repository.write(".mypy_cache/3.11/cache.db", "1")
    repository.write("web/.eslintcache", "1")
    repository.write("lib/b.py", "1")
    assert changed(repository) == {"lib/b.py"}
    repository.git("add", "--all")
    assert changed(repository) == {
        "lib/b.py",
        "lib/__pycache__/a.cpython-311.pyc",
        ".mypy_cache/3.11/cache.db",
        "web/.eslintcache",
    }


def test_touched_file_is_unchanged(repository: Repository) -> None:
    (repository.root / "old.py").touch()
    assert changed(repository) == set()


def test_changes_of_main_since_the_branch_left_it_do_not_count(repository: Repository) -> None:
    repository.git("switch", "--quiet", "main")
    repository.commit(theirs="1")
    repository.git("switch", "--quiet", "feature")
    repository.commit(ours="1")
    assert changed(repository) == {"ours"}


def test_ref_replaces_the_main_branch(repository: Repository) -> None:
    first = repository.commit(first="1")
    repository.commit(second="1")
    assert changed(repository, first) == changed(repository, "HEAD~1") == {"second"}
    assert changed(repository, "main") == {"first", "second"}


def test_turbo_12650_target_of_a_request_in_ci_is_the_base(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = repository.commit(first="1")
    repository.commit(second="1")
    monkeypatch.setenv("CI_MERGE_REQUEST_DIFF_BASE_SHA", first)
    assert changed(repository) == {"second"}
    monkeypatch.setenv("GITHUB_BASE_REF", "release")
    with pytest.raises(UnknownChange, match=r"no commit 'origin/release' here: git fetch origin release"):
        changed(repository)


def test_turbo_9320_clone_at_a_commit_without_a_local_main_finds_the_base(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(ours="1")
    repository.git("switch", "--quiet", "main")
    clone = repository.clone(tmp_path / "clone", "--branch=feature")
    clone.git("switch", "--quiet", "--detach")
    clone.git("branch", "--quiet", "-D", "feature")
    assert find_changes(clone.root).paths == {"ours"}
    monkeypatch.setenv("GITHUB_BASE_REF", "main")
    assert find_changes(clone.root).paths == {"ours"}


def test_paths_are_relative_to_the_project_and_reach_outside_of_it(repository: Repository) -> None:
    repository.write("lib/a.py", "2")
    repository.write("lib/new.py", "2")
    repository.write("old.py", "2")
    repository.write("untracked", "2")
    assert changed(repository, folder="lib") == {"a.py", "new.py", "../old.py", "../untracked"}


@pytest.mark.parametrize("setting", ["diff.relative", "diff.external", "color.ui", "core.fsmonitor"])
def test_settings_of_git_change_no_path(repository: Repository, setting: str) -> None:
    value = {"diff.relative": "true", "color.ui": "always"}.get(setting, "false")
    repository.git("config", setting, value)
    repository.write("lib/a.py", "2")
    repository.write("old.py", "2")
    assert changed(repository, folder="lib") == {"a.py", "../old.py"}


def test_work_in_a_worktree_counts_there_only(repository: Repository, tmp_path: Path) -> None:
    repository.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "second"))
    repository.write("old.py", "2")
    (tmp_path / "second" / "kept.py").write_text("2")
    assert find_changes(tmp_path / "second").paths == {"kept.py"}


def test_changed_submodule_may_have_changed_any_of_its_files(repository: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    library.commit(**{"code.py": "1"})
    repository.add_submodule(library, "vendor/lib")
    before = repository.git("rev-parse", "HEAD")
    assert find_changes(repository.root, before).paths == set()
    (repository.root / "vendor/lib/code.py").write_text("2")
    found = find_changes(repository.root, before)
    assert found.folders == {"vendor/lib"}
    for pattern in ("vendor/lib/code.py", "vendor", "**/*.py", "vendor/lib/deep/**"):
        assert found.find_match(InputPatterns((pattern,))) == "vendor/lib"
    for patterns in (("src/*.py",), ("vendor/library.py",), ("**/*.py", "!vendor/lib")):
        assert found.find_match(InputPatterns(patterns)) is None


def test_file_in_place_of_a_submodule_is_a_changed_item(repository: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    library.commit(**{"code.py": "1"})
    repository.add_submodule(library, "vendor/lib")
    before = repository.git("rev-parse", "HEAD")
    (repository.root / "vendor/lib/code.py").write_text("2")

    def find_items() -> tuple[str, ...]:
        return find_changed_items("vendor/*", find_changes(repository.root, before), root=repository.root, cwd=None)

    assert find_items() == ()
    shutil.rmtree(repository.root / "vendor/lib")
    repository.write("vendor/lib", "1")
    assert find_items() == ("vendor/lib",)


def test_repository_inside_of_the_repository_counts_as_a_folder(repository: Repository) -> None:
    Repository(repository.root / "nested").commit(a="1")
    assert find_changes(repository.root).folders == {"nested"}


def test_hook_of_git_sees_the_whole_change(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.write("lib/a.py", "2")
    monkeypatch.setenv("GIT_DIR", ".git")
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/none")
    assert changed(repository, folder="lib") == {"a.py"}


def test_hook_of_an_editors_commit_sees_untracked_files(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Magit runs git with --literal-pathspecs, which git passes on to hooks."""
    repository.write("untracked", "1")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert changed(repository, folder="lib") == {"../untracked"}


def test_all_files_of_a_repository_without_a_commit_are_new(tmp_path: Path) -> None:
    made = Repository(tmp_path)
    made.write("a", "1")
    made.git("add", "a")
    made.write("b", "1")
    assert find_changes(tmp_path).paths == {"a", "b"}


@pytest.mark.parametrize("ref", ["nowhere", "v1.0", "old.py"])
def test_unknown_ref_is_one_clear_error(repository: Repository, ref: str) -> None:
    with pytest.raises(UnknownChange, match=r"there is no commit .* here: git fetch origin .*, or name another one"):
        changed(repository, ref)


@pytest.mark.parametrize("ref", ["HEAD~99", "HEAD^{blob}", "--upload-pack=touch"])
def test_unknown_expression_suggests_no_fetch_of_it(repository: Repository, ref: str) -> None:
    with pytest.raises(UnknownChange, match=r"there is no commit .* here: name another one, --affected REF"):
        changed(repository, ref)


def test_branch_that_only_the_remote_has_is_named_in_full(repository: Repository, tmp_path: Path) -> None:
    clone = repository.clone(tmp_path / "clone", "--branch=feature")
    with pytest.raises(UnknownChange, match=r"no commit 'main' here, but origin/main: --affected origin/main"):
        find_changes(clone.root, "main")


@pytest.mark.parametrize("ref", [None, "origin/main", "HEAD~1"])
@pytest.mark.parametrize("has_main", [False, True])
def test_fetch_in_the_error_helps_in_a_shallow_clone_of_one_branch(
    repository: Repository, tmp_path: Path, ref: str | None, has_main: bool
) -> None:
    repository.commit(ours="1")
    repository.commit(last="1")
    repository.git("switch", "--quiet", "main")
    repository.commit(theirs="1")
    repository.commit(more="1")
    clone = repository.clone(tmp_path / "clone", "--depth=1", "--branch=feature")
    if has_main:
        clone.git("fetch", "--quiet", "--depth=1", "origin", "main:refs/remotes/origin/main")
    with pytest.raises(UnknownChange, match="shallow") as refused:
        find_changes(clone.root, ref)
    command = re.search(r"git (fetch [^,(]+)", str(refused.value))
    assert command is not None
    clone.git(*shlex.split(command[1]))
    expected = {"last"} if ref == "HEAD~1" else {"ours", "last"}
    assert find_changes(clone.root, ref or "origin/main").paths == expected


def test_nx_26553_shallow_clone_is_one_clear_error_with_the_command(repository: Repository, tmp_path: Path) -> None:
    repository.commit(more="1")
    repository.git("switch", "--quiet", "main")
    feature = repository.clone(tmp_path / "feature", "--depth=1", "--branch=feature")
    with pytest.raises(UnknownChange, match=r"shallow .*git fetch --unshallow .*fetch-depth: 0"):
        find_changes(feature.root)
    feature.git("fetch", "--quiet", "--depth=1", "origin", "main:refs/remotes/origin/main")
    with pytest.raises(UnknownChange, match=r"too shallow to contain .* left origin/main: git fetch --unshallow"):
        find_changes(feature.root)
    with pytest.raises(UnknownChange, match=r"shallow clone has no commit 'origin/x': git fetch --unshallow origin x"):
        find_changes(feature.root, "origin/x")
    feature.git("fetch", "--quiet", "--unshallow")
    assert find_changes(feature.root).paths == {"more"}


def test_branch_without_a_common_commit_is_one_clear_error(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--orphan", "other")
    repository.commit(a="1")
    with pytest.raises(UnknownChange, match="main and HEAD have no commit in common"):
        changed(repository)


def test_without_a_main_branch_a_ref_is_needed(tmp_path: Path) -> None:
    made = Repository(tmp_path)
    made.commit(a="1")
    made.git("branch", "--move", "trunk")
    with pytest.raises(UnknownChange, match=r"name a commit .--affected HEAD: uncommitted changes"):
        find_changes(tmp_path)


def test_folder_that_git_ignores_is_one_clear_error(repository: Repository) -> None:
    repository.write(".gitignore", "/work/\n")
    repository.write("work/a.py", "1")
    with pytest.raises(UnknownChange, match="git ignores this folder"):
        changed(repository, folder="work")


def test_repository_of_another_user_is_an_error_with_gits_remedy(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    remedy = rf"dubious ownership in repository at '.*': git config --global --add safe\.directory {repository.root}"
    with pytest.raises(UnknownChange, match=remedy):
        find_changes(repository.root)


def test_folder_of_a_clone_that_looks_like_a_repository_runs_nothing(repository: Repository) -> None:
    """Each commit may contain a bare repository, whose config names programs for git to run."""
    evil = repository.root / "evil"
    repository.git("clone", "--quiet", "--bare", ".", "evil")
    shutil.copy(repository.root / ".git/index", evil / "index")
    for key, value in (("core.bare", "false"), ("core.worktree", "."), ("filter.evil.clean", "touch ran; cat")):
        repository.git("config", "--file", "evil/config", key, value)
    (evil / "info").mkdir(exist_ok=True)
    (evil / "info/attributes").write_text("* filter=evil\n")
    repository.write("evil/old.py", "1")
    with pytest.raises(UnknownChange, match="bareRepository"):
        find_changes(evil)
    assert not (evil / "ran").exists()


def test_without_a_repository_or_git_the_error_has_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownChange, match="the changed files are unknown: not a git repository"):
        find_changes(tmp_path)
    subprocess.run(["git", "init", "--quiet", "--bare", tmp_path / "bare"], check=True)
    with pytest.raises(UnknownChange, match="cannot use bare repository"):
        find_changes(tmp_path / "bare")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnknownChange, match="git is not installed"):
        find_changes(tmp_path)


@pytest.mark.parametrize(
    "patterns",
    [
        ("src",), ("src/**",), ("src/*.py",), ("**/*.py",), ("*",), ("src/a.py", "docs"), ("../lib/**",), (".",),
        ("src/**", "!src/b"), ("src[*]/x",), ("nothing/**",), ("sr?/a.py",),
    ],
)  # fmt: skip
def test_match_is_the_first_of_all_changed_paths_that_match(patterns: tuple[str, ...]) -> None:
    paths = {
        "a.py", "docs", "docs/a.md", "src-old/a.py", "src.txt", "src/a.py", "src/b/c.py", "src*/x", "src0", "../lib/a",
        "../libs/a", "../src/a.py",
    }  # fmt: skip
    compiled = InputPatterns(patterns)
    expected = min(filter(compiled.matches, paths), default=None)
    assert Changes(paths=frozenset(paths)).find_match(compiled) == expected


def test_changed_paths_far_from_the_patterns_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand stages looked at each of 20,000 changed files for minutes."""
    looked_at = []
    patterns = InputPatterns(("packages/b/**",))
    monkeypatch.setattr(patterns, "matches", lambda path: looked_at.append(path))
    paths = {f"packages/{package}/{number}.py" for package in "abc" for number in range(10)}
    assert Changes(paths=frozenset(paths)).find_match(patterns) is None
    assert {path.split("/")[1] for path in looked_at} == {"b"}
