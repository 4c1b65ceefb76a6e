"""Settles the tasks of a worker process of a ProcessPool, by its replies or with the error of its exit."""

from __future__ import annotations

import marshal
import signal
import sys
from typing import TYPE_CHECKING, Any

from paropt_exporter.errors import InitializerFailed, UnpicklableError, WorkerDied, describe, explain_shortage
from paropt_exporter.executors.future import TaskFuture
from paropt_exporter.executors.processes.batches import LONGEST_HELD_SECONDS, SECONDS_PER_BYTE, WorkItem
from paropt_exporter.executors.processes.workers import WorkerProcess
from paropt_exporter.executors.worker import payload, wire

if TYPE_CHECKING:
    from paropt_exporter.executors.processes.manager import ProcessManager

Body = bytes | bytearray | memoryview
_SHORTEST_MEASURED_SECONDS = 0.001  # shorter tasks are measured together, a batch at a time


class ResultSettler:
    """Settles the tasks of one process that are in `settling`. For the worker's thread, without the scheduler's lock.

    It counts a task and removes it before it settles the future, whose callbacks run here and may do anything.
    """

    def __init__(self, manager: ProcessManager, process: WorkerProcess) -> None:
        self._manager = manager
        self._durations = manager.scheduler.durations
        self._process = process
        self._tasks = process.tasks
        self._counters = process.worker.counters

    def settle_batch(self, replies: dict[int, wire.Reply]) -> None:
        """Settle the tasks of a batch. Most of them are short and return a plain value."""
        counters, tasks, durations = self._counters, self._tasks.settling, self._durations
        function, label, count, total = b"", "", 0, 0.0
        for number, (kind, started, ended, value) in replies.items():
            seconds = ended - started
            if kind != wire.PLAIN or seconds > _SHORTEST_MEASURED_SECONDS:
                self._settle_task((0, number, kind, started, ended, 0.0, 0.0, 0.0, 0), value)
                continue
            future, packed, _, _, _ = tasks.pop(number)
            if packed[0] is not function:
                durations.learn(function, label, total, count)
                function, label, count, total = packed[0], future.label, 0, 0.0
            count += 1
            total += seconds
            counters.busy_seconds += seconds
            future.started_seconds = started
            counters.succeeded += 1
            future.settle_result(value)
        durations.learn(function, label, total, count)

    def settle_reply(self, head: wire.Head, body: Body) -> None:
        """Settle a task whose reply came through the socket; a large body is in shared memory."""
        if head[2] & wire.MEMORY_MARK:
            kind, connection = head[2] & ~wire.MEMORY_MARK, self._process.connection
            try:
                body = connection.view_body(body)
            except OSError as error:
                text = f"its result could not be read from its worker: {error}"
                kind, body = wire.LOST, payload.dumps((text, ""))
            self._settle_task((*head[:2], kind, *head[3:]), body, extra_seconds=LONGEST_HELD_SECONDS)
            connection.release_body()
        elif head[2] == wire.PLAIN:
            self._settle_task(head, marshal.loads(body))
        else:
            self._settle_task(head, body)

    def _settle_task(self, head: wire.Head, body: Any, *, extra_seconds: float = 0.0) -> None:
        """Settle one task by its reply's plain value or body.

        `extra_seconds` count as a part of its duration, so that the function's tasks travel alone.
        """
        _, number, kind, started, ended, cpu, delay, _, memory = head
        item = self._tasks.settling.pop(number)
        future, counters = item.future, self._counters
        seconds = ended - started
        counters.busy_seconds += seconds
        size_bytes = 0 if kind == wire.PLAIN else len(body)
        self._durations.learn(item.packed[0], future.label, seconds + size_bytes * SECONDS_PER_BYTE + extra_seconds, 1)
        future.started_seconds = started
        if item.profiled or seconds > _SHORTEST_MEASURED_SECONDS:
            process = self._process
            future._usage = (process.worker.name, process.pid, started, ended, cpu, delay, memory)
        if kind == wire.PLAIN:
            counters.succeeded += 1
            future.settle_result(body)
        elif kind == wire.VALUE:
            try:
                result = payload.loads(body)
            except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
                counters.failed += 1
                message = f"{future.label}: its result can't be loaded: {describe(error)}"
                self._settle_error(future, _unpicklable(message, payload.replace_traceback(error), is_result=True))
            else:
                counters.succeeded += 1
                future.settle_result(result)
        elif kind != wire.UNLOADED or not self._repack(item, body):
            counters.failed += 1
            self._settle_error(future, _load_error(item, kind, body))

    def _settle_error(self, future: TaskFuture[Any], error: BaseException) -> None:
        if isinstance(error, UnpicklableError) and error.is_result:
            self._manager.on_unsendable(future, error)  # before a waiting thread can submit the function's next task
        future.settle_exception(error)

    def _repack(self, item: WorkItem, body: Body) -> bool:
        """Queue a task again if a module that only this process has was missing in the worker. It was not begun."""
        _, missing = payload.loads(body)
        if not missing or item.repacked:
            return False
        try:
            packed = self._manager.packer.pack_by_value(item.packed, missing)
        except BaseException:  # noqa: BLE001 -- pickling runs the user's code; the worker's error is the one to report
            return False
        if packed is None:
            return False
        self._manager.requeue(item._replace(packed=packed, repacked=True))
        return True


def settle_lost(process: WorkerProcess, lost: list[WorkItem], message: str, code: int | None) -> None:
    """Fail tasks that were begun in a process which has ended, unless they were stopped. Count each before that."""
    counters = process.worker.counters
    for item in lost:
        if item.future is process.stopping or item.future.done():
            counters.cancelled += 1
        else:
            counters.errors += 1
        item.future.settle_exception(build_death_error(f"{item.future.label}: {message}", code))


def build_death_error(message: str, code: int | None) -> WorkerDied:
    return _get_error_types()[0](message, code)


def build_start_error(pool: str, error: BaseException) -> InitializerFailed:
    """Return the error of the tasks of a pool whose workers can't start."""
    why = explain_shortage(error) or repr(error)
    failed = _get_error_types()[1](f"workers of pool {pool!r} can't start: {why}")
    failed.__cause__ = error
    return failed


def _get_error_types() -> tuple[type[WorkerDied], type[InitializerFailed]]:
    """Return the classes of the errors: those that are `BrokenProcessPool`s if the program may catch that class."""
    if "concurrent.futures.process" not in sys.modules:
        return WorkerDied, InitializerFailed
    from paropt_exporter.executors.processes import broken_pool

    return broken_pool.WorkerDied, broken_pool.InitializerFailed


def describe_exit(process: WorkerProcess, code: int | None) -> str:
    """Return how and where a process ended."""
    name = process.worker.name
    where = f"in worker {name} (pid {process.pid})" if process.is_ready else f"in worker {name} before it was ready"
    if code is None:
        return f"ended for unknown reasons {where}"
    if code >= 0:
        return f"exited with code {code} {where}"
    try:
        killer = f"{signal.Signals(-code).name} ({-code})"
    except ValueError:
        killer = f"signal {-code}"
    hint = ", perhaps by the out-of-memory killer" if -code == signal.SIGKILL else ""
    return f"killed by {killer} {where}{hint}"


def _load_error(item: WorkItem, kind: int, body: Body) -> BaseException:
    label = item.future.label
    if kind == wire.RAISED:
        try:
            return payload.load_error(body)
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
            message = f"{label}: its exception can't be loaded: {describe(error)}"
            return _unpicklable(message, payload.replace_traceback(error))
    text, detail = payload.loads(body)
    if kind == wire.UNLOADED:
        return UnpicklableError(f"{label}: the task can't be loaded in a worker: {text}")
    cause = payload.RemoteTraceback(detail) if detail else None  # an exception has one
    return _unpicklable(f"{label}: {text}", cause, is_result=cause is None)


def _unpicklable(message: str, cause: BaseException | None, *, is_result: bool = False) -> UnpicklableError:
    error = UnpicklableError(message)
    error.__cause__, error.is_result = cause, is_result
    return error
