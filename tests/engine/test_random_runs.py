"""Random plans, endings and interruptions on a fake clock: the events of a run agree with each other and its tasks."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import permutations

from hypothesis import example, given, settings

from paropt_exporter.engine.time_limits import GIVE_UP_SECONDS
from paropt_exporter.events import Result, RunRecord, RunStarted, SlaRecord, StageRecord, StageStarted, TaskRecord
from paropt_exporter.plan import Bounds, PlannedStage
from paropt_exporter.testing import Script
from support.lanes import Bench, stage
from support.random_lanes import MIB, SIZE, Lane, lanes, run_lane


@settings(max_examples=60)
@given(lanes())
@example(
    Lane(
        stages=[stage("s0", tasks=1), stage("s1", number=1, tasks=1, needs=("s0",), timeout_seconds=2.0)],
        scripts={"s0": [Script(seconds=7.0)], "s1": [Script(seconds=400.0, stuck=True)]},
        actions=[(25.0, "sleep", 5.0)],  # just before the attempt of s1 is given up
        settings={"workers": Bounds(minimum=1, maximum=SIZE, start=2)},
    )
)
def test_events_of_a_run_agree_with_each_other_and_with_its_attempts(lane: Lane) -> None:
    bench, record, times = run_lane(lane)
    events = bench.events
    assert isinstance(events[0], RunStarted) and events[-1] is record
    ends = {event.stage: place for place, event in enumerate(events) if isinstance(event, StageRecord)}
    starts = {event.stage: place for place, event in enumerate(events) if isinstance(event, StageStarted)}
    records = [event for event in events if isinstance(event, StageRecord)]
    assert sorted(one.stage for one in records) == sorted(one.name for one in lane.stages)
    assert {one.stage: one for one in record.stages} == {one.stage: one for one in records}
    tasks = defaultdict[str, list[TaskRecord]](list)
    for place, event in enumerate(events):
        if isinstance(event, TaskRecord):
            tasks[event.stage].append(event)
            assert place < ends[event.stage] and (event.cached or starts[event.stage] < place)
        elif isinstance(event, SlaRecord) and event.stage is not None:
            assert starts[event.stage] < place < ends[event.stage]
    results = {one.stage: one.result for one in records}
    for planned in lane.stages:
        # After each sleep, an attempt has its time to end once more.
        slept = sum(value + GIVE_UP_SECONDS for _, action, value in lane.actions if action == "sleep")
        check_stage(planned, next(one for one in records if one.stage == planned.name), tasks[planned.name], slept)
        if planned.name in starts:
            for need in planned.needs:
                assert ends[need] < starts[planned.name]
                assert results[need] is Result.SUCCESS or was_skipped_as_planned(lane, records, need)
        elif was_skipped_as_planned(lane, records, planned.name):
            assert all(
                results[need] is Result.SUCCESS or was_skipped_as_planned(lane, records, need) for need in planned.needs
            )
    assert sum(not one.cached for own in tasks.values() for one in own) == len(bench.workers.attempts)
    check_resources(lane, [one for own in tasks.values() for one in own], starts, ends, times)
    check_result(lane, record, results)
    check_nothing_is_left(bench, record, times)


def was_skipped_as_planned(lane: Lane, records: list[StageRecord], name: str) -> bool:
    planned = next(one for one in lane.stages if one.name == name)
    return any(one.stage == name and planned.skip and one.message == planned.skip for one in records)


def check_stage(planned: PlannedStage, ended: StageRecord, records: list[TaskRecord], slept: float) -> None:
    ran = [one for one in records if not one.cached]
    assert ended.attempts == len(ran) and ended.tasks_cached == len(records) - len(ran)
    finals = Counter(one.task for one in records if one.final)
    assert max(finals.values(), default=1) == 1
    by_task = defaultdict[int, list[TaskRecord]](list)
    for one in records:
        by_task[one.task].append(one)
        assert one.duration_seconds >= 0 and one.ready_seconds <= one.started_seconds
        if planned.timeout_seconds is not None:
            assert one.duration_seconds <= planned.timeout_seconds + slept + 20
    for own in by_task.values():
        assert [one.attempt for one in own] == [*range(1, len(own) + 1)] and len(own) <= planned.retries + 1
        assert not any(one.final or one.result is Result.SUCCESS for one in own[:-1])
    good = sum(one.final and one.result is Result.SUCCESS for one in records)
    assert (ended.result is Result.SUCCESS) == (good == len(planned.tasks))
    assert ended.tasks_failed == sum(one.final and one.result is not Result.SUCCESS for one in records)
    if ended.result is Result.SKIP:
        assert not ran and ended.message
    if ended.result.bad:
        assert ended.message


def check_resources(
    lane: Lane, tasks: list[TaskRecord], starts: dict[str, int], ends: dict[str, int], times: list[float]
) -> None:
    stages = {one.name: one for one in lane.stages}
    changes = []
    for one in tasks:
        if not one.cached and one.duration_seconds:
            own = stages[one.stage]
            changes += [(one.started_seconds, 1, own), (one.ended_seconds, -1, own)]
    running = slots = memory = large = 0
    for _, change, own in sorted(changes, key=lambda each: each[:2]):
        running, slots = running + change, slots + change * own.slots
        memory, large = memory + change * own.memory_bytes, large + change * bool(own.memory_bytes)
        assert running <= 1 or slots <= SIZE
        assert large <= 1 or memory <= 1024 * MIB
    for first, second in permutations(starts, 2):
        apart = stages[first].exclusive or bool(stages[first].locks & stages[second].locks)
        assert not apart or ends[first] < starts[second] or ends[second] < starts[first]


def check_result(lane: Lane, record: RunRecord, results: dict[str, Result]) -> None:
    planned_skips = {one.name for one in lane.stages if one.skip}
    good = all(result is Result.SUCCESS for name, result in results.items() if name not in planned_skips)
    stopped = record.critical_sla or record.interrupted or any(action == "wind_down" for _, action, _ in lane.actions)
    assert record.result is not Result.SUCCESS or good
    assert record.result is Result.SUCCESS or not good or stopped
    assert (record.result is Result.SUCCESS) == (not record.reason)
    assert not record.critical_sla or record.broken or any(one.broken for one in record.stages)


def check_nothing_is_left(bench: Bench, record: RunRecord, times: list[float]) -> None:
    assert bench.workers.alive() == [] and bench.engine.snapshot_stages() == ()
    demand = bench.engine.measure_demand()
    assert (demand.ready, demand.running) == ((), ())
    assert record.duration_seconds == times[-1]
