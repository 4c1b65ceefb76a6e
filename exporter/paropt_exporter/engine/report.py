"""Build the record of a run that has ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paropt_exporter.engine.bottlenecks import RecordedRun, add_advice, find_bottlenecks
from paropt_exporter.engine.interfaces import Stop
from paropt_exporter.events import PoolUse, Result, RunRecord, StageRecord
from paropt_exporter.plan import Plan
from paropt_exporter.sla import Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run came to its end.

    `stopping`: the request that stopped it (None: it ran to its end); `critical`: whether it broke a critical limit;
    `total`: the lane's limit; `queued`: whether any task waited for a slot; `abandoned`: calls that still run.
    """

    stopping: Stop | None
    critical: bool
    total: Watch | None
    queued: bool
    abandoned: tuple[str, ...]

    @property
    def interrupted(self) -> bool:
        """Whether the user ended the run."""
        return self.stopping is not None and self.stopping.interrupted


def build_run_record(
    run_id: str,
    recorded: RecordedRun,
    stages: tuple[StageRecord, ...],
    pools: tuple[PoolUse, ...],
    end: RunEnd,
    *,
    started_timestamp_seconds: float,
    sequential_seconds: float,
) -> RunRecord:
    """Return the record of a run, with its bottlenecks and advice from `recorded` (none without timings)."""
    plan, busy_ratio = recorded.plan, compute_busy_ratio(pools)
    result, reason = decide_result(plan, stages, end)
    found = find_bottlenecks(stages, busy_ratio=busy_ratio, queued=end.queued)
    return RunRecord(
        run_id=run_id,
        lane=plan.lane,
        strategy=plan.strategy,
        result=result,
        reason=reason,
        duration_seconds=recorded.duration_seconds,
        started_timestamp_seconds=started_timestamp_seconds,
        ended_timestamp_seconds=started_timestamp_seconds + recorded.duration_seconds,
        stages=stages,
        sequential_seconds=sequential_seconds,
        busy_ratio=busy_ratio,
        total=plan.total,
        warned=end.total is not None and end.total.warned,
        broken=end.total is not None and end.total.broken,
        critical_sla=end.critical,
        interrupted=end.interrupted,
        bottlenecks=add_advice(found, recorded),
        pools=pools,
        abandoned=end.abandoned,
        partial=plan.partial,
    )


def decide_result(plan: Plan, stages: Sequence[StageRecord], end: RunEnd) -> tuple[Result, str]:
    """Return the result of a run and the reason: a critical limit first, then the user's wish, then failed stages.

    A run succeeds only if each stage of its plan has succeeded or was planned to be skipped.
    """
    if end.stopping is not None and end.critical:
        return Result.FAILURE, end.stopping.reason
    if end.stopping is not None and end.interrupted:
        return Result.CANCELLATION, end.stopping.reason
    if bad := [stage.stage for stage in stages if stage.result.bad]:
        return Result.FAILURE, f"{', '.join(bad)} failed"
    succeeded = {stage.stage for stage in stages if stage.result is Result.SUCCESS}
    missing = [stage.name for stage in plan.stages if not stage.skip and stage.name not in succeeded]
    return (Result.FAILURE, f"{', '.join(missing)} did not succeed") if missing else (Result.SUCCESS, "")


def compute_busy_ratio(pools: Sequence[PoolUse]) -> float:
    """Return busy over available worker time of the pools together."""
    slot_seconds = sum(pool.slot_seconds for pool in pools)
    return min(1.0, sum(pool.busy_seconds for pool in pools) / slot_seconds) if slot_seconds else 0.0
