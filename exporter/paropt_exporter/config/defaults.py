"""The lanes that exist without being written down: the tuning guide's docs, standard and heavy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from paropt_exporter.config.model import MOST_WORKERS, Lane, Sla, Workers
from paropt_exporter.events import Strategy


def build_default_lanes() -> Mapping[str, Lane]:
    """Return docs, standard and heavy: strategies, workers, stage limits and totals as the guide has them."""
    two, eight = Workers(min=2, max=2, start=2), Workers(min=8, max=8, start=8)
    return MappingProxyType(
        {
            "docs": Lane(strategy=Strategy.THREAD, workers=two, sla=Sla(max=10), total=Sla(max=300), fail_fast=True),
            "standard": Lane(strategy=Strategy.ADAPTIVE, sla=Sla(max=30), total=Sla(max=900)),
            "heavy": Lane(strategy=Strategy.PROCESS, workers=eight, sla=Sla(max=60), total=Sla(max=1200)),
        }
    )


# Work that waits (commands, network) is sped up by far more workers than cores, so the ceiling must not stop the
# controller early; 32 threads cost a few MB. Processes hold memory each and help only while cores are free.
AUTO_MAX = 32
AUTO_MAX_PER_CORE = 4
AUTO_MAX_PROCESSES_PER_CORE = 2


def resolve_workers(workers: Workers, strategy: Strategy, cores: int) -> tuple[int, int, int]:
    """Return the fewest, the most and the first number of workers; `sequential` has one, whatever is asked."""
    if strategy is Strategy.SEQUENTIAL:
        return 1, 1, 1
    minimum = workers.min or 1
    maximum = workers.max or max(minimum, workers.start or 1, _choose_auto_maximum(strategy, cores))
    start = workers.start or min(max(cores, minimum), maximum)
    return minimum, maximum, start


def _choose_auto_maximum(strategy: Strategy, cores: int) -> int:
    if strategy is Strategy.PROCESS:
        return min(MOST_WORKERS, max(2, AUTO_MAX_PROCESSES_PER_CORE * cores))
    return min(MOST_WORKERS, max(AUTO_MAX, AUTO_MAX_PER_CORE * cores))
