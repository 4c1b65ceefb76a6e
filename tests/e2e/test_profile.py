"""`profile` as a person uses it."""

from __future__ import annotations

import signal
from pathlib import Path

from support.in_process import call_command
from support.processes import in_folder
from support.projects import write
from support.real_servers import eventually, run, serving


def test_next_run_starts_with_the_written_profile(tmp_path: Path) -> None:
    stages = """name: waits, run: "sleep {item}", items: {list: [0.41, 0.42, 0.43, 0.44]}"""
    write(tmp_path, stages, lanes="lanes:\n  standard: {workers: {max: 8}}  # as it comes")
    profiled = run(tmp_path, "profile", "waits", "--runs", "1", "--workers", "1,4", "--strategy", "thread", "--write")
    assert profiled.returncode == 0, profiled.stderr
    assert "round 1 of 1: thread, 4 workers" in profiled.stderr
    text = (tmp_path / "paropt.yml").read_text()
    assert "standard: {workers: {max: 8, min: 1, start: 4}, strategy: thread}  # as it comes" in text
    assert call_command(tmp_path, "check").returncode == 0
    assert "pools    commands 4 ·" in run(tmp_path, "--once").stdout


def test_interrupted_profile_ends_its_runs_without_a_recommendation(tmp_path: Path) -> None:
    write(tmp_path, """name: waits, run: "sleep 1000" """)
    with serving(tmp_path, "profile", "waits") as command:
        eventually("the stage runs", lambda: len(in_folder(tmp_path)) > 1)
        assert command.stop(signal.SIGINT) == 130
    assert "interrupted: no recommendation" in (tmp_path / "stderr.log").read_text()
    eventually("nothing is left running", lambda: not in_folder(tmp_path))
