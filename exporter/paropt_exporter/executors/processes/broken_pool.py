"""The errors of a ProcessPool as `BrokenProcessPool`s, for programs that catch the standard library's class.

Loaded only if the program has loaded that class: it imports multiprocessing, which the pools do without.
"""

from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool

from paropt_exporter import errors


class WorkerDied(errors.WorkerDied, BrokenProcessPool):
    """A worker process exited during a task: only that task fails, the pool continues."""


class InitializerFailed(errors.InitializerFailed, BrokenProcessPool):
    """The initializer of a pool failed repeatedly: the pool has no worker and takes no tasks."""
