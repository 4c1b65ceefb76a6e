"""Defaults: the tuning guide's lanes docs, standard and heavy, and the numbers of workers that `auto` stands for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from paropt_exporter.config.lanes import DOCS, HEAVY, STANDARD
from paropt_exporter.config.units import MOST_WORKERS
from paropt_exporter.config.values import Lane, Sla, Workers
from paropt_exporter.events import Strategy

# Far more workers than cores speed up commands that wait, and 32 threads cost a few MB. Processes need memory each, and
# help only while cores are free.
_AUTO_MAX = 32
_AUTO_MAX_PER_CORE = 4
_AUTO_MAX_PROCESSES_PER_CORE = 2


def build_default_lanes() -> Mapping[str, Lane]:
    """Return the lanes docs, standard and heavy with the guide's strategies, workers and limits."""
    two, eight = Workers(min=2, max=2, start=2), Workers(min=8, max=8, start=8)
    return MappingProxyType(
        {
            DOCS: Lane(strategy=Strategy.THREAD, workers=two, sla=Sla(max=10), total=Sla(max=300), fail_fast=True),
            STANDARD: Lane(strategy=Strategy.ADAPTIVE, sla=Sla(max=30), total=Sla(max=900)),
            HEAVY: Lane(strategy=Strategy.PROCESS, workers=eight, sla=Sla(max=60), total=Sla(max=1200)),
        }
    )


def resolve_workers(workers: Workers, strategy: Strategy, cores: int) -> tuple[int, int, int]:
    """Return the minimum, the maximum and the starting number of workers. A sequential lane always has one."""
    if strategy is Strategy.SEQUENTIAL:
        return 1, 1, 1
    minimum = workers.min or 1
    maximum = workers.max or max(minimum, workers.start or 1, _choose_auto_maximum(strategy, cores))
    start = workers.start or min(max(cores, minimum), maximum)
    return minimum, maximum, start


def _choose_auto_maximum(strategy: Strategy, cores: int) -> int:
    if strategy is Strategy.PROCESS:
        return min(MOST_WORKERS, max(2, _AUTO_MAX_PROCESSES_PER_CORE * cores))
    return min(MOST_WORKERS, max(_AUTO_MAX, _AUTO_MAX_PER_CORE * cores))
