"""A pytest plugin that puts our executors in the place of the standard ones: `pytest -p swapped_executors`.

It must be named on the command line, so that it is loaded before any conftest imports `concurrent.futures`' names.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread

from paropt_exporter import ProcessPool, ThreadPool


class ThreadPoolExecutor(ThreadPool):
    """Ours under the standard name, which is part of the names of some tests."""


class ProcessPoolExecutor(ProcessPool):
    """As above."""


for module in (concurrent.futures, concurrent.futures.thread):
    module.ThreadPoolExecutor = ThreadPoolExecutor  # type: ignore[attr-defined]
for module in (concurrent.futures, concurrent.futures.process):
    module.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[attr-defined]
