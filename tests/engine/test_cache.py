"""The engine and its cache: hits are records of earlier results, misses run, and nothing blocks on a cache for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from paropt_exporter.config.placeholders import ITEMS
from paropt_exporter.engine.interfaces import CachedTask, KeptResult, StageLookup, UncachedTask
from paropt_exporter.engine.run import Run
from paropt_exporter.events import (
    CacheReason,
    ItemRecord,
    Result,
    RunRecord,
    Scope,
    SlaRecord,
    StageRecord,
    StageStarted,
    Strategy,
    TaskRecord,
)
from paropt_exporter.plan import Commands, Flakiness, PlannedStage, PlannedTask
from paropt_exporter.plan.batches import build_task
from paropt_exporter.testing import FakeClock, FakeInbox, FakeWorkers, Recorder, Script
from support import lanes

HIT = CachedTask(output="earlier", seconds=7.0)
MISS = UncachedTask(reason=CacheReason.INPUTS, note="src/a.py changed")


class FakeCache:
    """Answers after `seconds` of the fake clock. `kept` and `flushed` list the calls."""

    def __init__(self, inbox: FakeInbox, clock: FakeClock, found: dict[str, StageLookup], seconds: float) -> None:
        self.kept: list[tuple[str, int, bool]] = []
        self.asked: list[tuple[float, str]] = []
        self.flushed: list[str] = []
        self._inbox, self._clock, self._found, self._seconds = inbox, clock, found, seconds

    def look_up(self, stage: PlannedStage, report: Callable[[StageLookup], None]) -> None:
        self.asked.append((self._clock.now, stage.name))
        if stage.name in self._found:
            self._inbox.at(self._clock.now + self._seconds, lambda: report(self._found[stage.name]))

    def keep(self, stage: PlannedStage, task: PlannedTask, result: KeptResult) -> None:
        self.kept.append((stage.name, task.index, result.succeeded))

    def flush(self, stage: PlannedStage, done: Callable[[], None]) -> None:
        self.flushed.append(stage.name)
        self._inbox.at(self._clock.now + self._seconds, done)


class Bench:
    """A run on fakes, with a cache that knows the answers in `found`."""

    def __init__(
        self,
        *stages: PlannedStage,
        found: dict[str, StageLookup],
        scripts: dict[str, list[Script]] | None = None,
        seconds: float = 0.5,
        **fields: Any,
    ) -> None:
        """`fields`: of the plan."""
        self.clock = FakeClock()
        self.inbox = FakeInbox(self.clock)
        self.workers = FakeWorkers(self.clock, self.inbox, scripts)
        self.recorder = Recorder()
        self.cache = FakeCache(self.inbox, self.clock, found, seconds)
        self.engine = Run(
            lanes.plan(*stages, **fields),
            run_id="r1",
            workers=self.workers,
            emit=self.recorder.observe,
            inbox=self.inbox,
            clock=self.clock,
            memory_bytes=lanes.GIB,
            cache=self.cache,
        )

    def run(self) -> RunRecord:
        return self.engine.execute()

    def get_stage(self, name: str) -> StageRecord:
        return next(record for record in self.recorder.of(StageRecord) if record.stage == name)


def hit_all(tasks: int = 1) -> StageLookup:
    return StageLookup(hits=dict.fromkeys(range(tasks), HIT), misses={})


def miss_all(tasks: int = 1) -> StageLookup:
    return StageLookup(hits={}, misses=dict.fromkeys(range(tasks), MISS), note=MISS.note)


def test_cached_stage_succeeds_without_a_task_that_runs() -> None:
    bench = Bench(lanes.stage("lint", tasks=2, cached=True, sla=lanes.limit(5)), found={"lint": hit_all(2)})
    assert bench.run().result is Result.SUCCESS
    assert bench.workers.started == [] and bench.recorder.of(StageStarted) == []
    record = bench.get_stage("lint")
    assert (record.cached, record.tasks_cached, record.saved_seconds) == (True, 2, 14.0)
    assert (record.result, record.scope, record.checked) == (Result.SUCCESS, Scope.CACHED, False)
    assert [(task.cached, task.output) for task in bench.recorder.of(TaskRecord)] == [(True, "earlier")] * 2


def test_stage_waits_for_its_needs_before_it_is_looked_up() -> None:
    bench = Bench(lanes.stage("build"), lanes.stage("use", 3, cached=True, needs=("build",)), found={"use": hit_all()})
    assert bench.run().result is Result.SUCCESS
    assert bench.cache.asked == [(1.0, "use")]


def test_dependents_of_a_hit_start_when_it_is_known() -> None:
    bench = Bench(
        lanes.stage("build", cached=True), lanes.stage("use", 3, needs=("build",)), found={"build": hit_all()}
    )
    bench.run()
    assert bench.workers.started == [(0.5, "use")]


def test_other_stages_run_while_one_is_looked_up() -> None:
    bench = Bench(lanes.stage("lint", cached=True), lanes.stage("other", 3), found={"lint": miss_all()})
    bench.run()
    assert bench.workers.started == [(0.0, "other"), (0.5, "lint")]


def test_sequential_lane_comes_to_cached_stages_in_the_order_of_the_numbers() -> None:
    """Each was looked up at the start, before those before it had run, and other stages overtook it meanwhile."""
    stages = [lanes.stage(name, number, cached=name in "bd") for number, name in enumerate("abcd")]
    bench = Bench(*stages, found={"b": miss_all(), "d": hit_all()}, strategy=Strategy.SEQUENTIAL)
    assert bench.run().result is Result.SUCCESS
    assert bench.workers.started == [(0.0, "a"), (1.5, "b"), (3.0, "c")]
    assert bench.cache.asked == [(1.0, "b"), (4.0, "d")]


def test_sequential_lane_goes_on_after_the_last_attempt_of_a_stage() -> None:
    bench = Bench(
        lanes.stage("a", 1, retries=1, backoff_seconds=5.0),
        lanes.stage("b", 2),
        found={},
        scripts={"a": [Script(seconds=1, result=Result.FAILURE)]},
        strategy=Strategy.SEQUENTIAL,
    )
    bench.run()
    assert bench.workers.started == [(0.0, "a"), (6.0, "a"), (7.0, "b")]


def test_task_does_not_wait_for_a_worker_while_it_is_looked_up() -> None:
    bench = Bench(lanes.stage("lint", cached=True), found={"lint": miss_all()})
    backlogs: list[object] = []
    bench.inbox.at(0.25, lambda: backlogs.append(bench.engine.measure_backlog()))
    bench.run()
    assert [task.queue_wait_seconds for task in bench.recorder.of(TaskRecord)] == [0.0]
    assert backlogs == [{}]


def test_miss_runs_with_its_reason_and_its_result_is_kept_before_the_stage_ends() -> None:
    bench = Bench(lanes.stage("lint", cached=True), found={"lint": miss_all()})
    bench.run()
    (task,) = bench.recorder.of(TaskRecord)
    assert (task.cache, task.cache_note) == (CacheReason.INPUTS, "src/a.py changed")
    assert bench.get_stage("lint").cache_note == "src/a.py changed"
    assert (bench.cache.kept, bench.cache.flushed) == ([("lint", 0, True)], ["lint"])
    assert bench.clock.now == 2.0  # asked 0.5 s, ran 1 s, kept 0.5 s


def test_some_hits_leave_the_rest_to_run_and_the_stage_without_a_limit() -> None:
    found = StageLookup(hits={0: HIT}, misses={1: MISS}, note=MISS.note)
    stage = lanes.stage("tests", tasks=2, cached=True, sla=lanes.limit(0.1))
    bench = Bench(stage, found={"tests": found})
    bench.run()
    assert [label for _, label in bench.workers.started] == ["tests[1]"]
    record = bench.get_stage("tests")
    assert (record.tasks_cached, record.cached, record.scope) == (1, False, Scope.CACHED)
    assert bench.recorder.of(SlaRecord) == []


def test_failure_is_offered_as_one_after_its_last_attempt() -> None:
    scripts = {"lint": [Script(result=Result.FAILURE), Script(result=Result.FAILURE)]}
    bench = Bench(lanes.stage("lint", cached=True, retries=1), found={"lint": miss_all()}, scripts=scripts)
    assert bench.run().result is Result.FAILURE
    assert bench.cache.kept == [("lint", 0, False)]


def test_failure_before_a_flaky_retry_is_not_offered() -> None:
    """The cache would note that the stage failed, and keep no result of the attempt that passed."""
    known = Flakiness(first_attempts=9, flaky_attempts=3)
    stage = lanes.stage("lint", cached=True, flaky_retries=2, flakiness=known)
    bench = Bench(stage, found={"lint": miss_all()}, scripts={"lint": [Script(result=Result.FAILURE), Script()]})
    assert bench.run().result is Result.SUCCESS
    assert (bench.cache.kept, bench.cache.flushed) == ([("lint", 0, True)], ["lint"])


def test_exit_code_that_is_not_0_is_no_success_for_the_cache() -> None:
    bench = Bench(lanes.stage("lint", cached=True), found={"lint": miss_all()}, scripts={"lint": [Script(exit_code=5)]})
    bench.run()
    assert bench.cache.kept == [("lint", 0, False)]


def test_interrupt_does_not_wait_for_the_cache() -> None:
    bench = Bench(lanes.stage("lint", cached=True), found={})  # it never answers
    bench.inbox.at(1.0, lambda: bench.engine.interrupt("SIGINT", now=False))
    assert bench.run().result is Result.CANCELLATION
    assert bench.get_stage("lint").result is Result.SKIP


def test_answer_after_an_interrupt_is_ignored() -> None:
    bench = Bench(
        lanes.stage("lint", cached=True), lanes.stage("long", 3), found={"lint": hit_all()},
        scripts={"long": [Script(seconds=9.0, term_seconds=3.0)]}, seconds=2.0,
    )  # fmt: skip
    bench.inbox.at(1.0, lambda: bench.engine.interrupt("SIGINT", now=False))
    assert bench.run().result is Result.CANCELLATION
    assert bench.get_stage("lint").result is Result.SKIP


def test_attempt_that_ended_is_not_stopped_while_the_cache_keeps_its_result() -> None:
    scripts = {"lint": [Script(seconds=3.0, result=Result.FAILURE, message="exit 1")]}
    stage = lanes.stage("lint", cached=True, timeout_seconds=5.0)
    bench = Bench(stage, found={"lint": miss_all()}, scripts=scripts, seconds=30.0)
    bench.inbox.at(40.0, lambda: bench.engine.interrupt("SIGINT", now=True))
    assert lanes.stages_of(bench.run()) == {"lint": ("failure", "exit 1")}
    attempt = bench.workers.attempts[0]
    assert (attempt.stops, attempt.given_up) == ([], [])


def test_time_to_keep_the_results_of_a_stage_is_not_its_own() -> None:
    """Its outputs may take seconds to copy; its limit is critical, and would stop the lane."""
    stage = lanes.stage("build", cached=True, sla=lanes.limit(10, critical=True))
    scripts = {"build": [Script(seconds=7.0)]}
    bench = Bench(stage, lanes.stage("tests"), found={"build": miss_all()}, scripts=scripts, seconds=20.0)
    assert bench.run().result is Result.SUCCESS
    record = bench.get_stage("build")
    assert (record.duration_seconds, record.warned, record.broken) == (7.0, False, False)
    assert bench.recorder.of(SlaRecord) == []


def test_stage_that_does_not_ask_for_it_is_never_looked_up() -> None:
    bench = Bench(lanes.stage("lint"), found={})
    assert bench.run().result is Result.SUCCESS
    assert (bench.cache.asked, bench.cache.kept) == ([], [])


def test_cached_batch_has_its_items() -> None:
    batch = build_task(Commands(steps=(("x", ITEMS),)), 0, ["a", "b"])
    bench = Bench(replace(lanes.stage("lint", cached=True), tasks=(batch,)), found={"lint": hit_all()})
    bench.run()
    (record,) = bench.recorder.of(TaskRecord)
    assert [(each.item, each.result) for each in record.items] == [("a", Result.SUCCESS), ("b", Result.SUCCESS)]


def test_items_without_a_test_beside_cached_ones_fail_no_stage() -> None:
    """As of a file whose tests are all skipped at its import: only its own batch has exit code 5."""
    template = Commands(steps=(("x", ITEMS),))
    stage = replace(lanes.stage("unit", cached=True), template=template, tasks=(build_task(template, 0, ["a", "b"]),))
    found = StageLookup(hits={}, misses={0: MISS}, narrowed={0: ("b",)}, saved_seconds=1.0)
    empty = Script(exit_code=5, items=(ItemRecord(item="b", result=Result.SUCCESS, seconds=1.0),))
    bench = Bench(stage, found={"unit": found}, scripts={"unit": [empty]})
    assert lanes.stages_of(bench.run()) == {"unit": ("success", "")}
