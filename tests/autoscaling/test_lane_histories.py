"""Random lanes on simulated machines, sized by the real controller; `benchmarks/control.py histories` runs more."""

from __future__ import annotations

import pytest

from simulation.histories import faults, history


@pytest.mark.parametrize("block", range(4))
def test_cores_are_not_overrun_and_sleepers_are_not_held_back(block: int) -> None:
    for seed in range(block * 15, block * 15 + 15):
        drawn = history(seed)
        assert faults(drawn, drawn.run()) == [], f"seed {seed}: {drawn}"
