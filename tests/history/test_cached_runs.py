"""Cached stages in the history: they count as passed, and say nothing about durations."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from paropt_exporter.events import CacheReason, ItemRecord, Result
from paropt_exporter.history import History
from support import projects
from support.event_samples import StillClock, run_ended, run_started, task
from support.in_process import call_command
from support.real_servers import run


def test_durations_come_from_runs_that_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_CACHE_DIR", str(tmp_path / "store"))
    project = tmp_path / "project"
    project.mkdir()
    (project / "a.txt").write_text("")
    projects.write(project, """name: lint, run: "sleep 0.3", inputs: [a.txt]""")
    for _ in range(3):
        assert run(project, "--once", projects.ANY_PORT).returncode == 0
    first, second, third = projects.runs(project)
    assert [each["stage_metrics"][0]["cached"] for each in (first, second, third)] == [False, True, True]
    assert projects.stages(third) == {"lint": ("success", "")}
    listed = call_command(project, "history").stdout
    assert listed.count("1 stage cached") == 2 and "trend" not in listed
    (planned,) = json.loads(call_command(project, "plan", "--output", "json").stdout)["stages"]
    assert planned["expected_seconds"] >= 0.3
    assert run(project, "--failed", "--once", projects.ANY_PORT).returncode == 0


def test_cached_items_keep_their_durations(tmp_path: Path) -> None:
    """They would halve with each cached run, and shards would be split by them."""
    ran = replace(task("unit"), item="a", items=(ItemRecord(item="a", result=Result.SUCCESS, seconds=4.0),))
    single = replace(task("lint", seconds=2.0), item="b")
    with closing(History(tmp_path / "history.db", project="shop", clock=StillClock())) as history:
        history.observe_all((run_started("r1"), ran, single, run_ended("r1")))
        cached = [
            replace(each, run_id="r2", ended_seconds=each.started_seconds, items=(), cache=CacheReason.UNCHANGED)
            for each in (ran, single)
        ]
        history.observe_all((run_started("r2"), *cached, run_ended("r2")))
        known = {stage: dict(items.seconds) for stage, items in history.load_earlier_runs("standard").items.items()}
    assert known == {"unit": {"a": 4.0}, "lint": {"b": 2.0}}
