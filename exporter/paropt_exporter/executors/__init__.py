"""Executors that can be resized while they run, measure their tasks and survive their workers.

Names are loaded when they are first used (PEP 562): a worker process imports `paropt_exporter.executors.worker` only.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers know the name; the supervisor and workers don't need typing

if TYPE_CHECKING:
    from paropt_exporter.executors.adaptive.adaptive_pool import AdaptivePool as AdaptivePool
    from paropt_exporter.executors.adaptive.routing import Router as Router
    from paropt_exporter.executors.adaptive.routing import thread_only as thread_only
    from paropt_exporter.executors.commands.command_pool import CommandOutcome as CommandOutcome
    from paropt_exporter.executors.commands.command_pool import CommandPool as CommandPool
    from paropt_exporter.executors.future import TaskFuture as TaskFuture
    from paropt_exporter.executors.processes.executor import ProcessPool as ProcessPool
    from paropt_exporter.executors.threads.thread_pool import ThreadPool as ThreadPool

__all__ = [
    "AdaptivePool",
    "CommandOutcome",
    "CommandPool",
    "ProcessPool",
    "Router",
    "TaskFuture",
    "ThreadPool",
    "thread_only",
]

_HOMES = {
    "AdaptivePool": "paropt_exporter.executors.adaptive.adaptive_pool",
    "CommandOutcome": "paropt_exporter.executors.commands.command_pool",
    "CommandPool": "paropt_exporter.executors.commands.command_pool",
    "ProcessPool": "paropt_exporter.executors.processes.executor",
    "Router": "paropt_exporter.executors.adaptive.routing",
    "TaskFuture": "paropt_exporter.executors.future",
    "ThreadPool": "paropt_exporter.executors.threads.thread_pool",
    "thread_only": "paropt_exporter.executors.adaptive.routing",
}

if not TYPE_CHECKING:  # if a type checker saw this function, it would accept any misspelt name as Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
