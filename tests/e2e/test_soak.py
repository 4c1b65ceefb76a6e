"""The soaks, for seconds: `make soak` runs them for minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize("name", ["soak_pools.py", "soak.py"])
def test_nothing_gets_lost_or_stays_under_random_faults(name: str) -> None:
    found = subprocess.run([sys.executable, str(BENCHMARKS / name), "5", "7"], capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "nothing lost, nothing left behind", found.stdout + found.stderr
    assert found.returncode == 0
