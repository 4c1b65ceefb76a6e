"""The files of a stage's inputs: what each pattern matches, and what a walk leaves out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from unittest.mock import Mock

import pytest

from paropt_exporter.input_files import (
    InputPatterns,
    NoGit,
    fill_item,
    find_pattern_fault,
    join_pattern,
    list_git_files,
)
from support.hostile import endless_folders


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def find_names(folder: Path, *patterns: str) -> list[str]:
    return [name for name, _ in InputPatterns(patterns).find_files(str(folder))]


TREE = ("setup.py", "src/a.py", "src/.hidden.py", "src/deep/b.py", "src/deep/c.txt", "tests/[x].py", "tests/test_a.py")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("setup.py",), ["setup.py"]),
        (("./setup.py", "setup.py"), ["setup.py"]),
        (("src",), ["src/.hidden.py", "src/a.py", "src/deep/b.py", "src/deep/c.txt"]),
        (("src/",), ["src/.hidden.py", "src/a.py", "src/deep/b.py", "src/deep/c.txt"]),
        (("src/*",), ["src/.hidden.py", "src/a.py"]),
        (("*/*.py",), ["src/.hidden.py", "src/a.py", "tests/[x].py", "tests/test_a.py"]),
        (("src/**/*.py",), ["src/.hidden.py", "src/a.py", "src/deep/b.py"]),
        (("src/**", "!**/*.txt"), ["src/.hidden.py", "src/a.py", "src/deep/b.py"]),
        (("!src/deep", "src"), ["src/.hidden.py", "src/a.py"]),
        (("**/deep",), ["src/deep/b.py", "src/deep/c.txt"]),
        (("**/dee?/**",), ["src/deep/b.py", "src/deep/c.txt"]),
        (("**/s*c/**/d*e*/**/*.*t",), ["src/deep/c.txt"]),
        (("**/src/**/src/**",), []),
        (("tests/[[]x].py",), ["tests/[x].py"]),
        (("tests/[!t]*",), ["tests/[x].py"]),
        (("missing/**", "missing.py"), []),
    ],
)
def test_pattern_finds_and_matches_the_same_files(
    tmp_path: Path, patterns: tuple[str, ...], expected: list[str]
) -> None:
    write_files(tmp_path, *TREE)
    assert find_names(tmp_path, *patterns) == expected
    assert [name for name in TREE if InputPatterns(patterns).matches(name)] == [
        name for name in TREE if name in expected
    ]


def test_glob_left_out_does_not_take_the_files_of_a_folder_of_that_name(tmp_path: Path) -> None:
    write_files(tmp_path, "conf.d/a.py", "b.d")
    assert find_names(tmp_path, "**", "!**/*.d") == ["conf.d/a.py"]


def test_walk_leaves_out_caches_and_environments(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        "a.py",
        ".git/HEAD",
        ".paropt/history.db",
        "__pycache__/a.pyc",
        "node_modules/a/index.js",
        ".mypy_cache/CACHEDIR.TAG",
        ".mypy_cache/a.json",
        "venv/pyvenv.cfg",
        "venv/lib/x.py",
    )
    assert find_names(tmp_path, "**") == ["a.py"]


def test_folder_that_a_pattern_names_is_not_left_out(tmp_path: Path) -> None:
    names = ("a/__pycache__/m.pyc", "b/node_modules/c/index.js", "b/node_modules/d/index.js")
    write_files(tmp_path, *names)
    assert find_names(tmp_path, "*/__pycache__", "**/node_modules/**") == [*names]
    assert find_names(tmp_path, "**/*.js", "!**/node_modules/d/**") == []
    assert InputPatterns(("*/node_modules",)).could_find(names[1]) and not InputPatterns(("**",)).could_find(names[1])


def test_folder_named_without_a_wildcard_is_never_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, "a.py", "cache/CACHEDIR.TAG", "cache/data", "venv/pyvenv.cfg", "venv/lib/x.py")
    assert find_names(tmp_path, "**/*.py", "cache", "venv/lib") == [
        "a.py",
        "cache/CACHEDIR.TAG",
        "cache/data",
        "venv/lib/x.py",
    ]


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    write_files(tmp_path, "real/a.py")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/link").symlink_to("../real")
    (tmp_path / "src/loop").symlink_to("..")
    (tmp_path / "src/self").symlink_to("self")
    found = find_names(tmp_path, "src/**")
    assert "src/link/a.py" in found
    assert {"src/link", "src/loop", "src/self"} <= {*found}
    assert len(found) < 20


def link_folders(folder: Path, count: int) -> None:
    """Make folders with links to each other: they have as many paths as there are orders of them."""
    names = [f"d{number}" for number in range(count)]
    write_files(folder, *(f"{name}/a.py" for name in names))
    for name in names:
        for other in names:
            if other != name:
                (folder / name / f"to_{other}").symlink_to(f"../{other}")


def test_folders_with_links_to_each_other_end_a_walk(tmp_path: Path) -> None:
    link_folders(tmp_path, 11)
    patterns = InputPatterns(("**/*.py",), most_linked_folders=500)
    with pytest.raises(OSError, match="links in linked folders lead to more than 500 folders"):
        patterns.find_files(str(tmp_path))
    found = [path for path, _ in patterns.find_readable_files(str(tmp_path))]
    assert {"d0/a.py", "d10/a.py", "d0/to_d10/a.py"} <= {*found}
    assert len(found) <= 11 + 11 * 10 + 500


def test_folders_without_end_are_an_error_that_a_watch_passes_over(tmp_path: Path) -> None:
    write_files(tmp_path, "a.py")
    with endless_folders(tmp_path):
        patterns = InputPatterns(("**/*.py",))
        with pytest.raises(OSError, match="folders are nested more than 500 deep") as caught:
            patterns.find_files(str(tmp_path))
        assert str(caught.value.filename).startswith(f"{tmp_path}/d/d/")
        assert [path for path, _ in patterns.find_readable_files(str(tmp_path))] == ["a.py"]
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # pytest's own way down has an end


def test_pipe_is_found_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert find_names(tmp_path, "*") == ["pipe"]


def test_name_that_is_not_utf_8_is_found(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.py")).write_text("")
    assert [os.fsencode(name) for name in find_names(tmp_path, "*.py")] == [b"caf\xe9.py"]


def test_only_patterns_that_lead_outside_match_there() -> None:
    for pattern in ("**", "**/*.py", "*/a.py", ".", "../../**", "../b/*.py"):
        assert not InputPatterns((pattern,)).matches("../a.py"), pattern
    for pattern in ("../a.py", "../*.py", "../**"):
        assert InputPatterns((pattern,)).matches("../a.py"), pattern
    assert InputPatterns(("../**", "!**/*.py")).matches("../a.py")


@pytest.mark.parametrize("pattern", ["**/d/" * 12 + "none", "**/" + "*d" * 30 + "none"])
def test_pattern_with_many_wildcards_is_soon_compared_with_a_long_path(pattern: str) -> None:
    patterns = InputPatterns((pattern,))
    assert not patterns.matches("d/" * 100 + "d" * 200)
    assert patterns.matches("d/" * 100 + "d" * 200 + "none") is not pattern.endswith("/none")
    assert patterns.matches("d/" * 100 + "none") is pattern.endswith("/none")


@pytest.mark.parametrize(
    ("path", "matches"),
    [("out/a", True), ("out/a/b/c", True), ("out/[x]", True), ("../lib/a", True), ("out/ab", False), ("out", False),
     ("out/a/skip", False), ("other/b.py", True), ("lib/a", False)],
)  # fmt: skip
def test_path_is_compared_with_patterns_with_and_without_wildcards(path: str, matches: bool) -> None:
    patterns = InputPatterns(("./out/a/", "out/[[]x]", "../lib", "other/*.py", "!out/a/skip"))
    assert patterns.matches(path) is matches


def test_patterns_start_in_the_stages_folder() -> None:
    assert join_pattern("web", "src/**") == "web/src/**"
    assert join_pattern("web", "!../setup.py") == "!setup.py"
    assert join_pattern("a[1]", "x") == "a[[]1]/x"
    assert join_pattern(".", "./x/") == "x"


def test_item_is_a_name_in_a_pattern_and_no_glob() -> None:
    assert fill_item(("{item}", "data/{item}.json", "src/**"), "t[*].py") == (
        "t[[][*]].py",
        "data/t[[][*]].py.json",
        "src/**",
    )
    assert InputPatterns(fill_item(("{item}",), "t[*].py")).matches("t[*].py")


def test_patterns_that_match_nothing_are_listed(tmp_path: Path) -> None:
    write_files(tmp_path, "a.py")
    assert InputPatterns(("a.py", "*.pyx", "gone", "!x")).list_missing_paths(str(tmp_path)) == ["*.pyx", "gone"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("/etc/passwd", "relative to the stage's folder"),
        ("~/x", "relative to the stage's folder"),
        ("src/*.{py,pyi}", "braces are not expanded"),
        ("src\\*", "write slashes"),
        ("!", "missing after the '!'"),
        ("!!x", "one '!'"),
        ("[z-a]", "brackets are invalid"),
    ],
)
def test_invalid_pattern_has_a_reason(pattern: str, words: str) -> None:
    assert words in (find_pattern_fault(pattern) or "")


def run_git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main", *words],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def test_git_files_are_tracked_and_not_ignored_ones_of_the_whole_repository(tmp_path: Path) -> None:
    run_git(tmp_path, "init")
    write_files(tmp_path, "a.py", "gone.py", "sub/b.py", "sub/new.py", "sub/out.log", "inner/x.py")
    (tmp_path / ".gitignore").write_text("*.log\n")
    run_git(tmp_path, "add", "a.py", "gone.py", "sub/b.py")
    run_git(tmp_path / "inner", "init")
    (tmp_path / "gone.py").unlink()
    assert list_git_files(str(tmp_path / "sub")) == [
        "../.gitignore",
        "../a.py",
        "../gone.py",
        "../inner",
        "b.py",
        "new.py",
    ]


def test_compiled_files_are_listed_only_if_git_tracks_them(tmp_path: Path) -> None:
    """In a repository without a .gitignore each edit took two runs: the first one wrote its own inputs."""
    run_git(tmp_path, "init")
    write_files(
        tmp_path,
        "a.py",
        ".mypy_cache/cache.db",
        "__pycache__/a.pyc",
        "sub/__pycache__/b.pyc",
        "sub/__pycache__/kept.pyc",
    )
    run_git(tmp_path, "add", "sub/__pycache__/kept.pyc")
    assert list_git_files(str(tmp_path)) == ["a.py", "sub/__pycache__/kept.pyc"]


def test_variables_of_a_git_hook_do_not_change_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_git(tmp_path, "init")
    write_files(tmp_path, "a.py")
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_DIR", "elsewhere")
    assert list_git_files(str(tmp_path)) == ["a.py"]


def test_folder_that_git_ignores_has_a_reason(tmp_path: Path) -> None:
    run_git(tmp_path, "init")
    write_files(tmp_path, "a.py", "work/b.py")
    (tmp_path / ".gitignore").write_text("/work/\n")
    with pytest.raises(NoGit, match="ignores all files in this folder"):
        list_git_files(str(tmp_path / "work"))


def test_folder_without_git_has_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(NoGit, match="not a git repository"):
        list_git_files(str(tmp_path))


def test_look_for_any_file_ends_at_the_first_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 200 stages and no change, `--affected` walked the project 200 times: 2 s of CPU time for 2,000 files."""
    for folder in "abcdefgh":
        (tmp_path / "src" / folder).mkdir(parents=True)
        (tmp_path / "src" / folder / "x.py").touch()
    scanned = Mock(wraps=os.scandir)
    monkeypatch.setattr(os, "scandir", scanned)
    patterns = InputPatterns(["src/**/*.py"])
    assert patterns.has_file(str(tmp_path)) and scanned.call_count == 2
    assert not InputPatterns(["src/**/*.md", "gone"]).has_file(str(tmp_path))
    assert not InputPatterns(["src", "!src/**"]).has_file(str(tmp_path))
