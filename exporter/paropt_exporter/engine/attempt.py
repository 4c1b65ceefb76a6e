"""One attempt of a task: its verdict, its outcome, the record of its end, and the cores that it wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from paropt_exporter.cpu_demand import CoreTime, call_cpu_demand, compute_undelayed_seconds, task_cpu_demand
from paropt_exporter.engine.interfaces import KeptResult, RunningAttempt
from paropt_exporter.errors import shorten
from paropt_exporter.events import ItemRecord, Result, TaskRecord, TaskTiming
from paropt_exporter.plan import CALL_POOLS, THREADS, PlannedTask

if TYPE_CHECKING:
    from paropt_exporter.engine.outcome import Outcome
    from paropt_exporter.engine.stage import StageState


class Ready(Struct, frozen=True, kw_only=True):
    """A task that may run as soon as there is room, since `ready_seconds`, or since its stage is startable if that is
    later; `attempt` counts from 1.
    """

    task: PlannedTask
    attempt: int
    ready_seconds: float


class Attempt(Struct, eq=False, weakref=True):
    """One attempt in progress. `verdict`: the result and message of an attempt that the run has stopped."""

    stage: StageState
    task: PlannedTask
    number: int
    ready_seconds: float
    submitted_seconds: float
    running: RunningAttempt
    verdict: tuple[Result, str] | None = None
    outcome: Outcome | None = None  # once it has been read

    def read_outcome(self) -> Outcome:
        """Return the outcome of an ended attempt, which is read once."""
        if self.outcome is None:
            self.outcome = self.running.outcome()
        return self.outcome

    def set_verdict(self, result: Result, message: str) -> None:
        """Note why the run stops the attempt, unless it was stopped before or has ended and waits for the cache."""
        if self.verdict is None and self.outcome is None:
            self.verdict = (result, message)

    @property
    def started_seconds(self) -> float:
        return self.running.started_seconds or self.submitted_seconds

    def build_kept_result(self, now: float) -> KeptResult:
        """Build the result for the cache from an attempt that has ended at the monotonic moment `now`."""
        outcome = self.read_outcome()
        return KeptResult(
            succeeded=outcome.result is Result.SUCCESS and not outcome.exit_code,
            output=outcome.output,
            seconds=now - self.started_seconds,
            item_seconds={each.item: each.seconds for each in outcome.items if each.seconds is not None},
            trace=outcome.trace,
        )

    def build_record(self, run_id: str, lane: str, *, may_retry: bool, now: float, now_timestamp: float) -> TaskRecord:
        """Build the record of an ended attempt. A timeout or a cancellation overrides the exit status."""
        outcome = self.read_outcome()
        measured, missed = outcome.measurement, self.stage.misses.get(self.task.index)
        started = measured.started_seconds if measured else self.started_seconds
        result, message = outcome.result, outcome.message
        if self.verdict is not None and result is not Result.SUCCESS:
            result, message = self.verdict
        return TaskRecord(
            run_id=run_id,
            lane=lane,
            stage=self.stage.name,
            task=self.task.index,
            item=self.task.item,
            attempt=self.number,
            final=not (may_retry and result.bad),
            result=result,
            message=shorten(message),
            pool=self.running.pool,
            worker=measured.worker if measured else "",
            ready_seconds=self.ready_seconds,
            started_seconds=started,
            ended_seconds=measured.ended_seconds if measured else now,
            started_timestamp_seconds=now_timestamp - (now - started),
            cpu_seconds=measured.cpu_seconds if measured else 0.0,
            run_delay_seconds=measured.run_delay_seconds if measured else 0.0,
            memory_peak_bytes=measured.memory_peak_bytes if measured else 0,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            output=outcome.output,
            output_path=outcome.output_path,
            items=_list_item_records(self.task, outcome, result),
            start_up_seconds=outcome.start_up_seconds,
            cut_items=frozenset(part.partition("::")[0] for part in self.task.apart),
            scope=self.stage.scope,
            cache=missed.reason if missed is not None else None,
            cache_note=missed.note if missed is not None else "",
        )


def compute_demand(record: TaskRecord, *, gil_bound: bool) -> float:
    """Return the CPU demand of an attempt in cores.

    In threads no clock shows the wait for the GIL, so work that only computes counts as one core.
    """
    time = CoreTime(record.cpu_seconds, record.run_delay_seconds)
    if gil_bound and record.pool == THREADS:
        return 1.0
    compute = call_cpu_demand if record.pool in CALL_POOLS else task_cpu_demand
    return compute(time, record.duration_seconds)


def compute_alone_seconds(record: TaskRecord, *, gil_bound: bool) -> float:
    """Return how long an attempt would have taken with the machine to itself, without its wait for a core.

    In threads no delay shows the wait for the GIL, so work that only computes would have taken its CPU time.
    """
    if gil_bound and record.pool == THREADS:
        return min(record.cpu_seconds, record.duration_seconds)
    return compute_undelayed_seconds(CoreTime(record.cpu_seconds, record.run_delay_seconds), record.duration_seconds)


def build_timing(record: TaskRecord) -> TaskTiming:
    """Return when an attempt ran and how much CPU time it used."""
    return TaskTiming(
        stage=record.stage,
        task=record.task,
        started_seconds=record.started_seconds,
        duration_seconds=record.duration_seconds,
        cpu_seconds=record.cpu_seconds,
        run_delay_seconds=record.run_delay_seconds,
    )


def _list_item_records(task: PlannedTask, outcome: Outcome, result: Result) -> tuple[ItemRecord, ...]:
    """Return the records of a batch's items; `result` is the attempt's, which items share unless a report has their
    own.

    It differs from the outcome's if the run has stopped the attempt.
    """
    if outcome.start_up_seconds is not None:
        return outcome.items
    if not outcome.items:  # the attempt was not started
        return tuple(ItemRecord(item=item, result=result, seconds=None) for item in task.items)
    return tuple(replace(each, result=result) for each in outcome.items)
