"""A pytest plugin that puts our executors in the place of the standard ones: `pytest -p swapped_executors`.

It must be named on the command line, so that it is loaded before any conftest imports `concurrent.futures`' names.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import concurrent.futures.thread

from paropt_exporter import ProcessPool, ThreadPool

for module in (concurrent.futures, concurrent.futures.thread):
    module.ThreadPoolExecutor = ThreadPool  # type: ignore[attr-defined, misc, assignment]
for module in (concurrent.futures, concurrent.futures.process):
    module.ProcessPoolExecutor = ProcessPool  # type: ignore[attr-defined, misc, assignment]
