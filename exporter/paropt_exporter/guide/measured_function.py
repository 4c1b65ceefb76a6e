"""Measure the CPU time of a stage's function, in its own thread and in its child processes."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from functools import partial
from time import thread_time
from typing import Any

from paropt_exporter.executors.adaptive.routing import is_thread_only, thread_only
from paropt_exporter.executors.future import get_label


class ChildCpuMeter:
    """Attributes the CPU time of child processes to the tasks that run in this process's threads.

    The kernel adds a child's time to the whole process when a thread waits for the child. The meter attributes it to
    the next task that ends, which is exact for functions that end with `subprocess.run`. A function that runs several
    programs may lose the time of earlier ones to a concurrent task that ends in between.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards: both numbers
        self._seen_seconds = 0.0
        self._running = 0

    def begin_task(self) -> None:
        with self._lock:
            if not self._running:
                self._seen_seconds = _children_cpu_seconds()
            self._running += 1

    def end_task(self) -> float:
        """Return the CPU time of the children that were reaped since the last task ended."""
        with self._lock:
            self._running -= 1
            before, self._seen_seconds = self._seen_seconds, _children_cpu_seconds()
            return max(0.0, self._seen_seconds - before)


class MeasuredFunction:
    """A stage's function for a pool. It is pickled as the bare function, since worker processes measure themselves.

    It keeps the function's name and line, so that a pool has separate profiles for lambdas in one scope.
    """

    def __init__(self, function: Callable[..., Any], children: ChildCpuMeter) -> None:
        self.own_cpu_seconds: float | None = None  # of its thread; None if it ran in another process
        self.children_cpu_seconds = 0.0
        self._function = self.__wrapped__ = function  # the second for messages about parts that can't be pickled
        self._children = children
        self.__module__ = getattr(function, "__module__", None) or ""
        self.__qualname__ = f"{get_label(function)}:{_get_first_line(function)}"
        if is_thread_only(function):
            thread_only(self)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self._children.begin_task()
        began = thread_time()
        try:
            return self._function(*arguments, **keywords)
        finally:
            self.own_cpu_seconds = thread_time() - began
            self.children_cpu_seconds = self._children.end_task()

    def __reduce__(self) -> tuple[type[partial[Any]], tuple[Callable[..., Any]]]:
        return partial, (self._function,)


def _get_first_line(function: object) -> int:
    inner = getattr(function, "func", function)  # functools.partial
    code = getattr(inner, "__code__", None)
    return code.co_firstlineno if code is not None else 0


def _children_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
