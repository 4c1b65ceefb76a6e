"""The state of one stage of a run: its tasks, attempts and record."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from paropt_exporter.engine.attempt import Attempt, Ready, compute_alone_seconds, compute_demand
from paropt_exporter.engine.flaky_attempts import FlakyAttempts
from paropt_exporter.engine.interfaces import CachedTask, StageCounts, StageLookup, UncachedTask
from paropt_exporter.engine.remaining_time import (
    DEADLINE_RATIO,
    count_workers_within,
    estimate_left_seconds,
    estimate_stage_remaining_seconds,
)
from paropt_exporter.errors import shorten
from paropt_exporter.events import CacheReason, ItemRecord, LiveStage, Result, Scope, StageRecord, TaskRecord
from paropt_exporter.plan import THREADS, PlannedStage, PlannedTask, start_up
from paropt_exporter.sla import Watch

_LONGEST_ITEM_CHARACTERS = 300  # of an item in a message
_LEAST_AGE_SECONDS = 1.0  # of an attempt before its cores are shown: its CPU time is measured about once a second
# The stage's result is the first of these that one of its tasks has.
_WORST_FIRST = (Result.ERROR, Result.TIMEOUT, Result.FAILURE, Result.CANCELLATION, Result.SUCCESS)


class Finals(Struct):
    """Sums of a stage's final records, since 100,000 records with their output would fill the memory."""

    count: int = 0
    cached: int = 0  # how many of them were skipped
    seconds: float = 0.0
    saved_seconds: float = 0.0
    fastest_seconds: float = 0.0
    slowest_seconds: float = 0.0
    counts: Counter[Result] = field(default_factory=Counter)
    without_tests: int = 0  # whole batches without a test; unless all are, this is not a failure
    first: dict[Result, str] = field(default_factory=dict)  # the message of the first task with each result

    @property
    def ran(self) -> int:
        return self.count - self.cached

    def add(self, record: TaskRecord, *, is_part: bool = False) -> None:
        """Add a final record. `is_part`: its batch lacked items that had succeeded in this run or an earlier one."""
        if record.cached:
            self.count += 1
            self.cached += 1
            self.counts[record.result] += 1
            self.saved_seconds += record.saved_seconds
            return
        took = record.duration_seconds
        self.fastest_seconds = min(self.fastest_seconds, took) if self.ran else took
        self.slowest_seconds = max(self.slowest_seconds, took)
        self.count += 1
        self.seconds += took
        self.counts[record.result] += 1
        self.without_tests += record.result is Result.SUCCESS and bool(record.exit_code) and not is_part
        if record.result is not Result.SUCCESS:
            self.first.setdefault(record.result, _format_message(record))

    def describe(self, result: Result, tasks: int) -> str:
        """Return the message of a stage of so many tasks with this result; "" if no task explains it."""
        first = self.first.get(result, "")
        if result.bad:
            failed = sum(count for each, count in self.counts.items() if each.bad)
            return f"{failed} of {tasks} tasks failed: {first}" if failed > 1 else first
        others = self.counts[result] - 1
        return f"{first} (and {others} more)" if first and others > 0 else first


def _format_message(record: TaskRecord) -> str:
    """Return the message of a task in one line that names it."""
    item, message = record.item, record.message
    named = message
    if item is not None and not _names_items(record):
        named = f"{shorten(item, _LONGEST_ITEM_CHARACTERS)}: {message}"
    return f"{named} (after {record.attempt} attempts)" if record.attempt > 1 else named


class StageState(Struct, eq=False):
    """One stage of a run.

    ```
    waiting --first task--> running --last attempt--> ended
       '--skipped, a fault in its plan, or cached results only--^
    task:  ready -> running -> ended          (failed, retries left: -> resting -> ready)
              '--cached result--^
    ```
    Guarantees: each task ends in exactly one final record; the stage ends once, when all of its tasks have.
    """

    plan: PlannedStage
    ready: deque[Ready] = field(default_factory=deque)
    attempts: list[Attempt] = field(default_factory=list)
    resting: int = 0
    startable_seconds: float = 0.0  # since when its needs have succeeded and the cache has answered
    finals: Finals = field(default_factory=Finals)
    attempts_ended: int = 0
    cpu_seconds: float = 0.0
    wanted_seconds: float = 0.0  # demands of ended attempts times `alone_seconds`
    alone_seconds: float = 0.0  # durations of ended attempts without their waits for a core
    busy_seconds: float = 0.0
    delay_seconds: float = 0.0
    fastest_seconds: float = 0.0
    memory_peak_bytes: int = 0
    task_peak_bytes: int = 0  # of tasks in separate processes
    started_seconds: float | None = None
    started_timestamp_seconds: float | None = None
    last_ended_seconds: float = 0.0
    watch: Watch | None = None
    record: StageRecord | None = None
    pool: str = ""
    gil_bound_seconds: float = 0.0  # the part of `busy_seconds` in which it computed in threads
    asked_cache: bool = False
    awaits_cache: bool = False  # whether it waits for the cache's answer
    misses: Mapping[int, UncachedTask] = field(default_factory=dict)
    cache_note: str = ""
    scope: Scope = Scope.ALL
    flaky: FlakyAttempts = field(default_factory=FlakyAttempts)
    quarantined: list[str] = field(default_factory=list)
    name: str = ""  # the plan's, as a plain attribute: in a large lane it is read a hundred times for each stage

    def __post_init__(self) -> None:
        self.name = self.plan.name
        self.pool = self.plan.pool
        self.scope = self.plan.scope

    @property
    def started(self) -> bool:
        return self.started_seconds is not None

    @property
    def ended(self) -> bool:
        return self.record is not None

    @property
    def is_done(self) -> bool:
        """Whether a started stage has no task left to run."""
        return self.started and not (self.ready or self.attempts or self.resting)

    @property
    def awaits_keeping(self) -> bool:
        """Whether all its tasks have ended, and it only waits until the cache has kept their results."""
        return bool(self.attempts) and not (
            self.ready or self.resting or any(attempt.outcome is None for attempt in self.attempts)
        )

    @property
    def unfinished(self) -> int:
        """The number of tasks without a final record."""
        return 0 if self.ended else len(self.plan.tasks) - self.finals.count

    @property
    def gil_bound(self) -> bool:
        """Whether its tasks mostly computed in threads, where the GIL lets only one compute at a time."""
        return self.gil_bound_seconds > self.busy_seconds / 2

    def add_record(self, record: TaskRecord, *, gil_bound: bool = False) -> None:
        """Add an ended attempt to the sums. `gil_bound`: whether its function computes in threads, as last measured."""
        self.attempts_ended += 1
        self.busy_seconds += record.duration_seconds
        self.gil_bound_seconds += record.duration_seconds if gil_bound else 0.0
        self.delay_seconds += record.run_delay_seconds
        if record.result is Result.SUCCESS:
            undelayed = max(0.0, record.duration_seconds - record.run_delay_seconds)
            self.fastest_seconds = min(self.fastest_seconds or undelayed, undelayed)
        self.cpu_seconds += record.cpu_seconds
        alone = compute_alone_seconds(record, gil_bound=gil_bound)
        self.alone_seconds += alone
        self.wanted_seconds += alone * compute_demand(record, gil_bound=gil_bound)
        self.memory_peak_bytes = max(self.memory_peak_bytes, record.memory_peak_bytes)
        if record.pool != THREADS:
            self.task_peak_bytes = max(self.task_peak_bytes, record.memory_peak_bytes)
        self.last_ended_seconds = max(self.last_ended_seconds, record.ended_seconds)
        if self.started_seconds is not None:
            self.started_seconds = min(self.started_seconds, record.started_seconds)
        self.flaky.add(record)
        if self.is_forgiven(record):
            self.quarantined.append(f"{record.item} ({self.plan.quarantine[record.item or '']})")
            record = replace(record, result=Result.SUCCESS, exit_code=None)
        if record.final:
            self.finals.add(record, is_part=0 < len(record.items) < len(self.plan.tasks[record.task].items))

    def is_forgiven(self, record: TaskRecord) -> bool:
        """Return whether a task's last attempt failed but does not fail the stage, since its item is in quarantine."""
        failed = record.result in (Result.FAILURE, Result.TIMEOUT)
        return record.final and failed and record.item in self.plan.quarantine

    def compute_result(self) -> Result:
        results = {*self.finals.counts}
        if self.count_not_run():
            results.add(Result.CANCELLATION)
        if results == {Result.SUCCESS} and self._without_tests():
            return Result.FAILURE
        return find_worst_result(results)

    def _without_tests(self) -> bool:
        """Whether the runner found no tests in any batch of the whole stage. Other shards may have found some."""
        is_part = self.plan.scope is Scope.ITEMS or self.plan.is_split
        return 0 < self.finals.count == self.finals.without_tests and not is_part

    def count_not_run(self) -> int:
        """Return how many tasks of a stopped stage did not end by themselves."""
        return len(self.plan.tasks) - self.finals.count

    def build_message(self) -> str:
        """Return the reason for a bad result in one line that names the task; "" for a success."""
        result = self.compute_result()
        if result is Result.SUCCESS:
            return ""
        if result is Result.FAILURE and self._without_tests():
            return f"none of its {self.finals.count} batches had a test"
        if result not in self.finals.first:
            return f"stopped with {self.count_not_run()} of {len(self.plan.tasks)} tasks not run"
        return self.finals.describe(result, len(self.plan.tasks))

    def build_record(self, run_id: str, lane: str) -> StageRecord:
        """Build the record of a stage that has ended."""
        # If a stage succeeds although an item failed, it proves none of its earlier failures flaky.
        proven = Result.FAILURE if self.quarantined else self.compute_result()
        flaky_attempts, flaky_items = self.flaky.conclude(self.plan, proven)
        self.record = StageRecord(
            run_id=run_id,
            lane=lane,
            stage=self.name,
            number=self.plan.number,
            result=self.compute_result(),
            message=self.build_message(),
            pool=self.pool,
            tasks=len(self.plan.tasks),
            tasks_failed=self.finals.count - self.finals.counts[Result.SUCCESS],
            duration_seconds=self.get_duration_seconds(),
            started_timestamp_seconds=self.started_timestamp_seconds,
            cpu_seconds=self.cpu_seconds,
            memory_peak_bytes=self.memory_peak_bytes,
            attempts=self.attempts_ended,
            fastest_task_seconds=self.finals.fastest_seconds,
            slowest_task_seconds=self.finals.slowest_seconds,
            gil_bound=self.gil_bound,
            sla=self.plan.sla,
            warned=self.watch is not None and self.watch.warned,
            broken=self.watch is not None and self.watch.broken,
            advice=self._build_advice(),
            scope=self.scope,
            tasks_cached=self.finals.cached,
            saved_seconds=self.finals.saved_seconds,
            cache_note=self.cache_note,
            first_attempts=self.flaky.first_attempts,
            flaky_attempts=flaky_attempts,
            flaky_items=flaky_items,
            quarantined=tuple(self.quarantined),
        )
        return self.record

    def apply_lookup(
        self, run_id: str, lane: str, found: StageLookup, *, now: float, now_timestamp: float
    ) -> list[TaskRecord]:
        """Skip the tasks whose earlier results hold, and let the others start. Return the records of the skipped ones.

        `now` is a monotonic moment, `now_timestamp` the same in wall time.
        """
        self.awaits_cache, self.misses, self.cache_note = False, found.misses, found.note
        self.startable_seconds = now
        if found.traces:
            self.plan = replace(self.plan, traced=True)
        if not found.hits and not found.narrowed:
            return []
        if self.scope is Scope.ALL:
            self.scope, self.plan = Scope.CACHED, replace(self.plan, sla=None)
        self.finals.saved_seconds += found.saved_seconds
        waiting, records = [*self.ready], []
        self.ready.clear()
        for ready in waiting:
            if (hit := found.hits.get(ready.task.index)) is not None:
                record = self._build_cached_record(run_id, lane, ready.task, hit, now=now, now_timestamp=now_timestamp)
                self.finals.add(record)
                records.append(record)
                continue
            left = found.narrowed.get(ready.task.index)
            self.ready.append(ready if left is None else replace(ready, task=self._keep_items(ready.task, left)))
        return records

    def narrow_task(self, task: PlannedTask, record: TaskRecord) -> PlannedTask:
        """Return the task of a retry: if the results of a batch's items are known, only those that did not succeed."""
        bad = tuple(each.item for each in record.items if each.result is not Result.SUCCESS)
        if self.plan.template is None or not bad or len(bad) == len(task.items):
            return task
        return self._keep_items(task, bad)

    def _keep_items(self, task: PlannedTask, items: tuple[str, ...]) -> PlannedTask:
        """Return a batch with only these of its items."""
        from paropt_exporter.plan.batches import build_task  # here: few stages have batches

        assert self.plan.template is not None
        return build_task(self.plan.template, task.index, items, task.apart)

    def _build_cached_record(
        self, run_id: str, lane: str, task: PlannedTask, hit: CachedTask, *, now: float, now_timestamp: float
    ) -> TaskRecord:
        """Build the record of a task that is skipped."""
        return TaskRecord(
            run_id=run_id,
            lane=lane,
            stage=self.name,
            task=task.index,
            item=task.item,
            attempt=1,
            final=True,
            result=Result.SUCCESS,
            message="",
            pool=self.pool,
            worker="",
            ready_seconds=now,
            started_seconds=now,
            ended_seconds=now,
            started_timestamp_seconds=now_timestamp,
            output=hit.output,
            items=tuple(ItemRecord(item=item, result=Result.SUCCESS, seconds=None) for item in task.items),
            scope=Scope.CACHED,
            cache=CacheReason.UNCHANGED,
            saved_seconds=hit.seconds,
        )

    def _build_advice(self) -> str:
        program, ended = start_up.find_repeated_program(self.plan), self.finals
        mean = ended.seconds / max(1, ended.ran)
        part = start_up.estimate_start_up_ratio(
            fastest_seconds=ended.fastest_seconds, mean_seconds=mean, tasks=ended.ran
        )
        return start_up.format_advice(self.name, program, part) if program and part else ""

    def get_duration_seconds(self) -> float:
        return max(0.0, self.last_ended_seconds - self.started_seconds) if self.started_seconds is not None else 0.0

    def close(self, run_id: str, lane: str, result: Result, why: str) -> StageRecord:
        """End a stage that never started: it was skipped, has an error in its plan, or has only cached results."""
        self.ready.clear()
        self.record = StageRecord(
            run_id=run_id,
            lane=lane,
            stage=self.name,
            number=self.plan.number,
            result=result,
            message=why,
            pool=self.pool,
            tasks=len(self.plan.tasks),
            tasks_failed=0,
            duration_seconds=0.0,
            started_timestamp_seconds=None,
            sla=self.plan.sla,
            scope=self.scope,
            tasks_cached=self.finals.cached,
            saved_seconds=self.finals.saved_seconds,
        )
        return self.record

    def estimate_task_seconds(self) -> float | None:
        """Return how long one task takes, by the tasks that have ended in this run, otherwise by earlier runs."""
        if self.finals.ran:
            return self.finals.seconds / self.finals.ran
        return self.plan.expected_seconds if len(self.plan.tasks) == 1 else self.plan.expected_task_seconds

    def build_counts(self, now: float) -> StageCounts:
        """Return the counts of tasks and their times, for the controller."""
        ages = self.get_task_ages(now)
        return StageCounts(
            stage=self.name,
            running=len(ages),
            waiting=len(self.ready),
            busy_seconds=self.busy_seconds + sum(ages),
            delay_seconds=self.delay_seconds,
            ended=self.attempts_ended,
            fastest_seconds=self.fastest_seconds,
        )

    def estimate_work_seconds(self, now: float) -> float:
        """Return the remaining work in seconds of one slot; unknown work counts as none."""
        task_seconds = self.estimate_task_seconds()
        if task_seconds is None:
            return 0.0
        ages = self.get_task_ages(now)
        waiting = max(0, self.unfinished - len(ages))
        seconds = sum(estimate_left_seconds(task_seconds, age) for age in ages) + waiting * task_seconds
        return seconds * self.plan.slots

    def estimate_longest_task_seconds(self, now: float) -> float:
        """Return how long at least the last task will still run, with any number of workers."""
        task_seconds = self.estimate_task_seconds()
        if task_seconds is None or not self.unfinished:
            return 0.0
        ages = self.get_task_ages(now)
        if self.unfinished > len(ages):
            return task_seconds
        return max(estimate_left_seconds(task_seconds, age) for age in ages)

    def count_missing_workers(self, now: float) -> int | None:
        """Return how many more workers than now keep the stage within its limit; negative: so many fewer do.

        None: one worker does, none suffice, or it is unknown. If there is time, a part of it is for errors.
        """
        task_seconds, ages = self.estimate_task_seconds(), self.get_task_ages(now)
        waiting = max(0, self.unfinished - len(ages))
        if task_seconds is None or self.plan.sla is None or self.started_seconds is None or not waiting:
            return None
        left_seconds = self.started_seconds + self.plan.sla.max_seconds - now
        for seconds in (DEADLINE_RATIO * left_seconds, left_seconds):
            workers = count_workers_within(seconds, task_seconds, ages, waiting)
            if workers is not None:
                return workers - len(ages) if workers > 1 else None
        return None

    def get_task_ages(self, now: float) -> tuple[float, ...]:
        return tuple(max(0.0, now - attempt.started_seconds) for attempt in tuple(self.attempts))

    def estimate_remaining_seconds(self, now: float) -> float | None:
        """Return how long the stage will still run from the monotonic moment `now`; None: unknown."""
        ages = self.get_task_ages(now)
        return estimate_stage_remaining_seconds(
            expected_seconds=self.plan.expected_seconds,
            elapsed_seconds=self.get_elapsed_seconds(now),
            task_seconds=self.estimate_task_seconds(),
            ages_seconds=ages,
            waiting=max(0, self.unfinished - len(ages)),
        )

    def get_elapsed_seconds(self, now: float) -> float:
        """Return how long the stage has run at the monotonic moment `now`."""
        return max(0.0, now - self.started_seconds) if self.started_seconds is not None else 0.0

    def build_live_stage(self, lane: str, usage: dict[str, tuple[float, int]], *, now: float) -> LiveStage:
        """Return the running stage; `usage` has CPU seconds and memory by the label of running attempts."""
        elapsed, remaining = self.get_elapsed_seconds(now), self.estimate_remaining_seconds(now)
        attempts = tuple(self.attempts)
        used = [usage.get(attempt.running.label, (0.0, 0)) for attempt in attempts]
        ages = [max(now - attempt.started_seconds, _LEAST_AGE_SECONDS) for attempt in attempts]
        return LiveStage(
            lane=lane,
            stage=self.name,
            tasks=len(self.plan.tasks),
            tasks_ended=self.finals.count,
            started_timestamp_seconds=self.started_timestamp_seconds or 0.0,
            cpu_seconds=sum(cpu for cpu, _ in used),
            memory_bytes=sum(memory for _, memory in used),
            tasks_running=len(attempts),
            sla=self.plan.sla,
            predicted_seconds=None if remaining is None else elapsed + remaining,
            elapsed_seconds=elapsed,
            cores=sum(cpu / age for (cpu, _), age in zip(used, ages, strict=True)),
        )


def _names_items(record: TaskRecord) -> bool:
    """Return whether the message of a failed batch names its failed items, since its runner reported them."""
    return record.start_up_seconds is not None and len(record.items) > 1


def find_worst_result(results: Iterable[Result]) -> Result:
    """Return the result of a stage or batch whose parts have these results; SUCCESS without parts."""
    found = frozenset(results)
    return next((result for result in _WORST_FIRST if result in found), Result.SUCCESS)
