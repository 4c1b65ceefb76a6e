"""An executor over threads and processes that measures which pool suits each function.

Names are loaded on first use: a lane routes its calls without an AdaptivePool.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paropt_exporter.executors.adaptive.adaptive_pool import AdaptivePool
    from paropt_exporter.executors.adaptive.routing import Router, thread_only

_HOMES = {"AdaptivePool": "adaptive_pool", "Router": "routing", "thread_only": "routing"}

__all__ = ["AdaptivePool", "Router", "thread_only"]

if not TYPE_CHECKING:  # a checker that saw this function would take every misspelt name for an Any

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
