"""Runs CPython's own executor tests, from the interpreter's files, with this package's pools in place of the library's.

Usage: PYTHONPATH=exporter python benchmarks/cpython_suite.py [-v]   (any Python whose `test` package is installed)
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import sys
import unittest
from collections.abc import Iterator

from paropt_exporter.pool import ProcessPool, ThreadPool

# Tests that can't hold for these pools, by why: classes, or methods in any class whose name begins as given.
LEFT_OUT = {
    "looks at private attributes or classes (_threads, _processes, _broken, _RemoteTraceback)": (
        "ThreadPoolShutdownTest.test_threads_terminate",
        "ThreadPoolShutdownTest.test_thread_names_assigned",
        "ThreadPoolShutdownTest.test_thread_names_default",
        ".test_processes_terminate",
        ".test_context_manager_shutdown",
        ".test_del_shutdown",
        ".test_shutdown_no_wait",
        "ThreadPoolExecutorTest.test_default_workers",
        "ThreadPoolExecutorTest.test_saturation",
        "ThreadPoolExecutorTest.test_idle_thread_reuse",
        "ExecutorTest.test_idle_process_reuse_one",
        "ExecutorTest.test_idle_process_reuse_multiple",
        "ExecutorTest.test_killed_child",
        "ExecutorTest.test_python_finalization_error",
        "ProcessPoolExecutorTest.test_traceback",
        "ProcessPoolExecutorTest.test_saturation",
        "ThreadPoolFailingInitializerTest.",
    ),
    "imports the class by its name from concurrent.futures, in a script": (
        ".test_interpreter_shutdown",
        ".test_submit_after_interpreter_shutdown",
        ".test_hang_gh83386",
    ),
    "wants a task to have begun when a pool is shut down right after its start": ("ShutdownTest.test_cancel_futures",),
    "passes multiprocessing's own objects to the workers": (
        "ProcessPoolForkFailingInitializerTest.",
        "ProcessPoolSpawnFailingInitializerTest.",
        "ProcessPoolForkserverFailingInitializerTest.",
        "FailingInitializerResourcesTest.",
        "ProcessPoolExecutorTest.test_ressources_gced_in_workers",
    ),
}

MODULES = (
    "test_as_completed",
    "test_wait",
    "test_init",
    "test_shutdown",
    "test_thread_pool",
    "test_process_pool",
    "test_deadlock",
)


def main() -> int:
    """Run the tests; return the exit code."""
    if importlib.util.find_spec("test.test_concurrent_futures") is None:
        print("skipped: this interpreter has no test.test_concurrent_futures")
        return 0
    _put_in_place()
    tests = list(_tests())
    kept = [test for test in tests if not _is_left_out(test)]
    result = unittest.TextTestRunner(verbosity=1 + ("-v" in sys.argv)).run(unittest.TestSuite(kept))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun} of {len(tests)} run, {failed} failed, {len(result.skipped)} skipped")
    for why, names in LEFT_OUT.items():
        print(f"left out: {why}: {', '.join(names)}")
    return 0 if result.wasSuccessful() else 1


def _put_in_place() -> None:
    """Let the tests find our classes where they look for the library's."""
    util = importlib.import_module("test.test_concurrent_futures.util")
    util.ThreadPoolMixin.executor_type = ThreadPool
    for mixin in (util.ProcessPoolForkMixin, util.ProcessPoolSpawnMixin, util.ProcessPoolForkserverMixin):
        mixin.executor_type = ProcessPool
    for name, ours in (("ThreadPoolExecutor", ThreadPool), ("ProcessPoolExecutor", ProcessPool)):
        setattr(concurrent.futures, name, ours)


def _tests() -> Iterator[unittest.TestCase]:
    only = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for name in only or MODULES:
        module = importlib.import_module(f"test.test_concurrent_futures.{name}")
        yield from _flat(unittest.defaultTestLoader.loadTestsFromModule(module))


def _flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _is_left_out(test: unittest.TestCase) -> bool:
    return any(_covers(name, test.id()) for names in LEFT_OUT.values() for name in names)


def _covers(name: str, test_id: str) -> bool:
    return name in test_id if name.endswith(".") else test_id.endswith(name)


if __name__ == "__main__":
    sys.exit(main())
