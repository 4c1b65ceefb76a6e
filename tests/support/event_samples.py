"""Complete sample events: a test overrides only the fields that matter to it."""

from __future__ import annotations

from paropt_exporter.events import (
    Bottleneck,
    Result,
    RunRecord,
    RunStarted,
    SlaLimit,
    SlaRecord,
    StageRecord,
    StageStarted,
    Strategy,
    TaskRecord,
)

START = 1_700_000_000.0
LIMIT = SlaLimit(max_seconds=30.0, warn_seconds=24.0)
CRITICAL = SlaLimit(max_seconds=30.0, warn_seconds=24.0, critical=True)


def run_started(
    run_id: str = "r1", *, lane: str = "standard", stages: tuple[str, ...] = ("lint", "unit"), at: float = START
) -> RunStarted:
    return RunStarted(
        run_id=run_id,
        lane=lane,
        strategy=Strategy.ADAPTIVE,
        started_seconds=0.0,
        started_timestamp_seconds=at,
        stages=stages,
    )


def stage_started(
    stage: str = "lint",
    run_id: str = "r1",
    *,
    lane: str = "standard",
    tasks: int = 1,
    sla: SlaLimit | None = LIMIT,
    at: float = START,
) -> StageStarted:
    return StageStarted(
        run_id=run_id,
        lane=lane,
        stage=stage,
        number=2,
        pool="commands",
        tasks=tasks,
        started_seconds=0.0,
        started_timestamp_seconds=at,
        sla=sla,
    )


def task(
    stage: str = "lint",
    run_id: str = "r1",
    *,
    lane: str = "standard",
    number: int = 0,
    attempt: int = 1,
    final: bool = True,
    result: Result = Result.SUCCESS,
    seconds: float = 2.0,
    waited: float = 0.2,
    cpu: float = 1.5,
    output: str = "",
) -> TaskRecord:
    return TaskRecord(
        run_id=run_id,
        lane=lane,
        stage=stage,
        task=number,
        item=None,
        attempt=attempt,
        final=final,
        result=result,
        message="",
        pool="commands",
        worker="commands-1",
        ready_seconds=0.0,
        started_seconds=waited,
        ended_seconds=waited + seconds,
        started_timestamp_seconds=START,
        cpu_seconds=cpu,
        output=output,
    )


def limit_reached(
    stage: str | None = "lint",
    run_id: str = "r1",
    *,
    broken: bool,
    limit: SlaLimit = LIMIT,
    lane: str = "standard",
) -> SlaRecord:
    return SlaRecord(
        run_id=run_id,
        lane=lane,
        stage=stage,
        limit=limit,
        broken=broken,
        elapsed_seconds=limit.max_seconds if broken else limit.warn_seconds,
        at_timestamp_seconds=START,
    )


def stage_ended(
    stage: str = "lint",
    run_id: str = "r1",
    *,
    lane: str = "standard",
    number: int = 2,
    result: Result = Result.SUCCESS,
    seconds: float = 2.0,
    memory: int = 50_000_000,
    sla: SlaLimit | None = LIMIT,
    broken: bool = False,
    at: float = START,
) -> StageRecord:
    return StageRecord(
        run_id=run_id,
        lane=lane,
        stage=stage,
        number=number,
        result=result,
        message="",
        pool="commands",
        tasks=1,
        tasks_failed=0,
        duration_seconds=seconds,
        started_timestamp_seconds=None if result is Result.SKIP else at,
        memory_peak_bytes=memory,
        sla=sla,
        warned=broken,
        broken=broken,
    )


def run_ended(
    run_id: str = "r1",
    *,
    lane: str = "standard",
    result: Result = Result.SUCCESS,
    seconds: float = 4.0,
    stages: tuple[StageRecord, ...] = (),
    total: SlaLimit | None = LIMIT,
    broken: bool = False,
    bottlenecks: tuple[Bottleneck, ...] = (),
    at: float = START,
) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        lane=lane,
        strategy=Strategy.ADAPTIVE,
        result=result,
        reason="",
        duration_seconds=seconds,
        started_timestamp_seconds=at,
        ended_timestamp_seconds=at + seconds,
        stages=stages,
        sequential_seconds=2 * seconds,
        busy_ratio=0.5,
        total=total,
        warned=broken,
        broken=broken,
        bottlenecks=bottlenecks,
    )


class StillClock:
    """A clock that moves only on request; unlike `paropt_exporter.testing`'s, it does not import the engine."""

    def __init__(self) -> None:
        self.now_seconds = 0.0

    def monotonic(self) -> float:
        return self.now_seconds

    def wall(self) -> float:
        return START + self.now_seconds

    def advance(self, seconds: float) -> None:
        self.now_seconds += seconds
