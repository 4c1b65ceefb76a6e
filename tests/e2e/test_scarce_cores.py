"""Real tasks on scarce cores record their start and end, and the test counts overlaps afterwards."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarce_cores import Lane, Row, stage

COMPUTE = [sys.executable, "task.py", "compute", "0.15"]
SLEEP = [sys.executable, "task.py", "sleep", "1"]
NICED = ["nice", "-n", "19", *COMPUTE]
CALLS = (
    "  - {number: 2, name: compute, call: 'calls:compute', items: {list: [1, 2, 3, 4, 5]}}\n"
    "  - {number: 3, name: sleep, call: 'calls:sleep', items: {list: [1, 2, 3, 4, 5]}}\n"
)
CHILDREN = """
import subprocess, sys
from paropt_exporter import AdaptiveWorkerPool

with AdaptiveWorkerPool() as pool:
    for _ in range(6):
        pool.submit_stage(2, "compute", subprocess.run, [sys.executable, "task.py", "compute", "0.15"], check=True)
    sys.exit(not pool.wait_all()[0])
"""


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    """Leave this process and all that it starts two of the machine's cores."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:2])
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    "row",
    [
        Row(
            name="computing and sleeping", most=3, sleepers=5,
            stages=stage(2, "compute", [*COMPUTE, "{item}"], 5) + stage(3, "sleep", [*SLEEP, "{item}"], 5),
        ),
        Row(name="niced", most=3, lane="workers: {max: 16}", stages=stage(2, "compute", [*NICED, "{item}"], 5)),
    ],
    ids=lambda row: row.name,
)  # fmt: skip
def test_lane_computes_on_each_core_and_sleeps_at_once(tmp_path: Path, row: Row) -> None:
    seen = Lane(tmp_path, row, meets=True).run().most
    assert seen["compute"] <= row.most
    assert seen["sleep"] == row.sleepers


def test_next_run_of_a_lane_of_calls_computes_no_more_at_once(tmp_path: Path) -> None:
    lane = Lane(tmp_path, Row(name="learned", most=3, sleepers=5, stages=CALLS), meets=True)
    for _ in range(2):
        seen = lane.run().most
        assert seen["compute"] <= 3
        assert seen["sleep"] == 5


def test_children_of_a_pools_threads_compute_on_each_core(tmp_path: Path) -> None:
    lane = Lane(tmp_path, Row(name="children", most=4, program=CHILDREN))
    assert lane.run().most["compute"] <= 4
