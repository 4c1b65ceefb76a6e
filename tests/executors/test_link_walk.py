"""The places of paths that no tool should use, but that a traced command may."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

from paropt_exporter.executors.supervisor.link_walk import LinkWalk


def test_path_of_thousands_of_folders_has_a_place(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder")
    links: list[bytes] = []
    walk, top = LinkWalk(links.append), os.fsencode(tmp_path)
    assert walk.find_place(top + b"/link" + b"/a" * 2000 + b"/b") == top + b"/folder" + b"/a" * 2000 + b"/b"
    assert walk.find_place(top + b"/a/.." * 700 + b"/b") == top + b"/b"
    assert set(links) == {top + b"/link", top + b"/a"}


def test_only_folders_that_a_path_names_before_two_dots_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to("../b/../c")
    reported: list[bytes] = []
    walk, top = LinkWalk(reported.append), os.fsencode(tmp_path)
    assert walk.find_place(top + b"/a/link/file") == top + b"/c/file"
    assert reported == [top + b"/a/link", top + b"/b"]


def test_links_that_multiply_are_followed_no_further_than_by_the_kernel(tmp_path: Path) -> None:
    links: list[bytes] = []
    walk, top = LinkWalk(links.append), os.fsencode(tmp_path)
    for number in range(40):
        place = tmp_path / f"l{number}"
        place.symlink_to(f"l{number - 1}/l{number - 1}" if number else ".")
        walk.note_change(os.fsencode(place), is_new_link=True)  # so that their places are not remembered
    walk.find_place(top + b"/l39/a")
    assert len(links) == 40
    assert walk.find_place(top + b"/l4/a") == top + b"/a"


def test_new_link_concerns_only_the_paths_through_its_place(tmp_path: Path) -> None:
    """pytest makes a new link, `test_a_current`, for each test with `tmp_path`."""
    (tmp_path / "folder").mkdir()
    walk, top = LinkWalk(lambda _: None), os.fsencode(tmp_path)
    walk.find_place(top + b"/folder/file")
    assert not walk.note_change(top + b"/current", is_new_link=True)
    assert not walk.note_change(top + b"/folder/file", is_new_link=True)
    assert walk.note_change(top + b"/folder", is_new_link=True)
    assert not walk.note_change(top + b"/folder", is_new_link=True)  # nothing has led through it since


def test_new_link_concerns_all_paths_once_too_many_places_were_passed() -> None:
    walk = LinkWalk(lambda _: None)
    for number in range(40):
        walk.find_place(b"/missing%d" % number + b"/a" * 1000 + b"/b")
    assert walk.note_change(b"/missing0", is_new_link=True)
    assert not walk.note_change(b"/missing0", is_new_link=True)


def test_paths_of_many_folders_take_bounded_memory() -> None:
    walk = LinkWalk(lambda _: None)
    tracemalloc.start(1)
    try:
        for number in range(40):
            walk.find_place(b"/missing%d" % number + b"/a" * 1000 + b"/b")
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
