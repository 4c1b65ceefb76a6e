"""Random edits never lead to a false hit. `benchmarks/cache_edits.py` makes 10,000 of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.random_edits import RandomEdits

STEPS = 120


@pytest.mark.parametrize("seed", [1, 2])
def test_random_edits_have_no_false_hit(tmp_path: Path, seed: int) -> None:
    edits = RandomEdits(tmp_path, seed)
    for _ in range(STEPS):
        edits.step()
    assert edits.hits > STEPS  # of three stages a step: the cache does skip
