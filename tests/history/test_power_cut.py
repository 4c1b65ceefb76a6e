"""A power cut in the middle of a write: the log of the history ends anywhere, or with garbage."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from paropt_exporter import families
from paropt_exporter.history import History
from support.event_samples import StillClock, run_ended, run_started, stage_ended, stage_started, task

RUNS = 8


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history whose runs are all in its log, as while it is open."""
    folder = tmp_path_factory.mktemp("written")
    path = folder / "open/.paropt/history.db"
    with closing(History(path, project="shop", clock=StillClock())) as history:
        for number in range(RUNS):
            run_id = f"r{number}"
            lint = stage_ended("lint", run_id)
            started = run_started(run_id, stages=("lint",))
            for event in (started, stage_started("lint", run_id), task("lint", run_id), lint):
                history.observe(event)
            history.observe(run_ended(run_id, stages=(lint,)))
        shutil.copytree(path.parent, folder / "copy/.paropt")
    (folder / "copy/.paropt/history.db-shm").unlink()
    return folder / "copy/.paropt/history.db"


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 4096])
def test_history_opens_after_a_power_cut_with_totals_that_equal_its_rows(
    written: Path, tmp_path: Path, garbage: bytes
) -> None:
    log = written.with_name("history.db-wal").read_bytes()
    found = []
    for place, length in enumerate(range(len(log), -1, -(len(log) // 40 + 1))):
        path = tmp_path / f"{place}/.paropt/history.db"
        path.parent.mkdir(parents=True)
        shutil.copy(written, path)
        path.with_name("history.db-wal").write_bytes(log[:length] + garbage)
        found.append(count_runs(path))
    assert found[0] == RUNS
    assert found[-1] == 0
    assert found == sorted(found, reverse=True)


def count_runs(path: Path) -> float:
    """Open the history, compare its totals with its rows, and return the number of ended runs."""
    with closing(History(path, project="shop", clock=StillClock())) as history:
        history.mark_interrupted_runs()
        counters = history.load_totals().counters
        assert history.broken is None
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = dict(connection.execute("SELECT result, count(*) FROM runs GROUP BY 1"))
        (attempts,) = connection.execute("SELECT count(*) FROM tasks").fetchone()
    assert list(path.parent.glob("*.corrupt-*")) == []
    for result in ("success", "cancellation"):
        assert counters.get((families.RUNS.name, ("standard", result)), 0) == rows.get(result, 0)
    assert counters.get((families.TASK_ATTEMPTS.name, ("standard", "lint", "success")), 0) == attempts
    return float(rows.get("success", 0))
