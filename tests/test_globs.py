"""Files are found as a shell finds them, in bounded time."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.globs import GlobSearch


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py"]),
        (".*.py", [".b.py"]),
        ("*/*.py", ["link/c.py", "sub/c.py"]),
        ("**/*.py", ["a.py", "sub/c.py", "sub/deep/d.py"]),
        ("sub/./?.py", ["sub/./c.py"]),
        ("../*/a.py", ["../project/a.py"]),
        ("[ab].py", ["a.py"]),
        ("a.py/*", []),
        ("*/", ["link/", "sub/"]),
        ("missing/*", []),
        ("*\0/*", []),
        ("**c*/*.py", []),
    ],
)
def test_pattern_matches_as_in_a_shell(tmp_path: Path, pattern: str, found: list[str]) -> None:
    project = tmp_path / "project"
    for name in ("a.py", ".b.py", "sub/c.py", "sub/deep/d.py"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()
    (project / "link").symlink_to("sub")
    assert sorted(GlobSearch().iter_matches(project, pattern)) == found


def test_absolute_pattern_gives_absolute_paths(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert [*GlobSearch().iter_matches("/", f"{tmp_path}/*")] == [f"{tmp_path}/a"]


@pytest.mark.parametrize("part", ["*/", "**/"])
def test_searches_share_a_limit(tmp_path: Path, part: str) -> None:
    for name in "ab":
        (tmp_path / name).symlink_to(".")
    (tmp_path / "/".join("d" * 30)).mkdir(parents=True)
    search = GlobSearch(most_names=100)
    assert not [*search.iter_matches(tmp_path, f"{part * 30}missing")]
    assert not [*search.iter_matches(tmp_path, "*")]
