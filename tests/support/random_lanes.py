"""Random lanes and events during their runs, and their runs on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from paropt_exporter.engine.interfaces import Admission, CachedTask, KeptResult, MachineShare, StageLookup
from paropt_exporter.events import Result, RunRecord
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
    st.tuples(moments, st.just("remember"), st.sampled_from([-1, 300 * MIB, 500 * MIB, 2500 * MIB])),
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


def run_lane(lane: Lane) -> tuple[Bench, RunRecord, list[float]]:
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
        case "remember":
            peaks = {"s0": 300 * MIB, "s1": 2000 * MIB, "s3": 100 * MIB}
            bench.engine.set_admission(Admission(cores=2.0, floor=1, peak_bytes=peaks, memory_bytes=value))
        case "sleep":
            bench.clock.advance(value)  # the whole process, with its tasks
        case "share":
            bench.engine.set_share(MachineShare(cores=value, memory_bytes=1 << 40))
