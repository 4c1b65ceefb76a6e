"""Describe a decision about a pool and its reason in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from paropt_exporter.events import Decision

_MORE: Mapping[str, str] = MappingProxyType(
    {
        "demand": "tasks were waiting, and the cores had room for them",
        "deadline": "fewer workers would not have kept the lane's total",
        "rescue": "a stage was about to break its limit",
        "load": "a load signal asked for more",
        "limit": "a limit signal was within its target again",
        "bounds": "its bounds had changed",
        "pinned": "somebody pinned it to that size",
    }
)
_FEWER: Mapping[str, str] = MappingProxyType(
    {
        "plan": "fewer tasks are left than there were workers",
        "demand": "the tasks at hand need no more cores",
        "deadline": "fewer workers keep the lane's total as well",
        "load": "a load signal asked for less",
        "limit": "a limit signal was above its target",
        "cpu_limit": "the tasks that run want more cores than there are",
        "memory_limit": "memory had become short",
        "bounds": "its bounds had changed",
        "ineffective": "more tasks at once got no more done",
        "pinned": "somebody pinned it to that size",
    }
)
_SAME: Mapping[str, str] = MappingProxyType(
    {
        "plan": "there is a worker for each task that is left",
        "demand": "the tasks at hand need that many",
        "deadline": "that many keep the lane's total",
        "load": "a load signal asks for that many",
        "limit": "a limit signal is above its target",
        "cpu_limit": "the tasks that run take all cores",
        "memory_limit": "there is no memory for another task",
        "bounds": "its bounds allow no other size",
        "deadband": "another size would hardly differ",
        "stabilizing": "a smaller size has not been enough for long yet",
        "ineffective": "more tasks at once get no more done",
        "saturated": "more workers would not help",
        "flap_budget": "it has changed direction too often within an hour",
        "pinned": "somebody pinned it to that size",
        "paused": "somebody paused its sizing",
        "advised": "its mode is advise: sizes are computed, and not set",
        "query_failed": "a query to Prometheus failed",
        "no_data": "Prometheus had no data",
        "several_sources": "several exporters answered a query for one",
        "not_finite": "the answer to a query was infinite",
        "not_a_number": "the answer to a query was no number",
        "partial": "the answer to a query was incomplete",
        "stale": "the answer to a query was too old",
        "future": "the answer to a query was stamped in the future",
        "epoch": "the answer to a query was of an earlier process",
        "settling": "the answer to a query has not followed the last change yet",
        "disagree": "the answer to a query contradicts the pool's own counters",
    }
)
BY_ACTION: Mapping[str, Mapping[str, str]] = MappingProxyType({"up": _MORE, "down": _FEWER, "hold": _SAME})


def sentence(decision: Decision) -> str:
    """Return the sentence; a reason that only another version knows stands as it was recorded."""
    why = BY_ACTION.get(decision.action, {}).get(decision.reason, decision.reason)
    if decision.old_size == decision.new_size:
        return f"{decision.pool} stayed at {_workers(decision.new_size)}, because {why}."
    verb = "grew" if decision.new_size > decision.old_size else "shrank"
    return f"{decision.pool} {verb} from {decision.old_size} to {_workers(decision.new_size)}, because {why}."


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
