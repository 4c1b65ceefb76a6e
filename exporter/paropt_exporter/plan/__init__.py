"""What a run will do, decided before it starts: stages with their tasks, limits and order, free of any YAML."""

from paropt_exporter.plan.batches import KnownItems
from paropt_exporter.plan.building import NOTHING_TO_RUN, bounds, build, ordered
from paropt_exporter.plan.model import (
    COMMANDS,
    PROCESSES,
    THREADS,
    Bounds,
    Call,
    Commands,
    Plan,
    PlannedStage,
    PlannedTask,
    Work,
)

__all__ = [
    "COMMANDS",
    "NOTHING_TO_RUN",
    "PROCESSES",
    "THREADS",
    "Bounds",
    "Call",
    "Commands",
    "KnownItems",
    "Plan",
    "PlannedStage",
    "PlannedTask",
    "Work",
    "bounds",
    "build",
    "ordered",
]
