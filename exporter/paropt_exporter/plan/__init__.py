"""Build the plan of a run before it starts: stages with their tasks, limits and order."""

from paropt_exporter.executors.base import COMMANDS, DASK, PROCESSES, THREADS
from paropt_exporter.plan.building import NOTHING_TO_RUN, build_plan, choose_stages, parse_bounds, require_lane
from paropt_exporter.plan.flakiness import Flakiness, OpenFailures
from paropt_exporter.plan.selection import Selection
from paropt_exporter.plan.stage_builder import choose_pool, is_cached
from paropt_exporter.plan.stage_graph import order_stages
from paropt_exporter.plan.structure import (
    Bounds,
    Call,
    Commands,
    KnownItems,
    Plan,
    PlannedStage,
    PlannedTask,
    Split,
    Work,
)

__all__ = [
    "COMMANDS",
    "DASK",
    "NOTHING_TO_RUN",
    "PROCESSES",
    "THREADS",
    "Bounds",
    "Call",
    "Commands",
    "Flakiness",
    "KnownItems",
    "OpenFailures",
    "Plan",
    "PlannedStage",
    "PlannedTask",
    "Selection",
    "Split",
    "Work",
    "build_plan",
    "choose_pool",
    "choose_stages",
    "is_cached",
    "order_stages",
    "parse_bounds",
    "require_lane",
]
