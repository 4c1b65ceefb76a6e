"""Run a plan's stages as a graph on pools, and emit events."""

from paropt_exporter.engine.inbox import QueueInbox
from paropt_exporter.engine.interfaces import Admission, Demand, StageCounts, Stop
from paropt_exporter.engine.observers import Observer, Observers
from paropt_exporter.engine.run import TERM_GRACE_SECONDS, Run
from paropt_exporter.engine.workers import PoolWorkers, get_pool_names

__all__ = [
    "TERM_GRACE_SECONDS",
    "Admission",
    "Demand",
    "Observer",
    "Observers",
    "PoolWorkers",
    "QueueInbox",
    "Run",
    "StageCounts",
    "Stop",
    "get_pool_names",
]
