"""The label sets that a config makes known, so that their series stand at 0 from the start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from paropt_exporter import families
from paropt_exporter.events import SlaLimit
from paropt_exporter.families import Family

_LANE = (
    families.RUNS,
    families.RUN_DURATION,
    families.RUN_IN_PROGRESS,
    families.LANE_BOTTLENECK,
)
_LANE_WITH_LIMIT = (
    families.LANE_SLA_CHECKS,
    families.LANE_SLA_WARNINGS,
    families.LANE_SLA_VIOLATIONS,
    families.LANE_SLA_BREACHED,
)
_STAGE = (
    families.STAGE_DURATION,
    families.STAGE_LAST_RESULT,
    families.STAGE_RUNS,
    families.STAGE_RUNNING,
    families.STAGE_PROGRESS,
    families.STAGE_CPU,
    families.TASK_DURATION,
    families.TASK_QUEUE_WAIT,
    families.TASK_ATTEMPTS,
    families.BOTTLENECK,
)
_STAGE_WITH_LIMIT = (
    families.SLA_CHECKS,
    families.SLA_WARNINGS,
    families.SLA_VIOLATIONS,
    families.SLA_BREACHED,
)

CONSTANTS = frozenset(
    {
        families.RUN_INTERVAL,
        families.LANE_SLA_LIMIT,
        families.LANE_SLA_WARNING,
        families.STAGE_INFO,
        families.SLA_LIMIT,
        families.SLA_WARNING,
    }
)
# A lane or stage that loses its limit loses these.
DECIDED_BY_CONFIG = CONSTANTS | {*_LANE_WITH_LIMIT, *_STAGE_WITH_LIMIT}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLabels:
    """A stage as the config has it; `pool` is where its tasks run."""

    name: str
    number: int
    pool: str
    sla: SlaLimit | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneLabels:
    """A lane with its stages. `total`: the limit on the whole run; `interval_seconds`: of `--every`."""

    lane: str
    stages: tuple[StageLabels, ...]
    total: SlaLimit | None = None
    interval_seconds: float | None = None


def zeros(lanes: Iterable[LaneLabels]) -> Iterator[tuple[Family, tuple[str, ...]]]:
    """Yield every counter, histogram and 0/1 gauge that the lanes make known.

    SLA families are there for stages and lanes that have a limit: without one nothing is ever checked.
    """
    for lane in lanes:
        yield from _product(_LANE, (lane.lane,))
        if lane.total is not None:
            yield from _product(_LANE_WITH_LIMIT, (lane.lane,))
        for stage in lane.stages:
            yield from _product(_STAGE, (lane.lane, stage.name))
            if stage.sla is not None:
                yield from _product(_STAGE_WITH_LIMIT, (lane.lane, stage.name))


def zeros_of_pools(pools: Iterable[str]) -> Iterator[tuple[Family, tuple[str, ...]]]:
    """Yield every counter of events that a pool makes known: an action with the reasons that it may have."""
    for pool in pools:
        for action, reasons in families.DECISION_REASONS.items():
            for reason in reasons:
                yield families.CONTROL_DECISIONS, (pool, action, reason)


def constants(lanes: Iterable[LaneLabels]) -> Iterator[tuple[Family, tuple[str, ...], float]]:
    """Yield the gauges that only the config decides."""
    for lane in lanes:
        if lane.interval_seconds is not None:
            yield families.RUN_INTERVAL, (lane.lane,), lane.interval_seconds
        if lane.total is not None:
            yield families.LANE_SLA_LIMIT, (lane.lane,), lane.total.max_seconds
            yield families.LANE_SLA_WARNING, (lane.lane,), lane.total.warn_seconds
        for stage in lane.stages:
            place = (lane.lane, stage.name)
            yield families.STAGE_INFO, (*place, str(stage.number), stage.pool), 1.0
            if stage.sla is not None:
                yield families.SLA_LIMIT, place, stage.sla.max_seconds
                yield families.SLA_WARNING, place, stage.sla.warn_seconds


def _product(chosen: Sequence[Family], place: tuple[str, ...]) -> Iterator[tuple[Family, tuple[str, ...]]]:
    """Yield each family at a place, once for each value of its closed labels, which come last."""
    for family in chosen:
        for values in product(*families.CLOSED_VALUES.get(family, {}).values()):
            yield family, (*place, *values)
