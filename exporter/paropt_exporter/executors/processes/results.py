"""Settles the futures of a worker's tasks by its replies."""

from __future__ import annotations

from typing import Any

from paropt_exporter.errors import UnpicklableError, describe
from paropt_exporter.executors.processes.batches import SECONDS_PER_BYTE, WorkItem
from paropt_exporter.executors.processes.manager import ProcessManager
from paropt_exporter.executors.processes.scheduler import Worker
from paropt_exporter.executors.worker import payload, wire

Body = bytes | bytearray | memoryview

_SHORTEST_MEASURED_SECONDS = 0.001  # shorter tasks are measured together, a batch at a time


def settle_batch(manager: ProcessManager, worker: Worker, replies: dict[int, wire.Reply]) -> None:
    """Settle the tasks of a batch, which are in `worker.settling`. Most of them are short and return a plain value."""
    counters, tasks, durations = worker.counters, worker.settling, manager.scheduler.durations
    function, count, total = b"", 0, 0.0
    for number, (kind, started, ended, value) in replies.items():
        seconds = ended - started
        if kind != wire.PLAIN or seconds > _SHORTEST_MEASURED_SECONDS:
            settle_task(manager, worker, (0, number, kind, started, ended, 0.0, 0.0, 0.0, 0), value)
            continue
        future, packed, _, _, _ = tasks.pop(number)
        if packed[0] is not function:
            durations.learn(function, total, count)
            function, count, total = packed[0], 0, 0.0
        count += 1
        total += seconds
        counters.busy_seconds += seconds
        future.started_seconds = started
        counters.succeeded += 1
        future.settle_result(value)
    durations.learn(function, total, count)


def settle_task(manager: ProcessManager, worker: Worker, head: wire.Head, body: Any) -> None:
    """Settle one task by its reply's plain value or body. Count it and remove it from the worker before that."""
    _, number, kind, started, ended, cpu, delay, _, memory = head
    item = worker.settling.pop(number)
    future, counters = item.future, worker.counters
    seconds = ended - started
    counters.busy_seconds += seconds
    size_bytes = 0 if kind == wire.PLAIN else len(body)
    manager.scheduler.durations.learn(item.packed[0], seconds + size_bytes * SECONDS_PER_BYTE, 1)
    future.started_seconds = started
    if item.profiled or seconds > _SHORTEST_MEASURED_SECONDS:
        future._usage = (worker.name, worker.pid, started, ended, cpu, delay, memory)
    if kind == wire.PLAIN:
        counters.succeeded += 1
        future.settle_result(body)
    elif kind == wire.VALUE:
        try:
            result = payload.loads(body)
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
            counters.failed += 1
            message = f"{future.label}: its result can't be loaded: {describe(error)}"
            future.settle_exception(_unpicklable(message, error))
        else:
            counters.succeeded += 1
            future.settle_result(result)
    elif kind != wire.UNLOADED or not _repack(manager, item, body):
        counters.failed += 1
        future.settle_exception(_load_error(item, kind, body))


def _load_error(item: WorkItem, kind: int, body: Body) -> BaseException:
    label = item.future.label
    if kind == wire.RAISED:
        try:
            return payload.load_error(body)
        except BaseException as error:  # noqa: BLE001 -- loading runs the user's code: that task's outcome
            return _unpicklable(f"{label}: its exception can't be loaded: {describe(error)}", error)
    text, detail = payload.loads(body)
    if kind == wire.UNLOADED:
        return UnpicklableError(f"{label}: the task can't be loaded in a worker: {text}")
    return _unpicklable(f"{label}: {text}", payload.RemoteTraceback(detail) if detail else None)


def _unpicklable(message: str, cause: BaseException | None) -> UnpicklableError:
    error = UnpicklableError(message)
    error.__cause__ = cause
    return error


def _repack(manager: ProcessManager, item: WorkItem, body: Body) -> bool:
    """Queue a task again if a module that only this process has was missing in the worker. It was not begun."""
    _, missing = payload.loads(body)
    if not missing or item.repacked:
        return False
    try:
        packed = manager.packer.pack_by_value(item.packed, missing)
    except Exception:  # noqa: BLE001 -- pickling runs the user's code; the worker's error is the one to report
        return False
    if packed is None:
        return False
    manager.requeue(item._replace(packed=packed, repacked=True))
    return True
