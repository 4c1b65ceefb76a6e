"""`make stack` starts real servers around the demo lane, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import processes, projects
from support.real_servers import GO_SETTINGS, HANG_SECONDS, environment, eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, ROOT / "deploy/stack/stack.py"],
        env=environment(TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), **GO_SETTINGS),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate(timeout=HANG_SECONDS)


def fetch(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=HANG_SECONDS) as answer:
        return json.load(answer)["data"]


def read_urls(stack: subprocess.Popen[str]) -> dict[str, str]:
    """Read the addresses that the stack prints, by name."""
    assert stack.stdout is not None
    lines = [stack.stdout.readline() for _ in range(5)]
    return {match[1]: match[2] for line in lines if (match := re.match(r"(\w+) +(http://[\d.:]+)", line))}


def list_processes(folder: Path) -> list[str]:
    """Return the command lines of processes that run in the folder or have it in their arguments."""
    lines = {pid: line for pid in psutil.pids() if (line := processes.command_line(pid))}
    inside = processes.in_folder(folder)
    return [line for pid, line in lines.items() if str(folder) in line or pid in inside]


def are_all_targets_up(prometheus: str) -> bool:
    targets = fetch(f"{prometheus}/api/v1/targets")["activeTargets"]
    return len(targets) == 3 and all(target["health"] == "up" for target in targets)


def test_the_stack_starts_with_its_rules_and_ends_with_a_signal(stack: subprocess.Popen[str], tmp_path: Path) -> None:
    where = read_urls(stack)
    assert set(where) == {"Prometheus", "Alertmanager", "exporter"}
    eventually("every target is up", lambda: are_all_targets_up(where["Prometheus"]))
    groups = fetch(f"{where['Prometheus']}/api/v1/rules")["groups"]
    assert {Path(group["file"]).name for group in groups} == {path.name for path in (ROOT / "alerts").glob("*.yml")}
    (active,) = fetch(f"{where['Prometheus']}/api/v1/alertmanagers")["activeAlertmanagers"]
    assert active["url"].startswith(where["Alertmanager"])
    eventually("a run has ended", lambda: projects.scraped(f"{where['exporter']}/metrics").get(RUN_ENDED))
    assert list_processes(tmp_path)
    stack.send_signal(signal.SIGINT)
    assert stack.wait(HANG_SECONDS) == 0
    assert list_processes(tmp_path) == []
    assert [*tmp_path.iterdir()] == []


RUN_ENDED = ("paropt_run_last_completion_timestamp_seconds", "standard")


def test_a_program_that_exits_ends_the_stack_and_is_named(stack: subprocess.Popen[str], tmp_path: Path) -> None:
    read_urls(stack)
    (pid,) = (pid for pid in processes.children(stack.pid) if "alertmanager" in processes.command_line(pid))
    os.kill(pid, signal.SIGKILL)
    assert stack.wait(HANG_SECONDS) == 1
    assert list_processes(tmp_path) == []


def test_stack_without_the_servers_ends_with_advice(tmp_path: Path) -> None:
    for folder in ("deploy/stack", "deploy/compose", "deploy/alertmanager", "deploy/demo"):
        shutil.copytree(ROOT / folder, tmp_path / folder)  # without .tools
    command = [sys.executable, str(tmp_path / "deploy/stack/stack.py")]
    ended = subprocess.run(command, env={"PATH": ""}, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert (ended.returncode, "`make tools` gets it from Debian" in ended.stderr) == (1, True)
