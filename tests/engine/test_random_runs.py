"""Random plans, endings and interruptions on a fake clock: the events of a run agree with each other and its tasks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from paropt_exporter.engine.interfaces import Admission, CachedTask, KeptResult, MachineShare, StageLookup
from paropt_exporter.engine.time_limits import GIVE_UP_SECONDS
from paropt_exporter.events import (
    Result,
    RunRecord,
    RunStarted,
    SlaRecord,
    StageRecord,
    StageStarted,
    TaskRecord,
)
from paropt_exporter.plan import Bounds, PlannedStage, PlannedTask
from paropt_exporter.testing import Script
from support.lanes import Bench, limit, plan, stage

MIB = 1 << 20
SIZE = 6
RESULTS = (Result.SUCCESS, Result.SUCCESS, Result.SUCCESS, Result.FAILURE, Result.ERROR)


class RandomCache:
    """Answers after `seconds`: the tasks of `hits` have earlier results, by stage."""

    bench: Bench

    def __init__(self, hits: dict[str, set[int]], seconds: float) -> None:
        self._hits, self._seconds = hits, seconds

    def look_up(self, stage: PlannedStage, report: Callable[[StageLookup], None]) -> None:
        hits = {index: CachedTask(output="", seconds=3.0) for index in self._hits.get(stage.name, ())}
        self._answer(lambda: report(StageLookup(hits=hits, misses={})))

    def keep(self, stage: PlannedStage, task: PlannedTask, result: KeptResult) -> None:
        pass

    def flush(self, stage: PlannedStage, done: Callable[[], None]) -> None:
        self._answer(done)

    def _answer(self, answer: Callable[[], None]) -> None:
        self.bench.inbox.at(self.bench.clock.now + self._seconds, answer)


@dataclass
class Lane:
    """A random lane: its stages, the endings of their attempts, and what happens to the run at which moment."""

    stages: list[PlannedStage] = field(default_factory=list)
    scripts: dict[str, list[Script]] = field(default_factory=dict)
    hits: dict[str, set[int]] = field(default_factory=dict)
    actions: list[tuple[float, str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


scripts = st.builds(
    Script,
    seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0, 20.0, 400.0]),
    result=st.sampled_from(RESULTS),
    message=st.just("exit 1"),
    term_seconds=st.sampled_from([0.0, 2.0, 60.0]),
    stuck=st.sampled_from([False, False, False, True]),
    cpu_seconds=st.sampled_from([0.0, 0.4]),
)  # fmt: skip
moments = st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.5, 3.0, 7.0, 25.0])
actions = st.one_of(
    st.tuples(moments, st.just("interrupt"), st.booleans()),
    st.tuples(moments, st.just("wind_down"), st.sets(st.integers(0, 5), max_size=2)),
    st.tuples(moments, st.just("resize"), st.integers(1, SIZE)),
    st.tuples(moments, st.just("limit"), st.integers(1, 2)),
    st.tuples(moments, st.just("admit"), st.sampled_from([None, 0.05, 1.0, 3.0])),
    st.tuples(moments, st.just("share"), st.sampled_from([1.0, 2.0])),
    st.tuples(moments, st.just("sleep"), st.sampled_from([0.7, 5.0, 3600.0])),
)


@st.composite
def lanes(draw: st.DrawFn) -> Lane:
    lane, count = Lane(), draw(st.integers(1, 6))
    for number in range(count):
        name = f"s{number}"
        needs = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set()
        made = stage(
            name,
            number=number,
            tasks=draw(st.integers(1, 4)),
            needs=tuple(f"s{need}" for need in sorted(needs)),
            retries=draw(st.integers(0, 2)),
            backoff_seconds=draw(st.sampled_from([0.0, 1.0])),
            timeout_seconds=draw(st.sampled_from([None, None, 2.0, 30.0])),
            sla=draw(st.sampled_from([None, limit(2.0), limit(2.0, critical=True)])),
            locks=frozenset(draw(st.sets(st.sampled_from("xy"), max_size=1))),
            exclusive=draw(st.sampled_from([False, False, False, True])),
            memory_bytes=draw(st.sampled_from([0, 0, 300 * MIB, 2000 * MIB])),
            slots=draw(st.sampled_from([1, 1, 2, SIZE])),
            skip=draw(st.sampled_from(["", "", "", "", "", "nothing to do"])),
            fault=draw(st.sampled_from(["", "", "", "", "", "no such folder"])),
            cached=draw(st.sampled_from([False, False, True])),
        )
        lane.stages.append(made)
        lane.scripts[name] = draw(st.lists(scripts, min_size=1, max_size=4))
        if made.cached:
            lane.hits[name] = draw(st.sets(st.integers(0, len(made.tasks) - 1)))
    lane.actions = draw(st.lists(actions, max_size=4))
    lane.settings = {
        "fail_fast": draw(st.booleans()),
        "total": draw(st.sampled_from([None, None, limit(5.0), limit(5.0, critical=True)])),
        "workers": Bounds(minimum=1, maximum=SIZE, start=draw(st.integers(1, SIZE))),
    }
    return lane


def run(lane: Lane) -> tuple[Bench, RunRecord, list[float]]:
    """Run a lane; return the moment of each event, too."""
    cache, times = RandomCache(lane.hits, seconds=0.5), list[float]()
    bench = Bench(
        plan(*lane.stages, **lane.settings),
        lane.scripts,
        cache=cache,
        on_event=lambda _: times.append(bench.clock.now),
    )
    cache.bench = bench
    for moment, action, value in lane.actions:
        bench.inbox.at(moment, lambda action=action, value=value: act(bench, action, value))  # type: ignore[misc]
    return bench, bench.run(), times


def act(bench: Bench, action: str, value: Any) -> None:
    match action:
        case "interrupt":
            bench.engine.interrupt("interrupted by SIGINT", now=value)
        case "wind_down":
            bench.engine.wind_down(frozenset(f"s{number}" for number in value), "a file has changed")
        case "resize":
            bench.engine.resize(value)
        case "limit":
            bench.engine.set_stage_limits({"s0": value, "s2": 1})
        case "admit":
            demands = {f"s{number}": value for number in range(0, 6, 2)}
            bench.engine.set_admission(None if value is None else Admission(cores=2.0, floor=1, stages=demands))
        case "sleep":
            bench.clock.advance(value)  # the whole process, with its tasks
        case "share":
            bench.engine.set_share(MachineShare(cores=value, memory_bytes=1 << 40))


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
    bench, record, times = run(lane)
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
                assert results[need] is Result.SUCCESS or next(one.skip for one in lane.stages if one.name == need)
    assert sum(not one.cached for own in tasks.values() for one in own) == len(bench.workers.attempts)
    check_resources(lane, [one for own in tasks.values() for one in own], starts, ends, times)
    check_result(lane, record, results)
    check_nothing_is_left(bench, record, times)


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
