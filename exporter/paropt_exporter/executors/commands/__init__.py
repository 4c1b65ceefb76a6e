"""A pool that runs commands. The supervisor process (`executors.supervisor`) starts and reaps them.

The pool is loaded when it is first used, since the supervisor starts before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paropt_exporter.executors.commands.command_pool import CommandOutcome as CommandOutcome
    from paropt_exporter.executors.commands.command_pool import CommandPool as CommandPool

__all__ = ["CommandOutcome", "CommandPool"]

if not TYPE_CHECKING:  # a checker that saw this function would take every misspelt name for an Any

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from paropt_exporter.executors.commands import command_pool

        return getattr(command_pool, name)
