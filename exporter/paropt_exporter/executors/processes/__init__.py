"""An executor of processes, as its parent process runs it; `executors.worker` is the code of the worker processes.

ProcessPool is loaded when it is first used, since a lane of commands needs `forkservers` only.
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
