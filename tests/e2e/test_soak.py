"""The soak, for seconds: `make soak` runs it for minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "benchmarks/soak.py"


def test_nothing_gets_lost_or_stays_under_random_faults() -> None:
    found = subprocess.run([sys.executable, str(SOAK), "3", "7"], capture_output=True, text=True, timeout=300)
    assert found.stdout.splitlines()[-1] == "nothing lost, nothing left behind", found.stdout + found.stderr
    assert found.returncode == 0
