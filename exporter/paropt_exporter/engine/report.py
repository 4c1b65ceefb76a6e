"""Sum a run up in its record."""

from __future__ import annotations

from collections.abc import Sequence

from paropt_exporter.engine import bottlenecks
from paropt_exporter.engine.interfaces import Stop
from paropt_exporter.events import PoolUse, Result, RunRecord, StageRecord, TaskTiming
from paropt_exporter.plan import Plan
from paropt_exporter.sla import Watch


def verdict(plan: Plan, stages: Sequence[StageRecord], stopping: Stop | None, *, critical: bool) -> tuple[Result, str]:
    """Return the result of a run and why: a critical limit before the user's wish before failed stages.

    A run is a success only if each stage of its plan is one, or was planned to be skipped.
    """
    if stopping is not None and critical:
        return Result.FAILURE, stopping.reason
    if stopping is not None and stopping.interrupted:
        return Result.CANCELLATION, stopping.reason
    if bad := [stage.stage for stage in stages if stage.result.bad]:
        return Result.FAILURE, f"{', '.join(bad)} failed"
    succeeded = {stage.stage for stage in stages if stage.result is Result.SUCCESS}
    missing = [stage.name for stage in plan.stages if not stage.skip and stage.name not in succeeded]
    return (Result.FAILURE, f"{', '.join(missing)} did not succeed") if missing else (Result.SUCCESS, "")


def of_run(
    plan: Plan,
    run_id: str,
    stages: tuple[StageRecord, ...],
    *,
    result: Result,
    reason: str,
    duration_seconds: float,
    started_timestamp_seconds: float,
    sequential_seconds: float,
    total: Watch | None,
    critical: bool,
    interrupted: bool,
    queued: bool,
    pools: tuple[PoolUse, ...],
    abandoned: tuple[str, ...],
    timings: Sequence[TaskTiming],
    cores: float,
    memory_bytes: int,
) -> RunRecord:
    """Return the record of a run that has ended; `queued`: whether any task had to wait for a slot.

    `timings`: its tasks, to try advice on; none for a run that was cut short.
    """
    busy = busy_ratio(pools)
    found = bottlenecks.find(stages, busy_ratio=busy, queued=queued)
    recorded = bottlenecks.RecordedRun(
        plan=plan,
        timings=timings,
        duration_seconds=duration_seconds,
        peak_size=max((pool.peak_size for pool in pools), default=0),
        cores=cores,
        memory_bytes=memory_bytes,
    )
    return RunRecord(
        run_id=run_id,
        lane=plan.lane,
        strategy=plan.strategy,
        result=result,
        reason=reason,
        duration_seconds=duration_seconds,
        started_timestamp_seconds=started_timestamp_seconds,
        ended_timestamp_seconds=started_timestamp_seconds + duration_seconds,
        stages=stages,
        sequential_seconds=sequential_seconds,
        busy_ratio=busy,
        total=plan.total,
        warned=total is not None and total.warned,
        broken=total is not None and total.broken,
        critical_sla=critical,
        interrupted=interrupted,
        bottlenecks=bottlenecks.advise(found, recorded),
        pools=pools,
        abandoned=abandoned,
        partial=plan.partial,
    )


def busy_ratio(pools: Sequence[PoolUse]) -> float:
    """Return busy over available worker time of the pools together."""
    slot_seconds = sum(pool.slot_seconds for pool in pools)
    return min(1.0, sum(pool.busy_seconds for pool in pools) / slot_seconds) if slot_seconds else 0.0
