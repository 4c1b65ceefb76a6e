"""Runs CPython's own executor tests, from the interpreter's files, with this package's pools in place of the library's.

Usage: PYTHONPATH=exporter python benchmarks/cpython_suite.py [-v] [MODULE...]

Needs a Python whose `test` package is installed (Debian: libpython3.15-testsuite) and cloudpickle. Exits with 1 if a
test fails that can hold for these pools; those that can't are listed with why.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import importlib.util
import sys
import unittest
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import paropt_exporter
from paropt_exporter.executors import ProcessPool, TaskFuture, ThreadPool

# Tests that can't hold for these pools, by why: classes, or methods in any class whose name begins as given.
LEFT_OUT = {
    "looks at the library's private attributes": (
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
        "ProcessPoolForkserverProcessPoolExecutorTest.test_max_tasks_per_child",
        "ProcessPoolSpawnProcessPoolExecutorTest.test_max_tasks_per_child",
        "ExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context",
        "ProcessPoolExecutorTest.test_traceback",
        "ProcessPoolExecutorTest.test_saturation",
        "FailingInitializerTest.test_initializer",
        "FailingInitializerResourcesTest.",
        "DeadlockTest.test_shutdown_deadlock_pickle",
        # since Python 3.14
        "ExecutorTest.test_terminate_workers",
        "ExecutorTest.test_kill_workers",
        "ExecutorTest.test_force_shutdown_workers",
        "ExecutorTest.test_force_shutdown_workers_stops_pool",
        "ExecutorTest.test_force_shutdown_workers_invalid_op",
        "ExecutorTest.test_shutdown_no_wait_max_tasks_gh119592",
        "ExecutorTest.test_gc_during_max_tasks_worker_exit_gh152967",
        "ExecutorTest.test_force_shutdown_during_max_tasks_worker_exit",
        "ExecutorTest.test_failed_worker_replacement_breaks_pool",
        "ExecutorTest.test_broken_process_pool_traceback",
        "ShutdownTest.test_shutdown_gh_132969_case_1",
        "ShutdownTest.test_shutdown_gh_132969_case_2",
        # since Python 3.15
        "ExecutorTest.test_traceback_when_child_process_terminates_abruptly",
    ),
    "wants the whole pool to break": (
        "ExecutorTest.test_killed_child",
        "ExecutorTest.test_python_finalization_error",
        "DeadlockTest.test_error_at_task_unpickle",
        "DeadlockTest.test_exit_at_task_unpickle",
        "DeadlockTest.test_error_during_result_unpickle_in_result_handler",
        "DeadlockTest.test_exit_during_result_unpickle_in_result_handler",
    ),
    "wants the library's class named in a text": (
        "FutureTests.test_repr",
        "FutureTests.test_multiple_set_result",
        "FutureTests.test_multiple_set_exception",
    ),
}

MODULES = (
    "test_as_completed",
    "test_future",
    "test_wait",
    "test_init",
    "test_shutdown",
    "test_thread_pool",
    "test_process_pool",
    "test_deadlock",
)

# Goes before the scripts of test_shutdown, which import an executor by its class's name.
_PREFIX = """
import sys
sys.path[:0] = {path!r}
import concurrent.futures, multiprocessing
from paropt_exporter.executors import ProcessPool, ThreadPool
concurrent.futures.ProcessPool, concurrent.futures.ThreadPool = ProcessPool, ThreadPool
concurrent.futures.ThreadPoolExecutor = ThreadPool
"""


def main() -> int:
    """Run the tests; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"default: {', '.join(MODULES)}")
    options = parser.parse_args()
    if importlib.util.find_spec("test.test_concurrent_futures") is None:
        print("skipped: this interpreter has no test.test_concurrent_futures")
        return 0
    _put_in_place()
    tests = list(_tests(options.modules or MODULES))
    kept = [test for test in tests if not _reason(test)]
    result = unittest.TextTestRunner(verbosity=1 + options.verbose).run(unittest.TestSuite(kept))
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed - len(result.skipped)
    print(f"{len(tests)} tests: {passed} passed, {failed} failed, {len(result.skipped)} skipped by themselves")
    for why, names in LEFT_OUT.items():
        count = sum(_reason(test) == why for test in tests)
        print(f"left out: {count}: {why}: {', '.join(names)}")
    return 0 if result.wasSuccessful() else 1


def _put_in_place() -> None:
    """Let the tests find our classes where they look for the library's."""
    util = _module("util")
    util.Future = TaskFuture
    for state in ("PENDING", "RUNNING", "CANCELLED", "CANCELLED_AND_NOTIFIED"):
        setattr(util, f"{state}_FUTURE", util.create_future(state=getattr(util, state)))
    util.EXCEPTION_FUTURE = util.create_future(state=util.FINISHED, exception=OSError())
    util.SUCCESSFUL_FUTURE = util.create_future(state=util.FINISHED, result=42)
    util.ThreadPoolMixin.executor_type = ThreadPool
    for mixin in (util.ProcessPoolForkMixin, util.ProcessPoolSpawnMixin, util.ProcessPoolForkserverMixin):
        mixin.executor_type = ProcessPool
    for name, ours in (("ThreadPoolExecutor", ThreadPool), ("ProcessPoolExecutor", ProcessPool)):
        setattr(concurrent.futures, name, ours)
    _module("test_future").Future = TaskFuture
    shutdown = _module("test_shutdown")
    plain = shutdown.assert_python_ok
    prefix = _PREFIX.format(path=[str(Path(paropt_exporter.__file__).parents[1]), *_folder_of("cloudpickle")])
    shutdown.assert_python_ok = lambda option, code: plain(option, prefix + code)


def _module(name: str) -> Any:
    return importlib.import_module(f"test.test_concurrent_futures.{name}")


def _folder_of(name: str) -> list[str]:
    spec = importlib.util.find_spec(name)
    return [str(Path(spec.origin).parents[1])] if spec is not None and spec.origin is not None else []


def _tests(names: Iterable[str]) -> Iterator[unittest.TestCase]:
    for name in names:
        yield from _flat(unittest.defaultTestLoader.loadTestsFromModule(_module(name)))


def _flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _flat(test)
        else:
            yield test


def _reason(test: unittest.TestCase) -> str:
    """Return why a test is left out, "" when it is not."""
    return next((why for why, names in LEFT_OUT.items() if any(_covers(name, test.id()) for name in names)), "")


def _covers(name: str, test_id: str) -> bool:
    return name in test_id if name.endswith(".") else test_id.endswith(name)


if __name__ == "__main__":
    sys.exit(main())
