"""Cached stages in the history: they count as passed, and say nothing about durations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import projects
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
