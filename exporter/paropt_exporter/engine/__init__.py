"""Run a plan's stages as a graph on pools, and emit events.

Names are loaded when they are first used (PEP 562): `plan` and `--what-if` schedule runs without loading any pool.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paropt_exporter.engine.inbox import QueueInbox
    from paropt_exporter.engine.interfaces import (
        Admission,
        Demand,
        MachineShare,
        MachineUsage,
        Observer,
        Observers,
        StageCounts,
        Stop,
    )
    from paropt_exporter.engine.run import TERM_GRACE_SECONDS, Run
    from paropt_exporter.engine.workers import PoolWorkers, get_pool_names

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

if not TYPE_CHECKING:  # with this function in sight a type checker would accept any misspelt name as Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
