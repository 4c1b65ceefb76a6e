"""An executor of processes: the side of the process that owns it. The other side is `executors.worker`.

ProcessPool is loaded when it is first used: a lane of commands only asks `forkservers` whether there are workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paropt_exporter.executors.processes.executor import ProcessPool as ProcessPool

__all__ = ["ProcessPool"]

if not TYPE_CHECKING:  # a checker that saw this function would take every misspelt name for an Any

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from paropt_exporter.executors.processes import executor

        return getattr(executor, name)
