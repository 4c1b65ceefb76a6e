"""Too few descriptors make tasks wait for those that others hold; they fail none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from support import projects
from support.real_servers import HANG_SECONDS, environment, installed_command

CALLS = "import time\ndef naps(item): time.sleep(0.2)\n"
NUMBERS = ", ".join(f'"{number}"' for number in range(60))


def limited(folder: Path, descriptors: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = f'ulimit -n {descriptors}; exec "$0" "$@"'
    return subprocess.run(
        ["sh", "-c", script, installed_command(), "--once", projects.ANY_PORT, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


@pytest.mark.parametrize("descriptors", [64, 100])
def test_commands_wait_for_descriptors(tmp_path: Path, descriptors: int) -> None:
    projects.write(tmp_path, f"name: many, run: 'sleep 0.3', items: {{list: [{NUMBERS}]}}")
    ended = limited(tmp_path, descriptors, "--strategy", "thread", "--workers", "60")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (one,) = projects.runs(tmp_path)
    assert projects.stages(one) == {"many": ("success", "")}


@pytest.mark.parametrize("strategy", ["process", "adaptive"])
def test_calls_get_by_with_few_descriptors(tmp_path: Path, strategy: str) -> None:
    projects.write(tmp_path, f'name: many, call: "calls:naps", items: {{list: [{NUMBERS}]}}', calls=CALLS)
    ended = limited(tmp_path, 64, "--strategy", strategy, "--workers", "30")
    assert ended.returncode == 0, ended.stdout + ended.stderr
