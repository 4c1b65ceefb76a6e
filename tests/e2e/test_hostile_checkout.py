"""What a checkout that somebody else filled can do to whoever only looks at it, or runs it: nothing outside of it."""

from __future__ import annotations

from pathlib import Path

import pytest

import hostile
import projects
from real_servers import run

LOOKING = (
    ("plan",),
    ("history",),
    ("history", "--what-if", "2"),
    ("history", "--compare", "a", "b"),
    ("explain",),
    ("replay",),
)


@pytest.mark.parametrize("trap", hostile.TRAPS)
def test_looking_at_a_hostile_checkout_changes_nothing(tmp_path: Path, trap: str) -> None:
    victims = hostile.outside(tmp_path / "mine")
    checkout = hostile.checkout(tmp_path / "checkout", trap, victims)
    before = hostile.state(tmp_path)
    for command in LOOKING:
        ended = run(checkout, *command)
        assert "internal error" not in ended.stderr, command
        assert hostile.state(tmp_path) == before, command


@pytest.mark.parametrize("trap", hostile.TRAPS)
@pytest.mark.parametrize("command", [("check",), ("init", "--force"), ("pin", "2")], ids=" ".join)
def test_check_init_and_pin_change_nothing_outside_of_a_hostile_checkout(
    tmp_path: Path, trap: str, command: tuple[str, ...]
) -> None:
    victims = hostile.outside(tmp_path / "mine")
    checkout = hostile.checkout(tmp_path / "checkout", trap, victims)
    before = hostile.state(victims)
    ended = run(checkout, *command)
    assert "internal error" not in ended.stderr
    assert hostile.state(victims) == before


@pytest.mark.parametrize("trap", hostile.TRAPS)
def test_a_run_writes_nothing_through_links_in_its_own_folder(tmp_path: Path, trap: str) -> None:
    victims = hostile.outside(tmp_path / "mine")
    checkout = hostile.checkout(tmp_path / "checkout", trap, victims, 'name: one, call: "calls:nap"')
    (checkout / "calls.py").write_text("def nap(): pass\n")
    before = hostile.state(victims)
    ended = run(checkout, "--once", projects.ANY_PORT)
    refused = ended.returncode == 3 and "move it away" in ended.stderr
    assert refused or "standard succeeded" in ended.stdout, ended.stderr
    assert "internal error" not in ended.stderr
    assert hostile.state(victims) == before
