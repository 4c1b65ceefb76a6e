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

# Tests that can't hold for these pools, each with why; a class's name covers its tests.
LEFT_OUT: dict[str, str] = {
    "test_shutdown.ThreadPoolShutdownTest.test_threads_terminate": "reads _threads",
    "test_shutdown.ThreadPoolShutdownTest.test_context_manager_shutdown": "reads _threads",
    "test_shutdown.ThreadPoolShutdownTest.test_del_shutdown": "reads _threads",
    "test_shutdown.ThreadPoolShutdownTest.test_shutdown_no_wait": "reads _threads",
    "test_shutdown.ThreadPoolShutdownTest.test_thread_names_assigned": "reads _threads",
    "test_shutdown.ThreadPoolShutdownTest.test_thread_names_default": "reads _threads",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_processes_terminate": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_context_manager_shutdown": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_del_shutdown": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_shutdown_no_wait": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_processes_terminate": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_context_manager_shutdown": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_del_shutdown": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_shutdown_no_wait": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_processes_terminate": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_context_manager_shutdown": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_del_shutdown": "reads _processes or _executor_manager_thread",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_shutdown_no_wait": "reads _processes or _executor_manager_thread",
    "test_shutdown.ThreadPoolShutdownTest.test_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ThreadPoolShutdownTest.test_submit_after_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ThreadPoolShutdownTest.test_hang_gh83386": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ThreadPoolShutdownTest.test_cancel_futures": "wants a task begun before the cancelling shutdown, at once after the start",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_submit_after_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_hang_gh83386": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolForkProcessPoolShutdownTest.test_cancel_futures": "wants a task begun before the cancelling shutdown, at once after the start",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_submit_after_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_hang_gh83386": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolSpawnProcessPoolShutdownTest.test_cancel_futures": "wants a task begun before the cancelling shutdown, at once after the start",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_submit_after_interpreter_shutdown": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_hang_gh83386": "imports the class by name from concurrent.futures in a script",
    "test_shutdown.ProcessPoolForkserverProcessPoolShutdownTest.test_cancel_futures": "wants a task begun before the cancelling shutdown, at once after the start",
    "test_init.ProcessPoolForkFailingInitializerTest": "passes a multiprocessing queue through initargs",
    "test_init.ProcessPoolForkInitializerTest": "passes multiprocessing objects through initargs",
    "test_init.ProcessPoolSpawnFailingInitializerTest": "passes a multiprocessing queue through initargs",
    "test_init.ProcessPoolSpawnInitializerTest": "passes multiprocessing objects through initargs",
    "test_init.ProcessPoolForkserverFailingInitializerTest": "passes a multiprocessing queue through initargs",
    "test_init.ProcessPoolForkserverInitializerTest": "passes multiprocessing objects through initargs",
    "test_thread_pool.ThreadPoolExecutorTest.test_default_workers": "reads _max_workers",
    "test_thread_pool.ThreadPoolExecutorTest.test_saturation": "reads _threads",
    "test_thread_pool.ThreadPoolExecutorTest.test_idle_thread_reuse": "reads _threads",
    "test_init.ThreadPoolFailingInitializerTest": "reads _broken",
    "test_init.FailingInitializerResourcesTest": "passes multiprocessing objects through initargs",
    "test_process_pool.ProcessPoolForkProcessPoolExecutorTest.test_idle_process_reuse_one": "reads _processes",
    "test_process_pool.ProcessPoolForkProcessPoolExecutorTest.test_idle_process_reuse_multiple": "reads _processes",
    "test_process_pool.ProcessPoolForkProcessPoolExecutorTest.test_killed_child": "reads _processes",
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest.test_idle_process_reuse_one": "reads _processes",
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest.test_idle_process_reuse_multiple": "reads _processes",
    "test_process_pool.ProcessPoolSpawnProcessPoolExecutorTest.test_killed_child": "reads _processes",
    "test_process_pool.ProcessPoolForkserverProcessPoolExecutorTest.test_idle_process_reuse_one": "reads _processes",
    "test_process_pool.ProcessPoolForkserverProcessPoolExecutorTest.test_idle_process_reuse_multiple": "reads _processes",
    "test_process_pool.ProcessPoolForkserverProcessPoolExecutorTest.test_killed_child": "reads _processes",
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
    kept = [test for test in tests if not _why_left_out(test)]
    result = unittest.TextTestRunner(verbosity=1 + ("-v" in sys.argv)).run(unittest.TestSuite(kept))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun} of {len(tests)} run, {failed} failed, {len(result.skipped)} skipped")
    for name, why in LEFT_OUT.items():
        print(f"left out: {name}: {why}")
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


def _why_left_out(test: unittest.TestCase) -> str:
    name = test.id().removeprefix("test.test_concurrent_futures.")
    return next((why for left, why in LEFT_OUT.items() if name == left or name.startswith(left + ".")), "")


if __name__ == "__main__":
    sys.exit(main())
