"""Random edits never lead to a false hit. `benchmarks/cache_edits.py` makes 10,000 of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from paropt_exporter.executors.commands.command_pool import CommandPool
from paropt_exporter.executors.supervisor.seccomp import find_refusal
from support.random_edits import RandomEdits
from support.traced_edits import TracedEdits

STEPS = 120
TRACED_STEPS = 20
REFUSAL = find_refusal()


@pytest.mark.parametrize("seed", [1, 2])
def test_random_edits_have_no_false_hit(tmp_path: Path, seed: int) -> None:
    edits = RandomEdits(tmp_path, seed)
    for _ in range(STEPS):
        edits.step()
    assert edits.hits > STEPS  # of three stages a step: the cache does skip


@pytest.mark.skipif(bool(REFUSAL), reason=f"this system does not let commands be traced: {REFUSAL}")
def test_random_edits_of_traced_stages_have_no_false_hit(tmp_path: Path) -> None:
    with CommandPool(4) as pool:
        edits = TracedEdits(tmp_path, 1, pool)
        for _ in range(TRACED_STEPS):
            edits.step()
    assert edits.hits > TRACED_STEPS  # of five stages a step
