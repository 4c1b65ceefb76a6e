"""Many runs on a fake clock, for seconds: `python benchmarks/thirty_days.py` runs 259,200 of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks/thirty_days.py"


def test_three_hundred_runs_take_no_more_memory_descriptors_or_disk_than_sixty() -> None:
    command = [sys.executable, str(SCRIPT), "--days", "0.035", "--runs", "0", "--size", "300000"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines()[-1] == "nothing grew, no total is missing", ended.stdout + ended.stderr
    assert ended.returncode == 0
