"""Sum up the tasks of a whole stage, to predict a lane's duration before its run."""

from __future__ import annotations

from msgspec import Struct

from paropt_exporter.cpu_demand import UNKNOWN_DEMAND, WAITING_DEMAND
from paropt_exporter.plan.structure import Plan, PlannedStage


class StageLoad(Struct, frozen=True, kw_only=True):
    """A stage's duration in seconds, how many of its tasks run at once meanwhile on average, and the cores they want.

    `task_cores`: the cores that one of them wants.
    """

    seconds: float
    at_once: float
    cores: float
    task_cores: float


def sum_up_stage(stage: PlannedStage, seconds: float) -> StageLoad:
    """Return the load of a stage that takes `seconds`, by the mean duration and the CPU demand of its tasks."""
    at_once, demand = _count_at_once(stage, seconds), stage.expected_cpu_demand
    wanted = UNKNOWN_DEMAND if demand is None else demand
    # any number of tasks that wait runs beside those that compute
    cores = wanted if wanted < WAITING_DEMAND else at_once * wanted
    return StageLoad(seconds=seconds, at_once=at_once, cores=cores, task_cores=wanted)


def count_usable_workers(plan: Plan) -> int:
    """Return how many tasks of a lane may run at once: its maximum if only cores bound its size, or its start size."""
    return plan.workers.start if plan.cores is None else plan.workers.maximum


def _count_at_once(stage: PlannedStage, seconds: float) -> float:
    if len(stage.tasks) < 2 or not stage.expected_task_seconds or seconds <= 0:
        return 1.0
    return min(len(stage.tasks), max(1.0, len(stage.tasks) * stage.expected_task_seconds / seconds))
