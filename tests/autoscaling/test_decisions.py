"""Stored decisions: bounded in size, readable by every version, and replayed as far as they were stored."""

from __future__ import annotations

import inspect
import json
import re

from paropt_exporter.autoscaling import decisions, explanation
from paropt_exporter.autoscaling.decisions import (
    MOST_ENTRIES,
    count_left_out,
    parse_observation,
    replay,
    serialize_decision,
    serialize_observation,
)
from paropt_exporter.autoscaling.policy.fixed_workload import Load, LoadGroup
from paropt_exporter.autoscaling.policy.lane_size import LaneObservation, decide_lane_size


def observe_lane(*, stages: int, cpu_demand: float, ceiling: int = 10_000) -> LaneObservation:
    """A lane of two cores whose waiting stages have one task each."""
    loads = [Load(pool="commands", stage=f"stage-{n}", cpu_demand=cpu_demand) for n in range(stages)]
    return LaneObservation(
        now=1.0,
        size=2,
        floor=1,
        ceiling=ceiling,
        cores=2.0,
        running=(),
        waiting=tuple(LoadGroup(load=load, count=1) for load in loads),
    )


def test_decision_on_a_thousand_waiting_stages_is_stored_in_20_kilobytes() -> None:
    stored = serialize_observation(observe_lane(stages=1000, cpu_demand=1.0))
    assert len(stored) < 20_000
    assert json.loads(stored)["left_out"] == {"waiting": 1000 - MOST_ENTRIES}
    assert count_left_out(stored) == 1000 - MOST_ENTRIES


def test_each_kind_of_observation_is_explained() -> None:
    explained = set(re.findall(r"case (\w+)\(\):", inspect.getsource(explanation._iter_terms)))
    stored = {cls for _, cls, _ in decisions._KINDS.values()}
    assert stored == explained, "a policy needs a kind in decisions.py and a case in explanation.py"


def test_decision_on_few_stages_is_stored_whole() -> None:
    observation = observe_lane(stages=MOST_ENTRIES, cpu_demand=1.0)
    stored = serialize_observation(observation)
    assert parse_observation(stored) == observation
    assert count_left_out(stored) == 0


def test_decision_that_depends_on_no_left_out_stage_is_replayed() -> None:
    observation = observe_lane(stages=1000, cpu_demand=1.0)
    decision = serialize_decision(decide_lane_size(observation))
    result = replay(serialize_observation(observation), decision)
    assert (result.left_out, result.same, result.is_comparable) == (900, True, True)


def test_replay_of_a_decision_that_depends_on_left_out_stages_is_not_comparable() -> None:
    observation = observe_lane(stages=1000, cpu_demand=0.0)
    decision = decide_lane_size(observation)
    assert decision.size == 1000
    result = replay(serialize_observation(observation), serialize_decision(decision))
    assert (result.left_out, result.same, result.is_comparable) == (900, False, False)
