"""The history contains the output of stages: other users of the machine can't read it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from paropt_exporter.errors import HistoryError
from paropt_exporter.executors.adaptive.routing import FunctionProfile, save_profiles
from paropt_exporter.history import History
from support.event_samples import StillClock, run_ended, run_started


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Use the most permissive umask: files that are private under it are always private."""
    before = os.umask(0)
    yield
    os.umask(before)


def open_file(path: Path) -> History:
    return History(path, project="shop", clock=StillClock())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: mode(path) for path in folder.iterdir()}


def test_others_can_read_no_file_of_a_new_history(path: Path) -> None:
    with closing(open_file(path)) as history:
        history.observe(run_started("r1"))
        assert mode(path.parent) == 0o700
        assert modes(path.parent) == {
            ".gitignore": 0o600,
            "history.db": 0o600,
            "history.db-shm": 0o600,
            "history.db-wal": 0o600,
            "history.db.lock": 0o600,
            "runs": 0o700,
        }
        assert modes(path.parent / "runs") == {"r1.lock": 0o600}


def test_an_existing_history_becomes_private(path: Path) -> None:
    with closing(open_file(path)) as history:
        history.observe(run_started("r1"))
        for found in path.parent.iterdir():
            found.chmod(0o755 if found.is_dir() else 0o644)
        path.parent.chmod(0o755)
        open_file(path).close()
        assert mode(path.parent) == 0o700
        assert {mode for name, mode in modes(path.parent).items() if name != "runs"} == {0o600}


def test_a_restored_or_set_aside_history_stays_private(path: Path) -> None:
    with closing(open_file(path)) as history:
        history.observe(run_started("r1"))
        shutil.rmtree(path.parent)
        history.observe(run_ended("r1"))
        assert (mode(path.parent), mode(path)) == (0o700, 0o600)
    path.write_bytes(b"garbage" * 1000)
    path.chmod(0o644)
    open_file(path).close()
    (kept,) = path.parent.glob("history.db.corrupt-*")
    assert mode(kept) == 0o600


def test_a_folder_of_the_users_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "build"
    folder.mkdir(0o755)
    with closing(open_file(folder / "history.db")):
        assert mode(folder) == 0o755
        assert mode(folder / "history.db") == 0o600


def test_a_file_with_a_second_name_keeps_its_mode(path: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("")
    mine.chmod(0o644)
    path.parent.mkdir()
    path.with_name("history.db.lock").hardlink_to(mine)
    open_file(path).close()
    assert mode(mine) == 0o644


def test_profiles_are_private(path: Path) -> None:
    save_profiles(path.with_name("functions.json"), [FunctionProfile(function="f", cpu_demand=0.5, seconds=1.0)])
    assert (mode(path.parent), mode(path.with_name("functions.json"))) == (0o700, 0o600)


def test_a_dead_runs_lock_is_not_removed_through_a_link(path: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "dead.lock").touch()
    with closing(open_file(path)) as history:
        history.observe(run_started("dead"))
    shutil.rmtree(path.parent / "runs")
    (path.parent / "runs").symlink_to(mine)
    with closing(open_file(path)) as history:
        assert [run.run_id for run in history.mark_interrupted_runs()] == ["dead"]
    assert (mine / "dead.lock").exists()


@pytest.mark.parametrize("content", [b"root:x:0:0\n" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_foreign_file_keeps_its_mode(tmp_path: Path, content: bytes) -> None:
    mine = tmp_path / "passwd"
    mine.write_bytes(content)
    mine.chmod(0o644)
    with suppress(HistoryError):
        open_file(mine).close()
    assert {mode(found) for found in tmp_path.iterdir() if found.read_bytes() == content} == {0o644}


def test_a_database_of_another_program_keeps_its_mode(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.db"
    with closing(sqlite3.connect(theirs)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    theirs.chmod(0o644)
    with pytest.raises(HistoryError):
        open_file(theirs)
    assert mode(theirs) == 0o644


def test_a_link_outside_of_paropt_leads_to_the_history(tmp_path: Path) -> None:
    link = tmp_path / "build.db"
    link.symlink_to(tmp_path / "elsewhere.db")
    for run_id in ("r1", "r2"):
        with closing(open_file(link)) as history:
            history.observe(run_started(run_id))
            assert history.broken is None
            with closing(History(link, project="shop", clock=StillClock(), for_reading=True)) as looking:
                assert looking.find_run(run_id) is not None
        (tmp_path / "elsewhere.db").chmod(0o644)
    open_file(link).close()
    assert link.is_symlink()
    assert mode(tmp_path / "elsewhere.db") == 0o600
