"""The runs of a project's checkouts count once, whatever happens to the checkouts."""

from __future__ import annotations

from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from support.checkouts import Checkouts, draw_changes, find_wrong_page

CHANGES = ("run", "run", "run", "page", "page", "clean", "delete", "copy", "move", "save", "restore", "restart",
           "unmount", "mount")  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param("run b, page, move b a, page, run a, page, copy a b", id="copied to the path of a moved one"),
        pytest.param("run c, move c a, run a, run b, page, copy a c, restart", id="copied there before a restart"),
        pytest.param("run a, page, move a b, page, run a, page, run a", id="begun again at the path of a moved one"),
        pytest.param("run b, page, run b, move b c, run c, run b", id="moved and begun again between two pages"),
        pytest.param("run b, page, run b, move b c, run c, page, move c a, run a", id="moved twice"),
        pytest.param("run c, run a, run a, page, delete a, move c a", id="moved to the path of a deleted one"),
        pytest.param(
            "run a, page, run c, page, move c b, page, run c, delete a, page, move b a", id="moved after a new start"
        ),
        pytest.param("run a, page, copy a b, run b, page, run a, delete b, move a b", id="moved onto its copy"),
        pytest.param("run a, copy a b, run b, page, move b c, run c, page, restart", id="moved after it joined others"),
        pytest.param(
            "run a, save a, run c, page, restore c, page, run a, page, delete c, move a b, run b",
            id="moved beside a deleted copy",
        ),
        pytest.param("run a, page, delete a, page, run b, run c, copy c a", id="copied before its runs were read"),
        pytest.param("run b, run b, save b, page, run c, restore c", id="replaced by a cache before it was read"),
        pytest.param(
            "run c, save c, run b, run c, save c, page, restore b, restart", id="replaced by a cache before a restart"
        ),
    ],
)
def test_runs_count_once(changes: str) -> None:
    with TemporaryDirectory(dir="/dev/shm") as folder:  # on a disk each run waits for it
        assert not find_wrong_page(Checkouts(Path(folder)), changes.split(", "))


def test_runs_of_random_changes_count_once() -> None:
    for seed in range(40):
        with TemporaryDirectory(dir="/dev/shm") as folder:
            changes = draw_changes(Random(seed), CHANGES, 20)
            assert not find_wrong_page(Checkouts(Path(folder)), changes), changes
