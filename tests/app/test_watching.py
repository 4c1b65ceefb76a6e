"""Changes of a watched lane, without events of files: what a scan finds, and whom it wakes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paropt_exporter import config
from paropt_exporter.app.watching import Watch
from paropt_exporter.plan import Selection


class Watched:
    """A lane of one stage that reads `src`, watched; `woken` counts how often its next run was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.woken = 0
        (folder / "src").mkdir()
        (folder / "src/a.py").write_text("one")
        (folder / "paropt.yml").write_text("stages: [{number: 1, name: lint, run: 'true', inputs: [src]}]\n")
        self.watch = Watch(
            config.read_config(folder / "paropt.yml", root=folder),
            "standard",
            Selection(),
            interrupt=lambda stale, reason: None,
            wake=self._count,
            say=lambda line: None,
        )
        self.watch.begin_run(["lint"])

    def _count(self) -> None:
        self.woken += 1


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    yield Watched(tmp_path)


def test_watchdog_654_change_whose_event_was_lost_is_found_by_the_next_scan(watched: Watched) -> None:
    watched.watch.begin_run([])
    (watched.folder / "src/a.py").write_text("two")
    (watched.folder / "src/new.py").write_text("one")
    watched.watch.look()  # as it is called each 30 s, without any event
    assert watched.woken == 1
    assert watched.watch.choose_next() == ("lint",)


def test_scan_without_a_change_starts_no_run(watched: Watched) -> None:
    watched.watch.begin_run([])
    (watched.folder / "src/a.py").write_text("one")
    watched.watch.look()
    assert watched.woken == 0
