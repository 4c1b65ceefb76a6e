"""Locks show that a run's process is alive."""

from __future__ import annotations

import os
import resource
from contextlib import closing, suppress
from pathlib import Path

from paropt_exporter.history import History
from paropt_exporter.history.run_lock import RunLocks
from support.event_samples import StillClock, run_started


def test_a_run_is_locked_when_no_descriptor_is_left(tmp_path: Path) -> None:
    locks = RunLocks(tmp_path / "runs")
    locks.reserve_descriptor()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        locks.acquire("r1")
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        locks.release_all()


def test_lock_files_of_the_user_beside_a_history_stay(tmp_path: Path) -> None:
    own = tmp_path / "runs/uv.lock"
    own.parent.mkdir()
    own.touch()
    os.utime(own, (0, 0))
    with closing(History(tmp_path / "shop.db", project="shop", clock=StillClock())) as history:
        history.mark_interrupted_runs()
        history.observe(run_started("r1"))
        assert (tmp_path / "shop.db.runs/r1.lock").exists()
    assert own.exists()


def test_lock_of_a_run_that_was_killed_before_its_record_is_removed(path: Path) -> None:
    clock = StillClock()
    folder = path.parent / "runs"
    live = RunLocks(folder)
    live.acquire("20261128T100000-00000a")
    killed, new = "20261128T100000-00000b.lock", "20261128T100000-00000c.lock"
    for name in (killed, new):
        (folder / name).touch()
    for file in folder.iterdir():
        os.utime(file, (0, clock.wall() - (4000 if file.name != new else 0)))
    with closing(History(path, project="shop", clock=clock)) as history:
        assert history.mark_interrupted_runs() == ()
    assert sorted(file.name for file in folder.iterdir()) == ["20261128T100000-00000a.lock", new]
    live.release_all()


def test_old_files_of_others_beside_the_locks_stay(path: Path) -> None:
    clock = StillClock()
    folder = path.parent / "runs"
    folder.mkdir(parents=True)
    names = ["notes", "poetry.lock", "uv%2Elock"]
    for name in names:
        (folder / name).touch()
        os.utime(folder / name, (0, clock.wall() - 4000))
    with closing(History(path, project="shop", clock=clock)) as history:
        history.mark_interrupted_runs()
    assert sorted(file.name for file in folder.iterdir()) == names


def test_project_may_have_a_file_in_the_place_of_the_locks(tmp_path: Path) -> None:
    """If the config names a history beside it, no run was recorded."""
    (tmp_path / "runs").touch()
    with closing(History(tmp_path / "history.db", project="shop", clock=StillClock())) as history:
        history.observe(run_started("r1"))
        assert history.broken is None
        assert history.is_alive("r1")
