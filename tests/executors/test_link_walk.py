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
    assert links == [top + b"/link"]


def test_paths_of_many_folders_take_bounded_memory() -> None:
    walk = LinkWalk(lambda _: None)
    tracemalloc.start(1)
    try:
        for number in range(40):
            walk.find_place(b"/missing%d" % number + b"/a" * 1000 + b"/b")
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
