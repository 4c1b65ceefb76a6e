"""Run a plan's stages as a graph on pools, and emit events.

Names are loaded when they are first used (PEP 562): `plan` and `--what-if` schedule runs without loading any pool.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paropt_exporter.engine.inbox import QueueInbox as QueueInbox
    from paropt_exporter.engine.interfaces import Admission as Admission
    from paropt_exporter.engine.interfaces import Demand as Demand
    from paropt_exporter.engine.interfaces import MachineShare as MachineShare
    from paropt_exporter.engine.interfaces import MachineUsage as MachineUsage
    from paropt_exporter.engine.interfaces import Observer as Observer
    from paropt_exporter.engine.interfaces import Observers as Observers
    from paropt_exporter.engine.interfaces import StageCounts as StageCounts
    from paropt_exporter.engine.interfaces import Stop as Stop
    from paropt_exporter.engine.run import TERM_GRACE_SECONDS as TERM_GRACE_SECONDS
    from paropt_exporter.engine.run import Run as Run
    from paropt_exporter.engine.workers import PoolWorkers as PoolWorkers
    from paropt_exporter.engine.workers import get_pool_names as get_pool_names

__all__ = [
    "TERM_GRACE_SECONDS",
    "Admission",
    "Demand",
    "MachineShare",
    "MachineUsage",
    "Observer",
    "Observers",
    "PoolWorkers",
    "QueueInbox",
    "Run",
    "StageCounts",
    "Stop",
    "get_pool_names",
]

_HOMES = {
    "Admission": "interfaces",
    "Demand": "interfaces",
    "MachineShare": "interfaces",
    "MachineUsage": "interfaces",
    "Observer": "interfaces",
    "Observers": "interfaces",
    "PoolWorkers": "workers",
    "QueueInbox": "inbox",
    "Run": "run",
    "StageCounts": "interfaces",
    "Stop": "interfaces",
    "TERM_GRACE_SECONDS": "run",
    "get_pool_names": "workers",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
