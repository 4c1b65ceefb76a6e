"""An hour of real decisions under faults, recorded by `benchmarks/record_hour.py`, replays the same."""

from __future__ import annotations

import gzip
import io
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paropt_exporter.autoscaling.explanation import iter_explanation
from paropt_exporter.cli import explain
from paropt_exporter.events import Decision
from paropt_exporter.history import History
from paropt_exporter.testing import FakeClock

RECORDING = Path(__file__).parent / "recorded-hour.jsonl.gz"
AGAIN = f"If the policy has changed on purpose: python benchmarks/record_hour.py --decide-again {RECORDING}"


@pytest.fixture(scope="module")
def recorded() -> tuple[Decision, ...]:
    with gzip.open(RECORDING, "rt", encoding="utf-8") as lines:
        return tuple(decision(**json.loads(line)) for line in lines)


def decision(*, project: str, pools: list[str], timestamp_seconds: float, **rest: Any) -> Decision:
    return Decision(
        pool=f"{project} {pools[0]}", old_size=0, new_size=0, at_timestamp_seconds=timestamp_seconds, **rest
    )


def test_recorded_hour_replays_to_the_byte(recorded: tuple[Decision, ...], tmp_path: Path) -> None:
    stdout = io.StringIO()
    with closing(History(tmp_path / "history.db", project="recorded", clock=FakeClock())) as history:
        for each in recorded:
            history.observe(each)
        exit_code = explain.run_replay(history, pool=None, since_seconds=0.0, output="text", stdout=stdout)
    count = len(recorded)
    assert stdout.getvalue() == f"{count} decisions: {count} identical, 0 different\n", AGAIN
    assert exit_code == 0


def test_recorded_hour_has_every_controller_with_faults_and_overrides(recorded: tuple[Decision, ...]) -> None:
    moments = [each.at_timestamp_seconds for each in recorded]
    assert max(moments) - min(moments) > 3500.0
    assert {json.loads(each.situation)["kind"] for each in recorded} == {"lane", "pool", "bounds", "query"}
    faults = {"query_failed", "no_data", "not_finite", "settling", "pinned", "paused"}
    assert faults <= {each.reason for each in recorded}


def test_recorded_decisions_can_be_explained(recorded: tuple[Decision, ...]) -> None:
    assert all(len([*iter_explanation(each)]) > 1 for each in recorded)
