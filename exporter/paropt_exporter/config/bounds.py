"""Decide how many workers a lane may have from what its `workers` says and the machine has."""

from __future__ import annotations

from paropt_exporter.config.model import MOST_WORKERS, Workers
from paropt_exporter.events import Strategy

# Work that waits (commands, network) is sped up by far more workers than cores, so the ceiling must not stop the
# controller early; 32 threads cost a few MB. Processes hold memory each and help only while cores are free.
AUTO_MAX = 32
AUTO_MAX_PER_CORE = 4
AUTO_MAX_PROCESSES_PER_CORE = 2


def bounds(workers: Workers, strategy: Strategy, cores: int) -> tuple[int, int, int]:
    """Return the fewest, the most and the first number of workers; `sequential` has one, whatever is asked."""
    if strategy is Strategy.SEQUENTIAL:
        return 1, 1, 1
    minimum = workers.min or 1
    maximum = workers.max or max(minimum, workers.start or 1, _auto_maximum(strategy, cores))
    start = workers.start or min(max(cores, minimum), maximum)
    return minimum, maximum, start


def _auto_maximum(strategy: Strategy, cores: int) -> int:
    if strategy is Strategy.PROCESS:
        return min(MOST_WORKERS, max(2, AUTO_MAX_PROCESSES_PER_CORE * cores))
    return min(MOST_WORKERS, max(AUTO_MAX, AUTO_MAX_PER_CORE * cores))
